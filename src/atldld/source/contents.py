"""Opening a bundle: finding its files, reading its manifest, refusing what may do harm."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleError
from ..model.read import Window
from .bundle_files import PackedImage
from .location import Location
from .manifest import MANIFEST, MANIFEST_BYTES, Manifest
from .names import dataset_name
from .places import FileFaultError, FolderPlace, LocalFile, ObjectPlace, Place, RemoteFile, words_of
from .zipped import ZipPlace

Held = Mapping[int, frozenset[Window | None]]


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """A bundle that was opened in this process.

    Parameters
    ----------
    manifest
        What it says about itself.
    digest
        SHA-256 of the manifest's text, in hexadecimal.
    place
        Where its files are read.
    held
        Which windows it holds, by tier, by image id and view; None is the whole image.
    """

    manifest: Manifest
    digest: str
    place: Place
    held: Mapping[tuple[int, str], Held]

    def file(self, name: str) -> bytes:
        """Return the content of a file that the manifest lists, held against it.

        Raises
        ------
        FileFaultError
            If it is missing or damaged.
        """
        entry = self.manifest.files[name]
        content = self.place.read(name, entry.size)
        fault = entry.fault(content)
        if fault is not None:
            raise FileFaultError(fault)
        return content


def open_bundle(location: Location) -> Contents:
    """Read the manifest of a bundle, and look for what is refused.

    Raises
    ------
    BundleError
        If there is no bundle, packing it did not finish, or it is refused.
    """
    place = place_of(location)
    try:
        text = place.read(MANIFEST, MANIFEST_BYTES)
    except FileFaultError as error:
        if not error.missing:
            raise BundleError(f"{location.name}: its manifest: {error.reason}") from error
        raise BundleError(_unfinished(location)) from error
    try:
        manifest = Manifest.from_json(text)
    except ValueError as error:
        raise BundleError(f"{location.name}: its manifest is refused: {error}") from error
    if dataset_name(manifest.dataset_id) not in manifest.files:
        raise BundleError(f"{location.name}: its manifest lists no metadata of the dataset")
    held: dict[tuple[int, str], dict[int, set[Window | None]]] = {}
    for name in manifest.files:
        image = PackedImage.of_name(name)
        if image is not None:
            tiers = held.setdefault((image.image_id, image.view), {})
            tiers.setdefault(image.tier, set()).add(image.window)
    return Contents(
        manifest,
        hashlib.sha256(text).hexdigest(),
        place,
        {
            key: {tier: frozenset(windows) for tier, windows in tiers.items()}
            for key, tiers in held.items()
        },
    )


def place_of(location: Location) -> Place:
    """Return where the files of a bundle are read.

    Raises
    ------
    BundleError
        If there is nothing, or nothing that may be read.
    """
    path = location.path
    try:
        if path is None:
            if location.says_zip:
                return ZipPlace.of(RemoteFile(location), location.name)
            return ObjectPlace(location)
        if path.is_dir():
            folder = FolderPlace(path)
            if os.path.lexists(path / MANIFEST):
                folder.names()  # refuses links
            return folder
        if path.is_file():
            return ZipPlace.of(LocalFile(path), location.name)
    except FileFaultError as error:
        if not error.missing:
            raise BundleError(f"{location.name}: {error.reason}") from error
    except OSError as error:
        raise BundleError(f"{location.name} cannot be read: {words_of(error)}") from error
    raise BundleError(_absent(location))


def packing_folder(path: Path) -> Path:
    """Return the folder in which a zip file is being packed, beside it."""
    return path.with_name(f"{path.name}.packing")


def _unfinished(location: Location) -> str:
    return (
        f"{location.name} has no {MANIFEST}: packing it did not finish, or it is no bundle. "
        "atldld.pack to the same place goes on where it stopped"
    )


def _absent(location: Location) -> str:
    path = location.path
    if path is not None and packing_folder(path).is_dir():
        return (
            f"there is no {location.name}: packing it did not finish. atldld.pack to the same "
            "place goes on where it stopped"
        )
    return (
        f"there is nothing at {location.name}. A source is the path or fsspec URL of a bundle, or "
        "the base URL of a service (http:// or https://)"
    )
