"""Section images and registered sections in files, with tables of what they are."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import xarray as xr

from ..arrays.opening import open_dataarray
from ..arrays.positions import axes_along
from ..errors import ImageError, RegistrationError
from ..export.whole_files import replacing
from ..model.affine import tier_size
from ..model.info import DatasetInfo, ImageSummary
from ..model.read import ImageRead, View
from ..reading.images import progress, sound
from ..source import Source, image_ending, source_from
from ..source.jpeg import decode, jpeg_fault
from ..source.prefetch import fetch_each
from ..source.search import dataset_info

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
    tiers
        How many of the images have which tier, where they are as the service sends them.
    """

    dataset_id: int
    files: list[str] = field(default_factory=list)
    bytes: int = 0
    kept: int = 0
    errors: list[str] = field(default_factory=list)
    tiers: dict[int, int] = field(default_factory=dict)


def write_tables(
    folder: Path,
    info: DatasetInfo,
    rows: Sequence[dict[str, Any]],
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write what images are, and what their dataset is.

    Parameters
    ----------
    folder
        Where the images are.
    info
        Of the dataset.
    rows
        A row an image, all with the same columns. Rows that are there already of other images
        follow them, where these are there as well.
    attributes
        Of the array that registered sections came from.
    """
    from ..arrays.base import CITATION

    if rows:
        every = [*rows, *_left_there(folder, {row["file"] for row in rows})]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(chain(*every))), lineterminator="\n")
        writer.writeheader()
        writer.writerows(every)
        write_whole(folder / TABLE, text.getvalue().encode())
    described = {**info.to_dict(), "citation": CITATION.format(id=info.dataset_id)}
    for name in ("reference_space_name", "registration", "citation"):
        if attributes is not None:
            described[name] = attributes[name]
    text_of_it = json.dumps(described, indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(folder / DESCRIPTION, text_of_it.encode())


def _left_there(folder: Path, written: set[str]) -> list[dict[str, Any]]:
    """Return what the table that is there says of files that are there, and were not written now.

    They may be of another view, grid or dataset, and so may the columns.
    """
    try:
        text = (folder / TABLE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    rows = [row for row in csv.DictReader(io.StringIO(text)) if None not in row]
    return [
        row
        for row in rows
        if (name := row.get("file")) and name not in written and (folder / name).is_file()
    ]


def file_name(number: int | None, image_id: int, view: str, ending: str) -> str:
    """Return the name of an image's file; files sort as the sections do.

    Examples
    --------
    >>> file_name(70, 69177654, "image", "jpg"), file_name(None, 7, "expression", "png")
    ('0070_69177654.jpg', '____7_expression.png')
    """
    head = "___" if number is None else f"{number:04d}"
    return f"{head}_{image_id}{'' if view == 'image' else f'_{view}'}.{ending}"


Wanted = dict[ImageRead, tuple[str, ImageSummary]]


def save_images(
    dataset_id: int,
    folder: Path,
    *,
    views: tuple[str, ...] = ("image",),
    tier: int = 0,
    images: tuple[int, ...] = (),
    failed: bool = False,
    source: str | Source | None = None,
) -> Saved:
    """Save whole section images as the service sends them (JPEG), or a bucket has them (PNG).

    A file that is there, whole and of the right size, is left as it is.

    Parameters
    ----------
    dataset_id
        The dataset, which need not have a registration.
    folder
        Where they go.
    views, tier
        Which images of a section. No section is read past its last tier; one without an
        expression mask has no expression views.
    images
        Ids of the only images to save; empty for all.
    failed
        Whether to save those that failed quality control, too.
    source
        Where they come from.

    Raises
    ------
    ValueError
        If an image does not belong to the dataset.
    RegistrationError
        If there is nothing to save.
    """
    origin = source_from(source)
    info = dataset_info(dataset_id, source=origin)
    wanted = _wanted(info, views, tier, images, failed, image_ending(origin))
    saved = Saved(dataset_id)
    folder.mkdir(parents=True, exist_ok=True)
    sizes: dict[str, int] = {}
    to_fetch = []
    for read, (name, _) in wanted.items():
        size = _whole_size(folder / name, read)
        if size is None:
            to_fetch.append(read)
        else:
            sizes[name] = size
    saved.kept = len(sizes)
    with progress(len(to_fetch), "Downloading images") as shown:
        for read, body in fetch_each(origin, to_fetch, ahead=16):
            name = wanted[read][0]
            try:
                if isinstance(body, ImageError):
                    raise body
                content, _ = sound(origin, read, body)
                write_whole(folder / name, content)
                sizes[name] = len(content)
            except ImageError as error:
                saved.errors.append(str(error))
            shown.update(1)
    saved.files = [name for name, _ in wanted.values() if name in sizes]
    saved.bytes = sum(sizes.values())
    saved.tiers = dict(Counter(read.tier for read, (name, _) in wanted.items() if name in sizes))
    write_tables(
        folder,
        info,
        [
            _row(info, origin, read, name, image)
            for read, (name, image) in wanted.items()
            if name in sizes
        ],
    )
    return saved


def _wanted(
    info: DatasetInfo,
    views: tuple[str, ...],
    tier: int,
    images: tuple[int, ...],
    failed: bool,
    ending: str,
) -> Wanted:
    """Return the reads, each with the name of its file and its image."""
    strange = set(images) - {image.image_id for image in info.images}
    if strange:
        raise ValueError(
            f"dataset {info.dataset_id} has no image {', '.join(map(str, sorted(strange)))}"
        )
    found: Wanted = {}
    for image in info.images:
        if (images and image.image_id not in images) or (
            image.failed and not failed and not images
        ):
            continue
        for view in views:
            if not image.width or not image.height:
                continue
            if view.startswith("expression") and not image.has_expression:
                continue
            last = 30 if image.tier_count is None else max(image.tier_count - 1, 0)
            at = min(tier, last)
            read = ImageRead(
                image.image_id,
                cast(View, view),
                at,
                tier_size(image.width, at),
                tier_size(image.height, at),
                image.x or 0,
                image.y or 0,
                dataset_id=info.dataset_id,
                section_number=image.section_number,
            )
            found[read] = file_name(image.section_number, image.image_id, view, ending), image
    if not found:
        raise RegistrationError(
            f"dataset {info.dataset_id} has no section image to download as {' or '.join(views)}"
        )
    return found


def _whole_size(path: Path, read: ImageRead) -> int | None:
    """Return the bytes of a file that holds a read, or None if it does not."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if path.suffix == ".png":
        try:
            return len(content) if decode(content).shape[1::-1] == read.size else None
        except ValueError:
            return None
    return len(content) if jpeg_fault(content, read.size) is None else None


def _row(
    info: DatasetInfo, source: Source, read: ImageRead, name: str, image: ImageSummary
) -> dict[str, Any]:
    place = image.slice_coordinate
    return {
        "file": name,
        "dataset_id": info.dataset_id,
        "gene": ", ".join(info.genes),
        "section_number": image.section_number,
        "image_id": image.image_id,
        "view": read.view,
        "tier": read.tier,
        "width": read.width,
        "height": read.height,
        "microns_per_pixel": image.resolution * 2**read.tier if image.resolution > 0 else "",
        "slice_axis": info.axis,
        "slice_coordinate": round(place, 3) if place == place else "",
        "failed": image.failed,
        "url": source.url(read),
    }


_AT_ONCE = 4
"""Sections that are computed together."""


def save_planes(
    dataset_id: int,
    folder: Path,
    *,
    views: tuple[str, ...] = ("image",),
    resolution: float = 25,
    tier: int | Literal["auto"] = "auto",
    region: Mapping[str, tuple[float, float]] | None = None,
    registration: str | None = None,
    source: str | Source | None = None,
) -> Saved:
    """Save the sections of a dataset, registered, as PNG files.

    Row j and column k of a picture lie at ``first_row + j * step`` and ``first_column + k *
    step`` microns on the axes that the table names. Images are kept in the cache, so that a
    command that was stopped fetches nothing again.

    Parameters
    ----------
    dataset_id
        The dataset.
    folder
        Where they go.
    views, resolution, tier, region, registration
        As for `atldld.open_dataarray`; a view without an expression mask is left out.
    source
        Where images come from.

    Raises
    ------
    ValueError, RegistrationError, APIError
        As `atldld.open_dataarray`.
    """
    origin = source_from(source)
    opened = {
        view: open_dataarray(
            dataset_id,
            resolution=resolution,
            tier=tier,
            view=cast(View, view),
            region=region,
            registration=registration,
            on_error="fill",
            chunks={"section": 1},
            source=origin,
        )
        for view in views
    }
    folder.mkdir(parents=True, exist_ok=True)
    saved = Saved(dataset_id)
    rows: list[dict[str, Any]] = []
    for view, sections in opened.items():
        sections.atlas.prefetch()
        filled: set[int] = set()
        with progress(sections.sizes["section"], f"Warping {view}") as shown:
            for first in range(0, sections.sizes["section"], _AT_ONCE):
                part = sections.isel(section=slice(first, first + _AT_ONCE)).compute()
                filled |= _filled(part, saved)
                rows += [
                    _save(plane, view, folder, saved)
                    for plane in part
                    if int(plane.image_id) not in filled
                ]
                shown.update(part.sizes["section"])
    rows.sort(key=lambda row: (row["section_number"], row["file"]))
    saved.files = [row["file"] for row in rows]
    attributes = next(iter(opened.values())).attrs
    write_tables(folder, dataset_info(dataset_id, source=origin), rows, attributes)
    return saved


def _filled(part: xr.DataArray, saved: Saved) -> set[int]:
    """Return the ids of images that could not be had, and note why."""
    failures = part.atlas.failures()
    bad = failures[failures["outcome"] == "filled"]
    for reason in bad["reason"]:
        if reason not in saved.errors:
            saved.errors.append(reason)
    return set(bad["image_id"].tolist())


def _save(plane: xr.DataArray, view: str, folder: Path, saved: Saved) -> dict[str, Any]:
    import cv2

    pixels = plane.values[..., ::-1] if plane.ndim == 3 else plane.values
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(pixels))
    number, image_id = int(plane.section), int(plane.image_id)
    name = file_name(number, image_id, view, "png")
    write_whole(folder / name, encoded.tobytes())
    saved.bytes += len(encoded)
    axes = axes_along(plane)
    along, down, across = (axes[dims] for dims in ((), ("y",), ("x",)))
    return {
        "file": name,
        "dataset_id": plane.attrs["dataset_id"],
        "gene": plane.attrs["gene"],
        "section_number": number,
        "image_id": image_id,
        "view": view,
        "tier": int(plane.tier),
        "slice_axis": along,
        "slice_coordinate": round(float(plane[along]), 3),
        "row_axis": down,
        "first_row": float(plane.y[0]),
        "column_axis": across,
        "first_column": float(plane.x[0]),
        "step": plane.attrs["resolution_microns"],
        "reference_space": plane.attrs["reference_space"],
    }


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, or leave what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, overwrite=True) as unfinished:
        unfinished.write_bytes(content)
