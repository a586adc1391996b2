"""Writing a bundle into an object store."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from .bundle_files import FileEntry, name_fault
from .location import Location
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
from .places import FileFaultError, ObjectPlace, reached

_NOTED_TOGETHER: Final = 16
"""Files after which a note is written; as many may be fetched again after a kill."""


class ObjectTarget:
    """Objects below one URL, the manifest last; see `targets.Target`.

    Parameters
    ----------
    location
        The URL.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._place = ObjectPlace(location)
        self._pending: dict[str, FileEntry] = {}
        manifest = read_manifest(self._place, MANIFEST)
        self.whole = manifest is not None
        self.earlier = manifest or read_manifest(self._place, DRAFT)
        self._notes = [name for name in self._place.names() if name.startswith(f"{NOTES}/")]

    def recorded(self) -> dict[str, FileEntry]:
        """See `Target`."""
        listed = dict(self.earlier.files) if self.earlier is not None else {}
        for name in self._notes:
            if name.endswith(".jsonl"):
                with suppress(FileFaultError):
                    listed |= parsed_journal(self._place.read(name, JOURNAL_BYTES))
        return listed

    def read(self, name: str, most: int) -> bytes:
        """See `Target`."""
        return self._place.read(name, most)

    def start(self, draft: Manifest, kept: Entries) -> None:
        """See `Target`."""
        self._put(DRAFT, draft.to_json())
        self._notes.append(DRAFT)
        self._pending |= kept
        self._take_note()
        self._remove([MANIFEST] if self.whole else [])
        self.whole = False

    def write(self, name: str, content: bytes) -> FileEntry:
        """See `Target`."""
        self._put(name, content)
        self._pending[name] = entry = FileEntry.of(content)
        if len(self._pending) >= _NOTED_TOGETHER:
            self._take_note()
        return entry

    def finish(self, manifest: Manifest) -> None:
        """See `Target`."""
        self._take_note()
        others = [name for name in self.recorded() if name not in manifest.files]
        self._remove(name for name in others if name_fault(name) is None)
        self._put(MANIFEST, manifest.to_json())
        self.whole = True

    def close(self) -> None:
        """See `Target`."""
        if self.whole:
            self._remove(dict.fromkeys(self._notes))
        else:
            self._take_note()

    def _take_note(self) -> None:
        if self._pending:
            name = f"{NOTES}/{secrets.token_hex(8)}.jsonl"
            self._put(name, journal_lines(self._pending))
            self._notes.append(name)
            self._pending = {}

    def _put(self, name: str, content: bytes) -> None:
        files, root = self._location.filesystem()
        path = f"{root}/{name}"

        def put() -> None:
            try:
                files.pipe_file(path, content)
            except FileNotFoundError:
                # A store that has folders, unlike buckets.
                files.makedirs(path.rpartition("/")[0], exist_ok=True)
                files.pipe_file(path, content)

        reached(self._location.name, put)

    def _remove(self, names: Iterable[str]) -> None:
        files, root = self._location.filesystem()

        def remove() -> None:
            for name in names:
                with suppress(FileNotFoundError):
                    files.rm_file(f"{root}/{name}")

        reached(self._location.name, remove)
