"""What a body must look like to be kept as the JPEG of a read: header, size and end.

Only strict decoding sees damage inside; that happens at first use, elsewhere.
"""

from __future__ import annotations

import simplejpeg

_START = b"\xff\xd8\xff"
_END = b"\xff\xd9"
_LONGEST_PADDING = 4096

_SCAN = b"\xff\xda"
_MOST_SCANS = 500
"""A baseline JPEG has at most 4, a progressive one about 10. A forged one repeats an empty scan
of 20 bytes, and each repetition costs a decoder a walk through the whole picture."""

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
