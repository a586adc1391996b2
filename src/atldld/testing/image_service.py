"""The image services: which pixels a request asks for, and the body that answers it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from .doubts import Doubts
from .served import Served
from .service_rows import Row

Pixels = npt.NDArray[np.uint8]
Parameters = Mapping[str, str]

GREY_FILTER = "0,1,0,256,0"
"""The parameters of the colour map that leaves the grey levels of an expression image."""

QUALITY = 95
"""Of a JPEG, where none is asked for."""

_VIEWS = {"expression": "_expression", "projection": "_projection"}
_MOST_PIXELS = 2**29


class BadRequestError(Exception):
    """A parameter that cannot be understood, or an answer that there is none."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Span(NamedTuple):
    """What part of a row of tier pixels lies on the slide.

    Parameters
    ----------
    start
        Full-resolution pixel of the slide that the first one is centred on.
    skipped
        How many lie before it, off the slide.
    length
        How many lie on the slide.
    """

    start: int
    skipped: int
    length: int


@dataclass(frozen=True, slots=True)
class Region:
    """The pixels that one request asks the image service for.

    Parameters
    ----------
    image_id, view, tier
        Of which image.
    left, top
        Corner in full-resolution pixels of the slide, as asked.
    width, height
        Size in pixels of the tier, as asked.
    quality
        Of the JPEG, 0 to 100.
    """

    image_id: int
    view: str
    tier: int
    left: int
    top: int
    width: int
    height: int
    quality: int = QUALITY


class Images:
    """The images of a server, by id and by path, encoded and kept.

    Parameters
    ----------
    sources
        What is served. Of images with one id the first is taken.
    doubts
        How what is not known is read.
    cache_bytes
        Most bytes of bodies to keep besides what was prepared.
    """

    def __init__(self, sources: Iterable[Served], doubts: Doubts, cache_bytes: int) -> None:
        self._doubts = doubts
        self._bodies = Bodies(cache_bytes)
        self._sources: dict[int, Served] = {}
        self._true: dict[int, Row] = {}
        for source in sources:
            for image_id in source.image_ids:
                if self._sources.setdefault(image_id, source) is source:
                    self._true[image_id] = source.image(image_id)
        told = {
            image["id"]: image
            for source in sources
            for image_id, image in _told_images(source).items()
            if self._sources.get(image_id) is source
        }
        self._told = {**self._true, **told}
        # Of two images under one path the first is served.
        self._named = {
            self.path(image_id, view): (image_id, view)
            for image_id in reversed(self._sources)
            for view in ("projection", "expression", "image")
        }

    @property
    def image_ids(self) -> list[int]:
        """Ids of all images."""
        return list(self._sources)

    def row(self, image_id: int) -> Row:
        """Return the true row of an image, or raise a `BadRequestError` with status 404."""
        if image_id not in self._true:
            raise BadRequestError(404, f"SectionImage {image_id} was not found")
        return self._true[image_id]

    def path(self, image_id: int, view: str) -> str:
        """Return the path that names an image and view at the image service."""
        told = self._told[image_id]
        if view == "expression" and told.get("expression_path"):
            return str(told["expression_path"])
        stem = str(told.get("path") or f"/external/images/{image_id}.aff")
        if view == "image":
            return stem
        return f"{stem.removesuffix('.aff')}{_VIEWS[view]}.aff"

    def download(self, image_id: int, parameters: Parameters) -> tuple[Region, str]:
        """Read a request for ``section_image_download``.

        Returns
        -------
        region
            What it asks for.
        url
            Path and query of the image service that it is redirected to.
        """
        row = self.row(image_id)
        view = _view(parameters)
        tier = self._tier(row, _whole(parameters, "downsample", 0))
        step = 2**tier
        sizes = []
        for side in ("width", "height"):
            given = _whole(parameters, side)
            shrinks = given is None or self._shrinks(parameters)
            sizes.append(
                max((row[side] if given is None else given) // step, 1) if shrinks else given
            )
        query = {
            "mime": "1",
            "path": self.path(image_id, view),
            "left": str(_whole(parameters, "left", row["x"])),
            "top": str(_whole(parameters, "top", row["y"])),
            "width": str(sizes[0]),
            "height": str(sizes[1]),
            "downsample": str(tier),
        }
        for name in ("quality", "filter", "filterVals", "colormap", "range", "rgb", "contrast"):
            if name in parameters:
                query[name] = parameters[name]
        pairs = (f"{name}={quote(value, safe='/,')}" for name, value in query.items())
        return self.service(query), f"/cgi-bin/imageservice?{'&'.join(pairs)}"

    def service(self, parameters: Parameters) -> Region:
        """Read a request for the image service itself."""
        path = parameters.get("path", "")
        if path not in self._named:
            raise BadRequestError(404, f"there is no image at {path!r}")
        image_id, view = self._named[path]
        row = self.row(image_id)
        zoom = _whole(parameters, "zoom")
        tiers = row.get("tier_count") or 1
        asked = _whole(parameters, "downsample", 0 if zoom is None else max(tiers - 1 - zoom, 0))
        tier = self._tier(row, asked)
        slide = _slide(row)
        width = _whole(parameters, "width", max(slide[0] >> tier, 1))
        height = _whole(parameters, "height", max(slide[1] >> tier, 1))
        left, top = _whole(parameters, "left", 0), _whole(parameters, "top", 0)
        if width < 1 or height < 1 or width * height > _MOST_PIXELS:
            raise BadRequestError(400, f"the size {width} x {height} cannot be served")
        quality = _whole(parameters, "quality", QUALITY)
        if not 0 <= quality <= 100:
            raise BadRequestError(400, f"the quality {quality} is not between 0 and 100")
        if view == "expression" and self._grey(parameters):
            view = "expression_mask"
        return Region(image_id, view, tier, left, top, width, height, quality)

    def whole(self, image_id: int, view: str, tier: int) -> Region:
        """Return the region of a whole section."""
        row = self.row(image_id)
        size = max(row["width"] >> tier, 1), max(row["height"] >> tier, 1)
        return Region(image_id, view, tier, row["x"], row["y"], *size)

    def window(self, region: Region) -> tuple[int, int, int, int] | None:
        """Return a region in tier pixels of its section; None where it is all of it."""
        row, step = self.row(region.image_id), 2**region.tier
        whole = self.whole(region.image_id, region.view, region.tier)
        if self._doubts.tier_origin == "floor":
            corner = (region.left // step - row["x"] // step, region.top // step - row["y"] // step)
            same = corner == (0, 0)
        else:
            corner = ((region.left - row["x"]) // step, (region.top - row["y"]) // step)
            same = (region.left, region.top) == (row["x"], row["y"])
        if same and (region.width, region.height) == (whole.width, whole.height):
            return None
        return *corner, region.width, region.height

    def body(self, region: Region) -> bytes:
        """Return the JPEG of a region, made or kept; a `BadRequestError` where there is none."""
        return self._bodies.get(region, lambda: self._encoded(region))

    def prepare(self, region: Region) -> int:
        """Make the JPEG of a region now, and keep it for good; returns its size in bytes."""
        return len(self._bodies.get(region, lambda: self._encoded(region), for_good=True))

    def _encoded(self, region: Region) -> bytes:
        import simplejpeg

        source = self._sources[region.image_id]
        told = self._told[region.image_id]
        if region.view.startswith("expression") and not told.get("expression_path"):
            raise BadRequestError(404, f"SectionImage {region.image_id} has no expression image")
        try:
            if self.window(region) is None and region.quality == QUALITY:
                stored = source.encoded(region.image_id, region.view, region.tier)
                if stored is not None:
                    return stored
            pixels = self._pixels(source, region)
        except LookupError as error:
            raise BadRequestError(404, f"no such image: {error}") from error
        colour = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)
        colour = np.ascontiguousarray(colour)
        return bytes(simplejpeg.encode_jpeg(colour, region.quality, "RGB", "444", fastdct=False))

    def _pixels(self, source: Served, region: Region) -> Pixels:
        row, step = self.row(region.image_id), 2**region.tier
        slide = _slide(row)
        along = self._span(region.left, region.width, slide[0], step)
        down = self._span(region.top, region.height, slide[1], step)
        shown: Pixels | None = None
        if along.length > 0 and down.length > 0:
            shown = source.slide_pixels(
                region.image_id,
                region.view,
                region.tier,
                (along.start, down.start),
                (along.length, down.length),
                shift=0.5 if self._doubts.pixel_centre == "corner" else 0.0,
            )
        if shown is not None and (along.length, down.length) == (region.width, region.height):
            return shown
        if self._doubts.outside == "clip":
            if shown is None:
                raise BadRequestError(404, f"the region lies outside of the slide: {region}")
            return shown
        channels = () if region.view == "expression_mask" else (3,)
        shape = (region.height, region.width, *channels)
        out = np.full(shape, 255 if region.view == "image" else 0, dtype=np.uint8)
        if shown is not None:
            out[down.skipped :, along.skipped :][: down.length, : along.length] = shown
        return out

    def _span(self, at: int, count: int, side: int, step: int) -> Span:
        """Return what part of `count` tier pixels from `at` on lies on the slide."""
        start, past = at, side
        if self._doubts.tier_origin == "floor":
            start -= at % step
            past = max(side // step, 1) * step
        first = min(max(-(start // step), 0), count)
        last = min(max(-((start - past) // step), first), count)
        return Span(start + first * step, first, last - first)

    def _tier(self, row: Row, tier: int) -> int:
        if tier < 0:
            raise BadRequestError(400, f"downsample={tier} is negative")
        last = (row.get("tier_count") or 1) - 1
        if tier > last and self._doubts.beyond_tiers == "404":
            raise BadRequestError(404, f"downsample={tier} is beyond the last tier, {last}")
        return min(tier, last)

    def _shrinks(self, parameters: Parameters) -> bool:
        """Whether given sizes count full-resolution pixels."""
        flag = parameters.get("downsample_dimensions")
        if flag is None or self._doubts.downsample_dimensions == "ignored":
            return self._doubts.window_sizes == "full"
        full = flag.lower() in ("true", "t", "1")
        return full if self._doubts.downsample_dimensions == "honoured" else not full

    def _grey(self, parameters: Parameters) -> bool:
        by_filter = (
            parameters.get("filter") == "colormap" and parameters.get("filterVals") == GREY_FILTER
        )
        by_map = parameters.get("colormap") == GREY_FILTER
        return (by_filter and self._doubts.grey_mask in ("both", "filter")) or (
            by_map and self._doubts.grey_mask in ("both", "colormap")
        )


def _slide(row: Row) -> tuple[int, int]:
    return (
        row.get("image_width") or row["x"] + row["width"],
        row.get("image_height") or row["y"] + row["height"],
    )


def _view(parameters: Parameters) -> str:
    view = parameters.get("view", "")
    for alias in _VIEWS:
        if parameters.get(alias, "").lower() in ("true", "t", "1"):
            view = alias
    if view in ("", "image"):
        return "image"
    if view not in _VIEWS:
        raise BadRequestError(404, f"there is no view {view!r} of this image")
    return view


def _whole(parameters: Parameters, name: str, default: Any = None) -> Any:
    text = parameters.get(name)
    if text is None or text == "":
        return default
    try:
        return int(text)
    except ValueError:
        raise BadRequestError(400, f"{name}={text!r} is not a whole number") from None


def _told_images(source: Served) -> dict[int, Row]:
    """Return what a source tells of its images, by id; its rows may be as odd as one likes."""
    images = [
        image
        for dataset in source.rows
        if isinstance(held := dataset.get("section_images"), list)
        for image in held
        if isinstance(image, dict) and isinstance(image.get("id"), int)
    ]
    return {image["id"]: image for image in images}


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
