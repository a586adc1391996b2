"""The sections as columns: order, ties, and a table that travels small and whole."""

import pickle
from dataclasses import fields

import numpy as np
import pytest

from atldld.model.dataset import SectionDataset
from atldld.model.sections import tabulate
from atldld.testing import phantom_dataset


@pytest.mark.parametrize("mapping", ["oblique", "parallel"])
@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("slides", [False, True])
def test_a_pickled_table_is_the_same(mapping, count, slides):
    phantom = phantom_dataset(1, sections=count, resolution=40, slides=slides)
    table = tabulate(SectionDataset.from_rows(phantom.row), mapping=mapping)
    for each in (table, table.take(np.arange(0))):
        again = pickle.loads(pickle.dumps(each))
        for field in fields(table):
            column, other = getattr(each, field.name), getattr(again, field.name)
            assert column.dtype == other.dtype
            assert column.shape == other.shape
            np.testing.assert_array_equal(column, other)


def test_sections_ascend_by_slice_coordinate_and_ties_by_image_id():
    phantom = phantom_dataset(1, sections=6, resolution=40)
    row = dict(phantom.row)
    images = [dict(image) for image in row["section_images"]]
    images[4]["section_number"] = images[1]["section_number"]
    row["section_images"] = images[::-1]
    table = tabulate(SectionDataset.from_rows(row))
    assert (np.diff(table.slice_coordinate) > 0).all()
    alike = table.image_id[table.section_number == images[1]["section_number"]]
    assert alike.tolist() == sorted([images[1]["id"], images[4]["id"]])
    close = np.diff(table.slice_coordinate).min()
    assert 0 < close < 1e-9
