"""Phantom datasets have the traits, and the awkwardness, of real ones."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from atldld.testing import PhantomBrain, PhantomDataset, oracle, phantom_dataset

AXIS = {"coronal": "p", "sagittal": "r", "transverse": "i"}


def images_of(dataset: PhantomDataset) -> list[dict]:
    return [dataset.image(image_id) for image_id in dataset.image_ids]


@pytest.mark.parametrize("plane", AXIS)
@pytest.mark.parametrize("tilt", [0, 1, 3, 10, 20])
def test_sections_are_tilted_as_asked_and_inverses_nearly_match(plane: str, tilt: float) -> None:
    dataset = phantom_dataset(5, plane, tilt, resolution=1.05, sections=4)
    assert oracle.tilt_degrees(dataset.row, AXIS[plane]) == pytest.approx(tilt, abs=2e-3)
    worst = 0.0
    for image in images_of(dataset):
        x, y = np.array([0.0, image["width"] - 1.0]), np.array([0.0, image["height"] - 1.0])
        back = oracle.reference_to_image(
            dataset.row, image, *oracle.image_to_reference(dataset.row, image, x, y)
        )
        worst = max(worst, float(np.abs(np.subtract(back, [x, y])).max()))
    assert 1e-4 < worst < 0.2


def test_matrices_are_rounded_similarities_that_jump() -> None:
    dataset = phantom_dataset(9)
    entries = [dataset.row["alignment3d"]] + [m["alignment2d"] for m in images_of(dataset)]
    for row in entries:
        for name, value in row.items():
            if name[:4] in ("tsv_", "tvs_", "tvr_", "trv_"):
                assert value == float(f"{value:.6g}")
    shifts = []
    for image in images_of(dataset):
        t = image["alignment2d"]
        assert t["tsv_00"] == t["tsv_03"]
        assert t["tsv_01"] == -t["tsv_02"]
        assert t["tvs_00"] == t["tvs_03"]
        assert np.hypot(t["tsv_00"], t["tsv_01"]) == pytest.approx(8.0, rel=1e-5)
        shifts.append((t["tsv_04"], t["tsv_05"]))
    jumps = np.linalg.norm(np.diff(shifts, axis=0), axis=1)
    assert jumps.min() > 16
    assert np.median(jumps) > 200


@pytest.mark.parametrize("plane", AXIS)
def test_numbers_grow_the_way_the_service_counts(plane: str) -> None:
    dataset = phantom_dataset(9, plane, tilt=10)
    numbers = [image["section_number"] for image in images_of(dataset)]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 0
    assert len(set(np.diff(numbers))) > 1
    middle = {"p": 6600.0, "i": 4000.0, "r": 5675.0}
    others = [value for name, value in middle.items() if name != AXIS[plane]]
    along = np.array(
        [
            float(oracle.on_section(dataset.row, image, AXIS[plane], *others))
            for image in images_of(dataset)
        ]
    )
    first, last = {
        "coronal": (12500, 900),
        "sagittal": (2000, 5300),
        "transverse": (900, 6900),
    }[plane]
    assert along[0] == pytest.approx(first, abs=200)
    assert along[-1] == pytest.approx(last, abs=200)


def test_first_number_gaps_and_tiers_can_be_asked_for() -> None:
    dataset = phantom_dataset(3, sections=5, first_number=-7, gaps=0, tier_count=2)
    numbers = [image["section_number"] for image in images_of(dataset)]
    assert numbers[0] == -7
    assert len(set(np.diff(numbers))) == 1
    assert {image["tier_count"] for image in images_of(dataset)} == {2}


def test_alone_a_section_is_its_slide() -> None:
    for image in images_of(phantom_dataset(3)):
        assert (image["x"], image["y"]) == (0, 0)
        assert (image["image_width"], image["image_height"]) == (image["width"], image["height"])
        assert image["width"] % 2 == 1
        assert image["height"] % 2 == 1


def test_sections_share_slides_at_awkward_offsets_without_overlap() -> None:
    dataset = phantom_dataset(3, slides=True, sections=7)
    images = images_of(dataset)
    for image in images:
        assert image["x"] % 2 == image["y"] % 2 == 1
        assert image["x"] + image["width"] <= image["image_width"]
        assert image["y"] + image["height"] <= image["image_height"]
        assert image["image_width"] > image["width"]
        longer = max(image["image_width"], image["image_height"])
        assert image["tier_count"] == int(np.ceil(np.log2(longer / 256))) + 1
        on = np.zeros((image["image_height"], image["image_width"]), dtype=int)
        for other in images:
            if dataset.slides[other["id"]] == dataset.slides[image["id"]]:
                on[
                    other["y"] : other["y"] + other["height"],
                    other["x"] : other["x"] + other["width"],
                ] += 1
        assert on.max() == 1


@pytest.mark.parametrize("plane", AXIS)
def test_sections_hold_their_tissue(plane: str) -> None:
    dataset = phantom_dataset(4, plane, tilt=10, resolution=24.0)
    share = 0.0
    for image_id in dataset.image_ids:
        picture = dataset.pixels(image_id).min(axis=-1)
        border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert border.min() > 225
        share += float((picture < 200).mean())
    assert share / len(dataset.image_ids) > 0.3


@pytest.mark.parametrize("plane", AXIS)
@pytest.mark.parametrize("space", [9, 10])
def test_pixels_show_the_brain_at_the_place_they_come_from(plane: str, space: int) -> None:
    brain = PhantomBrain("smooth")
    dataset = phantom_dataset(8, plane, 10, 5, brain, reference_space=space, slides=True)
    assert dataset.row["reference_space_id"] == space
    for image_id in dataset.image_ids[:2]:
        image = dataset.image(image_id)
        for tier in (0, 2, 4):
            step = 2**tier
            picture = dataset.pixels(image_id, tier)
            width, height = image["width"] // step, image["height"] // step
            assert picture.shape == (height, width, 3)
            column, row = width // 3, height // 4
            x = column * step - image["x"] % step
            y = row * step - image["y"] % step
            p, i, r = dataset.pir(image_id, x, y)
            if space == 10:
                r = 11350.0 - r
            assert np.abs(picture[row, column] - brain.colour(p, i, r)).max() <= 0.8
            # The other reading of where the tiers begin: exactly at the section's corner.
            p, i, r = dataset.pir(image_id, column * step, row * step)
            r = 11350.0 - r if space == 10 else r
            other = dataset.pixels(image_id, tier, origin="exact")
            assert np.abs(other[row, column] - brain.colour(p, i, r)).max() <= 0.8


def test_a_corner_reading_of_pixels_is_half_a_pixel_off() -> None:
    brain = PhantomBrain("smooth")
    dataset = phantom_dataset(8, brain=brain, sections=1, resolution=64.0)
    (image_id,) = dataset.image_ids
    expected = brain.colour(*dataset.pir(image_id, 30.5, 20.5))
    assert np.abs(dataset.pixels(image_id, shift=0.5)[20, 30] - expected).max() <= 0.8


@pytest.mark.parametrize("texture", ["tissue", "smooth", "fine", "linear"])
def test_interpolated_colours_of_fine_tiers_are_the_brain_s(texture: str) -> None:
    brain = PhantomBrain(texture)
    dataset = phantom_dataset(8, brain=brain, sections=3, resolution=1.05, slides=3)
    image_id = dataset.image_ids[1]
    x, y = 3000 + np.arange(400), 2500 + np.arange(300)
    window = dataset.pixels(image_id, 0, 3000, 2500, 400, 300).astype(float)
    exact = brain.colour(*dataset.pir(image_id, x[None, :], y[:, None]))
    off = np.abs(window - exact).max(axis=-1)
    assert np.percentile(off, 99) <= 1.0
    assert off.max() <= 1.6


@pytest.mark.parametrize("texture", ["tissue", "smooth"])
@pytest.mark.parametrize("view", ["image", "expression", "expression_mask", "projection"])
def test_windows_are_cut_from_the_whole(texture: str, view: str) -> None:
    dataset = phantom_dataset(8, brain=PhantomBrain(texture), sections=5, slides=True)
    image_id = dataset.image_ids[3]
    for tier in (0, 3):
        whole = dataset.pixels(image_id, tier, view=view)
        assert whole.ndim == (2 if view == "expression_mask" else 3)
        height, width = whole.shape[:2]
        left, top = width // 3, height // 5
        part = dataset.pixels(image_id, tier, left, top, width // 2, height // 2, view=view)
        assert np.array_equal(part, whole[top : top + height // 2, left : left + width // 2])


def test_a_slide_shows_all_its_sections() -> None:
    dataset = phantom_dataset(8, sections=4, slides=True, resolution=32.0)
    first = dataset.image(dataset.image_ids[0])
    size = (first["image_width"], first["image_height"])
    slide = dataset.slide_pixels(first["id"], "image", 0, (0, 0), size)
    for image in images_of(dataset):
        box = slide[
            image["y"] : image["y"] + image["height"], image["x"] : image["x"] + image["width"]
        ]
        assert np.array_equal(box, dataset.pixels(image["id"]))


def test_a_heat_map_colours_the_mask_on_black() -> None:
    dataset = phantom_dataset(8, sections=3, resolution=32.0)
    image_id = dataset.image_ids[1]
    mask = dataset.pixels(image_id, view="expression_mask")
    heat = dataset.pixels(image_id, view="expression")
    assert heat[mask == 0].max() == 0
    assert heat[mask > 0].max(axis=-1).min() > 0
    assert mask.max() > 100


def test_rows_are_json_and_datasets_are_reproducible_and_pickle() -> None:
    dataset = phantom_dataset(8, products=(1, 5), gene=("Gad1", "Prox1"))
    again = phantom_dataset(8, products=(1, 5), gene=("Gad1", "Prox1"))
    assert json.loads(json.dumps(dataset.row)) == dataset.row == again.row
    assert phantom_dataset(8, seed=1).row != phantom_dataset(8).row
    assert [gene["acronym"] for gene in dataset.row["genes"]] == ["Gad1", "Prox1"]
    assert "equalization" in dataset.row
    assert "equalization" not in phantom_dataset(8).row
    twin = pickle.loads(pickle.dumps(dataset))
    image_id = dataset.image_ids[2]
    assert np.array_equal(twin.pixels(image_id, 3), dataset.pixels(image_id, 3))
    bare = phantom_dataset(8, expression=False, gene=())
    assert bare.row["genes"] == []
    assert {image["expression_path"] for image in images_of(bare)} == {None}


def test_columns_are_those_of_recorded_rows(real_data) -> None:
    recorded = json.loads((real_data / "69289763" / "query.json").read_text())["msg"][0]
    made = phantom_dataset(8, "sagittal").row
    assert set(recorded) - {"age"} <= set(made)
    assert set(recorded["section_images"][0]) <= set(made["section_images"][0])
    assert set(recorded["alignment3d"]) <= set(made["alignment3d"])
    assert set(recorded["section_images"][0]["alignment2d"]) <= set(
        made["section_images"][0]["alignment2d"]
    )


def test_altered_rows_leave_the_pixels_alone() -> None:
    dataset = phantom_dataset(8, sections=3, resolution=32.0)
    image_id = dataset.image_ids[0]

    def forget(row: dict) -> None:
        row["section_images"][0]["alignment2d"] = None
        row["section_images"].append(None)

    other = dataset.altered(forget).altered(lambda row: row.pop("alignment3d"))
    assert "alignment3d" not in other.row
    assert other.row["section_images"][0]["alignment2d"] is None
    assert dataset.row["section_images"][0]["alignment2d"] is not None
    assert np.array_equal(other.pixels(image_id), dataset.pixels(image_id))


def test_large_images_are_possible() -> None:
    dataset = phantom_dataset(8, sections=1, image_size=(10000, 7600), resolution=1.05)
    (image_id,) = dataset.image_ids
    assert dataset.image(image_id)["tier_count"] == 7
    assert dataset.pixels(image_id, 5).shape == (237, 312, 3)
    tissue = (dataset.pixels(image_id, 5).min(axis=-1) < 200).mean()
    assert tissue > 0.02


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"plane": "oblique"}, "coronal, sagittal, transverse"),
        ({"sections": 0}, "at least 1"),
        ({"tilt": 60.0}, "below 45"),
        ({"sections": 1, "gaps": 1}, "no room"),
    ],
)
def test_bad_arguments_say_what_would_be_right(options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        phantom_dataset(1, **options)
    with pytest.raises(KeyError, match="no image 5"):
        phantom_dataset(1, sections=1).image(5)
    with pytest.raises(ValueError, match="expression_mask"):
        phantom_dataset(1, sections=1).pixels(1000, view="xray")
