"""NRRD files, read by pynrrd: every voxel is where the array has it."""

import nrrd
import numpy as np
import pytest

from atldld.export import to_nrrd

PLANES = ("coronal", "sagittal", "transverse")


def lps(p, i, r):
    """Return millimetres to the left, to posterior and to superior."""
    return np.stack([-r / 1000, p / 1000, -i / 1000], axis=-1)


def world(header, index):
    directions = np.array([row for row in header["space directions"] if not np.isnan(row).any()])
    return header["space origin"] + np.asarray(index) @ directions


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize(
    ("dtype", "channels"), [("uint8", 3), ("float32", 3), ("int16", 0), ("bool", 0)]
)
def test_voxels_of_a_volume_are_where_it_has_them(tmp_path, volume, dtype, channels, compress):
    array = volume(dtype, channels)
    path = tmp_path / "v.nrrd"
    to_nrrd(array.chunk(p=4, r=3), path, compress=compress)
    found, header = nrrd.read(str(path))
    assert header["space"] == "left-posterior-superior"
    assert header["space units"] == ["mm"] * 3
    kinds = ["RGB-color"] if channels else []
    assert header["kinds"] == [*kinds, "domain", "domain", "domain"]
    np.testing.assert_array_equal(found, array.values.T)
    for place in np.ndindex(6, 5, 8):
        where = (array[axis].values[k] for axis, k in zip("pir", place, strict=True))
        np.testing.assert_allclose(world(header, place[::-1]), lps(*where), atol=1e-9)
    assert header["citation"] == "someone"
    assert header["dataset_id"] == "5"


@pytest.mark.parametrize("plane", PLANES)
def test_sections_and_even_stacks_keep_their_tilt(tmp_path, opened, even, plane):
    stack = even(opened(plane))
    for name, array in (("stack", stack), ("section", stack.isel(section=1))):
        array.atlas.to_nrrd(tmp_path / f"{name}.nrrd")
        found, header = nrrd.read(str(tmp_path / f"{name}.nrrd"))
        places = array.atlas.pir().compute()
        true = lps(*(places[axis].values for axis in "pir")).reshape((*found.shape[:0:-1], 3))
        index = np.moveaxis(np.indices(true.shape[:3])[::-1], 0, -1)
        np.testing.assert_allclose(world(header, index), true, atol=1e-7)
        np.testing.assert_array_equal(found.T.reshape(array.shape), array.values)


def test_uneven_stacks_are_refused(tmp_path, opened):
    with pytest.raises(ValueError, match="not evenly spaced"):
        opened().atlas.to_nrrd(tmp_path / "s.nrrd")


def test_text_in_headers_stays_one_line(tmp_path, volume):
    array = volume().assign_attrs({"note: a": "two\nlines, µ", "list": [1, 2]})
    to_nrrd(array, tmp_path / "v.nrrd")
    _, header = nrrd.read(str(tmp_path / "v.nrrd"))
    assert header["note  a"] == "two\\nlines, \\xb5"
    assert "list" not in header


def test_names_and_types_are_checked(tmp_path, volume):
    with pytest.raises(ValueError, match=r"named \.nrrd"):
        to_nrrd(volume(), tmp_path / "v.nhdr")
    with pytest.raises(TypeError, match="no type for float16"):
        to_nrrd(volume("float16", 0), tmp_path / "v.nrrd")
    with pytest.raises(ValueError, match="2 channels"):
        to_nrrd(volume(channels=2), tmp_path / "v.nrrd")
