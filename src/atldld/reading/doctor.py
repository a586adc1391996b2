"""Examining a service: every question, and those that take a look at pixels."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .. import options
from ..errors import AtldldError
from ..model.dataset import SectionImage
from ..sampling.agreement import compare
from ..sampling.decode import decode
from ..source import doctor
from ..source.allen import AllenSource, image_url
from ..source.doctor import Finding, Service, Specimen, read_of
from .conventions import probes
from .pixels import pixels_ahead

_SPELLINGS = {
    "filter": "filter=colormap&filterVals=0,1,0,256,0",
    "colormap": "colormap=0,1,0,256,0",
}
_TRIES = 4
_COLOURFUL = 24
_LONGEST = 300.0


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


def _findings(service: Service, dataset_id: int | None) -> Iterator[Finding]:
    found, specimen = doctor.reachable(service, dataset_id or doctor.DATASET)
    yield found
    if found.answer == "no":
        return
    yield from doctor.asked(
        [
            ("rows per page, default", lambda: doctor.default_rows(service)),
            ("rows per page, most", lambda: doctor.most_rows(service)),
            ("unknown dataset", lambda: doctor.unknown_dataset(service)),
            ("bad query", lambda: doctor.bad_query(service)),
            ("unknown image", lambda: doctor.unknown_image(service)),
            ("image_to_reference, unknown image", lambda: doctor.unknown_sync(service)),
        ]
    )
    if dataset_id is None:
        yield from doctor.asked(
            [("image_to_reference, recorded", lambda: doctor.recorded_place(service))]
        )
    if specimen is None:
        return
    yield from doctor.asked(
        [
            ("missing alignment", lambda: doctor.missing_alignment(specimen)),
            ("image_to_reference", lambda: doctor.own_place(service, specimen)),
            ("size of a tier", lambda: doctor.whole_image(service, specimen)),
            ("window sizes", lambda: doctor.window_sizes(service, specimen)),
            ("window past the slide", lambda: doctor.past_the_slide(service, specimen)),
            ("tier past the last", lambda: doctor.past_the_tiers(service, specimen)),
            ("missing expression", lambda: doctor.missing_expression(service, specimen)),
            ("grey expression masks", lambda: grey_masks(service, specimen)),
        ]
    )
    on_slides: Specimen | None = specimen
    if dataset_id is None:
        _, on_slides = doctor.reachable(service, doctor.ON_SLIDES)
    if on_slides is None:
        yield Finding("tier origin", "", f"dataset {doctor.ON_SLIDES} is not there")
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
