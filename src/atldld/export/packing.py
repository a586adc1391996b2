"""Packing a dataset into a bundle: exactly the reads that opening it so will need.

A bundle is a finished cache folder: files with their records, and a manifest that is written
last. A zip file is written beside its place, of what is in it already and what the cache and the
source have, and moved there when it is whole.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Final, Literal

import numpy as np
from pydantic_core import to_jsonable_python

from .. import __version__
from ..arrays.base import CITATION
from ..arrays.opening import open_dataarray
from ..arrays.planning import PlannedRead, planned_reads
from ..errors import BundleError, ImageError
from ..model.checks import checked_choice
from ..model.dataset import SectionDataset
from ..model.read import VIEWS, ImageRead, View, Window
from ..options import current
from ..reading.conventions import Conventions, known, settle
from ..reading.images import Progress, decoded_bytes, progress, sound
from ..source import KeepingSource, Source, image_ending, source_from, tiers_at_hand
from ..source.allen import AllenSource
from ..source.bundle import MOST_FILES, Manifest
from ..source.jpeg import jpeg_fault
from ..source.prefetch import fetch_each
from ..source.rma import DatasetRows
from ..source.search import dataset_rows
from ..source.stored import StoredSource
from ..store.files import Location, locked
from ..store.records import (
    CONVENTIONS,
    MANIFEST,
    README,
    Checked,
    KeptImage,
    dataset_name,
    image_name,
    most_bytes,
    section_of,
)
from .bundle_place import BundlePlace, Write

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
    checked_choice("on_error", on_error, ("raise", "skip"))
    if chunks is not None and not (isinstance(chunks, str) and chunks == "auto"):
        raise ValueError(f"chunks is {chunks!r}; a bundle is packed for 'auto' or None")
    options: dict[str, Any] = {
        "resolution": 25 if resolution is None else resolution,
        "region": region,
        "mapping": mapping,
        "detection_xy": detection_xy,
        "interpolation": interpolation,
        "reference_space": reference_space,
        "chunks": chunks,
    }
    several = ("auto",) if tiers is None else _several("tiers", tiers, range(MOST_TIERS))
    kinds = [(tier, view) for tier in several for view in _several("views", views, VIEWS)]
    location = Location.of(target)
    origin = source_from(source)
    if image_ending(origin) != "jpg":
        raise ValueError(
            f"{origin.name} has images without loss, which a bundle does not hold: pack from the "
            "API, or open the bucket itself (or a copy of it) with source="
        )
    plan = _plan(origin, dataset_id, options, kinds)
    with _alone(location):
        goal = BundlePlace.at(location, plan.record.id, plan.rows.service)
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


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What is to be packed: the rows, the images by name, what is known, what was asked."""

    source: Source
    rows: DatasetRows
    record: SectionDataset
    reads: Mapping[str, ImageRead]
    found: Conventions
    asked: dict[str, Any]


def _plan(
    source: Source,
    dataset_id: Any,
    options: Mapping[str, Any],
    kinds: Sequence[tuple[Any, Any]],
) -> _Plan:
    """Find out what opening a dataset with some options reads, at some tiers in some views."""
    asking = _Asking(source)

    def planned() -> list[PlannedRead]:
        arrays = (
            open_dataarray(dataset_id, tier=tier, view=view, source=asking, **options)
            for tier, view in kinds
        )
        return [each for array in arrays for each in planned_reads(array)]

    first = planned()
    if not first:
        raise ValueError(
            f"there is nothing to pack of dataset {dataset_id}: no section image covers a point of "
            "the grid (see resolution and region)"
        )
    reads = [each.read for each in first]
    before = known(source)
    found = settle(source, first[0].reader.samples(), reads)
    if before.lack(reads):
        asking.conventions = found.settled()
        reads = [each.read for each in planned()]
    assert asking.rows is not None
    assert asking.record is not None
    most = most_bytes(dataset_name(dataset_id))
    if len(asking.rows.to_json()) > most:
        raise BundleError(
            f"the metadata of dataset {dataset_id} have more than {most} bytes; no bundle holds "
            "as many"
        )
    tiers = list(dict.fromkeys(tier for tier, _ in kinds))
    views = list(dict.fromkeys(view for _, view in kinds))
    asked = {**options, "tiers": None if tiers == ["auto"] else tiers, "views": views}
    return _Plan(
        source=source,
        rows=asking.rows,
        record=asking.record,
        reads={image_name(read): read for read in reads},
        found=found,
        asked=to_jsonable_python(asked, fallback=_plain_number),
    )


def _plain_number(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value.tolist()


class _Asking:
    """A source to plan with: described once, and holding nothing that could be fetched.

    What is packed must not depend on what happens to be in the cache.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.rows: DatasetRows | None = None
        self.record: SectionDataset | None = None
        self.conventions: Conventions | None = None
        self.image, self.discard, self.url = source.image, source.discard, source.url

    @property
    def name(self) -> str:
        return self.source.name

    def dataset(self, dataset_id: int) -> SectionDataset:
        if self.record is None:
            self.rows = dataset_rows(self.source, dataset_id)
            self.record = self.rows.dataset()
        return self.record

    def held(self, read: ImageRead) -> frozenset[Window | None]:
        if isinstance(self.source, AllenSource) or not isinstance(self.source, KeepingSource):
            return frozenset()
        return self.source.held(read)

    def tiers(self, image_id: int, view: str) -> Collection[int] | None:
        return tiers_at_hand(self.source, image_id, view)

    def recall(self, key: str) -> str | None:
        return (
            json.dumps(asdict(self.conventions or known(self.source)))
            if key == CONVENTIONS
            else None
        )

    def remember(self, key: str, text: str) -> None:
        pass

    def __dask_tokenize__(self) -> Hashable:
        return "atldld.packing", self.source.__dask_tokenize__()


@contextmanager
def _alone(location: Location) -> Iterator[None]:
    """Let no other process of this user pack to the same place meanwhile."""
    folder = current().local_cache_dir
    name = sha256(location.text.encode()).hexdigest()[:16]
    with locked(folder / "packing" / f"{name}.lock", 0.0) as held:
        if held is False:
            raise BundleError(f"another process is packing {location.name}")
        yield


def _packed(plan: _Plan, goal: BundlePlace, *, skip: bool) -> tuple[Manifest, int, int]:
    """Pack, and return the manifest of what is there then, and how much was fetched and kept."""
    earlier, dataset_id, service = goal.manifest, plan.record.id, plan.rows.service
    citation = CITATION.format(id=dataset_id)
    readme = _README.format(id=dataset_id, service=service, citation=citation)
    texts = {README: readme.encode(), dataset_name(dataset_id): plan.rows.to_json()}
    reads = _reads(plan, [*goal.recorded, *(() if earlier is None else earlier.failed)])
    if len(texts) + len(reads) > MOST_FILES:
        raise ValueError(
            f"{len(reads)} images are too many for one bundle (at most {MOST_FILES} files); "
            "pack fewer tiers or views, or a smaller region"
        )
    with progress(len(reads), "Packing images") as shown:
        kept = {
            name: goal.recorded[name]
            for name, read in reads.items()
            if name in goal.recorded and _sound(goal, name, read, shown)
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
        with goal.writing() as write:
            for name, what in kept.items() if goal.zipped else ():
                content = goal.sound(name, what)
                if content is None:
                    raise BundleError(
                        f"{goal.location.name} was changed while it was packed; pack it again"
                    )
                write(name, content, "", None)
            fetched, failed = _fetch(plan.source, write, missing, shown)
            if failed and not skip:
                raise _error(plan, goal, failed)
            # The metadata come last: without them nothing takes a folder for a whole one.
            written = {name: write(name, text, service, None) for name, text in texts.items()}
            manifest = Manifest(
                dataset_id=dataset_id,
                service=service,
                asked=before if plan.asked in before else (*before, plan.asked),
                files={**kept, **fetched, **written},
                remembered={CONVENTIONS: _remembered(plan.found, earlier)},
                failed={name: str(error)[:10_000] for name, error in failed.items()},
                citation=citation,
                atldld_version=__version__,
                packed_on=time.strftime("%Y-%m-%d", time.gmtime()),
            )
            write(MANIFEST, manifest.to_json(), "", None)
    return manifest, len(fetched), len(kept)


def _remembered(found: Conventions, earlier: Manifest | None) -> str:
    """Return what the bundle shall remember about the service.

    A bundle cannot be asked what was not found out when it was packed. It places images as they
    were placed then: windows not known to be right are not used, and whole images lie on the
    pixels of the slide.
    """
    before: Any = None
    with suppress(ValueError, RecursionError):
        before = json.loads("" if earlier is None else earlier.remembered.get(CONVENTIONS, ""))
    settled = asdict(Conventions().settled())
    for fields in (before if isinstance(before, dict) else {}, asdict(found)):
        settled |= {key: fields[key] for key in settled if fields.get(key) is not None}
    return json.dumps(settled)


def _reads(plan: _Plan, earlier: Sequence[str]) -> dict[str, ImageRead]:
    """Return the images that the bundle shall hold: those asked for, now and earlier."""
    images = {image.id: image for image in (*plan.record.images, *plan.record.failed_images)}
    reads = dict(plan.reads)
    for name in earlier:
        image = KeptImage.of_name(name)
        read = None if image is None else image.read(images)
        if read is not None:
            reads.setdefault(name, read)
    return reads


def _sound(goal: BundlePlace, name: str, read: ImageRead, shown: Progress) -> bool:
    """Whether an earlier packing wrote an image, and it is still what is wanted."""
    what = goal.recorded[name]
    if what.section != section_of(read):
        return False
    content = goal.sound(name, what)
    still = content is not None and jpeg_fault(content, read.size) is None
    shown.update(1 if still else 0)
    return still


def _fetch(
    source: Source, write: Write, missing: Sequence[ImageRead], shown: Progress
) -> tuple[dict[str, Checked], dict[str, ImageError]]:
    """Fetch images and write them one by one; return what was written, and what failed."""
    fetched: dict[str, Checked] = {}
    failed: dict[str, ImageError] = {}
    for read, body in fetch_each(source, missing, ahead=_ahead(missing)):
        name = image_name(read)
        try:
            if isinstance(body, ImageError):
                raise body
            # A JPEG can be damaged inside though its head and end are whole; a bundle that holds
            # it would never show its section.
            with decoded_bytes.value.taking(3 * read.size[0] * read.size[1]):
                whole, _ = sound(source, read, body)
        except ImageError as error:
            failed[name] = error
        else:
            fetched[name] = write(name, whole, source.url(read), section_of(read))
        shown.update(1)
    return fetched, failed


def _error(plan: _Plan, goal: BundlePlace, failed: Mapping[str, ImageError]) -> BundleError:
    errors = list(failed.values())
    named = "; ".join(str(error) for error in errors[:_NAMED])
    more = f"; and {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
    return BundleError(
        f"{len(errors)} images of dataset {plan.record.id} could not be packed into "
        f"{goal.location.name}: {named}{more}. The others are kept: atldld.pack again goes on "
        "with what is missing, and with on_error='skip' finishes without"
    )


def _ahead(reads: Sequence[ImageRead]) -> int:
    """Return how many images may wait to be written, by the size of the largest."""
    largest = max((read.size[0] * read.size[1] // 2 for read in reads), default=0)
    return max(2, min(_MOST_AHEAD, _AHEAD_BYTES // max(largest, 1)))


def _several(name: str, value: Any, allowed: Collection[Any]) -> tuple[Any, ...]:
    """Return one or several values of an option, each once and each an allowed one."""
    values = [value] if isinstance(value, str) or not isinstance(value, Sequence) else value
    if not values:
        raise ValueError(f"{name} is empty; leave it out, or name at least one")
    for each in values:
        of_kind = isinstance(each, str | int | np.integer) and not isinstance(each, bool)
        if not of_kind or each not in allowed:
            one = f"one of {', '.join(map(repr, allowed))}"
            if isinstance(allowed, range):
                one = f"a whole number from {allowed.start} to {allowed.stop - 1}"
            raise (ValueError if of_kind else TypeError)(
                f"{name} has {each!r}; it must be {one}, or several"
            )
    return tuple(dict.fromkeys(values))
