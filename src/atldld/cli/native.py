"""Section images as they are, in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from ..errors import ImageError, RegistrationError
from ..model.affine import tier_size
from ..model.info import DatasetInfo, ImageSummary
from ..model.read import ImageRead, View
from ..reading.progress import progress
from ..sampling.decode import decode
from ..source import source_from
from ..source.jpeg import jpeg_fault
from ..source.pool import fetch_each
from ..source.protocol import Source
from ..source.search import dataset_info
from .files import write_whole
from .saved import Saved, file_name, write_tables

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
    """Save whole section images as JPEG files, as the service sends them.

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
    wanted = _wanted(info, views, tier, images, failed)
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
                content = _sound(origin, read, body)
                write_whole(folder / name, content)
                sizes[name] = len(content)
            except ImageError as error:
                saved.errors.append(str(error))
            shown.update(1)
    saved.files = [name for name, _ in wanted.values() if name in sizes]
    saved.bytes = sum(sizes.values())
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
    info: DatasetInfo, views: tuple[str, ...], tier: int, images: tuple[int, ...], failed: bool
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
                dataset_id=info.dataset_id,
                section_number=image.section_number,
            )
            found[read] = file_name(image.section_number, image.image_id, view, "jpg"), image
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
    return len(content) if jpeg_fault(content, read.size) is None else None


def _sound(source: Source, read: ImageRead, body: bytes | ImageError) -> bytes:
    """Return a JPEG that decodes; a damaged one is fetched once more."""
    if isinstance(body, ImageError):
        raise body
    grey = read.view == "expression_mask"
    try:
        decode(body, grey=grey)
        return body
    except ValueError:
        source.discard(read)
    body = source.image(read)
    try:
        decode(body, grey=grey)
    except ValueError as error:
        source.discard(read)
        raise ImageError(
            f"it is damaged, also when fetched again: {error}",
            image_id=read.image_id,
            dataset_id=read.dataset_id,
            section_number=read.section_number,
            url=source.url(read),
        ) from error
    return body


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
