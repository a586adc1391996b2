"""The slow arithmetic against recorded answers of the service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atldld.testing import oracle


def rows_of(point: dict[str, Any], two: str, three: str) -> tuple[dict, dict]:
    """Write recorded matrices back into rows as the service sends them."""
    (a, b, e), (c, d, f) = point["affine_2d"]
    alignment2d = {f"{two}_{k:02d}": v for k, v in enumerate((a, b, c, d, e, f))}
    matrix = point["affine_3d"]
    entries = [value for row in matrix for value in row[:3]] + [row[3] for row in matrix]
    alignment3d = {f"{three}_{k:02d}": value for k, value in enumerate(entries)}
    image = {
        "id": point["image_id"],
        "section_number": point["section_number"],
        "alignment2d": alignment2d,
    }
    return {"section_thickness": 25.0, "alignment3d": alignment3d}, image


@pytest.fixture(scope="module")
def recorded(real_data: Path) -> dict[str, list[dict[str, Any]]]:
    return json.loads((real_data / "sync_points.json").read_text())


def test_image_to_reference_reproduces_every_recorded_answer(recorded: dict) -> None:
    assert len(recorded["image_to_reference"]) == 20
    for point in recorded["image_to_reference"]:
        dataset, image = rows_of(point, "tsv", "tvr")
        dataset["section_thickness"] = point["section_thickness"]
        found = oracle.image_to_reference(dataset, image, point["x"], point["y"])
        assert np.abs(np.subtract(found, [point["p"], point["i"], point["r"]])).max() < 1e-9


def test_reference_to_image_reproduces_every_recorded_answer(recorded: dict) -> None:
    assert len(recorded["reference_to_image"]) == 10
    for point in recorded["reference_to_image"]:
        dataset, image = rows_of(point, "tvs", "trv")
        found = oracle.reference_to_image(dataset, image, point["p"], point["i"], point["r"])
        assert np.abs(np.subtract(found, [point["x"], point["y"]])).max() < 1e-9


def test_the_two_spaces_meet_different_sections_at_the_same_numbers(recorded: dict) -> None:
    # Dataset 75457491 was asked for p, i, r = 7050, 4600, 4300 in both spaces: in space 10 the
    # service answered with section 100, in space 9 with section 156, its last.
    (point,) = (p for p in recorded["reference_to_image"] if p["dataset_id"] == 75457491)
    dataset, image = rows_of(point, "tvs", "trv")
    images = [dict(image, id=number, section_number=number) for number in range(4, 157, 8)]
    chosen = {}
    for space in (9, 10):
        r = oracle.to_space(4300.0, space, 10)
        _, _, z = oracle.reference_to_stack(dataset, 7050.0, 4600.0, r)
        chosen[space] = oracle.nearest_image(images, float(z) / 25.0)["section_number"]
    assert chosen == {9: 156, 10: 100}
    x, y = oracle.reference_to_image(dataset, image, 7050.0, 4600.0, 4300.0)
    assert (float(x), float(y)) == pytest.approx((7169.250113636281, 4219.259987042813), abs=1e-9)


def test_the_flip_turns_about_5675() -> None:
    assert float(oracle.flip(5675.0)) == 5675.0
    assert float(oracle.to_space(0.0, 9, 10)) == 11350.0
    assert float(oracle.to_space(1234.5, 10, 10)) == 1234.5
    with pytest.raises(ValueError, match="from reference space 6 to 9"):
        oracle.to_space(0.0, 6, 9)


def test_nearest_image_takes_the_lower_of_two() -> None:
    images = [
        None,
        {"id": 1, "section_number": 10, "alignment2d": {"tsv_00": 1}},
        {"id": 2, "section_number": 20, "alignment2d": {"tsv_00": 1}},
        {"id": 4, "section_number": 21, "alignment2d": None},
    ]
    chosen = [oracle.nearest_image(images, number)["id"] for number in (15, 21, -99, 999)]
    assert chosen == [1, 2, 1, 2]
    assert oracle.nearest_image([None], 3) is None


def test_a_point_solved_for_the_section_lies_on_it() -> None:
    dataset = {
        "section_thickness": 25.0,
        "alignment3d": {f"trv_{k:02d}": 0.3 + 0.17 * k for k in range(12)},
    }
    image = {"section_number": 7}
    for axis, place in (("p", 0), ("i", 1), ("r", 2)):
        given = [100.0, -250.0]
        solved = oracle.on_section(dataset, image, axis, *given)
        point = list(given)
        point.insert(place, float(solved))
        assert float(oracle.reference_to_stack(dataset, *point)[2]) == pytest.approx(175.0)
