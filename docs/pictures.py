"""Makes the pictures of the README from recorded data: ``python docs/pictures.py DATA``.

DATA is the folder of recorded data (see CONTRIBUTING.md). Needs the extra ``plot``.
"""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("agg")
import matplotlib.pyplot as plt

import atldld
from atldld.testing import AllenServer, load_recorded

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


if __name__ == "__main__":
    prox1(Path(sys.argv[1]))
