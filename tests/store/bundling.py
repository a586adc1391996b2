"""Bundles made by hand, file by file, so that a test can make any part of them wrong."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
import xarray as xr

import atldld
from atldld.testing import phantom_dataset
from source.conftest import jpeg

DATASET = 5
ROWS = f"datasets/{DATASET}.json"
WINDOW = (8, 0, 24, 16)


@cache
def row() -> Any:
    """Return the row of a small dataset, with its images."""
    return phantom_dataset(DATASET, sections=3, resolution=64, tilt=1, tier_count=5).row


@dataclass(frozen=True)
class Kept:
    """A file of an image, by the documented grammar of names."""

    image: Mapping[str, Any]
    tier: int
    window: tuple[int, int, int, int] | None = None
    view: str = "image"

    @property
    def image_id(self) -> int:
        return self.image["id"]

    @property
    def section_number(self) -> int:
        return self.image["section_number"]

    @property
    def name(self) -> str:
        window = "" if self.window is None else "-w" + "-".join(map(str, self.window))
        return f"images/{self.image_id}/{self.view}-t{self.tier}{window}.jpg"

    @property
    def whole_size(self) -> tuple[int, int]:
        """Width and height of the tier."""
        return self.image["width"] >> self.tier, self.image["height"] >> self.tier

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of what the file holds."""
        return self.whole_size if self.window is None else self.window[2:]

    @property
    def section(self) -> list[int]:
        """Where the section was on its slide, and how large it is at the tier."""
        return [self.image["x"], self.image["y"], *self.whole_size]


def reads(
    tier: int = 1, window: tuple[int, int, int, int] | None = None, view: str = "image"
) -> list[Kept]:
    """Return the files of all images at a tier."""
    return [Kept(image, tier, window, view) for image in row()["section_images"]]


def dataset(where: Any, dataset_id: int = DATASET) -> xr.DataArray:
    """Open all sections of a bundle, and hold their images against the truth."""
    found = atldld.open_dataarray(dataset_id, resolution=400, tier=1, chunks=None, source=where)
    assert sorted(found.image_id.values) == sorted(image["id"] for image in row()["section_images"])
    return found


def image(where: Any, read: Kept) -> xr.DataArray:
    """Open what a file shows, unwarped and lazy."""
    region = None
    if read.window is not None:
        left, top, width, height = (side << read.tier for side in read.window)
        region = {"x": (left, left + width - 1), "y": (top, top + height - 1)}
    return atldld.open_image(
        read.image_id,
        tier=read.tier,
        region=region,
        view=read.view,
        chunks=None,
        dataset_id=DATASET,
        source=where,
    )


def pixels(where: Any, read: Kept) -> npt.NDArray[np.uint8]:
    """Return the pixels that a bundle gives of a file."""
    return image(where, read).values


@cache
def packed(read_name: str) -> npt.NDArray[np.uint8]:
    """Return the pixels of a file of the sound bundle."""
    return simplejpeg.decode_jpeg(files()[read_name])


def right(where: Any, *these: Kept) -> bool:
    """Whether a bundle gives the pixels that were packed."""
    return all(np.array_equal(pixels(where, read), packed(read.name)) for read in these)


@cache
def files() -> Mapping[str, bytes]:
    """Return the files of a sound bundle but its manifest: tier 1 whole, tier 0 a window."""
    found = {
        "README.txt": b"Cite the Allen Institute.\n",
        ROWS: json.dumps({"row": row(), "images": None}).encode(),
    }
    for read in (*reads(1), *reads(0, WINDOW)):
        found[read.name] = jpeg(*read.size, seed=read.image_id % 7)
    return found


IMAGE = re.compile(r"images/(\d+)/(\w+)-t(\d+)(?:-w(\d+)-(\d+)-(\d+)-(\d+))?\.jpg")


def section(name: str) -> list[int] | None:
    """Return which section a file must be of."""
    found = IMAGE.fullmatch(name)
    if found is None:
        return None
    known = {image["id"]: image for image in row()["section_images"]}
    image = known.get(int(found[1]))
    return [0, 0, 1, 1] if image is None else Kept(image, int(found[3])).section


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
