"""Makes the pictures of the README and of docs/plotting.md: ``python docs/pictures.py DATA``.

DATA is the folder of recorded data (see CONTRIBUTING.md). Needs the extra ``notebook``, and for the
picture of the browser playwright and a Chromium.
"""

import shutil
import socket
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import xarray as xr

mpl.use("agg")
import matplotlib.pyplot as plt

import atldld
from atldld.testing import AllenServer, load_recorded, phantom_dataset

IMAGES = Path(__file__).parent / "images"


def prox1(data: Path) -> None:
    """Draw the registered section of Prox1 beside the nearest slice of the expression energy."""
    with AllenServer([load_recorded(data / "69289763")]) as server:
        sections = atldld.open_dataarray(69289763, resolution=25, tier=2, source=server.url)
        section = sections.sel(r=3365, method="nearest").compute()
    energy = np.fromfile(data / "69289763" / "energy.raw", "<f4").reshape(58, 41, 67)
    node = round(float(section.r) / 200)
    energy_slice = np.where(energy[node] < 0, np.nan, energy[node])

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4.1), sharex=True, sharey=True, layout="constrained"
    )
    section.plot.imshow(ax=left, x="x", y="y", rgb="channel", add_labels=False)
    left.set_title(f"section {int(section.section)}, registered: r = {float(section.r):.0f} µm")
    half = 100
    shown = right.imshow(
        energy_slice,
        extent=(-half, 67 * 200 - half, 41 * 200 - half, -half),
        cmap="magma",
        interpolation="nearest",
    )
    right.set_title(f"expression energy at r = {node * 200} µm, 200 µm grid")
    figure.colorbar(shown, ax=right, label="energy")
    for axes in (left, right):
        axes.set(xlabel="p (posterior) [µm]", ylabel="i (inferior) [µm]", aspect="equal")
    left.set_xlim(0, 13200)
    left.set_ylim(8000, 0)
    IMAGES.mkdir(exist_ok=True)
    figure.savefig(IMAGES / "prox1.png", dpi=110)


def plotting(data: Path) -> None:
    """Draw what is drawn in docs/plotting.md: of recorded data where there are pixels."""
    phantom = phantom_dataset(dataset_id=1001, plane="sagittal", tilt=2)
    annotation = atldld.open_annotation(data / "P56_Mouse_gridAnnotation.zip", reference_space=9)
    with AllenServer([load_recorded(data / "69289763"), phantom]) as server:
        source = {"source": server.url}
        prox1 = atldld.open_dataarray(69289763, resolution=25, tier=2, **source)
        sections = atldld.open_dataarray(1001, resolution=50, **source)
        volume = atldld.open_volume(1001, resolution=50, **source)
        figures = {
            "borders": prox1.atlas.at(r=3365).atlas.plot(overlay=annotation),
            "placement": atldld.plot.placement(69289763, **source),
            "sheet": sections.atlas.plot(),
            "planes": volume.atlas.plot(p=7400, i=2800),
        }
        for name, figure in figures.items():
            figure.savefig(IMAGES / f"{name}.png", dpi=80)
        browser(sections)


def browser(sections: xr.DataArray) -> None:
    """Take a picture of the browser in a real one."""
    import panel as pn
    from playwright.sync_api import sync_playwright

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = pn.serve(lambda: sections.atlas.browse(), port=port, show=False, threaded=True)
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = chromium.new_page(viewport={"width": 1000, "height": 600})
        page.goto(f"http://localhost:{port}", wait_until="networkidle")
        page.wait_for_selector("canvas")
        page.screenshot(path=IMAGES / "browse.png")
        chromium.close()
    server.stop()


if __name__ == "__main__":
    prox1(Path(sys.argv[1]))
    plotting(Path(sys.argv[1]))
