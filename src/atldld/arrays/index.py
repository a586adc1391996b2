"""The index of the section dimension, and the guard of plane and space.

What must not mix: sections of two datasets along one dimension (their numbers would match by
accident), and arrays of two planes or reference spaces (x is r in one and p in the other).
Both indexes refuse it wherever xarray asks them: in arithmetic, align, merge, concat and
reindexing.

They cannot refuse where xarray does not ask: ``join="override"``, bare ``.data`` and
``.values``, ``drop_vars``, ``drop_indexes``, and files read back from Zarr or netCDF, which keep
coordinates but no custom index.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from xarray.core.indexes import PandasIndex
from xarray.core.indexing import IndexSelResult

from ..errors import MixError
from ..model.affine import Array
from ..model.bend import BendSource
from ..model.sections import SectionTable
from .internals import AlignedAs

DIM = "section"
GUARD = "reference_space"


def space_in(obj: xr.DataArray | xr.Dataset) -> Any:
    """Return the reference space by the coordinate that keeps spaces apart, or None without it."""
    if GUARD not in obj.coords or obj.coords[GUARD].ndim:
        return None
    return obj.coords[GUARD].item()


class SectionIndex(xr.Index, metaclass=AlignedAs, kind=PandasIndex):
    """The index of the section dimension: section numbers, and whose they are.

    Selection works by value, nearest and slice, whatever the order of the numbers; a slice
    takes what lies within its ends, both included.

    It spans the coordinate ``section`` alone. An index over the slice coordinate as well would
    make xarray refuse ``ds["name"] = array`` and ``groupby("section")``, and would go stale in
    ``interp(section=...)`` without a word; xarray selects by a plain coordinate anyway.

    Parameters
    ----------
    numbers
        Shape (n,), integers: the section numbers.
    images
        Shape (n,), integers: what tells sections apart, the image ids.
    stack
        Which dataset the sections are of, and what else must agree to match them, as text.
    name, dim
        Names of the coordinate and of its dimension.
    """

    def __init__(
        self,
        numbers: npt.ArrayLike,
        images: npt.ArrayLike,
        stack: str,
        name: Hashable = DIM,
        dim: Hashable = DIM,
    ) -> None:
        self.numbers = np.asarray(numbers)
        self.images = np.asarray(images)
        self.stack_name = stack
        self.name = name
        self.dim = dim

    def _take(self, places: Any, dim: Hashable | None = None) -> Self:
        return type(self)(
            self.numbers[places],
            self.images[places],
            self.stack_name,
            self.name,
            self.dim if dim is None else dim,
        )

    def create_variables(
        self, variables: Mapping[Any, xr.Variable] | None = None
    ) -> dict[Hashable, xr.Variable]:
        """Return the coordinate, with the attributes of the one in `variables`."""
        old = (variables or {}).get(self.name)
        attrs, encoding = (None, None) if old is None else (old.attrs, old.encoding)
        return {self.name: xr.Variable((self.dim,), self.numbers, attrs=attrs, encoding=encoding)}

    def to_pandas_index(self) -> pd.Index[Any]:
        """Return the section numbers."""
        index: pd.Index[Any] = pd.Index(self.numbers, name=self.name)
        return index

    def __getitem__(self, indexer: Any) -> Self:
        return self._take(indexer)

    def isel(self, indexers: Mapping[Any, Any]) -> Self | None:
        """Return the index of some sections, or None where one is left without a dimension."""
        indexer = indexers[self.dim]
        if isinstance(indexer, xr.Variable):
            return self._take(indexer.values, indexer.dims[0]) if indexer.ndim == 1 else None
        if not isinstance(indexer, slice) and np.ndim(indexer) == 0:
            return None
        return self._take(indexer)

    def sel(
        self, labels: dict[Any, Any], method: str | None = None, tolerance: float | None = None
    ) -> IndexSelResult:
        """Find sections by number.

        Parameters
        ----------
        labels
            The coordinate's name, and a number, a slice or an array of numbers. A number that
            two images share gives both.
        method
            None for the exact number, or ``"nearest"``, ``"pad"``, ``"backfill"``.
        tolerance
            Largest distance from the number that still counts.

        Raises
        ------
        KeyError
            If there is no such section; the message says which are nearest.
        """
        label = labels[self.name]
        if isinstance(label, slice):
            return IndexSelResult({self.dim: _within(self.numbers, label, self.name)})
        labelled = isinstance(label, xr.Variable | xr.DataArray)
        wanted = np.asarray(label.values if labelled else label)
        places = _found(self.numbers, wanted, self.name, method, tolerance)
        if (places < 0).any():
            raise _no_section(self.numbers, self.name, wanted[places < 0].ravel()[0])
        if method is None:
            alike = [np.flatnonzero(self.numbers == each) for each in wanted.ravel()]
            if wanted.ndim == 0 and not labelled and len(alike[0]) > 1:
                return IndexSelResult({self.dim: alike[0]})
            twice = [places for places in alike if len(places) > 1]
            if twice:
                number = self.numbers[twice[0][0]]
                raise KeyError(
                    f"several sections have {self.name}={number}; select by image_id instead"
                )
        if not labelled:
            return IndexSelResult({self.dim: places if places.ndim else int(places)})
        found: Any = xr.Variable(label.dims, places)
        if isinstance(label, xr.DataArray):
            found = xr.DataArray(found, coords=label.coords)
        return IndexSelResult({self.dim: found})

    @classmethod
    def concat(
        cls,
        indexes: Sequence[Self],
        dim: Hashable,
        positions: Iterable[Iterable[int]] | None = None,
    ) -> Self:
        """Join sections of one dataset end to end."""
        first = indexes[0]
        for other in indexes[1:]:
            first._refuse(other)
        numbers = np.concatenate([index.numbers for index in indexes])
        images = np.concatenate([index.images for index in indexes])
        if positions is not None:
            order = np.argsort(np.concatenate([np.asarray(list(part)) for part in positions]))
            numbers, images = numbers[order], images[order]
        return cls(numbers, images, first.stack_name, first.name, dim)

    def join(self, other: Self, how: str = "inner") -> Self:
        """Return the sections that both have, or all of both in order of their numbers."""
        if not isinstance(other, SectionIndex):
            raise self._unmatched()
        self._refuse(other)
        if how == "inner":
            return self._take(np.isin(self.images, other.images))
        extra = ~np.isin(other.images, self.images)
        numbers = np.concatenate([self.numbers, other.numbers[extra]])
        images = np.concatenate([self.images, other.images[extra]])
        order = np.argsort(numbers, kind="stable")
        if len(self.numbers) > 1 and self.numbers[0] > self.numbers[-1]:
            order = order[::-1]
        return type(self)(numbers[order], images[order], self.stack_name, self.name, self.dim)

    def reindex_like(
        self, other: SectionIndex | PandasIndex, **options: Any
    ) -> dict[Hashable, Any]:
        """Return the place of each section of `other` in this index, -1 where it is not.

        Numbers alone, as of ``interp(section=...)`` or ``reindex(section=...)``, name sections
        by being near to them; ``method`` says how.
        """
        if isinstance(other, PandasIndex):
            return {self.dim: self._near(other.index, **options)}
        if any(value is not None for value in options.values()):
            raise ValueError("sections are matched by identity: method and tolerance do not apply")
        self._refuse(other)
        own = pd.Index(self.images)
        if not own.is_unique:
            raise ValueError(
                f"{self!r} holds a section twice; it cannot be matched with other sections"
            )
        return {self.dim: own.get_indexer(pd.Index(other.images))}

    def equals(self, other: xr.Index, *, exclude: frozenset[Hashable] | None = None) -> bool:
        """Whether both hold the same sections of one dataset; refuses another dataset."""
        if not isinstance(other, SectionIndex):
            return False
        self._refuse(other)
        return np.array_equal(self.images, other.images)

    @property
    def index(self) -> pd.Index[Any]:
        """Refuse: a plain index asks for this to match its labels with section numbers."""
        raise self._unmatched()

    def _unmatched(self) -> MixError:
        return MixError(
            f"sections of {self.stack_name} cannot be matched along {self.dim!r} with labels that "
            "do not say whose they are, as of an array read from a file, or interpolated: equal "
            "numbers would be matched by accident. Use sel(section=...) to choose sections by "
            "number"
        )

    def _near(
        self, numbers: pd.Index[Any], method: str | None = None, tolerance: float | None = None
    ) -> npt.NDArray[np.intp]:
        if method is None:
            raise self._unmatched()
        return _found(self.numbers, numbers.to_numpy(), self.name, method, tolerance)

    def roll(self, shifts: Mapping[Any, int]) -> Self:
        """Return the index rolled along its dimension."""
        return self._take(np.roll(np.arange(len(self.numbers)), shifts[self.dim]))

    def rename(self, name_dict: Mapping[Any, Hashable], dims_dict: Mapping[Any, Hashable]) -> Self:
        """Return the index under other names of its coordinate or dimension."""
        new = self._take(slice(None), dims_dict.get(self.dim, self.dim))
        new.name = name_dict.get(self.name, self.name)
        return new

    def _refuse(self, other: SectionIndex) -> None:
        if self.stack_name != other.stack_name:
            raise MixError(
                f"sections of {self.stack_name} and of {other.stack_name} cannot be combined along "
                f"{self.dim!r}: equal section numbers would be matched by accident. Select one "
                "section of each, reduce over sections first, or open both as volumes on one grid"
            )

    def __repr__(self) -> str:
        return f"SectionIndex({len(self.numbers)} sections of {self.stack_name})"

    def _repr_inline_(self, max_width: int) -> str:
        return f"SectionIndex ({self.stack_name})"[:max_width]


def _found(
    values: npt.NDArray[Any], labels: Any, name: Hashable, method: str | None, tolerance: Any
) -> npt.NDArray[np.intp]:
    """Return the place of each label among values in any order, -1 for none, in its shape."""
    known = (None, "nearest", "pad", "ffill", "backfill", "bfill")
    if method not in known:
        raise ValueError(f"method {method!r} is not one of {known}")
    if method is None and tolerance is not None:
        raise ValueError("tolerance needs a method, such as method='nearest'")
    if tolerance is not None and not np.all(np.asarray(tolerance) >= 0):
        raise ValueError(f"tolerance {tolerance!r} must not be negative")
    wanted = np.asarray(labels)
    if wanted.dtype == bool and wanted.ndim:
        raise TypeError(f"{name} is selected by its values; truth values go to isel or where")
    if wanted.dtype.kind not in "iuf":
        raise KeyError(f"{name}={labels!r} is not a number")
    if not len(values) or not wanted.size:
        return np.full(wanted.shape, -1, dtype=np.intp)
    off = values[:, None].astype(np.float64) - wanted.ravel()
    distance = np.abs(off)
    if method in ("pad", "ffill"):
        distance[off > 0] = np.inf
    elif method in ("backfill", "bfill"):
        distance[off < 0] = np.inf
    reach = 0.0 if method is None else np.inf if tolerance is None else float(tolerance)
    nearest = distance.argmin(axis=0)
    least = distance.min(axis=0)
    places = np.where(np.isfinite(least) & (least <= reach), nearest, -1)
    return places.reshape(wanted.shape)


def _no_section(values: npt.NDArray[Any], name: Hashable, wanted: Any) -> KeyError:
    if np.isnan(wanted):
        return KeyError(f"{name}={wanted} is not a number")
    if len(values) == 0:
        return KeyError(f"{name}={wanted}: there are no sections")
    nearest = values[np.argmin(np.abs(values - wanted))]
    return KeyError(
        f"{name}={wanted}: no section within reach; the nearest is at {nearest}, and all lie from "
        f"{values.min()} to {values.max()}"
    )


def _within(values: npt.NDArray[Any], label: slice, name: Hashable) -> Any:
    """Return the places of the values within a slice, both ends included."""
    if label.step is not None and (not isinstance(label.step, int) or label.step < 1):
        raise ValueError(f"the step of a slice along {name!r} is {label.step!r}; it must be >= 1")
    ends = [end for end in (label.start, label.stop) if end is not None]
    if any(np.ndim(end) or np.asarray(end).dtype.kind not in "iuf" for end in ends):
        raise TypeError(f"the ends of a slice along {name!r} must be numbers, got {label}")
    low = -np.inf if label.start is None else label.start
    high = np.inf if label.stop is None else label.stop
    if low > high and len(values) > 1 and values[0] > values[-1]:
        low, high = high, low
    return in_a_row(np.flatnonzero((values >= low) & (values <= high))[:: label.step or 1])


def in_a_row(numbers: npt.NDArray[np.intp]) -> slice | npt.NDArray[np.intp]:
    """Return a slice for numbers that follow each other, which is quicker."""
    if len(numbers) and (np.diff(numbers) == 1).all():
        return slice(int(numbers[0]), int(numbers[-1]) + 1)
    return numbers


@dataclass(slots=True, eq=False)
class ImagePlaces:
    """Where the pixels of sections lie, whatever becomes of the values.

    xarray keeps the guard of one of two arrays that are combined, and asks no more than whether the
    two agree. If they put an image in two places, neither may speak for values in memory from
    then on: these could be of both.

    Parameters
    ----------
    table
        The sections that were opened, in the order of the stack.
    images
        Shape (n,): ids of the images whose pixels the array shows.
    affines
        Shape (n, 3, 3): for each, from (x, y, 1) to p, i, r in microns; x and y are those of the
        array's coordinates: microns, or pixels.
    contradicted
        Whether an array was combined with one that puts an image elsewhere.
    pixel_bends
        Where the bends of bent images come from, by image id, if x and y are pixels.
    """

    table: SectionTable
    images: npt.NDArray[np.int64]
    affines: Array
    contradicted: bool = False
    pixel_bends: Mapping[int, BendSource] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> ImagePlaces:
        return self

    def among(self, others: Iterable[ImagePlaces]) -> bool:
        """Whether one of others says the same."""
        return any(
            self is other
            or (
                np.array_equal(self.images, other.images)
                and np.array_equal(self.affines, other.affines)
            )
            for other in others
        )

    def hold_against(self, other: ImagePlaces) -> None:
        """Notice if an image lies elsewhere in `other`."""
        if self is other:
            return
        _, ours, theirs = np.intersect1d(self.images, other.images, return_indices=True)
        if not np.array_equal(self.affines[ours], other.affines[theirs]):
            self.contradicted = other.contradicted = True


class GuardIndex(xr.Index):
    """Keeps arrays of different planes or reference spaces apart, also after reductions.

    It sits on a scalar coordinate, the id of the reference space, which outlives `section`.

    Parameters
    ----------
    frame
        Plane and reference space, as text.
    ledgers
        Names of the ledgers of failures of the arrays that this one was made from.
    places
        Where the sections of these arrays lie. They are found by image id, so that no selection
        makes them untrue.
    """

    def __init__(
        self,
        name: Hashable,
        frame: str,
        ledgers: tuple[str, ...] = (),
        places: tuple[ImagePlaces, ...] = (),
    ) -> None:
        self.name = name
        self.frame = frame
        self.ledgers = ledgers
        self.places = places

    @classmethod
    def concat(
        cls,
        indexes: Sequence[Self],
        dim: Hashable,
        positions: Iterable[Iterable[int]] | None = None,
    ) -> Self:
        """Return the one guard of all, or refuse."""
        joined = indexes[0]
        for other in indexes[1:]:
            joined = joined.join(other)
        return joined

    def isel(self, indexers: Mapping[Any, Any]) -> Self:
        """Return the guard itself: selecting does not change the frame."""
        return self

    def sel(self, labels: dict[Any, Any]) -> IndexSelResult:
        """Refuse: a scalar cannot be selected by."""
        raise KeyError(f"{self.name!r} is the same for the whole array: {self.frame}")

    def join(self, other: Self, how: str = "inner") -> Self:
        """Return the guard of both, or refuse another frame."""
        self._refuse(other)
        return type(self)(
            self.name,
            self.frame,
            tuple(dict.fromkeys((*self.ledgers, *other.ledgers))),
            (*self.places, *(each for each in other.places if not each.among(self.places))),
        )

    def reindex_like(self, other: Self) -> dict[Hashable, Any]:
        """Refuse another frame; nothing to reindex."""
        self._refuse(other)
        return {}

    def equals(self, other: xr.Index, *, exclude: frozenset[Hashable] | None = None) -> bool:
        """Whether the frames agree; refuses where they do not."""
        if not isinstance(other, GuardIndex):
            return False
        self._refuse(other)
        return True

    def rename(
        self,
        name_dict: Mapping[Any, Hashable],
        dims_dict: Mapping[Any, Hashable],
    ) -> Self:
        """Return the guard under another name."""
        name = name_dict.get(self.name, self.name)
        return type(self)(name, self.frame, self.ledgers, self.places)

    def _refuse(self, other: Self) -> None:
        for ours in self.places:
            for theirs in other.places:
                ours.hold_against(theirs)
        if self.frame != other.frame:
            raise MixError(
                f"an array of {self.frame} and one of {other.frame} cannot be combined: their rows "
                "and columns are different directions. Open both with the same reference_space=, "
                "or as volumes on one grid"
            )

    def to_pandas_index(self) -> pd.Index[Any]:
        """Return the frame; `map_blocks` and ``.indexes`` ask for it."""
        return pd.Index([self.frame], name=self.name)

    def __repr__(self) -> str:
        return f"GuardIndex({self.frame})"

    def _repr_inline_(self, max_width: int) -> str:
        return f"GuardIndex ({self.frame})"[:max_width]
