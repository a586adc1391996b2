"""Images as bytes: whether a body may be kept as the JPEG of a read, and its pixels, strictly.

Header, size and end are looked at before a body is kept. Only strict decoding sees damage inside;
that happens at first use.
"""

from __future__ import annotations

import re
import struct
import zlib

import numpy as np
import numpy.typing as npt
import simplejpeg

_START = b"\xff\xd8\xff"
_END = b"\xff\xd9"
_LONGEST_PADDING = 4096

_SCAN = b"\xff\xda"
_MOST_SCANS = 500
"""A baseline JPEG has at most 4, a progressive one about 10. A forged one repeats an empty scan
of 20 bytes, and each repetition costs a decoder a walk through the whole picture."""

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers that begin a picture: baseline, progressive and others; see ITU T.81, table B.1."""
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers that are not followed by a length."""

_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_MARKER_IN_SCAN = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_COEFFICIENTS = 64

_OTHER_FORMATS = (
    (b"\x89PNG", "a PNG image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"GIF8", "a GIF image"),
    (b"\0\0\0\x0cjP", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"BM", "a BMP image"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "gzip data"),
    (b"PK\x03\x04", "a zip archive"),
)

_GREY_SPREAD = 24
"""Largest difference between the channels of a grey picture, in grey levels.

A grey picture that was stored as colour comes back with a few levels between its channels; a
heat map has more than a hundred.
"""

_PNG = b"\x89PNG\r\n\x1a\n"


def jpeg_fault(content: bytes, size: tuple[int, int]) -> str | None:
    """Return what is wrong with the JPEG of a read, in words, or None.

    Parameters
    ----------
    content
        The whole body.
    size
        Width and height that the image must have, in pixels.

    Examples
    --------
    >>> jpeg_fault(b"<html>", (10, 10))
    'the body is an HTML page, not a JPEG'
    """
    if not content.startswith(_START):
        return f"the body is {kind_of(content)}, not a JPEG"
    if not content[-_LONGEST_PADDING:].rstrip(b"\0 \t\r\n").endswith(_END):
        return f"the JPEG is cut off after {len(content)} bytes"
    if content.count(_SCAN) > _MOST_SCANS:
        return f"the JPEG has {content.count(_SCAN)} scans, which no picture needs"
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError as error:
        return f"the header of the JPEG is damaged: {error}"
    if (width, height) != size:
        return f"the image is {width} x {height} pixels, not {size[0]} x {size[1]}"
    return _missing_scans(content)


def _missing_scans(content: bytes) -> str | None:
    """Return what of a JPEG no scan brings, in words, or None.

    A decoder shows a picture whose last scans are missing, coarser than it is or without its
    colours, and calls it sound. The headers of the scans tell: each says which coefficients of
    which components it brings, and how many bits of them are still to come (ITU T.81, B.2.3 and
    G.1.1.1). A damaged header is left to the decoder.
    """
    to_come: dict[int, list[int | None]] = {}
    progressive, place, pattern = False, 2, _MARKER
    while (found := pattern.search(content, place)) is not None:
        kind, place = found[1][0], found.end()
        if kind == _END[1]:
            break
        if kind in _ALONE:
            continue
        length = int.from_bytes(content[place : place + 2], "big")
        body = content[place + 2 : place + length]
        place, pattern = place + length, _MARKER
        if kind in _FRAMES:
            progressive = kind in _PROGRESSIVE
            to_come = {number: [None] * _COEFFICIENTS for number in body[6::3]}
        elif kind == _SCAN[1] and len(body) >= 4:
            pattern = _MARKER_IN_SCAN
            first, last, bits = body[-3:]
            if not progressive:
                first, last, bits = 0, _COEFFICIENTS - 1, 0
            for number in body[1:-3:2]:
                for coefficient in range(first, min(last, _COEFFICIENTS - 1) + 1):
                    to_come.setdefault(number, [None] * _COEFFICIENTS)[coefficient] = bits & 15
            if not progressive and all(None not in bits_of for bits_of in to_come.values()):
                return None  # nothing else can follow; the scan is long
    if any(left != 0 for bits_of in to_come.values() for left in bits_of):
        return "the JPEG lacks its last scans: it would show less than it holds when whole"
    return None


def size_limit(size: tuple[int, int]) -> int:
    """Return a number of bytes that no JPEG of a width and height in pixels exceeds."""
    width, height = size
    return 4 * width * height + 2**20


def kind_of(content: bytes) -> str:
    """Return what a body that should be a JPEG is instead, in words."""
    if not content:
        return "empty"
    for magic, name in _OTHER_FORMATS:
        if content.startswith(magic):
            return name
    start = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")) or b"<html" in start:
        return "an HTML page"
    if start.startswith(b"<"):
        return "XML"
    if start.startswith((b"{", b"[")):
        return "JSON"
    if start and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
        return "text"
    return "zeros" if not content.strip(b"\0") else "of no known format"


def decode(body: bytes, *, grey: bool = False) -> npt.NDArray[np.uint8]:
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


def _png(body: bytes, grey: bool) -> npt.NDArray[np.uint8]:
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
