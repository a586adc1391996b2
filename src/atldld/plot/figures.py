"""Figures and the axes in them: those of the user, or new ones."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import library

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 10.0
_TALLEST = 11.0


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
