"""Point clouds for MeshView: the places of pixels, in the voxels that it counts."""

import json

import numpy as np
import pandas as pd
import pytest

import atldld
from atldld.export import to_meshview

POINTS = pd.DataFrame(
    {
        "p": [6600.0, 0.0, np.nan, 13187.5],
        "i": [4000.0, 0.0, 100.0, 7987.5],
        "r": [5700.0, 0.0, 100.0, 11387.5],
        "acronym": ["DG", "CTX", "DG", "DG"],
    }
)


def written(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_points_count_voxels_to_the_right_the_front_and_the_top(tmp_path):
    to_meshview(POINTS, tmp_path / "a.json", reference_space="CCFv3")
    (cloud,) = written(tmp_path / "a.json")
    assert set(cloud) == {"idx", "count", "name", "r", "g", "b", "triplets"}
    assert (cloud["idx"], cloud["count"], cloud["name"]) == (0, 3, "points")
    # Amid the atlas of 456 x 528 x 320; its front upper left corner; the middle of its last voxel.
    assert cloud["triplets"] == [228, 264, 160, 0, 528, 320, 455.5, 0.5, 0.5]


def test_each_group_is_a_cloud_with_its_colour(tmp_path):
    colours = {"DG": "#7ed04b"}
    to_meshview(POINTS, tmp_path / "a.json", by="acronym", colours=colours, reference_space="CCFv3")
    other, own = written(tmp_path / "a.json")
    assert (own["name"], own["r"], own["g"], own["b"]) == ("DG", 0x7E, 0xD0, 0x4B)
    assert (own["count"], other["count"]) == (2, 1)
    assert (other["idx"], own["idx"]) == (0, 1)
    assert (other["r"], other["g"], other["b"]) != (own["r"], own["g"], own["b"])


def test_pixels_of_a_registration_say_their_space(tmp_path, opened):
    opened().atlas.to_quicknii(tmp_path / "q.json")
    content = json.loads((tmp_path / "q.json").read_text())
    del content["atldld"]
    section = opened(registration=content, masked=True).isel(section=2)
    pixels = section.atlas.to_table()
    dark = pixels[pixels.red < 120]
    assert len(dark) > 10
    to_meshview(dark, tmp_path / "a.json")
    (cloud,) = written(tmp_path / "a.json")
    x, y, z = np.reshape(cloud["triplets"], (-1, 3)).T
    # A voxel of the file is a place of the registration: o, u, v of its anchoring span it.
    number = int(section.section)
    (own,) = (each["anchoring"] for each in content["slices"] if each["nr"] == number)
    o, u, v = np.reshape(own, (3, 3))
    off = (np.stack([x, y, z], axis=1) - o) @ np.cross(u, v) / np.linalg.norm(np.cross(u, v))
    assert np.abs(off).max() < 0.002
    np.testing.assert_allclose(x * 25, dark.r, atol=0.02)
    with pytest.raises(ValueError, match="MeshView shows CCFv3"):
        to_meshview(opened().isel(section=2).atlas.to_table(), tmp_path / "b.json")


@pytest.mark.parametrize(
    ("points", "options", "error", "message"),
    [
        (POINTS, {}, TypeError, "do not say which space"),
        (POINTS, {"reference_space": 9}, ValueError, "MeshView shows CCFv3"),
        (POINTS.drop(columns="r"), {"reference_space": "CCFv3"}, ValueError, "no column 'r'"),
        (POINTS, {"reference_space": "CCFv3", "by": "name"}, ValueError, "no column 'name'"),
        (POINTS[2:3], {"reference_space": "CCFv3"}, ValueError, "nothing to export"),
        (
            POINTS,
            {"reference_space": "CCFv3", "by": "acronym", "colours": {"DG": "green"}},
            ValueError,
            "colour of 'DG' is 'green'",
        ),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, points, options, error, message):
    with pytest.raises(error, match=message):
        to_meshview(points, tmp_path / "a.json", **options)
    with pytest.raises(ValueError, match=r"named \.json"):
        to_meshview(POINTS, tmp_path / "a.csv", reference_space="CCFv3")
    assert not list(tmp_path.iterdir())


def test_nothing_is_replaced_unasked(tmp_path):
    (tmp_path / "a.json").write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        to_meshview(POINTS, tmp_path / "a.json", reference_space="CCFv3")
    assert (tmp_path / "a.json").read_text() == "mine"
    to_meshview(POINTS, tmp_path / "a.json", reference_space="CCFv3", overwrite=True)
    assert len(written(tmp_path / "a.json")) == 1


def test_places_of_pixels_must_be_said_to_lie_in_ccfv3(tmp_path, opened, phantoms):
    frame = pd.DataFrame({"image_id": phantoms["coronal"].image_ids[1], "x": [5.0], "y": [9.0]})
    places = atldld.sections_to_points(phantoms["coronal"].id, frame, source=opened().source)
    with pytest.raises(TypeError, match="reference_space='CCFv3'"):
        to_meshview(places, tmp_path / "a.json")
