"""The synchronisation services: formulas, flips, nulls, and both readings of each doubt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from atldld.testing import AllenServer, Doubts, oracle, phantom_dataset


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


def syncs(reply: Any) -> list[dict]:
    assert reply.status == 200
    assert reply.json["success"] is True
    return [entry["image_sync"] for entry in reply.json["msg"]]


def test_image_to_reference(both: Any, fetch: Any, pair: Any) -> None:
    for dataset in pair:
        image_id = dataset.image_ids[2]
        reply = fetch(both, f"/image_to_reference/{image_id}.json?x=624.5&y=-780")
        found = reply.json["msg"]["image_to_reference"]
        expected = [float(c) for c in dataset.pir(image_id, 624.5, -780.0)]
        assert [found[name] for name in "xyz"] == expected
        assert both.requests[-1].kind == "sync"


@pytest.mark.parametrize("space", [9, 10])
def test_reference_to_image_takes_each_dataset_in_its_own_space(
    both: Any, fetch: Any, pair: Any, space: int
) -> None:
    point = (6000.0, 3500.0, 4300.0)
    query = f"x={point[0]}&y={point[1]}&z={point[2]}&section_data_set_ids=2,1,77"
    entries = syncs(fetch(both, f"/reference_to_image/{space}.json?{query}"))
    assert [entry["section_data_set_id"] for entry in entries] == [2, 1, 77]
    assert entries[2] == {
        "section_data_set_id": 77,
        "section_image_id": None,
        "section_number": None,
        "x": None,
        "y": None,
    }
    for dataset, entry in zip(reversed(pair), entries, strict=False):
        own = dataset.row["reference_space_id"]
        r = point[2] if own == space else 11350.0 - point[2]
        _, _, z = oracle.reference_to_stack(dataset.row, point[0], point[1], r)
        number = float(z) / dataset.row["section_thickness"]
        images = [dataset.image(image_id) for image_id in dataset.image_ids]
        nearest = min(images, key=lambda image: abs(image["section_number"] - number))
        assert entry["section_image_id"] == nearest["id"]
        assert entry["section_number"] == nearest["section_number"]
        expected = oracle.reference_to_image(dataset.row, nearest, point[0], point[1], r)
        assert [entry["x"], entry["y"]] == [float(c) for c in expected]


def test_an_unknown_space_leads_nowhere(both: Any, fetch: Any) -> None:
    reply = fetch(both, "/reference_to_image/6.json?x=1&y=2&z=3&section_data_set_ids=1")
    assert syncs(reply)[0]["section_image_id"] is None


def test_image_to_image_goes_through_both_spaces(both: Any, fetch: Any, pair: Any) -> None:
    coronal, sagittal = pair
    seed = coronal.image_ids[3]
    p, i, r = (float(c) for c in coronal.pir(seed, 300.0, 200.0))
    (entry,) = syncs(fetch(both, f"/image_to_image/{seed}.json?x=300&y=200&section_data_set_ids=2"))
    query = f"x={p!r}&y={i!r}&z={r!r}&section_data_set_ids=2"
    assert entry == syncs(fetch(both, f"/reference_to_image/9.json?{query}"))[0]
    image = sagittal.image(entry["section_image_id"])
    expected = oracle.reference_to_image(sagittal.row, image, p, i, 11350.0 - r)
    assert [entry["x"], entry["y"]] == [float(c) for c in expected]


def test_image_to_image_2d_knows_only_the_stack(both: Any, fetch: Any, pair: Any) -> None:
    coronal, _ = pair
    seed, other = coronal.image_ids[1], coronal.image_ids[4]
    path = f"/image_to_image_2d/{seed}.json?x=300&y=200&section_image_ids={other},{seed},5"
    found = syncs(fetch(both, path))
    place = oracle.image_to_stack(coronal.image(seed), 300.0, 200.0)
    expected = oracle.stack_to_image(coronal.image(other), *place)
    assert [found[0]["x"], found[0]["y"]] == [float(c) for c in expected]
    assert [found[1]["x"], found[1]["y"]] == pytest.approx([300, 200], abs=0.1)
    assert found[2]["section_image_id"] is None


def test_image_to_atlas_is_not_a_list(fetch: Any) -> None:
    plates = phantom_dataset(100048576, sections=4)
    seed = phantom_dataset(1, sections=3)
    with AllenServer([plates, seed]) as server:
        path = f"/image_to_atlas/{seed.image_ids[1]}.json?x=100&y=100&atlas_id="
        found = fetch(server, f"{path}1").json["msg"]["image_sync"]
        assert found["section_image_id"] in plates.image_ids
        assert fetch(server, f"{path}2").json["msg"]["image_sync"]["section_image_id"] is None


def test_structure_to_image(fetch: Any, pair: Any) -> None:
    _, sagittal = pair
    with AllenServer(pair, structure_centres={(7, 9): (6000.0, 4000.0, 8000.0)}) as server:
        found = syncs(fetch(server, "/structure_to_image/2.json?structure_ids=1018,7,99"))
    expected = [(7800.0, 3400.0, 1050.0), (6000.0, 4000.0, 3350.0)]
    for entry, point in zip(found, expected, strict=False):
        image = sagittal.image(entry["section_image_id"])
        place = oracle.reference_to_image(sagittal.row, image, *point)
        assert [entry["x"], entry["y"]] == [float(c) for c in place]
    assert found[2]["section_image_id"] is None


@pytest.mark.parametrize("status", [200, 404])
def test_errors_have_a_text(fetch: Any, pair: Any, status: int) -> None:
    with AllenServer(pair, doubts=Doubts(sync_error_status=status)) as server:
        for path in (
            "/image_to_reference/99.json?x=1&y=2",
            "/image_to_reference/1000.json?x=1",
            "/image_to_reference/1000.json?x=one&y=2",
            "/image_to_reference/abc.json?x=1&y=2",
            "/reference_to_image/9.json?x=1&y=2&z=3",
            "/structure_to_image/99.json?structure_ids=1",
            "/image_to_atlas/1000.json?x=1&y=2",
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

    lost, kept = coronal.image_ids[1:3]
    with AllenServer(coronal.altered(lose), doubts=Doubts(unaligned=unaligned)) as server:
        reply = fetch(server, f"/image_to_reference/{lost}.json?x=1&y=2")
        if unaligned == "error":
            assert reply.json["success"] is False
        else:
            nulls = {"x": None, "y": None, "z": None}
            assert reply.json["msg"] == {"image_to_reference": nulls}
        path = f"/image_to_image_2d/{kept}.json?x=1&y=2&section_image_ids={lost}"
        assert syncs(fetch(server, path))[0]["section_image_id"] is None
        path = f"/image_to_image/{lost}.json?x=1&y=2&section_data_set_ids=1"
        assert syncs(fetch(server, path))[0]["section_image_id"] is None


@pytest.mark.parametrize("ties", ["lower", "higher"])
@pytest.mark.parametrize("failed", ["counted", "skipped"])
def test_ties_and_failed_images(fetch: Any, ties: str, failed: str) -> None:
    dataset = phantom_dataset(1, sections=4, gaps=0)

    def simplify(row: dict) -> None:
        for place in range(12):
            row["alignment3d"][f"trv_{place:02d}"] = 1.0 if place in (0, 4, 8) else 0.0
        for number, image in zip((10, 20, 30, 40), row["section_images"], strict=True):
            image["section_number"] = number
        row["section_images"][2]["failed"] = True

    def number_at(server: Any, z: float) -> int:
        path = f"/reference_to_image/9.json?x=0&y=0&z={z}&section_data_set_ids=1"
        return syncs(fetch(server, path))[0]["section_number"]

    doubts = Doubts(ties=ties, failed_images=failed)
    with AllenServer(dataset.altered(simplify), doubts=doubts) as server:
        assert number_at(server, 15 * 25.0) == (10 if ties == "lower" else 20)
        skipped = 20 if ties == "lower" else 40
        assert number_at(server, 30 * 25.0) == (30 if failed == "counted" else skipped)
        assert number_at(server, -1e6) == 10
        assert number_at(server, 1e6) == 40


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
