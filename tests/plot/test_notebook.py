"""Pictures in notebooks: once each; and the browser in JupyterLab, in a real Chromium."""

import os
import shutil
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

import pytest

import atldld
from atldld.testing import AllenServer, phantom_dataset

pytestmark = pytest.mark.exhaustive

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FIGURE = "Bokeh.documents.map(d => d.get_model_by_name('sections')).filter(f => f)[0]"


@pytest.fixture
def server():
    with AllenServer([phantom_dataset(dataset_id=601, sections=5, resolution=40)]) as running:
        yield running


@pytest.fixture
def environment(tmp_path):
    """Return variables that keep Jupyter within the folder of the test."""
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    own = {name: str(tmp_path / name.lower()) for name in names}
    return {**os.environ, **own, "ATLDLD_CACHE_DIR": str(tmp_path / "cache")}


def notebook(server, *cells):
    opening = f"import atldld\nsections = atldld.open_dataarray(601, source={server.url!r})"
    made = [nbformat.v4.new_code_cell(cell) for cell in (opening, *cells)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return nbformat.v4.new_notebook(cells=made, metadata=kernel)


@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
def test_a_picture_is_shown_once(server, tmp_path):
    client = pytest.importorskip("nbclient")
    given = notebook(
        server,
        "sections.atlas.plot(panels=2)",
        "figure = sections.isel(section=2).atlas.plot()",
        "figure",
        "from matplotlib import pyplot\n_, ax = pyplot.subplots()\n"
        "sections.isel(section=2).atlas.plot(ax=ax);",
    )
    client.NotebookClient(given, timeout=120).execute(cwd=str(tmp_path))
    shown = [
        sum("image/png" in out.get("data", {}) for out in cell.outputs) for cell in given.cells
    ]
    assert shown == [0, 1, 0, 1, 1]


def answering(url, process):
    """Wait until a server that was started answers."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        assert process.poll() is None, "jupyter lab ended"
        try:
            with urlopen(url, timeout=5):
                return
        except URLError:
            continue
    raise AssertionError(f"{url} does not answer")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_slider_moves_the_picture_in_jupyterlab(server, tmp_path, environment):
    pytest.importorskip("jupyterlab")
    playwright = pytest.importorskip("playwright.sync_api")
    nbformat.write(notebook(server, "sections.atlas.browse()"), tmp_path / "browse.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    origin = f"http://127.0.0.1:{port}"
    options = {
        "ServerApp.ip": "127.0.0.1", "ServerApp.port": port, "ServerApp.port_retries": 0,
        "ServerApp.root_dir": tmp_path, "ServerApp.allow_root": True,
        "ServerApp.open_browser": False, "IdentityProvider.token": "",
        "LabApp.news_url": "None", "LabApp.check_for_updates_class":
        "jupyterlab.NeverCheckForUpdate",
    }  # fmt: skip
    command = [sys.executable, "-m", "jupyterlab", *(f"--{k}={v}" for k, v in options.items())]
    sections = atldld.open_dataarray(601, source=server.url)
    images, numbers = sections.image_id.values, sections.section.values
    with (
        (tmp_path / "lab.log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as lab,
    ):
        try:
            answering(f"{origin}/api", lab)
            with playwright.sync_playwright() as driver:
                chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
                page = chromium.new_page(viewport={"width": 1200, "height": 900})
                page.goto(f"{origin}/lab/tree/browse.ipynb")
                page.locator(".jp-Notebook .cm-content").first.click(timeout=60_000)
                page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
                page.keyboard.press("Shift+Enter")
                page.keyboard.press("Shift+Enter")
                page.locator(".noUi-handle").wait_for(timeout=60_000)
                page.wait_for_function(
                    f"() => {FIGURE}.title.text.includes('section {numbers[2]}:')"
                )
                server.reset_log()
                page.locator(".noUi-handle").focus()
                page.keyboard.press("ArrowRight")
                page.wait_for_function(
                    f"() => {FIGURE}.title.text.includes('section {numbers[3]}:')"
                )
                assert [each.image_id for each in server.image_requests] == [images[3]]
                chromium.close()
        finally:
            lab.terminate()
