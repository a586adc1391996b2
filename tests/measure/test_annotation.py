"""Annotations of every format, and where their voxels lie."""

import zipfile

import nibabel
import nrrd
import numpy as np
import pytest

import atldld
from atlases import labels, structure
from atldld.errors import AtldldWarning

NODES = (67, 41, 58)
CENTRES = (132, 80, 114)
HEADER = (
    "NDims = 3\nOffset = 0 0 0\nAnatomicalOrientation = RAI\nElementSpacing = 200 200 200\n"
    "DimSize = 67 41 58\nElementType = MET_UINT\nElementDataFile = {place}\n"
)


def metaimage(path, values):
    path.write_bytes(HEADER.format(place="LOCAL").encode() + values.tobytes(order="F"))
    return path


def expect(annotation):
    """Hold every voxel against the atlas at the place that the coordinates name."""
    p, i, r = (annotation[axis].values for axis in "pir")
    truth = structure(p[:, None, None], i[None, :, None], r[None, None, :])
    assert annotation.dims == ("p", "i", "r")
    assert annotation.dtype.kind in "iu"
    assert np.array_equal(annotation.values, truth)


def test_the_recorded_grid_annotation(real):
    annotation = atldld.open_annotation(real / "P56_Mouse_gridAnnotation.zip", reference_space=9)
    assert annotation.shape == NODES
    assert annotation.attrs["origin"] == "node"
    assert annotation.attrs["label_symmetry"] == pytest.approx(0.894, abs=0.001)
    assert annotation.attrs["midline_r"] == 5700.0
    assert len(np.unique(annotation)) == 650
    assert annotation.attrs["atlas"] == "P56_Mouse_gridAnnotation"
    assert annotation.p.values[1] == 200.0


def test_metaimage_and_its_zip(tmp_path):
    values = labels(200, "node", NODES)
    expect(atldld.open_annotation(metaimage(tmp_path / "a.mha", values), reference_space=9))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("in/a.mhd", HEADER.format(place="a.raw"))
        archive.writestr("in/a.raw", values.tobytes(order="F"))
    found = atldld.open_annotation(
        tmp_path / "a.zip", reference_space=10, name="boxes", version="3"
    )
    expect(found)
    assert (found.attrs["atlas"], found.attrs["atlas_version"]) == ("boxes", "3")
    assert found.attrs["reference_space"] == 10


@pytest.mark.parametrize("unit", [100.0, 0.1])
def test_nrrd_of_voxel_centres(tmp_path, unit):
    path = tmp_path / "annotation_100.nrrd"
    header = {"space": "left-posterior-superior", "space directions": np.eye(3) * unit}
    nrrd.write(str(path), labels(100, "centre", CENTRES), {**header, "space origin": [0, 0, 0]})
    found = atldld.open_annotation(path, reference_space="CCFv3")
    expect(found)
    assert found.attrs["origin"] == "centre"
    assert found.attrs["reference_space"] == "CCFv3"
    assert found.attrs["midline_r"] == 5700.0


@pytest.mark.parametrize("codes", ["PIR", "RAS", "LPS", "ASR", "ILA"])
def test_nifti_is_turned_as_its_header_says(tmp_path, codes):
    values = labels(100, "centre", CENTRES).astype(np.int32)
    turned = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("PIR"), nibabel.orientations.axcodes2ornt(codes)
    )
    data = nibabel.orientations.apply_orientation(values, turned)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, letter in enumerate(codes):
        row, sign = {
            "R": (0, 1),
            "L": (0, -1),
            "A": (1, 1),
            "P": (1, -1),
            "S": (2, 1),
            "I": (2, -1),
        }[letter]
        affine[row, axis] = 0.1 * sign
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "a.nii.gz")
    expect(atldld.open_annotation(tmp_path / "a.nii.gz", reference_space="CCFv3"))


def test_a_nifti_without_orientation_asks_for_axes(tmp_path):
    image = nibabel.Nifti1Image(labels(100, "centre", CENTRES).astype(np.int32), None)
    image.header.set_zooms((100, 100, 100))
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(ValueError, match="axes="):
        atldld.open_annotation(tmp_path / "a.nii", reference_space="CCFv3")
    expect(atldld.open_annotation(tmp_path / "a.nii", reference_space="CCFv3", axes="pir"))


def test_an_origin_against_the_labels_warns(tmp_path):
    path = metaimage(tmp_path / "a.mha", labels(200, "node", NODES))
    with pytest.warns(AtldldWarning, match=r"speak for 'node'.*5800"):
        found = atldld.open_annotation(path, reference_space=9, origin="centre")
    assert float(found.r[0]) == 100.0
    assert "speak for 'node'" in found.attrs["origin_check"]


def test_labels_that_do_not_tell(tmp_path):
    values = labels(200, "node", NODES)
    values[..., 29:] = 0
    path = metaimage(tmp_path / "half.mha", values)
    with pytest.raises(ValueError, match="pass origin="):
        atldld.open_annotation(path, reference_space=9)
    found = atldld.open_annotation(path, reference_space=9, origin="node")
    assert found.attrs["origin_check"].startswith("not decided")


def test_a_part_of_an_atlas_is_placed_by_hand(tmp_path):
    values = labels(200, "node", NODES)[10:60, 5:35, 3:40]
    text = HEADER.replace("67 41 58", "50 30 37").replace("Offset = 0", "Offset = 2000")
    path = tmp_path / "part.mha"
    path.write_bytes(text.format(place="LOCAL").encode() + values.tobytes(order="F"))
    with pytest.raises(ValueError, match="does not lie at 0"):
        atldld.open_annotation(path, reference_space=9)
    expect(atldld.open_annotation(path, reference_space=9, origin=(2000, 1000, 600)))


def test_what_is_not_an_annotation(tmp_path):
    values = labels(200, "node", NODES)
    path = metaimage(tmp_path / "a.mha", values)
    with pytest.raises(TypeError, match="does not say its space: pass reference_space=9"):
        atldld.open_annotation(path)
    for options, complaint in [
        ({"reference_space": 3}, "9, 10 or 'CCFv3'"),
        ({"reference_space": "CCF"}, "9, 10 or 'CCFv3'"),
        ({"reference_space": 9, "origin": "corner"}, "origin"),
        ({"reference_space": 9, "axes": "xyz"}, "three letters"),
        ({"reference_space": 9, "spacing": -1}, "spacing"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            atldld.open_annotation(path, **options)
    text = HEADER.replace("MET_UINT", "MET_FLOAT").format(place="LOCAL")
    path.write_bytes(text.encode() + (values + 0.5).astype("<f4").tobytes(order="F"))
    with pytest.raises(ValueError, match="whole numbers"):
        atldld.open_annotation(path, reference_space=9)
    with pytest.raises(FileNotFoundError, match="brainglobe"):
        atldld.open_annotation(tmp_path / "allen_mouse_25um", reference_space="CCFv3")
    with pytest.raises(FileNotFoundError, match="no annotation file"):
        atldld.open_annotation(tmp_path / "a.nrrd", reference_space="CCFv3")


def test_a_small_zip_does_not_unpack_to_gigabytes(tmp_path):
    header = b"ObjectType = Image\nNDims = 3\nDimSize = 1024 1024 1025\nElementType = MET_UCHAR\n"
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a.mhd", header + b"ElementDataFile = a.raw\n")
        with archive.open("a.raw", "w") as raw:
            for _ in range(1025):
                raw.write(bytes(2**20))
    assert (tmp_path / "a.zip").stat().st_size < 2**24
    with pytest.raises(ValueError, match=r"'a\.raw' unpacks to 1074790400 bytes"):
        atldld.open_annotation(tmp_path / "a.zip", reference_space=9)
