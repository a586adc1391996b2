"""One picture on its axes: colours, outline, borders, overlay, scale bar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..model.affine import Array
from .subject import Subject, edges

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

    from .outlines import Borders

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
        Lines between structures, and their acronyms; or None.
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
    borders: Borders | None = None
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
        step = max(abs(_step(x)), abs(_step(y))) or 1.0
        left, right = edges(x, step)
        top, bottom = edges(y, step)
        return left, right, top, bottom

    @property
    def upright(self) -> tuple[slice, slice]:
        """What turns the pixels so that both coordinates ascend."""
        array, picture = self.picture.array, self.picture
        down, right = (_step(array[dim].values) for dim in (picture.down, picture.right))
        return slice(None, None, -1 if down < 0 else 1), slice(None, None, -1 if right < 0 else 1)


def _step(values: Array) -> float:
    return float(values[1] - values[0]) if len(values) > 1 else 0.0


def draw(axes: Axes, panel: Panel, look: Look) -> Any | None:
    """Draw a panel; return what a colour bar can be made for, or None.

    Rows are drawn where their coordinate says, whatever their order in the array: the y axis
    grows downwards, so that a section stands upright.
    """
    left, right, top, bottom = panel.extent
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
        axes.imshow(rgba(values)[panel.upright], **where)
    else:
        shown = axes.imshow(
            grey(values, look)[panel.upright], cmap="gray", vmin=look.low, vmax=look.high, **where
        )
    if panel.overlay is not None and not empty:
        axes.imshow(panel.overlay[panel.upright], **where)
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
            list(panel.borders.lines),
            colors=BORDERS,
            linewidths=0.6,
            gid="borders",
            capstyle="round",
        )
        axes.add_collection(lines, autolim=False)
        from matplotlib.patheffects import withStroke

        halo = [withStroke(linewidth=1.6, foreground="white", alpha=0.8)]
        for name, x, y in panel.borders.names:
            axes.text(
                x, y, name, color=BORDERS, fontsize=7, ha="center", va="center", clip_on=True,
                parse_math=False, gid="acronym", path_effects=halo,
            )  # fmt: skip


def label_axes(axes: Axes, picture: Subject) -> None:
    """Name the axes, with their units and which way they run."""
    axes.set_xlabel(picture.label(picture.right))
    axes.set_ylabel(picture.label(picture.down))


def write_title(axes: Axes, text: str, **options: Any) -> None:
    """Write above a picture what may hold names of genes: no part of it is a formula."""
    axes.set_title(text, parse_math=False, **options)


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


Values = npt.NDArray[Any]
Rgba = npt.NDArray[np.uint8]

_DIM = 64.0
"""Mean grey level below which the middle pixel of a picture means a dark ground."""
_FAINT = 16.0
"""Grey level up to which a heat map shows nothing: the black of a JPEG is not quite black."""


@dataclass(frozen=True, slots=True)
class Look:
    """How the panels of one figure show their values.

    Parameters
    ----------
    coloured
        Whether a pixel has three values, from 0 to 255.
    dark
        Whether the ground is black.
    low, high
        Of one value a pixel, what is black and what is white.
    none
        The whole number that stands for no value, or None.
    """

    coloured: bool
    dark: bool
    low: float = 0.0
    high: float = 255.0
    none: int | None = None

    @property
    def ground(self) -> str:
        """Colour where there is nothing."""
        return "black" if self.dark else "white"

    @property
    def ink(self) -> str:
        """Colour of what is drawn upon the picture."""
        return "white" if self.dark else "black"


def look_of(arrays: Sequence[xr.DataArray]) -> Look:
    """Return how arrays in memory are shown beside each other, all in the same way."""
    first = arrays[0]
    none = first.attrs.get("none") if first.dtype.kind in "iu" else None
    if "channel" in first.dims:
        return Look(True, _is_dark(arrays))
    if first.dtype == np.uint8 or first.attrs.get("view") == "expression_mask":
        return Look(False, True)
    if first.dtype.kind == "b":
        return Look(False, True, 0.0, 1.0)
    found = [array.values[np.isfinite(array.values)] for array in arrays]
    if none is not None:
        found = [values[values != none] for values in found]
    found = [values for values in found if values.size]
    low = min((float(values.min()) for values in found), default=0.0)
    high = max((float(values.max()) for values in found), default=1.0)
    return Look(False, True, min(low, 0.0), high if high > low else low + 1.0, none)


def _is_dark(arrays: Sequence[xr.DataArray]) -> bool:
    attrs = arrays[0].attrs
    if "value_where_not_covered" in attrs:
        return bool(attrs["value_where_not_covered"] < 128)
    if str(attrs.get("view", "")).startswith("expression"):
        return True
    if "Connectivity" in str(attrs.get("products", "")):
        return True
    # What is covered where nothing else is known: tissue is darker than glass, and a dark
    # ground is darker than tissue.
    levels = [array.values[np.isfinite(array.values)] for array in arrays]
    seen = np.concatenate([values.ravel()[::97] for values in levels])
    return bool(seen.size) and float(np.median(seen)) < _DIM


def rgba(values: Values) -> Rgba:
    """Return colours of shape (rows, columns, 4), transparent where one of the three is NaN."""
    there = np.asarray(np.isfinite(values).all(axis=-1))
    levels = np.where(there[..., None], values, 0)
    out = np.empty((*values.shape[:2], 4), dtype=np.uint8)
    out[..., :3] = np.clip(np.rint(levels), 0, 255)
    out[..., 3] = np.where(there, 255, 0)
    return out


@dataclass(frozen=True, slots=True)
class Heat:
    """How values laid over pictures are shown, the same in all panels.

    Parameters
    ----------
    high
        Of one value a pixel, what is shown in red.
    label
        What its colours mean, for the bar beside the picture; empty for none.
    ready
        Whether the values are colours already: Allen's own, from blue to red.
    """

    high: float
    label: str
    ready: bool


def heat_of(arrays: Sequence[xr.DataArray]) -> Heat:
    """Return how arrays in memory are laid over others, all in the same way."""
    first = arrays[0]
    name = str(first.attrs.get("long_name") or first.name or "overlay")
    if "channel" in first.dims:
        coloured = str(first.attrs.get("view", first.name)) == "expression"
        return Heat(255.0, "expression, in Allen's colours" if coloured else "", True)
    if first.dtype.kind == "b":
        return Heat(1.0, name, False)
    if first.dtype == np.uint8 or first.attrs.get("view") == "expression_mask":
        return Heat(255.0, name, False)
    found = [array.values[np.isfinite(array.values)] for array in arrays]
    high = max((float(values.max()) for values in found if values.size), default=1.0)
    return Heat(high if high > 0 else 1.0, name, False)


def heat(values: Values, alpha: float, high: float = 255.0) -> Rgba:
    """Return colours of an overlay: those of a heat map, transparent where it is black.

    Parameters
    ----------
    values
        Shape (rows, columns, 3), or (rows, columns): levels, shown from yellow to red.
    alpha
        How opaque it is where there is something, 0 to 1.
    high
        Of one value a pixel, what is shown in red.
    """
    if values.ndim == 2:
        share = np.clip(np.nan_to_num(values.astype(np.float64)) / high, 0.0, 1.0)
        parts = [np.ones_like(share), 1.0 - share, np.zeros_like(share)]
        colours, strength = np.stack(parts, axis=-1) * 255.0, share * 255.0
    else:
        colours, strength = values, np.nan_to_num(values).max(axis=-1)
    out = rgba(np.where(np.isfinite(colours), colours, np.nan))
    out[..., 3] = np.where((out[..., 3] > 0) & (strength > _FAINT), round(255 * alpha), 0)
    return out


def heat_colours(*, ready: bool) -> Colormap:
    """Return the colours that `heat` gives, from the least value to the greatest.

    Parameters
    ----------
    ready
        Those of Allen's heat map, whose hues run from blue to red; else from yellow to red.
    """
    from matplotlib.colors import ListedColormap, hsv_to_rgb

    share = np.linspace(0.0, 1.0, 256)
    one = np.ones_like(share)
    if ready:
        return ListedColormap(hsv_to_rgb(np.stack([(1.0 - share) * 2 / 3, one, one], axis=-1)))
    return ListedColormap(np.stack([one, 1.0 - share, 0.0 * share], axis=-1))


def grey(values: Values, look: Look) -> npt.NDArray[np.float64]:
    """Return one value a pixel, NaN where there is none."""
    out = values.astype(np.float64)
    if look.none is not None:
        out[values == look.none] = np.nan
    return out


def is_empty(values: Values) -> bool:
    """Whether there is no value at all."""
    return values.dtype.kind == "f" and not np.isfinite(values).any()
