"""A browser for notebooks: a slider over the sections, one section fetched a move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..arrays.index import DIM
from ..errors import AtldldError, library
from .panel import OUTLINE, Look, Panel, Rgba, grey, is_empty, rgba
from .pictures import MOST_BYTES, NO_OVERLAY, Wanted, check_cost, name_of, panels_of, place_of
from .subject import Subject, space_words, subject

if TYPE_CHECKING:
    from panel.viewable import Viewable

_LONGEST = 1200
_HEIGHT = 520


def browse(
    obj: xr.DataArray | xr.Dataset,
    *,
    first: int | None = None,
    max_bytes: float = MOST_BYTES,
    inline: bool = True,
) -> Viewable:
    """Return a browser with a slider over the sections, for notebooks.

    A section is fetched when the slider is let go at it, and not before. The picture stands on
    its reference axes and can be panned and zoomed; the pointer tells the coordinates.

    Parameters
    ----------
    obj
        Sections as `atldld.open_dataarray` or `atldld.open_dataset` gave them (of a Dataset its
        ``image``), after any selection.
    first
        Number of the section to begin with; by default the middle one.
    max_bytes
        Most bytes of decoded image pixels that a move may read.
    inline
        Whether a notebook carries the scripts of the browser (7 MB, when it is saved with its
        output). False leaves them to be loaded from the network, without which nothing shows.

    Returns
    -------
    panel.viewable.Viewable
        What a notebook shows as the result of a cell. ``.show()`` opens it in a browser without
        a notebook.

    Raises
    ------
    ValueError, TypeError
        If there are no sections, or one alone would read too much; nothing is read then.
    ImportError
        If panel is missing.

    Notes
    -----
    An image that cannot be had is said so above the picture; the slider goes on working.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with AllenServer([phantom_dataset(dataset_id=1001)]) as server:
    ...     sections = atldld.open_dataarray(1001, resolution=200, source=server.url)
    ...     browser = sections.atlas.browse()
    """
    pn = library("panel", "the browser")
    chosen = subject(obj)
    if chosen.kind != "sections":
        raise ValueError(
            f"there is nothing to slide over: this is of the kind {chosen.kind!r}; give several "
            "sections, or draw it with .atlas.plot()"
        )
    numbers = [int(number) for number in chosen.array[DIM].values]
    start = len(numbers) // 2
    if first is not None:
        if first not in numbers:
            raise ValueError(f"first is {first}; the sections are {', '.join(map(str, numbers))}")
        start = numbers.index(first)
    check_cost([chosen.at(_LONGEST, **{DIM: start}).array], max_bytes)
    pn.extension(inline=inline)
    shown: Viewable = _Browser(obj, chosen, start, max_bytes).layout()
    return shown


def panel_at(obj: Any, chosen: Subject, place: int, max_bytes: float) -> tuple[Panel, Rgba]:
    """Read one section of an array; return it, and its colours.

    Returns
    -------
    panel
        What is shown.
    colours
        Shape (rows, columns, 4), in ascending order of both coordinates.
    """
    words = name_of(chosen.array), place_of(chosen.array.isel({DIM: place}), chosen.axes)
    want = Wanted(f"{words[0]}, section {words[1]}".removeprefix(", "), {DIM: place})
    (panel,), look, _ = panels_of(
        obj, chosen, NO_OVERLAY, [want], longest=_LONGEST, outlined=True, max_bytes=max_bytes
    )
    return panel, _colours(panel, look)


def _colours(panel: Panel, look: Look) -> Rgba:
    values = panel.values
    if panel.empty or is_empty(values):
        colours = np.full((*values.shape[:2], 4), 230, dtype=np.uint8)
    elif look.coloured:
        colours = rgba(values)
    else:
        share = (grey(values, look) - look.low) / (look.high - look.low)
        colours = rgba(np.repeat((share * 255.0)[..., None], 3, axis=-1))
    if look.dark:
        colours = np.where(colours[..., 3:] == 0, np.array([0, 0, 0, 255], dtype=np.uint8), colours)
    return np.ascontiguousarray(colours[panel.upright])


class _Browser:
    """The widgets, and what happens when the slider moves."""

    def __init__(self, obj: Any, chosen: Subject, start: int, max_bytes: float) -> None:
        pn = library("panel", "the browser")

        self._obj = obj
        self._chosen = chosen
        self._max_bytes = max_bytes
        options = {
            place_of(chosen.array.isel({DIM: place}), chosen.axes): place
            for place in range(chosen.array.sizes[DIM])
        }
        self.slider = pn.widgets.DiscreteSlider(
            label="section", options=options, value=start, sizing_mode="stretch_width"
        )
        self.trouble = pn.pane.Alert("", alert_type="danger", visible=False)
        self.figure = self._figure()
        self.picture = pn.pane.Bokeh(self.figure, sizing_mode="stretch_width")
        # Only where the slider is let go: what it passes over is not fetched.
        self.slider.param.watch(lambda event: self.show(event.new), "value_throttled")
        self.show(start)

    def layout(self) -> Any:
        """Return what is shown in a notebook."""
        pn = library("panel", "the browser")

        return pn.Column(
            self.slider,
            self.trouble,
            self.picture,
            sizing_mode="stretch_width",
            max_width=1000,
        )

    def _figure(self) -> Any:
        models = library("bokeh.models", "the browser")
        chosen = self._chosen
        self.image = models.ColumnDataSource({"image": [], "x": [], "y": [], "dw": [], "dh": []})
        self.outline = models.ColumnDataSource({"x": [], "y": []})
        down, right = chosen.axes or (chosen.down, chosen.right)
        made = library("bokeh.plotting", "the browser").figure(
            name="sections",
            height=_HEIGHT,
            sizing_mode="stretch_width",
            match_aspect=True,
            x_range=models.DataRange1d(range_padding=0),
            y_range=models.DataRange1d(range_padding=0, flipped=True),
            tools="pan,wheel_zoom,reset,save",
            active_scroll="wheel_zoom",
            tooltips=[(f"{down} [µm]", "$y{0}"), (f"{right} [µm]", "$x{0}")],
            x_axis_label=chosen.label(chosen.right),
            y_axis_label=chosen.label(chosen.down),
        )
        shown = made.image_rgba(
            image="image",
            x="x",
            y="y",
            dw="dw",
            dh="dh",
            source=self.image,
        )
        words = space_words(chosen.array)
        if words:
            made.add_layout(
                models.Title(text=words, text_font_style="normal", text_font_size="9pt"), "below"
            )
        made.grid.visible = False
        made.line("x", "y", source=self.outline, color=OUTLINE)
        made.x_range.renderers = made.y_range.renderers = [shown]
        return made

    def show(self, place: int) -> None:
        """Fetch a section and show it, or say why it cannot be had."""
        try:
            panel, colours = panel_at(self._obj, self._chosen, place, self._max_bytes)
        except (AtldldError, ValueError) as error:
            self.trouble.param.update(object=str(error), visible=True)
            return
        self.trouble.visible = False
        left, right, top, bottom = panel.extent
        ring = panel.outline
        closed = np.empty((0, 2)) if ring is None else np.concatenate([ring, ring[:1]])
        packed = colours.view(np.uint32).reshape(colours.shape[:2])
        # The first row is drawn at y, where the axis, which grows downwards, has its top.
        self.image.data = {
            "image": [packed],
            "x": [left],
            "y": [top],
            "dw": [right - left],
            "dh": [bottom - top],
        }
        self.outline.data = {"x": closed[:, 0], "y": closed[:, 1]}
        self.figure.title.text = panel.title
        # A server tells the page what has changed, a notebook has to be told to.
        library("panel", "the browser").io.push_notebook(self.picture)
