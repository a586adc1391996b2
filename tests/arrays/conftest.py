"""Small phantoms of every plane behind one server, opened in every way the tests need."""

import pytest

import atldld
from atldld.testing import AllenServer, PhantomBrain, phantom_dataset

BRAIN = PhantomBrain(texture="smooth")
PHANTOMS = {
    "coronal": phantom_dataset(
        dataset_id=101, plane="coronal", sections=6, brain=BRAIN, resolution=30, seed=1
    ),
    "sagittal": phantom_dataset(
        dataset_id=102, plane="sagittal", sections=5, brain=BRAIN, resolution=30, seed=2
    ),
    "transverse": phantom_dataset(
        dataset_id=103, plane="transverse", sections=4, brain=BRAIN, resolution=30, seed=3
    ),
    "other coronal": phantom_dataset(
        dataset_id=104, plane="coronal", sections=6, brain=BRAIN, resolution=30, seed=4
    ),
    "sagittal in space 9": phantom_dataset(
        dataset_id=105,
        plane="sagittal",
        sections=5,
        brain=BRAIN,
        resolution=30,
        seed=5,
        reference_space=9,
    ),
}


@pytest.fixture(scope="module")
def server():
    """Serve all phantoms."""
    with AllenServer(list(PHANTOMS.values())) as running:
        yield running


@pytest.fixture
def phantoms():
    """Return the phantoms by name."""
    return PHANTOMS


@pytest.fixture
def opened(server):
    """Return a function that opens a phantom by name at 200 microns."""

    def opened(name="coronal", function=atldld.open_dataarray, **options):
        options = {"resolution": 200, "source": server.url, **options}
        return function(PHANTOMS[name].id, **options)

    return opened
