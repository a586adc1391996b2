"""Jobs of spatial_brain_maps 0.1.2, in its own environment and a fresh process.

Run by the interpreter of that environment. Only what it makes is kept; how it makes it is its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .measure import Job, Run, answer


def volume(given: Mapping[str, Any], run: Run) -> None:
    """Put the sections of an experiment into a volume of 25 micron voxels."""
    from spatial_brain_maps import id_to_volume

    folder = Path(given["folder"])
    with run.lap("volume"):
        values, counts = id_to_volume(
            given["dataset"], str(folder / "pictures"), str(folder / "set"),
            resolution=25, mode="histology", return_frequencies=True, missing_fill=0,
        )  # fmt: skip
    places = np.argwhere(counts > 0).astype(np.int16)
    x, y, z = places.T
    np.savez(folder / "volume.npz", places=places, values=values[x, y, z], counts=counts[x, y, z])


def points(given: Mapping[str, Any], run: Run) -> None:
    """Put the pixels of an experiment into the voxels of CCFv3, and tell which pixels they are."""
    from spatial_brain_maps import id_to_points
    from spatial_brain_maps.utilities import alignment_functions as theirs

    folder, resolution = Path(given["folder"]), given["resolution"]
    with run.lap("points"):
        values, places = id_to_points(
            given["dataset"], str(folder / "pictures"), str(folder / "set"),
            resolution=resolution, cutoff=-1, mode="histology",
        )  # fmt: skip
    found = {"values": values, "places": places}
    name = json.loads(
        next((folder / "set" / "QUINT_registration_jsons").glob("*.json")).read_text()
    )["slices"]
    animal = next((folder / "set" / "QUINT_registration_jsons").glob("*.json")).stem
    read = theirs.read_image
    for each in name:
        owner, _, file = each["filename"].split("/")
        if int(owner) != given["dataset"]:
            continue
        folders = [
            str(folder / "set" / f"{kind}_registration_files" / animal / owner)
            for kind in ("affine", "nonlinear")
        ]
        stem = file.removesuffix(".jpg")
        for axis, label in enumerate(("row", "column")):
            # Its own steps, of a picture whose every pixel is its own number.
            def numbered(*arguments: Any, axis: int = axis) -> Any:
                image, _ = read(*arguments)
                return np.indices(image.shape)[axis].astype(float), -1.0

            theirs.read_image = numbered
            found[f"{label}-{stem}"] = theirs.load_warped_image(
                stem, str(folder / "pictures" / animal / owner), *folders, resolution, "histology",
                int(owner),
            )  # fmt: skip
        theirs.read_image = read
    np.savez(folder / f"points-{resolution}.npz", **found)


JOBS: dict[str, Job] = {"volume": volume, "points": points}

if __name__ == "__main__":
    answer(JOBS)
