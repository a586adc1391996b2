"""What atldld 0.3.4 answers: run by its own interpreter, driven through its documented interface.

``python -m benchmarks.peer_answers FOLDER`` reads ``cases.json`` and ``given.npz`` from the
folder, and writes ``answers.npz`` and the fields beside them. Uses nothing of this repository
but where requests are led.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np


def transforms(folder: Path, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the image coordinates of each case, and save its field."""
    from atldld.sync import get_parallel_transform

    answers = {}
    for number, case in enumerate(cases):
        field = get_parallel_transform(
            case["slice_coordinate"],
            np.array(case["tvs"]),
            np.array(case["trv"]),
            axis=case["axis"],
            downsample_ref=case["downsample_ref"],
            downsample_img=case["downsample_img"],
        )
        answers[f"x{number}"], answers[f"y{number}"] = field.transformation
        answers[f"norm{number}"] = field.norm
        field.save(folder / f"field{number}.npy")
    return answers


def points(given: dict[str, Any]) -> dict[str, Any]:
    """Return points taken to an image and to reference space."""
    from atldld.sync import pir_to_xy, xy_to_pir

    answers = {}
    for number in range(len(given["tvs"])):
        answers[f"xy{number}"] = pir_to_xy(given["pir"], given["tvs"][number], given["trv"][number])
        answers[f"pir{number}"] = xy_to_pir(
            given["xyz"], given["tsv"][number], given["tvr"][number]
        )
    return answers


def warps(folder: Path, given: dict[str, Any], wanted: dict[str, list[Any]]) -> dict[str, Any]:
    """Return images warped with the saved fields."""
    from atldld.base import DisplacementField

    answers = {}
    for number in wanted["fields"]:
        field = DisplacementField.from_file(folder / f"field{number}.npy")
        for image in wanted["images"]:
            for interpolation in wanted["interpolations"]:
                for border in wanted["borders"]:
                    answers[f"warp-{number}-{image}-{interpolation}-{border}"] = field.warp(
                        given[image], interpolation=interpolation, border_mode=border
                    )
    return answers


def downloads(wanted: dict[str, Any]) -> dict[str, Any]:
    """Return what its DatasetDownloader yields for each dataset of a server."""
    from atldld.sync import DatasetDownloader

    answers = {}
    with led_to(wanted["url"]):
        for dataset_id in wanted["datasets"]:
            downloader = DatasetDownloader(dataset_id, **wanted["options"])
            downloader.fetch_metadata()
            for place, (image_id, where, image, expression, field) in enumerate(downloader.run()):
                name = f"download-{dataset_id}-{place}"
                answers[f"{name}-id"] = image_id
                answers[f"{name}-where"] = where
                answers[f"{name}-image"] = image
                answers[f"{name}-expression"] = expression
                answers[f"{name}-x"], answers[f"{name}-y"] = field.transformation
    return answers


def led_to(served: str) -> Any:
    """Lead requests for the real service, the only one that it knows, to another address."""
    import requests

    asked = requests.Session.request

    def request(self: Any, method: str, url: str, **options: Any) -> Any:
        for scheme in ("https", "http"):
            url = url.replace(f"{scheme}://api.brain-map.org/api/v2", served)
        return asked(self, method, url, **options)

    return mock.patch.object(requests.Session, "request", request)


def main(folder: Path) -> None:
    import cv2

    import atldld

    wanted = json.loads((folder / "cases.json").read_text())
    with np.load(folder / "given.npz") as file:
        given = dict(file)
    np.savez(
        folder / "answers.npz",
        **transforms(folder, wanted["cases"]),
        **points(given),
        **warps(folder, given, wanted["warps"]),
        **downloads(wanted["downloads"]),
    )
    print(
        f"atldld {getattr(atldld, '__version__', '0.3.4')}, OpenCV {cv2.__version__}, "
        f"numpy {np.__version__}"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
