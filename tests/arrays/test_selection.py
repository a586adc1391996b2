"""Selecting by every coordinate, by value, nearest and slice, on every kind of array."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import atldld
from usual import usual

PLANES = {
    "coronal": ("p", "i", "r"),
    "sagittal": ("r", "i", "p"),
    "transverse": ("i", "p", "r"),
}


@pytest.fixture(params=["lazy", "chunked", "zarr", "netcdf", "h5netcdf"])
def kept(request, opened, tmp_path):
    """Return a function that opens a phantom, or brings it back from a file."""

    def kept(plane):
        chunks = None if request.param == "lazy" else "auto"
        array = opened(plane, chunks=chunks)
        if request.param == "zarr":
            array.to_zarr(tmp_path / "sections.zarr", consolidated=False)
            return xr.open_dataarray(
                tmp_path / "sections.zarr", engine="zarr", chunks={}, consolidated=False
            )
        if request.param in ("netcdf", "h5netcdf"):
            engine = {"netcdf": "netcdf4"}.get(request.param, request.param)
            path = tmp_path / "sections.nc"
            array.to_netcdf(path, engine=engine)
            with xr.open_dataarray(path, engine=engine) as back:
                return back.load()
        return array

    return kept


@pytest.mark.parametrize("plane", PLANES)
def test_by_every_coordinate(kept, plane):
    array = kept(plane)
    whole = array.compute()
    along, rows, columns = PLANES[plane]
    numbers, places = array.section.values, array[along].values
    for position in range(len(numbers)):
        expected = whole.values[position]
        for chosen in (
            array.sel(section=numbers[position]),
            array.sel({along: places[position]}),
            array.sel({along: places[position] + 0.3}, method="nearest"),
            array.sel({along: places[position] + 0.3}, method="nearest", tolerance=1),
            array.sel(image_id=int(array.image_id[position])),
        ):
            np.testing.assert_array_equal(chosen.values, expected)
            assert int(chosen.section) == numbers[position]
    low, high = sorted(places)[1], sorted(places)[-2]
    inside = (places >= low) & (places <= high)
    np.testing.assert_array_equal(array.sel({along: slice(low, high)}).values, whole.values[inside])
    for dim, axis in (("y", rows), ("x", columns)):
        take = slice(3, 12)
        for name in (dim, axis):
            part = array.sel({name: slice(600, 2200)})
            np.testing.assert_array_equal(
                part.values, whole.isel({dim: take}).values, err_msg=f"{name} slice"
            )
            np.testing.assert_array_equal(
                array.sel({name: 1400}).values, whole.isel({dim: 7}).values
            )
            np.testing.assert_array_equal(
                array.sel({name: 1488}, method="nearest").values, whole.isel({dim: 7}).values
            )
            with pytest.raises(KeyError):
                array.sel({name: 1488})
    with pytest.raises(KeyError):
        array.sel({along: places[0] + 0.3})
    with pytest.raises(KeyError):
        array.sel({along: places[-1] + 900}, method="nearest", tolerance=100)


@pytest.mark.parametrize("plane", PLANES)
def test_section_is_the_number_never_the_position(opened, plane):
    array = opened(plane)
    numbers = array.section.values
    absent = next(n for n in range(int(numbers.max())) if n not in numbers)
    with pytest.raises(KeyError, match="the nearest is at"):
        array.sel(section=absent)
    low, high = np.sort(numbers)[1], np.sort(numbers)[-2]
    part = array.sel(section=slice(low, high))
    assert sorted(part.section.values) == np.sort(numbers)[1:-1].tolist()
    assert array.sel(section=slice(10**6, None)).sizes["section"] == 0


def test_slices_of_coronal_numbers_are_not_empty_although_they_descend(opened):
    array = opened("coronal")
    assert array.section.values[0] > array.section.values[-1]  # p ascends, numbers descend
    assert (np.diff(array.p) > 0).all()
    assert array.sel(section=slice(0, 10**6)).sizes["section"] == array.sizes["section"]
    assert array.sel(section=slice(10**6, 0)).sizes["section"] == array.sizes["section"]


def test_two_images_with_one_number_are_told_apart(server, phantoms):
    phantom = phantoms["coronal"]
    row = dict(phantom.row)
    images = [dict(image) for image in row["section_images"]]
    images[3]["section_number"] = images[2]["section_number"]
    row.update(id=4001, section_images=[{**image, "data_set_id": 4001} for image in images])
    from atldld.testing import AllenServer

    with AllenServer([row]) as own:
        array = atldld.open_dataarray(4001, resolution=500, source=own.url)
    assert (np.diff(array.p) > 0).all()
    both = array.sel(section=images[2]["section_number"])
    assert sorted(both.image_id.values) == sorted([images[2]["id"], images[3]["id"]])
    one = array.sel(p=float(both.p[1]), method="nearest")
    assert int(one.image_id) == int(both.image_id[1])


def indexers(length):
    whole = st.integers(-length, length - 1)
    step = st.sampled_from([None, 1, 2, 3, -1, -2])
    # Beyond -length, dask and xarray disagree with numpy about slices with a negative step.
    ends = st.none() | st.integers(-length, length + 2)
    return st.one_of(
        whole,
        st.builds(slice, ends, ends, step),
        st.lists(whole, max_size=5).map(lambda places: np.array(places, dtype=int)),
        st.lists(st.booleans(), min_size=length, max_size=length).map(np.array),
    )


@pytest.mark.parametrize("masked", usual([False, True]))
def test_random_indexers_give_what_numpy_gives(opened, masked):
    arrays = [
        opened("coronal", chunks=None, masked=masked),
        opened("coronal", chunks={"section": 2, "y": 17, "x": 30}, masked=masked),
    ]
    whole = arrays[0].compute()
    sizes = tuple(whole.sizes[dim] for dim in whole.dims)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.tuples(*map(indexers, sizes)), st.integers(0, 3))
    def check(key, dims):
        chosen = dict(zip(whole.dims[dims:], key[dims:], strict=True))
        outer = np.ix_(
            *(
                np.atleast_1d(np.arange(size)[chosen.get(dim, slice(None))])
                for dim, size in zip(whole.dims, sizes, strict=True)
            )
        )
        expected = whole.values[outer]
        dropped = tuple(
            axis
            for axis, dim in enumerate(whole.dims)
            if np.ndim(chosen.get(dim, slice(None))) == 0
            and not isinstance(chosen.get(dim, slice(None)), slice)
        )
        expected = np.squeeze(expected, axis=dropped)
        for array in arrays:
            np.testing.assert_array_equal(array.isel(chosen).values, expected)

    check()


def test_chained_selections_give_what_numpy_gives(opened):
    lazy = opened("sagittal", chunks=None)
    chunked = opened("sagittal", chunks={"section": 2})
    whole = lazy.compute()
    for array in (lazy, chunked):
        chosen = array.isel(section=[3, 0, 3], y=slice(30, 2, -3)).isel(section=slice(1, None))
        chosen = chosen.isel(y=[0, 4, 4], x=slice(None, None, 5)).isel(channel=1)
        expected = whole.values[[0, 3]][:, np.arange(40)[30:2:-3][[0, 4, 4]]][:, :, ::5, 1]
        np.testing.assert_array_equal(chosen.values, expected)


def test_vectorised_selection_along_a_path(opened):
    lazy = opened("coronal", chunks=None)
    path = xr.DataArray([5, 9, 20], dims="path")
    chosen = lazy.isel(y=path, x=path)
    whole = lazy.compute().isel(y=path, x=path)
    np.testing.assert_array_equal(chosen.values, whole.values)


class TestAt:
    @pytest.mark.parametrize("plane", PLANES)
    def test_nearest_section_and_slices(self, opened, plane):
        array = opened(plane)
        along, rows, _ = PLANES[plane]
        place = float(array[along][2])
        section = array.atlas.at(**{along: place + 3, rows: slice(1000, 1800)})
        assert int(section.section) == int(array.section[2])
        assert section[rows].values.tolist() == [1000, 1200, 1400, 1600, 1800]

    def test_far_from_any_section_is_an_error_that_says_what_there_is(self, opened):
        array = opened("sagittal")
        with pytest.raises(KeyError, match=r"the nearest is at .* there are 5 from"):
            array.atlas.at(r=9000)

    def test_wrong_axes(self, opened):
        array = opened("sagittal")
        with pytest.raises(ValueError, match="use p, i or r"):
            array.atlas.at(z=3)
        with pytest.raises(ValueError, match="already selected or lost"):
            array.isel(section=0).atlas.at(r=3000)
        with pytest.raises(ValueError, match="before it starts"):
            array.atlas.at(r=slice(3000, 2000))


class TestFarAndEmpty:
    def test_a_lone_section_is_not_taken_from_afar(self, opened):
        whole = opened("sagittal")
        r = whole.r.values
        lone = whole.isel(section=[2])
        gap = max(r[3] - r[2], r[2] - r[1])
        for array in (lone, lone.compute()):
            assert array.atlas.at(r=r[2] + 0.49 * gap).r == r[2]
            with pytest.raises(KeyError, match=r"\(half a gap\) off; there is one"):
                array.atlas.at(r=r[2] + 0.51 * gap)
            with pytest.raises(KeyError, match="half a gap"):
                array.atlas.at(r=r[2] - 10000)

    def test_nor_is_a_lone_row(self, opened):
        row = opened("sagittal").isel(y=[20])
        assert row.atlas.at(i=4099).i == 4000
        with pytest.raises(KeyError, match="more than 100 microns"):
            row.atlas.at(i=4101)

    @pytest.mark.parametrize("place", [slice(9000, 9900), slice(None, -1), slice(4001, 4002)])
    def test_a_slice_that_holds_nothing_is_refused(self, opened, place):
        with pytest.raises(KeyError, match=r"holds nothing; there are \d+ from"):
            opened("sagittal").atlas.at(i=place)
        with pytest.raises(KeyError, match="holds nothing"):
            opened("sagittal").atlas.at(r=slice(10000, 11000))
