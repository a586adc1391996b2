"""What a server can serve: rows, and the images that belong to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .service_rows import Row

Pixels = npt.NDArray[np.uint8]


class Served(Protocol):
    """A dataset, or several, that a server can serve."""

    @property
    def rows(self) -> Sequence[Row]:
        """SectionDataSet rows with everything nested in them."""
        ...

    @property
    def image_ids(self) -> Sequence[int]:
        """Ids of the images that it has pixels of."""
        ...

    def image(self, image_id: int) -> Row:
        """Return the true row of an image: sizes, offset on the slide, tiers."""
        ...

    def encoded(self, image_id: int, view: str, tier: int) -> bytes | None:
        """Return the stored JPEG of a whole section at a tier, or None."""
        ...

    def slide_pixels(
        self,
        image_id: int,
        view: Any,
        tier: int,
        corner: tuple[int, int],
        size: tuple[int, int],
        *,
        shift: float = 0.0,
    ) -> Pixels:
        """Return part of the slide of an image; `LookupError` where there is none."""
        ...


class BareRows:
    """Rows without images, served as they are, whatever they hold.

    Parameters
    ----------
    rows
        SectionDataSet rows. They may lack anything.
    """

    def __init__(self, *rows: Mapping[str, Any]) -> None:
        self.rows: list[Row] = [dict(row) for row in rows]
        self.image_ids: list[int] = []

    def image(self, image_id: int) -> Row:
        """There is none."""
        raise KeyError(f"no image {image_id}")

    def encoded(self, image_id: int, view: str, tier: int) -> bytes | None:
        """There is none."""
        raise KeyError(f"no image {image_id}, view {view}, tier {tier}")

    def slide_pixels(
        self,
        image_id: int,
        view: Any,
        tier: int,
        corner: tuple[int, int],
        size: tuple[int, int],
        *,
        shift: float = 0.0,
    ) -> Pixels:
        """There are none."""
        del corner, size, shift
        raise KeyError(f"no image {image_id}, view {view}, tier {tier}")
