"""States of Neuroglancer: what is shown where, checked by its own classes, and in a browser."""

import functools
import http.server
import json
import shutil
import threading
from urllib.parse import unquote

import numpy as np
import pytest

from atldld.export import neuroglancer_link, neuroglancer_state, to_ome_zarr

URL = "https://lab.org/data/v.ome.zarr"


@pytest.fixture
def written(tmp_path, volume):
    """Return the folder of a volume that was written."""
    to_ome_zarr(volume().assign_attrs(gene="Prox1"), tmp_path / "v.ome.zarr")
    return tmp_path / "v.ome.zarr"


def test_it_shows_the_volume_where_it_lies(written, volume):
    array = volume()
    state = neuroglancer_state(written, URL)
    assert state["dimensions"] == {axis: [1e-6, "m"] for axis in "xyz"}
    # The middle voxel; x, y, z are r, i, p.
    middle = [array[axis].values[len(array[axis]) // 2] for axis in "rip"]
    np.testing.assert_allclose(state["position"], middle)
    (layer,) = state["layers"]
    assert layer["name"] == "Prox1 (5)"
    assert layer["type"] == "image"
    assert layer["source"]["url"] == f"zarr://{URL}"
    # The colours are a channel of the shader, in the order of the axes of the file.
    assert list(layer["source"]["transform"]["outputDimensions"]) == ["c^", "z", "y", "x"]
    assert "getDataValue(2)" in layer["shader"]


def test_grey_values_have_a_control_and_labels_are_segments(tmp_path, volume):
    for dtype, kind in (("float32", "image"), ("uint8", "image"), ("int32", "segmentation")):
        path = tmp_path / f"{dtype}.zarr"
        to_ome_zarr(volume(dtype, 0), path)
        (layer,) = neuroglancer_state(path, URL)["layers"]
        assert layer["type"] == kind
        assert ("invlerp" in layer.get("shader", "")) == (kind == "image")
        assert "transform" not in layer["source"]


def test_what_lies_in_ccfv3_says_so(tmp_path, volume):
    array = volume().assign_attrs(reference_space="CCFv3", gene="")
    to_ome_zarr(array, tmp_path / "v.zarr")
    assert neuroglancer_state(tmp_path / "v.zarr", URL)["layers"][0]["name"] == "5 in CCFv3"


def test_a_link_holds_the_state(written):
    link = neuroglancer_link(written, URL, viewer="http://127.0.0.1:9/")
    head, _, rest = link.partition("#!")
    assert head == "http://127.0.0.1:9/"
    assert json.loads(unquote(rest)) == neuroglancer_state(written, URL)
    assert neuroglancer_link(written, URL).startswith("https://neuroglancer-demo.appspot.com/#!%7B")


def test_its_own_classes_take_it(written):
    neuroglancer = pytest.importorskip("neuroglancer")
    state = neuroglancer_state(written, URL)
    taken = neuroglancer.ViewerState(state)
    assert list(taken.dimensions.names) == ["x", "y", "z"]
    np.testing.assert_allclose(taken.position, state["position"])
    assert isinstance(taken.layers[0].layer, neuroglancer.ImageLayer)
    transform = taken.layers[0].source[0].transform
    assert list(transform.output_dimensions.names) == ["c^", "z", "y", "x"]


def test_what_it_cannot_show_is_refused(tmp_path, written, opened):
    for wrong in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match=r"no OME-Zarr 0\.5 image"):
            neuroglancer_state(wrong, URL)
    with pytest.raises(ValueError, match="what a browser can open"):
        neuroglancer_state(written, str(written))
    to_ome_zarr(opened().isel(section=2), tmp_path / "section.zarr")
    with pytest.raises(ValueError, match="takes volumes"):
        neuroglancer_state(tmp_path / "section.zarr", URL)


@pytest.mark.exhaustive
def test_a_browser_reads_the_volume(tmp_path, written):
    neuroglancer = pytest.importorskip("neuroglancer")
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or pytest.skip("there is no Chromium")
    read = threading.Event()

    class Files(http.server.SimpleHTTPRequestHandler):
        def end_headers(self):
            self.send_header("Access-Control-Allow-Origin", "*")
            super().end_headers()

        def log_message(self, *_):
            if "/image/c/" in self.path:
                read.set()

    handler = functools.partial(Files, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{written.name}"
        viewer = neuroglancer.Viewer()
        viewer.set_state(neuroglancer_state(written, url))
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(
                executable_path=chromium,
                args=["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
            )
            page, wrong = browser.new_page(), []
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.goto(viewer.get_viewer_url())
            page.get_by_text("uint8 volume").wait_for()
            assert read.wait(60)
            # Half a voxel of 100 microns before the first middle.
            assert "[1950,2750)" in "".join(page.inner_text("body").split())
            browser.close()
        server.shutdown()
    assert not wrong
