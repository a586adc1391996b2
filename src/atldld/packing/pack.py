"""Packing a dataset into a bundle: exactly the reads that opening it so will need.

A bundle is a finished cache folder: files with their records, and a manifest that is written
last. A zip file is written beside its place, of what is in it already and what the cache and the
source have, and moved there when it is whole.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Literal

import numpy as np

from .. import __version__
from ..arrays.describe import CITATION
from ..errors import BundleError, ImageError
from ..model.read import VIEWS, ImageRead, View
from ..options import current
from ..reading.images import decoded_bytes
from ..reading.progress import Progress, progress
from ..sampling.decode import decode
from ..source import source_from
from ..source.jpeg import jpeg_fault
from ..source.prefetch import fetch_each
from ..source.protocol import Source
from ..source.stored import StoredSource
from ..store.location import Location
from ..store.locks import locked
from ..store.manifest import MOST_FILES, Checked, Manifest, section_of
from ..store.names import README, KeptImage, dataset_name, image_name
from .plan import PackPlan, PackRequest, plan_packing
from .target import Target, target_at

MOST_TIERS: Final = 31
"""Tiers 0 to 30 may be asked for, as in `open_dataarray`."""

_AHEAD_BYTES: Final = 2**27
_MOST_AHEAD: Final = 32
"""Images under way or waiting to be written: so many bytes, about, and so many images."""

_NAMED: Final = 5

_README: Final = """\
Dataset {id} of the Allen Brain Atlas, packed by atldld from
{service}

Open it with the Python package atldld, 1.0 or later:

    import atldld
    atldld.open_dataarray({id}, source="<path of this folder or zip file>")

manifest.json lists every file with its size and SHA-256; atldld.verify_bundle checks them. The
images are JPEG files as the service sent them; datasets/{id}.json holds the metadata.

Cite the data as: {citation}

Data: (c) Allen Institute for Brain Science.
Terms of use: https://alleninstitute.org/terms-of-use
Citation policy: https://alleninstitute.org/citation-policy
"""


@dataclass(frozen=True, slots=True)
class Packed:
    """What a packing did.

    Parameters
    ----------
    source
        The bundle, to be opened: ``open_dataarray(dataset_id, source=packed.source)``.
    dataset_id
        The dataset that it holds.
    files, bytes
        How many files the bundle has besides its manifest, and how large they are together.
    fetched
        How many images were added to it now, from the source or what the cache holds of it.
    kept
        How many images were there already, and found sound.
    failed
        Names of images that could not be had.
    """

    source: StoredSource
    dataset_id: int
    files: int
    bytes: int
    fetched: int
    kept: int
    failed: tuple[str, ...]


def pack(
    dataset_id: int,
    target: str | os.PathLike[str],
    *,
    resolution: float | None = None,
    tiers: int | Sequence[int] | None = None,
    region: Mapping[str, tuple[float, float]] | None = None,
    views: View | Sequence[View] = ("image",),
    mapping: Literal["oblique", "parallel"] = "oblique",
    detection_xy: tuple[float, float] | Literal["center"] | None = None,
    interpolation: Literal["auto", "nearest", "linear", "cubic", "area"] = "auto",
    reference_space: Literal["native", 9, 10] = "native",
    chunks: Literal["auto"] | None = "auto",
    on_error: Literal["raise", "skip"] = "raise",
    source: str | os.PathLike[str] | Source | None = None,
) -> Packed:
    """Pack a dataset into a bundle: what opening it with these options needs, and no more.

    `open_dataarray` and `open_dataset` with ``source=target`` then work without a network, and
    give the same pixels, bit by bit. Packing that was stopped, even killed, goes on where it
    stopped when it is called again; until it has finished there is no bundle that could be
    opened, or the one that was there before. A bundle of the dataset that is there already is
    checked, mended and added to.

    Parameters
    ----------
    dataset_id
        Id of the section dataset.
    target
        A folder, a file named ``*.zip``, or an fsspec URL such as ``"s3://bucket/key"``.
        Credentials come from the environment or fsspec's configuration.
    resolution
        Microns between grid points of the arrays that the bundle will be opened as; by default
        25, as in `open_dataarray`.
    tiers
        Image tiers to pack, each for ``open_dataarray(tier=...)``. By default those that
        ``tier="auto"`` takes at the resolution.
    region
        As in `open_dataarray`: only what lies in it is packed.
    views
        ``"image"``, ``"projection"``, ``"expression"``, ``"expression_mask"``, or several.
    mapping, detection_xy, interpolation, reference_space
        As in `open_dataarray`. They matter where parts of images are packed.
    chunks
        ``"auto"``: what an array of that chunking reads. None: one read a section, which serves
        every chunking; where large images are read in parts, it may be larger.
    on_error
        ``"raise"``: where images cannot be had, pack the others and raise; a later call goes on.
        ``"skip"``: finish without them; the bundle says which they are and why.
    source
        Where data come from, as in `open_dataarray`.

    Returns
    -------
    Packed
        The bundle as a source, and what was fetched and kept.

    Raises
    ------
    BundleError
        If the target cannot be written, holds something else, or images cannot be had.
    ValueError, TypeError
        If an option cannot be used, before anything is read.
    DatasetNotFoundError, RegistrationError, APIError
        As `open_dataarray`.

    See Also
    --------
    verify_bundle : Whether everything in a bundle is there and sound.

    Examples
    --------
    >>> import atldld, tempfile
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> folder = tempfile.TemporaryDirectory()
    >>> with AllenServer([phantom_dataset(1001, sections=3)]) as server:
    ...     packed = atldld.pack(1001, f"{folder.name}/phantom.zip", source=server.url)
    >>> packed.fetched
    3
    >>> sections = atldld.open_dataarray(1001, source=f"{folder.name}/phantom.zip")
    >>> sections.isel(section=1).compute().dtype
    dtype('uint8')
    >>> folder.cleanup()
    """
    if not isinstance(on_error, str) or on_error not in ("raise", "skip"):
        raise ValueError(f"on_error is {on_error!r}; it must be 'raise' or 'skip'")
    if chunks is not None and not (isinstance(chunks, str) and chunks == "auto"):
        raise ValueError(f"chunks is {chunks!r}; a bundle is packed for 'auto' or None")
    location = Location.of(target)
    request = PackRequest(
        resolution=25 if resolution is None else resolution,
        tiers=None if tiers is None else _several("tiers", tiers, range(MOST_TIERS)),
        views=_several("views", views, VIEWS),
        region=region,
        mapping=mapping,
        detection_xy=detection_xy,
        interpolation=interpolation,
        reference_space=reference_space,
        chunks=chunks,
    )
    plan = plan_packing(source_from(source), dataset_id, request)
    with _alone(location), target_at(location, plan.record.id, plan.rows.service) as goal:
        manifest, fetched, kept = _packed(plan, goal, skip=on_error == "skip")
    return Packed(
        source=StoredSource.at(target),
        dataset_id=manifest.dataset_id,
        files=len(manifest.files),
        bytes=manifest.total_bytes,
        fetched=fetched,
        kept=kept,
        failed=tuple(sorted(manifest.failed)),
    )


@contextmanager
def _alone(location: Location) -> Iterator[None]:
    """Let no other process of this user pack to the same place meanwhile."""
    folder = current().local_cache_dir
    name = sha256(location.text.encode()).hexdigest()[:16]
    with locked(folder / "packing" / f"{name}.lock", 0.0) as held:
        if held is False:
            raise BundleError(f"another process is packing {location.name}")
        yield


def _packed(plan: PackPlan, goal: Target, *, skip: bool) -> tuple[Manifest, int, int]:
    """Pack, and return the manifest of what is there then, and how much was fetched and kept."""
    earlier, texts = goal.earlier, _texts(plan)
    recorded = goal.recorded()
    reads = _reads(plan, [*recorded, *(() if earlier is None else earlier.failed)])
    if len(texts) + len(reads) > MOST_FILES:
        raise ValueError(
            f"{len(reads)} images are too many for one bundle (at most {MOST_FILES} files); "
            "pack fewer tiers or views, or a smaller region"
        )
    with progress(len(reads), "Packing images") as shown:
        kept = {
            name: recorded[name]
            for name, read in reads.items()
            if name in recorded and _sound(goal, name, recorded[name], read, shown)
        }
        missing = [read for name, read in reads.items() if name not in kept]
        before = () if earlier is None else earlier.asked
        if (
            earlier is not None
            and not missing
            and plan.asked in before
            and all(goal.sound(name, Checked.of(content)) for name, content in texts.items())
        ):
            return earlier, 0, len(kept)
        with goal.writing(kept):
            fetched, failed = _fetch(plan.source, goal, missing, shown)
            if failed and not skip:
                raise _error(plan, goal.name, failed)
            # The metadata come last: without them nothing takes a folder for a whole one.
            written = {
                name: goal.write(name, content, plan.rows.service, None)
                for name, content in texts.items()
            }
            manifest = Manifest(
                dataset_id=plan.record.id,
                service=plan.rows.service,
                asked=before if plan.asked in before else (*before, dict(plan.asked)),
                files=dict(sorted({**kept, **fetched, **written}.items())),
                remembered=plan.remembered(earlier),
                failed={name: str(error)[:10_000] for name, error in failed.items()},
                citation=CITATION.format(id=plan.record.id),
                atldld_version=__version__,
                packed_on=time.strftime("%Y-%m-%d", time.gmtime()),
            )
            goal.finish(manifest)
    return manifest, len(fetched), len(kept)


def _texts(plan: PackPlan) -> dict[str, bytes]:
    """Return the files that are written here, by name."""
    dataset_id = plan.record.id
    readme = _README.format(
        id=dataset_id, service=plan.rows.service, citation=CITATION.format(id=dataset_id)
    )
    return {README: readme.encode(), dataset_name(dataset_id): plan.rows.to_json()}


def _reads(plan: PackPlan, earlier: Sequence[str]) -> dict[str, ImageRead]:
    """Return the images that the bundle shall hold: those asked for, now and earlier."""
    images = {image.id: image for image in (*plan.record.images, *plan.record.failed_images)}
    reads = dict(plan.reads)
    for name in earlier:
        image = KeptImage.of_name(name)
        read = None if image is None else image.read(images)
        if read is not None:
            reads.setdefault(name, read)
    return reads


def _sound(goal: Target, name: str, what: Checked, read: ImageRead, shown: Progress) -> bool:
    """Whether an earlier packing wrote an image, and it is still what is wanted."""
    if what.section != section_of(read):
        return False
    content = goal.sound(name, what)
    sound = content is not None and jpeg_fault(content, read.size) is None
    shown.update(1 if sound else 0)
    return sound


def _fetch(
    source: Source, goal: Target, missing: Sequence[ImageRead], shown: Progress
) -> tuple[dict[str, Checked], dict[str, ImageError]]:
    """Fetch images and write them one by one; return what was written, and what failed."""
    fetched: dict[str, Checked] = {}
    failed: dict[str, ImageError] = {}
    for read, body in fetch_each(source, missing, ahead=_ahead(missing)):
        name = image_name(read)
        sound = body if isinstance(body, ImageError) else _decodable(source, read, body)
        if isinstance(sound, ImageError):
            failed[name] = sound
        else:
            fetched[name] = goal.write(name, sound, source.url(read), section_of(read))
        shown.update(1)
    return fetched, failed


def _error(plan: PackPlan, name: str, failed: Mapping[str, ImageError]) -> BundleError:
    errors = list(failed.values())
    named = "; ".join(str(error) for error in errors[:_NAMED])
    more = f"; and {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
    return BundleError(
        f"{len(errors)} images of dataset {plan.record.id} could not be packed into "
        f"{name}: {named}{more}. The others are kept: atldld.pack again goes on with what "
        "is missing, and with on_error='skip' finishes without"
    )


def _ahead(reads: Sequence[ImageRead]) -> int:
    """Return how many images may wait to be written, by the size of the largest."""
    largest = max((read.size[0] * read.size[1] // 2 for read in reads), default=0)
    return max(2, min(_MOST_AHEAD, _AHEAD_BYTES // max(largest, 1)))


def _decodable(source: Source, read: ImageRead, body: bytes) -> bytes | ImageError:
    """Return an image that decodes strictly, fetched again if need be, or what is wrong.

    A JPEG can be damaged inside though its head and end are whole; a bundle that holds it would
    never show its section.
    """
    for last in (False, True):
        try:
            with decoded_bytes.value.taking(3 * read.size[0] * read.size[1]):
                decode(body, grey=read.view == "expression_mask")
            return body
        except ValueError as error:
            if last:
                return ImageError(
                    str(error),
                    image_id=read.image_id,
                    dataset_id=read.dataset_id,
                    section_number=read.section_number,
                    url=source.url(read),
                    window=None if read.window is None else read.window.box,
                )
        source.discard(read)
        try:
            body = source.image(read)
        except ImageError as error:
            return error
    return body


def _several(name: str, value: Any, known: Collection[Any]) -> tuple[Any, ...]:
    """Return one or several values of an option, each once and each a known one."""
    values = [value] if isinstance(value, str) or not isinstance(value, Sequence) else value
    several: list[Any] = []
    for each in values:
        if isinstance(each, bool) or not isinstance(each, str | int | np.integer):
            raise TypeError(f"{name} has {each!r}; it must be {_words(known)}, or several")
        if each not in known:
            raise ValueError(f"{name} has {each!r}; it must be {_words(known)}, or several")
        if each not in several:
            several.append(each)
    if not several:
        raise ValueError(f"{name} is empty; leave it out, or name at least one")
    return tuple(several)


def _words(known: Collection[Any]) -> str:
    if isinstance(known, range):
        return f"a whole number from {known.start} to {known.stop - 1}"
    return f"one of {', '.join(map(repr, known))}"
