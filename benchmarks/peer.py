"""Whether this package answers as atldld 0.3.4 does, where that is right.

``python -m benchmarks.peer`` makes an environment of its own for atldld 0.3.4, with the OpenCV of
this one, asks both sides the same, prints a table, and ends with 1 where they disagree.

atldld 0.3.4 takes points through the matrices in float32: its coordinates are microns of up to
13200, which float32 holds in steps of 1/1024, and each of two products adds a few such steps.
Differences are therefore some thousandths of a full-resolution pixel, times microns per pixel
where that is not 1, and half of that for each halving of the image. Fields of this package are
float64 until they are rounded, once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import atldld
from atldld.sync import (
    DatasetDownloader,
    DisplacementField,
    get_parallel_transform,
    pir_to_xy,
    xy_to_pir,
)
from atldld.testing import AllenServer, PhantomBrain, phantom_dataset

from .environment import peer_python

ROOT = Path(__file__).resolve().parent.parent
AXES = {"coronal": 0, "transverse": 1, "sagittal": 2}
STEPS = (10, 25, 50, 100, 333)
TIERS = (0, 1, 2, 4)
INTERPOLATIONS = ("nearest", "linear", "cubic", "area", "lanczos")
BORDERS = ("constant", "replicate", "reflect", "wrap", "reflect_101")

PIXELS = 0.02
MICRONS = 0.02
LEVELS = 1.0
REACH = 5.0
"""Pixels from the border of an image within which a kernel may reach over it."""


@dataclass(frozen=True)
class Comparison:
    """One line of the table.

    Parameters
    ----------
    what
        What was compared.
    count
        How many numbers.
    largest
        The largest difference.
    allowed
        The largest difference that agrees, or None where none is asked for.
    unit
        Of both.
    """

    what: str
    count: int
    largest: float
    allowed: float | None
    unit: str

    @property
    def agrees(self) -> bool:
        """Whether the difference is allowed."""
        return self.allowed is None or self.largest <= self.allowed

    def line(self) -> str:
        """Return the comparison as a line of the table."""
        allowed = "-" if self.allowed is None else f"{self.allowed:g}"
        said = "" if self.allowed is None else "agrees" if self.agrees else "DISAGREES"
        return (
            f"{self.what:<54} {self.count:>10} {self.largest:>12.3g} {allowed:>8} "
            f"{self.unit:<11} {said}"
        )


def six_digits(matrix: Any) -> Any:
    """Round as the service does."""
    return [[float(f"{value:.6g}") for value in row] for row in matrix]


def random_matrices(rng: np.random.Generator, axis: int) -> dict[str, Any]:
    """Return trv, tvr, tvs, tsv of a tilted stack, with six significant digits."""
    others = [other for other in range(3) if other != axis]
    linear = np.zeros((3, 3))
    linear[0, others[0]], linear[1, others[1]], linear[2, axis] = rng.choice([-1, 1], 3)
    linear = linear @ turn(rng.uniform(-0.35, 0.35, 3)) * rng.uniform(0.9, 1.1, (3, 1))
    trv = np.concatenate([linear, rng.uniform(-3000, 3000, (3, 1))], axis=1)
    angle, zoom = rng.uniform(-np.pi, np.pi), rng.uniform(0.3, 2.0)
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    tvs = np.array([[cos, sin, 0.0], [-sin, cos, 0.0]])
    tvs[:, 2] = rng.uniform(-5000, 5000, 2)
    return {
        "trv": six_digits(trv),
        "tvr": six_digits(inverse(trv)),
        "tvs": six_digits(tvs),
        "tsv": six_digits(inverse(tvs)),
    }


def turn(angles: Any) -> Any:
    out = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = (other for other in range(3) if other != axis)
        one = np.eye(3)
        one[first, first] = one[second, second] = np.cos(angle)
        one[first, second], one[second, first] = np.sin(angle), -np.sin(angle)
        out = out @ one
    return out


def inverse(matrix: Any) -> Any:
    back = np.linalg.inv(matrix[:, :-1])
    return np.concatenate([back, -back @ matrix[:, -1:]], axis=1)


def random_cases(rng: np.random.Generator, rounds: int) -> list[dict[str, Any]]:
    """Return cases of every axis, step and tier."""
    return [
        {
            **random_matrices(rng, number),
            "axis": axis,
            "slice_coordinate": float(rng.uniform(0, (13200, 8000, 11400)[number])),
            "downsample_ref": step,
            "downsample_img": tier,
        }
        for _ in range(rounds)
        for axis, number in AXES.items()
        for step in STEPS
        for tier in TIERS
    ]


def fitting_cases(rng: np.random.Generator, size: int) -> list[dict[str, Any]]:
    """Return cases whose grids lie askew on an image, and reach over its border."""
    cases = random_cases(rng, 1)
    chosen = [
        case for case in cases if case["downsample_ref"] == 25 and case["downsample_img"] == 1
    ]
    for case in chosen:
        field = get_parallel_transform(
            case["slice_coordinate"], case["tvs"], case["trv"], case["axis"], 100, 1
        )
        # Shrink and shift the 2-D matrix until the grid covers the image and some more.
        x, y = field.transformation
        scale = 1.3 * size / max(np.ptp(x), np.ptp(y))
        tvs = np.array(case["tvs"]) * scale
        tvs[:, 2] += 2 * (size / 2 - scale * np.array([x.mean(), y.mean()]))
        case["tvs"] = six_digits(tvs)
    return chosen


def images(rng: np.random.Generator, size: int) -> dict[str, Any]:
    """Return noise to tell kernels apart, and a smooth image that a small shift hardly changes."""
    rows, columns = np.mgrid[:size, : size + 7]
    smooth = 128 + 60 * np.sin(columns / 90) + 60 * np.cos(rows / 70)
    noise = rng.integers(0, 256, (size, size + 7, 3))
    return {
        "grey": noise[..., 0].astype(np.uint8),
        "colour": noise.astype(np.uint8),
        "float": noise[..., 0].astype(np.float32),
        "smooth": np.rint(smooth).astype(np.uint8),
    }


def difference(ours: Any, theirs: Any) -> Any:
    return np.abs(np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64))


def compare_transforms(
    cases: list[dict[str, Any]], answers: dict[str, Any], folder: Path
) -> Iterator[Comparison]:
    found: dict[tuple[str, int], list[Any]] = {}
    read_back = norms = 0.0
    for number, case in enumerate(cases):
        arguments = (
            case["slice_coordinate"], case["tvs"], case["trv"], case["axis"],
            case["downsample_ref"], case["downsample_img"],
        )  # fmt: skip
        field = get_parallel_transform(*arguments)
        theirs = answers[f"x{number}"], answers[f"y{number}"]
        if field.shape != theirs[0].shape:
            raise SystemExit(f"{arguments}: {field.shape} here, {theirs[0].shape} there")
        worst = found.setdefault((case["axis"], case["downsample_img"]), [])
        worst.extend(
            (mine.size, difference(mine, its).max())
            for mine, its in zip(field.transformation, theirs, strict=True)
        )
        saved = DisplacementField.from_file(folder / f"field{number}.npy")
        for mine, its in zip(saved.transformation, theirs, strict=True):
            read_back = max(read_back, difference(mine, its).max())
        norms = max(norms, difference(saved.norm, answers[f"norm{number}"]).max())
    for (axis, tier), worst in found.items():
        yield Comparison(
            f"get_parallel_transform, {axis}, downsample_img={tier}",
            sum(count for count, _ in worst),
            max(largest for _, largest in worst),
            PIXELS,
            "pixels",
        )
    yield Comparison("fields that it saved, read here", len(cases), read_back, 0.0, "pixels")
    yield Comparison("norms of these", len(cases), norms, PIXELS, "pixels")


def compare_points(given: dict[str, Any], answers: dict[str, Any]) -> Iterator[Comparison]:
    xy = pir = 0.0
    for number in range(len(given["tvs"])):
        tvs, trv, tsv, tvr = (given[name][number] for name in ("tvs", "trv", "tsv", "tvr"))
        xy = max(xy, difference(pir_to_xy(given["pir"], tvs, trv), answers[f"xy{number}"]).max())
        pir = max(pir, difference(xy_to_pir(given["xyz"], tsv, tvr), answers[f"pir{number}"]).max())
    count = 3 * len(given["tvs"]) * given["pir"].shape[1]
    yield Comparison("pir_to_xy", count, xy, PIXELS, "pixels")
    yield Comparison("xy_to_pir", count, pir, MICRONS, "microns")


def compare_warps(
    cases: list[dict[str, Any]], numbers: list[int], given: dict[str, Any],
    answers: dict[str, Any], folder: Path,
) -> Iterator[Comparison]:  # fmt: skip
    for interpolation in INTERPOLATIONS:
        for border in BORDERS:
            inside, outside, count, rest = 0.0, 0.0, 0, 0
            for number in numbers:
                field = DisplacementField.from_file(folder / f"field{number}.npy")
                for name in ("grey", "colour", "float"):
                    theirs = answers[f"warp-{number}-{name}-{interpolation}-{border}"]
                    ours = field.warp(given[name], interpolation, border)
                    apart = difference(ours, theirs).reshape(*field.shape, -1).max(axis=-1)
                    deep = within(field, given[name].shape)
                    inside = max(inside, apart[deep].max())
                    outside = max(outside, apart[~deep].max())
                    count, rest = count + int(deep.sum()), rest + int((~deep).sum())
            what = f"warp, {interpolation}, {border}"
            yield Comparison(what, count, inside, LEVELS, "grey levels")
            yield Comparison("  at its borders and beyond", rest, outside, None, "grey levels")
        worst, count = 0.0, 0
        for number in numbers:
            case = cases[number]
            field = get_parallel_transform(
                case["slice_coordinate"], case["tvs"], case["trv"], case["axis"],
                case["downsample_ref"], case["downsample_img"],
            )  # fmt: skip
            theirs = answers[f"warp-{number}-smooth-{interpolation}-constant"]
            apart = difference(field.warp(given["smooth"], interpolation), theirs)
            deep = within(field, given["smooth"].shape)
            worst, count = max(worst, apart[deep].max()), count + int(deep.sum())
        yield Comparison(
            f"warp, {interpolation}, each with its own field", count, worst, LEVELS, "grey levels"
        )


def within(field: DisplacementField, shape: tuple[int, ...]) -> Any:
    """Return which points lie so deep in an image that no kernel reaches its border."""
    x, y = field.transformation
    return (x >= REACH) & (x <= shape[1] - 1 - REACH) & (y >= REACH) & (y <= shape[0] - 1 - REACH)


def compare_downloads(wanted: dict[str, Any], answers: dict[str, Any]) -> Iterator[Comparison]:
    for dataset_id in wanted["datasets"]:
        downloader = DatasetDownloader(dataset_id, **wanted["options"])
        downloader.fetch_metadata()
        where = levels = pixels = 0.0
        for place, section in enumerate(downloader.run()):
            name = f"download-{dataset_id}-{place}"
            if section.image_id != int(answers[f"{name}-id"]):
                raise SystemExit(
                    f"{name} is image {section.image_id} here, {int(answers[f'{name}-id'])} there"
                )
            where = max(where, abs(section.slice_coordinate - float(answers[f"{name}-where"])))
            for mine, its in (
                (section.img, answers[f"{name}-image"]),
                (section.img_expression, answers[f"{name}-expression"]),
            ):
                levels = max(levels, difference(mine, its).max())
            for mine, its in zip(
                section.df.transformation, (answers[f"{name}-x"], answers[f"{name}-y"]), strict=True
            ):
                pixels = max(pixels, difference(mine, its).max())
        what, count = f"DatasetDownloader, dataset {dataset_id}", len(downloader)
        yield Comparison(f"{what}: slice coordinates", count, where, MICRONS, "microns")
        yield Comparison(f"{what}: images", count, levels, LEVELS, "grey levels")
        yield Comparison(f"{what}: fields", count, pixels, PIXELS, "pixels")


def compare(python: str, folder: Path, seed: int, rounds: int) -> list[Comparison]:
    """Ask both sides, and return the table."""
    rng = np.random.default_rng(seed)
    size = 700
    cases = random_cases(rng, rounds)
    numbers = list(range(len(cases), len(cases) + 3))
    cases += fitting_cases(rng, size)
    stacks = [random_matrices(rng, number % 3) for number in range(30)]
    extent = np.array([[13200.0], [8000.0], [11400.0]])
    given = {
        **images(rng, size),
        **{name: np.array([stack[name] for stack in stacks]) for name in stacks[0]},
        "pir": rng.uniform(0, 1, (3, 500)) * extent,
        "xyz": rng.uniform(0, 1, (3, 500)) * np.array([[16000.0], [12000.0], [12000.0]]),
    }
    brain = PhantomBrain(texture="smooth")
    phantoms = [
        phantom_dataset(900 + n, plane, sections=4, brain=brain, resolution=16, seed=seed)
        for n, plane in enumerate(("coronal", "sagittal"))
    ]
    with (
        AllenServer(phantoms) as server,
        atldld.set_options(api_url=server.url, cache_dir=folder / "cache"),
    ):
        wanted = {
            "cases": cases,
            "warps": {
                "fields": numbers,
                "images": ["grey", "colour", "float", "smooth"],
                "interpolations": INTERPOLATIONS,
                "borders": BORDERS,
            },
            "downloads": {
                "url": server.url,
                "datasets": [phantom.id for phantom in phantoms],
                "options": {
                    "detection_xy": [100, 50], "include_expression": True, "downsample_img": 1,
                },
            },
        }  # fmt: skip
        (folder / "cases.json").write_text(json.dumps(wanted))
        np.savez(folder / "given.npz", **given)
        told = subprocess.run(
            [python, "-m", "benchmarks.peer_answers", str(folder)],
            cwd=ROOT,
            env={**os.environ, "XDG_CACHE_HOME": str(folder / "peer-cache")},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        print(f"there: {told.stdout.strip()}")
        with np.load(folder / "answers.npz") as file:
            answers = dict(file)
        return [
            *compare_transforms(cases, answers, folder),
            *compare_points(given, answers),
            *compare_warps(cases, numbers, given, answers, folder),
            *compare_downloads(wanted["downloads"], answers),
        ]


def main() -> int:
    import cv2

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--python", help="interpreter of an environment that has atldld 0.3.4")
    parser.add_argument(
        "--work",
        type=Path,
        default=ROOT / "build" / "benchmarks",
        help="folder that keeps the environment that is made otherwise",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2, help="cases of each axis, step and tier")
    chosen = parser.parse_args()
    python = chosen.python or peer_python(chosen.work)
    print(f"here:  atldld {atldld.__version__}, OpenCV {cv2.__version__}, numpy {np.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        table = compare(python, Path(folder), chosen.seed, chosen.rounds)
    print(f"\n{'':<54} {'compared':>10} {'largest':>12} {'allowed':>8}")
    for comparison in table:
        print(comparison.line())
    wrong = sum(not comparison.agrees for comparison in table)
    print(f"\n{wrong or 'no'} disagreement{'s' if wrong != 1 else ''}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
