"""NIfTI files, read by nibabel: every voxel is where the array has it, upright."""

import json

import nibabel
import numpy as np
import pytest
import SimpleITK
import xarray as xr

import atldld
from atldld.errors import AtldldWarning
from atldld.export import to_nifti

PLANES = ("coronal", "sagittal", "transverse")


def ras(p, i, r):
    """Return millimetres to the right, to anterior and to superior."""
    return np.stack([r / 1000, -p / 1000, -i / 1000], axis=-1)


def world(image, *index):
    return nibabel.affines.apply_affine(image.affine, np.stack(index, axis=-1))


def values(image):
    found = np.asanyarray(image.dataobj)
    if found.dtype.names:
        found = np.stack([found[name] for name in "RGB"], axis=-1)
    return found


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("dtype", "channels"), [("uint8", 3), ("uint8", 0), ("float32", 3), ("int32", 0), ("bool", 0)]
)
def test_voxels_of_a_volume_are_where_it_has_them(tmp_path, volume, dtype, channels, suffix):
    array = volume(dtype, channels)
    path = tmp_path / f"volume{suffix}"
    to_nifti(array.chunk(p=4, i=3), path)
    image = nibabel.load(path)
    found = values(image)
    assert found.shape == (8, 5, 6) + (channels,) * bool(channels)
    assert image.header.get_data_dtype() == np.dtype("uint8" if dtype == "bool" else dtype)
    np.testing.assert_array_equal(image.get_fdata(), found)
    for place in np.ndindex(6, 5, 8):
        index = place[::-1]
        np.testing.assert_array_equal(found[index], array.values[place])
        where = (array[axis].values[k] for axis, k in zip("pir", place, strict=True))
        np.testing.assert_allclose(world(image, *index), ras(*where), atol=1e-6)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_colours_of_three_bytes_are_asked_for_by_name(tmp_path, volume, suffix):
    array = volume()
    path = tmp_path / f"volume{suffix}"
    to_nifti(array.chunk(p=4), path, colours="rgb24")
    image = nibabel.load(path)
    assert image.shape == (8, 5, 6)
    assert image.header.get_data_dtype() == np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    np.testing.assert_array_equal(values(image), array.values.transpose(2, 1, 0, 3))
    for wrong, message in (
        (volume("float32"), "three uint8 channels, not float32"),
        (volume(channels=0), "three uint8 channels"),
    ):
        with pytest.raises(ValueError, match=message):
            to_nifti(wrong, tmp_path / "wrong.nii", colours="rgb24")
    with pytest.raises(ValueError, match="'axis', 'rgb24'"):
        to_nifti(array, tmp_path / "wrong.nii", colours="RGB24")
    assert not (tmp_path / "wrong.nii").exists()


def test_the_brain_stands_upright(tmp_path, volume):
    to_nifti(volume(), tmp_path / "v.nii")
    image = nibabel.load(tmp_path / "v.nii")
    # Right, inferior, posterior: the affine turns what the array counts downwards and backwards.
    assert nibabel.aff2axcodes(image.affine) == ("R", "I", "P")
    upright = nibabel.as_closest_canonical(
        nibabel.Nifti1Image(np.zeros(image.shape[:3]), image.affine)
    )
    assert nibabel.aff2axcodes(upright.affine) == ("R", "A", "S")
    assert image.header.get_xyzt_units()[0] == "mm"
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 5
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-6)
    attributes = json.loads(image.header.extensions[0].get_content())
    assert attributes == {"dataset_id": 5, "gene": "Aµ", "citation": "someone"}


@pytest.mark.parametrize("plane", PLANES)
def test_a_section_keeps_its_tilt(tmp_path, opened, plane):
    section = opened(plane, chunks={"y": 20}).isel(section=2, x=slice(5, 40))
    section.atlas.to_nifti(tmp_path / "s.nii.gz")
    image = nibabel.load(tmp_path / "s.nii.gz")
    assert image.shape == (35, section.sizes["y"], 1, 3)
    places = section.atlas.pir().compute()
    rows, columns = np.indices((section.sizes["y"], 35))
    true = ras(*(places[axis].values for axis in "pir"))
    np.testing.assert_allclose(world(image, columns, rows, 0 * rows), true, atol=2e-6)
    along = places[{"coronal": "p", "sagittal": "r", "transverse": "i"}[plane]]
    assert np.ptp(along.values) > 100
    np.testing.assert_array_equal(values(image)[:, :, 0], section.values.transpose(1, 0, 2))


def test_the_slice_of_a_section_is_as_thick_as_the_section(tmp_path, opened):
    section = opened().isel(section=2)
    section.atlas.to_nifti(tmp_path / "s.nii")
    across = nibabel.load(tmp_path / "s.nii").affine[:3, 2]
    scale = section.attrs["reference_microns_per_stack_micron"]
    np.testing.assert_allclose(np.linalg.norm(across), 0.025 * scale, rtol=1e-5)
    assert across[1] < 0


@pytest.mark.parametrize("plane", PLANES)
def test_even_stacks_keep_place_and_tilt(tmp_path, opened, even, plane):
    stack = even(opened(plane))
    stack.atlas.to_nifti(tmp_path / "s.nii")
    image = nibabel.load(tmp_path / "s.nii")
    places = stack.atlas.pir().compute()
    sections, rows, columns = np.indices(stack.shape[:3])
    true = ras(*(places[axis].values for axis in "pir"))
    np.testing.assert_allclose(world(image, columns, rows, sections), true, atol=3e-6)


def test_uneven_stacks_are_refused_with_the_remedy(tmp_path, opened):
    with pytest.raises(ValueError, match=r"not evenly spaced \(gaps from .* open_volume"):
        opened().atlas.to_nifti(tmp_path / "s.nii")
    assert list(tmp_path.glob("*.nii*")) == []


def test_sections_in_memory_keep_their_tilt(tmp_path, opened):
    lazy = opened().isel(section=2)
    for name, section in (("lazy", lazy), ("loaded", lazy.compute())):
        section.atlas.to_nifti(tmp_path / f"{name}.nii")
    images = [nibabel.load(tmp_path / f"{name}.nii") for name in ("lazy", "loaded")]
    np.testing.assert_array_equal(images[0].affine, images[1].affine)


def test_sections_that_lost_their_geometry_lie_level_and_say_so(tmp_path, opened):
    section = opened().isel(section=2).compute()
    bare = section.drop_vars([name for name in section.coords if name not in (*"yxpir", "channel")])
    with pytest.warns(AtldldWarning, match="tilt of the sections is not known"):
        bare.atlas.to_nifti(tmp_path / "s.nii")
    image = nibabel.load(tmp_path / "s.nii")
    flat = world(image, np.array([0, 30]), np.array([0, 20]), np.array([0, 0]))
    np.testing.assert_allclose(flat[:, 1], -float(section.p) / 1000, atol=1e-6)


def test_the_pixels_of_an_image_lie_where_they_do(tmp_path, server, phantoms):
    import atldld

    phantom = phantoms["coronal"]
    image_id = phantom.image_ids[1]
    pixels = atldld.open_image(image_id, tier=2, region={"x": (40, 90)}, source=server.url)
    pixels.atlas.to_nifti(tmp_path / "i.nii")
    image = nibabel.load(tmp_path / "i.nii")
    rows, columns = np.indices(pixels.shape[:2])
    true = phantom.pir(image_id, pixels.x.values[columns], pixels.y.values[rows])
    np.testing.assert_allclose(world(image, columns, rows, 0 * rows), ras(*true), atol=2e-6)


def test_long_sides_make_the_second_format(tmp_path, volume):
    array = volume(channels=0, shape=(2, 2, 32768), step=0.25)
    to_nifti(array, tmp_path / "v.nii")
    image = nibabel.load(tmp_path / "v.nii")
    assert isinstance(image, nibabel.Nifti2Image)
    assert image.shape == (32768, 2, 2)
    np.testing.assert_array_equal(values(image), array.values.T)
    assert isinstance(nibabel.load(_saved(tmp_path, volume())), nibabel.Nifti1Image)


def _saved(folder, array):
    to_nifti(array, folder / "small.nii")
    return folder / "small.nii"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.isel(p=[0, 1, 4]), "coordinates of p are not even"),
        (lambda v: v.isel(p=[0]), "p has one value"),
        (lambda v: v.expand_dims("time"), "dimension 'time'"),
        (lambda v: v.isel(p=0), "dimensions are"),
        (lambda v: v.drop_vars("i"), "lost its coordinate i"),
        (lambda v: v.isel(channel=[0, 1]), "2 channels"),
        (lambda v: v.isel(r=slice(0)), "nothing to export"),
        (lambda v: xr.Dataset({"density": v, "energy": v}), "no variable .image."),
    ],
)
def test_what_is_no_volume_is_refused(tmp_path, volume, change, message):
    with pytest.raises(ValueError, match=message):
        to_nifti(change(volume()), tmp_path / "v.nii")
    assert list(tmp_path.iterdir()) == []


def test_wrong_names_and_types_are_refused(tmp_path, volume):
    with pytest.raises(ValueError, match=r"named \.nii"):
        to_nifti(volume(), tmp_path / "v.img")
    with pytest.raises(TypeError, match="must be numbers"):
        to_nifti(volume().astype("U3"), tmp_path / "v.nii")
    with pytest.raises(TypeError, match="no type for float16"):
        to_nifti(volume("float16", 0), tmp_path / "v.nii")
    with pytest.raises(TypeError, match="ndarray cannot be exported"):
        to_nifti(volume().values, tmp_path / "v.nii")


def test_siibra_finds_a_volume_of_ccfv3_in_its_atlas(tmp_path, opened):
    opened().atlas.to_quicknii(tmp_path / "q.json")
    content = json.loads((tmp_path / "q.json").read_text())
    del content["atldld"]
    dataset = opened().attrs["dataset_id"]
    array = atldld.open_volume(
        dataset, resolution=400, registration=content, source=opened().source
    ).image
    array.atlas.to_nifti(tmp_path / "v.nii.gz", origin="siibra")
    image = nibabel.load(tmp_path / "v.nii.gz")
    assert image.header.get_xyzt_units()[0] == "mm"
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 5
    upright = nibabel.as_closest_canonical(image)
    assert nibabel.aff2axcodes(upright.affine) == ("R", "A", "S")
    # Its transform of QuickNII's voxels of 25 microns, in nanometres.
    for place in ((0, 0, 0), (3, 8, 5)):
        p, i, r = (array[axis].values[k] for axis, k in zip("pir", place, strict=True))
        voxel = np.array([r / 25, 528 - p / 25, 320 - i / 25])
        nanometres = 25000 * voxel + [-5737500, -6637500, -4037500]
        np.testing.assert_allclose(world(image, *place[::-1]), nanometres / 1e6, atol=1e-5)
    with pytest.raises(ValueError, match="'siibra' is of CCFv3"):
        opened().isel(section=2).atlas.to_nifti(tmp_path / "w.nii", origin="siibra")
    with pytest.raises(ValueError, match="'corner', 'siibra'"):
        array.atlas.to_nifti(tmp_path / "w.nii", origin="middle")
    assert not (tmp_path / "w.nii").exists()


@pytest.mark.parametrize("colours", ["axis", "rgb24"])
def test_the_library_of_itk_snap_reads_the_same_directions(tmp_path, volume, colours):
    """ITK counts to the left, posterior and superior."""
    array = volume()
    to_nifti(array, tmp_path / "v.nii.gz", colours=colours)
    image = SimpleITK.ReadImage(str(tmp_path / "v.nii.gz"))
    size = image.GetDimension()
    direction = np.reshape(image.GetDirection(), (size, size))[:3, :3]
    # Columns run to the right, rows down, sections to the back.
    np.testing.assert_allclose(direction, [[-1, 0, 0], [0, 0, 1], [0, -1, 0]], atol=1e-6)
    np.testing.assert_allclose(image.GetSpacing()[:3], [0.1] * 3, rtol=1e-6)
    index = (5, 2, 3, *(0,) * (size - 3))
    left, posterior, superior = image.TransformIndexToPhysicalPoint(index)[:3]
    where = array.r.values[5], array.p.values[3], array.i.values[2]
    np.testing.assert_allclose([-left * 1000, posterior * 1000, -superior * 1000], where, atol=1e-3)
    if colours == "axis":
        assert image.GetPixel(index) == array.values[3, 2, 5, 0]
    else:
        assert image.GetPixel(*index) == tuple(array.values[3, 2, 5])
