"""JPEGs: made, kept in memory, and made wrong in a way that is wanted.

The codecs are imported where they are used, so that importing the package stays cheap.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

QUALITY = 95
"""Of a JPEG, where none is asked for."""


def encode(pixels: Pixels, quality: int = QUALITY) -> bytes:
    """Encode pixels as JPEG, without subsampling of colour.

    Parameters
    ----------
    pixels
        Shape (h, w, 3), or (h, w), which becomes grey in three channels; uint8.
    quality
        0 to 100.
    """
    import simplejpeg

    colour = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)
    colour = np.ascontiguousarray(colour)
    return bytes(simplejpeg.encode_jpeg(colour, quality, "RGB", "444", fastdct=False))


def damaged(jpeg: bytes) -> bytes:
    """Return a JPEG whose head and end are whole and whose inside strict decoders refuse.

    Raises
    ------
    ValueError
        If no damage to its scan is noticed; so small an image can be.
    """
    import simplejpeg

    start = jpeg.rindex(b"\xff\xda")
    start += 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big")
    length = len(jpeg) - 2 - start
    random = np.random.default_rng(len(jpeg))
    for attempt in range(200):
        size = max(min(16 << (attempt // 20), length // 2), 1)
        at = start + int(random.integers(length // 4, max(length * 3 // 4 - size, length // 4 + 1)))
        noise = random.integers(0, 255, size, dtype=np.uint8).tobytes()
        spoiled = jpeg[:at] + noise + jpeg[at + size :]
        try:
            simplejpeg.decode_jpeg(spoiled, strict=True)
        except ValueError:
            return spoiled
    raise ValueError(f"no damage to a JPEG of {len(jpeg)} bytes is noticed")


def wrong_size(jpeg: bytes) -> bytes:
    """Return a sound JPEG of the same picture that is half as wide, and a row higher."""
    import simplejpeg

    pixels = simplejpeg.decode_jpeg(jpeg)
    height, width = pixels.shape[:2]
    rows = np.append(np.arange(height), height - 1)
    columns = np.arange(0, width, 2) if width > 1 else np.array([0, 0])
    return encode(pixels[rows[:, None], columns[None, :]])


def as_png(jpeg: bytes) -> bytes:
    """Return the same picture as PNG."""
    import cv2
    import simplejpeg

    pixels = simplejpeg.decode_jpeg(jpeg)
    done, data = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))
    if not done:
        raise ValueError("the image cannot be encoded as PNG")
    return data.tobytes()


class Bodies:
    """A cache of bodies; the least recently used go first, prepared ones stay.

    Parameters
    ----------
    limit
        Most bytes to keep besides what was prepared.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._lock = threading.Lock()
        self._making: dict[Hashable, threading.Lock] = {}
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._prepared: dict[Hashable, bytes] = {}

    def get(self, key: Hashable, make: Callable[[], bytes], *, for_good: bool = False) -> bytes:
        """Return a body; the first to ask for it makes it, others wait.

        Parameters
        ----------
        for_good
            Keep it whatever the bound.
        """
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                body = self._prepared.get(key, self._kept.get(key))
            if body is None:
                body = make()
            with self._lock:
                self._held -= len(self._kept.pop(key, b""))
                if for_good or key in self._prepared:
                    self._prepared[key] = body
                else:
                    self._kept[key] = body
                    self._held += len(body)
                while self._held > self._limit:
                    _, dropped = self._kept.popitem(last=False)
                    self._held -= len(dropped)
        return body
