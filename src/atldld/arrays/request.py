"""What a user asks of an opening: checked before anything is read."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..model import affine
from ..model.read import VIEWS, View
from ..model.space import AXES
from ..model.table import Detection
from ..sampling.reads import INTERPOLATIONS, Interpolation

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
    ) -> Request:
        """Return the options in their own types, or say which of them is wrong."""
        _one_of("on_error", on_error, ("raise", "fill"))
        if not isinstance(masked, bool):
            raise TypeError(f"masked is {masked!r}; it must be True or False")
        if masked and fill_value is not None:
            raise ValueError("masked=True puts NaN where nothing is covered; leave out fill_value")
        return cls(
            dataset_id=_whole("dataset_id", dataset_id, 0, 2**63 - 1),
            resolution=_positive("resolution", resolution),
            tier="auto" if _is(tier, "auto") else _whole("tier", tier, 0, _LARGEST_TIER),
            view=_one_of("view", view, VIEWS),
            mapping=_one_of("mapping", mapping, get_args(affine.Mapping)),
            detection_xy=_detection(detection_xy),
            region=_region(region),
            interpolation=_one_of("interpolation", interpolation, ("auto", *INTERPOLATIONS)),
            masked=masked,
            fill_value=None if fill_value is None else _whole("fill_value", fill_value, 0, 255),
            chunks=_chunks(chunks),
            reference_space="native" if _is(reference_space, "native") else _space(reference_space),
            fill_failed=on_error == "fill",
        )


def _is(value: Any, word: str) -> bool:
    return isinstance(value, str) and value == word


def _one_of(name: str, value: Any, known: Sequence[Any]) -> Any:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, known))}")
    return value


def _whole(name: str, value: Any, least: int, most: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; it must be a whole number")
    if not least <= number <= most:
        raise ValueError(f"{name} is {number}; it must be from {least} to {most}")
    return number


def _finite(name: str, value: Any) -> float:
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


def _positive(name: str, value: Any) -> float:
    number = _finite(name, value)
    if number <= 0:
        raise ValueError(f"{name} is {value!r}; it must be a number of microns above 0")
    return number


def _pair(name: str, value: Any) -> tuple[float, float]:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise TypeError(f"{name} is {value!r}; it must be two numbers")
    return _finite(name, value[0]), _finite(name, value[1])


def _detection(value: Any) -> Detection:
    if value is None or _is(value, "center"):
        return value  # type: ignore[no-any-return]  # narrowed by _is
    if isinstance(value, str):
        raise ValueError(f"detection_xy is {value!r}; it must be None, 'center' or (x, y)")
    return _pair("detection_xy", value)


def _region(value: Any) -> Region:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"region is {value!r}; it must be a dict such as {{'p': (6000, 7000)}}")
    region = {}
    for axis, ends in value.items():
        if axis not in AXES:
            raise ValueError(f"region has {axis!r}; its axes are {', '.join(map(repr, AXES))}")
        low, high = _pair(f"region {axis}", ends)
        if low > high:
            raise ValueError(f"region {axis} is ({low:g}, {high:g}); the lower end comes first")
        region[str(axis)] = low, high
    return region


def _chunks(value: Any) -> Chunks:
    if value is None or _is(value, "auto"):
        return value  # type: ignore[no-any-return]  # narrowed by _is
    if not isinstance(value, Mapping):
        raise TypeError(f"chunks is {value!r}; it must be 'auto', None or a dict of dimensions")
    return dict(value)


def _space(value: Any) -> int:
    number = _whole("reference_space", value, 0, 2**31)
    if number not in (9, 10):
        raise ValueError(f"reference_space is {number}; it must be 'native', 9 or 10")
    return number
