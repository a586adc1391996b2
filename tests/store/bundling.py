"""Bundles made by hand, file by file, so that a test can make any part of them wrong."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from atldld.model.dataset import SectionDataset
from atldld.model.read import ImageRead, Window
from atldld.store.manifest import section_of
from atldld.store.names import KeptImage, image_name
from atldld.testing import phantom_dataset
from source.conftest import jpeg

DATASET = 5
ROWS = f"datasets/{DATASET}.json"
WINDOW = Window(8, 0, 24, 16)


@cache
def row() -> Any:
    """Return the row of a small dataset, with its images."""
    return phantom_dataset(DATASET, sections=3, resolution=64, tilt=1, tier_count=5).row


def record() -> SectionDataset:
    return SectionDataset.from_rows(row())


def reads(tier: int = 1, window: Window | None = None, view: str = "image") -> list[ImageRead]:
    """Return the reads of all images at a tier."""
    images = {image.id: image for image in record().images}
    found = [KeptImage(key, view, tier, window).read(images) for key in images]
    return [read for read in found if read is not None]


@cache
def files() -> Mapping[str, bytes]:
    """Return the files of a sound bundle but its manifest: tier 1 whole, tier 0 a window."""
    found = {
        "README.txt": b"Cite the Allen Institute.\n",
        ROWS: json.dumps({"row": row(), "images": None}).encode(),
    }
    for read in (*reads(1), *reads(0, WINDOW)):
        found[image_name(read)] = jpeg(*read.size, seed=read.image_id % 7)
    return found


def section(name: str) -> list[int] | None:
    """Return which section a file must be of."""
    image = KeptImage.of_name(name)
    if image is None:
        return None
    read = image.read({each.id: each for each in record().images})
    return [0, 0, 1, 1] if read is None else list(section_of(read))


def manifest(these: Mapping[str, bytes] | None = None, **changes: Any) -> dict[str, Any]:
    """Return the manifest of some files, as JSON tells it, with changes."""
    listed = {
        name: {
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "section": section(name),
        }
        for name, content in (files() if these is None else these).items()
    }
    return {
        "format": "atldld bundle",
        "version": 1,
        "atldld_version": "1.0",
        "packed_on": "2026-11-22",
        "dataset_id": DATASET,
        "service": "http://h/api/v2",
        "citation": "Cite it.",
        "asked": [{"resolution": 25.0}],
        "remembered": {"conventions": json.dumps({"windows": True, "whole_origin": "slide"})},
        "failed": {},
        "files": listed,
        **changes,
    }


def all_files(these: Mapping[str, bytes] | None = None, **changes: Any) -> dict[str, bytes]:
    """Return the files of a bundle with its manifest."""
    there = files() if these is None else these
    return {**there, "manifest.json": json.dumps(manifest(there, **changes)).encode()}


def write_folder(path: Path, these: Mapping[str, bytes]) -> Path:
    for name, content in these.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return path


def write_zip(path: Path, these: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in these.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return path


def write_memory(name: str, these: Mapping[str, bytes]) -> str:
    """Write the files into fsspec's memory, and return the URL."""
    from fsspec import filesystem

    store = filesystem("memory")
    store.pipe({f"/{name}/{each}": content for each, content in these.items()})
    return f"memory://{name}"
