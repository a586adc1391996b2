"""From the bytes of an image to an array, strictly."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

_GREY_SPREAD = 24
"""Largest difference between the channels of a grey picture, in grey levels.

A grey picture that was stored as colour comes back with a few levels between its channels; a
heat map has more than a hundred.
"""

_PNG = b"\x89PNG\r\n\x1a\n"


def decode(body: bytes, *, grey: bool = False) -> Pixels:
    """Decode a JPEG, or a PNG as lossless sources keep it, or say that it is damaged.

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
        If the body is not a sound image, has four channels, or has colours although `grey`.
    """
    if body.startswith(_PNG):
        return _png(body, grey)
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


def _png(body: bytes, grey: bool) -> Pixels:
    """Decode a PNG whose every part is whole: its own decoder passes over what is missing."""
    import cv2

    if grey:
        raise ValueError("the image is a PNG, which no grey expression mask is")
    place, kind = len(_PNG), b""
    while kind != b"IEND":
        length, kind = (
            struct.unpack_from(">I4s", body, place) if place + 8 <= len(body) else (0, b"")
        )
        end = place + 8 + length
        if not kind or end + 4 > len(body):
            raise ValueError("the PNG is cut off")
        if zlib.crc32(body[place + 4 : end]) != int.from_bytes(body[end : end + 4], "big"):
            raise ValueError("the PNG is damaged")
        place = end + 4
    pixels = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError("the PNG is damaged")
    return np.ascontiguousarray(pixels[..., ::-1]).astype(np.uint8, copy=False)
