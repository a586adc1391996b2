"""What is leant on of the private parts of xarray and dask, asked directly: fails first."""

import numpy as np
import pytest
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing
from xarray.core.indexes import PandasIndex
from xarray.structure.alignment import Aligner

from atldld import MixError
from atldld.arrays import internals
from atldld.arrays.index import SectionIndex
from atldld.reading.reader import index_outer


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


class Numbers(BackendArray):
    """A lazy array."""

    def __init__(self, first=0):
        self.first, self.shape, self.dtype = first, (6,), np.dtype(int)

    def __getitem__(self, key):
        return index_outer(key, self.shape, lambda each: self.first + np.arange(6)[each[0]])


def lazy():
    return xr.Variable("x", indexing.LazilyIndexedArray(Numbers()))


def bottom(data):
    return internals.below(data, is_bottom)


def is_bottom(data):
    return isinstance(data, Numbers)


def test_lazy_data_lie_below_layers_of_indexing():
    obj = xr.DataArray(internals.writable(lazy()).isel(x=slice(1, 4)))
    assert internals.is_lazy(obj)
    (data,) = internals.lazy_variables(obj)
    assert isinstance(bottom(data), Numbers)
    instead = internals.replaced(data, lambda each: Numbers(10) if is_bottom(each) else None)
    assert np.asarray(instead).tolist() == [11, 12, 13]
    assert internals.replaced(xr.Variable("x", [1])._data, lambda each: None) is None
    assert not internals.is_lazy(obj.compute())
    assert internals.as_dataset(obj).sizes == {"x": 3}


@pytest.mark.parametrize("optimized", [True, False])
def test_tasks_hold_and_index_lazy_data(optimized):
    chunked = lazy().chunk({"x": 2}, name="numbers", inline_array=False)
    obj = xr.DataArray(chunked)[1:4] + 1
    found = list(internals.indexings(obj, optimized=optimized))
    ours = [(data, index) for data, index in found if bottom(data) is not None]
    indexed = [np.arange(6)[index] for _, index in ours if index is not None]
    expected = [1, 2, 3] if optimized else [0, 1, 2, 3, 4, 5]
    assert sorted(np.concatenate(indexed).tolist()) == expected
    assert list(internals.indexings(obj.compute(), optimized=optimized)) == []


def test_lazy_variables_are_named_by_what_they_hold():
    dataset = internals.named_by_content(
        xr.Dataset({"a": ("x", [1]), "b": internals.writable(lazy())[:1]})
    )
    one, other = (
        dataset.variables["b"].chunk(from_array_kwargs={"name": name}) for name in ("url", "url")
    )
    assert one.data.name == other.data.name
    assert one.data.name.startswith("atldld-")
    assert isinstance(dataset.variables["a"].chunk().data, np.ndarray)
