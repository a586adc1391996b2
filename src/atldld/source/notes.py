"""What a packing notes down until its manifest is written, so that it can go on from there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from ..errors import BundleError
from .bundle_files import FileEntry
from .manifest import MANIFEST_BYTES, Manifest
from .places import FileFaultError, Place

NOTES: Final = ".atldld-packing"
DRAFT: Final = f"{NOTES}/draft.json"
JOURNAL_BYTES: Final = 2**25

Entries = Mapping[str, FileEntry]


def read_manifest(place: Place, name: str) -> Manifest | None:
    """Return a manifest or draft, or None if there is none."""
    try:
        return Manifest.from_json(place.read(name, MANIFEST_BYTES))
    except FileFaultError as error:
        if error.missing:
            return None
        raise BundleError(f"the {name} that is there cannot be read: {error.reason}") from error
    except ValueError as error:
        raise BundleError(f"the {name} that is there is refused: {error}") from error


def journal_lines(entries: Entries) -> bytes:
    """Return lines of a journal."""
    lines = [json.dumps([name, entry.size, entry.sha256]) for name, entry in entries.items()]
    return "".join(f"{line}\n" for line in lines).encode()


def parsed_journal(text: bytes) -> dict[str, FileEntry]:
    """Return what a journal tells, up to where it was torn."""
    found = {}
    for line in text.splitlines():
        try:
            name, size, digest = json.loads(line)
        except (ValueError, TypeError, RecursionError):
            continue
        if isinstance(name, str) and type(size) is int and isinstance(digest, str):
            found[name] = FileEntry(size, digest)
    return found
