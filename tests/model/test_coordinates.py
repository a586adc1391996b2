"""The exact place of every grid point, against the slow twin and the recorded service."""

import json

import numpy as np
import pytest

from atldld.model.affine import points_of
from atldld.model.dataset import SectionDataset
from atldld.model.sections import tabulate
from atldld.model.space import FLIP_R
from atldld.testing import oracle, phantom_dataset
from twins import matrix, pixels_of_grid

ROWS = np.arange(0.0, 8000.0, 730.0)
COLUMNS = np.arange(0.0, 11000.0, 910.0)


def twin(row, image, plane, mapping, slice_coordinate, flipped):
    px, py, point = pixels_of_grid(
        row, image, plane, ROWS, COLUMNS, mapping, slice_coordinate, flipped
    )
    if mapping == "oblique":
        return point
    p, i, r = oracle.image_to_reference(row, image, px, py)
    return np.stack([p, i, FLIP_R - r if flipped else r])


def hold(row, mapping, flipped):
    dataset = SectionDataset.from_rows(row)
    table = tabulate(dataset, mapping=mapping, flip=flipped)
    images = {image["id"]: image for image in row["section_images"]}
    got = np.stack(
        points_of(table.points[:, None, None], COLUMNS[None, None, :], ROWS[None, :, None]), axis=1
    )
    assert got.shape == (len(table), 3, len(ROWS), len(COLUMNS))
    for place, image_id in enumerate(table.image_id):
        coordinate = float(table.slice_coordinate[place]) if mapping == "parallel" else None
        truth = twin(row, images[int(image_id)], dataset.plane.name, mapping, coordinate, flipped)
        assert np.abs(got[place] - truth).max() < 1e-6


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("mapping", ["oblique", "parallel"])
@pytest.mark.parametrize("plane", ["coronal", "sagittal", "transverse"])
@pytest.mark.parametrize("tilt", [1, 20])
def test_every_point_is_the_twins(plane, mapping, flipped, tilt):
    phantom = phantom_dataset(5, plane=plane, tilt=tilt, sections=4, seed=tilt)
    hold(phantom.row, mapping, flipped)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("mapping", ["oblique", "parallel"])
def test_every_point_of_the_recorded_dataset(real, mapping, flipped):
    hold(json.loads((real / "69289763" / "query.json").read_text())["msg"][0], mapping, flipped)


@pytest.mark.parametrize("mapping", ["oblique", "parallel"])
def test_a_point_lies_on_its_section(mapping):
    """The depth in the stack of every point is that of the section, whatever the mapping."""
    phantom = phantom_dataset(5, tilt=10, sections=3)
    table = tabulate(SectionDataset.from_rows(phantom.row), mapping=mapping)
    p, i, r = points_of(table.points[:, None, None], COLUMNS, ROWS[:, None])
    trv = matrix(phantom.row["alignment3d"], "trv")
    depth = trv[2, 0] * p + trv[2, 1] * i + trv[2, 2] * r + trv[2, 3]
    z = table.section_number * phantom.row["section_thickness"]
    # The stored inverses have six significant digits.
    assert np.abs(depth - z[:, None, None]).max() < (1e-6 if mapping == "oblique" else 1.0)
