"""The exact p, i, r of every pixel, against the slow twin, after any selection."""

import pickle

import dask.array
import numpy as np
import pytest
import xarray as xr

import atldld
from atldld.testing import AllenServer, oracle, phantom_dataset
from twins import pixels_of_grid

PHANTOMS = {
    "coronal": phantom_dataset(31, plane="coronal", sections=6, tilt=10, resolution=30, seed=1),
    "sagittal": phantom_dataset(32, plane="sagittal", sections=5, tilt=3, resolution=30, seed=2),
}

CHAINS = {
    "all": lambda a: a,
    "one section": lambda a: a.isel(section=2),
    "some": lambda a: a.isel(section=[3, 0], y=slice(30, 4, -3), x=[5, 9, 20]),
    "one row": lambda a: a.isel(y=7),
    "one pixel": lambda a: a.isel(section=1, y=7, x=9),
    "by value": lambda a: a.sel(x=slice(3000, 6000)).isel(channel=0),
    "arithmetic": lambda a: (a.isel(section=slice(1, 4)).astype(float) - 3) * 2,
    "reduced": lambda a: a.mean("channel"),
    "turned": lambda a: a.transpose("channel", "x", "y", "section"),
    "concat": lambda a: xr.concat([a.isel(section=[4]), a.isel(section=[1])], "section"),
    "nowhere": lambda a: a.isel(section=slice(0, 0)),
}


@pytest.fixture(scope="module")
def server():
    with AllenServer(list(PHANTOMS.values())) as running:
        yield running


@pytest.fixture
def opened(server):
    def opened(plane, function="open_dataarray", **options):
        options = {"resolution": 200, "source": server.url, **options}
        return getattr(atldld, function)(PHANTOMS[plane].id, **options)

    return opened


def truth(part, plane, mapping, flipped, slices):
    """Return p, i, r of the pixels of a part by the twin, (3, sections, rows, columns)."""
    phantom = PHANTOMS[plane]
    y, x = (np.atleast_1d(part[name].values) for name in ("y", "x"))
    out = []
    for image_id in np.atleast_1d(part.image_id.values):
        image = phantom.image(int(image_id))
        coordinate = slices[int(image_id)] if mapping == "parallel" else None
        px, py, point = pixels_of_grid(
            phantom.row, image, plane, y, x, mapping, coordinate, flipped
        )
        if mapping == "parallel":
            p, i, r = oracle.image_to_reference(phantom.row, image, px, py)
            point = np.stack([p, i, 11350.0 - r if flipped else r])
        out.append(point)
    return np.stack(out, axis=1) if out else np.zeros((3, 0, len(y), len(x)))


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("chunks", ["auto", None])
@pytest.mark.parametrize("plane", PHANTOMS)
def test_after_any_selection(opened, plane, chunks, chain):
    part = CHAINS[chain](opened(plane, chunks=chunks))
    found = part.atlas.pir()
    dims = tuple(name for name in ("section", "y", "x") if name in part.dims)
    expected = truth(part, plane, "oblique", False, {})
    assert list(found.data_vars) == ["p", "i", "r"]
    for axis, values in zip("pir", expected, strict=True):
        assert found[axis].dims == dims
        assert isinstance(found[axis].data, dask.array.Array)
        assert found[axis].shape == tuple(part.sizes[name] for name in dims)
        computed = found[axis].values
        assert computed.dtype == np.float64
        assert np.abs(computed - values.reshape(computed.shape)).max(initial=0.0) < 1e-6


@pytest.mark.parametrize("mapping", ["oblique", "parallel"])
@pytest.mark.parametrize("space", [9, 10])
@pytest.mark.parametrize("plane", PHANTOMS)
def test_mappings_and_spaces(opened, plane, space, mapping):
    part = opened(plane, "open_dataset", mapping=mapping, reference_space=space)
    flipped = PHANTOMS[plane].row["reference_space_id"] != space
    along = {"coronal": "p", "sagittal": "r"}[plane]
    slices = dict(zip(part.image_id.values.tolist(), part[along].values.tolist(), strict=True))
    expected = truth(part, plane, mapping, flipped, slices)
    found = part.atlas.pir()
    for axis, values in zip("pir", expected, strict=True):
        assert np.abs(found[axis].values - values).max() < 1e-6
    if mapping == "oblique":
        for axis, place in zip({"coronal": "ir", "sagittal": "ip"}[plane], "yx", strict=True):
            assert (found[axis] == part[place]).all()


def test_it_costs_nothing_until_asked(server):
    fine = atldld.open_dataarray(31, resolution=1, chunks={"y": 512, "x": 512}, source=server.url)
    server.reset_log()
    found = fine.atlas.pir()
    assert found.p.shape == (6, 8000, 11400)
    corner = found.isel(section=3, y=slice(0, 2), x=slice(0, 3)).compute()
    assert corner.p.shape == (2, 3)
    assert server.requests == []
    assert dict(found.chunksizes)["y"] == dict(fine.chunksizes)["y"]


IN_MEMORY = {
    "computed": lambda a: a.compute(),
    "loaded": lambda a: a.copy().load(),
    "pickled": lambda a: pickle.loads(pickle.dumps(a.compute())),
    "copied": lambda a: a.compute().copy(deep=True),
    "selected after": lambda a: a.compute().isel(section=[3, 0], y=slice(9, 2, -3)),
    "one of them": lambda a: a.compute().isel(section=2, x=slice(4, 9)),
    "arithmetic": lambda a: (a.isel(section=slice(1, 4)).compute().astype(float) - 3) * 2,
    "concat": lambda a: xr.concat([a[[4]].compute(), a[[1]].compute()], "section"),
    "coarser": lambda a: a.compute().where(a.compute() > 3).transpose("x", "y", "section", ...),
}


@pytest.mark.parametrize("chain", IN_MEMORY)
@pytest.mark.parametrize("plane", PHANTOMS)
def test_values_in_memory_lie_where_they_did(server, opened, plane, chain):
    part = IN_MEMORY[chain](opened(plane))
    assert not part.chunks
    server.reset_log()
    found = part.atlas.pir()
    expected = truth(part, plane, "oblique", False, {})
    for axis, values in zip("pir", expected, strict=True):
        assert np.abs(found[axis].values - values.reshape(found[axis].shape)).max() < 1e-6
    table = part.atlas.geometry()
    assert table.image_id.tolist() == np.atleast_1d(part.image_id).tolist()
    assert server.requests == []


def test_exact_places_beside_sections(opened):
    both = opened("coronal", "open_dataset")
    places = both.atlas.pir()
    with pytest.raises(xr.MergeError):
        xr.merge([both, places], compat="no_conflicts", join="outer")
    merged = xr.merge([both, both.atlas.pir(prefix="exact_")], compat="equals", join="exact")
    for held in (
        merged,
        both.atlas.with_pir(),
        both.image.atlas.with_pir(),
        both.compute().atlas.with_pir(),
    ):
        for axis in "pir":
            assert held[f"exact_{axis}"].dims == ("section", "y", "x")
            np.testing.assert_array_equal(held[f"exact_{axis}"], places[axis])
            np.testing.assert_array_equal(held[axis], both[axis])
        assert list(held.xindexes) == list(both.xindexes)
    one = both.image.atlas.at(p=6600).atlas.with_pir()
    assert one.exact_p.dims == ("y", "x")
    assert isinstance(one.exact_p.data, dask.array.Array)


def test_exact_places_beside_native_pixels_and_voxels(server):
    image = atldld.open_image(PHANTOMS["coronal"].image_ids[1], source=server.url)
    placed = image.atlas.with_pir()
    xr.testing.assert_equal(placed.exact_p.variable, image.atlas.pir().p.variable)
    merged = xr.merge([image.rename("value"), image.atlas.pir("exact_")], join="exact")
    assert merged.exact_r.dims == ("y", "x")
    volume = atldld.open_volume(31, resolution=400, source=server.url)
    placed = volume.atlas.with_pir()
    for axis in "pir":
        assert placed[f"exact_{axis}"].dims == (axis,)
        np.testing.assert_array_equal(placed[f"exact_{axis}"], volume[axis])
    merged = xr.merge([volume, volume.atlas.pir(prefix="exact_")], join="exact")
    assert list(merged.xindexes) == list(volume.xindexes)


def test_objects_without_a_place(opened):
    sections = opened("coronal")
    read = xr.Dataset.from_dict(opened("coronal", "open_dataset").compute().to_dict())
    with pytest.raises(ValueError, match="no sections whose place is known"):
        read.atlas.pir()
    with pytest.raises(ValueError, match="which image_id"):
        sections.mean("section").atlas.pir()
    with pytest.raises(ValueError, match="which x"):
        sections.mean("x").atlas.pir()


@pytest.mark.parametrize("computed", [False, True], ids=["lazy", "in memory"])
def test_places_that_would_be_untrue_are_refused(opened, computed):
    def given(**options):
        found = opened("coronal", resolution=800, masked=True, **options)
        return found.compute() if computed else found

    sections = given()
    numbers = sections.section.values
    for stale, message in (
        (xr.concat([sections[0], sections[3]], "pair"), "lies along 'pair'"),
        (sections.stack(pixel=("section", "y")), "lies along 'pixel'"),
        (sections.interp(section=[(numbers[2] + numbers[3]) / 2]), "do not know"),
        (sections.assign_coords(y=sections.y / 1000), "no longer agree"),
        (sections.assign_coords(image_id=sections.image_id[::-1].variable), "section numbers"),
        (sections.assign_coords(image_id=sections.image_id + 7), "do not know"),
    ):
        with pytest.raises(ValueError, match=message):
            stale.atlas.pir()
    assert sections.atlas.pir().sizes == {"section": 6, "y": 10, "x": 14}


@pytest.mark.parametrize("computed", [False, True], ids=["lazy", "in memory"])
@pytest.mark.parametrize(
    "combine",
    [
        lambda a, b: xr.concat([a[[0]], b[[0]]], "section"),
        lambda a, b: xr.concat([a[0], b[0]], "mapping"),
        lambda a, b: a.isel(section=0) - b.isel(section=0),
        lambda a, b: b - a,
        lambda a, b: a.where(b > 90, b),
    ],
)
def test_what_mixes_two_mappings_lies_nowhere(opened, combine, computed):
    def given(**options):
        found = opened("coronal", resolution=800, masked=True, **options)
        return found.compute() if computed else found

    oblique, parallel = given(), given(mapping="parallel")
    mixed = combine(oblique, parallel)
    with pytest.raises(ValueError, match="two places"):
        mixed.atlas.pir()
    assert given().atlas.pir().sizes == {"section": 6, "y": 10, "x": 14}
