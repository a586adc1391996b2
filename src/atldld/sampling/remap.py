"""Sampling an image at displaced points, whatever its size, type and number of channels.

``cv2.remap`` does the arithmetic. It refuses sides of 32767 and more, crashes beyond 2 GiB,
takes four channels at most, goes wrong or takes for ever where points are far away (all in 5.0),
and knows few types; this module stands between.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Image = npt.NDArray[Any]

INTERPOLATIONS = ("nearest", "linear", "cubic", "area", "lanczos")
BORDER_MODES = ("constant", "replicate", "reflect", "wrap", "reflect_101", "transparent")

_FOLDED = ("reflect", "wrap", "reflect_101")
_REACH = 8
"""Pixels beyond a point's own that no kernel reaches; Lanczos, the widest, reaches 4."""

_SIDE_LIMIT = 2**15 - 1
_BYTE_LIMIT = 2**31 - 1
_BLOCK = 2**22
"""Points sampled at once; the coordinates of a block take 32 MiB."""

_NATIVE = (np.uint8, np.uint16, np.int16, np.float32)
_THROUGH = {np.int8: np.int16, np.float16: np.float32, np.float64: np.float32}


def remap(
    img: npt.ArrayLike,
    delta_x: Floats,
    delta_y: Floats,
    *,
    interpolation: str,
    border_mode: str,
    c: npt.ArrayLike,
) -> Image:
    """Sample an image at every grid point plus its displacement.

    Parameters
    ----------
    img
        Shape (rows, columns) or (rows, columns, channels), any side and number of channels.
        uint8, uint16, int16 and float32 are sampled as they are; int8, float16 and float64
        through a wider type or float32, and come back as they were. Other integers and
        booleans cannot hold a blend: they are for ``"nearest"``.
    delta_x, delta_y
        Shape (h, w): output pixel (row, column) shows the image at
        ``(x, y) = (column + delta_x, row + delta_y)``; pixel centres are whole numbers.
    interpolation, border_mode
        One of `INTERPOLATIONS`, one of `BORDER_MODES`; see `DisplacementField.warp`.
    c
        A number, or one a channel.

    Returns
    -------
    sampled
        Shape (h, w) or (h, w, channels), type of `img`.

    Raises
    ------
    ValueError
        If a name is not known, or the shape of `img` or `c` is not as above.
    TypeError
        If values of the type of `img` cannot be sampled in this way.
    """
    _check_name("interpolation", interpolation, INTERPOLATIONS)
    _check_name("border_mode", border_mode, BORDER_MODES)
    image = np.asarray(img)
    if image.ndim not in (2, 3) or 0 in image.shape[:2]:
        raise ValueError(
            f"the image has shape {image.shape}; it must be (rows, columns) or "
            "(rows, columns, channels) and hold a pixel"
        )
    if image.dtype.kind not in "biuf":
        raise TypeError(f"the image holds {image.dtype}; it must hold real numbers or booleans")
    channels = math.prod(image.shape[2:])
    if border_mode == "transparent":
        border_mode, c = "constant", 0
    fill = _fill(c, image.dtype, channels)
    flat = image.reshape(*image.shape[:2], channels)
    out = np.empty((*delta_x.shape, channels), dtype=image.dtype.newbyteorder("="))
    work = _workable(flat, interpolation)
    # What is not finite cannot be blended: 0 * nan is nan, one pixel into the image.
    blends = border_mode != "constant" or bool(np.isfinite(fill).all())
    border = border_mode if blends else "replicate"
    for some in _channel_groups(channels):
        source = None if work is None else np.ascontiguousarray(work[..., some])
        pad = 0
        if source is not None and border_mode in _FOLDED:
            # OpenCV's cubic kernel never ends where it reflects an image of one row (5.0), and
            # a tile lacks what lies at the other end. Elsewhere points stay as they are.
            pad = _REACH if interpolation == "cubic" or not _fits(source) else 0
            source = _padded(source, border_mode) if pad else source
        for block in _blocks(delta_x.shape):
            x, y = _points(delta_x, delta_y, block)
            outside = None if blends else _outside(x, y, image.shape, interpolation)
            _fold(x, image.shape[1], border)
            _fold(y, image.shape[0], border)
            if source is None:
                sampled = _nearest(flat[..., some], x, y, border, fill[some])
            else:
                sampled = _tiled(source, x, y, pad, interpolation, border, fill[some])
            out[(*block, some)] = _as_type(sampled, out.dtype)
            if outside is not None:
                out[(*block, some)][outside] = fill[some]
    return out.reshape(*delta_x.shape, *image.shape[2:])


def _check_name(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise ValueError(f"{what} is {name!r}; known ones are {', '.join(map(repr, known))}")


def _fill(c: npt.ArrayLike, dtype: np.dtype[Any], channels: int) -> Image:
    """Return one border value a channel, rounded and clipped to what the type holds."""
    values = np.asarray(c)
    if values.dtype.kind not in "biuf":
        raise TypeError(f"c is {c!r}; it must be a number, or one number a channel")
    if values.ndim > 1 or values.size not in (1, channels):
        raise ValueError(
            f"c has shape {values.shape}; it must be one number, or {channels} (one a channel)"
        )
    if dtype.kind in "iu":
        if not np.isfinite(values).all():
            raise ValueError(f"c is {c!r}; an image of {dtype} cannot hold that")
        ends = np.iinfo(dtype)
        rounded = [
            min(max(round(value), int(ends.min)), int(ends.max))
            for value in values.reshape(-1).tolist()
        ]
        values = np.array(rounded, dtype=dtype)
    return np.broadcast_to(values.astype(dtype).reshape(-1), (channels,))


def _workable(image: Image, interpolation: str) -> Image | None:
    """Return the image in a type that ``cv2.remap`` samples rightly; None where none is."""
    kind = image.dtype.newbyteorder("=").type
    if kind in _NATIVE:
        return image.astype(kind, copy=False)
    if interpolation == "nearest":
        return None
    if kind not in _THROUGH:
        raise TypeError(
            f"{image.dtype} cannot hold what {interpolation!r} interpolation blends; use "
            "interpolation='nearest', or convert the image to float32"
        )
    return image.astype(_THROUGH[kind])


def _channel_groups(channels: int) -> Iterator[slice]:
    """Yield the channels in threes, and the rest one by one.

    ``cv2.remap`` samples one and three channels (5.0) between pixels in floating point, but two
    in steps of 1/32 pixel, and takes four at most.
    """
    threes = channels - channels % 3
    yield from (slice(first, first + 3) for first in range(0, threes, 3))
    yield from (slice(one, one + 1) for one in range(threes, channels))


def _as_type(sampled: Image, dtype: np.dtype[Any]) -> Image:
    if dtype.kind == "i" and sampled.dtype != dtype:
        ends = np.iinfo(dtype)
        sampled = np.clip(sampled, ends.min, ends.max)
    return sampled.astype(dtype, copy=False)


def _padded(image: Image, border_mode: str) -> Image:
    import cv2

    mode = getattr(cv2, f"BORDER_{border_mode.upper()}")
    padded = cv2.copyMakeBorder(image, _REACH, _REACH, _REACH, _REACH, mode)
    return padded.reshape(*padded.shape[:2], image.shape[2])


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Yield pieces of the output that are small enough for ``cv2.remap`` and for memory."""
    height, width = shape
    columns = min(width, _SIDE_LIMIT - 1)
    rows = min(max(_BLOCK // max(columns, 1), 1), _SIDE_LIMIT - 1)
    for top in range(0, height, rows):
        for left in range(0, width, max(columns, 1)):
            yield (
                slice(top, min(top + rows, height)),
                slice(left, min(left + columns, width)),
            )


def _points(delta_x: Floats, delta_y: Floats, block: tuple[slice, slice]) -> tuple[Floats, Floats]:
    rows, columns = block
    x = delta_x[block] + np.arange(columns.start, columns.stop, dtype=np.float32)
    y = delta_y[block] + np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
    return x, y


def _outside(x: Floats, y: Floats, shape: tuple[int, ...], interpolation: str) -> Any:
    """Return which points lie off the image: beyond its outermost pixel centres."""
    if interpolation == "nearest":
        x, y = np.rint(x), np.rint(y)
    return (x < 0) | (x > shape[1] - 1) | (y < 0) | (y > shape[0] - 1)


def _fold(x: Floats, size: int, border_mode: str) -> None:
    """Bring points, in place, to where the border mode finds the same value near the image."""
    beyond = (x < 0) | (x > size - 1)
    if not beyond.any():
        return
    far = x[beyond]
    if border_mode == "wrap":
        far = np.mod(far, size)
    elif border_mode == "reflect":
        far = np.mod(far + np.float32(0.5), 2 * size)
        far = np.minimum(far, 2 * size - far) - np.float32(0.5)
    elif border_mode == "reflect_101":
        period = max(2 * size - 2, 1)
        far = np.mod(far, period)
        far = np.minimum(far, period - far) if size > 1 else np.zeros_like(far)
    x[beyond] = np.clip(far, -_REACH, size - 1 + _REACH)


def _nearest(image: Image, x: Floats, y: Floats, border_mode: str, fill: Image) -> Image:
    """Pick the nearest pixels of an image of any type; points are folded already."""
    columns, rows = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
    height, width = image.shape[:2]
    inner_columns, inner_rows = columns, rows
    if border_mode == "wrap":
        inner_columns, inner_rows = columns % width, rows % height
    inner_columns = np.clip(inner_columns, 0, width - 1)
    inner_rows = np.clip(inner_rows, 0, height - 1)
    picked = image[inner_rows, inner_columns]
    if border_mode == "constant":
        picked[(inner_columns != columns) | (inner_rows != rows)] = fill
    return picked


def _fits(source: Image) -> bool:
    """Whether ``cv2.remap`` may be given the whole of it."""
    height, width = source.shape[:2]
    down, across = source.strides[:2]
    return (_tile_side(width, across), _tile_side(height, down)) == (width, height)


def _tiled(
    source: Image,
    x: Floats,
    y: Floats,
    pad: int,
    interpolation: str,
    border_mode: str,
    fill: Image,
) -> Image:
    """Sample at folded points, through overlapping tiles where a side is too long."""
    if pad:
        x, y, border_mode = x + np.float32(pad), y + np.float32(pad), "replicate"
    height, width, channels = source.shape
    side_x, side_y = _tile_side(width, source.strides[1]), _tile_side(height, source.strides[0])
    tile_x, tile_y = _tile_of(x, width, side_x), _tile_of(y, height, side_y)
    out = np.empty((0,))
    for row in range(int(tile_y.min()), int(tile_y.max()) + 1):
        for column in range(int(tile_x.min()), int(tile_x.max()) + 1):
            mine = (tile_y == row) & (tile_x == column)
            if not mine.any():
                continue
            left, right = _tile_ends(column, width, side_x)
            top, bottom = _tile_ends(row, height, side_y)
            sampled = _sampled(
                source[top:bottom, left:right],
                x - np.float32(left) if left else x,
                y - np.float32(top) if top else y,
                interpolation,
                border_mode,
                fill,
            ).reshape(*x.shape, channels)
            if mine.all():
                return sampled
            if out.size == 0:
                out = np.empty_like(sampled)
            np.copyto(out, sampled, where=mine[..., None])
    return out


def _sampled(
    source: Image, x: Floats, y: Floats, interpolation: str, border_mode: str, fill: Image
) -> Image:
    import cv2

    methods = {
        "nearest": cv2.INTER_NEAREST,
        "linear": cv2.INTER_LINEAR,
        "cubic": cv2.INTER_CUBIC,
        "area": cv2.INTER_LINEAR,
        "lanczos": cv2.INTER_LANCZOS4,
    }
    borders = {
        "constant": cv2.BORDER_CONSTANT,
        "replicate": cv2.BORDER_REPLICATE,
        "reflect": cv2.BORDER_REFLECT,
        "wrap": cv2.BORDER_WRAP,
        "reflect_101": cv2.BORDER_REFLECT_101,
    }
    return cv2.remap(
        source,
        x,
        y,
        methods[interpolation],
        borderMode=borders[border_mode],
        borderValue=fill.astype(np.float64).tolist() if border_mode == "constant" else 0,
    )


def _tile_side(size: int, stride: int) -> int:
    """Return how many pixels of a side ``cv2.remap`` may be given, without those in reach."""
    most = min(_SIDE_LIMIT - 1, _BYTE_LIMIT // stride)
    return size if size <= most else most - 2 * _REACH


def _tile_of(x: Floats, size: int, side: int) -> npt.NDArray[np.int32]:
    """Return the number of the tile that holds each point, along one side."""
    if side == size:
        return np.zeros((1, 1), dtype=np.int32)
    return np.clip(np.floor(x), 0, size - 1).astype(np.int32) // side


def _tile_ends(tile: int, size: int, side: int) -> tuple[int, int]:
    return max(tile * side - _REACH, 0), min((tile + 1) * side + _REACH, size)
