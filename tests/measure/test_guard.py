"""Volumes of different spaces do not mix; those of one space do, wherever they come from."""

import warnings
import zipfile

import numpy as np
import pytest
import xarray as xr

import atldld
from atlases import labels
from atldld import MixError
from atldld.testing import AllenServer, phantom_dataset
from measure_files import HEADER, zipped_grid

SHAPE = (67, 41, 58)


@pytest.fixture(scope="module")
def served():
    phantoms = [
        phantom_dataset(91, sections=3, resolution=60, seed=1),
        phantom_dataset(92, plane="sagittal", sections=3, resolution=60, seed=2),
    ]
    energy = labels(200, "node", SHAPE).astype("f4") % 1000
    zips = {
        91: zipped_grid({"energy": energy}, 91, space=9),
        92: zipped_grid({"energy": energy}, 92, space=10),
    }
    with AllenServer(phantoms, grids=zips) as server:
        yield server


@pytest.fixture(scope="module")
def annotation(tmp_path_factory):
    path = tmp_path_factory.mktemp("atlas") / "annotation.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.mhd", HEADER.format(kind="MET_UINT", name="a"))
        archive.writestr("a.raw", labels(200, "node", SHAPE).tobytes(order="F"))

    def opened(space):
        return atldld.open_annotation(path, reference_space=space)

    return opened


def test_one_space_combines(served, annotation):
    ours = atldld.quantify(91, source=served.url).compute()
    theirs = atldld.open_grid(91, source=served.url)
    difference = ours.energy - theirs.energy
    assert difference.shape == SHAPE
    assert difference["reference_space"].item() == 9
    nine = annotation(9)
    xr.align(ours, theirs, nine, join="exact")
    inside = theirs.energy.where(nine == int(nine.max()))
    assert 0 < inside.count() < theirs.energy.size
    volume = atldld.open_volume(91, like=theirs.energy, source=served.url)
    xr.align(volume, ours, join="exact")


def test_two_spaces_do_not(served, annotation):
    nine = atldld.open_grid(91, source=served.url)
    ten = atldld.open_grid(92, source=served.url)
    ours = atldld.quantify(92, source=served.url)
    for one, other in (
        (nine.energy, ten.energy),
        (nine.energy, ours.energy),
        (ten.energy, annotation(9)),
        (annotation(10), annotation(9)),
        (nine.energy, annotation("CCFv3")),
        (nine.energy.mean("r"), ten.energy.mean("r")),
    ):
        with pytest.raises(MixError, match="volumes in"):
            _ = one - other
    with pytest.warns(atldld.AtldldWarning, match="interpolated"):
        turned = atldld.open_grid(92, reference_space=9, source=served.url)
    assert (nine.energy + turned.energy).shape == SHAPE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", atldld.AtldldWarning)
        both = atldld.open_grids([91, 92], reference_space=10, source=served.url)
    assert both["reference_space"].item() == 10
    assert (both.energy - ten.energy).shape == (2, *SHAPE)
    with pytest.raises(MixError):
        _ = both.energy - nine.energy


def test_files_keep_the_space(served, annotation, tmp_path):
    nine = annotation(9)
    nine.to_dataset(name="structure").to_netcdf(tmp_path / "a.nc")
    with xr.open_dataset(tmp_path / "a.nc") as read:
        assert read["reference_space"].item() == 9
        assert np.array_equal(read.structure, nine)
