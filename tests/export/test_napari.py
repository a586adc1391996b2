"""Layers for napari, without a window: each takes its pixels to where they lie."""

import json
import sys

import dask.array as da
import numpy as np
import pytest

import atldld


def places(affine, *index):
    """Return p, i, r of indices by the affine of a layer."""
    return np.stack(np.broadcast_arrays(*index, 1.0), axis=-1) @ affine[:3].T


@pytest.mark.parametrize("plane", ["coronal", "sagittal", "transverse"])
def test_each_section_is_a_layer_with_its_tilt(opened, plane):
    stack = opened(plane)
    layers = atldld.napari_layers(stack)
    assert len(layers) == stack.sizes["section"]
    true = stack.atlas.pir().compute()
    for place, (data, arguments, kind) in enumerate(layers):
        assert kind == "image"
        assert isinstance(data, da.Array)
        assert data.shape == (1, *stack.shape[1:])
        assert arguments["rgb"]
        assert arguments["axis_labels"] == ("p", "i", "r")
        assert arguments["units"] == ("um", "um", "um")
        assert arguments["name"] == f"section {int(stack.section[place])}"
        assert arguments["metadata"]["atldld"]["image_id"] == int(stack.image_id[place])
        rows, columns = np.indices(stack.shape[1:3])
        found = places(arguments["affine"], 0 * rows, rows, columns)
        expected = np.stack([true[axis][place].values for axis in "pir"], axis=-1)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert abs(np.linalg.det(arguments["affine"])) > 1
    np.testing.assert_array_equal(layers[2][0][0].compute(), stack[2].values)


def test_native_pixels_lie_where_they_do(server, phantoms):
    phantom = phantoms["sagittal"]
    image_id = phantom.image_ids[3]
    image = atldld.open_image(image_id, tier=1, source=server.url)
    ((data, arguments, _),) = atldld.napari_layers(image)
    assert data.shape == (1, *image.shape)
    rows, columns = np.array([0, 11, 60]), np.array([5, 40, 0])
    true = phantom.pir(image_id, image.x.values[columns], image.y.values[rows])
    np.testing.assert_allclose(
        places(arguments["affine"], 0 * rows, rows, columns), np.stack(true, axis=-1), atol=1e-6
    )


def test_layers_of_a_registration_lie_where_it_puts_them(opened, tmp_path):
    opened().atlas.to_quicknii(tmp_path / "q.json")
    content = json.loads((tmp_path / "q.json").read_text())
    for each in content["slices"]:
        each["anchoring"][1] -= 8  # voxels of 25 microns, to the back
    stack, plain = opened(registration=content), opened()
    layers = [atldld.napari_layers(each) for each in (stack, plain)]
    own = {arguments["name"]: arguments["affine"] for _, arguments, _ in layers[1]}
    for place, (data, arguments, _) in enumerate(layers[0]):
        number = int(stack.section[place])
        assert arguments["name"] == f"section {number} in CCFv3"
        assert arguments["metadata"]["atldld"]["reference_space"] == "CCFv3"
        moved = arguments["affine"] - own[f"section {number}"]
        np.testing.assert_allclose(moved[:3, 3], [200, 0, 0], atol=0.2)
        np.testing.assert_array_equal(data[0].compute(), stack[place].values)


def test_volumes_are_one_layer(volume):
    array = volume()
    layers = atldld.napari_layers(array, array.isel(channel=0, drop=True).astype("f4"))
    (data, arguments, _), (_, grey, _) = layers
    assert data.shape == array.shape
    np.testing.assert_array_equal(
        places(arguments["affine"], 2, 3, 4), [array.p[2], array.i[3], array.r[4]]
    )
    assert arguments["contrast_limits"] == (0, 255)
    assert not grey["rgb"]
    assert "contrast_limits" not in grey


def test_viewing_says_what_it_needs(volume, monkeypatch):
    monkeypatch.setitem(sys.modules, "napari", None)
    with pytest.raises(ImportError, match="pip install napari"):
        atldld.view(volume())
    with pytest.raises(TypeError, match="cannot be exported"):
        atldld.view(3)
