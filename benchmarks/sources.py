"""Sources that cost nothing: metadata and one prepared body, in memory."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import simplejpeg

from atldld.model.dataset import SectionDataset
from atldld.model.read import ImageRead, Window
from atldld.testing import PhantomDataset, phantom_dataset

DATASET = 2001
BODY_MICRONS = 16.0
BODY_SIZE = (712, 500)
"""One pixel spans 16 grid points of a micron, so that a whole section is a small image."""


@dataclass(frozen=True)
class FreeSource:
    """Answers every question from memory, whatever is asked for.

    Small, as a source that travels in tasks has to be: each process makes the answers once.

    Parameters
    ----------
    sections
        How many sections its dataset has.
    """

    sections: int

    @property
    def name(self) -> str:
        """What to call it."""
        return "memory"

    @property
    def row(self) -> dict[str, Any]:
        """The SectionDataSet row that its dataset is built from."""
        raise NotImplementedError

    @property
    def body(self) -> bytes:
        """The JPEG of every image."""
        raise NotImplementedError

    def dataset(self, dataset_id: int) -> SectionDataset:
        """Build the dataset from its row, as from an answer that has just come."""
        del dataset_id
        return SectionDataset.from_rows(self.row)

    def image(self, read: ImageRead) -> bytes:
        """Return the body."""
        del read
        return self.body

    def held(self, read: ImageRead) -> frozenset[Window | None]:
        """Whole images are at hand."""
        del read
        return frozenset([None])

    def recall(self, key: str) -> None:
        """Nothing is remembered."""

    def remember(self, key: str, text: str) -> None:
        """Nothing is remembered."""

    def discard(self, read: ImageRead) -> None:
        """Nothing is kept."""

    def url(self, read: ImageRead) -> str:
        """Return a name for messages."""
        return f"memory:{read.image_id}"

    def __dask_tokenize__(self) -> object:
        """Return what tells it from others."""
        return type(self).__name__, self.sections


class PiecesSource(FreeSource):
    """Small images that span whole coronal sections.

    Reading a piece of the grid costs the decoding of a small image and the warp of the piece,
    and nothing that depends on a network or a disk.
    """

    @property
    def row(self) -> dict[str, Any]:
        """The row of a phantom, as it is."""
        return _phantom_of_pieces(self.sections).row

    @property
    def body(self) -> bytes:
        """The JPEG of its middle section, for every section."""
        return _body_of_pieces(self.sections)


class RowsSource(FreeSource):
    """Metadata of any number of sections, and blank images.

    The sections lie 0.1 micron apart, so that as many as are wanted find room; each has its
    own id, number and 2-D matrix.
    """

    @property
    def row(self) -> dict[str, Any]:
        """The row of a phantom, with as many sections as are wanted."""
        return many_rows(self.sections)

    def image(self, read: ImageRead) -> bytes:
        """Return a blank JPEG of the size that is asked for."""
        return _blank(*read.size)


@cache
def _blank(width: int, height: int) -> bytes:
    pixels = np.full((height, width, 3), 200, dtype=np.uint8)
    return bytes(simplejpeg.encode_jpeg(pixels, 90, "RGB", "444"))


@cache
def _phantom_of_pieces(sections: int) -> PhantomDataset:
    return phantom_dataset(
        DATASET,
        "coronal",
        tilt=3.0,
        sections=sections,
        resolution=BODY_MICRONS,
        image_size=BODY_SIZE,
        tier_count=1,
    )


@cache
def _body_of_pieces(sections: int) -> bytes:
    phantom = _phantom_of_pieces(sections)
    pixels = phantom.pixels(phantom.image_ids[sections // 2])
    return bytes(simplejpeg.encode_jpeg(pixels, 95, "RGB", "444"))


@cache
def many_rows(sections: int) -> dict[str, Any]:
    """Return the row of `RowsSource`; made at the first call."""
    row = copy.deepcopy(phantom_dataset(DATASET, sections=2, section_thickness=0.1).row)
    first = row["section_images"][0]
    row["section_images"] = [_moved(first, place) for place in range(sections)]
    return row


def _moved(image: dict[str, Any], place: int) -> dict[str, Any]:
    moved = copy.deepcopy(image)
    moved["id"] = image["id"] + place
    moved["section_number"] = place
    # A whole number of pixels to the right, so that the two directions stay inverses.
    shift = place % 97
    matrices = moved["alignment2d"]
    matrices["tvs_04"] += shift
    matrices["tsv_04"] -= shift * matrices["tsv_00"]
    matrices["tsv_05"] -= shift * matrices["tsv_02"]
    return moved
