"""What an array to be drawn is, and which planes of a volume are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..arrays.index import DIM
from ..arrays.internals import in_memory
from ..arrays.planning import readers
from ..arrays.positions import array_in, axes_along, section_points
from ..arrays.volumes import StackBox, StackSampling
from ..model.affine import Array
from ..model.space import AXES, PLANES

Kind = Literal["sections", "section", "pixels", "volume", "plane"]

_EVEN = 1e-6
_OTHER_SIDE = {"left": "right", "right": "left"}
_ENDS = {"p": ("anterior", "posterior"), "i": ("dorsal", "ventral"), "r": ("left", "right")}


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """An array, and which of its dimensions run down and to the right.

    Parameters
    ----------
    kind
        ``"sections"`` over section, y, x; ``"section"`` over y, x in microns; ``"pixels"`` over
        y, x in full-resolution pixels; ``"volume"`` over p, i, r; ``"plane"`` over two of these.
    array
        The array; ``channel``, if there is one, comes last.
    down, right
        Names of the dimensions of a picture; of a volume, those of no picture yet.
    axes
        Which of p, i, r the two run along, or None for native pixels.
    """

    kind: Kind
    array: xr.DataArray
    down: str
    right: str
    axes: tuple[str, str] | None

    @property
    def coloured(self) -> bool:
        """Whether a pixel has three values."""
        return "channel" in self.array.dims

    def at(self, most: int, **places: int) -> Subject:
        """Return one picture, thinned so that no side has more than `most` pixels.

        Of each block of pixels that is left out one about the middle stays, so that nothing is
        shifted. All is selected at once: dask folds one selection into the read, not a second.

        Parameters
        ----------
        most
            Pixels.
        **places
            Where along the dimension that is no side of the picture.
        """
        kind, down, right, axes = self.kind, self.down, self.right, self.axes
        if kind == "volume":
            (axis,) = places
            plane = next(each for each in PLANES.values() if AXES[each.section] == axis)
            kind, down, right, axes = "plane", plane.axes[1], plane.axes[2], plane.axes[1:]
        elif kind == "sections":
            kind = "section"
        step = -(-max(self.array.sizes[down], self.array.sizes[right]) // most)
        chosen: dict[str, Any] = dict(places)
        if step > 1:
            for dim in (down, right):
                chosen[dim] = slice(min((step - 1) // 2, self.array.sizes[dim] - 1), None, step)
        array = self.array.isel(chosen) if chosen else self.array
        if kind == "plane":
            array = array.transpose(down, right, ...)
        return Subject(kind, array, down, right, axes)

    def label(self, dim: str) -> str:
        """Return the label of the axis that a dimension runs along."""
        if self.axes is None:
            return _pixels_label(self.array, dim, upright=dim == self.down)
        axis = self.axes[0] if dim == self.down else self.axes[1]
        return axis_label(axis, upright=dim == self.down)


def axis_label(axis: str, *, upright: bool) -> str:
    """Return the label of an axis of reference space, as it is read along it.

    The label of an upright axis is read from below, and what stands on it grows downwards.

    Examples
    --------
    >>> axis_label("i", upright=True)
    'ventral ← i [µm] → dorsal'
    """
    low, high = reversed(_ENDS[axis]) if upright else _ENDS[axis]
    return _between(low, f"{axis} [µm]", high)


def directions(axes: tuple[str, str]) -> str:
    """Return what lies where in a picture, in words, by the axes of its rows and columns.

    Examples
    --------
    >>> directions(("i", "r"))
    'left ← r → right, dorsal at the top'
    """
    low, high = _ENDS[axes[1]]
    return f"{_between(low, axes[1], high)}, {_ENDS[axes[0]][0]} at the top"


def space_words(array: xr.DataArray) -> str:
    """Return which space an array lies in, and where its tissue is from; empty if it is not told.

    Examples
    --------
    >>> attrs = {"reference_space": 9, "reference_space_name": "P56 Brain",
    ...          "native_reference_space": 10, "hemisphere": "left"}
    >>> space_words(xr.DataArray(0, attrs=attrs))
    'P56 Brain (space 9); tissue of the left hemisphere, shown on the right'
    """
    attrs = array.attrs
    name, space = str(attrs.get("reference_space_name", "")), attrs.get("reference_space")
    if not name:
        return ""
    words = (
        name if isinstance(space, str) or name.endswith(str(space)) else f"{name} (space {space})"
    )
    side = attrs.get("hemisphere")
    if side in _OTHER_SIDE:
        words += f"; tissue of the {side} hemisphere"
        if {space, attrs.get("native_reference_space")} == {9, 10}:
            words += f", shown on the {_OTHER_SIDE[side]}"
    return words


def _pixels_label(array: xr.DataArray, dim: str, *, upright: bool) -> str:
    """Return the label of native pixels, with what they run towards where that is known."""
    words = f"{dim} [full-resolution pixels]"
    try:
        affine = section_points(array).affines[0]
    except ValueError:
        return words
    runs = affine[:, 0 if dim == "x" else 1]
    along = int(np.argmax(np.abs(runs)))
    low, high = _ENDS[AXES[along]]
    if (runs[along] < 0) != upright:
        low, high = high, low
    return _between(low, words, high)


def _between(low: str, words: str, high: str) -> str:
    return f"{low} \N{LEFTWARDS ARROW} {words} \N{RIGHTWARDS ARROW} {high}"


def subject(obj: Any) -> Subject:
    """Return what an array is.

    Parameters
    ----------
    obj
        What `atldld.open_dataarray`, `atldld.open_dataset`, `atldld.open_image` or
        `atldld.open_volume` gave, or what was made of it. A Dataset stands for its ``image``.

    Raises
    ------
    TypeError, ValueError
        If it cannot be drawn; the message says why.
    """
    array = array_in(obj, "drawn")
    if array.dtype.kind not in "buif":
        raise TypeError(f"values are {array.dtype}; they must be numbers")
    if 0 in array.shape:
        raise ValueError(f"there is nothing to draw: the array has the shape {array.shape}")
    if "channel" in array.dims and array.sizes["channel"] == 1:
        array = array.isel(channel=0)
    if "channel" in array.dims and array.sizes["channel"] != 3:
        raise ValueError(
            f"the array has {array.sizes['channel']} channels; select one, or keep all three"
        )
    dims = set(map(str, array.dims)) - {"channel"}
    if dims in ({"y", "x"}, {DIM, "y", "x"}):
        return _of_sections(array)
    if dims == set(AXES):
        return _picture("volume", array, "i", "r", ("i", "r"), first=("p",))
    for plane in PLANES.values():
        if dims == set(plane.axes[1:]):
            return _picture("plane", array, plane.axes[1], plane.axes[2], plane.axes[1:])
    raise ValueError(
        f"the array has the dimensions {array.dims}; it must have y and x, section, y and x, or "
        "two or three of p, i and r, and may have channel. For anything else there is .plot() of "
        "xarray"
    )


def _of_sections(array: xr.DataArray) -> Subject:
    along = axes_along(array)
    if not {("y",), ("x",)} <= {*along}:
        if DIM in array.dims:
            raise ValueError("the array has lost the coordinates p, i or r of its sections")
        return _picture("pixels", array, "y", "x", None)
    axes = along["y",], along["x",]
    if DIM in array.dims:
        if array.sizes[DIM] > 1:
            return _picture("sections", array, "y", "x", axes, first=(DIM,))
        array = array.isel({DIM: 0})
    return _picture("section", array, "y", "x", axes)


def _picture(
    kind: Kind,
    array: xr.DataArray,
    down: str,
    right: str,
    axes: tuple[str, ...] | None,
    *,
    first: tuple[str, ...] = (),
) -> Subject:
    order = (*first, down, right)
    for dim in order[-2:] if kind != "volume" else AXES:
        if dim not in array.coords or array.coords[dim].dims != (dim,):
            raise ValueError(f"the array has lost its coordinate {dim}")
        _check_even(array.coords[dim].values, dim)
    array = array.transpose(*order, *(["channel"] if "channel" in array.dims else []))
    return Subject(kind, array, down, right, None if axes is None else (axes[0], axes[1]))


def _check_even(values: npt.NDArray[Any], dim: str) -> None:
    steps = np.diff(values.astype(np.float64))
    if len(steps) and (not steps[0] or np.ptp(steps) > _EVEN * abs(steps[0]) * len(values)):
        raise ValueError(
            f"the coordinates of {dim} are not even, a picture of them would be distorted: "
            "select a slice, or interpolate onto even ones"
        )


def edges(values: Array, fallback: float) -> tuple[float, float]:
    """Return the outer edges of pixels along one side of a picture, ascending.

    Parameters
    ----------
    values
        Shape (n,): where the middles of the pixels are, evenly spaced.
    fallback
        The step, where there is one pixel only.

    Examples
    --------
    >>> edges(np.array([100.0, 200.0, 300.0]), 1.0)
    (50.0, 350.0)
    """
    half = abs(float(values[-1] - values[0])) / (len(values) - 1) / 2 if len(values) > 1 else 0.0
    half = half or fallback / 2
    return float(values.min()) - half, float(values.max()) + half


_THIN = 48
"""Nodes along an axis that are looked at to find the middle of what is covered."""


def nodes_at(array: xr.DataArray, point: dict[str, float]) -> dict[str, int]:
    """Return the place of the nearest node to a point, along each of p, i, r.

    Parameters
    ----------
    array
        A volume.
    point
        Microns along some axes; along the others, the middle of what is covered is taken.

    Raises
    ------
    ValueError
        If the point lies outside the volume.
    """
    for axis, value in point.items():
        values = array[axis].values
        low, high = float(values.min()), float(values.max())
        half = (high - low) / max(len(values) - 1, 1) / 2
        if not low - half <= value <= high + half:
            raise ValueError(
                f"{axis}={value:g} lies outside the volume, which reaches from {low:g} to {high:g}"
            )
    middle = {} if len(point) == 3 else _middle(array)
    return {
        axis: int(np.argmin(np.abs(array[axis].values - point.get(axis, middle.get(axis)))))
        for axis in AXES
    }


def _middle(array: xr.DataArray) -> dict[str, float]:
    """Return the middle of the box around what sections cover, within the volume, in microns."""
    spans = _covered(array)
    found = {}
    for axis in AXES:
        values = array[axis].values
        low, high = float(values.min()), float(values.max())
        least, most = spans.get(axis, (low, high))
        if least <= high and most >= low:
            low, high = max(low, least), min(high, most)
        found[axis] = (low + high) / 2
    return found


def _covered(array: xr.DataArray) -> dict[str, tuple[float, float]]:
    """Return from where to where nodes show a section along each axis, of what is opened."""
    thin = {axis: slice(None, None, -(-array.sizes[axis] // 4)) for axis in AXES}
    found: dict[str, tuple[float, float]] = {}
    for reader in readers(array.isel(thin)):
        sampling = getattr(reader, "sampling", None)
        if not isinstance(sampling, StackSampling):
            continue
        along = [sampling.grid.axes[axis] for axis in sampling.axes]
        numbers = [_spread(nodes.numbers) for nodes in along]
        shown = StackBox(sampling, numbers[0], numbers[1], numbers[2]).shown_by(0)
        if not shown.any():
            continue
        for place, axis in enumerate(sampling.axes):
            some = numbers[place][shown.any(axis=tuple({0, 1, 2} - {place}))]
            ends = along[place].at(some[[0, -1]])
            found[AXES[axis]] = (float(ends[0]), float(ends[1]))
    return found or _finite(array)


def _spread(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return some of the numbers, evenly chosen, both ends among them."""
    count = min(len(numbers), _THIN)
    return np.asarray(numbers[np.unique(np.linspace(0, len(numbers) - 1, count).astype(int))])


def _finite(array: xr.DataArray) -> dict[str, tuple[float, float]]:
    """Return the same of values in memory that are NaN where nothing is covered."""
    if array.dtype.kind != "f" or not in_memory(array):
        return {}
    there = array.copy(data=np.isfinite(array.values))
    found = {}
    for axis in AXES:
        some = there.any([dim for dim in there.dims if dim != axis]).values
        if some.any():
            ends = array[axis].values[some]
            found[axis] = (float(ends.min()), float(ends.max()))
    return found
