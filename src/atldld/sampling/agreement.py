"""Whether two pictures of one place agree, and which of two shifts fits them better."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..model.read import Window
from .warp import Pixels

_BLUR = 1.5
"""Pixels. Both sides are blurred, so that the sampling of a shifted one hardly counts."""

_LEAST_CONTRAST = 2.0
"""Grey levels of standard deviation below which a picture says nothing about its place."""

_NOISE = 3.0
"""Grey levels by which two encodings of one place differ at most, after blurring (RMS)."""

_DECISIVE = 0.6
"""The better of two hypotheses must leave at most this share of the other's difference."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the comparison of a window with the whole image says.

    Parameters
    ----------
    same_place
        Whether the window shows what the image shows there; None if nothing can be seen.
    shifted
        Whether the image is shifted by the fraction of a pixel asked about; None if the two
        answers cannot be told apart.
    corner
        For x and y, whether the pictures could tell that the window was counted from another
        corner than it was, if it does show the same place.
    """

    same_place: bool | None
    shifted: bool | None
    corner: tuple[bool, bool] = (False, False)


def compare(
    whole: Pixels,
    part: Pixels,
    window: Window,
    fraction: tuple[float, float],
    offset: tuple[int, int] = (0, 0),
) -> Verdict:
    """Hold a window of an image against the whole of it.

    Parameters
    ----------
    whole
        uint8, shape (height, width[, 3]): the image.
    part
        uint8, shape (window height, window width[, 3]): what was sent as the window.
    window
        Where the window lies, if the image begins on the lattice of the slide's tier.
    fraction
        By how many pixels (x, y) the image would begin later than that lattice, if it begins
        where the section does.
    offset
        How many pixels (x, y) the section begins past the corner of its slide: by so much a
        window is misplaced that is counted from the wrong one of these two corners.

    Returns
    -------
    Verdict
    """
    near, wanted = _grey(whole), _grey(part)
    if float(wanted.std()) < _LEAST_CONTRAST:
        return Verdict(None, None)
    plain = _difference(near, wanted, window, (0.0, 0.0))
    moved = plain if fraction == (0.0, 0.0) else _difference(near, wanted, window, fraction)
    best, other = min(plain, moved), max(plain, moved)
    if best > _tolerance(wanted):
        return Verdict(False, False if fraction == (0.0, 0.0) else None)
    shifted: bool | None = False
    if fraction != (0.0, 0.0):
        shifted = moved < plain if best <= _DECISIVE * other else None

    def tells(along: int, down: int) -> bool:
        misplaced = replace(window, left=window.left + along, top=window.top + down)
        difference = _difference(near, wanted, misplaced, fraction if moved < plain else (0.0, 0.0))
        return difference > _tolerance(wanted) and best <= _DECISIVE * difference

    x, y = offset
    both = bool(x or y) and tells(x, y)
    return Verdict(True, shifted, (both and x > 0 and tells(x, 0), both and y > 0 and tells(0, y)))


def _tolerance(picture: npt.NDArray[np.float32]) -> float:
    return max(_NOISE, 0.1 * float(picture.std()))


def _grey(pixels: Pixels) -> npt.NDArray[np.float32]:
    import cv2

    grey = pixels.astype(np.float32)
    if grey.ndim == 3:
        grey = grey.mean(axis=-1)
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), _BLUR), dtype=np.float32)


def _difference(
    whole: npt.NDArray[np.float32],
    part: npt.NDArray[np.float32],
    window: Window,
    fraction: tuple[float, float],
) -> float:
    """Return the RMS difference in grey levels, away from the window's borders."""
    import cv2

    # Pixel k of a window on the slide's lattice is pixel k - fraction of an image that begins
    # later.
    onto = np.array([[1.0, 0.0, window.left - fraction[0]], [0.0, 1.0, window.top - fraction[1]]])
    there = cv2.warpAffine(
        whole,
        onto,
        (window.width, window.height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    margin = min(8, window.width // 4, window.height // 4)
    inner = (slice(margin, window.height - margin), slice(margin, window.width - margin))
    return float(np.sqrt(np.mean((there[inner] - part[inner]) ** 2)))
