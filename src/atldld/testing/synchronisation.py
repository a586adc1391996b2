"""The synchronisation services: from images to reference space, and to other images.

Formulas and answers are those of the service [1]_; what is not known about it is read as
`Doubts` says. A target that cannot be synchronised is an entry whose ids are null.

References
----------
.. [1] "Image-to-image synchronization", Allen Institute, https://community.brain-map.org/t/2863
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import oracle
from .doubts import Doubts
from .service_rows import Row
from .tables import Tables

Parameters = Mapping[str, str]
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


def synchronised(
    service: str,
    subject_id: int,
    parameters: Parameters,
    tables: Tables,
    doubts: Doubts,
    centres: Mapping[tuple[int, int], Point],
) -> Any:
    """Return the ``msg`` of a synchronisation.

    Parameters
    ----------
    service
        One of `SERVICES`.
    subject_id
        The id in the URL: of an image, a reference space, or (``structure_to_image``) a
        dataset.
    parameters
        Of the URL.
    centres
        Where structures are, for ``structure_to_image``, besides `STRUCTURE_CENTRES`.

    Raises
    ------
    SyncError
        If it cannot be answered.
    """
    if service == "image_to_reference":
        found = _seed(subject_id, parameters, tables)
        if found is None:
            if doubts.unaligned == "error":
                raise SyncError(f"SectionImage {subject_id} is not aligned")
            return {"image_to_reference": {"x": None, "y": None, "z": None}}
        _, (p, i, r) = found
        return {"image_to_reference": {"x": p, "y": i, "z": r}}
    if service == "reference_to_image":
        point = tuple(_number(parameters, name) for name in "xyz")
        return _to_datasets(point, subject_id, parameters, tables, doubts)
    if service in ("image_to_image", "image_to_atlas"):
        return _image_to_image(service, subject_id, parameters, tables, doubts)
    if service == "image_to_image_2d":
        return _image_to_image_2d(subject_id, parameters, tables)
    if service == "structure_to_image":
        return _structure_to_image(subject_id, parameters, tables, doubts, centres)
    raise SyncError(f"there is no service {service!r}")


def _image_to_image(
    service: str, image_id: int, parameters: Parameters, tables: Tables, doubts: Doubts
) -> Any:
    found = _seed(image_id, parameters, tables)
    if service == "image_to_atlas":
        dataset_id = ATLAS_DATASETS.get(int(_number(parameters, "atlas_id")), -1)
        if found is None:
            return _sync(dataset_id, None)
        return _to_dataset(found[1], found[0], dataset_id, tables, doubts)
    if found is None:
        return [_sync(other, None) for other in _ids(parameters, "section_data_set_ids")]
    return _to_datasets(found[1], found[0], parameters, tables, doubts)


def _image_to_image_2d(image_id: int, parameters: Parameters, tables: Tables) -> Any:
    seed = _image(image_id, tables)
    x, y = _number(parameters, "x"), _number(parameters, "y")
    entries = []
    for other_id in _ids(parameters, "section_image_ids"):
        other = _find(tables.rows("SectionImage"), other_id)
        if other is None or not other.get("alignment2d") or not seed.get("alignment2d"):
            entries.append(_sync(None if other is None else other.get("data_set_id"), None))
            continue
        place = oracle.stack_to_image(other, *oracle.image_to_stack(seed, x, y))
        entries.append(_sync(other.get("data_set_id"), other, place))
    return entries


def _structure_to_image(
    dataset_id: int,
    parameters: Parameters,
    tables: Tables,
    doubts: Doubts,
    centres: Mapping[tuple[int, int], Point],
) -> Any:
    dataset = _find(tables.rows("SectionDataSet"), dataset_id)
    if dataset is None:
        raise SyncError(f"SectionDataSet {dataset_id} was not found")
    known = {**STRUCTURE_CENTRES, **centres}
    entries = []
    for structure in _ids(parameters, "structure_ids"):
        spaces = (dataset.get("reference_space_id"), 9, 10)
        space = next(
            (one for one in spaces if isinstance(one, int) and (structure, one) in known), None
        )
        if space is None:
            entries.append(_sync(dataset_id, None))
        else:
            point = known[structure, space]
            entries.append(_to_dataset(point, space, dataset_id, tables, doubts))
    return entries


def _to_datasets(
    point: Any, space: int, parameters: Parameters, tables: Tables, doubts: Doubts
) -> list[Any]:
    return [
        _to_dataset(point, space, dataset_id, tables, doubts)
        for dataset_id in _ids(parameters, "section_data_set_ids")
    ]


def _to_dataset(
    point: Point, space: int, dataset_id: int, tables: Tables, doubts: Doubts
) -> dict[str, Any]:
    dataset = _find(tables.rows("SectionDataSet"), dataset_id)
    if dataset is None or not dataset.get("alignment3d"):
        return _sync(dataset_id, None)
    p, i, r = point
    try:
        r = float(oracle.to_space(r, space, dataset["reference_space_id"]))
    except ValueError:
        return _sync(dataset_id, None)
    u, v, z = oracle.reference_to_stack(dataset, p, i, r)
    image = oracle.nearest_image(
        tables.associated("SectionDataSet", dataset, "section_images"),
        float(z) / dataset["section_thickness"],
        ties=doubts.ties,
        count_failed=doubts.failed_images == "counted",
    )
    if image is None:
        return _sync(dataset_id, None)
    return _sync(dataset_id, image, oracle.stack_to_image(image, u, v))


def _seed(image_id: int, parameters: Parameters, tables: Tables) -> tuple[int, Point] | None:
    """Return the space and place that a pixel lies in, or None without alignment."""
    image = _image(image_id, tables)
    dataset = _find(tables.rows("SectionDataSet"), image.get("data_set_id"))
    x, y = _number(parameters, "x"), _number(parameters, "y")
    if dataset is None or not dataset.get("alignment3d") or not image.get("alignment2d"):
        return None
    p, i, r = oracle.image_to_reference(dataset, image, x, y)
    return dataset["reference_space_id"], (float(p), float(i), float(r))


def _image(image_id: int, tables: Tables) -> Row:
    image = _find(tables.rows("SectionImage"), image_id)
    if image is None:
        raise SyncError(f"SectionImage {image_id} was not found")
    return image


def _find(rows: list[Row], row_id: Any) -> Row | None:
    return next((row for row in rows if row.get("id") == row_id), None)


def _sync(
    dataset_id: Any, image: Mapping[str, Any] | None, place: Any = (None, None)
) -> dict[str, Any]:
    x, y = (None if value is None else float(value) for value in place)
    return {
        "image_sync": {
            "section_data_set_id": dataset_id,
            "section_image_id": None if image is None else image["id"],
            "section_number": None if image is None else image["section_number"],
            "x": x,
            "y": y,
        }
    }


def _number(parameters: Parameters, name: str) -> float:
    try:
        return float(parameters[name])
    except (KeyError, ValueError):
        raise SyncError(f"{name} is {parameters.get(name)!r}, not a number") from None


def _ids(parameters: Parameters, name: str) -> list[int]:
    try:
        return [int(part) for part in parameters[name].split(",")]
    except (KeyError, ValueError):
        raise SyncError(f"{name} is {parameters.get(name)!r}, not a list of ids") from None
