"""Where a bundle is written: a folder or bucket file by file, a zip file as a whole."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from ..errors import BundleError, plain
from ..source.stored import files_at
from ..store.cache import Cache
from ..store.files import FileFaultError, Files, NamedFile, ReadableFiles, words_of
from ..store.location import Location
from ..store.manifest import MANIFEST_BYTES, Checked, Manifest, Section
from ..store.names import MANIFEST, README, KeptImage, kind_of_name

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


class Target(Protocol):
    """Where a bundle is written. Used by one thread."""

    @property
    def name(self) -> str:
        """What to call it."""
        ...

    @property
    def earlier(self) -> Manifest | None:
        """The manifest of the bundle that is there."""
        ...

    def recorded(self) -> Mapping[str, Checked]:
        """Return what was written before, by name; it may be damaged since."""
        ...

    def sound(self, name: str, what: Checked) -> bytes | None:
        """Return a file that was written before if it is still what it was, or None."""
        ...

    def writing(self, kept: Mapping[str, Checked]) -> AbstractContextManager[None]:
        """Write within the block, beside files that stay; what is not finished is not seen."""
        ...

    def write(self, name: str, content: bytes, url: str, section: Section | None) -> Checked:
        """Write a file that came from a URL."""
        ...

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest, as the last file."""
        ...


@contextmanager
def target_at(location: Location, dataset_id: int, service: str) -> Iterator[Target]:
    """Open the place of a bundle of a dataset of a service for writing.

    Raises
    ------
    BundleError
        If something else is there, or it cannot be written to.
    """
    path = location.path
    if location.is_web:
        raise BundleError(f"{location.name} is on a web server, which cannot be written to")
    try:
        target: Target
        if location.says_zip and (path is None or not path.is_dir()):
            target = _ZipTarget(location)
        elif path is not None and path.exists() and not path.is_dir():
            raise BundleError(f"{path} is a file; a bundle is a folder, or a file named *.zip")
        else:
            target = _FolderTarget(location, service)
        earlier = target.earlier
        if earlier is not None:
            for what, there, here in (
                ("dataset", earlier.dataset_id, dataset_id),
                ("data from", earlier.service, service),
            ):
                if there != here:
                    raise BundleError(
                        f"{location.name} holds {what} {plain(str(there))}, not {here}; name "
                        "another target"
                    )
        yield target
    except FileFaultError as error:
        raise BundleError(_unwritten(location, error.reason)) from error
    except OSError as error:
        raise BundleError(
            _unwritten(location, f"it cannot be written: {words_of(error)}")
        ) from error


def _unwritten(location: Location, words: str) -> str:
    return (
        f"{location.name}: {plain(words)}. What was fetched is kept; atldld.pack to the same "
        "place goes on from there"
    )


def _manifest(files: ReadableFiles) -> Manifest | None:
    try:
        return Manifest.from_json(files.read(MANIFEST, MANIFEST_BYTES))
    except FileFaultError as error:
        if error.missing:
            return None
        raise BundleError(f"the {MANIFEST} that is there cannot be read: {error.reason}") from error
    except ValueError as error:
        raise BundleError(f"the {MANIFEST} that is there is refused: {error}") from error


def _still(files: ReadableFiles, name: str, what: Checked) -> bytes | None:
    try:
        content = files.read(name, what.size)
    except FileFaultError:
        return None
    return content if what.fault(content) is None else None


class _FolderTarget:
    """A local folder or bucket: a cache's folder of one service, and a manifest."""

    def __init__(self, location: Location, service: str) -> None:
        self.name = location.name
        self._files = Files(location)
        self._cache = Cache(self._files, service)
        self.earlier = _manifest(self._files)
        try:
            self._there = list(self._files.listed())
        except FileFaultError as error:
            raise BundleError(f"{self.name} cannot be listed: {error.reason}") from error
        for each in self._there:
            # Through links others would be hit.
            if not each.plain:
                raise BundleError(f"{self.name}: {plain(each.name)} is a link; refused")
            if self.earlier is None and not _ours(each.name):
                raise BundleError(
                    f"{self.name} is not empty, and holds no bundle; name another place"
                )

    def recorded(self) -> Mapping[str, Checked]:
        """See `Target`."""
        found = {} if self.earlier is None else dict(self.earlier.files)
        for each in self._there:
            if each.name not in found and KeptImage.of_name(each.name) is not None:
                record = self._cache.any_record(each.name)
                if record is not None:
                    found[each.name] = record.checked()
        return found

    def sound(self, name: str, what: Checked) -> bytes | None:
        """See `Target`."""
        return _still(self._files, name, what)

    @contextmanager
    def writing(self, kept: Mapping[str, Checked]) -> Iterator[None]:
        """See `Target`."""
        self._files.sweep(time.time())
        yield

    def write(self, name: str, content: bytes, url: str, section: Section | None) -> Checked:
        """See `Target`."""
        # A manifest that outlives a power cut must not outlive its files.
        return self._cache.write(name, content, url, section, durable=True).checked()

    def finish(self, manifest: Manifest) -> None:
        """See `Target`."""
        self._files.write(MANIFEST, manifest.to_json(), durable=True)
        if self._files.path is not None:
            with suppress(OSError):
                (self._files.path / "partial").rmdir()


class _ZipTarget:
    """A zip file, local or elsewhere: written anew beside its place, and moved there."""

    def __init__(self, location: Location) -> None:
        self.name = location.name
        self._location = location
        self._before = _zip_there(location)
        self.earlier = None if self._before is None else _manifest(self._before)
        if self._before is not None and self.earlier is None:
            raise BundleError(f"{self.name} is a zip file, but no bundle; name another one")
        self._archive: zipfile.ZipFile | None = None
        self._kept: Mapping[str, Checked] = {}

    def recorded(self) -> Mapping[str, Checked]:
        """See `Target`."""
        return {} if self.earlier is None else self.earlier.files

    def sound(self, name: str, what: Checked) -> bytes | None:
        """See `Target`."""
        return None if self._before is None else _still(self._before, name, what)

    @contextmanager
    def writing(self, kept: Mapping[str, Checked]) -> Iterator[None]:
        """See `Target`."""
        path = self._location.path
        folder = Path(tempfile.gettempdir()) if path is None else path.parent
        start = f".{self.name.rpartition('/')[2]}."
        _sweep(folder, start)
        partial = folder / f"{start}{os.getpid()}-{secrets.token_hex(8)}.partial"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("xb") as file:
                # Nothing is deflated: images would not shrink.
                with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as self._archive:
                    self._kept = kept
                    yield
                file.flush()
                os.fsync(file.fileno())
            if path is not None:
                partial.replace(path)
            else:
                _upload(partial, self._location)
        finally:
            self._archive = None
            partial.unlink(missing_ok=True)

    def write(self, name: str, content: bytes, url: str, section: Section | None) -> Checked:
        """See `Target`."""
        assert self._archive is not None
        info = zipfile.ZipInfo(name, _EPOCH)
        info.external_attr = 0o644 << 16
        self._archive.writestr(info, content)
        return Checked.of(content, section)

    def finish(self, manifest: Manifest) -> None:
        """See `Target`."""
        for name, what in self._kept.items():
            content = self.sound(name, what)
            if content is None:
                raise BundleError(f"{self.name} was changed while it was packed; pack it again")
            self.write(name, content, "", None)
        self.write(MANIFEST, manifest.to_json(), "", None)


def _ours(name: str) -> bool:
    """Whether a packing that did not finish may have left a file."""
    top = name.partition("/")[0]
    return (
        name == README
        or name == f"{README}.json"
        or top == "partial"
        or kind_of_name(name) is not None
        or kind_of_name(name.removesuffix(".json")) is not None
    )


def _zip_there(location: Location) -> ReadableFiles | None:
    path = location.path
    if path is not None:
        return files_at(location) if path.exists() else None
    try:
        NamedFile(location).size()
    except FileFaultError as error:
        if error.missing:
            return None
        raise
    return files_at(location)


def _sweep(folder: Path, start: str) -> None:
    """Remove what packings to the same place that were killed left behind.

    `pack` lets no other process of this user pack there meanwhile.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for each in entries:
            if each.name.startswith(start) and each.name.endswith(".partial"):
                with suppress(OSError):
                    Path(each.path).unlink()


def _upload(whole: Path, location: Location) -> None:
    files, path = location.filesystem()
    try:
        files.put_file(str(whole), path)
        files.invalidate_cache()
        return
    except Exception as error:
        # Raised outside of the handler: what stores raise may hold secrets.
        fault = FileFaultError(f"it cannot be written: {words_of(error)}")
    raise fault
