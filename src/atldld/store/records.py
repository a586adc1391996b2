"""Files of a store, a cache or a bundle: what they are called, and what is known of each.

::

    images/69177654/image-t2.jpg                    the whole image at tier 2, as it came
    images/69177654/image-t2.jpg.json               its record, where no manifest has it
    images/69177654/image-t2-w256-0-1024-768.jpg    a window: left, top, width, height
    datasets/69289763.json                          the rows that describe the dataset
    grids/69289763-energy.zip                       volumes of the grid service
    atlases/CCFv3-25.nrrd                           an annotation of Allen's, or its ontology
    registrations/1966.json                         a file of a published registration
    service/conventions.json                        what was found out about the service
    catalogue/manifest.json                         the atlas as tables, and what each of them is
    catalogue/20261124T210000-0a1b2c3d/datasets.parquet
    locks/3f2.lock, partial/                        locks, and files on their way

A store may come from a stranger: a name that is not one of these forms names no file. Records may
be forged or damaged: they are read within bounds, and a file is held against its own each time that
it is used.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, Final, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..model.dataset import SectionImage
from ..model.read import VIEWS, ImageRead, View, Window
from ..urls import host_and_port, without_credentials
from .files import FileFaultError, ReadableFiles, name_fault

MANIFEST: Final = "manifest.json"
README: Final = "README.txt"

CONVENTIONS: Final = "conventions"
"""What a service's way of cutting windows and tiers is remembered as."""

KINDS: Final = ("images", "grids", "datasets", "atlases", "registrations", "service")
"""The folders of files that have records."""

_MOST_BYTES: Final = {
    "images": 2**30,
    "grids": 2**32,
    "datasets": 16 * 2**20,
    "atlases": 2**28,
    "registrations": 2**26,
    "service": 2**16,
    README: 2**16,
}
"""How large a file may be."""

MOST_PIXELS: Final = 2**30
"""Of an image. The largest known section, of a human brain, has 0.9 * 10**9."""

RECORD_BYTES: Final = 2**16

Section = tuple[int, int, int, int]
Text = Annotated[str, Field(max_length=10_000)]
Count = Annotated[int, Field(ge=0, lt=2**63)]

_NUMBER = r"(?:0|[1-9][0-9]{0,18})"
_SIDE = r"(?:0|[1-9][0-9]{0,8})"
_IMAGE: Final = re.compile(
    rf"images/(?P<image>{_NUMBER})/(?P<view>{'|'.join(VIEWS)})-t(?P<tier>0|[1-9][0-9]?)"
    rf"(?:-w(?P<window>{_SIDE}-{_SIDE}-{_SIDE}-{_SIDE}))?\.jpg"
)
_OTHERS: Final = {
    "grids": re.compile(rf"grids/{_NUMBER}-[a-z0-9-]{{1,40}}\.(?:zip|nrrd)"),
    "datasets": re.compile(rf"datasets/({_NUMBER})\.json"),
    "atlases": re.compile(r"atlases/[A-Za-z0-9]{1,40}-[0-9]{1,4}\.(?:zip|nrrd|json)"),
    "registrations": re.compile(r"registrations/[\w.+-]{1,160}\.(?:json|mat|nii\.gz)", re.ASCII),
    "service": re.compile(r"service/[a-z_]{1,40}\.json"),
}
_CATALOGUE: Final = re.compile(
    r"catalogue/(?:manifest\.json|building\.json|\.lock|[0-9]{8}T[0-9]{6}-[0-9a-f]{8}/"
    r"(?:datasets|(?:images|counts|page)-[0-9]{4,7})\.parquet)"
)
_SERVICE_FOLDER: Final = re.compile(r"[a-z0-9._-]+-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class KeptImage:
    """Which image a file holds, by its name.

    Parameters
    ----------
    image_id, view, tier
        Of the image.
    window
        Which part of it, in pixels of the tier, or None for the whole.
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
        >>> KeptImage.of_name("images/7/image-t2-w0-0-10-20.jpg").window
        Window(left=0, top=0, width=10, height=20)
        >>> KeptImage.of_name("images/07/image-t2.jpg") is None
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
        whole = image.read(self.tier, self.view)
        if self.window is None:
            return whole
        return replace(whole, window=self.window) if lies_within(self.window, whole) else None


def lies_within(window: Window, read: ImageRead) -> bool:
    """Whether a window lies within the image of a read; a name may say anything."""
    return Window(0, 0, read.width, read.height).holds(window)


def image_name(read: ImageRead) -> str:
    """Return the name of the file of a read.

    Examples
    --------
    >>> image_name(ImageRead(7, "image", 2, 100, 80))
    'images/7/image-t2.jpg'
    """
    # Whole numbers and known words only: no name can lead out of the folder.
    view = VIEWS[VIEWS.index(read.view)]
    window = ""
    if read.window is not None:
        w = read.window
        window = f"-w{w.left:d}-{w.top:d}-{w.width:d}-{w.height:d}"
    return f"images/{read.image_id:d}/{view}-t{read.tier:d}{window}.jpg"


def dataset_name(dataset_id: int) -> str:
    """Return the name of the file of a dataset's metadata."""
    return f"datasets/{dataset_id:d}.json"


def dataset_of_name(name: str) -> int | None:
    """Return the id of the dataset whose metadata a file holds by its name, or None."""
    found = _OTHERS["datasets"].fullmatch(name)
    return None if found is None else int(found[1])


def service_name(key: str) -> str:
    """Return the name of the file of something found out about the service itself."""
    if not re.fullmatch(r"[a-z_]{1,40}", key):
        raise ValueError(f"the key is {key!r}; it must be a word of small letters")
    return f"service/{key}.json"


def record_name(name: str) -> str:
    """Return the name of the record of a file."""
    return f"{name}.json"


def lock_name(name: str) -> str:
    """Return the name of the lock of a file.

    Names share a few thousand locks: lock files stay behind, and two names that wait for each
    other now and then cost less than one more file each.

    Examples
    --------
    >>> lock_name("images/7/image-t2.jpg")
    'locks/7e0.lock'
    """
    return f"locks/{hashlib.sha256(name.encode()).hexdigest()[:3]}.lock"


def kind_of_name(name: str) -> str | None:
    """Return the kind of a kept file by its name, or None if no store has one of that name.

    Examples
    --------
    >>> kind_of_name("images/7/image-t2.jpg"), kind_of_name("images/7/cat.jpg")
    ('images', None)
    """
    kind = name.partition("/")[0]
    if kind == "images":
        return kind if KeptImage.of_name(name) is not None else None
    return kind if kind in _OTHERS and _OTHERS[kind].fullmatch(name) else None


def is_of_catalogue(name: str) -> bool:
    """Whether a file is one of a catalogue by its name.

    Its own manifest tells what its tables are: they have no records.

    Examples
    --------
    >>> is_of_catalogue("catalogue/manifest.json"), is_of_catalogue("catalogue/notes.txt")
    (True, False)
    """
    return _CATALOGUE.fullmatch(name) is not None


def most_bytes(name: str) -> int:
    """Return how large a file may be by its name.

    Raises
    ------
    ValueError
        If no store has a file of that name.
    """
    kind = name if name == README else kind_of_name(name)
    if kind is None:
        raise ValueError(name_fault(name) or "no bundle has one of that name")
    return _MOST_BYTES[kind]


@lru_cache
def service_folder(base_url: str) -> str:
    """Return the name of the folder that belongs to one service.

    Examples
    --------
    >>> service_folder("http://127.0.0.1:8000/api/v2")
    '127.0.0.1_8000-1928845ff228'
    """
    address = without_credentials(base_url)
    readable = re.sub(r"[^a-z0-9.-]", "_", host_and_port(address).lower())
    return f"{readable}-{hashlib.sha256(address.encode()).hexdigest()[:12]}"


def is_service_folder(name: str) -> bool:
    """Whether a folder of the cache may belong to a service, by its name."""
    return _SERVICE_FOLDER.fullmatch(name) is not None


def section_of(read: ImageRead) -> Section:
    """Return what must be the same for a kept image to be that of a read, besides its name.

    A service may register a dataset anew, and cut a section of the same image, and even of the
    same size, from another place of the slide.
    """
    return read.x, read.y, read.width, read.height


class Checked(BaseModel):
    """What a kept file must be.

    Parameters
    ----------
    size
        In bytes.
    sha256
        Of the content, in hexadecimal.
    section
        Of an image: where its section was on the slide (x, y in full-resolution pixels), and how
        large it is at this tier (width, height in pixels). None of other files.
    """

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    size: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    section: tuple[Count, Count, Count, Count] | None = None

    @classmethod
    def of(cls, content: bytes, section: Section | None = None) -> Checked:
        """Return what a content is."""
        digest = hashlib.sha256(content).hexdigest()
        return Checked(size=len(content), sha256=digest, section=section)

    def fault(self, content: bytes) -> str | None:
        """Return how a content differs, in words, or None."""
        if len(content) != self.size:
            return f"it has {len(content)} bytes instead of {self.size}"
        if hashlib.sha256(content).hexdigest() != self.sha256:
            return "its content is not what came (the SHA-256 differs)"
        return None

    def checked(self) -> Checked:
        """Return only what the file must be."""
        return Checked(size=self.size, sha256=self.sha256, section=self.section)


class Record(Checked):
    """What is known about a file, beside it in the store.

    Parameters
    ----------
    name
        Of the file: of one that was copied over another's, the record tells.
    service
        Base URL of the service, without credentials.
    url
        Where it came from, without credentials.
    time
        When it came, in seconds since the epoch.
    """

    name: Text
    service: Text
    url: Text
    time: float

    @classmethod
    def made(
        cls, content: bytes, name: str, service: str, url: str, section: Section | None
    ) -> Record:
        """Return the record of a content that came just now."""
        what = dict(Checked.of(content, section))
        return cls(**what, name=name, service=service, url=url[:10_000], time=time.time())


def read_checked(files: ReadableFiles, name: str, what: Checked) -> bytes:
    """Return the content of a file, which is what it must be, or raise a `FileFaultError`."""
    most = most_bytes(name)
    if what.size > most:
        raise FileFaultError(f"it is said to have {what.size} bytes; {most} are believable")
    content = files.read(name, what.size)
    fault = what.fault(content)
    if fault is not None:
        raise FileFaultError(fault)
    return content


def read_record(files: ReadableFiles, name: str) -> Record:
    """Return the record beside a file, or raise a `FileFaultError` that says what is wrong."""
    try:
        text = files.read(record_name(name), RECORD_BYTES)
    except FileFaultError as error:
        if error.missing:
            reason = "it has no record, so nobody can tell what it should be"
        else:
            reason = f"its record is of no use: {error.reason}"
        raise FileFaultError(reason, missing=error.missing) from error
    try:
        record = Record.model_validate_json(text)
    except ValidationError:
        raise FileFaultError("its record is damaged") from None
    if record.name != name:
        raise FileFaultError("its record is another file's: one was copied over the other")
    return record
