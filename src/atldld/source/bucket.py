"""Allen's open bucket as a source: the slides as TIFF, by ranges, cropped to their sections.

The layout is that of ``s3://allen-mouse-brain-atlas`` [1]_::

    section_data_sets.json
    section_data_set_<id>/section_data_set.json
    section_data_set_<id>/downsample_<n>/<image_file_name>      a whole slide

There are no matrices and no expression masks: what a dataset is comes from a catalogue or from the
API. The rectangle of a section is what the bucket's own JSON says of the tier, and is held against
those metadata.

References
----------
.. [1] "Allen Mouse Brain Atlas", Registry of Open Data on AWS,
   https://registry.opendata.aws/allen-mouse-brain-atlas
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

import numpy as np

from ..errors import APIError
from ..model.dataset import SectionDataset
from ..model.info import DatasetSummary
from ..model.read import ImageRead, Window
from ..model.terms import SearchTerms
from ..options import current
from ..store.cache import Cache, single_flight
from ..store.files import Files, Location
from ..store.records import CONVENTIONS, image_name, section_of
from ..urls import base_url
from .allen import AllenSource
from .tiff import Pixels, Tiff, TiffFaultError

if TYPE_CHECKING:
    from .rma import DatasetRows

LISTING: Final = "section_data_sets.json"
"""The file by which a bucket of this layout is known."""

OPEN_BUCKET: Final = "s3://allen-mouse-brain-atlas"
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,200}")
_LARGEST_JSON: Final = 2**25
_HEAD_BLOCK: Final = 2**16
_KEPT: Final = 64
_TRIES: Final = 3
_CONVENTIONS: Final = json.dumps(
    {"windows": True, "whole_origin": "slide", "past_left": True, "past_top": True}
)
"""Nothing is in doubt about windows that are cut here."""

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True, repr=False)
class BucketSource:
    """A bucket of whole slides, or a folder of the same layout.

    Parameters
    ----------
    where
        Its path or fsspec URL.
    service
        Base URL of the API that tells what the datasets are, where no catalogue does.
    tables
        Path or URL of a catalogue, in place of the one in the cache.

    Examples
    --------
    >>> BucketSource("s3://allen-mouse-brain-atlas", "https://api.brain-map.org/api/v2")
    BucketSource('s3://allen-mouse-brain-atlas')
    """

    where: str
    service: str
    tables: str | None = None
    image_ending: ClassVar[str] = "png"

    def __repr__(self) -> str:
        return f"BucketSource({self.name!r})"

    def __dask_tokenize__(self) -> Hashable:
        """Return what tells this source from others: its URL, and who describes the datasets."""
        return "atldld.BucketSource", self.name, self._describer.__dask_tokenize__()

    @property
    def name(self) -> str:
        """Its path or URL, without secrets."""
        return Location(self.where).name

    def dataset(self, dataset_id: int) -> SectionDataset:
        """Return the metadata of one dataset; raises what `AllenSource.dataset` raises."""
        return self._describer.dataset(dataset_id)

    def rows(self, dataset_id: int) -> DatasetRows:
        """Return the rows of a dataset, as the catalogue or the API says."""
        return self._describer.rows(dataset_id)

    def search(self, terms: SearchTerms) -> list[DatasetSummary]:
        """Return the datasets that meet some terms, as the catalogue or the API says."""
        return self._describer.search(terms)

    def image(self, read: ImageRead) -> bytes:
        """Return a read as PNG, from the cache, or cut out of its slide and kept.

        Raises
        ------
        ImageError
            If it cannot be had, or is not what the metadata say.
        """
        cache = self._cache()
        if cache is None:
            return single_flight((self.name, read), lambda: self._cut(read))
        return cache.obtain(
            image_name(read),
            fetch=lambda: self._cut(read),
            fits=lambda content: content.startswith(b"\x89PNG"),
            url=self.url(read),
            section=section_of(read),
        )

    def discard(self, read: ImageRead) -> None:
        """Throw away what is kept of a read, because strict decoding failed."""
        cache = self._cache()
        if cache is not None:
            cache.discard(image_name(read))

    def url(self, read: ImageRead) -> str:
        """Return where the slide of a read is, as far as that is known without looking."""
        return f"{self.name}/section_data_set_{read.dataset_id}/downsample_{read.tier}"

    def held(self, read: ImageRead) -> frozenset[Window | None]:
        """Return which windows of a read's image, view and tier are cached; None is the whole."""
        cache = self._cache()
        return frozenset() if cache is None else cache.held(read)

    def recall(self, key: str) -> str | None:
        """Return what is known about windows: they are cut here, from the slide."""
        return _CONVENTIONS if key == CONVENTIONS else None

    def remember(self, key: str, text: str) -> None:
        """Do nothing: there is nothing to find out."""

    def slide(self, dataset_id: int, image_id: int, tier: int) -> Slide:
        """Return where a section lies on its slide at a tier.

        Raises
        ------
        SlideFaultError
            If the bucket does not say, or lost it.
        """
        row = sections_of(self, dataset_id).get(image_id)
        if row is None:
            raise SlideFaultError("the bucket does not list it")
        tiers, name = row.get("downsampling"), row.get("image_file_name")
        told = tiers.get(f"downsample_{tier}") if isinstance(tiers, dict) else None
        if not isinstance(told, dict):
            raise SlideFaultError(f"the bucket has no tier {tier} of it")
        if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
            raise SlideFaultError("the bucket names no file of it")
        numbers = [
            told.get(key)
            for key in ("x", "y", "width", "height", "image_file_width", "image_file_height")
        ]
        if not all(type(number) is int and 0 <= number < 2**24 for number in numbers):
            raise SlideFaultError("the bucket does not say where it lies on its slide")
        x, y, width, height, wide, tall = (int(number or 0) for number in numbers)
        path = f"section_data_set_{dataset_id}/downsample_{tier}/{name}"
        return Slide(path, Window(x, y, width, height), (wide, tall))

    def tiff(self, path: str) -> Tiff:
        """Return what the directory of a slide says.

        Raises
        ------
        SlideFaultError, TiffFaultError
            If it is not there, or not a TIFF that is read.
        """
        return _opened(self, path)[1]

    def marks(self, path: str) -> str:
        """Return what tells a file from another one of its name: length, and ETag or time."""
        files, root = self._files()
        whole = f"{root}/{path}"
        files.invalidate_cache(whole)
        info = _reached(lambda: files.info(whole))
        if type(info.get("size")) is not int:
            raise SlideFaultError("the bucket does not say how long it is")
        return f"{info['size']} {info.get('ETag', info.get('mtime', ''))}".strip()

    def window(self, slide: Slide, part: Window) -> Pixels:
        """Return part of a slide, of one file, even where another one takes its place meanwhile.

        Raises
        ------
        SlideFaultError, TiffFaultError
            If it cannot be had, is not what the bucket says, or does not stay the same.
        """
        for _ in range(_TRIES):
            marks, tiff = _opened(self, slide.path)
            fault: Exception | None = None
            try:
                if tiff.shape != slide.size:
                    raise SlideFaultError(
                        "the slide has {} x {} pixels, the bucket says {} x {}".format(
                            *tiff.shape, *slide.size
                        )
                    )
                pixels = tiff.window(part, lambda ranges: self.fetched(slide.path, ranges))
            except (SlideFaultError, TiffFaultError) as error:
                fault = error
            # What was fetched is of the file whose directory was read only if it is there yet.
            if self.marks(slide.path) == marks:
                if fault is not None:
                    raise fault
                return pixels
            _opened.cache_clear()
        raise SlideFaultError("the file of the slide changes while it is read")

    def fetched(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return some ranges of a file."""
        files, root = self._files()
        starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
        whole = f"{root}/{path}"
        return _reached(
            lambda: list(files.cat_ranges([whole] * len(starts), starts, stops, on_error="raise"))
        )

    def _cut(self, read: ImageRead) -> bytes:
        """Return the part of a slide that a read is, as PNG."""
        try:
            if read.view != "image":
                raise SlideFaultError(f"the bucket has no {read.view}, only the images")
            if read.dataset_id is None:
                raise SlideFaultError("it is not said which dataset it is of")
            slide = self.slide(read.dataset_id, read.image_id, read.tier)
            slide.check(read)
            pixels = self.window(slide, slide.part(read))
        except (SlideFaultError, TiffFaultError) as error:
            raise read.error(str(error), self.url(read)) from error.__cause__
        return _png(pixels)

    @property
    def _describer(self) -> AllenSource:
        return AllenSource(self.service, self.tables)

    def _cache(self) -> Cache | None:
        """Return where reads are kept; what lies in a local folder needs no copy."""
        return None if Location(self.where).path is not None else Cache.here(self.where)

    def _files(self) -> tuple[Any, str]:
        import fsspec

        location = Location(self.where)
        if location.path is not None:
            return fsspec.filesystem("file"), str(location.path)
        if self.where.rstrip("/") == OPEN_BUCKET and "s3" not in fsspec.config.conf:
            files, root = fsspec.core.url_to_fs(self.where, anon=True)
            return files, str(root).rstrip("/")
        return location.filesystem()


class SlideFaultError(Exception):
    """A slide cannot be had, or is not what the metadata say."""


@dataclass(frozen=True, slots=True)
class Slide:
    """A section on its slide, at one tier.

    Parameters
    ----------
    path
        Of the file, within the bucket.
    section
        The section, in pixels of the tier of the slide.
    size
        Width and height of the slide at the tier.
    """

    path: str
    section: Window
    size: tuple[int, int]

    def check(self, read: ImageRead) -> None:
        """Hold the section against the metadata of its dataset."""
        step = 2**read.tier
        wanted = Window(read.x // step, read.y // step, read.width, read.height)
        if self.section != wanted:
            raise SlideFaultError(
                f"the bucket has it at {self.section.box} of the slide at tier {read.tier}, the "
                f"metadata at {wanted.box} (left, top, width, height)"
            )
        if self.section.right > self.size[0] or self.section.bottom > self.size[1]:
            raise SlideFaultError(f"it reaches past its slide of {self.size} pixels")

    def part(self, read: ImageRead) -> Window:
        """Return what a read is of the slide."""
        inner = read.window or Window(0, 0, *read.size)
        if inner.left < 0 or inner.top < 0 or not Window(0, 0, *self.section.box[2:]).holds(inner):
            raise SlideFaultError("the window reaches past the section")
        return Window(
            self.section.left + inner.left, self.section.top + inner.top, inner.width, inner.height
        )


@lru_cache(maxsize=_KEPT)
def _opened(bucket: BucketSource, path: str) -> tuple[str, Tiff]:
    """Return the marks of a slide, and what its directory says; perhaps those of before."""
    files, root = bucket._files()
    marks = bucket.marks(path)
    size = int(marks.partition(" ")[0])

    def opened() -> Tiff:
        with files.open(f"{root}/{path}", "rb", block_size=_HEAD_BLOCK) as file:
            return Tiff.opened(file, size)

    return marks, _reached(opened)


@lru_cache(maxsize=_KEPT)
def sections_of(bucket: BucketSource, dataset_id: int) -> dict[int, Any]:
    """Return what a bucket says of the sections of a dataset, by image id."""
    files, root = bucket._files()
    path = f"{root}/section_data_set_{dataset_id:d}/section_data_set.json"
    if _reached(lambda: files.size(path)) > _LARGEST_JSON:
        raise SlideFaultError("what the bucket says of the dataset is too long")
    content = _reached(lambda: files.cat_file(path))
    try:
        rows = json.loads(content)["section_images"]
        return {
            row["id"]: row for row in rows if isinstance(row, dict) and type(row.get("id")) is int
        }
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SlideFaultError("what the bucket says of the dataset cannot be read") from error


def bucket_at(where: str | os.PathLike[str]) -> BucketSource | None:
    """Return the bucket of slides at a path or fsspec URL, or None where there is none."""
    location = Location.of(where)
    found = BucketSource(location.text, base_url(current().api_url))
    if location.text == OPEN_BUCKET or Files(location).size(LISTING) is not None:
        return found
    return None


def _reached(ask: Callable[[], _Found]) -> _Found:
    """Return what a store answers, or say that it has no such thing, or is out of reach."""
    try:
        return ask()
    except (SlideFaultError, TiffFaultError, ImportError):
        raise
    except FileNotFoundError as error:
        raise SlideFaultError("the bucket does not have it") from error
    except Exception as error:
        # What stores raise may hold secrets: their words are not passed on.
        fault = SlideFaultError(f"the bucket is out of reach ({type(error).__name__})")
        fault.__cause__ = APIError(str(fault))
    raise fault


def _png(pixels: Pixels) -> bytes:
    """Return pixels as a PNG: without loss, packed lightly."""
    import cv2

    done, content = cv2.imencode(
        ".png", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )
    if not done:
        raise SlideFaultError(f"{pixels.shape} pixels cannot be kept")
    return content.tobytes()
