"""What a user asks of an opening: checked before anything is read."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..model import affine
from ..model.dataset import SectionDataset
from ..model.read import VIEWS, View
from ..model.registration import Registration
from ..model.sections import Detection
from ..model.space import AXES, can_flip
from ..sampling.reads import INTERPOLATIONS, Interpolation
from .registering import registration_from

Region = dict[str, tuple[float, float]]
Chunks = Literal["auto"] | Mapping[str, Any] | None

_LARGEST_TIER = 30


@dataclass(frozen=True, slots=True)
class Request:
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
    mapping: affine.Mapping
    detection_xy: Detection
    region: Region
    interpolation: Interpolation | Literal["auto"]
    masked: bool
    fill_value: int | None
    chunks: Chunks
    reference_space: int | Literal["native"]
    fill_failed: bool
    registration: Registration | None = None

    @classmethod
    def checked(
        cls,
        dataset_id: Any,
        *,
        resolution: Any,
        tier: Any,
        view: Any,
        mapping: Any,
        detection_xy: Any,
        region: Any,
        interpolation: Any,
        masked: Any,
        fill_value: Any,
        chunks: Any,
        reference_space: Any,
        on_error: Any,
        registration: Any = None,
    ) -> Request:
        """Return the options in their own types, or say which of them is wrong."""
        one_of("on_error", on_error, ("raise", "fill"))
        if not isinstance(masked, bool):
            raise TypeError(f"masked is {masked!r}; it must be True or False")
        if masked and fill_value is not None:
            raise ValueError("masked=True puts NaN where nothing is covered; leave out fill_value")
        return cls(
            dataset_id=whole_number("dataset_id", dataset_id, 0, 2**63 - 1),
            resolution=positive("resolution", resolution),
            tier="auto" if _is(tier, "auto") else whole_number("tier", tier, 0, _LARGEST_TIER),
            view=one_of("view", view, VIEWS),
            mapping=one_of("mapping", mapping, get_args(affine.Mapping)),
            detection_xy=_detection(detection_xy),
            region=checked_region(region),
            interpolation=one_of("interpolation", interpolation, ("auto", *INTERPOLATIONS)),
            masked=masked,
            fill_value=None
            if fill_value is None
            else whole_number("fill_value", fill_value, 0, 255),
            chunks=checked_chunks(chunks),
            reference_space=checked_space(reference_space),
            fill_failed=on_error == "fill",
            registration=None if registration is None else registration_from(registration),
        )


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
