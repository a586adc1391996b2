"""Examining a service: questions whose answers nobody has written down.

Each question is a function that asks a request or two and returns a `Finding`, or several.
"""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import simplejpeg

from .. import options
from ..errors import AtldldError, AtldldWarning, RegistrationError, plain
from ..model.affine import xy_to_pir
from ..model.dataset import SectionDataset, SectionImage
from ..model.read import ImageRead
from ..sampling.agreement import compare
from ..source.allen import AllenSource, image_url
from ..source.http import FaultError, UnfitBodyError, ask
from ..source.jpeg import decode, kind_of
from ..source.rma import Page, Query, condition, page_of, row_url
from ..urls import base_url
from .conventions import probes
from .images import pixels_ahead

_SPELLINGS = {
    "filter": "filter=colormap&filterVals=0,1,0,256,0",
    "colormap": "colormap=0,1,0,256,0",
}
_TRIES = 4
_COLOURFUL = 24
_LONGEST = 300.0

DATASET: Final = 69289763
"""Prox1, sagittal: public since 2008."""

ON_SLIDES: Final = 100055044
"""A dataset with several sections on a slide: their offsets are not multiples of a tier pixel."""

RECORDED: Final = {
    "dataset_id": 100055064,
    "image_id": 101082698,
    "x": 624,
    "y": 780,
    "pir": (-1192.185334541974, 696.7900580898736, 4186.105050438394),
}
"""An answer of ``image_to_reference``, recorded by the Atlas-Download-Tools of the Blue Brain
Project (``tests/data/sync``)."""

NOBODY: Final = 999_999_999_999
"""An id that nothing has."""

_NESTED: Final = "genes,products,alignment3d,section_images(alignment2d)"
_MOST_PIXELS: Final = 600
_CONFIRMED: Final = 1e-6
_MOST_BYTES: Final = 2**26


@dataclass(frozen=True, slots=True)
class Finding:
    """One question, and what came of it.

    Parameters
    ----------
    question
        A few words.
    answer
        One word or number where there is one, to be compared; empty if it could not be told.
    detail
        What was seen.
    """

    question: str
    answer: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a service answered to one request, whatever it was.

    Parameters
    ----------
    status
        HTTP status of the last answer, or None if there was none.
    content_type
        As the service says it; empty if it does not.
    body
        Of the last answer.
    hops
        Where redirects led, one after another, without credentials and query.
    seconds
        From the asking to the last byte.
    fault
        Why there was no answer, in words; empty if there was one.
    """

    status: int | None = None
    content_type: str = ""
    body: bytes = b""
    hops: tuple[str, ...] = ()
    seconds: float = 0.0
    fault: str = ""

    @property
    def is_jpeg(self) -> bool:
        """Whether it is an image, by its first bytes."""
        return self.body.startswith(b"\xff\xd8\xff")

    @property
    def form(self) -> str:
        """Status and kind of body, as in ``"404, text"``."""
        kind = "a JPEG" if self.is_jpeg else kind_of(self.body)
        return self.fault or f"{self.status}, {kind}"


@dataclass(slots=True)
class Service:
    """A service under examination.

    Parameters
    ----------
    base
        Base URL of the API.
    seconds
        For one request.
    until
        When the whole examination ends, by `time.monotonic`.
    """

    base: str
    seconds: float = 20.0
    until: float = float("inf")

    def __post_init__(self) -> None:
        self.base = base_url(self.base)

    def get(self, path: str) -> Reply:
        """Return what a path below the base URL, or a URL, answers with."""
        url = path if path.startswith(self.base) else f"{self.base}/{path}"
        began = time.monotonic()
        seconds = min(self.seconds, self.until - began)
        if seconds <= 0:
            return Reply(fault="not asked: the time is up")
        headers = {"Accept-Encoding": "identity"}
        try:
            answer = ask(url, began + seconds, limit_bytes=_MOST_BYTES, headers=headers)
        except FaultError as fault:
            return Reply(seconds=time.monotonic() - began, fault=fault.cause)
        return Reply(
            answer.status,
            answer.headers.get("content-type", ""),
            answer.content,
            answer.hops,
            time.monotonic() - began,
        )

    def page(self, url: str) -> tuple[Reply, Page | None]:
        """Return the answer to a query, and what it holds if that is rows."""
        got = self.get(url)
        try:
            return got, page_of(got.body, url) if got.status == 200 else None
        except Exception:
            return got, None


@dataclass(frozen=True, slots=True)
class Specimen:
    """A dataset to ask questions about."""

    record: SectionDataset
    row: dict[str, Any]

    @property
    def image(self) -> SectionImage:
        """An image from the middle, with an expression mask if any has one."""
        images = self.record.images
        masked = [image for image in images if image.has_expression]
        chosen = masked or list(images)
        return chosen[len(chosen) // 2]


def read_of(image: SectionImage, tier: int | None = None) -> ImageRead:
    """Return the read of a whole image at a tier; by default of at most about 600 pixels."""
    if tier is None:
        tier = 0
        while max(image.width, image.height) >> tier > _MOST_PIXELS and tier < image.tier_count - 1:
            tier += 1
    return image.read(tier)


def reachable(service: Service, dataset_id: int) -> tuple[Finding, Specimen | None]:
    """Ask for a dataset, with everything that is needed to open it."""
    got, page = service.page(row_url(service.base, "SectionDataSet", dataset_id, _NESTED))
    seen = f"{got.form}, {got.content_type or 'no content type'}, {got.seconds:.2f} s"
    if page is None:
        return Finding("reachable", "no" if got.status is None else "yes", seen), None
    hops = f", redirected to {', '.join(got.hops)}" if got.hops else ""
    if not page.rows:
        return Finding(
            "reachable", "yes", f"{seen}{hops}, but there is no dataset {dataset_id}"
        ), None
    row = dict(page.rows[0])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AtldldWarning)
            record = SectionDataset.from_rows(row)
    except RegistrationError as error:
        return Finding("reachable", "yes", f"{seen}{hops}; it cannot be opened: {error}"), None
    found = f"dataset {dataset_id}: {record.plane.name}, {len(record.images)} usable images"
    return Finding("reachable", "yes", f"{seen}{hops}; {found}"), Specimen(record, row)


def missing_alignment(specimen: Specimen) -> Finding:
    """Say how an alignment that is not there is spelled, from the rows at hand."""
    rows = [row for row in specimen.row.get("section_images") or [] if isinstance(row, dict)]
    absent = sum("alignment2d" not in row for row in rows)
    null = sum("alignment2d" in row and row["alignment2d"] is None for row in rows)
    answer = "absent" if absent else "null" if null else ""
    seen = f"of {len(rows)} images {absent} lack the key and {null} hold null"
    return Finding("missing alignment", answer, seen)


def rows_a_page(service: Service, question: str, path: str) -> Finding:
    """Ask for more rows than a page may have."""
    got, page = service.page(f"{service.base}/{path}")
    if page is None:
        return Finding(question, "", got.form)
    count, total = len(page.rows), page.total_rows
    all_there = total is not None and count >= total
    seen = f"{count} rows of {total} came, num_rows says {page.num_rows}"
    return Finding(question, f"at least {count}" if all_there else str(count), seen)


def unknown_dataset(service: Service) -> Finding:
    """Ask for a dataset that there is not."""
    got, page = service.page(row_url(service.base, "SectionDataSet", NOBODY))
    if page is not None and not page.rows:
        return Finding("unknown dataset", "no rows", f"{got.form}, success with no rows")
    return Finding("unknown dataset", got.form, _words(got))


def refusal(service: Service, question: str, path: str) -> Finding:
    """Ask for what there is not."""
    got = service.get(path)
    return Finding(question, got.form, _words(got))


def missing_expression(service: Service, specimen: Specimen) -> Finding:
    """Ask for the expression mask of an image that has none."""
    question = "missing expression"
    image_id = next((each.id for each in specimen.record.images if not each.has_expression), None)
    if image_id is None:
        query = Query("SectionImage", (condition("failed", False), "[expression_path$eqnull]"))
        got, page = service.page(query.url(service.base, num_rows=1))
        found = [row.get("id") for row in page.rows] if page is not None else []
        if not found or not isinstance(found[0], int):
            return Finding(question, "", f"no image without expression was found ({got.form})")
        image_id = found[0]
    got = service.get(f"section_image_download/{image_id}?downsample=4&view=expression")
    return Finding(question, got.form, f"image {image_id}: {_words(got)}")


def whole_image(service: Service, specimen: Specimen) -> Iterator[Finding]:
    """Ask for a whole image at a tier: size, content type, redirects."""
    read = read_of(specimen.image)
    got = service.get(image_url(service.base, read))
    size = _size(got)
    wanted = f"{read.width} x {read.height}"
    if size is None:
        answer = got.form
    else:
        answer = "floor" if size == read.size else f"{size[0]} x {size[1]}"
    seen = f"image {read.image_id} at tier {read.tier}, {wanted} by flooring: {_shape(got)}"
    yield Finding("size of a tier", answer, f"{seen}, {got.seconds:.2f} s")
    yield Finding("content type of images", got.content_type, got.form)
    where = ", ".join(got.hops)
    yield Finding("redirects of images", "yes" if got.hops else "no", where or got.form)


def window_sizes(service: Service, specimen: Specimen) -> Iterator[Finding]:
    """Ask for one window with each spelling of ``downsample_dimensions``."""
    read = read_of(specimen.image)
    if read.tier == 0:
        read = read_of(specimen.image, min(1, specimen.image.tier_count - 1))
    step = 2**read.tier
    width, height = max(read.width // 2, 1), max(read.height // 2, 1)
    place = f"left={read.x // step * step}&top={read.y // step * step}"
    for flag in ("", "&downsample_dimensions=false", "&downsample_dimensions=true"):
        got = service.get(
            f"section_image_download/{read.image_id}?downsample={read.tier}&{place}"
            f"&width={width}&height={height}{flag}"
        )
        size = _size(got)
        shrunk = max(width // step, 1), max(height // step, 1)
        answer = {(width, height): "tier", shrunk: "full", None: got.form}.get(size, "other")
        if step == 1:
            answer = ""
        seen = f"width={width}&height={height} at tier {read.tier}: {_shape(got)}"
        yield Finding(f"window sizes{flag.replace('&', ', ')}", answer, seen)


def past_the_slide(service: Service, specimen: Specimen) -> Finding:
    """Ask for a window that reaches past the slide."""
    read = read_of(specimen.image)
    step = 2**read.tier
    rows = [row for row in specimen.row.get("section_images") or [] if isinstance(row, dict)]
    told = next((row.get("image_width") for row in rows if row.get("id") == read.image_id), None)
    right = told if isinstance(told, int) else read.x + specimen.image.width
    left = max(right // step - 32, 0) * step
    top = read.y // step * step
    got = service.get(
        f"section_image_download/{read.image_id}?downsample={read.tier}&left={left}&top={top}"
        "&width=64&height=16&downsample_dimensions=false"
    )
    size = _size(got)
    answer = "padded" if size == (64, 16) else "cut" if size is not None else got.form
    return Finding("window past the slide", answer, f"64 x 16, half of it past: {_shape(got)}")


def past_the_tiers(service: Service, specimen: Specimen) -> Finding:
    """Ask for a tier that there is not."""
    image = specimen.image
    last = read_of(image, image.tier_count - 1)
    got = service.get(f"section_image_download/{image.id}?downsample={image.tier_count}")
    size = _size(got)
    if size is None:
        answer = got.form
    else:
        answer = "last tier" if size == last.size else f"{size[0]} x {size[1]}"
    seen = f"downsample={image.tier_count} of an image of {image.tier_count} tiers: {_shape(got)}"
    return Finding("tier past the last", answer, seen)


def own_place(service: Service, specimen: Specimen) -> Finding:
    """Hold ``image_to_reference`` against the matrices that the service itself sends."""
    image, record = specimen.image, specimen.record
    x, y = image.width // 3, image.height // 3
    z = image.section_number * record.section_thickness
    expected = xy_to_pir(np.array([[x], [y], [z]], dtype=float), image.tsv, record.matrix("tvr"))[
        :, 0
    ]
    return _place("image_to_reference", service, image.id, x, y, tuple(map(float, expected)))


def recorded_place(service: Service) -> Finding:
    """Hold ``image_to_reference`` against an answer that was recorded years ago."""
    image_id, x, y = (int(str(RECORDED[name])) for name in ("image_id", "x", "y"))
    expected: Any = RECORDED["pir"]
    return _place("image_to_reference, recorded", service, image_id, x, y, expected)


def _place(
    question: str, service: Service, image_id: int, x: int, y: int, expected: Sequence[float]
) -> Finding:
    got = service.get(f"image_to_reference/{image_id}.json?x={x}&y={y}")
    try:
        place = json.loads(got.body)["msg"]["image_to_reference"]
        found = [float(place[name]) for name in "xyz"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return Finding(question, "", f"image {image_id}: {got.form}: {_words(got)}")
    off = max(abs(one - two) for one, two in zip(found, expected, strict=True))
    answer = "agrees" if off <= _CONFIRMED else "differs"
    return Finding(question, answer, f"image {image_id}, x={x}, y={y}: off by {off:.2g} microns")


def _words(got: Reply) -> str:
    """Return what a refusal says, short."""
    if got.fault or got.is_jpeg:
        return got.form
    text = got.body[:2000].decode("utf-8", "replace")
    return f"says {plain(text, 120)!r}" if text else "says nothing"


def _size(got: Reply) -> tuple[int, int] | None:
    if got.status != 200:
        return None
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(got.body)
    except ValueError:
        return None
    return width, height


def _shape(got: Reply) -> str:
    size = _size(got)
    return got.form if size is None else f"{size[0]} x {size[1]} came"


Question = Callable[[], "Finding | Iterator[Finding]"]


def asked(questions: Sequence[tuple[str, Question]]) -> Iterator[Finding]:
    """Ask one question after another; one that fails leaves the others standing."""
    for name, question in questions:
        try:
            found = question()
            if isinstance(found, Finding):
                yield found
            else:
                yield from found
        except (ValueError, KeyError, TypeError, UnfitBodyError) as error:
            yield Finding(name, "", f"could not be asked: {plain(str(error))}")


def examine(
    url: str | None = None, *, dataset_id: int | None = None, timeout: float = 20.0
) -> list[Finding]:
    """Ask a service a dozen cheap questions whose answers are written down nowhere.

    About thirty small requests, one after another; nothing is kept in the cache. It ends
    within five minutes whatever the service does.

    Parameters
    ----------
    url
        Base URL of the service; by default that of ``set_options(api_url=...)``.
    dataset_id
        A dataset to ask about, with images, expression masks and sections that share a slide
        if all is to be told. By default two well-known public ones (69289763 and 100055044).
    timeout
        Seconds for one request.

    Returns
    -------
    list of Finding
        In the order of asking. An answer that is empty could not be told; the detail says why.

    Raises
    ------
    ValueError
        If `url` is not the base URL of a service.

    Examples
    --------
    >>> from atldld.reading.doctor import examine
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with AllenServer([phantom_dataset(dataset_id=7, sections=3, resolution=40)]) as server:
    ...     findings = {one.question: one.answer for one in examine(server.url, dataset_id=7)}
    >>> findings["window sizes"], findings["image_to_reference"]
    ('tier', 'agrees')
    """
    address = options.current().api_url if url is None else url
    service = Service(address, timeout, time.monotonic() + _LONGEST)
    with (
        tempfile.TemporaryDirectory(prefix="atldld-doctor-") as folder,
        options.set_options(cache_dir=folder, timeout=timeout, retries=1),
    ):
        return list(_findings(service, dataset_id))


_WITHOUT_A_DATASET: Final = (
    ("rows per page, default", rows_a_page, "data/SectionImage/query.json?only=id"),
    ("rows per page, most", rows_a_page, "data/SectionImage/query.json?num_rows=30000&only=id"),
    (
        "bad query",
        refusal,
        "data/query.json?criteria=model::NoSuchModel,rma::criteria,%5Bid$xx1%5D",
    ),
    ("unknown image", refusal, f"section_image_download/{NOBODY}?downsample=4"),
    (
        "image_to_reference, unknown image",
        refusal,
        f"image_to_reference/{NOBODY}.json?x=1&y=1",
    ),
)


def _findings(service: Service, dataset_id: int | None) -> Iterator[Finding]:
    found, specimen = reachable(service, dataset_id or DATASET)
    yield found
    if found.answer == "no":
        return
    yield from asked(
        [
            *(
                (question, partial(ask_for, service, question, path))
                for question, ask_for, path in _WITHOUT_A_DATASET
            ),
            ("unknown dataset", lambda: unknown_dataset(service)),
        ]
    )
    if dataset_id is None:
        yield from asked([("image_to_reference, recorded", lambda: recorded_place(service))])
    if specimen is None:
        return
    yield from asked(
        [
            ("missing alignment", lambda: missing_alignment(specimen)),
            ("image_to_reference", lambda: own_place(service, specimen)),
            ("size of a tier", lambda: whole_image(service, specimen)),
            ("window sizes", lambda: window_sizes(service, specimen)),
            ("window past the slide", lambda: past_the_slide(service, specimen)),
            ("tier past the last", lambda: past_the_tiers(service, specimen)),
            ("missing expression", lambda: missing_expression(service, specimen)),
            ("grey expression masks", lambda: grey_masks(service, specimen)),
        ]
    )
    on_slides: Specimen | None = specimen
    if dataset_id is None:
        _, on_slides = reachable(service, ON_SLIDES)
    if on_slides is None:
        yield Finding("tier origin", "", f"dataset {ON_SLIDES} is not there")
    else:
        yield from tier_origin(service, on_slides)


def grey_masks(service: Service, specimen: Specimen) -> Finding:
    """Ask which spelling gives the grey levels of an expression image."""
    question = "grey expression masks"
    for image in _spread([one for one in specimen.record.images if one.has_expression]):
        url = image_url(service.base, replace(read_of(image), view="expression"))
        heat = _spread_of_colours(service.get(url).body)
        if heat is None or heat <= _COLOURFUL:
            continue
        grey = {}
        for name, spelling in _SPELLINGS.items():
            spread = _spread_of_colours(service.get(f"{url}&{spelling}").body)
            grey[name] = spread is not None and spread <= _COLOURFUL
        answer = {0: "neither", 2: "both"}.get(
            sum(grey.values()), next((name for name in grey if grey[name]), "")
        )
        seen = ", ".join(f"{_SPELLINGS[name]}: {grey[name]}" for name in grey)
        return Finding(question, answer, f"image {image.id}: {seen}")
    return Finding(question, "", "no image with a coloured expression image was found")


def tier_origin(service: Service, specimen: Specimen) -> Iterator[Finding]:
    """Hold a window against the whole image, where a section starts between two tier pixels."""
    source = AllenSource(service.base)
    places, detail = "", "no image is large enough to tell"
    for image in _most_between(specimen.record.images)[:_TRIES]:
        pair = probes(read_of(image))
        if pair is None or time.monotonic() > service.until:
            continue
        try:
            (whole, picture), (part, window) = pixels_ahead(source, pair)
        except AtldldError as error:
            detail = str(error)
            continue
        assert part.window is not None
        verdict = compare(picture, window, part.window, whole.fraction)
        where = f"image {image.id} at tier {whole.tier}, window {part.window.box}"
        if verdict.same_place is not None:
            places = "yes" if verdict.same_place else "no"
            detail = where
        if verdict.shifted is not None and whole.fraction != (0.0, 0.0):
            yield Finding("windows show the place asked for", places, detail)
            x, y = whole.fraction
            between = f"{where}, which starts {x:g} and {y:g} past a tier pixel of its slide"
            yield Finding("tier origin", "section" if verdict.shifted else "slide", between)
            return
    yield Finding("windows show the place asked for", places, detail)
    yield Finding("tier origin", "", "no image told it: none starts between two tier pixels")


def _most_between(images: tuple[SectionImage, ...]) -> list[SectionImage]:
    """Return images, first those that start the most between two pixels of their slide."""

    def between(image: SectionImage) -> float:
        fraction = read_of(image).fraction
        return max(min(part, 1 - part) for part in fraction)

    return sorted(images, key=between, reverse=True)


def _spread(images: list[SectionImage]) -> list[SectionImage]:
    """Return a few images, the middle one first: there is most tissue in it."""
    count = len(images)
    places = dict.fromkeys(count * part // 8 for part in (4, 3, 5, 2))
    return [images[place] for place in places if place < count][:_TRIES]


def _spread_of_colours(body: bytes) -> int | None:
    """Return by how many levels the channels of a picture differ at most, or None."""
    try:
        pixels = decode(body)
    except ValueError:
        return None
    return int(np.ptp(pixels.astype(np.int16), axis=-1).max())
