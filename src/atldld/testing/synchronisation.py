"""The synchronisation services: from images to reference space, and to other images.

Formulas and answers are those of the service [1]_; what is not known about it is read as
`Doubts` says. A target that cannot be synchronised is an entry whose ids are null.

References
----------
.. [1] "Image-to-image synchronization", Allen Institute, https://community.brain-map.org/t/2863
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import oracle
from .doubts import Doubts
from .service_rows import Row
from .tables import Tables

Point = tuple[float, float, float]

SERVICES = (
    "image_to_reference",
    "reference_to_image",
    "image_to_image",
    "image_to_image_2d",
    "image_to_atlas",
    "structure_to_image",
)

STRUCTURE_CENTRES: dict[tuple[int, int], Point] = {(1018, 10): (7800.0, 3400.0, 1050.0)}
"""p, i, r of structures, by structure id and reference space; this one is Allen's own."""

ATLAS_DATASETS: dict[int, int] = {1: 100048576}
"""Dataset of the plates of an atlas, by the id of the atlas."""


class SyncError(Exception):
    """A synchronisation that cannot be answered."""


class Place(NamedTuple):
    """A point of a reference space, in microns."""

    space: int
    point: Point


@dataclass(frozen=True, slots=True)
class Synchronisation:
    """One question to the synchronisation services.

    Parameters
    ----------
    subject_id
        The id in the URL: of an image, a reference space, or (``structure_to_image``) a
        dataset.
    parameters
        Of the URL.
    tables
        The rows to answer from.
    doubts
        How what is not known is read.
    centres
        Where structures are, for ``structure_to_image``, besides `STRUCTURE_CENTRES`.
    """

    subject_id: int
    parameters: Mapping[str, str]
    tables: Tables
    doubts: Doubts
    centres: Mapping[tuple[int, int], Point]

    def answer(self, service: str) -> Any:
        """Return the ``msg`` of a service, one of `SERVICES`.

        Raises
        ------
        SyncError
            If it cannot be answered.
        """
        if service == "image_to_reference":
            return self._image_to_reference()
        if service == "image_to_image_2d":
            return self._image_to_image_2d()
        if service == "structure_to_image":
            return self._structure_to_image()
        if service == "reference_to_image":
            x, y, z = (self._number(name) for name in "xyz")
            place: Place | None = Place(self.subject_id, (x, y, z))
        else:
            place = self._pixel()
        if service == "image_to_atlas":
            return self._image_at(place, ATLAS_DATASETS.get(int(self._number("atlas_id")), -1))
        return [self._image_at(place, other) for other in self._ids("section_data_set_ids")]

    def _image_to_reference(self) -> Any:
        place = self._pixel()
        if place is None and self.doubts.unaligned == "error":
            raise SyncError(f"SectionImage {self.subject_id} is not aligned")
        point = (None, None, None) if place is None else place.point
        return {"image_to_reference": dict(zip("xyz", point, strict=True))}

    def _image_to_image_2d(self) -> list[Any]:
        seed = self._found("SectionImage", self.subject_id)
        x, y = self._number("x"), self._number("y")
        entries = []
        for other_id in self._ids("section_image_ids"):
            other = self._find("SectionImage", other_id) or {}
            dataset_id = other.get("data_set_id")
            if other.get("alignment2d") and seed.get("alignment2d"):
                stack = oracle.image_to_stack(seed, x, y)
                entries.append(_entry(dataset_id, other, oracle.stack_to_image(other, *stack)))
            else:
                entries.append(_entry(dataset_id))
        return entries

    def _structure_to_image(self) -> list[Any]:
        dataset = self._found("SectionDataSet", self.subject_id)
        known = {**STRUCTURE_CENTRES, **self.centres}
        own = dataset.get("reference_space_id")
        spaces = [space for space in (own, 9, 10) if isinstance(space, int)]
        entries = []
        for structure in self._ids("structure_ids"):
            keys = [(structure, space) for space in spaces if (structure, space) in known]
            place = Place(keys[0][1], known[keys[0]]) if keys else None
            entries.append(self._image_at(place, self.subject_id))
        return entries

    def _pixel(self) -> Place | None:
        """Return where the pixel that is asked about lies, or None without alignment."""
        image = self._found("SectionImage", self.subject_id)
        dataset = self._find("SectionDataSet", image.get("data_set_id"))
        x, y = self._number("x"), self._number("y")
        if dataset is None or not dataset.get("alignment3d") or not image.get("alignment2d"):
            return None
        p, i, r = oracle.image_to_reference(dataset, image, x, y)
        return Place(dataset["reference_space_id"], (float(p), float(i), float(r)))

    def _image_at(self, place: Place | None, dataset_id: int) -> dict[str, Any]:
        """Return the entry of the image of a dataset that is nearest to a place."""
        dataset = self._find("SectionDataSet", dataset_id)
        if place is None or dataset is None or not dataset.get("alignment3d"):
            return _entry(dataset_id)
        p, i, r = place.point
        try:
            r = float(oracle.to_space(r, place.space, dataset["reference_space_id"]))
        except ValueError:
            return _entry(dataset_id)
        u, v, z = oracle.reference_to_stack(dataset, p, i, r)
        image = oracle.nearest_image(
            self.tables.associated("SectionDataSet", dataset, "section_images"),
            float(z) / dataset["section_thickness"],
            ties=self.doubts.ties,
            count_failed=self.doubts.failed_images == "counted",
        )
        if image is None:
            return _entry(dataset_id)
        return _entry(dataset_id, image, oracle.stack_to_image(image, u, v))

    def _find(self, model: str, row_id: Any) -> Row | None:
        return next((row for row in self.tables.rows(model) if row.get("id") == row_id), None)

    def _found(self, model: str, row_id: Any) -> Row:
        row = self._find(model, row_id)
        if row is None:
            raise SyncError(f"{model} {row_id} was not found")
        return row

    def _number(self, name: str) -> float:
        try:
            return float(self.parameters[name])
        except (KeyError, ValueError):
            given = self.parameters.get(name)
            raise SyncError(f"{name} is {given!r}, not a number") from None

    def _ids(self, name: str) -> list[int]:
        try:
            return [int(part) for part in self.parameters[name].split(",")]
        except (KeyError, ValueError):
            given = self.parameters.get(name)
            raise SyncError(f"{name} is {given!r}, not a list of ids") from None


def _entry(
    dataset_id: Any, image: Mapping[str, Any] | None = None, at: Any = (None, None)
) -> dict[str, Any]:
    x, y = (None if value is None else float(value) for value in at)
    image = image or {}
    return {
        "image_sync": {
            "section_data_set_id": dataset_id,
            "section_image_id": image.get("id"),
            "section_number": image.get("section_number"),
            "x": x,
            "y": y,
        }
    }
