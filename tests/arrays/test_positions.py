"""The exact p, i, r of every pixel, against the slow twin, after any selection."""

import dask.array
import numpy as np
import pytest
import xarray as xr

from atldld.arrays.positions import pir
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
    import atldld

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
    if chunks is None and chain in ("arithmetic", "reduced", "concat"):
        with pytest.raises(ValueError, match="in memory"):
            pir(part)
        return
    found = pir(part)
    dims = tuple(name for name in ("section", "y", "x") if name in part.dims)
    expected = truth(part, plane, "oblique", False, {})
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
    found = pir(part)
    for axis, values in zip("pir", expected, strict=True):
        assert np.abs(found[axis].values - values).max() < 1e-6
    if mapping == "oblique":
        for axis, place in zip({"coronal": "ir", "sagittal": "ip"}[plane], "yx", strict=True):
            assert (found[axis] == part[place]).all()


def test_it_costs_nothing_until_asked(server):
    import atldld

    fine = atldld.open_dataarray(31, resolution=1, chunks={"y": 512, "x": 512}, source=server.url)
    server.reset_log()
    found = pir(fine)
    assert found.p.shape == (6, 8000, 11400)
    corner = found.isel(section=3, y=slice(0, 2), x=slice(0, 3)).compute()
    assert corner.p.shape == (2, 3)
    assert server.requests == []
    assert dict(found.chunksizes)["y"] == dict(fine.chunksizes)["y"]


def test_objects_without_a_place(opened):
    sections = opened("coronal")
    with pytest.raises(ValueError, match="before compute"):
        pir(sections.isel(section=0).compute())
    with pytest.raises(ValueError, match="which image_id"):
        pir(sections.mean("section"))
    with pytest.raises(ValueError, match="which x"):
        pir(sections.mean("x"))
    other = opened("coronal", mapping="parallel")
    mixed = xr.concat([sections.isel(section=[0]), other.isel(section=[0])], "section")
    with pytest.raises(ValueError, match="two places"):
        pir(mixed)
