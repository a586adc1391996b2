"""What to do about an image that cannot be had: decisions, and where they are noted."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import APIError, ImageError
from ..model.read import ImageRead
from .ledger import Ledger

_OF_THE_IMAGE = (200, 404, 500)
"""Statuses that speak of one image: sent but bad, missing, or the service stumbled over it."""


@dataclass(frozen=True, slots=True)
class Failing:
    """What an array does about an image that cannot be had.

    Parameters
    ----------
    fill
        Whether its section is filled; else the error is raised.
    other_tiers
        Whether a neighbouring tier may serve where the image is bad at the tier wanted.
    ledger
        Where it is noted.
    """

    fill: bool
    other_tiers: bool
    ledger: Ledger

    def had(self, read: ImageRead) -> None:
        """Note that an image was had, in case it failed before."""
        if self.fill or self.other_tiers:
            self.ledger.clear(read)


def neighbours(tier: int, count: int) -> tuple[int, ...]:
    """Return the tiers that may serve for another: the next finer, then the next coarser.

    Examples
    --------
    >>> neighbours(4, 7), neighbours(0, 7), neighbours(0, 1)
    ((3, 5), (1,), ())
    """
    return tuple(other for other in (tier - 1, tier + 1) if 0 <= other < count)


def is_bad_itself(error: ImageError) -> bool:
    """Whether an image is bad or missing at its tier, rather than its service out of reach.

    The service is known to have lost single tiers of images, and to send for them pages, other
    sizes or damaged files. Where it does not answer at all, no tier is worth a try.
    """
    cause = error.__cause__
    return not isinstance(cause, APIError) or cause.status in _OF_THE_IMAGE
