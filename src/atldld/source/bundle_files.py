"""Which files a bundle has, by what names, and how large they may be.

::

    manifest.json                           written last: a bundle without it is not whole
    README.txt                              terms of use and citation, for people
    datasets/69289763.json                  the rows that describe the dataset, as they came
    images/69177654/image-t2.jpg            the whole image at tier 2, as it came
    images/69177654/image-t2-w256-0-1024-768.jpg    a window of it

A bundle may come from a stranger: a name that is not one of these forms names no file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self, cast

from ..model.affine import tier_size
from ..model.dataset import SectionImage
from ..model.read import VIEWS, ImageRead, View, Window
from .names import dataset_name

README: Final = "README.txt"

DATASET_BYTES: Final = 16 * 2**20
README_BYTES: Final = 2**16
IMAGE_BYTES: Final = 2**30
MOST_FILES: Final = 40_000
MOST_PIXELS: Final = 2**30
"""Of an image. The largest known section, of a human brain, has 0.9 * 10**9."""

LONGEST_NAME: Final = 200

_NUMBER = r"(?:0|[1-9][0-9]{0,18})"
_SIDE = r"(?:0|[1-9][0-9]{0,8})"
_IMAGE: Final = re.compile(
    rf"images/(?P<image>{_NUMBER})/(?P<view>{'|'.join(VIEWS)})-t(?P<tier>0|[1-9][0-9]?)"
    rf"(?:-w(?P<window>{_SIDE}-{_SIDE}-{_SIDE}-{_SIDE}))?\.jpg"
)


def name_fault(name: str) -> str | None:
    """Return why a name may not stand in a bundle, in words, or None.

    Examples
    --------
    >>> name_fault("images/7/image-t2.jpg")
    >>> name_fault("images/../../.bashrc")
    "it has a part '..'"
    """
    if len(name) > LONGEST_NAME:
        return f"it is longer than {LONGEST_NAME} characters"
    if any(character in name for character in "\\:") or not name.isprintable():
        return "it has a backslash, a colon or a character that cannot be printed"
    for part in name.split("/"):
        if part in ("", ".", ".."):
            return f"it has a part {part!r}"
    return None


@dataclass(frozen=True, slots=True)
class PackedImage:
    """Which image a file of a bundle holds.

    Parameters
    ----------
    image_id, view, tier
        Of the image.
    window
        Which part of it, or None for the whole.
    """

    image_id: int
    view: View
    tier: int
    window: Window | None

    @classmethod
    def of_name(cls, name: str) -> Self | None:
        """Return what a file holds by its name, or None if it holds no image.

        Examples
        --------
        >>> PackedImage.of_name("images/7/image-t2-w0-0-10-20.jpg").window
        Window(left=0, top=0, width=10, height=20)
        >>> PackedImage.of_name("images/07/image-t2.jpg") is None
        True
        """
        found = _IMAGE.fullmatch(name)
        if found is None:
            return None
        numbers = found["window"]
        window = None if numbers is None else Window(*map(int, numbers.split("-")))
        if window is not None and min(window.width, window.height) < 1:
            return None
        return cls(int(found["image"]), cast(View, found["view"]), int(found["tier"]), window)

    def read(self, images: Mapping[int, SectionImage]) -> ImageRead | None:
        """Return the read that the file serves, or None where there is no image like that.

        Parameters
        ----------
        images
            The images of the dataset, by id.
        """
        image = images.get(self.image_id)
        if image is None or self.tier >= image.tier_count:
            return None
        whole = ImageRead(
            image_id=image.id,
            view=self.view,
            tier=self.tier,
            width=tier_size(image.width, self.tier),
            height=tier_size(image.height, self.tier),
            x=image.x,
            y=image.y,
            dataset_id=image.dataset_id,
            section_number=image.section_number,
        )
        if self.window is None:
            return whole
        inside = Window(0, 0, whole.width, whole.height).holds(self.window)
        return replace(whole, window=self.window) if inside else None


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What a manifest says about a file.

    Parameters
    ----------
    size
        In bytes.
    sha256
        Of the content, in hexadecimal.
    """

    size: int
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> FileEntry:
        """Return the entry of a content."""
        return cls(len(content), hashlib.sha256(content).hexdigest())

    def fault(self, content: bytes) -> str | None:
        """Return how a content differs from what was packed, in words, or None."""
        if len(content) != self.size:
            return f"it has {len(content)} bytes instead of {self.size}"
        if hashlib.sha256(content).hexdigest() != self.sha256:
            return "its content is not what was packed (the SHA-256 differs)"
        return None


def believable_bytes(name: str, dataset_id: int) -> int:
    """Return how large a file of the bundle of a dataset may be, by its name.

    Raises
    ------
    ValueError
        If no such bundle has a file of that name.
    """
    fault = name_fault(name)
    if fault is not None:
        raise ValueError(fault)
    if name == dataset_name(dataset_id):
        return DATASET_BYTES
    if name == README:
        return README_BYTES
    if PackedImage.of_name(name) is None:
        raise ValueError("no bundle has one of that name")
    return IMAGE_BYTES
