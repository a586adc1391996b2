"""Packing on its way: what is there already, what is fetched, and what is written last."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from .. import __version__
from ..arrays.describe import CITATION
from ..errors import BundleError, ImageError, plain
from ..model.read import ImageRead
from ..reading import budget
from ..reading.progress import Progress, progress
from ..sampling.decode import decode
from ..source.bundle_files import MOST_FILES, README, FileEntry, PackedImage
from ..source.jpeg import jpeg_fault
from ..source.manifest import Manifest
from ..source.names import dataset_name, image_name
from ..source.places import FileFaultError
from ..source.prefetch import fetch_each
from ..source.protocol import Source
from ..source.targets import Target
from .plan import PackPlan

_AHEAD_BYTES: Final = 2**27
_MOST_AHEAD: Final = 32
"""Images under way or waiting to be written: so many bytes, about, and so many images."""

_NAMED: Final = 5

_README: Final = """\
Dataset {id} of the Allen Brain Atlas, packed by atldld from
{service}

Open it with Python (pip install atldld):

    import atldld
    atldld.open_dataarray({id}, source="<path of this folder or zip file>")

manifest.json lists every file with its size and SHA-256; atldld.verify_bundle checks them. The
images are JPEG files as the service sent them; datasets/{id}.json holds the metadata.

Cite the data as: {citation}

Data: (c) Allen Institute for Brain Science.
Terms of use: https://alleninstitute.org/terms-of-use
Citation policy: https://alleninstitute.org/citation-policy
"""


class Packing:
    """One packing on its way.

    Parameters
    ----------
    plan
        What is to be packed.
    goal
        Where to.
    name
        What to call that.
    """

    def __init__(self, plan: PackPlan, goal: Target, name: str) -> None:
        self.plan = plan
        self.goal = goal
        self.name = name
        self.fetched = 0
        self.kept = 0
        self._check_earlier()

    def run(self, *, skip: bool) -> Manifest:
        """Pack, and return the manifest of what is there then."""
        goal, earlier = self.goal, self.goal.earlier
        recorded = goal.recorded()
        texts, reads = self._texts(), self._reads(recorded)
        if len(texts) + len(reads) > MOST_FILES:
            raise ValueError(
                f"{len(reads)} images are too many for one bundle (at most {MOST_FILES} files); "
                "pack fewer tiers or views, or a smaller region"
            )
        with progress(len(reads), "Packing images") as shown:
            kept = dict(self._sound(recorded, texts, reads, shown))
            missing = [read for name, read in reads.items() if name not in kept]
            self.kept = len(reads) - len(missing)
            if (
                earlier is not None
                and goal.whole
                and self._all_there(earlier, kept, texts, missing)
            ):
                return earlier
            before = () if earlier is None else earlier.asked
            goal.start(self._manifest({}, {}, before), kept)
            written = {
                name: goal.write(name, content)
                for name, content in texts.items()
                if name not in kept
            }
            fetched, failed = self._fetch(missing, shown)
        self.fetched = len(fetched)
        if failed and not skip:
            raise self._error(failed)
        asked = before if self.plan.asked in before else (*before, self.plan.asked)
        manifest = self._manifest(
            {**kept, **written, **fetched},
            {name: str(error) for name, error in failed.items()},
            asked,
        )
        goal.finish(manifest)
        return manifest

    def _check_earlier(self) -> None:
        """Refuse to mix what does not belong together."""
        earlier, rows = self.goal.earlier, self.plan.rows
        if earlier is None:
            return
        for what, there, here in (
            ("dataset", earlier.dataset_id, self.plan.record.id),
            ("data from", earlier.service, rows.service),
        ):
            if there != here:
                raise BundleError(
                    f"{self.name} holds {what} {plain(str(there))}, not {here}; name another target"
                )

    def _texts(self) -> dict[str, bytes]:
        """Return the files that are written here, by name."""
        dataset_id = self.plan.record.id
        readme = _README.format(
            id=dataset_id,
            service=self.plan.rows.service,
            citation=CITATION.format(id=dataset_id),
        )
        return {README: readme.encode(), dataset_name(dataset_id): self.plan.rows.to_json()}

    def _reads(self, recorded: Mapping[str, FileEntry]) -> dict[str, ImageRead]:
        """Return the images that the bundle shall hold: those asked for, now and earlier."""
        record, earlier = self.plan.record, self.goal.earlier
        images = {image.id: image for image in (*record.images, *record.failed_images)}
        reads = dict(self.plan.reads)
        for name in (*recorded, *(() if earlier is None else earlier.failed)):
            image = PackedImage.of_name(name)
            read = None if image is None else image.read(images)
            if read is not None:
                reads.setdefault(name, read)
        return reads

    def _sound(
        self,
        recorded: Mapping[str, FileEntry],
        texts: Mapping[str, bytes],
        reads: Mapping[str, ImageRead],
        shown: Progress,
    ) -> Iterator[tuple[str, FileEntry]]:
        """Yield what an earlier packing wrote and is still as it was."""
        for name, entry in recorded.items():
            read = reads.get(name)
            if read is None and (name not in texts or entry != FileEntry.of(texts[name])):
                continue
            try:
                content = self.goal.read(name, entry.size)
            except FileFaultError:
                continue
            fault = entry.fault(content)
            if fault is None and read is not None:
                fault = jpeg_fault(content, read.size)
                shown.update(1 if fault is None else 0)
            if fault is None:
                yield name, entry

    def _all_there(
        self,
        earlier: Manifest,
        kept: Mapping[str, FileEntry],
        texts: Mapping[str, bytes],
        missing: Sequence[ImageRead],
    ) -> bool:
        return (
            not missing and self.plan.asked in earlier.asked and all(name in kept for name in texts)
        )

    def _fetch(
        self, missing: Sequence[ImageRead], shown: Progress
    ) -> tuple[dict[str, FileEntry], dict[str, ImageError]]:
        """Fetch images and write them one by one; return what was written, and what failed."""
        source = self.plan.source
        fetched: dict[str, FileEntry] = {}
        failed: dict[str, ImageError] = {}
        for read, body in fetch_each(source, missing, ahead=_ahead(missing)):
            name = image_name(read)
            sound = body if isinstance(body, ImageError) else _decodable(source, read, body)
            if isinstance(sound, ImageError):
                failed[name] = sound
            else:
                fetched[name] = self.goal.write(name, sound)
            shown.update(1)
        return fetched, failed

    def _manifest(
        self,
        files: Mapping[str, FileEntry],
        failed: Mapping[str, str],
        asked: Sequence[Mapping[str, Any]],
    ) -> Manifest:
        plan = self.plan
        return Manifest(
            dataset_id=plan.record.id,
            service=plan.rows.service,
            asked=tuple(asked),
            files=files,
            remembered=plan.remembered(self.goal.earlier),
            failed=failed,
            citation=CITATION.format(id=plan.record.id),
            atldld_version=__version__,
            packed_on=time.strftime("%Y-%m-%d", time.gmtime()),
        )

    def _error(self, failed: Mapping[str, ImageError]) -> BundleError:
        errors = list(failed.values())
        named = "; ".join(str(error) for error in errors[:_NAMED])
        more = f"; and {len(errors) - _NAMED} more" if len(errors) > _NAMED else ""
        return BundleError(
            f"{len(errors)} images of dataset {self.plan.record.id} could not be packed into "
            f"{self.name}: {named}{more}. The others are kept: atldld.pack again goes on with what "
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
            with budget.decoded.taking(3 * read.size[0] * read.size[1]):
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
