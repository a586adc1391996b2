"""Pictures of sections and volumes: a contact sheet, one section, native pixels, three planes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..arrays.index import DIM
from ..errors import library
from ..model.space import AXES
from .panel import Heat, Panel, draw, heat_colours, hide_ticks, label_axes, scale_bar, write_title
from .pictures import MOST_BYTES, Overlay, Wanted, name_of, overlay_of, panels_of, place_of
from .subject import Subject, directions, nodes_at, space_words, subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _TALLEST = 10.0, 11.0
"""Inches of a new figure: across, and at most down."""

_LONGEST = 1600
_LONGEST_ON_SHEET = 500
_CROSS = "#e7298a"
_VALUE_SIZE = 0.7


def plot(
    obj: xr.DataArray | xr.Dataset,
    *,
    p: float | None = None,
    i: float | None = None,
    r: float | None = None,
    overlay: xr.DataArray | str | None = None,
    alpha: float = 0.6,
    outline: bool = True,
    panels: int = 24,
    max_bytes: float = MOST_BYTES,
    ax: Any = None,
) -> Figure:
    """Draw sections, one section, the pixels of an image, or a volume.

    Sections become a contact sheet; of more than `panels` of them, evenly chosen ones. One
    section is drawn on its reference axes, a volume as three planes through a point.

    Sections stand upright: dorsal is up, as i grows downwards. Sagittal ones look to the left
    (anterior is left, p grows to the right); in coronal ones r grows to the right; in transverse
    ones anterior is up and r grows to the right. Native pixels are drawn as they are stored.

    Parameters
    ----------
    obj
        What `atldld.open_dataarray`, `atldld.open_dataset`, `atldld.open_image` or
        `atldld.open_volume` gave, after any selection or arithmetic that keeps its coordinates;
        of a Dataset its ``image``. Only what is drawn is read: of the sections or planes that
        are shown, every so manieth pixel.
    p, i, r
        Of a volume: the point, in microns, that the three planes go through (the nearest nodes
        to it). By default the middle of what the sections cover.
    overlay
        What to draw over it: an array on the same grid, such as ``expression`` (or its name in
        the Dataset), transparent where it is black; or an annotation from
        `atldld.open_annotation`, whose borders are drawn where the exact p, i, r of the pixels
        lie, with the acronyms of the structures where the annotation was opened by name.
        ``"borders"`` takes Allen's own of the space that the array lies in, at 25 microns: the one
        of 2011, or with a registration the one of CCFv3, which refuses that of 2011.
    alpha
        How opaque an array laid over is, 0 to 1.
    outline
        Whether to draw the border of what the image of a section covers. It follows from the
        matrices, and is left out where the array has lost what carries them.
    panels
        Most panels of a contact sheet.
    max_bytes
        Most bytes of decoded image pixels that may be read.
    ax
        matplotlib Axes to draw into: one, for a volume three, for a contact sheet as many as
        there are panels (of fewer, that many sections are chosen). By default a new figure.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Raises
    ------
    ValueError, TypeError
        If something cannot be drawn, or too much would be read; nothing is read then.
    ImportError
        If matplotlib is missing.
    ImageError
        If an image cannot be had, unless the array was opened with ``on_error="fill"``: then its
        panel stays empty and says so.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with AllenServer([phantom_dataset(dataset_id=1001, plane="sagittal")]) as server:
    ...     sections = atldld.open_dataarray(1001, resolution=200, source=server.url)
    ...     figure = sections.isel(section=[2, 5, 8]).atlas.plot()
    >>> [axes.get_title() for axes in figure.axes]
    ['18: r = 2556 µm', '45: r = 3285 µm', '81: r = 4258 µm']
    """
    library("matplotlib", "drawing")
    chosen = subject(obj)
    point = {axis: value for axis, value in (("p", p), ("i", i), ("r", r)) if value is not None}
    if point and chosen.kind != "volume":
        raise ValueError(
            f"{', '.join(point)} chooses the planes of a volume, which this is not: use "
            ".atlas.at() to select sections"
        )
    over = overlay_of(obj, chosen, overlay, alpha)
    reading = {"outlined": outline, "max_bytes": max_bytes}
    if chosen.kind == "sections":
        return _sheet(obj, chosen, over, panels, ax, reading)
    if chosen.kind == "volume":
        return _volume(obj, chosen, over, point, ax, reading)
    return _single(obj, chosen, over, ax, reading)


def _single(obj: Any, chosen: Subject, over: Overlay, ax: Any, reading: dict[str, Any]) -> Figure:
    given = None if ax is None else axes_given(ax, 1, "it takes")[0]
    array = chosen.array
    microns = 1.0
    if chosen.kind == "pixels":
        microns = _microns_of_pixels(array)
    want = Wanted(_title(chosen), microns=microns)
    (panel,), look, laid = panels_of(obj, chosen, over, [want], longest=_LONGEST, **reading)
    left, right, top, bottom = panel.extent
    own = given is None
    if given is None:
        size = single_size((bottom - top) / (right - left))
        given = new_figure(*size).add_subplot()
    shown = draw(given, panel, look)
    label_axes(given, chosen)
    write_title(given, panel.title)
    if microns:
        scale_bar(given, panel, look)
    figure = figure_of(given)
    _bars(figure, shown, [given], array, laid)
    _say_space(figure if own else given, space_words(array))
    return figure


def _sheet(
    obj: Any, chosen: Subject, over: Overlay, panels: int, ax: Any, reading: dict[str, Any]
) -> Figure:
    if panels < 1:
        raise ValueError(f"panels is {panels}; it must be 1 or more")
    given = None if ax is None else axes_given(ax, 1, "it takes at least")
    own = given is None
    count = chosen.array.sizes[DIM]
    most = panels if given is None else len(given)
    places = evenly_chosen(count, most)
    titles = [place_of(chosen.array.isel({DIM: place}), chosen.axes) for place in places]
    wanted = [Wanted(title, {DIM: place}) for title, place in zip(titles, places, strict=True)]
    drawn, look, laid = panels_of(obj, chosen, over, wanted, longest=_LONGEST_ON_SHEET, **reading)
    left, right, top, bottom = drawn[0].extent
    if given is None:
        rows, columns, width, height = grid_shape(len(drawn), (bottom - top) / (right - left))
        figure = new_figure(width, height)
        made = figure.subplots(rows, columns, squeeze=False).ravel()
        for unused in made[len(drawn) :]:
            unused.remove()
        given = list(made[: len(drawn)])
        several = (
            f"{count} sections"
            if count == len(drawn)
            else (f"{len(drawn)} of {count} sections, evenly chosen")
        )
        heading = ": ".join(each for each in (name_of(chosen.array), several) if each)
        figure.suptitle(heading, parse_math=False)
    shown = None
    for axes, panel in zip(given, drawn, strict=False):
        shown = draw(axes, panel, look) or shown
        write_title(axes, panel.title, fontsize="small", pad=3)
        hide_ticks(axes)
    scale_bar(given[0], drawn[0], look)
    figure = figure_of(given[0])
    _bars(figure, shown, given[: len(drawn)], chosen.array, laid)
    where = directions(chosen.axes) if chosen.axes is not None else ""
    words = ": ".join(each for each in (space_words(chosen.array), where) if each)
    _say_space(figure if own else given[0], words)
    return figure


def evenly_chosen(count: int, most: int) -> list[int]:
    """Return places, evenly chosen, both ends among them where there are two or more.

    Examples
    --------
    >>> evenly_chosen(3, 5), evenly_chosen(10, 4)
    ([0, 1, 2], [0, 3, 6, 9])
    """
    if count <= most:
        return list(range(count))
    if most == 1:
        return [count // 2]
    places = np.rint(np.linspace(0, count - 1, most)).astype(int)
    return [int(place) for place in np.unique(places)]


def _volume(
    obj: Any,
    chosen: Subject,
    over: Overlay,
    point: dict[str, float],
    ax: Any,
    reading: dict[str, Any],
) -> Figure:
    given = None if ax is None else axes_given(ax, 3, "a volume takes")
    own = given is None
    array = chosen.array
    nodes = nodes_at(array, point)
    where = {axis: float(array[axis][nodes[axis]]) for axis in AXES}
    wanted = [
        Wanted(f"{axis} = {where[axis]:.0f} µm", {axis: nodes[axis]}) for axis in ("p", "r", "i")
    ]
    drawn, look, laid = panels_of(obj, chosen, over, wanted, longest=_LONGEST, **reading)
    if given is None:
        figure, given = three_axes(*spans_of(drawn))
        at = ", ".join(f"{axis} = {where[axis]:.0f}" for axis in AXES)
        heading = " at ".join(each for each in (name_of(array), f"{at} µm") if each)
        figure.suptitle(heading, parse_math=False)
    shown = None
    for axes, panel in zip(given, drawn, strict=False):
        shown = draw(axes, panel, look) or shown
        label_axes(axes, panel.picture)
        write_title(axes, panel.title, fontsize="medium")
        axes.axvline(where[panel.picture.right], color=_CROSS, linewidth=0.7, gid="cross")
        axes.axhline(where[panel.picture.down], color=_CROSS, linewidth=0.7, gid="cross")
        scale_bar(axes, panel, look)
    figure = figure_of(given[0])
    _bars(figure, shown, given[:3], array, laid)
    _say_space(figure if own else given[0], space_words(array))
    return figure


def spans_of(drawn: list[Panel]) -> tuple[float, float, float]:
    """Return how far the planes of p, r and i (in this order) reach along p, i, r."""
    left, right, top, bottom = drawn[0].extent
    along_p = drawn[1].extent[1] - drawn[1].extent[0]
    return along_p, bottom - top, right - left


def three_axes(p: float, i: float, r: float) -> tuple[Figure, list[Axes]]:
    """Return a new figure with axes for three planes, all of one scale.

    Parameters
    ----------
    p, i, r
        Microns that they span.

    Returns
    -------
    figure, axes
        Seen along p (r to the right, i down) at the upper left; along r (p to the right, i down)
        beside it; along i (r to the right, p down) below the first.
    """
    height = 9.0 * (i + p) / (r + p)
    scale = min(1.0, 9.5 / height)
    figure = new_figure(9.0 * scale + 1.5, height * scale + 1.8)
    grid = figure.add_gridspec(2, 2, width_ratios=(r, p), height_ratios=(i, p))
    places = (grid[0, 0], grid[0, 1], grid[1, 0])
    return figure, [figure.add_subplot(place) for place in places]


def _title(chosen: Subject) -> str:
    array = chosen.array
    name, place = name_of(array), place_of(array, chosen.axes)
    if chosen.kind == "pixels":
        tier = array.coords["tier"].item() if "tier" in array.coords else None
        place = f"section {place}" if place else ""
        place += "" if tier is None else f", tier {tier}"
    elif chosen.kind == "section" and DIM in array.coords:
        place = f"section {place}"
    return ", ".join(each for each in (name, place) if each)


def _microns_of_pixels(array: xr.DataArray) -> float:
    """Return the microns of one full-resolution pixel, or 0 where the array has lost it."""
    if "microns_per_pixel" not in array.coords or "tier" not in array.coords:
        return 0.0
    return float(array.coords["microns_per_pixel"] / 2.0 ** array.coords["tier"])


def _bars(
    figure: Figure, shown: Any, axes: list[Axes], array: xr.DataArray, laid: Heat | None
) -> None:
    """Draw the bars that tell what grey levels mean, and the colours of what is laid over."""
    if shown is not None:
        name = str(array.attrs.get("long_name") or array.name or "value")
        units = array.attrs.get("units")
        bar = figure.colorbar(shown, ax=axes, shrink=_VALUE_SIZE)
        bar.set_label(f"{name} [{units}]" if units else name, parse_math=False)
    if laid is not None and laid.label:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        colours = ScalarMappable(Normalize(0.0, laid.high), heat_colours(ready=laid.ready))
        bar = figure.colorbar(colours, ax=axes, shrink=_VALUE_SIZE)
        bar.set_label(laid.label, parse_math=False)
        if laid.ready:
            bar.set_ticks([0.0, laid.high], labels=["low", "high"])


def _say_space(where: Figure | Axes, words: str) -> None:
    """Write the space below a figure of ours, or below axes of the user's."""
    if not words:
        return
    if hasattr(where, "supxlabel"):
        where.supxlabel(words, fontsize="small", color="#555555", parse_math=False)
        return
    label = "\n".join(each for each in (where.get_xlabel(), words) if each)
    where.set_xlabel(label, parse_math=False)


def new_figure(width: float, height: float) -> Figure:
    """Return a new figure, in inches.

    pyplot makes it, so that ``plt.show()`` shows it. In a notebook it is left to be shown as the
    result of its cell, which would else show it twice.
    """
    pyplot = library("matplotlib.pyplot", "drawing")
    figure: Figure = pyplot.figure(figsize=(width, height), layout="constrained")
    if "inline" in pyplot.get_backend():
        pyplot.close(figure)
    return figure


def axes_given(ax: Any, least: int, what: str) -> list[Axes]:
    """Return the axes that a user gave, or say how many it takes.

    Raises
    ------
    TypeError, ValueError
        If they are no axes, or too few.
    """
    plain = library("matplotlib.axes", "drawing").Axes
    several = isinstance(ax, Iterable) and not isinstance(ax, plain)
    given = list(np.ravel(np.array(list(ax), dtype=object))) if several else [ax]
    if not all(isinstance(each, plain) for each in given):
        raise TypeError(f"ax is {type(ax).__name__}; it must be matplotlib Axes, or several")
    if len(given) < least:
        raise ValueError(f"ax has {len(given)} Axes; {what} {least}")
    return given


def figure_of(axes: Axes) -> Figure:
    """Return the figure that axes stand in, also within a figure's part."""
    from matplotlib.figure import Figure

    figure: Any = axes.figure
    while not isinstance(figure, Figure):
        figure = figure.figure
    return figure


def grid_shape(count: int, aspect: float, *, room: float = 0.12) -> tuple[int, int, float, float]:
    """Return rows and columns of panels, and the width and height of their figure in inches.

    Parameters
    ----------
    count
        How many panels.
    aspect
        Height of a panel over its width.
    room
        For the title of each, as a share of the panel's width.
    """

    def height(columns: int) -> float:
        return math.ceil(count / columns) * (aspect + room) / columns

    def empty(columns: int) -> int:
        return math.ceil(count / columns) * columns - count

    columns = min(
        range(1, count + 1), key=lambda each: abs(math.log(height(each) / 0.7)) + empty(each) / 20
    )
    tall = min(_WIDTH * height(columns) + 0.5, _TALLEST)
    return math.ceil(count / columns), columns, _WIDTH, tall


def single_size(aspect: float) -> tuple[float, float]:
    """Return width and height in inches of a figure of one picture with labelled axes."""
    width = 7.0 if aspect <= 1 else max(7.0 / aspect, 3.2)
    return width + 1.0, min(width * aspect + 1.1, _TALLEST)
