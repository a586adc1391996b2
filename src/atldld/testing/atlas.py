"""A whole atlas of made-up rows, written only when they are asked for.

A few phantom datasets serve as patterns; each dataset of the atlas is one of them under its own
ids, moved a little in reference space, with some sections left out. The same arguments give the
same atlas, however it is asked.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from . import service_rows as rows
from .archive import grid_zip
from .cutting import phantom_dataset
from .queries import Filter, Query
from .served import Served
from .service_rows import Row

WHOLE = 26_078
"""Datasets in the catalogue of Allen's open bucket."""

_FIRST_DATASET = 70_000_000
_FIRST_IMAGE = 100_000_000
_IMAGES_A_DATASET = 200
_DATASETS_A_GENE = 1.3
_GRID = (67, 41, 58)
_STEP = 200.0
_COMPARE: dict[str, Callable[..., npt.NDArray[np.bool_]]] = {
    "eq": np.isin, "in": np.isin, "gt": np.greater, "ge": np.greater_equal, "lt": np.less,
    "le": np.less_equal,
}  # fmt: skip

Single = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SyntheticAtlas(Served):
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
        pattern = self._patterns["coronal" if chance.random() < 1 / 7 else "sagittal"]
        row = {**pattern[chance.randrange(3)]}
        dataset_id = _FIRST_DATASET + 40 * place
        row |= {
            "id": dataset_id,
            "failed": place % 50 == 49,
            "specimen_id": 500_000_000 + dataset_id,
            "genes": [self.gene(place)],
            "specimen": rows.specimen(dataset_id),
            "alignment3d": _moved(row["alignment3d"], dataset_id, chance),
        }
        if place % 200 == 199:
            row["alignment3d"] = None
        numbers = range(len(row["section_images"]))
        kept = [number for number in numbers if chance.random() > 0.05] or [0]
        row["section_images"] = (
            [_renamed(row["section_images"][number], place, number, dataset_id) for number in kept]
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
        waves, inside = _basis()
        chance = np.random.default_rng([self.seed, place])
        weights = chance.gamma(1.0, 2.0, len(waves)).astype(np.float32)
        stripe = int(chance.integers(20, 45))
        energy = np.tensordot(weights, waves, axes=1).astype(np.float32)
        energy = np.maximum(energy - 4.0, 0.0)
        if volume == "density":
            energy = energy / (1.0 + energy)
        elif volume == "intensity":
            energy = 1.0 + energy
        energy[~inside] = -1.0
        energy[stripe] = -1.0
        return np.asarray(energy)

    @property
    def grids(self) -> Mapping[int, Callable[[Sequence[str]], bytes]]:
        """What an `AllenServer` takes as ``grids=``: zips that are made when asked for."""
        there = (place for place in range(self.count) if place % 40 != 39)
        return {_FIRST_DATASET + 40 * place: partial(self._zip, place) for place in there}

    def select(self, query: Query) -> tuple[int, Iterator[Row]] | None:
        """Return how many rows meet a query, and those rows, ascending by id, as they are read.

        None where the query is none of those that a catalogue asks: filters by id or dataset,
        and criteria that all meet. Then all rows must be looked at.
        """
        if query.options.get("order", "id").strip("'") != "id":
            return None
        if any(one.operator not in _COMPARE for one in query.filters):
            return None
        columns = {one.column for one in query.filters}
        if query.model == "SectionDataSet" and columns <= {"id"}:
            every = (Filter("id", "eq", "1"),)
            if any((node.name, node.filters) != ("products", every) for node in query.criteria):
                return None
            places = self._places(query.filters)
            nested = any(node.name in ("section_images", "sub_images") for node in query.include)
            return len(places), (self.row(place, images=nested) for place in places)
        of_images = {"data_set_id"} <= columns <= {"data_set_id", "id"}
        if query.model == "SectionImage" and of_images and not query.criteria:
            images = _images_of(
                self, self._places(one for one in query.filters if one.column == "data_set_id")
            )
            ids = np.array([image["id"] for image in images], dtype=np.int64)
            kept = _met(ids, (one for one in query.filters if one.column == "id"))
            return int(kept.sum()), (images[place] for place in np.flatnonzero(kept))
        return None

    def all_rows(self, model: str, *, images: bool = False) -> Iterator[Row]:
        """Yield all rows of a model."""
        places = range(self.count)
        if model == "SectionDataSet":
            yield from (self.row(place, images=images) for place in places)
        elif model == "SectionImage":
            for place in places:
                yield from self.row(place, images=True)["section_images"]
        elif model == "Gene":
            yield from {gene["id"]: gene for gene in map(self.gene, places)}.values()
        elif model == "Product":
            yield rows.product(1)

    def _places(self, filters: Iterable[Filter]) -> tuple[int, ...]:
        """Return the places of the datasets whose ids meet all of some filters."""
        kept = _met(_FIRST_DATASET + 40 * np.arange(self.count), filters)
        return tuple(int(place) for place in np.flatnonzero(kept))

    def _zip(self, place: int, volumes: Sequence[str]) -> bytes:
        dataset_id = _FIRST_DATASET + 40 * place
        grids = {volume: self.grid(dataset_id, volume) for volume in volumes}
        found = {name: values for name, values in grids.items() if values is not None}
        return grid_zip(found, _STEP, dataset_id, self.row(place)["reference_space_id"])

    @cached_property
    def _patterns(self) -> dict[str, list[Row]]:
        sizes: dict[Literal["coronal", "sagittal"], int] = {"coronal": 60, "sagittal": 20}
        return {
            plane: [
                phantom_dataset(
                    pattern,
                    plane=plane,
                    sections=sections,
                    resolution=1.05,
                    tilt=1.0 + pattern,
                    gaps=3,
                    seed=self.seed,
                ).row
                for pattern in range(3)
            ]
            for plane, sections in sizes.items()
        }


@lru_cache(maxsize=4)
def _images_of(atlas: SyntheticAtlas, places: tuple[int, ...]) -> list[Row]:
    """Return the images of some datasets, whose pages are asked for one after another."""
    return [image for place in places for image in atlas.row(place, images=True)["section_images"]]


@lru_cache(maxsize=1)
def _basis() -> tuple[Single, npt.NDArray[np.bool_]]:
    """Return smooth patterns over the grid (8, p, i, r), and where there is a brain."""
    p, i, r = np.meshgrid(*(np.linspace(-1, 1, n) for n in _GRID), indexing="ij")
    chance = np.random.default_rng(11)
    waves = [
        np.sin(np.pi * (a * p + b * i + c * r + d)) + 1.0
        for a, b, c, d in chance.uniform(-2, 2, (8, 4))
    ]
    inside = (p / 0.9) ** 2 + (i / 0.85) ** 2 + (r / 0.9) ** 2 <= 1
    return np.stack(waves).astype(np.float32), inside


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


def _met(ids: npt.NDArray[np.int64], filters: Iterable[Filter]) -> npt.NDArray[np.bool_]:
    """Whether each of some ids meets all of some filters."""
    kept = np.ones(ids.shape, dtype=bool)
    for one in filters:
        wanted = [int(number) for number in one.value.split(",")]
        kept &= _COMPARE[one.operator](ids, wanted)
    return kept
