"""What is in doubt about a service, asked of it once before it is relied on.

Two things are not documented: whether a window shows the place that it was asked for, and
whether the image of a section that starts between two tier pixels of its slide starts on the
slide's pixels or on its own. One window held against the whole image of its tier answers both, if
the section can tell: one at the corner of its slide says nothing about others.
The answer is kept in the cache of the service.
"""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Literal

from ..errors import AtldldWarning, ImageError
from ..model.read import ImageRead, Window
from ..sampling.agreement import compare
from ..source import Source
from ..store.records import CONVENTIONS
from .images import pixels_ahead

_LONGEST_SIDE = 512
_LEAST_SIDE = 48


@dataclass(frozen=True, slots=True)
class Conventions:
    """What is known about a service. None is what nobody found out; False is not to be relied on.

    Parameters
    ----------
    windows
        Whether windows show the place that they are asked for, of sections that begin at the
        left and top edge of their slide.
    whole_origin
        Whether the image of a whole section begins on the pixel lattice of its ``"slide"``
        or of the ``"section"``.
    past_left, past_top
        Whether they do for sections that begin further right, or further down: a service
        that counts windows from the corner of the section is right about all others.
    """

    windows: bool | None = None
    whole_origin: Literal["slide", "section"] | None = None
    past_left: bool | None = None
    past_top: bool | None = None

    def settled(self) -> Conventions:
        """Return conventions in which nothing is open: what is not known is not relied on."""
        return Conventions(
            self.windows is True,
            self.whole_origin or "slide",
            self.past_left is True,
            self.past_top is True,
        )

    def trust(self, read: ImageRead) -> bool:
        """Whether a read is known to bring the pixels that it asks for."""
        return read.window is None or all(self._matters(read).values())

    def lack(self, reads: Collection[ImageRead]) -> bool:
        """Whether something that matters to some reads is not known."""
        return bool(self.lacking(reads))

    def lacking(self, reads: Collection[ImageRead]) -> set[str]:
        """Return the names of what matters to some reads and is not known."""
        names = set()
        for read in reads:
            if read.window is not None and self.windows is not False:
                names |= {name for name, found in self._matters(read).items() if found is None}
            if read.window is None and self.whole_origin is None and read.fraction != (0.0, 0.0):
                names.add("whole_origin")
        return names

    def _matters(self, read: ImageRead) -> dict[str, bool | None]:
        """Return what the window of a read hangs on, and whether it is right."""
        left, top = _offset(read)
        found = {"windows": self.windows}
        if left:
            found["past_left"] = self.past_left
        if top:
            found["past_top"] = self.past_top
        return found


def known(source: Source) -> Conventions:
    """Return what is known about a source, without asking it."""
    recall = getattr(source, "recall", None)
    text = _found.get(source.name) if recall is None else recall(CONVENTIONS)
    return _from_json(text or "{}")


@lru_cache(maxsize=64)
def _from_json(text: str) -> Conventions:
    truths = {True: True, False: False}
    try:
        fields = json.loads(text)
        return Conventions(
            windows=truths.get(fields.get("windows")),
            whole_origin={"slide": "slide", "section": "section"}.get(  # type: ignore[arg-type]
                fields.get("whole_origin")
            ),
            past_left=truths.get(fields.get("past_left")),
            past_top=truths.get(fields.get("past_top")),
        )
    except (ValueError, AttributeError, TypeError, RecursionError):
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
    missing: ImageError | None = None
    with _asking:
        found = known(source)
        for pair in _telling(found, candidates, reads):
            if not found.lack(reads):
                break
            if _may_tell(pair) & found.lacking(reads):
                try:
                    found = _asked(source, pair, found)
                except ImageError as error:
                    # Another image may tell as well; this one is told of where it is read.
                    missing = error
    if missing is not None and found.lack(reads):
        warnings.warn(
            f"windows of {source.name} could not be tried, whole images are read: {missing}",
            AtldldWarning,
            stacklevel=2,
        )
    return found


def probes_needed(
    source: Source, candidates: Sequence[ImageRead], reads: Sequence[ImageRead]
) -> tuple[ImageRead, ...]:
    """Return the reads that `settle` would begin with, or nothing if it would ask nothing."""
    found = known(source)
    if not found.lack(reads):
        return ()
    return next(iter(_telling(found, candidates, reads)), ())


def _telling(
    found: Conventions, candidates: Sequence[ImageRead], reads: Sequence[ImageRead]
) -> list[tuple[ImageRead, ImageRead]]:
    """Return the pairs to try, the one first that may tell the most of what is lacking."""
    lacking = found.lacking(reads)
    pairs = [pair for pair in map(probes, candidates) if pair is not None]
    telling = [pair for pair in pairs if _may_tell(pair) & lacking]
    return sorted(telling, key=lambda pair: len(_may_tell(pair) & lacking), reverse=True)


def _may_tell(pair: tuple[ImageRead, ImageRead]) -> set[str]:
    """Return the names of what a pair of probes may tell."""
    left, top = _offset(pair[0])
    names = {"windows"}
    if left:
        names.add("past_left")
    if top:
        names.add("past_top")
    if pair[0].fraction != (0.0, 0.0):
        names.add("whole_origin")
    return names


def _offset(read: ImageRead) -> tuple[int, int]:
    """Return how many pixels of the tier a section begins past the left and top of its slide."""
    return read.x >> read.tier, read.y >> read.tier


def _asked(source: Source, pair: tuple[ImageRead, ImageRead], before: Conventions) -> Conventions:
    (whole, image), (part, window) = pixels_ahead(source, pair)
    assert part.window is not None
    verdict = compare(image, window, part.window, whole.fraction, _offset(whole))
    found = before
    if verdict.same_place is not None and before.windows is not False:
        found = replace(found, windows=verdict.same_place)
    if verdict.same_place:
        left, top = verdict.corner
        found = replace(found, past_left=left or found.past_left, past_top=top or found.past_top)
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
    remember, text = getattr(source, "remember", None), json.dumps(asdict(found))
    if remember is None:
        _found[source.name] = text
    else:
        remember(CONVENTIONS, text)


def _between(read: ImageRead) -> tuple[float, float]:
    """Return how far the first pixel lies from a pixel of the slide, along x and y, 0 to 0.5."""
    x, y = read.fraction
    return min(x, 1 - x), min(y, 1 - y)


_asking = threading.Lock()
_found: dict[str, str] = {}
"""What was found out about sources that keep nothing themselves."""
