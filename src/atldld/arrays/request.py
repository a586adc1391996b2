"""What a user asks of an opening: checked before anything is read."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..errors import AtldldError, AtldldWarning, DatasetNotFoundError
from ..model import affine
from ..model.dataset import SectionDataset
from ..model.grid import Grid, axis_through
from ..model.read import VIEWS, View
from ..model.registration import Registration
from ..model.sections import Detection
from ..model.space import AXES, can_flip, space_name
from ..sampling.reads import INTERPOLATIONS, Interpolation, serving_tiers
from ..source.protocol import Source, tiers_at_hand
from ..source.published import PublishedRegistration
from ..source.search import dataset_of_image
from .index import GUARD
from .registering import registration_from
from .volumes import Between

Region = dict[str, tuple[float, float]]
Chunks = Literal["auto"] | Mapping[str, Any] | None

LARGEST_TIER = 30
"""Times that a side may be halved: beyond, nothing is left of any image."""


@dataclass(frozen=True, slots=True)
class OpeningOptions:
    """The options of an opening, checked; `atldld.open_dataarray` says what they mean.

    Raises
    ------
    ValueError, TypeError
        From `checked`, if an option cannot be used.
    """

    dataset_id: int
    resolution: float
    tier: int | Literal["auto"]
    view: View
    region: Region
    interpolation: Interpolation | Literal["auto"]
    masked: bool
    chunks: Chunks
    reference_space: int | Literal["native"]
    fill_failed: bool
    mapping: affine.Mapping = "oblique"
    detection_xy: Detection = None
    fill_value: int | None = None
    registration: Registration | PublishedRegistration | None = None

    @classmethod
    def checked(cls, **given: Any) -> OpeningOptions:
        """Return the options in their own types, or say which of them is wrong."""
        values = checked(**given)
        if values["masked"] and values.get("fill_value") is not None:
            raise ValueError("masked=True puts NaN where nothing is covered; leave out fill_value")
        values["fill_failed"] = values.pop("on_error") == "fill"
        return cls(**values)


def checked(**given: Any) -> dict[str, Any]:
    """Return options of openings by name, each in its own type, or say which of them is wrong."""
    return {name: _CHECKS[name](value) for name, value in given.items()}


def _is(value: Any, word: str) -> bool:
    return isinstance(value, str) and value == word


def one_of(name: str, value: Any, known: Sequence[Any]) -> Any:
    """Return a text, one of those known, or say which they are."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, known))}")
    return value


def whole_number(name: str, value: Any, least: int, most: int) -> int:
    """Return a whole number within bounds, ends included, or say what would be right."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; it must be a whole number")
    if not least <= number <= most:
        raise ValueError(f"{name} is {number}; it must be from {least} to {most}")
    return number


def checked_id(name: str, value: Any) -> int:
    """Return the id of a dataset or image."""
    if isinstance(value, str):
        way = "without quotes" if value.strip().isdigit() else f"atldld.search({value!r}) finds ids"
        raise TypeError(f"{name} is {value!r}; it must be a whole number: {way}")
    return whole_number(name, value, 0, 2**63 - 1)


def finite(name: str, value: Any) -> float:
    """Return a number that is neither infinite nor NaN, or say what is wrong with it."""
    if isinstance(value, str | bytes | bool):
        raise TypeError(f"{name} is {value!r}; it must be a number")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}; it must be a number") from None
    except OverflowError:
        raise ValueError(f"{name} is too large; it must be a number of microns") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} is {value!r}; it must be finite")
    return number


def positive(name: str, value: Any) -> float:
    """Return a number of microns above 0."""
    number = finite(name, value)
    if number <= 0:
        raise ValueError(f"{name} is {value!r}; it must be a number of microns above 0")
    return number


def pair(name: str, value: Any) -> tuple[float, float]:
    """Return two finite numbers."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise TypeError(f"{name} is {value!r}; it must be two numbers")
    return finite(name, value[0]), finite(name, value[1])


def _detection(value: Any) -> Detection:
    if value is None or _is(value, "center"):
        return value  # type: ignore[no-any-return]  # narrowed by _is
    if isinstance(value, str):
        raise ValueError(f"detection_xy is {value!r}; it must be None, 'center' or (x, y)")
    return pair("detection_xy", value)


def checked_region(value: Any, axes: Sequence[str] = AXES) -> Region:
    """Return the ends of each axis that a region names, the lower first; None is no region."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"region is {value!r}; it must be a dict such as {{'p': (6000, 7000)}}")
    region = {}
    for axis, ends in value.items():
        if axis not in axes:
            raise ValueError(f"region has {axis!r}; its axes are {', '.join(map(repr, axes))}")
        low, high = pair(f"region {axis}", ends)
        if low > high:
            raise ValueError(f"region {axis} is ({low:g}, {high:g}); the lower end comes first")
        region[str(axis)] = low, high
    return region


def checked_chunks(value: Any) -> Chunks:
    """Return ``"auto"``, None or a dict."""
    if value is None or _is(value, "auto"):
        return value  # type: ignore[no-any-return]  # narrowed by _is
    if not isinstance(value, Mapping):
        raise TypeError(f"chunks is {value!r}; it must be 'auto', None or a dict of dimensions")
    return dict(value)


def checked_space(value: Any) -> int | Literal["native"]:
    """Return ``"native"``, 9 or 10."""
    if _is(value, "native"):
        return "native"
    if isinstance(value, str):
        way = ""
        if value.lower().startswith("ccf"):
            way = (
                ". Datasets lie in Allen's 2011 space, and no formula leads to CCFv3: a "
                "registration does, registration=..."
            )
        raise ValueError(f"reference_space is {value!r}; it must be 'native', 9 or 10{way}")
    number = whole_number("reference_space", value, 0, 2**31)
    if number not in (9, 10):
        raise ValueError(f"reference_space is {number}; it must be 'native', 9 or 10")
    return number


def target_space(
    record: SectionDataset, wanted: int | Literal["native"]
) -> tuple[int | None, bool]:
    """Return the space that a dataset is opened in, and whether its r is flipped for that."""
    native = record.reference_space
    if wanted in ("native", native):
        return native, False
    if not can_flip(native, int(wanted)):
        raise ValueError(
            f"dataset {record.id} lies in reference space {native}; only 9 and 10 can be turned "
            "into each other: use reference_space='native'"
        )
    return int(wanted), True


@dataclass(frozen=True, slots=True, eq=False)
class Like:
    """The nodes of another array.

    Parameters
    ----------
    coords
        Its p, i and r as they are.
    space
        The reference space that it says it lies in, or None.
    grid
        The evenly spaced nodes that hold them.
    picked
        Which of these they are, along each axis; a plain number where the axis is a scalar.
    """

    coords: dict[str, xr.Variable]
    space: int | str | None
    grid: Grid
    picked: dict[str, npt.NDArray[np.int64] | int]

    @classmethod
    def of(cls, like: Any, lone_step: float) -> Like:
        """Return the nodes of an array, or say what it lacks."""
        if not isinstance(like, xr.DataArray | xr.Dataset):
            raise TypeError(
                f"like is {type(like).__name__}; it must be an xarray object with p, i and r"
            )
        coords = {}
        for axis in AXES:
            if axis not in like.coords or like.coords[axis].ndim > 1:
                raise ValueError(
                    f"like has no {axis} along one dimension; it must have coordinates p, i and r "
                    "in microns, as volumes do"
                )
            variable = like.coords[axis].variable
            if variable.dtype.kind not in "iuf":
                raise TypeError(f"{axis} of like is {variable.dtype}; it must be microns")
            if variable.ndim and variable.dims != (axis,):
                raise ValueError(
                    f"{axis} of like lies along {variable.dims[0]!r}: that is an array of "
                    "sections; give an array with dimensions p, i and r"
                )
            coords[axis] = variable
        space = _space_of(like)
        axes, picked = [], {}
        for axis, variable in coords.items():
            values = np.atleast_1d(np.asarray(variable.values, dtype=np.float64))
            nodes, numbers = axis_through(values, axis, lone_step)
            axes.append(nodes)
            picked[axis] = numbers if variable.ndim else int(numbers[0])
        return cls(coords, space, Grid(AXES, tuple(axes)), picked)


@dataclass(frozen=True, slots=True, eq=False)
class VolumeOptions:
    """The options that only a volume has."""

    max_distance: float | None
    between: Between
    mirror: bool
    like: Like | None

    @classmethod
    def checked(cls, like: Any, resolution: float, **given: Any) -> VolumeOptions:
        """Return the options in their own types, or say which of them is wrong."""
        nodes = None if like is None else Like.of(like, resolution)
        return cls(like=nodes, **checked(**given))


def _space_of(like: xr.DataArray | xr.Dataset) -> int | str | None:
    """Return the reference space that an array says it lies in, or None where it does not say."""
    said: Any = like.coords[GUARD].item() if GUARD in like.coords else None
    if said is None:
        said = like.attrs.get("reference_space")
    if isinstance(said, str) and said:
        return said
    try:
        number = operator.index(said)
    except TypeError:
        return None
    return number if number >= 0 else None


def space_wanted(request: OpeningOptions, like: Like | None, record: SectionDataset) -> Any:
    """Return the reference space asked for: that of `like`, if nothing else is."""
    if like is None or like.space is None:
        return request.reference_space
    if isinstance(request.registration, Registration):
        if like.space != request.registration.reference_space:
            raise ValueError(
                f"like lies in {like.space}, and the registration leads to "
                f"{request.registration.space}: give an array in that space"
            )
        return request.reference_space
    if isinstance(like.space, str):
        raise ValueError(
            f"like lies in {like.space}, and there is no way there from the spaces of section "
            "datasets: give an array in reference space 9 or 10, or a registration that leads there"
        )
    native = record.reference_space
    if request.reference_space not in ("native", like.space):
        raise ValueError(
            f"like lies in {space_name(like.space)} (reference space {like.space}), but "
            f"reference_space={request.reference_space} is asked for: leave that out, or open "
            "like in that space"
        )
    if like.space != native and not can_flip(native, like.space):
        raise ValueError(
            f"like lies in reference space {like.space} and dataset {record.id} in {native}: there "
            "is no way from one to the other"
        )
    return "native" if like.space == native else like.space


def record_of(source: Source, dataset_id: int) -> SectionDataset:
    """Return a dataset of a source; of the id of an image, say whose it is.

    Raises
    ------
    DatasetNotFoundError, RegistrationError, APIError, BundleError
        As the source does.
    """
    try:
        return source.dataset(dataset_id)
    except DatasetNotFoundError as error:
        try:
            owner = dataset_of_image(source, dataset_id)
        except (AtldldError, TypeError):
            raise error from None
        raise DatasetNotFoundError(
            f"there is no section dataset {dataset_id}: that is the id of a section image of "
            f"dataset {owner.id}. open_image({dataset_id}) opens it, open_dataarray({owner.id}) "
            "its dataset"
        ) from None


def serving(
    source: Source,
    request: OpeningOptions,
    image_ids: npt.NDArray[np.int64],
    tiers: npt.NDArray[np.int16],
) -> npt.NDArray[np.int16]:
    """Return the tiers that serve ``tier="auto"`` where a source has only some of them."""
    if request.tier != "auto":
        return tiers
    at_hand = [tiers_at_hand(source, int(each), request.view) for each in image_ids]
    return serving_tiers(tiers, at_hand)


def warn_of_tiers(
    record: SectionDataset, wanted: int | Literal["auto"], chosen: npt.NDArray[Any], stacklevel: int
) -> None:
    """Warn where no section has such a tier; `stacklevel` counts from the caller."""
    if wanted == "auto" or len(chosen) == 0 or int(chosen.max()) == wanted:
        return
    warnings.warn(
        f"dataset {record.id}: no section has a tier {wanted}; each is read at its last one, up to "
        f"{int(chosen.max())} (the coordinate 'tier' says which)",
        AtldldWarning,
        stacklevel=stacklevel + 1,
    )


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; it must be True or False")
    return value


def _tier(value: Any) -> int | Literal["auto"]:
    return "auto" if _is(value, "auto") else whole_number("tier", value, 0, LARGEST_TIER)


def _fill_value(value: Any) -> int | None:
    return None if value is None else whole_number("fill_value", value, 0, 255)


def _max_distance(value: Any) -> float | None:
    if value is None:
        return None
    distance = finite("max_distance", value)
    if distance < 0:
        raise ValueError(f"max_distance is {distance:g}; it must be a number of microns, 0 or more")
    return distance


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "dataset_id": partial(checked_id, "dataset_id"),
    "image_id": partial(checked_id, "image_id"),
    "resolution": partial(positive, "resolution"),
    "tier": _tier,
    "view": partial(one_of, "view", known=VIEWS),
    "mapping": partial(one_of, "mapping", known=get_args(affine.Mapping)),
    "detection_xy": _detection,
    "region": checked_region,
    "interpolation": partial(one_of, "interpolation", known=("auto", *INTERPOLATIONS)),
    "masked": partial(_flag, "masked"),
    "fill_value": lambda value: (
        None if value is None else whole_number("fill_value", value, 0, 255)
    ),
    "chunks": checked_chunks,
    "reference_space": checked_space,
    "registration": lambda value: None if value is None else registration_from(value),
    "on_error": partial(one_of, "on_error", known=("raise", "fill")),
    "include_expression": partial(_flag, "include_expression"),
    "between": partial(one_of, "between", known=get_args(Between)),
    "mirror": partial(_flag, "mirror"),
    "max_distance": _max_distance,
}
"""What each option of an opening must be: written here alone."""
