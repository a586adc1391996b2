"""Arrays to export: volumes made by hand, and sections of small phantoms."""

import numpy as np
import pytest
import xarray as xr

import atldld
from atldld.testing import AllenServer, PhantomBrain, phantom_dataset

BRAIN = PhantomBrain(texture="smooth")
PHANTOMS = {
    plane: phantom_dataset(
        dataset_id=201 + number,
        plane=plane,
        tilt=4,
        sections=6,
        brain=BRAIN,
        resolution=30,
        seed=number,
        slides=True,
        tier_count=5,
    )
    for number, plane in enumerate(("coronal", "sagittal", "transverse"))
}


@pytest.fixture(scope="session")
def server():
    """Serve a phantom of each plane."""
    with AllenServer(list(PHANTOMS.values())) as running:
        yield running


@pytest.fixture
def opened(server, tmp_path):
    """Return a function that opens a phantom by its plane at 200 microns."""
    with atldld.set_options(cache_dir=tmp_path / "cache"):

        def opened(plane="coronal", **options):
            options = {"resolution": 200, "source": server.url, **options}
            return atldld.open_dataarray(PHANTOMS[plane].id, **options)

        yield opened


@pytest.fixture
def phantoms():
    """Return the phantoms by plane."""
    return PHANTOMS


@pytest.fixture(scope="session")
def volume():
    """Return a function that makes a volume whose every value differs from its neighbours."""

    def volume(
        dtype="uint8", channels=3, shape=(6, 5, 8), step=100.0, start=(1000.0, 600.0, 2000.0)
    ):
        random = np.random.default_rng(7)
        sizes = (*shape, channels) if channels else shape
        values = random.integers(0, 255, sizes).astype(dtype)
        coords = {
            axis: (axis, first + step * np.arange(size), {"units": "µm"})
            for axis, first, size in zip("pir", start, shape, strict=True)
        }
        dims = ("p", "i", "r")
        if channels:
            dims = (*dims, "channel")
            coords["channel"] = ["red", "green", "blue"][:channels]
        attrs = {"dataset_id": 5, "gene": "Aµ", "citation": "someone"}
        return xr.DataArray(values, coords, dims, name="image", attrs=attrs)

    return volume


@pytest.fixture(scope="session")
def even():
    """Return a function that takes the evenly spaced sections of a stack."""

    def even(array):
        along = array.coords[{"coronal": "p", "sagittal": "r", "transverse": "i"}[array.plane]]
        gaps = np.diff(along.values)
        for first in range(len(gaps) - 1):
            if abs(gaps[first] - gaps[first + 1]) < 1:
                return array.isel(section=slice(first, first + 3))
        raise AssertionError("no three sections are evenly spaced")

    return even
