"""A whole atlas of made-up rows, written only when they are asked for.

A few phantom datasets serve as patterns; each dataset of the atlas is one of them under its own
ids, moved a little in reference space, with some sections left out. The same arguments give the
same atlas, however it is asked.
"""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from . import service_rows as rows
from .cutting import phantom_dataset
from .queries import Filter, Query
from .served import Pixels
from .service_rows import Row

WHOLE = 26_078
"""Datasets in the catalogue of Allen's open bucket."""

_FIRST_DATASET = 70_000_000
_FIRST_IMAGE = 100_000_000
_IMAGES_A_DATASET = 200
_DATASETS_A_GENE = 1.3
_GRID = (67, 41, 58)
_STEP = 200.0
_BY_NUMBER = ("eq", "in", "gt", "ge", "lt", "le")

Single = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SyntheticAtlas:
    """Any number of section datasets, to be served by an `AllenServer`; without pixels.

    One in seven is coronal (60 sections, space 9), the others sagittal (20, space 10). One in 50
    failed, one in 200 has no ``alignment3d``, and one in 40 no grid.

    Parameters
    ----------
    count
        How many datasets.
    seed
        Another one gives another atlas.

    Examples
    --------
    >>> atlas = SyntheticAtlas(1000)
    >>> atlas.dataset_ids[:3]
    [70000000, 70000040, 70000080]
    >>> atlas.row(3, images=True)["section_images"][0]["data_set_id"]
    70000120
    """

    count: int = WHOLE
    seed: int = 0

    @property
    def rows(self) -> list[Row]:
        """None that would be held in memory: see `select`."""
        return []

    @property
    def image_ids(self) -> list[int]:
        """None: there are no pixels."""
        return []

    def image(self, image_id: int) -> Row:
        """There is none with pixels."""
        raise KeyError(f"no image {image_id}")

    def encoded(self, image_id: int, view: str, tier: int) -> bytes | None:
        """There is none."""
        raise KeyError(f"no image {image_id}, view {view}, tier {tier}")

    def slide_pixels(
        self,
        image_id: int,
        view: Any,
        tier: int,
        corner: tuple[int, int],
        size: tuple[int, int],
        *,
        shift: float = 0.0,
    ) -> Pixels:
        """There are none."""
        del corner, size, shift
        raise KeyError(f"no image {image_id}, view {view}, tier {tier}")

    @property
    def dataset_ids(self) -> list[int]:
        """Ids of all datasets, ascending."""
        return [_FIRST_DATASET + 40 * place for place in range(self.count)]

    def row(self, place: int, *, images: bool = False) -> Row:
        """Return the SectionDataSet row of the dataset at a place, with all that is nested in it.

        Parameters
        ----------
        place
            From 0 to below `count`.
        images
            Whether its section images are wanted, too.
        """
        chance = random.Random(f"{self.seed} {place}")
        pattern = self._patterns[0 if chance.random() < 1 / 7 else 1][chance.randrange(3)]
        dataset_id = _FIRST_DATASET + 40 * place
        gene = self.gene(place)
        row: Row = {
            **pattern,
            "id": dataset_id,
            "failed": place % 50 == 49,
            "specimen_id": 500_000_000 + dataset_id,
            "genes": [gene],
            "specimen": rows.specimen(dataset_id),
            "alignment3d": _moved(pattern["alignment3d"], dataset_id, chance),
        }
        if place % 200 == 199:
            row["alignment3d"] = None
        kept = [k for k in range(len(pattern["section_images"])) if chance.random() > 0.05] or [0]
        row["section_images"] = (
            [_renamed(pattern["section_images"][k], place, k, dataset_id) for k in kept]
            if images
            else []
        )
        return row

    def gene(self, place: int) -> Row:
        """Return the Gene row of the dataset at a place; a gene has one dataset, or two."""
        number = int(place / _DATASETS_A_GENE)
        return {
            **rows.gene(f"Syn{number}"),
            "id": 1_000_000 + number,
            "entrez_id": 2_000_000 + number,
            "alias_tags": f"Alias{number} Other{number}" if number % 3 else None,
        }

    def grid(self, dataset_id: int, volume: str = "energy") -> Single | None:
        """Return a volume of a dataset on the 200 micron grid, or None where there is none.

        Shape (67, 41, 58) along p, i, r; -1 where there are no data, and many zeros.
        """
        place, rest = divmod(dataset_id - _FIRST_DATASET, 40)
        if rest or not 0 <= place < self.count or place % 40 == 39:
            return None
        chance = np.random.default_rng([self.seed, place])
        weights = chance.gamma(1.0, 2.0, len(_basis()[0])).astype(np.float32)
        stripe = int(chance.integers(20, 45))
        energy = np.tensordot(weights, _basis()[0], axes=1).astype(np.float32)
        energy = np.maximum(energy - 4.0, 0.0)
        if volume == "density":
            energy = energy / (1.0 + energy)
        elif volume == "intensity":
            energy = 1.0 + energy
        energy[~_basis()[1]] = -1.0
        energy[stripe] = -1.0
        return np.asarray(energy)

    @property
    def grids(self) -> Mapping[int, Callable[[Sequence[str]], bytes]]:
        """What an `AllenServer` takes as ``grids=``: zips that are made when asked for."""
        return _Grids(self)

    def select(self, query: Query) -> tuple[int, Iterator[Row]] | None:
        """Return how many rows meet a query, and those rows, ascending by id, as they are read.

        None where the query is none of those that a catalogue asks: filters by id, failed or
        dataset, and criteria that all meet. Then all rows must be looked at.
        """
        if query.options.get("order", "id").strip("'") != "id":
            return None
        if query.model == "SectionDataSet":
            return self._datasets(query)
        if query.model == "SectionImage":
            return self._images(query)
        return None

    def all_rows(self, model: str, *, images: bool = False) -> Iterator[Row]:
        """Yield all rows of a model."""
        if model == "SectionDataSet":
            yield from (self.row(place, images=images) for place in range(self.count))
        elif model == "SectionImage":
            for place in range(self.count):
                yield from self.row(place, images=True)["section_images"]
        elif model == "Gene":
            known = set()
            for place in range(self.count):
                gene = self.gene(place)
                if gene["id"] not in known:
                    known.add(gene["id"])
                    yield gene
        elif model == "Product":
            yield rows.product(1)

    def _datasets(self, query: Query) -> tuple[int, Iterator[Row]] | None:
        if any(node.name != "products" for node in query.criteria):
            return None
        if any(node.filters != (Filter("id", "eq", "1"),) for node in query.criteria):
            return None
        places = self._places(query.filters, "id")
        if places is None:
            return None
        nested = any(node.name in ("section_images", "sub_images") for node in query.include)
        return len(places), (self.row(place, images=nested) for place in places)

    def _images(self, query: Query) -> tuple[int, Iterator[Row]] | None:
        of_images = tuple(one for one in query.filters if one.column == "id")
        of_datasets = tuple(one for one in query.filters if one.column == "data_set_id")
        if query.criteria or not of_datasets:
            return None
        if len(of_images) + len(of_datasets) != len(query.filters):
            return None
        places = self._places(
            tuple(Filter("id", one.operator, one.value) for one in of_datasets), "id"
        )
        if places is None:
            return None
        every = _images_of(self, tuple(places))
        found = [image for image in every if all(_meets(image["id"], one) for one in of_images)]
        return len(found), iter(found)

    def _places(self, filters: Sequence[Filter], column: str) -> Sequence[int] | None:
        """Return the places of the datasets whose ids meet all of some filters."""
        places: Sequence[int] = range(self.count)
        for one in filters:
            if one.column != column or one.operator not in _BY_NUMBER:
                return None
            if one.operator in ("eq", "in"):
                wanted = {int(number) - _FIRST_DATASET for number in one.value.split(",")}
                there = {number // 40 for number in wanted if number % 40 == 0}
                places = [place for place in sorted(there) if place in places]
            elif isinstance(places, range):
                low, high = _bounds(one)
                places = range(max(places.start, low), max(min(places.stop, high), places.start))
            else:
                low, high = _bounds(one)
                places = [place for place in places if low <= place < high]
        return places

    @cached_property
    def _patterns(self) -> tuple[list[Row], list[Row]]:
        plane: tuple[Literal["coronal", "sagittal"], ...] = ("coronal", "sagittal")
        coronal, sagittal = (
            [
                phantom_dataset(
                    pattern,
                    plane=name,
                    sections=sections,
                    resolution=1.05,
                    tilt=1.0 + pattern,
                    gaps=3,
                    seed=self.seed,
                ).row
                for pattern in range(3)
            ]
            for name, sections in zip(plane, (60, 20), strict=True)
        )
        return coronal, sagittal


@lru_cache(maxsize=4)
def _images_of(atlas: SyntheticAtlas, places: tuple[int, ...]) -> list[Row]:
    """Return the images of some datasets, whose pages are asked for one after another."""
    return [image for place in places for image in atlas.row(place, images=True)["section_images"]]


class _Grids(Mapping[int, Callable[[Sequence[str]], bytes]]):
    def __init__(self, atlas: SyntheticAtlas) -> None:
        self._atlas = atlas

    def __getitem__(self, dataset_id: int) -> Callable[[Sequence[str]], bytes]:
        if self._atlas.grid(dataset_id) is None:
            raise KeyError(dataset_id)
        return lambda volumes: self._zip(dataset_id, volumes)

    def __iter__(self) -> Iterator[int]:
        return (number for number in self._atlas.dataset_ids if number in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _zip(self, dataset_id: int, volumes: Sequence[str]) -> bytes:
        space = self._atlas.row((dataset_id - _FIRST_DATASET) // 40)["reference_space_id"]
        grids = {volume: self._atlas.grid(dataset_id, volume) for volume in volumes}
        found = {name: values for name, values in grids.items() if values is not None}
        return grid_zip(found, _STEP, dataset_id, space)


def grid_zip(
    volumes: Mapping[str, Single], step: float, dataset_id: int, reference_space: int
) -> bytes:
    """Return volumes as the grid service sends them: MetaImages and a description, zipped.

    Parameters
    ----------
    volumes
        By name (``"energy"``), along p, i, r; -1 where there are no data.
    step
        Microns between nodes.
    dataset_id, reference_space
        What the description says.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in _grid_files(volumes, step, dataset_id, reference_space):
            # A fixed date, so that the same volumes give the same bytes.
            archive.writestr(zipfile.ZipInfo(name, (2011, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()


def _grid_files(
    volumes: Mapping[str, Single], step: float, dataset_id: int, reference_space: int
) -> Iterator[tuple[str, bytes]]:
    description = (
        f"<section-data-set><id>{dataset_id}</id>"
        f"<reference-space-id>{reference_space}</reference-space-id></section-data-set>"
    )
    yield "data_set.xml", description.encode()
    for name, values in volumes.items():
        header = (
            "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
            f"Offset = 0 0 0\nElementSpacing = {step:g} {step:g} {step:g}\n"
            f"DimSize = {' '.join(map(str, values.shape))}\nAnatomicalOrientation = RAI\n"
            f"ElementType = MET_FLOAT\nElementDataFile = {name}.raw\n"
        )
        yield f"{name}.mhd", header.encode()
        yield f"{name}.raw", values.astype("<f4").tobytes(order="F")


def nrrd_grid(values: Single, step: float) -> bytes:
    """Return a volume as the service sends connectivity grids: NRRD, gzipped, along p, i, r."""
    import gzip

    header = (
        "NRRD0004\ntype: float\ndimension: 3\nspace dimension: 3\n"
        f"sizes: {' '.join(map(str, values.shape))}\n"
        f"space directions: ({step:g},0,0) (0,{step:g},0) (0,0,{step:g})\n"
        "space origin: (0,0,0)\nkinds: domain domain domain\nendian: little\nencoding: gzip\n\n"
    )
    return header.encode() + gzip.compress(values.astype("<f4").tobytes(order="F"), mtime=0)


def _basis() -> tuple[Single, npt.NDArray[np.bool_]]:
    """Return smooth patterns over the grid (8, p, i, r), and where there is a brain."""
    if not _made:
        p, i, r = np.meshgrid(*(np.linspace(-1, 1, n) for n in _GRID), indexing="ij")
        chance = np.random.default_rng(11)
        waves = [
            np.sin(np.pi * (a * p + b * i + c * r + d)) + 1.0
            for a, b, c, d in chance.uniform(-2, 2, (8, 4))
        ]
        inside = (p / 0.9) ** 2 + (i / 0.85) ** 2 + (r / 0.9) ** 2 <= 1
        _made.append((np.stack(waves).astype(np.float32), inside))
    return _made[0]


_made: list[tuple[Single, npt.NDArray[np.bool_]]] = []


def _moved(alignment: Row, dataset_id: int, chance: random.Random) -> Row:
    """Return an alignment moved by up to 100 microns along p, i, r, both directions alike."""
    moved = {**alignment, "id": 800_000_000 + dataset_id, "aligned_id": dataset_id}
    by = [chance.uniform(-100.0, 100.0) for _ in range(3)]
    for row in range(3):
        moved[f"tvr_{9 + row:02d}"] = alignment[f"tvr_{9 + row:02d}"] + by[row]
        back = sum(alignment[f"trv_{3 * row + k:02d}"] * by[k] for k in range(3))
        moved[f"trv_{9 + row:02d}"] = alignment[f"trv_{9 + row:02d}"] - back
    return moved


def _renamed(image: Row, place: int, number: int, dataset_id: int) -> Row:
    image_id = _FIRST_IMAGE + _IMAGES_A_DATASET * place + number
    alignment = {
        **image["alignment2d"], "id": 700_000_000 + image_id, "section_image_id": image_id,
    }  # fmt: skip
    return {**image, "id": image_id, "data_set_id": dataset_id, "alignment2d": alignment}


def _bounds(one: Filter) -> tuple[int, int]:
    """Return from which place on, and up to which, ids meet a filter that compares."""
    number = int(one.value)
    first = -((_FIRST_DATASET - number) // 40)  # of ids of at least the number
    after = (number - _FIRST_DATASET) // 40 + 1  # of ids above the number
    everything = 2**40
    return {
        "ge": (first, everything),
        "gt": (after, everything),
        "lt": (0, first),
        "le": (0, after),
    }[one.operator]


def _meets(number: int, one: Filter) -> bool:
    wanted = [int(each) for each in one.value.split(",")]
    return {
        "eq": number in wanted,
        "in": number in wanted,
        "gt": number > wanted[0],
        "ge": number >= wanted[0],
        "lt": number < wanted[0],
        "le": number <= wanted[0],
    }[one.operator]
