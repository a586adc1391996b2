"""What xarray does with the arrays: the index and the guard come along."""

import numpy as np
import pytest
import xarray as xr

import atldld


@pytest.fixture(params=[None, {"section": 2}], ids=["lazy", "chunked"])
def array(request, opened):
    """Return a masked coronal phantom."""
    return opened("coronal", chunks=request.param, masked=True, resolution=400)


def has_index(array):
    return type(array.xindexes.get("section")).__name__ == "SectionIndex"


def is_guarded(array):
    return type(array.xindexes.get("reference_space")).__name__ == "GuardIndex"


def test_concat_along_section(array):
    joined = xr.concat(
        [array.isel(section=slice(0, 2)), array.isel(section=slice(2, None))], "section"
    )
    xr.testing.assert_identical(joined.compute(), array.compute())
    assert has_index(joined)
    assert is_guarded(joined)
    xr.testing.assert_equal(joined.sel(p=slice(3000, 9000)), array.sel(p=slice(3000, 9000)))


def test_concat_on_a_new_dimension(array):
    joined = xr.concat([array, array + 1], "gene")
    assert joined.sizes["gene"] == 2
    assert has_index(joined)


def test_align_keeps_the_sections_that_both_have(array):
    left, right = xr.align(array.isel(section=[0, 2, 3]), array.isel(section=[3, 2, 5]))
    assert left.image_id.values.tolist() == array.image_id.values[[2, 3]].tolist()
    np.testing.assert_array_equal(left.values, right.values)
    np.testing.assert_array_equal(left.image_id, right.image_id)


def test_outer_align_takes_the_sections_of_both(array):
    left, right = xr.align(array.isel(section=[0, 2]), array.isel(section=[1, 2]), join="outer")
    assert sorted(left.section.values) == sorted(array.section.values[:3])
    assert has_index(left)
    number = int(array.section[1])
    assert np.isnan(left.sel(section=number)).all()
    np.testing.assert_array_equal(right.sel(section=number), array.isel(section=1))


@pytest.mark.parametrize("join", ["exact", "left", "right"])
def test_other_joins(array, join):
    left, right = xr.align(array, array, join=join)
    xr.testing.assert_identical(left.compute(), right.compute())


def test_arithmetic_matches_sections(array):
    difference = array - array.isel(section=[4, 1])
    assert difference.sizes["section"] == 2
    assert np.nanmax(np.abs(difference.values)) == 0


def test_merge_and_assignment(array):
    merged = xr.merge([array.rename("one"), (array * 2).rename("two")])
    assert has_index(merged)
    merged["three"] = array.isel(section=slice(1, 3))
    np.testing.assert_array_equal(merged.three.isel(section=1), array.isel(section=1))
    assert np.isnan(merged.three.isel(section=0)).all()
    assert has_index(merged.assign(four=array))


def test_interp_in_the_plane_and_across_sections(array):
    inside = array.interp(y=[4100.0], x=[5000.0, 5100.0])
    assert has_index(inside)
    assert is_guarded(inside)
    numbers = array.section.values
    between = array.interp(section=[(numbers[2] + numbers[3]) / 2])
    expected = (array.values[2] + array.values[3]) / 2
    np.testing.assert_allclose(between.values[0], expected, rtol=1e-5)
    np.testing.assert_allclose(between.p, array.p.values[2:4].mean())
    assert is_guarded(between)


def test_stack_and_unstack(array):
    stacked = array.stack(point=("y", "x"))
    assert has_index(stacked)
    np.testing.assert_array_equal(stacked.unstack().transpose(*array.dims), array)
    whole = array.stack(point=("section", "y"))
    assert whole.sizes["point"] == array.sizes["section"] * array.sizes["y"]
    assert is_guarded(whole)


def test_groupby(array):
    by_number = array.groupby("section").mean(["y", "x"])
    np.testing.assert_allclose(
        by_number.sortby("section", ascending=False).values, array.mean(["y", "x"]).values
    )
    by_place = array.groupby_bins("p", [0, 6000, 13000]).mean()
    assert by_place.sizes["p_bins"] == 2


def test_where(array):
    bright = array.where(array > 100)
    assert has_index(bright)
    anterior = array.where(array.p < 6000, drop=True)
    assert (anterior.p < 6000).all()
    assert has_index(anterior)


def test_map_blocks_needs_no_index_dropped(opened):
    array = opened("coronal", chunks={"section": 2}, masked=True, resolution=400)
    mapped = array.map_blocks(lambda block: block * 2, template=array)
    xr.testing.assert_equal(mapped.compute(), (array * 2).compute())
    assert has_index(mapped)
    assert is_guarded(mapped)


def test_apply_ufunc_rolling_shift_sort_and_reindex(array):
    doubled = xr.apply_ufunc(
        lambda block: block * 2, array, dask="parallelized", output_dtypes=[array.dtype]
    )
    for changed in (
        doubled,
        array.rolling(section=2).mean(),
        array.shift(section=1),
        array.roll(section=1, roll_coords=True),
        array.sortby("section"),
        array.transpose("x", ...),
        array.astype("float64"),
        array.reindex_like(array.isel(section=[1, 3])),
        array.copy(deep=True),
    ):
        assert has_index(changed)
        assert is_guarded(changed)
    turned = array.sortby("section")
    np.testing.assert_array_equal(
        turned.sel(section=slice(10, 60)).section, np.sort(array.sel(section=slice(10, 60)).section)
    )


def test_guard_outlives_reductions(array):
    for reduced in (array.mean("section"), array.isel(section=0), array.mean(), array.max(["y"])):
        assert is_guarded(reduced)


def test_attributes_are_text_and_numbers(array):
    for value in array.attrs.values():
        assert isinstance(value, str | int | float)
    assert array.attrs["plane"] == "coronal"
    assert array.attrs["dataset_id"] == 101
    assert array.attrs["section_thickness_microns"] == 25.0
    assert array.attrs["atldld_version"] == atldld.__version__
    assert "Lein" in array.attrs["citation"]


def test_units_and_long_names(array):
    for axis in "pir":
        assert array[axis].attrs["units"] == "µm"
        assert axis in array[axis].attrs["long_name"]


def test_a_masked_mean_equals_numpy(opened):
    masked = opened("coronal", masked=True)
    plain = opened("coronal", function=atldld.open_dataset)
    image, covered = plain.image.values, plain.covered.values
    share = covered.sum(axis=0)
    assert ((share > 0) & (share < image.shape[0])).any()
    with np.errstate(invalid="ignore"):
        expected = np.where(covered[..., None], image, 0).sum(axis=0) / share[..., None]
    np.testing.assert_allclose(masked.mean("section").values, expected, rtol=1e-5)
    np.testing.assert_array_equal(np.isnan(masked.values).any(-1), ~covered)


def test_fill_value_by_stain_and_by_wish(opened, server):
    from atldld.testing import AllenServer, phantom_dataset

    corner = {"y": 0, "x": 0, "section": 0}
    assert (opened("coronal").isel(corner).values == 255).all()
    assert (opened("coronal", fill_value=7).isel(corner).values == 7).all()
    both = opened("coronal", function=atldld.open_dataset, include_expression=True)
    assert (both.expression.isel(corner).values == 0).all()
    bright = phantom_dataset(dataset_id=9, sections=3, resolution=60, products=(5,))
    with AllenServer([bright]) as own:
        array = atldld.open_dataarray(9, resolution=200, source=own.url)
        assert (array.isel(corner).values == 0).all()


@pytest.mark.parametrize("chunks", [None, "auto"])
def test_a_dataset_is_interpolated_across_sections_with_its_flags(opened, chunks):
    both = opened(function=atldld.open_dataset, masked=True, include_expression=True, chunks=chunks)
    numbers = both.section.values
    wanted = [0.75 * numbers[1] + 0.25 * numbers[2], 0.25 * numbers[3] + 0.75 * numbers[4]]
    between = both.interp(section=wanted)
    expected = 0.75 * both.image[1] + 0.25 * both.image[2]
    np.testing.assert_allclose(between.image[0], expected, rtol=1e-5)
    assert between.covered.dtype == bool
    np.testing.assert_array_equal(between.covered, both.covered.isel(section=[1, 4]))
    np.testing.assert_array_equal(between.has_expression, both.has_expression[[1, 4]])


@pytest.mark.parametrize("chunks", [None, "auto"])
def test_what_was_opened_can_be_assigned_to(server, opened, phantoms, chunks):
    options = {"source": server.url, "chunks": chunks}
    image = phantoms["coronal"].image_ids[0]
    for array in (
        opened(chunks=chunks),
        opened(function=atldld.open_dataset, chunks=chunks).covered,
        atldld.open_image(image, **options),
        atldld.open_volume(101, resolution=400, **options).image,
    ):
        before = array.compute()
        (dim, *_) = array.dims
        part = array.isel({dim: slice(1, 3)})
        array[{dim: 0}] = 1
        assert (array.isel({dim: 0}) == 1).all()
        np.testing.assert_array_equal(array.isel({dim: slice(1, None)}), before[1:])
        part[{dim: 0}] = 1
        np.testing.assert_array_equal(array.isel({dim: 1}), before[1])
