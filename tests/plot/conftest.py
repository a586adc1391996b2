"""Phantoms of every plane behind one server, opened as the tests of pictures need them."""

import matplotlib as mpl
import pytest

mpl.use("agg")

import atldld
from atldld.testing import AllenServer, phantom_dataset

PHANTOMS = {
    "coronal": phantom_dataset(dataset_id=301, sections=9, resolution=30, seed=1),
    "sagittal": phantom_dataset(
        dataset_id=302, plane="sagittal", sections=8, resolution=30, seed=2, slides=True
    ),
    "transverse": phantom_dataset(
        dataset_id=303, plane="transverse", sections=6, resolution=30, seed=3, tilt=10
    ),
    "fluorescent": phantom_dataset(
        dataset_id=304, sections=4, resolution=30, seed=4, products=(5,), gene=()
    ),
}


@pytest.fixture(scope="session")
def server():
    """Serve all phantoms."""
    with AllenServer(list(PHANTOMS.values())) as running:
        yield running


@pytest.fixture(autouse=True)
def own_cache(tmp_path):
    """Give each test a cache of its own, and close its figures."""
    from matplotlib import pyplot

    with atldld.set_options(cache_dir=tmp_path / "cache"), mpl.rc_context():
        mpl.rcdefaults()
        yield
    pyplot.close("all")


@pytest.fixture
def phantoms():
    """Return the phantoms by name."""
    return PHANTOMS


@pytest.fixture
def opened(server):
    """Return a function that opens a phantom by its name at 100 microns."""

    def opened(plane="coronal", function=atldld.open_dataarray, **options):
        options = {"resolution": 100, "source": server.url, **options}
        return function(PHANTOMS[plane].id, **options)

    return opened
