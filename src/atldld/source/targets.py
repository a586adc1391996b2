"""Writing the files of a bundle, so that it never looks whole before it is.

Each target keeps notes of what it wrote until the manifest is written, as the last of all:
packing that was stopped goes on from there. A zip file is packed in a folder beside it, and
moved into place when it is whole.
"""

from __future__ import annotations

import os
import secrets
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from ..errors import BundleError, plain
from ..options import current
from .bundle_files import FileEntry, name_fault
from .contents import packing_folder, place_of
from .location import Location
from .locks import locked
from .manifest import MANIFEST, Manifest
from .notes import (
    DRAFT,
    JOURNAL_BYTES,
    NOTES,
    Entries,
    journal_lines,
    parsed_journal,
    read_manifest,
)
from .object_target import ObjectTarget
from .places import FileFaultError, FolderPlace, Place, reached, words_of

_JOURNAL: Final = f"{NOTES}/journal.jsonl"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_PIECE: Final = 2**20


class Target(Protocol):
    """Where a bundle is written. Used by one thread."""

    @property
    def earlier(self) -> Manifest | None:
        """The manifest of the bundle that is there, or the draft of an unfinished one."""
        ...

    @property
    def whole(self) -> bool:
        """Whether there is a bundle whose packing had finished."""
        ...

    def recorded(self) -> dict[str, FileEntry]:
        """Return what was written before, as far as is known; it may be damaged since."""
        ...

    def read(self, name: str, most: int) -> bytes:
        """Return a file that was written before, or raise a `FileFaultError`."""
        ...

    def start(self, draft: Manifest, kept: Entries) -> None:
        """Begin to write. From now until `finish` there is no whole bundle, or the old one."""
        ...

    def write(self, name: str, content: bytes) -> FileEntry:
        """Write a file, and take a note of it."""
        ...

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest, as the last file, and remove the notes and what it leaves out."""
        ...

    def close(self) -> None:
        """Leave it, whether it is finished or not."""
        ...


@contextmanager
def target_at(location: Location) -> Iterator[Target]:
    """Hold the place of a bundle for writing.

    Raises
    ------
    BundleError
        If something else is there, another process is packing there, or it cannot be written
        to.
    """
    with ExitStack() as stack, _as_bundle_error(location.name):
        target = _target(location, stack)
        stack.callback(target.close)
        yield target


def _target(location: Location, stack: ExitStack) -> Target:
    path = location.path
    if path is None:
        if not location.says_zip:
            return ObjectTarget(location)
        folder = current().cache_dir / "packing" / sha256(location.text.encode()).hexdigest()[:16]
        stack.enter_context(_alone(folder, location.name))
        return _ZipTarget(folder, location, lambda whole: _upload(whole, location))
    if path.is_dir() or not location.says_zip:
        if path.exists() and not path.is_dir():
            raise BundleError(f"{path} is a file; a bundle is a folder, or a file named *.zip")
        stack.enter_context(_alone(path, location.name))
        return _FolderTarget(path)
    folder = packing_folder(path)
    stack.enter_context(_alone(folder, location.name))
    return _ZipTarget(folder, location, lambda whole: whole.replace(path))


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Let no other process pack into a folder meanwhile."""
    notes = folder / NOTES
    new = not folder.exists()
    if not new:
        names = FolderPlace(folder).names()  # refuses links, through which others would be hit
        if not notes.is_dir() and MANIFEST not in names and any(folder.iterdir()):
            raise BundleError(f"{folder} is not empty, and holds no bundle; name another place")
    with locked(notes / "lock", 0.0) as held:
        if not held:
            # Taken, or a file system that knows no locks?
            with locked(notes / f"lock-{secrets.token_hex(4)}", 0.0) as possible:
                if possible:
                    raise BundleError(f"another process is packing {name}")
        try:
            yield
        finally:
            _tidy(folder, new)


def _tidy(folder: Path, new: bool) -> None:
    """Remove the notes of a packing that finished, or never began to write."""
    if (folder / MANIFEST).exists() or not (folder / DRAFT).exists():
        shutil.rmtree(folder / NOTES, ignore_errors=True)
        if new:
            with suppress(OSError):
                folder.rmdir()


class _FolderTarget:
    """A local folder. Each file is written elsewhere in it, and moved into place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._place = FolderPlace(path)
        self.whole = (path / MANIFEST).exists()
        self.earlier = read_manifest(self._place, MANIFEST if self.whole else DRAFT)

    def recorded(self) -> dict[str, FileEntry]:
        listed = dict(self.earlier.files) if self.earlier is not None else {}
        with suppress(FileFaultError):
            listed |= parsed_journal(self._place.read(_JOURNAL, JOURNAL_BYTES))
        return listed

    def read(self, name: str, most: int) -> bytes:
        return self._place.read(name, most)

    def start(self, draft: Manifest, kept: Entries) -> None:
        self._sweep()
        self._place_file(_JOURNAL, journal_lines(kept))
        self._place_file(DRAFT, draft.to_json())
        (self.path / MANIFEST).unlink(missing_ok=True)

    def write(self, name: str, content: bytes) -> FileEntry:
        self._place_file(name, content)
        entry = FileEntry.of(content)
        with (self.path / _JOURNAL).open("ab") as journal:
            journal.write(journal_lines({name: entry}))
        return entry

    def finish(self, manifest: Manifest) -> None:
        self._remove_others(manifest)
        self._place_file(MANIFEST, manifest.to_json())

    def close(self) -> None:
        """Do nothing: nothing is held open."""

    def _sweep(self) -> None:
        """Remove what a packing that was killed left on its way."""
        known = {Path(DRAFT).name, Path(_JOURNAL).name}
        with suppress(FileNotFoundError):
            for each in (self.path / NOTES).iterdir():
                if each.name not in known and not each.name.startswith("lock"):
                    each.unlink()

    def _place_file(self, name: str, content: bytes) -> None:
        partial = self.path / NOTES / f"{os.getpid()}-{secrets.token_hex(8)}"
        partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("xb") as file:
                file.write(content)
                file.flush()
                # A manifest that outlives a power cut must not outlive its files.
                os.fsync(file.fileno())
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise

    def _remove_others(self, manifest: Manifest) -> None:
        """Remove files that were written, but that the manifest does not list."""
        for name in self.recorded():
            if name not in manifest.files and name_fault(name) is None:
                (self.path / name).unlink(missing_ok=True)


class _ZipTarget:
    """A zip file, packed in a folder and moved into place when it is whole."""

    def __init__(self, folder: Path, location: Location, publish: Callable[[Path], object]) -> None:
        self._folder = _FolderTarget(folder)
        self._publish = publish
        self._before = _zip_there(location)
        manifest = None if self._before is None else read_manifest(self._before, MANIFEST)
        if self._before is not None and manifest is None:
            raise BundleError(f"{location.name} is a zip file, but no bundle; name another one")
        self.whole = manifest is not None and self._folder.earlier is None
        self.earlier = self._folder.earlier or manifest
        self._in_zip = {} if manifest is None else dict(manifest.files)

    def recorded(self) -> dict[str, FileEntry]:
        return self._in_zip | self._folder.recorded()

    def read(self, name: str, most: int) -> bytes:
        try:
            return self._folder.read(name, most)
        except FileFaultError:
            if self._before is None:
                raise
            return self._before.read(name, most)

    def start(self, draft: Manifest, kept: Entries) -> None:
        there = self._folder.recorded()
        self._folder.start(draft, {name: kept[name] for name in kept if name in there})
        for name, entry in kept.items():
            if name not in there:
                self._folder.write(name, self.read(name, entry.size))

    def write(self, name: str, content: bytes) -> FileEntry:
        return self._folder.write(name, content)

    def finish(self, manifest: Manifest) -> None:
        root = self._folder.path
        partial = root / NOTES / f"{os.getpid()}-{secrets.token_hex(8)}.zip"
        try:
            with partial.open("xb") as file:
                _write_zip(file, root, manifest)
                file.flush()
                os.fsync(file.fileno())
            self._publish(partial)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        shutil.rmtree(root, ignore_errors=True)

    def close(self) -> None:
        self._folder.close()


def _zip_there(location: Location) -> Place | None:
    path = location.path
    if path is not None:
        there = path.exists()
    else:
        files, inner = location.filesystem()
        files.invalidate_cache()
        there = reached(location.name, lambda: bool(files.exists(inner)))
    return place_of(location) if there else None


def _write_zip(file: BinaryIO, root: Path, manifest: Manifest) -> None:
    # Nothing is deflated: images would not shrink, and what is stored cannot be a bomb.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry(MANIFEST), manifest.to_json())
        for name, entry in sorted(manifest.files.items()):
            info = _entry(name)
            info.file_size = entry.size
            with (root / name).open("rb") as source, archive.open(info, "w") as there:
                shutil.copyfileobj(source, there, _PIECE)


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.external_attr = 0o644 << 16
    return info


def _upload(whole: Path, location: Location) -> None:
    files, path = location.filesystem()
    reached(location.name, lambda: files.put_file(str(whole), path))
    files.invalidate_cache()


@contextmanager
def _as_bundle_error(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        words = plain(words_of(error))
        raise BundleError(
            f"{name} cannot be written: {words}. What was written is kept; atldld.pack to the same "
            "place goes on from there"
        ) from error
