"""Part of a TIFF by ranges: only the strips, tiles or rows that a window needs.

tifffile reads the directory and decodes; which bytes to fetch is decided here. Strips and tiles,
compressed or not, classic or BigTIFF, 8 bits a sample, grey or three colours.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import library
from ..model.read import Window

Pixels = npt.NDArray[np.uint8]
Fetch = Callable[[Sequence[tuple[int, int]]], Sequence[bytes]]
"""Returns the bytes of some ranges (first, one past the last), in their order."""

_GAP: Final = 32_768
"""Bytes between two ranges that are fetched along: about what one more request costs."""

_MOST_AT_ONCE: Final = 2**25
"""Bytes that are fetched before they are decoded."""

_LARGEST_SEGMENT: Final = 3 * 2**30
_WHITE_IS_ZERO, _GREY, _RGB, _YCBCR = 0, 1, 2, 6
_DAMAGED = (
    ValueError, RuntimeError, OSError, LookupError, TypeError, ArithmeticError, struct.error,
    zlib.error, AssertionError,
)  # fmt: skip
"""What tifffile and its decoders raise about a file that is not as it should be."""


class TiffFaultError(Exception):
    """A TIFF is damaged, or of a kind that is not read."""


@dataclass(frozen=True, slots=True, eq=False)
class Tiff:
    """The first image of a TIFF: where its pixels are, no pixels.

    Parameters
    ----------
    page
        tifffile's description of it.
    size
        Bytes of the file.
    tables
        What all its JPEG segments share.
    """

    page: Any
    size: int
    tables: tuple[Any, Any] = (None, None)

    @classmethod
    def opened(cls, file: Any, size: int) -> Tiff:
        """Read the directory of a TIFF.

        Parameters
        ----------
        file
            The file, open for reading.
        size
            Its bytes.

        Raises
        ------
        TiffFaultError
            If it is none, or of a kind that is not read.
        ImportError
            If tifffile is missing.
        """
        tifffile = library("tifffile", "a bucket of TIFFs")
        try:
            with tifffile.TiffFile(file) as found:
                page = found.pages.first
                # What is looked up later must not be read from a file that is closed.
                tiff = cls(page, size, (page.jpegtables, page.jpegheader))
                _ = page.decode
                fault = tiff._fault()
        except _DAMAGED as error:
            raise TiffFaultError(f"it is not a TIFF that can be read: {error}") from error
        if fault is not None:
            raise TiffFaultError(fault)
        return tiff

    @property
    def shape(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return int(self.page.imagewidth), int(self.page.imagelength)

    @property
    def form(self) -> str:
        """How it is laid out, in words."""
        page = self.page
        if page.is_tiled:
            layout = f"tiles of {page.tilewidth} x {page.tilelength}"
        else:
            layout = f"strips of {min(page.rowsperstrip, page.imagelength)} rows"
        kind = "BigTIFF" if page.parent.is_bigtiff else "TIFF"
        colours = getattr(page.photometric, "name", str(page.photometric))
        packing = getattr(page.compression, "name", str(page.compression)).lower()
        return (
            f"{kind}, {layout}, compression {packing}, {page.samplesperpixel} x "
            f"{page.bitspersample} bits, {colours}"
        )

    def window(self, window: Window, fetch: Fetch) -> Pixels:
        """Return some of the pixels, uint8, shape (height, width, 3).

        Raises
        ------
        TiffFaultError
            If what was fetched is damaged.
        """
        out = np.zeros((window.height, window.width, int(self.page.samplesperpixel)), np.uint8)
        seen = np.zeros((window.height, out.shape[2]), np.int64)
        pieces = list(self._rows(window) if self._is_plain else self._segments(window))
        for batch in _batches(pieces):
            ranges = _merged([(piece.start, piece.stop) for piece in batch])
            bodies = fetch(ranges)
            if [len(body) for body in bodies] != [stop - start for start, stop in ranges]:
                raise TiffFaultError("less came than was asked for")
            for piece in batch:
                content = _within(piece, ranges, bodies)
                self._put(piece, content, window, out, seen)
        if (seen != window.width).any():
            raise TiffFaultError("some of its pixels lie in no strip or tile")
        if self.page.photometric == _WHITE_IS_ZERO:
            out = 255 - out
        return np.ascontiguousarray(np.broadcast_to(out, (*out.shape[:2], 3)))

    def _fault(self) -> str | None:
        page = self.page
        if page.bitspersample != 8 or page.sampleformat != 1:
            return f"its samples have {page.bitspersample} bits; 8 are read"
        if page.samplesperpixel not in (1, 3) or page.photometric not in (
            (_WHITE_IS_ZERO, _GREY) if page.samplesperpixel == 1 else (_RGB, _YCBCR)
        ):
            return (
                f"it has {page.samplesperpixel} samples a pixel, {page.photometric!r}; grey or "
                "three colours are read"
            )
        if page.imagedepth != 1 or not page.dataoffsets:
            return "it holds no plane picture"
        ends = np.asarray(page.dataoffsets) + np.asarray(page.databytecounts)
        if len(page.dataoffsets) != len(page.databytecounts) or ends.max() > self.size:
            return f"it is cut off: its pixels end at byte {ends.max()} of {self.size}"
        height, width = (
            page.chunks[-3:-1]
            if page.samplesperpixel == 3 and (page.planarconfig == 1)
            else page.chunks[-2:]
        )
        if height * width * 3 > _LARGEST_SEGMENT:
            return f"one of its segments has {height * width} pixels, too many to decode"
        return None

    @property
    def _is_plain(self) -> bool:
        """Whether rows can be cut out as they are: uncompressed strips, samples together."""
        page = self.page
        return bool(
            not page.is_tiled
            and page.compression == 1
            and page.predictor == 1
            and page.fillorder == 1
            and (page.planarconfig == 1 or page.samplesperpixel == 1)
        )

    def _rows(self, window: Window) -> Iterator[_Piece]:
        page = self.page
        samples, width = int(page.samplesperpixel), int(page.imagewidth)
        rows = min(int(page.rowsperstrip), int(page.imagelength))
        for y in range(window.top, window.bottom):
            strip, row = divmod(y, rows)
            start = int(page.dataoffsets[strip]) + (row * width + window.left) * samples
            end = int(page.dataoffsets[strip]) + int(page.databytecounts[strip])
            stop = start + window.width * samples
            if stop > end:
                raise TiffFaultError(f"strip {strip} is cut off")
            yield _Piece(strip, start, stop, y)

    def _segments(self, window: Window) -> Iterator[_Piece]:
        page = self.page
        if page.is_tiled:
            tall, wide = int(page.tilelength), int(page.tilewidth)
        else:
            tall, wide = min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth)
        down, along = -(-int(page.imagelength) // tall), -(-int(page.imagewidth) // wide)
        planes = int(page.samplesperpixel) if page.planarconfig == 2 else 1
        for plane in range(planes):
            for row in range(window.top // tall, (window.bottom - 1) // tall + 1):
                for column in range(window.left // wide, (window.right - 1) // wide + 1):
                    number = (plane * down + row) * along + column
                    if number >= len(page.dataoffsets):
                        raise TiffFaultError(f"segment {number} is missing")
                    start = int(page.dataoffsets[number])
                    yield _Piece(number, start, start + int(page.databytecounts[number]))

    def _put(
        self,
        piece: _Piece,
        content: bytes,
        window: Window,
        out: Pixels,
        seen: npt.NDArray[np.int64],
    ) -> None:
        """Put the pixels of a piece to their place."""
        if piece.row is not None:
            line = np.frombuffer(content, np.uint8).reshape(window.width, out.shape[2])
            out[piece.row - window.top] = line
            seen[piece.row - window.top] += window.width
            return
        page = self.page
        if not content:
            raise TiffFaultError(f"segment {piece.number} is empty")
        try:
            decoded, place, _ = page.decode(
                content, piece.number, jpegtables=self.tables[0], jpegheader=self.tables[1]
            )
        except _DAMAGED as error:
            raise TiffFaultError(f"segment {piece.number} is damaged: {error}") from error
        if decoded is None or decoded.dtype != np.uint8 or decoded.ndim != 4:
            raise TiffFaultError(f"segment {piece.number} does not hold what it should")
        sample, _, y, x, _ = (int(each) for each in place)
        block = decoded[0]
        height = min(y + block.shape[0], window.bottom, int(page.imagelength))
        width = min(x + block.shape[1], window.right, int(page.imagewidth))
        rows, columns = slice(max(y, window.top), height), slice(max(x, window.left), width)
        samples = slice(sample, sample + block.shape[2])
        here = (
            slice(rows.start - window.top, rows.stop - window.top),
            slice(columns.start - window.left, columns.stop - window.left),
            samples,
        )
        out[here] = block[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
        seen[here[0], samples] += columns.stop - columns.start


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes that hold a segment, or the part of a row that is wanted."""

    number: int
    start: int
    stop: int
    row: int | None = None


def _batches(pieces: list[_Piece]) -> Iterator[list[_Piece]]:
    """Yield pieces in the order of the file, as many at once as may be held."""
    batch: list[_Piece] = []
    held = 0
    for piece in sorted(pieces, key=lambda each: each.start):
        if batch and held + piece.stop - piece.start > _MOST_AT_ONCE:
            yield batch
            batch, held = [], 0
        batch.append(piece)
        held += piece.stop - piece.start
    if batch:
        yield batch


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ascending ranges with those that lie near each other made one.

    Examples
    --------
    >>> _merged([(0, 10), (10, 20), (5000, 5010), (900000, 900010)])
    [(0, 5010), (900000, 900010)]
    """
    merged: list[tuple[int, int]] = []
    for start, stop in ranges:
        if merged and start - merged[-1][1] <= _GAP:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return merged


def _within(piece: _Piece, ranges: Sequence[tuple[int, int]], bodies: Sequence[bytes]) -> bytes:
    import bisect

    place = bisect.bisect_right([start for start, _ in ranges], piece.start) - 1
    first = ranges[place][0]
    return bodies[place][piece.start - first : piece.stop - first]
