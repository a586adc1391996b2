"""What is known of kept files: the record of each, and the manifest of a bundle.

Both may be forged or damaged: they are read within bounds, and a file is held against them each
time that it is used.
"""

from __future__ import annotations

import hashlib
import time
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from ..errors import plain
from ..model.read import ImageRead
from .files import FileFaultError, ReadableFiles
from .names import KeptImage, dataset_name, most_bytes, record_name

FORMAT: Final = "atldld bundle"
VERSION: Final = 1

MANIFEST_BYTES: Final = 16 * 2**20
RECORD_BYTES: Final = 2**16
MOST_FILES: Final = 40_000

Section = tuple[int, int, int, int]
_Text = Annotated[str, Field(max_length=10_000)]
_Count = Annotated[int, Field(ge=0, lt=2**63)]


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

    size: _Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    section: tuple[_Count, _Count, _Count, _Count] | None = None

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

    name: _Text
    service: _Text
    url: _Text
    time: float

    @classmethod
    def made(
        cls, content: bytes, name: str, service: str, url: str, section: Section | None
    ) -> Record:
        """Return the record of a content that came just now."""
        what = dict(Checked.of(content, section))
        return cls(**what, name=name, service=service, url=url[:10_000], time=time.time())


class Manifest(BaseModel):
    """What a bundle says about itself.

    Parameters
    ----------
    dataset_id
        The one dataset that it holds.
    service
        Base URL of the service that the data came from, without credentials.
    asked
        What was packed: the options of each packing, as plain JSON objects.
    files
        Every file but the manifest, by name.
    remembered
        What was found out about the service, by key; see `KeepingSource.recall`.
    failed
        Images that were asked for and could not be had, by name, with the reason.
    citation
        How to cite the data, and the terms of their use.
    atldld_version
        Version of the package that packed it.
    packed_on
        The day, as ``2026-11-22``.
    """

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    format: Literal["atldld bundle"] = FORMAT
    version: Literal[1] = VERSION
    atldld_version: _Text = ""
    packed_on: _Text = ""
    dataset_id: _Count
    service: _Text
    citation: _Text = ""
    asked: tuple[dict[str, JsonValue], ...] = ()
    remembered: dict[Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")], _Text] = {}
    failed: Annotated[dict[str, _Text], Field(max_length=MOST_FILES)] = {}
    files: Annotated[dict[str, Checked], Field(max_length=MOST_FILES)]

    @field_validator("files")
    @classmethod
    def _believable(cls, files: dict[str, Checked]) -> dict[str, Checked]:
        for name, what in files.items():
            most = most_bytes(name)
            if what.size > most:
                raise ValueError(f"{name} is said to have {what.size} bytes; {most} are believable")
            if (KeptImage.of_name(name) is None) != (what.section is None):
                raise ValueError(f"{name} does not say of which section it is")
        return files

    @field_validator("failed")
    @classmethod
    def _images(cls, failed: dict[str, str]) -> dict[str, str]:
        for name in failed:
            if KeptImage.of_name(name) is None:
                raise ValueError(f"{plain(repr(name), 100)} is not the name of an image")
        return failed

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Return the manifest that a text holds.

        Raises
        ------
        ValueError
            If it is not one; the message says why, and stays short.
        """
        try:
            manifest = cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = plain(" ".join(map(str, first["loc"])), 100)
            raise ValueError(f"{where}: {plain(first['msg'])}" if where else first["msg"]) from None
        described = dataset_name(manifest.dataset_id)
        if described not in manifest.files:
            raise ValueError("it lists no metadata of the dataset")
        for name in manifest.files:
            if name.startswith("datasets/") and name != described:
                raise ValueError(f"it lists {name}, of another dataset")
        return manifest

    def to_json(self) -> bytes:
        """Return the text of the manifest.

        Raises
        ------
        ValueError
            If it is larger than can be read back.
        """
        ordered = self.model_copy(update={"files": dict(sorted(self.files.items()))})
        text = ordered.model_dump_json(indent=1).encode()
        if len(text) > MANIFEST_BYTES or len(self.files) > MOST_FILES:
            raise ValueError(
                f"{len(self.files)} files are too many for one bundle (at most {MOST_FILES}); pack "
                "fewer tiers or views, or a smaller region"
            )
        return text

    @property
    def total_bytes(self) -> int:
        """Size of all files together, in bytes."""
        return sum(what.size for what in self.files.values())


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
