"""What is in doubt about a service, asked of it once before it is relied on.

Two things are not documented: whether a window shows the place that it was asked for, and
whether the image of a section that starts between two tier pixels of its slide starts on the
slide's pixels or on its own. One window held against the whole image of its tier answers both.
The answer is kept in the cache of the service.
"""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from ..errors import AtldldWarning, ImageError
from ..model.read import ImageRead, Window
from ..sampling.agreement import compare
from ..source.protocol import Source, keeps
from .pixels import pixels_ahead

_KEY = "conventions"
_LONGEST_SIDE = 512
_LEAST_SIDE = 48


@dataclass(frozen=True, slots=True)
class Conventions:
    """What is known about a service.

    Parameters
    ----------
    windows
        Whether windows show the place that they are asked for; None if not known.
    whole_origin
        Whether the image of a whole section begins on the pixel lattice of its ``"slide"``
        or of the ``"section"``; None if not known.
    """

    windows: bool | None = None
    whole_origin: Literal["slide", "section"] | None = None

    def lack(self, reads: Collection[ImageRead]) -> bool:
        """Whether something that matters to some reads is not known."""
        return (self.windows is None and any(read.window is not None for read in reads)) or (
            self.whole_origin is None
            and any(read.window is None and read.fraction != (0.0, 0.0) for read in reads)
        )


def known(source: Source) -> Conventions:
    """Return what is known about a source, without asking it."""
    if not keeps(source):
        return _found.get(source.name, Conventions())
    text = source.recall(_KEY)
    try:
        fields = json.loads(text or "{}")
        return Conventions(
            windows={True: True, False: False}.get(fields.get("windows")),
            whole_origin={"slide": "slide", "section": "section"}.get(  # type: ignore[arg-type]
                fields.get("whole_origin")
            ),
        )
    except (ValueError, AttributeError, TypeError):
        return Conventions()


def probes(read: ImageRead) -> tuple[ImageRead, ImageRead] | None:
    """Return the two reads that settle the conventions: a whole image and a window of it.

    Parameters
    ----------
    read
        Any read of an image; the probes are of it or of a coarser tier.

    Returns
    -------
    whole, part
        Of a tier of at most about 512 pixels; of those the one whose first pixel lies most
        between two pixels of the slide. None where the image is too small to tell anything.
    """
    candidates = []
    whole = read.whole()
    while min(whole.width, whole.height) >= _LEAST_SIDE:
        candidates.append(whole)
        whole = whole.coarser()
    small = [each for each in candidates if max(each.size) < 2 * _LONGEST_SIDE] or candidates[-1:]
    if not small:
        return None
    # The coarsest but one is large enough to show something, and small enough to cost little.
    chosen = max(small, key=lambda each: (round(min(*_between(each)), 1), max(each.size)))
    window = Window(chosen.width // 4, chosen.height // 4, chosen.width // 2, chosen.height // 2)
    return chosen, replace(chosen, window=window)


def settle(
    source: Source, candidates: Sequence[ImageRead], reads: Sequence[ImageRead]
) -> Conventions:
    """Return the conventions of a source, asked of it if some reads need them.

    Parameters
    ----------
    source
        The source.
    candidates
        Images that may be asked for in order to find out, the first that tells is enough.
    reads
        What is about to be read.
    """
    found = known(source)
    if not found.lack(reads):
        return found
    with _asking:
        found = known(source)
        for candidate in candidates:
            if not found.lack(reads):
                break
            found = _asked(source, candidate, found)
    return found


def probes_needed(
    source: Source, candidates: Sequence[ImageRead], reads: Sequence[ImageRead]
) -> tuple[ImageRead, ...]:
    """Return the reads that `settle` would begin with, or nothing if it would ask nothing."""
    if not known(source).lack(reads):
        return ()
    return next((pair for pair in map(probes, candidates) if pair is not None), ())


def _asked(source: Source, candidate: ImageRead, before: Conventions) -> Conventions:
    pair = probes(candidate)
    if pair is None:
        return before
    try:
        (whole, image), (part, window) = pixels_ahead(source, pair)
    except ImageError as error:
        warnings.warn(
            f"windows of {source.name} could not be tried, whole images are read: {error}",
            AtldldWarning,
            stacklevel=2,
        )
        return before
    assert part.window is not None
    verdict = compare(image, window, part.window, whole.fraction)
    found = before
    if verdict.same_place is not None:
        found = replace(found, windows=verdict.same_place)
    if verdict.shifted is not None and whole.fraction != (0.0, 0.0):
        found = replace(found, whole_origin="section" if verdict.shifted else "slide")
    if found.windows is False and before.windows is not False:
        warnings.warn(
            f"{source.name} sends windows of another place than was asked for (image "
            f"{part.image_id}, {part.window}); whole images are read instead",
            AtldldWarning,
            stacklevel=2,
        )
    if found != before:
        _keep(source, found)
    return found


def _keep(source: Source, found: Conventions) -> None:
    if keeps(source):
        source.remember(_KEY, json.dumps(asdict(found)))
    else:
        _found[source.name] = found


def _between(read: ImageRead) -> tuple[float, float]:
    """Return how far the first pixel lies from a pixel of the slide, along x and y, 0 to 0.5."""
    x, y = read.fraction
    return min(x, 1 - x), min(y, 1 - y)


_asking = threading.Lock()
_found: dict[str, Conventions] = {}
"""What was found out about sources that keep nothing themselves."""
