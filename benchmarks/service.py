"""The server that both sides download from: a stand-in for the Allen API, in its own process.

Every body is encoded beforehand and held in memory, so that answering costs the server no work
that could be mistaken for the client's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import simplejpeg

from atldld.testing import (
    AllenServer,
    PhantomBrain,
    PhantomDataset,
    RecordedFolder,
    Request,
    SpawnedServer,
    phantom_dataset,
)

from .sizes import Sizes

DATASET = 1001
WARMING = 1002
"""Two small sections, for what a process does once: imports, threads, the first connection."""

QUALITY = 99
"""Of the JPEGs. It makes full-resolution bodies of 5 to 7 MB."""

_GRID = 25.0


@dataclass(frozen=True)
class Service:
    """The running server, and what it holds.

    Parameters
    ----------
    server
        The server.
    image_ids
        Of the dataset that is measured, by ascending section number.
    own_section
        Number of a section in the middle whose full-resolution body is its own.
    auto_tier
        The coarsest tier that is not coarser than the default grid.
    auto_bytes
        Sum of the bodies of all sections at that tier.
    coarse
        The tier that is asked for by number.
    """

    server: SpawnedServer
    image_ids: list[int]
    own_section: int
    auto_tier: int
    auto_bytes: int
    coarse: int

    @property
    def url(self) -> str:
        """Base URL of the API."""
        return self.server.url

    def images(self) -> list[Request]:
        """Return the answered requests for images of the dataset that is measured."""
        wanted = set(self.image_ids)
        return [each for each in self.server.image_requests if each.image_id in wanted]


@contextmanager
def serving(sizes: Sizes, work: Path) -> Iterator[Service]:
    """Serve the dataset that is measured, from bodies that are made once and kept.

    Parameters
    ----------
    sizes
        How large it is.
    work
        Folder that keeps the bodies from one time to the next.
    """
    dataset = phantom_dataset(
        DATASET,
        "coronal",
        tilt=3.0,
        sections=sizes.sections,
        brain=PhantomBrain("tissue"),
        resolution=sizes.microns,
        image_size=(sizes.width, sizes.height),
        tier_count=7,
    )
    # Reference microns a pixel: the dataset's matrices scale by 3 to 8 %.
    auto = math.floor(math.log2(_GRID / (1.08 * sizes.microns)))
    own = dataset.image_ids[:: math.ceil(sizes.sections / sizes.distinct)]
    files = _bodies(dataset, own, {auto, sizes.coarse}, _folder(sizes, work))
    small = phantom_dataset(
        WARMING, "coronal", sections=2, resolution=6.4, image_size=(1600, 1200), tier_count=4
    )
    served = RecordedFolder(dataset.rows, files)
    with AllenServer.spawn([served, small], latency=sizes.latency) as server:
        tiers = {tier for _, _, tier in files}
        server.prepare(tiers=tiers, image_ids=dataset.image_ids)
        server.prepare(image_ids=small.image_ids)
        total = sum(files[number, "image", auto].stat().st_size for number in dataset.image_ids)
        section = int(dataset.image(own[len(own) // 2])["section_number"])
        yield Service(server, dataset.image_ids, section, auto, total, sizes.coarse)


def _folder(sizes: Sizes, work: Path) -> Path:
    """Return the folder of the bodies of one dataset, emptied if they are of another."""
    made_of = {**asdict(sizes), "quality": QUALITY}
    folder = work / f"bodies-{sizes.sections}-{sizes.width}x{sizes.height}"
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "made-of.json"
    if not note.is_file() or json.loads(note.read_text()) != made_of:
        for path in folder.glob("*.jpg"):
            path.unlink()
        note.write_text(json.dumps(made_of))
    return folder


def _bodies(
    dataset: PhantomDataset, own: list[int], tiers: set[int], folder: Path
) -> dict[tuple[int, str, int], Path]:
    """Encode what is not there yet; return the file of every image, view and tier."""
    files = {}
    wanted = {}
    for tier in {0, *tiers}:
        for number in dataset.image_ids:
            of = max(each for each in own if each <= number) if tier == 0 else number
            path = folder / f"{of}-{tier}.jpg"
            files[number, "image", tier] = path
            if not path.is_file():
                wanted[of, tier] = path

    def make(key: tuple[int, int], path: Path) -> None:
        pixels = dataset.pixels(key[0], tier=key[1])
        part = path.with_suffix(".part")
        part.write_bytes(simplejpeg.encode_jpeg(pixels, QUALITY, "RGB", "444", fastdct=False))
        part.replace(path)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(make, wanted.keys(), wanted.values()))
    return files
