"""What a download left in its folder, and the tables beside the images."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..model.info import DatasetInfo
from .files import write_whole

TABLE = "sections.csv"
DESCRIPTION = "dataset.json"


@dataclass
class Saved:
    """What a download left in its folder.

    Parameters
    ----------
    dataset_id
        Of the dataset.
    files
        Names of the images, by ascending section number.
    bytes
        Of these files.
    kept
        How many of them were there before.
    errors
        What could not be had, in words.
    """

    dataset_id: int
    files: list[str] = field(default_factory=list)
    bytes: int = 0
    kept: int = 0
    errors: list[str] = field(default_factory=list)


def write_tables(folder: Path, info: DatasetInfo, rows: Sequence[dict[str, Any]]) -> None:
    """Write what images are, and what their dataset is.

    Parameters
    ----------
    folder
        Where the images are.
    info
        Of the dataset.
    rows
        A row an image, all with the same columns.
    """
    from ..arrays.describe import CITATION

    if rows:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(folder / TABLE, text.getvalue().encode())
    described = {**info.to_dict(), "citation": CITATION.format(id=info.dataset_id)}
    text_of_it = json.dumps(described, indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(folder / DESCRIPTION, text_of_it.encode())


def file_name(number: int | None, image_id: int, view: str, ending: str) -> str:
    """Return the name of an image's file; files sort as the sections do.

    Examples
    --------
    >>> file_name(70, 69177654, "image", "jpg"), file_name(None, 7, "expression", "png")
    ('0070_69177654.jpg', '____7_expression.png')
    """
    head = "___" if number is None else f"{number:04d}"
    return f"{head}_{image_id}{'' if view == 'image' else f'_{view}'}.{ending}"
