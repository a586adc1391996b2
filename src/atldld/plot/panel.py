"""One picture on its axes: pixels, outline, borders, overlay, scale bar."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..model.affine import Array
from .looks import Look, Rgba, Values, grey, is_empty, rgba
from .subject import Subject, edges

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OUTLINE = "#d95f02"
BORDERS = "#1b6fb3"
_EMPTY = "#e6e6e6"


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """What one panel shows, all of it in memory.

    Parameters
    ----------
    picture
        The pixels.
    title
        Above it.
    outline
        Shape (corners, 2): border of what is covered, or None.
    borders
        Shape (n, 2, 2): lines between structures, or None.
    overlay
        Colours over the pixels, shape (rows, columns, 4), or None.
    microns
        Microns of one unit of the axes.
    empty
        What to say where there is nothing to show, or nothing.
    """

    picture: Subject
    title: str
    outline: Array | None = None
    borders: Array | None = None
    overlay: Rgba | None = None
    microns: float = 1.0
    empty: str = ""

    @property
    def values(self) -> Values:
        """The pixels."""
        return np.asarray(self.picture.array.values)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, top and bottom edge; the top one is the least."""
        array = self.picture.array
        x = array[self.picture.right].values.astype(np.float64)
        y = array[self.picture.down].values.astype(np.float64)
        step = max(_step(x), _step(y)) or 1.0
        left, right = edges(x, step)
        top, bottom = edges(y, step)
        return left, right, top, bottom


def _step(values: Array) -> float:
    return abs(float(values[1] - values[0])) if len(values) > 1 else 0.0


def draw(axes: Axes, panel: Panel, look: Look) -> Any | None:
    """Draw a panel; return what a colour bar can be made for, or None.

    Rows are drawn where their coordinate says, whatever their order in the array: the y axis
    grows downwards, so that a section stands upright.
    """
    left, right, top, bottom = panel.extent
    array = panel.picture.array
    x, y = array[panel.picture.right].values, array[panel.picture.down].values
    upright = (
        slice(None, None, -1 if len(y) > 1 and y[0] > y[-1] else 1),
        slice(None, None, -1 if len(x) > 1 and x[0] > x[-1] else 1),
    )
    where: dict[str, Any] = {"extent": (left, right, bottom, top), "origin": "upper"}
    axes.set_facecolor(look.ground)
    shown = None
    values = panel.values
    empty = panel.empty or ("nothing covered" if is_empty(values) else "")
    if empty:
        axes.set_facecolor(_EMPTY)
        axes.text(
            0.5, 0.5, empty, transform=axes.transAxes, ha="center", va="center",
            color="#666666", fontsize="small",
        )  # fmt: skip
    elif look.coloured:
        axes.imshow(rgba(values)[upright], **where)
    else:
        shown = axes.imshow(
            grey(values, look)[upright], cmap="gray", vmin=look.low, vmax=look.high, **where
        )
    if panel.overlay is not None and not empty:
        axes.imshow(panel.overlay[upright], **where)
    _lines(axes, panel)
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    return shown


def _lines(axes: Axes, panel: Panel) -> None:
    if panel.outline is not None:
        ring = np.concatenate([panel.outline, panel.outline[:1]])
        axes.plot(ring[:, 0], ring[:, 1], color=OUTLINE, linewidth=0.8, gid="outline")
    if panel.borders is not None:
        from matplotlib.collections import LineCollection

        lines = LineCollection(
            list(panel.borders), colors=BORDERS, linewidths=0.6, gid="borders", capstyle="round"
        )
        axes.add_collection(lines, autolim=False)


def label_axes(axes: Axes, panel: Panel) -> None:
    """Name the axes, with their units and which way they run."""
    axes.set_xlabel(panel.picture.label(panel.picture.right))
    axes.set_ylabel(panel.picture.label(panel.picture.down))


def hide_ticks(axes: Axes) -> None:
    """Leave the frame of a small panel and nothing else."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(linewidth=0.5, color="#999999")


def scale_bar(axes: Axes, panel: Panel, look: Look) -> None:
    """Draw a bar of a round length in the lower right corner."""
    from matplotlib.font_manager import FontProperties
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    left, right, top, bottom = panel.extent
    microns = bar_microns((right - left) * panel.microns)
    text = f"{microns / 1000:g} mm" if microns >= 1000 else f"{microns:g} µm"
    ink = "#333333" if panel.empty else look.ink
    bar = AnchoredSizeBar(
        axes.transData,
        microns / panel.microns,
        text,
        "lower right",
        pad=0.4,
        sep=3,
        frameon=False,
        color=ink,
        size_vertical=(bottom - top) / 150,
        fill_bar=True,
        fontproperties=FontProperties(size="small"),
    )
    bar.set_gid("scale bar")
    axes.add_artist(bar)


def bar_microns(width: float) -> float:
    """Return the largest of 1, 2, 5 times a power of ten that is at most a fifth of a width.

    Examples
    --------
    >>> bar_microns(13200), bar_microns(1300), bar_microns(200)
    (2000.0, 200.0, 20.0)
    """
    most = width / 5
    power = 10.0 ** math.floor(math.log10(most))
    return max(power * each for each in (1.0, 2.0, 5.0) if power * each <= most * (1 + 1e-9))
