"""Two datasets, two planes, two spaces: right, or an error that names both sides."""

import numpy as np
import pytest
import xarray as xr

from atldld import MixError

WAYS = {
    "add": lambda a, b: a + b,
    "in place": lambda a, b: a.__iadd__(b),
    "compare": lambda a, b: a > b,
    "where": lambda a, b: a.where(b > 3),
    "xr.where": lambda a, b: xr.where(a > 1, a, b),
    "align": lambda a, b: xr.align(a, b),
    "align outer": lambda a, b: xr.align(a, b, join="outer"),
    "align left": lambda a, b: xr.align(a, b, join="left"),
    "align exact": lambda a, b: xr.align(a, b, join="exact"),
    "merge": lambda a, b: xr.merge(
        [a.rename("a"), b.rename("b")], join="outer", compat="no_conflicts"
    ),
    "concat": lambda a, b: xr.concat([a, b], "gene", join="outer"),
    "combine_first": lambda a, b: a.combine_first(b),
    "broadcast": lambda a, b: xr.broadcast(a, b),
    "dot": lambda a, b: xr.dot(a, b),
    "apply_ufunc": lambda a, b: xr.apply_ufunc(np.add, a, b, dask="allowed"),
    "datasets": lambda a, b: a.to_dataset(name="v") - b.to_dataset(name="v"),
    "reindex_like": lambda a, b: a.reindex_like(b),
}


@pytest.fixture(params=["chunked", pytest.param("computed", marks=pytest.mark.exhaustive)])
def pair(request, opened):
    """Return a function that opens two phantoms, lazily or computed."""

    def pair(first, second, **options):
        arrays = [opened(name, resolution=1000, **options) for name in (first, second)]
        return arrays if request.param == "chunked" else [array.compute() for array in arrays]

    return pair


@pytest.mark.parametrize("way", WAYS)
def test_sections_of_two_datasets_do_not_mix(pair, way):
    first, second = pair("coronal", "other coronal", masked=True)
    with pytest.raises(MixError, match=r"(?=.*dataset 101)(?=.*dataset 104).*Select one section"):
        WAYS[way](first, second)


@pytest.mark.parametrize("reduce", ["before", "mean", "one section"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("coronal", "sagittal"),
        ("coronal", "transverse"),
        ("sagittal", "sagittal in space 9"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_planes_and_spaces_do_not_mix(pair, way, first, second, reduce):
    arrays = pair(first, second, masked=True)
    if reduce == "mean":
        arrays = [array.mean("section", keep_attrs=True) for array in arrays]
    elif reduce == "one section":
        arrays = [array.isel(section=0) for array in arrays]
    with pytest.raises((MixError, xr.AlignmentError)) as caught:
        WAYS[way](*arrays)
    if reduce != "before":
        assert caught.type is MixError
        assert "cannot be combined" in str(caught.value)


def test_concat_along_section_does_not_mix(pair):
    with pytest.raises(MixError):
        xr.concat(pair("coronal", "other coronal"), "section")
    with pytest.raises(MixError):
        xr.combine_nested(pair("coronal", "other coronal"), "section")


def test_one_dataset_with_two_rules_for_the_slice_coordinate_does_not_mix(opened):
    even = opened("coronal", resolution=1000)
    corner = opened("coronal", resolution=1000, detection_xy=(0, 0))
    with pytest.raises(MixError, match="detection_xy"):
        even + corner


def test_the_two_spaces_of_one_dataset_do_not_mix(opened):
    native = opened("sagittal", resolution=1000)
    turned = opened("sagittal", resolution=1000, reference_space=9)
    with pytest.raises((MixError, xr.AlignmentError)):
        native + turned
    with pytest.raises(MixError, match="L/R Flipped"):
        native.mean("section") + turned.mean("section")


def test_what_belongs_together_combines(opened):
    first = opened("coronal", resolution=1000, masked=True)
    second = opened("other coronal", resolution=1000, masked=True)
    difference = first.mean("section") - second.mean("section")
    assert difference.notnull().any()
    assert (first - first.isel(section=0)).notnull().any()
    genes = xr.concat([first.mean("section"), second.mean("section")], "gene")
    assert genes.sizes["gene"] == 2


def test_sections_of_two_datasets_one_by_one(opened):
    first = opened("coronal", resolution=1000, masked=True).isel(section=2)
    second = opened("other coronal", resolution=1000, masked=True).isel(section=2)
    assert (first - second).notnull().any()


class TestWhatTheGuardsDoNotSurvive:
    """xarray does not ask an index there; these tests say so if that changes."""

    def test_override(self, opened):
        first, second = opened("coronal", resolution=1000), opened("other coronal", resolution=1000)
        xr.align(first, second, join="override")

    def test_files(self, opened, tmp_path):
        opened("coronal", resolution=1000).to_zarr(tmp_path / "a.zarr", consolidated=False)
        back = xr.open_dataarray(tmp_path / "a.zarr", engine="zarr", consolidated=False)
        assert "reference_space" not in back.xindexes
        assert int(back.reference_space) == 9

    def test_stacked_sections_coarsen_quantile_and_interp_across_sections(self, opened):
        first, second = (
            opened(name, resolution=1000).astype("float32").compute()
            for name in ("coronal", "other coronal")
        )
        for way in (
            lambda array: array.stack(point=("section", "y")),
            lambda array: array.coarsen(section=2).mean(),
            lambda array: array.quantile(0.5, "section"),
            lambda array: array.interp(section=array.section.values[1:3].astype(float)),
        ):
            way(first) + way(second)
