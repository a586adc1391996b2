"""Where a bundle is written: a folder or bucket file by file, a zip file as a whole."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import BundleError, plain
from ..source.bundle import MANIFEST_BYTES, Manifest, files_at
from ..store.cache import Cache
from ..store.files import FileFaultError, Files, Location, ReadableFiles, error_words
from ..store.records import (
    MANIFEST,
    README,
    Checked,
    KeptImage,
    Section,
    kind_of_name,
    read_checked,
    read_record,
)

Write = Callable[[str, bytes, str, Section | None], Checked]
"""Writes a file: its name and content, the URL it came from, and which section an image shows."""

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class BundlePlace:
    """The place of a bundle, and what was there before it is packed.

    Parameters
    ----------
    location
        Where it is.
    service
        Base URL of the service that the data come from.
    zipped
        Whether it is a zip file.
    files
        Where what is there is read, or None.
    manifest
        Of the bundle that is there, or None.
    recorded
        What was written there before, by name; it may be damaged since.
    """

    location: Location
    service: str
    zipped: bool
    files: ReadableFiles | None
    manifest: Manifest | None
    recorded: Mapping[str, Checked]

    @classmethod
    def at(cls, location: Location, dataset_id: int, service: str) -> BundlePlace:
        """Look at the place of a bundle of a dataset of a service.

        Raises
        ------
        BundleError
            If something else is there, or it cannot be read.
        """
        path, name = location.path, location.name
        if location.is_web:
            raise BundleError(f"{name} is on a web server, which cannot be written to")
        zipped = location.says_zip and (path is None or not path.is_dir())
        if not zipped and path is not None and path.exists() and not path.is_dir():
            raise BundleError(f"{path} is a file; a bundle is a folder, or a file named *.zip")
        files = _zip_there(location) if zipped else Files(location)
        manifest = None if files is None else _manifest(files)
        if zipped and files is not None and manifest is None:
            raise BundleError(f"{name} is a zip file, but no bundle; name another one")
        if manifest is not None:
            for what, there, here in (
                ("dataset", manifest.dataset_id, dataset_id),
                ("data from", manifest.service, service),
            ):
                if there != here:
                    raise BundleError(
                        f"{name} holds {what} {plain(str(there))}, not {here}; name another target"
                    )
        recorded = {} if manifest is None else dict(manifest.files)
        if isinstance(files, Files):
            recorded = {**_recorded(files, manifest), **recorded}
        return cls(location, service, zipped, files, manifest, recorded)

    def sound(self, name: str, what: Checked) -> bytes | None:
        """Return a file that was written before if it is still what it was, or None."""
        if self.files is not None:
            with suppress(FileFaultError):
                return read_checked(self.files, name, what)
        return None

    @contextmanager
    def writing(self) -> Iterator[Write]:
        """Write within the block, the manifest last; without it there is no bundle to be seen.

        Raises
        ------
        BundleError
            If it cannot be written to.
        """
        try:
            with _zip(self.location) if self.zipped else _folder(self.location, self.service) as w:
                yield w
        except FileFaultError as error:
            raise self._unwritten(error.reason) from error
        except OSError as error:
            raise self._unwritten(f"it cannot be written: {error_words(error)}") from error

    def _unwritten(self, words: str) -> BundleError:
        return BundleError(
            f"{self.location.name}: {plain(words)}. What was fetched is kept; atldld.pack to the "
            "same place goes on from there"
        )


@contextmanager
def _folder(location: Location, service: str) -> Iterator[Write]:
    """Write into a local folder or bucket, as into a cache's folder of one service."""
    files = Files(location)
    cache = Cache(files, service)
    files.sweep(time.time())

    def write(name: str, content: bytes, url: str, section: Section | None) -> Checked:
        # A manifest that outlives a power cut must not outlive its files.
        if name == MANIFEST:
            files.write(name, content, durable=True)
            return Checked.of(content)
        return cache.write(name, content, url, section, durable=True).checked()

    yield write
    if files.path is not None:
        with suppress(OSError):
            (files.path / "partial").rmdir()


@contextmanager
def _zip(location: Location) -> Iterator[Write]:
    """Write a zip file beside its place, for a URL among temporary files, and move it there."""
    path = location.path
    folder = Path(tempfile.gettempdir()) if path is None else path.parent
    start = f".{location.name.rpartition('/')[2]}."
    # What packings to the same place that were killed left behind; `pack` lets no other process
    # of this user pack there meanwhile.
    with suppress(OSError):
        for each in list(folder.iterdir()):
            if each.name.startswith(start) and each.name.endswith(".partial"):
                with suppress(OSError):
                    each.unlink()
    partial = folder / f"{start}{os.getpid()}-{secrets.token_hex(8)}.partial"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("xb") as file:
            # Nothing is deflated: images would not shrink.
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

                def write(name: str, content: bytes, url: str, section: Section | None) -> Checked:
                    info = zipfile.ZipInfo(name, _EPOCH)
                    info.external_attr = 0o644 << 16
                    archive.writestr(info, content)
                    return Checked.of(content, section)

                yield write
            file.flush()
            os.fsync(file.fileno())
        if path is not None:
            partial.replace(path)
        else:
            location.put(partial)
    finally:
        partial.unlink(missing_ok=True)


def _zip_there(location: Location) -> ReadableFiles | None:
    path = location.path
    if path is not None:
        return files_at(location) if path.exists() else None
    try:
        location.size()
    except FileFaultError as error:
        if error.missing:
            return None
        raise BundleError(f"{location.name}: {error.reason}") from error
    return files_at(location)


def _manifest(files: ReadableFiles) -> Manifest | None:
    try:
        return Manifest.from_json(files.read(MANIFEST, MANIFEST_BYTES))
    except FileFaultError as error:
        if error.missing:
            return None
        raise BundleError(f"the {MANIFEST} that is there cannot be read: {error.reason}") from error
    except ValueError as error:
        raise BundleError(f"the {MANIFEST} that is there is refused: {error}") from error


def _recorded(files: Files, manifest: Manifest | None) -> dict[str, Checked]:
    """Return the images in a folder by their records, if it holds nothing but a packing."""
    recorded: dict[str, Checked] = {}
    place = files.location.name
    try:
        there = list(files.listed())
    except FileFaultError as error:
        raise BundleError(f"{place} cannot be listed: {error.reason}") from error
    for each in there:
        # Through links others would be hit.
        if not each.plain:
            raise BundleError(f"{place}: {plain(each.name)} is a link; refused")
        if manifest is None and not _ours(each.name):
            raise BundleError(f"{place} is not empty, and holds no bundle; name another place")
    listed = {} if manifest is None else manifest.files
    for each in there:
        if each.name not in listed and KeptImage.of_name(each.name) is not None:
            with suppress(FileFaultError):
                recorded[each.name] = read_record(files, each.name).checked()
    return recorded


def _ours(name: str) -> bool:
    """Whether a packing that did not finish may have left a file."""
    file = name.removesuffix(".json")
    return (
        name.startswith("partial/")
        or README in (name, file)
        or kind_of_name(name) is not None
        or kind_of_name(file) is not None
    )
