"""Coverage of everything: the same as volumes, as Allen's own mask, and without a request."""

import numpy as np
import pytest
import xarray as xr

import atldld
from atldld.errors import DatasetNotFoundError
from atldld.testing import AllenServer, SyntheticAtlas, load_recorded, phantom_dataset

ATLAS = SyntheticAtlas(210)
UNREGISTERED = ATLAS.dataset_ids[199]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    with (
        AllenServer(ATLAS) as server,
        atldld.set_options(cache_dir=tmp_path_factory.mktemp("cache")),
    ):
        yield atldld.catalogue(server.url, images=True)
        assert len(server.requests) < 20


def test_it_is_that_of_the_volumes(tables):
    some = [*ATLAS.dataset_ids[:3], UNREGISTERED]
    coverage = atldld.open_coverage(some, source=tables)
    assert coverage.covered.dims == ("dataset", "p", "i", "r")
    assert coverage.covered.dtype == bool
    assert coverage.gene.values.tolist()[:3] == ["Syn0", "Syn0", "Syn1"]
    like = coverage.covered[0].drop_vars(["dataset", "gene", "plane", "specimen"])
    for number in some[:3]:
        volume = atldld.open_volume(
            number, like=like, reference_space=9, max_distance=100, source=tables
        )
        np.testing.assert_array_equal(
            coverage.covered.sel(dataset=number).values, volume.section_number.values >= 0
        )
    assert not coverage.sel(dataset=UNREGISTERED).covered.any()


def test_it_is_allens_own_mask(real):
    with AllenServer([load_recorded(real / "69289763")]) as server:
        coverage = atldld.open_coverage([69289763], reference_space=10, source=server.url)
        covered = coverage.covered[0].values
        missed = coverage.missed[0].values
    energy = atldld.open_grid(real / "69289763" / "energy.mhd", reference_space=10).energy
    truth = energy.notnull().values
    overlap = (covered & truth).sum() / (covered | truth).sum()
    assert overlap == pytest.approx(0.9753, abs=0.002)
    # Sections 94 and 110 are absent: the voxels that only they could show have no data.
    assert missed.sum() > 2000
    assert truth[missed].mean() < 0.08
    # They are bands: next to them there are data.
    beside = np.roll(missed, 1, axis=2) | np.roll(missed, -1, axis=2)
    assert truth[beside & ~missed & covered].mean() > 0.9


@pytest.mark.parametrize("gap", [1, 3])
def test_an_absent_section_is_a_stripe(gap):
    row = phantom_dataset(7, sections=30, gaps=0, section_thickness=100, resolution=32).row
    images = row["section_images"]
    numbers = [image["section_number"] for image in images]
    lost = images[10 : 10 + gap]
    row["section_images"] = images[:10] + images[10 + gap :]
    with AllenServer(row) as server:
        coverage = atldld.open_coverage([7], max_distance=200, source=server.url).compute()
    missed = coverage.missed[0]
    z = np.array(numbers) * 100.0
    before, after = z[9], z[10 + gap]
    if after - before <= 400:
        assert not missed.any()
        return
    places = xr.broadcast(missed.p, missed.i, missed.r)
    alignment = row["alignment3d"]
    depth = (
        sum(alignment[f"trv_{6 + k:02d}"] * place for k, place in enumerate(places))
        + alignment["trv_11"]
    )
    band = (depth > before + 200) & (depth < after - 200)
    assert missed.any()
    assert bool((band | ~missed).all())
    assert len(lost) == gap


def test_it_is_lazy_and_small(tables):
    import pickle

    coverage = atldld.open_coverage(tables)
    assert coverage.sizes["dataset"] == 210
    chunks = coverage.covered.data.npartitions
    graph = len(pickle.dumps(coverage.covered.data.dask))
    assert graph < 20_000 + 200 * 210 + 1500 * chunks


def test_which_datasets_cover_a_structure(tables):
    labels = np.zeros((67, 41, 58), int)
    labels[30:34, 18:22, 40:44] = 8
    axes = {axis: 200.0 * np.arange(n) for axis, n in zip("pir", labels.shape, strict=True)}
    annotation = xr.DataArray(labels, axes, ("p", "i", "r"), attrs={"reference_space": 9})
    found = atldld.covering(8, annotation, tables, spacing=260, share=0.95)
    assert found.covered.is_monotonic_decreasing
    assert (found.covered >= 0.95).all()
    assert (found.spacing <= 260).all()
    assert UNREGISTERED not in set(found.dataset_id)
    coverage = atldld.open_coverage(found, source=tables).covered
    mean = coverage.where(annotation == 8).mean(("p", "i", "r")).values
    np.testing.assert_allclose(mean, found.covered)
    wide = atldld.covering(8, annotation, tables, share=0)
    assert len(wide) == 210
    with pytest.raises(KeyError, match="not in the annotation"):
        atldld.covering(9, annotation, tables)
    with pytest.raises(ValueError, match="share is 3"):
        atldld.covering(8, annotation, tables, share=3)


def test_what_cannot_be_is_refused(tables):
    with pytest.raises(ValueError, match="spacing is 1"):
        atldld.open_coverage(tables, spacing=1)
    with pytest.raises(ValueError, match="reference_space is 4"):
        atldld.open_coverage(tables, reference_space=4)
    with pytest.raises(ValueError, match="max_distance is 0"):
        atldld.open_coverage(tables, max_distance=0)
    with pytest.raises(DatasetNotFoundError, match=r"\[5\]"):
        atldld.open_coverage([5], source=tables)
