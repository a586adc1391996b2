"""From the bytes of a JPEG to an array, strictly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

_GREY_SPREAD = 24
"""Largest difference between the channels of a grey picture, in grey levels.

A grey picture that was stored as colour comes back with a few levels between its channels; a
heat map has more than a hundred.
"""


def decode(body: bytes, *, grey: bool = False) -> Pixels:
    """Decode a JPEG, or say that it is damaged.

    Truncated data, and errors inside the entropy-coded scan, raise; no decoder default fills
    them in.

    Parameters
    ----------
    body
        The whole file.
    grey
        Whether one value a pixel is wanted. A picture with colours in it is then refused: it
        is not the grey picture that was asked for.

    Returns
    -------
    pixels
        uint8, shape (height, width, 3) in the order red, green, blue, or (height, width).

    Raises
    ------
    ValueError
        If the body is not a sound JPEG, has four channels, or has colours although `grey`.
    """
    import simplejpeg

    space = simplejpeg.decode_jpeg_header(body, strict=True)[2]
    if space not in ("Gray", "YCbCr", "RGB"):
        raise ValueError(f"the JPEG is {space}; grey or three colours were expected")
    if not grey:
        return np.asarray(simplejpeg.decode_jpeg(body, "RGB", strict=True))
    if space != "Gray":
        # Colours show at an eighth of the size as well, at a small part of the cost.
        small = simplejpeg.decode_jpeg(body, "RGB", min_factor=8, strict=True).astype(np.int16)
        spread = int(np.ptp(small, axis=-1).max())
        if spread > _GREY_SPREAD:
            raise ValueError(
                "the JPEG has colours (channels differ by up to "
                f"{spread} levels); a grey expression mask was asked for"
            )
    return np.asarray(simplejpeg.decode_jpeg(body, "GRAY", strict=True)[..., 0])
