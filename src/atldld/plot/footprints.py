"""How sections lie in reference space, seen along each axis; from matrices alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..arrays.index import DIM, space_in
from ..arrays.opening import open_dataarray
from ..arrays.positions import geometry_table
from ..errors import library
from ..model.affine import Array
from ..model.geometry import image_corners, pixel_points
from ..model.space import AXES, extent
from ..source import Source
from .outlines import tables
from .pictures import name_of
from .plotting import axes_given, evenly_chosen, figure_of, three_axes
from .subject import axis_label, space_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MISSING = "#d62728"
_NUMBERS = 6
_VIEWS = (("p", "r", "i"), ("r", "p", "i"), ("i", "r", "p"))
"""For each panel the axis that it is seen along, the one to the right and the one down."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """How sections lie, n of them in ascending order of section number.

    Parameters
    ----------
    number
        Shape (n,): section numbers.
    corners
        Shape (n, 4, 3): p, i, r of the middles of the corner pixels, microns.
    missing, missing_corners
        Shape (m,) and (m, 4, 3): numbers that are lacking between, and where their images would
        lie.
    """

    number: npt.NDArray[np.int64]
    corners: Array
    missing: npt.NDArray[np.int64]
    missing_corners: Array


def placement(
    dataset: int | xr.DataArray | xr.Dataset,
    *,
    source: str | Source | None = None,
    ax: Any = None,
) -> Figure:
    """Draw how the sections of a dataset lie in reference space, seen along each axis.

    Each line is the border of a section's image. Nothing but metadata is read.

    Parameters
    ----------
    dataset
        Id of a section dataset, or sections as `atldld.open_dataarray` or `atldld.open_dataset`
        gave them, after any selection.
    source
        Where an id is looked up, as for `open_dataarray`.
    ax
        Three matplotlib Axes to draw into. By default a new figure.

    Returns
    -------
    matplotlib.figure.Figure
        Three panels of one scale: seen along p (r to the right, i down), along r (p to the right,
        i down) and along i (r to the right, p down). Solid lines: the images, from dark to light
        as their numbers grow, some with their number. Dashed red: where numbers are missing, by
        the most frequent step between numbers. Dotted: the extent of the space, where it is
        known. The title tells tilt and gaps, as ``.atlas.geometry()`` does.

    Raises
    ------
    ValueError
        If the object does not know where its sections lie.
    ImportError
        If matplotlib is missing.
    DatasetNotFoundError, RegistrationError, APIError
        As `open_dataarray`, of an id.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with AllenServer([phantom_dataset(dataset_id=1001, plane="sagittal")]) as server:
    ...     figure = atldld.plot.placement(1001, source=server.url)
    >>> [axes.get_title() for axes in figure.axes]
    ['seen along p', 'seen along r', 'seen along i']
    """
    library("matplotlib", "drawing")
    given = None if ax is None else axes_given(ax, 3, "it takes")
    if isinstance(dataset, xr.DataArray | xr.Dataset):
        sections = dataset
    else:
        sections = open_dataarray(dataset, source=source)
    layout = _layout(sections)
    space = extent(space_in(sections))
    if given is None:
        low, high = _limits(layout, space)
        figure, given = three_axes(*(high - low))
        figure.supxlabel(space_words(_one(sections)), fontsize="small", color="#555555")
        figure.suptitle(_title(sections, layout), fontsize="medium", parse_math=False)
    for axes, (along, right, down) in zip(given, _VIEWS, strict=False):
        _draw(axes, layout, space, right, down)
        axes.set_title(f"seen along {along}", fontsize="medium")
    return figure_of(given[0])


def _layout(sections: xr.DataArray | xr.Dataset) -> Layout:
    for name in ("image_id", DIM):
        if name not in sections.coords or sections.coords[name].ndim > 1:
            raise ValueError(f"the array has lost its coordinate {name!r}")
    images = [int(each) for each in np.atleast_1d(sections.coords["image_id"].values)]
    number = np.atleast_1d(sections.coords[DIM].values).astype(np.int64)
    order = np.argsort(number, kind="stable")
    corners = _footprints(sections, images)[order]
    missing, places = missing_between(number[order])
    below = np.floor(places).astype(int)
    share = (places - below)[:, None, None]
    between = (
        (1 - share) * corners[below] + share * corners[below + 1]
        if len(missing)
        else np.empty((0, 4, 3))
    )
    return Layout(number[order], corners, missing, between)


def _footprints(obj: xr.DataArray | xr.Dataset, images: list[int]) -> Array:
    """Return the corners of section images in reference space, shape (n, 4, 3): p, i, r.

    Raises
    ------
    ValueError
        If the object does not know where one of them lies.
    """
    known = tables(obj)
    if not known:
        raise ValueError(
            "this object holds no sections whose place is known: it does not come from atldld, or "
            "has lost the coordinates image_id and reference_space. Give what was opened, or the "
            "id of the dataset"
        )
    found = []
    for image in images:
        if image not in known:
            raise ValueError(f"this object shows image {image}, which its readers do not know")
        table, row = known[image]
        one = table.take(np.array([row]))
        found.append((pixel_points(one) @ image_corners(one.width, one.height))[0].T)
    return np.array(found).reshape(-1, 4, 3)


def missing_between(
    number: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], Array]:
    """Return section numbers that are lacking, by the most frequent step between neighbours.

    Parameters
    ----------
    number
        Shape (n,), ascending.

    Returns
    -------
    missing
        Shape (m,): the numbers.
    places
        Shape (m,): where they would be among those that are there, such as 2.5.

    Examples
    --------
    >>> missing_between(np.array([6, 14, 22, 38]))
    (array([30]), array([2.5]))
    """
    steps = np.diff(number)
    steps_there = steps[steps > 0]
    if not len(steps_there):
        return np.empty(0, dtype=np.int64), np.empty(0)
    values, counts = np.unique(steps_there, return_counts=True)
    usual = int(values[np.argmax(counts)])
    found, places = [], []
    for place, step in enumerate(steps.tolist()):
        lacking = round(step / usual) - 1
        for each in range(1, lacking + 1):
            share = each / (lacking + 1)
            found.append(round(number[place] + share * step))
            places.append(place + share)
    return np.array(found, dtype=np.int64), np.array(places, dtype=np.float64)


def _limits(layout: Layout, space: tuple[float, float, float] | None) -> tuple[Array, Array]:
    """Return the least and greatest p, i, r that a figure shows: all of the space and images."""
    points = layout.corners.reshape(-1, 3)
    if space is not None:
        points = np.concatenate([points, [np.zeros(3), space]])
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.03 * float((high - low).max())
    return low - margin, high + margin


def _draw(
    axes: Axes,
    layout: Layout,
    space: tuple[float, float, float] | None,
    right: str,
    down: str,
) -> None:
    from matplotlib import colormaps
    from matplotlib.collections import PolyCollection
    from matplotlib.patches import Rectangle

    pair = [AXES.index(right), AXES.index(down)]
    low, high = (ends[pair] for ends in _limits(layout, space))
    if space is not None:
        width, height = (space[axis] for axis in pair)
        frame = Rectangle(
            (0, 0), width, height, fill=False, linestyle=":", edgecolor="#555555", gid="space"
        )
        axes.add_patch(frame)
    shades = colormaps["viridis"](np.linspace(0, 0.85, len(layout.number)))
    axes.add_collection(
        PolyCollection(
            list(layout.corners[:, :, pair]),
            facecolors="none",
            edgecolors=shades,
            linewidths=0.9,
            gid="sections",
        ),
        autolim=False,
    )
    axes.add_collection(
        PolyCollection(
            list(layout.missing_corners[:, :, pair]),
            facecolors="none",
            edgecolors=_MISSING,
            linestyles="dashed",
            linewidths=0.9,
            gid="missing",
        ),
        autolim=False,
    )
    axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), aspect="equal")
    axes.set_xlabel(axis_label(right, upright=False))
    axes.set_ylabel(axis_label(down, upright=True))
    if not _face_on(layout, pair):
        _write_numbers(axes, layout, pair)


def _face_on(layout: Layout, pair: list[int]) -> bool:
    """Whether images are seen from the front: then they lie over each other."""
    return _areas(layout.corners[:, :, pair]) > 0.5 * _areas(layout.corners)


def _areas(corners: Array) -> float:
    """Return the area of parallelograms, of all together."""
    along, down = corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0]
    squares = (along**2).sum(axis=-1) * (down**2).sum(axis=-1)
    return float(np.sqrt(np.maximum(squares - (along * down).sum(axis=-1) ** 2, 0)).sum())


def _write_numbers(axes: Axes, layout: Layout, pair: list[int]) -> None:
    """Write some section numbers at one end of their lines."""
    spread = np.ptp(layout.corners.mean(axis=1)[:, pair], axis=0)
    across = int(np.argmin(spread))  # the axis that lines run along, more or less
    some = evenly_chosen(len(layout.number), _NUMBERS)
    for place in some:
        ring = layout.corners[place][:, pair]
        end = ring[np.argmin(ring[:, across])]
        axes.annotate(
            str(layout.number[place]),
            end,
            xytext=(0, 3) if across == 1 else (-3, 0),
            textcoords="offset points",
            ha="center" if across == 1 else "right",
            va="bottom" if across == 1 else "center",
            fontsize=6,
            color="#333333",
            annotation_clip=False,
        )


def _title(sections: xr.DataArray | xr.Dataset, layout: Layout) -> str:
    count = len(layout.number)
    parts = [f"{count} section{'s' if count > 1 else ''}"]
    shown = _one(sections)
    table = geometry_table(sections)
    tilt = table["tilt"]
    parts.append(f"tilt {tilt.mean():.1f}°")
    gaps = np.diff(layout.corners.mean(axis=1), axis=0)
    normal = table[["normal_p", "normal_i", "normal_r"]].to_numpy()[0]
    apart = np.abs(gaps @ normal)
    if len(apart):
        parts.append(f"{np.median(apart):.0f} µm apart, at most {apart.max():.0f} µm")
    if len(layout.missing):
        parts.append(f"{len(layout.missing)} missing")
    return ": ".join(each for each in (name_of(shown), ", ".join(parts)) if each)


def _one(sections: xr.DataArray | xr.Dataset) -> xr.DataArray:
    return sections if isinstance(sections, xr.DataArray) else next(iter(sections.values()))
