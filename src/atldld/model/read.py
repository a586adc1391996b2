"""A read: which pixels of which section image are wanted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from ..errors import ImageError

View = Literal["image", "projection", "expression", "expression_mask"]
VIEWS: tuple[View, ...] = get_args(View)


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of one tier of a section image.

    Parameters
    ----------
    left, top
        First column and row, in pixels of the tier, counted from the top left pixel of the
        tier image of the section (not of the slide).
    width, height
        Size in pixels of the tier.

    Examples
    --------
    >>> Window(10, 20, 100, 50).holds(Window(10, 20, 5, 5))
    True
    """

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """First column past the window."""
        return self.left + self.width

    @property
    def bottom(self) -> int:
        """First row past the window."""
        return self.top + self.height

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height."""
        return self.left, self.top, self.width, self.height

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    def holds(self, other: Window) -> bool:
        """Whether `other` lies within this window."""
        return (
            self.left <= other.left
            and self.top <= other.top
            and self.right >= other.right
            and self.bottom >= other.bottom
        )


@dataclass(frozen=True, slots=True)
class ImageRead:
    """One image, or a window of it, at one tier: what a source is asked for.

    Parameters
    ----------
    image_id
        Id of the section image.
    view
        One of ``"image"``, ``"projection"``, ``"expression"``, ``"expression_mask"``.
    tier
        How many times each side is halved.
    width, height
        Size of the whole section image at that tier, in pixels.
    x, y
        Offset of the section on its slide, in full-resolution pixels.
    window
        What is wanted of the tier, or None for all of it.
    dataset_id, section_number
        Whose image it is, for messages.
    """

    image_id: int
    view: View
    tier: int
    width: int
    height: int
    x: int = 0
    y: int = 0
    window: Window | None = None
    dataset_id: int | None = None
    section_number: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image that the source delivers, in pixels."""
        if self.window is None:
            return self.width, self.height
        return self.window.width, self.window.height

    @property
    def fraction(self) -> tuple[float, float]:
        """How far, in pixels of the tier, the section starts past a tier pixel of its slide."""
        step = 2**self.tier
        return self.x % step / step, self.y % step / step

    def coarser(self) -> ImageRead:
        """Return the read of the whole image one tier up: half as wide and high, floored."""
        width, height = max(self.width // 2, 1), max(self.height // 2, 1)
        return replace(self, tier=self.tier + 1, width=width, height=height, window=None)

    def whole(self) -> ImageRead:
        """Return the read of the whole image at the same tier."""
        return replace(self, window=None)

    def error(self, reason: str, url: str | None) -> ImageError:
        """Return the error that it could not be had from a URL, with what was wrong in words."""
        return ImageError(
            reason,
            image_id=self.image_id,
            dataset_id=self.dataset_id,
            section_number=self.section_number,
            url=url,
            window=None if self.window is None else self.window.box,
        )
