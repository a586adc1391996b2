"""Where a pixel lies: the formula, nulls, and both readings of each doubt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from atldld.testing import AllenServer, Doubts, phantom_dataset


@pytest.fixture(scope="module")
def pair() -> Any:
    """A coronal dataset in space 9 and a sagittal one in space 10, of one brain."""
    coronal = phantom_dataset(1, sections=6)
    sagittal = phantom_dataset(2, "sagittal", sections=5)
    return coronal, sagittal


@pytest.fixture(scope="module")
def both(pair: Any) -> Any:
    with AllenServer(pair) as running:
        yield running
        assert running.errors == []


def test_image_to_reference(both: Any, fetch: Any, pair: Any) -> None:
    for dataset in pair:
        image_id = dataset.image_ids[2]
        reply = fetch(both, f"/image_to_reference/{image_id}.json?x=624.5&y=-780")
        found = reply.json["msg"]["image_to_reference"]
        expected = [float(c) for c in dataset.pir(image_id, 624.5, -780.0)]
        assert [found[name] for name in "xyz"] == expected
        assert both.requests[-1].kind == "sync"


@pytest.mark.parametrize("status", [200, 404])
def test_errors_have_a_text(fetch: Any, pair: Any, status: int) -> None:
    with AllenServer(pair, doubts=Doubts(sync_error_status=status)) as server:
        for path in (
            "/image_to_reference/99.json?x=1&y=2",
            "/image_to_reference/1000.json?x=1",
            "/image_to_reference/1000.json?x=one&y=2",
            "/image_to_reference/abc.json?x=1&y=2",
        ):
            reply = fetch(server, path)
            assert reply.status == status
            assert reply.json["success"] is False
            assert isinstance(reply.json["msg"], str)
        assert server.errors == []


@pytest.mark.parametrize("unaligned", ["error", "null"])
def test_what_is_not_aligned(fetch: Any, pair: Any, unaligned: str) -> None:
    coronal, _ = pair

    def lose(row: dict) -> None:
        row["section_images"][1]["alignment2d"] = None

    lost = coronal.image_ids[1]
    with AllenServer(coronal.altered(lose), doubts=Doubts(unaligned=unaligned)) as server:
        reply = fetch(server, f"/image_to_reference/{lost}.json?x=1&y=2")
        if unaligned == "error":
            assert reply.json["success"] is False
        else:
            nulls = {"x": None, "y": None, "z": None}
            assert reply.json["msg"] == {"image_to_reference": nulls}


def test_recorded_matrices_answer_as_recorded(fetch: Any, real_data: Any) -> None:
    import json

    for point in json.loads((real_data / "sync_points.json").read_text())["image_to_reference"]:
        (a, b, e), (c, d, f) = point["affine_2d"]
        matrix = point["affine_3d"]
        entries = [value for row in matrix for value in row[:3]] + [row[3] for row in matrix]
        row = {
            "id": point["dataset_id"],
            "reference_space_id": 10 if point["axis"] == "sagittal" else 9,
            "section_thickness": point["section_thickness"],
            "alignment3d": {f"tvr_{k:02d}": value for k, value in enumerate(entries)},
            "section_images": [
                {
                    "id": point["image_id"],
                    "data_set_id": point["dataset_id"],
                    "section_number": point["section_number"],
                    "alignment2d": {
                        f"tsv_{k:02d}": value for k, value in enumerate((a, b, c, d, e, f))
                    },
                }
            ],
        }
        with AllenServer(row) as server:
            path = f"/image_to_reference/{point['image_id']}.json?x={point['x']}&y={point['y']}"
            found = fetch(server, path).json["msg"]["image_to_reference"]
        off = np.subtract([found[n] for n in "xyz"], [point[n] for n in "pir"])
        assert np.abs(off).max() < 1e-9
