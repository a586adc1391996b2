"""Where sections lie, as a picture: against the service's own arithmetic, from matrices alone."""

import numpy as np
import pytest

import atldld
from atldld.plot.footprints import missing_between
from atldld.testing import AllenServer, phantom_dataset

VIEWS = {0: (2, 1), 1: (0, 1), 2: (2, 0)}
"""For each panel, which of p, i, r run to the right and down."""


def polygons(axes, gid):
    (found,) = [each for each in axes.collections if each.get_gid() == gid]
    return [path.vertices[:4] for path in found.get_paths()]


@pytest.mark.parametrize("plane", ["coronal", "sagittal", "transverse"])
def test_lines_are_the_borders_of_the_images(opened, phantoms, server, plane):
    server.reset_log()
    figure = atldld.plot.placement(phantoms[plane].id, source=server.url)
    assert server.image_requests == []
    images = sorted(
        phantoms[plane].row["section_images"], key=lambda image: image["section_number"]
    )
    for panel, (right, down) in VIEWS.items():
        axes = figure.axes[panel]
        found = polygons(axes, "sections")
        assert len(found) == len(images)
        for image, ring in zip(images, found, strict=True):
            x = np.array([0, 1, 1, 0]) * (image["width"] - 1)
            y = np.array([0, 0, 1, 1]) * (image["height"] - 1)
            true = phantoms[plane].pir(image["id"], x, y)
            assert ring[:, 0] == pytest.approx(true[right], abs=0.5)
            assert ring[:, 1] == pytest.approx(true[down], abs=0.5)
        assert axes.get_ylim()[0] > axes.get_ylim()[1]
        assert axes.get_xlim()[0] < axes.get_xlim()[1]
        assert axes.get_aspect() == 1
        (frame,) = [patch for patch in axes.patches if patch.get_gid() == "space"]
        extent = (13200, 8000, 11400)
        assert frame.get_bbox().extents.tolist() == [0, 0, extent[right], extent[down]]
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes]
    assert labels == [
        ("left ← r [µm] → right", "ventral ← i [µm] → dorsal"),
        ("anterior ← p [µm] → posterior", "ventral ← i [µm] → dorsal"),
        ("left ← r [µm] → right", "posterior ← p [µm] → anterior"),
    ]


@pytest.mark.parametrize("plane", ["coronal", "sagittal", "transverse"])
def test_missing_numbers_are_marked_where_they_would_lie(opened, plane):
    sections = opened(plane)
    numbers = np.sort(sections.section.values)
    step = np.diff(numbers).min()
    lacking = sorted(set(range(numbers[0], numbers[-1], step)) - set(numbers.tolist()))
    assert len(lacking) == 2
    figure = atldld.plot.placement(sections.isel(section=slice(None, None, -1)))
    along = {"coronal": 0, "sagittal": 2, "transverse": 1}[plane]
    panel, side = next((panel, pair.index(along)) for panel, pair in VIEWS.items() if along in pair)
    there = np.array([ring[:, side].mean() for ring in polygons(figure.axes[panel], "sections")])
    marked = [ring[:, side].mean() for ring in polygons(figure.axes[panel], "missing")]
    for number, place in zip(lacking, marked, strict=True):
        assert place == pytest.approx(np.interp(number, numbers, there), abs=1)
    assert "2 missing" in figure.get_suptitle()


def test_the_title_tells_what_the_geometry_tells(opened):
    sections = opened("sagittal")
    table = sections.atlas.geometry()
    title = atldld.plot.placement(sections).get_suptitle()
    assert title == (
        f"Phantom1 (302): 8 sections, tilt {table.tilt.mean():.1f}°, "
        f"{table.after.median():.0f} µm apart, at most {table.after.max():.0f} µm, 2 missing"
    )


def test_a_flip_of_the_space_shows(opened):
    ten, nine = opened("sagittal"), opened("sagittal", reference_space=9)
    rings = [polygons(atldld.plot.placement(each).axes[0], "sections") for each in (ten, nine)]
    for one, other in zip(*rings, strict=True):
        assert one[:, 0] == pytest.approx(11350 - other[:, 0], abs=1e-6)
        assert one[:, 1] == pytest.approx(other[:, 1], abs=1e-6)


def test_sections_and_parts_of_them(opened, server):
    dataset = opened("coronal", atldld.open_dataset)
    assert len(polygons(atldld.plot.placement(dataset).axes[0], "sections")) == 9
    one = dataset.image.isel(section=4)
    assert atldld.plot.placement(one).get_suptitle().startswith("Phantom1 (301): 1 section, tilt")
    lazy, loaded = (
        polygons(atldld.plot.placement(each).axes[0], "sections") for each in (one, one.compute())
    )
    np.testing.assert_array_equal(lazy, loaded)
    bare = one.compute().drop_vars("reference_space")
    with pytest.raises(ValueError, match=r"lost|place is known"):
        atldld.plot.placement(bare)
    with pytest.raises(TypeError, match="dataset_id"):
        atldld.plot.placement("x", source=server.url)
    with pytest.raises(atldld.DatasetNotFoundError):
        atldld.plot.placement(77, source=server.url)


def test_missing_between_counts_by_the_usual_step():
    assert missing_between(np.array([0, 2, 4, 5, 7, 13]))[0].tolist() == [9, 11]
    assert missing_between(np.array([3]))[0].tolist() == []
    assert missing_between(np.array([3, 3, 3]))[0].tolist() == []


def test_spaces_whose_extent_is_not_known_have_no_frame():
    developing = phantom_dataset(dataset_id=9, sections=3, resolution=60)
    row = {**developing.row, "reference_space_id": 5}
    with AllenServer([row]) as server:
        figure = atldld.plot.placement(9, source=server.url)
        assert not figure.axes[0].patches
