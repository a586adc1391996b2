"""Holding a bundle against its own manifest, file by file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import BundleError, RegistrationError, plain
from ..model.dataset import SectionImage
from ..source.describing import DatasetRows
from ..source.jpeg import jpeg_fault
from ..source.stored import open_bundle, refuse_foreign
from ..store.files import FileFaultError, Location
from ..store.manifest import Checked, Manifest
from ..store.names import MANIFEST, KeptImage, dataset_name, record_name


@dataclass(frozen=True, slots=True)
class BundleReport:
    """What the verification of a bundle found.

    Parameters
    ----------
    name
        Path or URL of the bundle, without credentials.
    dataset_id
        The dataset that it holds.
    files, bytes
        How many files its manifest lists, and how large they are together.
    missing
        Names of files that are listed and not there.
    damaged
        Names of files that are not what the manifest, or the metadata, say.
    extra
        Names of files that are there and not listed. They are never read.
    failed
        Names of images that could not be had when the bundle was packed.
    reasons
        What is wrong with each of them, by name.
    """

    name: str
    dataset_id: int
    files: int
    bytes: int
    missing: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing is missing or damaged."""
        return not self.missing and not self.damaged

    def __str__(self) -> str:
        """Return the report as lines for a reader."""
        state = "is sound" if self.ok else "is NOT sound"
        lines = [
            f"{self.name} {state}: dataset {self.dataset_id}, {self.files} files, "
            f"{self.bytes} bytes"
        ]
        for kind in ("missing", "damaged", "extra", "failed"):
            for name in getattr(self, kind):
                reason = self.reasons.get(name)
                lines.append(f"{kind}: {plain(name)}" + (f" ({plain(reason)})" if reason else ""))
        return "\n".join(lines)


def verify_bundle(target: str | os.PathLike[str]) -> BundleReport:
    """Read every file of a bundle and hold it against the manifest.

    Size and SHA-256 of each file; that the metadata describe the dataset; that each image is a
    JPEG of the size that the metadata say. Nothing is changed.

    Parameters
    ----------
    target
        Path or fsspec URL of the bundle.

    Returns
    -------
    BundleReport
        What is missing, damaged or extra; its ``ok`` says whether the bundle is sound.

    Raises
    ------
    BundleError
        If there is no bundle, packing it did not finish, or it is refused.
    ValueError, TypeError
        If that cannot be the place of a bundle.

    Examples
    --------
    >>> import atldld, tempfile
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with AllenServer([phantom_dataset(1001, sections=3)]) as server:
    ...         packed = atldld.pack(1001, f"{folder}/phantom.zip", source=server.url)
    ...     atldld.verify_bundle(f"{folder}/phantom.zip").ok
    True
    """
    location = Location.of(target)
    bundle = open_bundle(location)
    manifest = bundle.manifest
    missing: list[str] = []
    damaged: list[str] = []
    reasons = dict(manifest.failed)
    images: Mapping[int, SectionImage] | None = None
    # The metadata come first: the images are held against them.
    described = dataset_name(manifest.dataset_id)
    for name in sorted(manifest.files, key=lambda name: (name != described, name)):
        try:
            content = bundle.read(name)
            if name == described:
                images = _described_images(content, manifest)
            elif images is not None:
                _check_image(name, manifest.files[name], content, images)
        except FileFaultError as error:
            reasons[name] = error.reason
            (missing if error.missing else damaged).append(name)
    try:
        there = set(bundle.files.names())
    except FileFaultError as error:
        raise BundleError(f"{location.name} cannot be listed: {error.reason}") from error
    extra = there - {MANIFEST, *manifest.files, *map(record_name, manifest.files)}
    return BundleReport(
        name=location.name,
        dataset_id=manifest.dataset_id,
        files=len(manifest.files),
        bytes=manifest.total_bytes,
        missing=tuple(missing),
        damaged=tuple(damaged),
        extra=tuple(sorted(extra)),
        failed=tuple(sorted(manifest.failed)),
        reasons=reasons,
    )


def _described_images(content: bytes, manifest: Manifest) -> Mapping[int, SectionImage]:
    """Return the images of the dataset that a content describes."""
    try:
        record = DatasetRows.from_json(content, manifest.service).dataset()
    except (ValueError, RegistrationError) as error:
        raise FileFaultError(str(error)) from error
    if record.id != manifest.dataset_id:
        raise FileFaultError(f"it describes dataset {record.id}")
    return {image.id: image for image in (*record.images, *record.failed_images)}


def _check_image(
    name: str, what: Checked, content: bytes, images: Mapping[int, SectionImage]
) -> None:
    image = KeptImage.of_name(name)
    if image is None:
        return
    read = image.read(images)
    if read is None:
        raise FileFaultError("the metadata know no such image")
    refuse_foreign(what, read)
    fault = jpeg_fault(content, read.size)
    if fault is not None:
        raise FileFaultError(fault)
