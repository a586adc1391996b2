"""Exports appear whole or not at all, replace nothing unasked, and hold little in memory."""

import subprocess
import sys

import dask.array as da
import pytest

from atldld.export import to_nifti, to_nrrd, to_ome_zarr

WRITERS = {"v.nii": to_nifti, "v.nii.gz": to_nifti, "v.nrrd": to_nrrd, "v.ome.zarr": to_ome_zarr}


def failing(array):
    """Return the array, of which one block cannot be computed."""

    def block(values, block_id):
        if block_id[0] == 2:
            raise OSError("the disk of the service is on fire")
        return values

    data = da.from_array(array.values, chunks=(2, -1, -1, -1))
    return array.copy(data=data.map_blocks(block, dtype=array.dtype))


@pytest.mark.parametrize("name", WRITERS)
def test_a_failure_leaves_nothing(tmp_path, volume, name):
    with pytest.raises(OSError, match="on fire"):
        WRITERS[name](failing(volume()), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_there_is_kept_unless_asked(tmp_path, volume, name):
    path = tmp_path / name
    WRITERS[name](volume(), path)

    def content():
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        return {str(file): file.read_bytes() for file in files if file.is_file()}

    before = content()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        WRITERS[name](volume(), path)
    with pytest.raises(OSError, match="on fire"):
        WRITERS[name](failing(volume()), path, overwrite=True)
    assert content() == before
    WRITERS[name](volume() // 2, path, overwrite=True)
    assert content() != before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", WRITERS)
def test_existing_files_are_refused_before_anything_is_computed(tmp_path, volume, name):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        WRITERS[name](failing(volume()), tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"mine"


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_folder_is_named(tmp_path, volume, name):
    with pytest.raises(FileNotFoundError, match="no folder"):
        WRITERS[name](volume(), tmp_path / "nowhere" / name)


LARGE = """
import resource, sys
import dask.array as da, numpy as np, xarray as xr
from atldld import export
name, path = sys.argv[1:]
shape, step = (640, 320, 456), 25.0
small = xr.DataArray(
    da.ones((64, 64, 64, 3), dtype="uint8"),
    {axis: step * np.arange(64) for axis in "pir"},
    ("p", "i", "r", "channel"),
).assign_coords(channel=["red", "green", "blue"])
write = getattr(export, name)
write(small, path)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
data = da.random.default_rng(1).integers(0, 255, (*shape, 3), dtype="uint8",
                                         chunks=(32, 320, 456, 3))
large = xr.DataArray(
    data, {axis: step * np.arange(size) for axis, size in zip("pir", shape)}, small.dims
).assign_coords(channel=small.channel)
write(large, path, overwrite=True, **({"compress": False} if name == "to_nrrd" else {}))
print(data.nbytes / 2**20, peak() - before)
"""


@pytest.mark.parametrize(
    ("name", "file"), [("to_nifti", "v.nii"), ("to_nrrd", "v.nrrd"), ("to_ome_zarr", "v.zarr")]
)
@pytest.mark.exhaustive
def test_memory_is_bounded_by_rows_of_chunks(tmp_path, name, file):
    done = subprocess.run(
        [sys.executable, "-c", LARGE, name, str(tmp_path / file)],
        capture_output=True,
        text=True,
        check=True,
    )
    size, grown = map(float, done.stdout.split())
    assert size > 250
    assert grown < 150


def test_files_do_not_tell_when_they_were_made(tmp_path, volume):
    for name in ("a.nii.gz", "b.nii.gz"):
        to_nifti(volume(), tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
