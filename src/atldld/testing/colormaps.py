"""Colours for grey levels, as the coloured views of the service have them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def _ramp(*stops: tuple[int, int, int, int]) -> Pixels:
    places = [stop[0] for stop in stops]
    channels = [
        np.interp(np.arange(256), places, [stop[1 + channel] for stop in stops])
        for channel in range(3)
    ]
    table = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    table.setflags(write=False)
    return table


HEAT = _ramp(
    (0, 0, 0, 0), (1, 0, 0, 110), (64, 0, 80, 255), (120, 0, 220, 120), (180, 255, 230, 0),
    (255, 255, 20, 0),
)  # fmt: skip
"""Shape (256, 3): black for nothing, then blue, green, yellow, red."""

GLOW = _ramp((0, 0, 0, 0), (128, 210, 60, 0), (200, 255, 170, 0), (255, 255, 255, 200))
"""Shape (256, 3): black, orange, white."""


def coloured(levels: Pixels, view: str) -> Pixels:
    """Colour grey levels as a view shows them.

    Parameters
    ----------
    levels
        Shape (h, w), uint8.
    view
        ``"expression"`` (a heat map on black) or ``"projection"``.

    Returns
    -------
    colour
        Shape (h, w, 3), uint8.

    Examples
    --------
    >>> coloured(np.array([[0, 255]], dtype=np.uint8), "expression").tolist()
    [[[0, 0, 0], [255, 20, 0]]]
    """
    return (HEAT if view == "expression" else GLOW)[levels]
