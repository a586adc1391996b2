"""What is leant on of the private parts of xarray and dask, asked directly: fails first."""

import numpy as np
import pytest
import xarray as xr
from xarray.core.indexes import PandasIndex
from xarray.structure.alignment import Aligner

from atldld.arrays.index import MixError, SectionIndex


def numbered(numbers, stack="one"):
    index = SectionIndex(numbers, np.add(numbers, 1000), stack)
    coords = xr.Coordinates({"section": ("section", numbers)}, indexes={"section": index})
    return xr.DataArray(np.arange(len(numbers)), coords, ("section",))


def test_alignment_tells_indexes_apart_by_name_dimensions_and_class():
    ours = numbered([3, 5, 9])
    aligner = Aligner((ours,), indexes={"section": [4, 8]})
    (key,) = aligner.indexes
    assert key == ((("section", ("section",)),), PandasIndex)
    (own,) = aligner._collect_indexes(ours.xindexes)[0]
    assert own == key
    assert type(ours.xindexes["section"]) is SectionIndex


def test_plain_labels_are_matched_by_being_near_and_not_by_accident():
    ours = numbered([3, 5, 9])
    near = ours.reindex(section=[4.4, 8], method="nearest")
    assert near.values.tolist() == [1, 2]
    plain = xr.DataArray([1, 2], {"section": [3, 5]}, ("section",))
    for combine in (
        lambda: ours.reindex(section=[3, 5]),
        lambda: xr.align(ours, plain, join="inner"),
        lambda: xr.align(plain, ours, join="outer"),
        lambda: ours.reindex_like(plain),
        lambda: plain.reindex_like(ours),
    ):
        with pytest.raises(MixError, match=r"Use sel\(section=\.\.\.\)"):
            combine()
