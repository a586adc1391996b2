"""What a packing needs: the reads of an opening, from a source that keeps nothing yet."""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from ..arrays.opening import open_dataarray
from ..arrays.planning import PlannedRead, planned_reads
from ..errors import BundleError
from ..model.dataset import SectionDataset
from ..model.read import ImageRead, View, Window
from ..reading.conventions import Conventions, known, settle
from ..source.allen import AllenSource
from ..source.describing import DatasetRows, dataset_rows
from ..source.protocol import KeepingSource, Source, tiers_at_hand
from ..store.manifest import Manifest
from ..store.names import dataset_name, image_name, most_bytes

KEY: Final = "conventions"


@dataclass(frozen=True, slots=True)
class PackRequest:
    """The options of a packing; `atldld.pack` says what they mean.

    They are those of openings, and checked there.
    """

    resolution: float
    tiers: tuple[int, ...] | None
    views: tuple[View, ...]
    region: Mapping[str, tuple[float, float]] | None
    mapping: Any
    detection_xy: Any
    interpolation: Any
    reference_space: Any
    chunks: Literal["auto"] | None

    def to_json(self) -> dict[str, Any]:
        """Return the options as a manifest tells them; they must have been used before."""
        region = None
        if self.region is not None:
            region = {axis: [float(end) for end in ends] for axis, ends in self.region.items()}
        place = self.detection_xy
        return {
            "resolution": float(self.resolution),
            "tiers": None if self.tiers is None else [int(tier) for tier in self.tiers],
            "views": list(self.views),
            "region": region,
            "mapping": self.mapping,
            "detection_xy": [float(at) for at in place] if isinstance(place, Sequence)
            and not isinstance(place, str) else place,
            "interpolation": self.interpolation,
            "reference_space": self.reference_space
            if isinstance(self.reference_space, str) else int(self.reference_space),
            "chunks": self.chunks,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class PackPlan:
    """What is to be packed.

    Parameters
    ----------
    source
        Where it comes from.
    rows
        What describes the dataset.
    record
        The dataset that they describe.
    reads
        The images, by the names of their files.
    found
        What is known about the service.
    asked
        The options, as a manifest tells them.
    """

    source: Source
    rows: DatasetRows
    record: SectionDataset
    reads: Mapping[str, ImageRead]
    found: Conventions
    asked: Mapping[str, Any]

    def remembered(self, earlier: Manifest | None) -> dict[str, str]:
        """Return what the bundle shall remember about the service.

        A bundle cannot be asked what was not found out when it was packed. It places images as
        they were placed then: windows not known to be right are not used, and whole images lie
        on the pixels of the slide.
        """
        settled = asdict(Conventions().settled())
        for known_then in (_fields(earlier), asdict(self.found)):
            for name in settled:
                if known_then.get(name) is not None:
                    settled[name] = known_then[name]
        return {KEY: json.dumps(settled)}


def plan_packing(source: Source, dataset_id: Any, request: PackRequest) -> PackPlan:
    """Find out what opening a dataset with some options reads.

    Raises
    ------
    ValueError, TypeError
        If an option cannot be used, before anything is read, or if there is nothing to pack.
    DatasetNotFoundError, RegistrationError, APIError, BundleError
        As the source and `open_dataarray` do.
    """
    asking = _Asking(source)
    planned = _planned(asking, dataset_id, request)
    if not planned:
        raise ValueError(
            f"there is nothing to pack of dataset {dataset_id}: no section image covers a point of "
            "the grid (see resolution and region)"
        )
    assert asking.rows is not None
    assert asking.record is not None
    reads = [each.read for each in planned]
    before = known(source)
    found = settle(source, planned[0].reader.samples(), reads)
    if before.lack(reads):
        asking.conventions = found.settled()
        reads = [each.read for each in _planned(asking, dataset_id, request)]
    most = most_bytes(dataset_name(dataset_id))
    if len(asking.rows.to_json()) > most:
        raise BundleError(
            f"the metadata of dataset {dataset_id} have more than {most} bytes; no bundle holds "
            "as many"
        )
    return PackPlan(
        source=source,
        rows=asking.rows,
        record=asking.record,
        reads={image_name(read): read for read in reads},
        found=found,
        asked=request.to_json(),
    )


def _planned(asking: _Asking, dataset_id: Any, request: PackRequest) -> list[PlannedRead]:
    planned: list[PlannedRead] = []
    tiers: tuple[int | Literal["auto"], ...] = request.tiers or ("auto",)
    for tier in tiers:
        for view in request.views:
            array = open_dataarray(
                dataset_id,
                resolution=request.resolution,
                tier=tier,
                view=view,
                mapping=request.mapping,
                detection_xy=request.detection_xy,
                region=request.region,
                interpolation=request.interpolation,
                chunks=request.chunks,
                reference_space=request.reference_space,
                source=asking,
            )
            planned += planned_reads(array)
    return planned


def _fields(manifest: Manifest | None) -> Mapping[str, Any]:
    """Return what a manifest remembers about the service, whoever wrote it."""
    text = "" if manifest is None else manifest.remembered.get(KEY, "")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


class _Asking:
    """A source to plan with: described once, and holding nothing that could be fetched.

    What is packed must not depend on what happens to be in the cache.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.rows: DatasetRows | None = None
        self.record: SectionDataset | None = None
        self.conventions: Conventions | None = None

    @property
    def name(self) -> str:
        return self.source.name

    def dataset(self, dataset_id: int) -> SectionDataset:
        if self.record is None:
            self.rows = dataset_rows(self.source, dataset_id)
            self.record = self.rows.dataset()
        return self.record

    def image(self, read: ImageRead) -> bytes:
        return self.source.image(read)

    def discard(self, read: ImageRead) -> None:
        self.source.discard(read)

    def url(self, read: ImageRead) -> str:
        return self.source.url(read)

    def held(self, read: ImageRead) -> frozenset[Window | None]:
        if isinstance(self.source, AllenSource) or not isinstance(self.source, KeepingSource):
            return frozenset()
        return self.source.held(read)

    def tiers(self, image_id: int, view: str) -> Collection[int] | None:
        return tiers_at_hand(self.source, image_id, view)

    def recall(self, key: str) -> str | None:
        if key == KEY:
            return json.dumps(asdict(self.conventions or known(self.source)))
        return None

    def remember(self, key: str, text: str) -> None:
        pass

    def __dask_tokenize__(self) -> Hashable:
        return "atldld.packing", self.source.__dask_tokenize__()
