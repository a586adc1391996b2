"""Points in images and back, against recorded answers and the slow twin."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import atldld
from atldld.model.dataset import SectionDataset, SectionImage
from atldld.testing import AllenServer, oracle, phantom_dataset

SAGITTAL = SectionDataset.from_rows(phantom_dataset(6, "sagittal", sections=2, resolution=60).row)


@pytest.fixture
def recorded(real):
    return json.loads((real / "sync_points.json").read_text())


@pytest.fixture
def prox1(real):
    return json.loads((real / "69289763" / "query.json").read_text())["msg"][0]


def one_image(answer, two, three):
    """Return a dataset of the one image that the service chose."""
    identity = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    image = SectionImage(
        id=answer["image_id"], dataset_id=answer["dataset_id"],
        section_number=answer["section_number"], width=20000, height=20000, x=0, y=0,
        tier_count=7, resolution=None, failed=False, has_expression=False,
        tsv=identity, tvs=identity,
    )  # fmt: skip
    flat = tuple(tuple(row) for row in np.eye(3, 4))
    matrices = {two: tuple(map(tuple, answer["affine_2d"]))}
    return SectionDataset(
        id=answer["dataset_id"], plane=SAGITTAL.plane, plane_of_section_id=2,
        reference_space=10 if answer["axis"] == "sagittal" else 9,
        section_thickness=answer.get("section_thickness", 25.0),
        images=(replace(image, **matrices),),
        **{"trv": flat, "tvr": flat, three: tuple(map(tuple, answer["affine_3d"]))},
    )  # fmt: skip


def test_the_recorded_answers_of_reference_to_image(recorded):
    assert len(recorded["reference_to_image"]) == 10
    for answer in recorded["reference_to_image"]:
        dataset = one_image(answer, "tvs", "trv")
        found = atldld.points_to_sections(dataset, [[answer[axis] for axis in "pir"]])
        assert abs(found.x[0] - answer["x"]) < 1e-9
        assert abs(found.y[0] - answer["y"]) < 1e-9
        assert found.image_id[0] == answer["image_id"]
        flipped = [answer["p"], answer["i"], 11350.0 - answer["r"]]
        other = atldld.points_to_sections(
            dataset, [flipped], reference_space=19 - dataset.reference_space
        )
        assert abs(other.x[0] - answer["x"]) < 1e-9


def test_the_recorded_answers_of_image_to_reference(recorded):
    assert len(recorded["image_to_reference"]) == 20
    for answer in recorded["image_to_reference"]:
        dataset = one_image(answer, "tsv", "tvr")
        pixels = pd.DataFrame({name: [answer[name]] for name in ("image_id", "x", "y")})
        found = atldld.sections_to_points(dataset, pixels)
        for axis in "pir":
            assert abs(found[axis][0] - answer[axis]) < 1e-9
        flipped = atldld.sections_to_points(
            dataset, pixels, reference_space=19 - dataset.reference_space
        )
        assert flipped.r[0] == 11350.0 - found.r[0]


def held(row, points, space):
    """Hold every column against the twin, point by point."""
    dataset = SectionDataset.from_rows(row)
    native = row["reference_space_id"]
    found = atldld.points_to_sections(dataset, points, reference_space=space)
    for (p, i, r), got in zip(points, found.itertuples(), strict=True):
        r = oracle.to_space(r, native if space == "native" else space, native)
        u, v, z = oracle.reference_to_stack(row, p, i, r)
        image = oracle.nearest_image(row["section_images"], z / row["section_thickness"])
        x, y = oracle.stack_to_image(image, u, v)
        assert (got.section_number, got.image_id) == (image["section_number"], image["id"])
        assert abs(got.x - x) < 1e-6
        assert abs(got.y - y) < 1e-6
        assert abs(got.distance - (z - oracle.stack_depth(row, image))) < 1e-6
        assert got.covered == oracle.covered(image, x, y)
    return found


def test_the_choice_of_section_on_the_recorded_list(prox1):
    points = np.random.default_rng(0).uniform(-1000, 13000, (500, 3)) * [1, 0.6, 0.5]
    found = held(prox1, points, "native")
    # Sections 94 and 110 are absent from the recorded list.
    assert found.section_number.nunique() == 18
    assert {94, 110}.isdisjoint(found.section_number)
    assert found.beyond.any()
    held(prox1, points, 9)


@pytest.mark.parametrize("plane", ["coronal", "sagittal", "transverse"])
@pytest.mark.parametrize("space", ["native", 9, 10])
def test_the_choice_of_section_on_phantoms(plane, space):
    row = phantom_dataset(5, plane=plane, tilt=10, sections=9, gaps=2, resolution=30).row
    points = np.random.default_rng(1).uniform(-500, 12000, (200, 3))
    found = held(row, points, space)
    assert found.covered.any()
    assert not found.covered.all()


def test_ties_go_to_the_lower_number_and_the_lower_id():
    row = phantom_dataset(5, sections=5, resolution=30).row
    dataset = SectionDataset.from_rows(row)
    flat = np.eye(3, 4)
    flat[[0, 2]] = flat[[2, 0]]
    numbers = [image.section_number for image in dataset.images]
    again = replace(dataset.images[2], id=dataset.images[2].id + 1_000_000)
    dataset = replace(
        dataset,
        trv=tuple(map(tuple, flat)),
        images=(*dataset.images[:3], again, *dataset.images[3:]),
    )
    middles = (np.array(numbers[1:]) + np.array(numbers[:-1])) / 2
    halfway = middles * dataset.section_thickness
    found = atldld.points_to_sections(dataset, [[z, 0, 0] for z in halfway])
    assert found.section_number.tolist() == numbers[:-1]
    assert found.image_id[2] == dataset.images[2].id
    after = atldld.points_to_sections(dataset, [[np.nextafter(z, 1e9), 0, 0] for z in halfway])
    assert after.section_number.tolist() == numbers[1:]
    atldld.sections_to_points(dataset, found)
    with pytest.raises(KeyError, match="several images"):
        atldld.sections_to_points(dataset, found.drop(columns="image_id"))


def test_there_and_back_with_an_index_of_its_own():
    phantom = phantom_dataset(5, plane="sagittal", sections=6, resolution=30)
    points = pd.DataFrame(
        np.random.default_rng(2).uniform(2000, 5000, (50, 3)), columns=list("pir")
    ).set_index(np.arange(50) * 3 + 7)
    with AllenServer([phantom]) as server:
        there = atldld.points_to_sections(5, points, reference_space=9, source=server.url)
        back = atldld.sections_to_points(5, there, reference_space=9, source=server.url)
    assert there.index.equals(points.index)
    assert back.index.equals(points.index)
    # A point comes back to the section that it was put on, off by its distance from that.
    assert (np.linalg.norm(back - points, axis=1) <= there.distance.abs() * 1.2 + 0.2).all()


def test_honest_about_outside():
    row = phantom_dataset(5, sections=6, resolution=30).row
    dataset = SectionDataset.from_rows(row)
    points = [[6600, 4000, 5675], [6600, 4000, 60000], [-5000, 4000, 5675], [np.nan, 1, 2]]
    found = atldld.points_to_sections(dataset, points)
    assert found.covered.tolist()[:2] == [True, False]
    assert found.beyond.tolist() == [False, False, True, False]
    assert found.section_number[3] == found.image_id[3] == -1
    assert np.isnan(found.x[3])
    assert not found.covered[3]
    near = atldld.points_to_sections(dataset, points, max_distance=0)
    assert not near.covered.any()
    back = atldld.sections_to_points(dataset, found)
    assert back.isna().all(axis=1).tolist() == [False, False, False, True]


def test_bad_arguments():
    dataset = SectionDataset.from_rows(phantom_dataset(5, sections=3, resolution=30).row)
    with pytest.raises(ValueError, match="reference_space"):
        atldld.points_to_sections(dataset, [[1, 2, 3]], reference_space=4)
    with pytest.raises(ValueError, match="space 6"):
        atldld.points_to_sections(
            replace(dataset, reference_space=6), [[1, 2, 3]], reference_space=9
        )
    with pytest.raises(ValueError, match="max_distance"):
        atldld.points_to_sections(dataset, [[1, 2, 3]], max_distance=-1)
    with pytest.raises(TypeError, match="id of a dataset"):
        atldld.points_to_sections("five", [[1, 2, 3]])
    with pytest.raises(ValueError, match="columns"):
        atldld.sections_to_points(dataset, pd.DataFrame({"x": [1], "y": [2]}))
    with pytest.raises(KeyError, match="no image with image_id 3"):
        atldld.sections_to_points(dataset, pd.DataFrame({"x": [1], "y": [2], "image_id": [3]}))
    first, second = dataset.images[:2]
    told = {"x": [1], "y": [2], "image_id": [first.id], "section_number": [second.section_number]}
    with pytest.raises(ValueError, match=rf"section of that image is {first.section_number}"):
        atldld.sections_to_points(dataset, pd.DataFrame(told))
    with pytest.raises(TypeError, match="pandas frame"):
        atldld.sections_to_points(dataset, [[1, 2]])
