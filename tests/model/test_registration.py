"""Planes of another registration in the place of Allen's, in plain arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atldld.errors import AtldldWarning, RegistrationError
from atldld.model.affine import points_of
from atldld.model.anchoring import Target, anchoring_of, corners_of
from atldld.model.dataset import SectionDataset
from atldld.model.geometry import pixel_points
from atldld.model.registration import Named, Placement, Registration, register
from atldld.model.sections import tabulate
from atldld.model.space import PLANES
from atldld.testing import load_recorded, phantom_dataset

PHANTOM = phantom_dataset(dataset_id=77, plane="coronal", sections=4, resolution=30, seed=3)
RECORD = SectionDataset.from_rows(PHANTOM.row)
TABLE = tabulate(RECORD)


def placement(image_id, corners, size=None):
    rows = tuple(tuple(float(value) for value in row) for row in corners)
    return Placement(f"image {image_id}", Named(numbers=(image_id,)), None, size, rows)


def registered(placements, mapping="oblique", detection_xy=None, table=TABLE, plane="coronal"):
    registration = Registration("mine", "0" * 64, "CCFv3", "CCFv3", tuple(placements))
    return register(
        table,
        registration,
        dataset_id=77,
        plane=PLANES[plane],
        mapping=mapping,
        detection_xy=detection_xy,
    )


number = st.floats(-1.0, 1.0)


@st.composite
def coronal_corners(draw):
    """Return the corners of a picture that lies about coronally, tilted either way."""
    tilts = np.array(
        [
            [0.6 * draw(number), 0.2 * draw(number), 1.0],
            [0.6 * draw(number), 1.0, 0.2 * draw(number)],
        ]
    )
    middle = [6000 + 3000 * draw(number), 500 * draw(number), 500 * draw(number)]
    return np.array([middle, tilts[0] * 9000 * 0.5, tilts[1] * 7000 * 0.5])


@given(coronal_corners(), st.floats(0, 1), st.floats(0, 1))
def test_places_of_the_grid_lie_on_the_plane_and_show_their_pixel(corners, across, down):
    image_id = int(TABLE.image_id[1])
    with pytest.warns(AtldldWarning, match="does not place them"):
        table = registered([placement(image_id, corners)])
    p, i, r = corners[0] + across * corners[1] + down * corners[2]
    x, y = table.affine[0] @ (r, i, 1.0)
    # Edge to edge: the first pixel's middle is half a pixel in.
    width, height = TABLE.width[1], TABLE.height[1]
    np.testing.assert_allclose([x, y], [across * width - 0.5, down * height - 0.5], atol=1e-6)
    found = points_of(table.points[0], r, i)
    np.testing.assert_allclose(found, (p, i, r), atol=1e-6)


@given(coronal_corners(), st.floats(-4000, 4000), st.floats(-4000, 4000))
def test_parallel_takes_the_foot_of_the_perpendicular(corners, right, below):
    image_id = int(TABLE.image_id[1])
    with pytest.warns(AtldldWarning):
        table = registered([placement(image_id, corners)], "parallel")
    place = np.array([table.slice_coordinate[0], below, right])
    foot = np.array(points_of(table.points[0], right, below))
    np.testing.assert_allclose(np.dot(foot - place, corners[1]) / 1e7, 0, atol=1e-6)
    np.testing.assert_allclose(np.dot(foot - place, corners[2]) / 1e7, 0, atol=1e-6)
    normal = np.cross(corners[1], corners[2])
    np.testing.assert_allclose(
        np.dot(foot - corners[0], normal) / np.linalg.norm(normal), 0, atol=1e-5
    )


@given(coronal_corners(), st.sampled_from([10.0, 25.0, 50.0]))
def test_anchorings_turn_back_into_corners(corners, microns):
    target = Target.named(f"ABA_Mouse_CCFv3_2017_{microns:.0f}um.cutlas")
    np.testing.assert_allclose(
        corners_of(anchoring_of(corners, target), target), corners, atol=1e-8
    )


def test_the_axes_of_the_atlas():
    target = Target.named("ABA_Mouse_CCFv3_2017_25um.cutlas")
    assert target.shape == (456, 528, 320)
    # The first voxel is the left, posterior, inferior one; its outer corner is that of the space.
    affine = target.to_pir()
    np.testing.assert_array_equal(affine @ (0, 0, 0, 1), (13200, 8000, 0))
    np.testing.assert_array_equal(affine @ (456, 528, 320, 1), (0, 0, 11400))
    # The middle of voxel (10, 20, 30) is that of voxel (507, 289, 10) of p, i, r.
    np.testing.assert_array_equal(
        affine @ (10.5, 20.5, 30.5, 1), 25 * np.array([507.5, 289.5, 10.5])
    )


def test_sections_come_in_order_of_their_new_place():
    corners = np.array([[0.0, 0, 0], [0, 0, 11400], [0, 8000, 0]])
    placements = [
        placement(image_id, corners + np.array([[5000 - 100 * n, 0, 0], [0, 0, 0], [0, 0, 0]]))
        for n, image_id in enumerate(TABLE.image_id.tolist())
    ]
    table = registered(placements)
    assert table.slice_coordinate.tolist() == [4700, 4800, 4900, 5000]
    assert table.image_id.tolist() == TABLE.image_id.tolist()[::-1]
    np.testing.assert_allclose(
        table.microns_per_pixel,
        np.maximum(11400 / TABLE.width, 8000 / TABLE.height)[::-1],
    )


def test_pictures_of_a_tier_have_its_pixels():
    image = 2
    width, height = int(TABLE.width[image]), int(TABLE.height[image])
    tier = 1
    size = (width >> tier, height >> tier)
    corners = np.array([[5000.0, 0, 0], [0, 0, 100.0 * size[0]], [0, 100.0 * size[1], 0]])
    with pytest.warns(AtldldWarning):
        table = registered([placement(int(TABLE.image_id[image]), corners, size)])
    # Pixel k of the tier is centred at (k + 0.5) * 100 microns, and on pixel 2 k of the image.
    assert TABLE.x[image] == TABLE.y[image] == 0
    np.testing.assert_allclose(table.affine[0] @ (750.0, 350.0, 1.0), (14, 6), atol=1e-9)


def test_planes_that_are_none_are_refused():
    image_id = int(TABLE.image_id[0])
    for corners in (
        [[0, 0, 0], [0, 0, 1e4], [0, 0, 8e3]],
        [[0, 0, 0], [0, 0, 0], [0, 8e3, 0]],
        [[np.nan, 0, 0], [0, 0, 1e4], [0, 8e3, 0]],
    ):
        with pytest.raises(RegistrationError, match="is no plane"):
            registered([placement(image_id, corners)])
    with pytest.raises(RegistrationError, match="across i, but the sections are coronal"):
        registered([placement(image_id, [[0, 4e3, 0], [0, 0, 1e4], [1e4, 0, 0]])])


def test_real_sections_come_back_as_they_were(real):
    record = SectionDataset.from_rows(load_recorded(real / "69289763").rows[0])
    table = tabulate(record)
    target = Target.named("ABA_Mouse_CCFv3_2017_25um.cutlas")
    placements = []
    for image_id, width, height, affine in zip(
        table.image_id.tolist(), table.width, table.height, pixel_points(table), strict=True
    ):
        corners = np.stack([affine @ (-0.5, -0.5, 1), affine[:, 0] * width, affine[:, 1] * height])
        placements.append(placement(image_id, corners_of(anchoring_of(corners, target), target)))
    again = registered(placements, table=table, plane="sagittal")
    np.testing.assert_array_equal(again.image_id, table.image_id)
    # 1e-9 of the extent: what is left is rounding.
    np.testing.assert_allclose(again.slice_coordinate, table.slice_coordinate, atol=1e-6)
    np.testing.assert_allclose(again.points, table.points, atol=1e-6)
    np.testing.assert_allclose(again.affine, table.affine, atol=1e-6)
    np.testing.assert_allclose(again.microns_per_pixel, table.microns_per_pixel, rtol=1e-3)
