"""Questions to a bucket of slides whose answers nobody has written down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..model.read import Window
from ..source.bucket import BucketSource, Slide, SlideFaultError, sections_of
from ..source.tiff import Tiff, TiffFaultError
from .doctor import DATASET, ON_SLIDES, Finding

_SAMPLE = 64


def examine_bucket(source: BucketSource, dataset_id: int | None = None) -> list[Finding]:
    """Ask a bucket what its slides are like: about ten requests a tier of one section.

    Parameters
    ----------
    source
        The bucket.
    dataset_id
        The dataset to look at; None for two that the open bucket is known to have.

    Returns
    -------
    findings
        The first says whether it could be reached.
    """
    findings: list[Finding] = []
    for number in (ON_SLIDES, DATASET) if dataset_id is None else (dataset_id,):
        findings += _of_dataset(source, number)
    reached = any(each.answer == "yes" for each in findings if each.question.endswith("listed"))
    head = Finding("reachable", "yes" if reached else "no", source.name)
    return [head, *findings]


def _of_dataset(source: BucketSource, dataset_id: int) -> Iterator[Finding]:
    what = f"dataset {dataset_id}"
    try:
        sections = sections_of(source, dataset_id)
    except SlideFaultError as error:
        yield Finding(f"{what} listed", "no", str(error))
        return
    yield Finding(f"{what} listed", "yes", f"{len(sections)} sections")
    if not sections:
        return
    image_id = sorted(sections)[len(sections) // 2]
    lost = [
        number
        for number, row in sections.items()
        if isinstance(row.get("downsampling"), dict) and "downsample_0" not in row["downsampling"]
    ]
    yield Finding(f"{what}, sections without tier 0", str(len(lost)), f"{lost[:5]}")
    for tier in range(32):
        try:
            slide = source.slide(dataset_id, image_id, tier)
        except SlideFaultError as error:
            yield Finding(f"{what}, image {image_id}, tiers", str(tier), str(error))
            return
        yield from _of_tier(source, f"{what}, image {image_id}, tier {tier}", slide)


def _of_tier(source: BucketSource, what: str, slide: Slide) -> Iterator[Finding]:
    try:
        tiff = source.tiff(slide.path)
        yield Finding(
            f"{what}, form", tiff.form, f"{tiff.size} bytes; marks: {source.marks(slide.path)}"
        )
        same = "yes" if tiff.shape == slide.size else "no"
        yield Finding(f"{what}, size as listed", same, f"{tiff.shape}, listed {slide.size}")
        yield _ranged(source, what, slide, tiff)
    except (SlideFaultError, TiffFaultError) as error:
        yield Finding(f"{what}, form", "", str(error))


def _ranged(source: BucketSource, what: str, slide: Slide, tiff: Tiff) -> Finding:
    """Return what a small window of a tier costs."""
    wide, tall = slide.section.width, slide.section.height
    width, height = min(_SAMPLE, wide), min(_SAMPLE, tall)
    left = slide.section.left + (wide - width) // 2
    top = slide.section.top + (tall - height) // 2
    costs: list[int] = []

    def fetch(ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        costs.extend(stop - start for start, stop in ranges)
        return source.fetched(slide.path, ranges)

    pixels = tiff.window(Window(left, top, width, height), fetch)
    return Finding(
        f"{what}, window of {width} x {height}",
        f"{sum(costs)} bytes",
        f"in {len(costs)} ranges; its pixels are {pixels.mean():.0f} at the mean",
    )
