"""Bundles: their manifest, how they are opened by it, wherever they are, read and verified.

A bundle is a finished folder of a cache, with a manifest in place of records. It may come from a
stranger: only what the manifest lists is ever read, within bounds, and held against it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from ..errors import APIError, BundleError, RegistrationError, plain
from ..model.dataset import SectionImage
from ..model.read import ImageRead, Window
from ..store.files import FileFaultError, Files, Location, ReadableFiles
from ..store.inventory import service_stores
from ..store.records import (
    MANIFEST,
    MOST_PIXELS,
    Checked,
    Count,
    KeptImage,
    Text,
    dataset_name,
    dataset_of_name,
    image_name,
    lies_within,
    most_bytes,
    read_checked,
    record_name,
    section_of,
)
from ..store.zipped import ZipFiles
from .http import Answer, fetch
from .jpeg import jpeg_fault, size_limit
from .rma import DatasetRows

FORMAT: Final = "atldld bundle"
VERSION: Final = 1

MANIFEST_BYTES: Final = 16 * 2**20
MOST_FILES: Final = 40_000


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
    atldld_version: Text = ""
    packed_on: Text = ""
    dataset_id: Count
    service: Text
    citation: Text = ""
    asked: tuple[dict[str, JsonValue], ...] = ()
    remembered: dict[Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")], Text] = {}
    failed: Annotated[dict[str, Text], Field(max_length=MOST_FILES)] = {}
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


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A bundle that was opened in this process: its manifest, and where its files are read.

    Parameters
    ----------
    location
        Where it is.
    manifest
        What it says about itself.
    digest
        SHA-256 of the manifest's text, in hexadecimal.
    files
        Where its files are read.
    folders
        The names that it lists, by their folder.
    """

    location: Location
    manifest: Manifest
    digest: str
    files: ReadableFiles
    folders: Mapping[str, Sequence[str]]

    kind = "bundle"

    @classmethod
    def at(cls, location: Location) -> Bundle:
        """Read the manifest of a bundle.

        Raises
        ------
        BundleError
            If there is no bundle, packing it did not finish, or it is refused.
        """
        try:
            return cls.of(files_at(location), location)
        except FileFaultError as error:
            raise no_bundle(location, error) from error

    @classmethod
    def of(cls, files: ReadableFiles, location: Location) -> Bundle:
        """Return the bundle that some files are, or raise a `FileFaultError`."""
        text = files.read(MANIFEST, MANIFEST_BYTES)
        try:
            manifest = Manifest.from_json(text)
        except ValueError as error:
            raise BundleError(f"{location.name}: its manifest is refused: {error}") from error
        folders: dict[str, list[str]] = {}
        for name in manifest.files:
            folders.setdefault(name.rpartition("/")[0], []).append(name)
        return cls(location, manifest, hashlib.sha256(text).hexdigest(), files, folders)

    def names(self, folder: str) -> Sequence[str]:
        """Return the names that it lists below a folder."""
        return self.folders.get(folder, ())

    def service(self, name: str) -> str:
        """Return the base URL of the service that a file came from."""
        return self.manifest.service

    def recall(self, key: str) -> str | None:
        """Return what was known about the service when it was packed."""
        return self.manifest.remembered.get(key)

    def held(self, read: ImageRead) -> frozenset[Window | None]:
        """Return which windows of a read's image, view and tier it lists; None is the whole."""
        windows = self._tiers(read).get(read.tier, ())
        return frozenset(each for each in windows if each is None or lies_within(each, read))

    def read(self, name: str, read: ImageRead | None = None) -> bytes:
        """Return a file that the manifest lists and describes, or say what is wrong.

        A bundle that was packed again meanwhile serves what it still holds: the manifest that
        counts is the one that it was opened with.

        Parameters
        ----------
        name
            Of the file.
        read
            Of an image: what it must be.

        Raises
        ------
        FileFaultError
            With what to do about it.
        """
        if name not in self.manifest.files:
            raise FileFaultError(self._lacking(name, read))
        what = self.manifest.files[name]
        if read is not None:
            refuse_foreign(what, read)
        try:
            return read_checked(self.files, name, what)
        except FileFaultError as error:
            fault = error
        try:
            now = Bundle.at(self.location)
            if now.digest != self.digest:
                return read_checked(now.files, name, what)
        except (BundleError, FileFaultError) as error:
            raise FileFaultError(
                f"{name} was there when the bundle was opened, and is not any more: {error}"
            ) from error
        state = "missing from" if fault.missing else "damaged in"
        raise FileFaultError(
            f"{name} is {state} the bundle: {fault.reason}. atldld.verify_bundle tells what else "
            "is, and atldld.pack to the same place mends it"
        ) from fault

    def _tiers(self, read: ImageRead) -> dict[int, list[Window | None]]:
        """Return the windows that it lists of an image in a view, by tier."""
        tiers: dict[int, list[Window | None]] = {}
        for name in self.names(image_name(read).rpartition("/")[0]):
            image = KeptImage.of_name(name)
            if image is not None and image.view == read.view:
                tiers.setdefault(image.tier, []).append(image.window)
        return tiers

    def _lacking(self, name: str, read: ImageRead | None) -> str:
        """Return why it cannot serve a read, and what to do."""
        reason = self.manifest.failed.get(name)
        if reason is not None:
            return f"it could not be had when the bundle was packed: {plain(reason)}"
        if read is None:
            return f"the bundle does not hold {name}"
        where = "" if read.window is None else f" in the window {read.window.box}"
        return (
            f"the bundle does not hold its {read.view} at tier {read.tier}{where}: it holds "
            f"{self._listed(read)}. To pack more into it: atldld.pack("
            f"{self.manifest.dataset_id}, {self.location.name!r}, tiers=[{read.tier}], "
            f"views=[{read.view!r}], ...)"
        )

    def _listed(self, read: ImageRead) -> str:
        """Return what it holds of an image, or if nothing, of others, in words."""
        tiers = self._tiers(read)
        if not tiers:
            images = [image for name in self.manifest.files if (image := KeptImage.of_name(name))]
            views = sorted({each.view for each in images if each.image_id == read.image_id})
            if views:
                return f"only {' and '.join(views)} of it"
            count = len({each.image_id for each in images})
            return f"{count} images of dataset {self.manifest.dataset_id}, not this one"
        parts = []
        for tier, windows in sorted(tiers.items()):
            boxes = sorted(window.box for window in windows if window is not None)
            if None in windows:
                parts.append(f"tier {tier} (tier={tier} opens it)")
            else:
                more = f" and {len(boxes) - 3} more" if len(boxes) > 3 else ""
                parts.append(f"of tier {tier} the windows {', '.join(map(str, boxes[:3]))}{more}")
        return "; ".join(parts)


def files_at(location: Location) -> ReadableFiles:
    """Return where the files of a store are read.

    Raises
    ------
    BundleError
        If there is nothing, or nothing that may be read.
    """
    path, name = location.path, location.name
    try:
        if location.is_web:
            if not location.says_zip:
                raise BundleError(f"{name}: on a web server a bundle is a zip file")
            size = _web(location, 0, 1).whole_bytes
            if size is None:
                raise BundleError(f"{name}: its server does not say how large it is")
            return ZipFiles(lambda start, stop: _web(location, start, stop).content, size, name)
        if location.says_zip if path is None else path.is_file():
            return ZipFiles(location.read, location.size(), name)
        if path is None or path.is_dir():
            return Files(location)
    except FileFaultError as error:
        if not error.missing:
            raise BundleError(f"{name}: {error.reason}") from error
    except OSError as error:
        raise BundleError(f"{name} cannot be read: {error.strerror}") from error
    raise BundleError(
        f"there is nothing at {name}. A source is the path or fsspec URL of a bundle, or "
        "the base URL of a service (http:// or https://)"
    )


def _web(location: Location, start: int, stop: int) -> Answer:
    """Return a part of a file on a web server."""
    try:
        return fetch(location.text, limit_bytes=stop - start, byte_range=(start, stop))
    except APIError as error:
        # Raised outside of the handler: an address may hold a signature.
        fault = FileFaultError(error.message, missing=error.status == 404)
    raise fault


def refuse_foreign(what: Checked, read: ImageRead) -> None:
    """Raise a `FileFaultError` if a kept file is of another section than a read, or a giant."""
    pixels = read.size[0] * read.size[1]
    if pixels > MOST_PIXELS or what.size > size_limit(read.size):
        raise FileFaultError(f"it is refused: {what.size} bytes for {pixels} pixels")
    if what.section != section_of(read):
        raise FileFaultError("it is of another size, or cut from another place of the slide")


def kept_datasets(files: Files) -> list[int]:
    """Return the ids of the datasets whose rows the folder of a service holds, ascending."""
    try:
        names = {each.name for each in files.listed("datasets") if each.plain}
    except FileFaultError as error:
        if error.missing:
            return []
        raise BundleError(f"{files.location.name} cannot be read: {error.reason}") from error
    found = (dataset_of_name(name) for name in names if record_name(name) in names)
    return sorted(each for each in found if each is not None)


def no_bundle(location: Location, fault: FileFaultError) -> BundleError:
    """Return the error of a place whose manifest cannot be read."""
    if not fault.missing:
        return BundleError(f"{location.name}: its manifest: {fault.reason}")
    if location.path is not None:
        services = [each for each in service_stores(location) if kept_datasets(each)]
        if services:
            return BundleError(
                f"{location.name} holds the caches of {len(services)} services; name the folder "
                f"of one, such as {services[0].location.name}"
            )
    return BundleError(
        f"{location.name} has no {MANIFEST}: packing it did not finish, or it is no bundle. "
        "atldld.pack to the same place goes on where it stopped"
    )


@dataclass(frozen=True, slots=True)
class BundleReport:
    """What the verification of a bundle found.

    Parameters
    ----------
    name
        Path or URL of the bundle, without credentials.
    dataset_id
        The dataset that it holds.
    files, bytes
        How many files its manifest lists, and how large they are together.
    missing
        Names of files that are listed and not there.
    damaged
        Names of files that are not what the manifest, or the metadata, say.
    extra
        Names of files that are there and not listed. They are never read.
    failed
        Names of images that could not be had when the bundle was packed.
    reasons
        What is wrong with each of them, by name.
    """

    name: str
    dataset_id: int
    files: int
    bytes: int
    missing: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing is missing or damaged."""
        return not self.missing and not self.damaged

    def __str__(self) -> str:
        """Return the report as lines for a reader."""
        state = "is sound" if self.ok else "is NOT sound"
        lines = [
            f"{self.name} {state}: dataset {self.dataset_id}, {self.files} files, "
            f"{self.bytes} bytes"
        ]
        for kind in ("missing", "damaged", "extra", "failed"):
            for name in getattr(self, kind):
                reason = self.reasons.get(name)
                lines.append(f"{kind}: {plain(name)}" + (f" ({plain(reason)})" if reason else ""))
        return "\n".join(lines)


def verify_bundle(target: str | os.PathLike[str]) -> BundleReport:
    """Read every file of a bundle and hold it against the manifest.

    Size and SHA-256 of each file; that the metadata describe the dataset; that each image is a
    JPEG of the size that the metadata say. Nothing is changed.

    Parameters
    ----------
    target
        Path or fsspec URL of the bundle.

    Returns
    -------
    BundleReport
        What is missing, damaged or extra; its ``ok`` says whether the bundle is sound.

    Raises
    ------
    BundleError
        If there is no bundle, packing it did not finish, or it is refused.
    ValueError, TypeError
        If that cannot be the place of a bundle.

    Examples
    --------
    >>> import atldld, tempfile
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with AllenServer([phantom_dataset(1001, sections=3)]) as server:
    ...         packed = atldld.pack(1001, f"{folder}/phantom.zip", source=server.url)
    ...     atldld.verify_bundle(f"{folder}/phantom.zip").ok
    True
    """
    location = Location.of(target)
    bundle = Bundle.at(location)
    manifest = bundle.manifest
    missing: list[str] = []
    damaged: list[str] = []
    reasons = dict(manifest.failed)
    images: Mapping[int, SectionImage] | None = None
    # The metadata come first: the images are held against them.
    described = dataset_name(manifest.dataset_id)
    for name in sorted(manifest.files, key=lambda name: (name != described, name)):
        try:
            content = read_checked(bundle.files, name, manifest.files[name])
            if name == described:
                images = _described_images(content, manifest)
            elif images is not None:
                _check_image(name, manifest.files[name], content, images)
        except FileFaultError as error:
            reasons[name] = error.reason
            (missing if error.missing else damaged).append(name)
    try:
        there = set(bundle.files.names())
    except FileFaultError as error:
        raise BundleError(f"{location.name} cannot be listed: {error.reason}") from error
    extra = there - {MANIFEST, *manifest.files, *map(record_name, manifest.files)}
    return BundleReport(
        name=location.name,
        dataset_id=manifest.dataset_id,
        files=len(manifest.files),
        bytes=manifest.total_bytes,
        missing=tuple(missing),
        damaged=tuple(damaged),
        extra=tuple(sorted(extra)),
        failed=tuple(sorted(manifest.failed)),
        reasons=reasons,
    )


def _described_images(content: bytes, manifest: Manifest) -> Mapping[int, SectionImage]:
    """Return the images of the dataset that a content describes."""
    try:
        record = DatasetRows.from_json(content, manifest.service).dataset()
    except (ValueError, RegistrationError) as error:
        raise FileFaultError(str(error)) from error
    if record.id != manifest.dataset_id:
        raise FileFaultError(f"it describes dataset {record.id}")
    return {image.id: image for image in (*record.images, *record.failed_images)}


def _check_image(
    name: str, what: Checked, content: bytes, images: Mapping[int, SectionImage]
) -> None:
    image = KeptImage.of_name(name)
    if image is None:
        return
    read = image.read(images)
    if read is None:
        raise FileFaultError("the metadata know no such image")
    refuse_foreign(what, read)
    fault = jpeg_fault(content, read.size)
    if fault is not None:
        raise FileFaultError(fault)
