"""``python -m benchmarks.published``: a published registration, opened here and by its authors.

A phantom animal with two experiments, written in the layout of the published registration. The peer
is spatial_brain_maps 0.1.2 with pynutil 0.3.3 and antspyx, in an environment of its own. Both sides
read the same pictures. Where they put pixels is held against each other and against the phantom,
whose every place has its own colour; seconds and memory are those of an experiment as a volume.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .environment import maps_python
from .machine import load, machine
from .measure import Job, Run, answer
from .process import ROOT, run_job

# Where the set is written, as for the tests.
sys.path.insert(0, str(ROOT / "tests"))

LATEST = ROOT / "benchmarks" / "published.json"
ANIMAL, DATASETS = "04-0086", (121096, 121097)
"""Two experiments that the peer knows to be of one animal."""

MICRONS = 10.0
"""Of a full-resolution pixel: the pictures that the peer reads are the whole images."""

SECTIONS = 24
_VOXELS = {"p": 552, "i": 320, "r": 456}
GREY = np.array([0.299, 0.587, 0.114])
_SEED, _SOME = 5, 2000


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write the numbers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.published", description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "benchmarks" / "published")
    parser.add_argument("--output", type=Path, default=LATEST)
    parser.add_argument("--sections", type=int, default=SECTIONS)
    asked = parser.parse_args(arguments)
    python = maps_python(asked.work.parent)
    facts = machine()
    told = {"machine": facts, **compare(python, asked.work, asked.sections)}
    facts["load at the end"] = load()
    asked.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(table(told))
    return 0


def compare(python: str, work: Path, sections: int) -> dict[str, Any]:
    """Ask both sides, and return what they say."""
    import cv2

    import atldld
    import published_set
    from atldld.testing import AllenServer

    shutil.rmtree(work, ignore_errors=True)
    (work / "set").mkdir(parents=True)
    phantoms = datasets(sections)
    published_set.write(work / "set", phantoms, ANIMAL, MICRONS)
    with AllenServer(phantoms) as server:
        given = {"folder": str(work), "url": server.url, "dataset": DATASETS[0]}
        with atldld.set_options(cache_dir=work / "cache"):
            for phantom in phantoms:
                folder = work / "pictures" / ANIMAL / str(phantom.id) / "10um_new"
                folder.mkdir(parents=True)
                for image in map(phantom.image, phantom.image_ids):
                    pixels = atldld.open_image(image["id"], tier=0, source=server.url).values
                    # Grey, as it reads all; the name is the one that it asks for.
                    _, body = cv2.imencode(".png", np.rint(pixels @ GREY).astype(np.uint8))
                    name = published_set.name_of(image)
                    (folder / f"{name}.jpg").write_bytes(body.tobytes())
            placed = [_placed(python, work, server.url, phantom) for phantom in phantoms]
        theirs = run_job("published_peer", "volume", given, python=python)
        environment = {"ATLDLD_CACHE_DIR": str(work / "cache")}
        ours = {
            name: run_job("published", name, given, environment=environment)
            for name in ("warm", "planes", "slabs", "volume")
        }
        errors = _errors(work, phantoms[0], server.url)
    return {
        "sections": sections,
        "placed": placed,
        "errors": errors,
        "runs": {name: run.to_json() for name, run in {"theirs": theirs, **ours}.items()},
    }


def datasets(sections: int) -> list[Any]:
    """Return the experiments of the animal, whose every place has its own colour."""
    import published_set
    from atldld.testing import PhantomBrain, phantom_dataset

    return [
        phantom_dataset(
            dataset_id=number,
            plane="coronal",
            tilt=3,
            sections=sections,
            brain=PhantomBrain(texture="smooth"),
            resolution=MICRONS,
            seed=_SEED + place,
            tier_count=4,
        ).altered(published_set.of_animal(ANIMAL))
        for place, number in enumerate(DATASETS)
    ]


def _placed(python: str, work: Path, url: str, phantom: Any) -> dict[str, Any]:
    """Return how the two sides differ in the places and values of the pixels of an experiment."""
    import pandas as pd
    import xarray as xr

    import atldld
    import published_set

    options: dict[str, Any] = {"registration": work / "set", "source": url}
    given = {"folder": str(work), "dataset": phantom.id, "resolution": 25}
    run_job("published_peer", "points", given, python=python)
    with np.load(work / "points-25.npz") as file:
        answers = dict(file)
    sections = atldld.open_dataarray(phantom.id, resolution=25, masked=True, tier=0, **options)
    edges = _edges(work)
    apart, shift, levels = [], [], []
    start = 0
    random = np.random.default_rng(_SEED)
    for image in map(phantom.image, phantom.image_ids):
        name = published_set.name_of(image)
        row, column = answers[f"row-{name}"], answers[f"column-{name}"]
        values, places = (answers[each][start:][: row.size] for each in ("values", "places"))
        start += row.size
        width, height = published_set.small(image, MICRONS)[1]
        inside = (row >= 2) & (row < height - 2) & (column >= 2) & (column < width - 2)
        some = random.choice(np.flatnonzero(inside), _SOME, replace=False)
        # The pixel of the picture of 25 microns that it shows there, by its middle.
        frame = pd.DataFrame(
            {
                "image_id": image["id"],
                "x": (column.ravel()[some] + 0.5) * image["width"] / width - 0.5,
                "y": (row.ravel()[some] + 0.5) * image["height"] / height - 0.5,
            }
        )
        ours = atldld.sections_to_points(phantom.id, frame, **options).to_numpy()
        u, v = edges[name]
        half = u / row.shape[1] / 2 + v / row.shape[0] / 2
        shift.append(_pir(places[some]) - ours)
        apart.append(_pir(places[some] + half) - ours)
        section = sections.sel(section=image["section_number"]).compute()
        at = {
            "y": xr.DataArray(ours[:, 1], dims="point"),
            "x": xr.DataArray(ours[:, 2], dims="point"),
        }
        levels.append(values[some] - section.interp(at).values @ GREY)
    across = np.concatenate(apart)
    off = np.abs(np.concatenate(levels))
    return {
        "dataset": phantom.id,
        "points": len(off),
        "shift": np.nanmean(np.concatenate(shift), axis=0).tolist(),
        "mean_apart": np.nanmean(np.abs(across), axis=0).tolist(),
        "most_apart": np.nanmax(np.abs(across), axis=0).tolist(),
        "mean_levels": float(np.nanmean(off)),
        "within_one": float(np.mean(off[np.isfinite(off)] <= 1)),
        "most_levels": float(np.nanmax(off)),
    }


def _pir(voxels: Any) -> Any:
    """Return p, i, r in microns of places that count voxels of CCFv3 at 25 microns."""
    x, y, z = voxels.T
    return np.stack([25 * (528 - y), 25 * (320 - z), 25 * x], axis=1)


def _edges(work: Path) -> dict[str, tuple[Any, Any]]:
    """Return u and v of the anchoring of each picture, by its name."""
    path = work / "set" / "QUINT_registration_jsons" / f"{ANIMAL}.json"
    return {
        Path(each["filename"]).stem: (
            np.array(each["anchoring"][3:6]), np.array(each["anchoring"][6:]),
        )
        for each in json.loads(path.read_text())["slices"]
    }  # fmt: skip


def _errors(work: Path, phantom: Any, url: str) -> dict[str, Any]:
    """Return how far the values of both volumes are off the phantom's, at the peer's voxels."""
    import published_set

    with np.load(work / "volume.npz") as file:
        theirs = dict(file)
    with np.load(work / "slabs.npz") as file:
        ours = dict(file)
    # Where one section alone was put, amid the volume.
    x, y, z = theirs["places"].T
    p, i, r = 25.0 * (551.5 - y), 25.0 * (319.5 - z), 25.0 * (x + 0.5)
    alone = theirs["counts"] == 1
    best, which = np.full(len(p), np.inf), np.full(len(p), -1)
    truth = np.full(len(p), np.nan)
    plane = np.full(len(p), np.nan)
    for number, image in enumerate(map(phantom.image, phantom.image_ids)):
        a, b = published_set.straight_pixels(phantom, image, i, r)
        lies = phantom.pir(image["id"], a, b)[0]
        nearer = np.abs(lies - p) < best
        best[nearer], which[nearer], plane[nearer] = np.abs(lies - p)[nearer], number, lies[nearer]
        x, y, known = published_set.bent_pixels(phantom, image, i[nearer], r[nearer], MICRONS)
        inward = np.minimum.reduce([x, y, image["width"] - 1 - x, image["height"] - 1 - y])
        grey = phantom.brain.colour(*phantom.pir(image["id"], x, y)) @ GREY
        truth[nearer] = np.where(known & (inward > 50), grey, np.nan)
    there = alone & np.isfinite(truth) & (best < 40)
    off = np.abs(theirs["values"] - truth)[there]
    x, y, z = theirs["places"][there].T
    own = ours["values"][551 - y, 319 - z, x] @ GREY
    shown = ours["shown"][551 - y, 319 - z, x]
    own_off = np.abs(own - truth[there])[shown]
    return {
        "voxels": int(there.sum()),
        "theirs": [float(off.mean()), float(np.percentile(off, 99))],
        "ours": [float(own_off.mean()), float(np.percentile(own_off, 99))],
        "ours_shown": float(shown.mean()),
        "theirs_behind": float((p - plane)[there].mean()),
    }


def _begin(given: Mapping[str, Any]) -> None:
    """Import and begin what a call begins with: a corner of a section of the other experiment."""
    import atldld

    atldld.open_dataarray(
        DATASETS[1],
        resolution=100,
        region={"i": (4000, 4400), "r": (5000, 5400)},
        registration=str(Path(given["folder"]) / "set"),
        source=given["url"],
    ).isel(section=[0]).compute()


def warm(given: Mapping[str, Any], run: Run) -> None:
    """Fetch what the others read, which is no part of them."""
    with run.lap("warm"):
        _opened(given, resolution=25).image.atlas.prefetch()


def volume(given: Mapping[str, Any], run: Run) -> None:
    """Open an experiment as a volume with all defaults."""
    _begin(given)
    with run.lap("volume"):
        _opened(given, resolution=25).image.compute()


def slabs(given: Mapping[str, Any], run: Run) -> None:
    """Put each section into the voxels that it passes through, as the peer does."""
    import xarray as xr

    # Its voxels, by their middles: they reach as far back as those of the extended atlas.
    axes = {axis: 12.5 + 25.0 * np.arange(count) for axis, count in _VOXELS.items()}
    like = xr.Dataset(coords=axes)
    _begin(given)
    with run.lap("volume"):
        found = _opened(given, like=like, max_distance=25).compute()
    np.savez(
        Path(given["folder"]) / "slabs.npz",
        values=found.image.values,
        shown=found.section_number.values >= 0,
    )


def _opened(given: Mapping[str, Any], **options: Any) -> Any:
    import atldld

    return atldld.open_volume(
        given["dataset"],
        registration=str(Path(given["folder"]) / "set"),
        source=given["url"],
        **options,
    )


def planes(given: Mapping[str, Any], run: Run) -> None:
    """Put each section onto its own plane, three colours."""
    import atldld

    _begin(given)
    with run.lap("volume"):
        atldld.open_dataarray(
            given["dataset"],
            resolution=25,
            registration=str(Path(given["folder"]) / "set"),
            source=given["url"],
        ).compute()


JOBS: dict[str, Job] = {"warm": warm, "volume": volume, "slabs": slabs, "planes": planes}

_ROWS = (
    ("theirs", "`id_to_volume(id, ..., resolution=25, mode='histology')`", "theirs"),
    ("planes", "`open_dataarray(id, resolution=25, registration=...)`", ""),
    ("slabs", "`open_volume(id, like=<its voxels>, max_distance=25, registration=...)`", "ours"),
    ("volume", "`open_volume(id, resolution=25, registration=...)`", ""),
)
_WHAT = {
    "theirs": "one grey value in the voxels that sections pass through",
    "planes": "three colours on the plane of each section",
    "slabs": "three colours in the voxels within 25 um of a section, and which section it is",
    "volume": "three colours in every voxel within half a gap of a section",
}


def table(told: Mapping[str, Any]) -> str:
    """Return measurements as tables in Markdown."""
    lines = [
        "| call | gives | seconds | processor s | peak MB | off the phantom: mean, 99 % |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, call, errors in _ROWS:
        run = Run.from_json(told["runs"][name])
        off = ", ".join(f"{each:.2f}" for each in told["errors"][errors]) if errors else ""
        lines.append(
            f"| {call} | {_WHAT[name]} | {run.wall('volume'):.1f} | {run.cpu('volume'):.1f} | "
            f"{run.peak_bytes / 1e6:,.0f} | {off} |"
        )
    lines += [
        "",
        "| experiment | points | its place less ours along i, r, um | once half a pixel is added: "
        "mean, most along i and r, um | values: mean apart, within one level, most |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for each in told["placed"]:
        shift = ", ".join(f"{value:.1f}" for value in each["shift"][1:])
        mean, most = max(each["mean_apart"][1:]), max(each["most_apart"][1:])
        lines.append(
            f"| {each['dataset']} | {each['points']:,} | {shift} | {mean:.1f}, {most:.1f} | "
            f"{each['mean_levels']:.2f}, {each['within_one']:.1%}, {each['most_levels']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in JOBS:
        answer(JOBS)
    else:
        sys.exit(main())
