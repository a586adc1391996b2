"""What a server can serve: rows, with the images that belong to them or without, and recordings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .service_rows import Row

Pixels = npt.NDArray[np.uint8]

_FILE = re.compile(
    r"section_image_(\d+)_downsample_(\d+)(?:_(expression_mask|expression|projection))?\.jpe?g"
)


class Served(Protocol):
    """A dataset, or several, that a server can serve; without images, where they are not told."""

    @property
    def rows(self) -> Sequence[Row]:
        """SectionDataSet rows with everything nested in them."""
        ...

    @property
    def image_ids(self) -> Sequence[int]:
        """Ids of the images that it has pixels of."""
        return ()

    def image(self, image_id: int) -> Row:
        """Return the true row of an image: sizes, offset on the slide, tiers."""
        raise KeyError(f"no image {image_id}")

    def encoded(self, image_id: int, view: str, tier: int) -> bytes | None:
        """Return the stored JPEG of a whole section at a tier, or None."""
        del image_id, view, tier
        return None

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
        del corner, size, shift
        raise KeyError(f"no image {image_id}, view {view}, tier {tier}")


class BareRows(Served):
    """SectionDataSet rows without images, served as they are, whatever they hold or lack."""

    def __init__(self, *rows: Mapping[str, Any]) -> None:
        self._rows = [dict(row) for row in rows]

    @property
    def rows(self) -> list[Row]:
        """These rows."""
        return self._rows


@dataclass(frozen=True, eq=False)
class RecordedFolder:
    """Metadata and images that were recorded from the service.

    Parameters
    ----------
    rows
        SectionDataSet rows with everything nested in them.
    files
        JPEG files by image id, view and tier.
    """

    rows: list[Row]
    files: Mapping[tuple[int, str, int], Path]

    @property
    def image_ids(self) -> list[int]:
        """Ids of all images that the rows tell of, whether there is a file or not."""
        return list(self._images)

    def image(self, image_id: int) -> Row:
        """Return the row of an image."""
        return self._images[image_id]

    def encoded(self, image_id: int, view: str, tier: int) -> bytes | None:
        """Return the recorded JPEG, byte for byte, or None."""
        path = self.files.get((image_id, view, tier))
        return None if path is None else path.read_bytes()

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
        """Return part of a recorded image; what lies past it on the slide is white.

        Raises
        ------
        KeyError
            If that tier or view was not recorded.
        """
        import simplejpeg

        del shift
        data = self.encoded(image_id, view, tier)
        if data is None:
            raise KeyError(f"view {view} of image {image_id} was not recorded at tier {tier}")
        found = simplejpeg.decode_jpeg(data)
        row, step = self.image(image_id), 2**tier
        left = corner[0] // step - row["x"] // step
        top = corner[1] // step - row["y"] // step
        out = np.full((size[1], size[0], 3), 255, dtype=np.uint8)
        part = found[max(top, 0) : max(top + size[1], 0), max(left, 0) : max(left + size[0], 0)]
        y, x = max(-top, 0), max(-left, 0)
        out[y : y + part.shape[0], x : x + part.shape[1]] = part
        return out

    @property
    def _images(self) -> dict[int, Row]:
        return {
            image["id"]: image
            for row in self.rows
            for image in row.get("section_images") or []
            if isinstance(image, dict)
        }


def load_recorded(folder: str | Path) -> RecordedFolder:
    """Load a folder of recorded answers.

    Parameters
    ----------
    folder
        Holds ``query.json``, the envelope of an RMA query with SectionDataSet rows, and
        images named ``section_image_<id>_downsample_<tier>.jpg`` (``..._expression.jpg`` and so
        on for other views).

    Raises
    ------
    FileNotFoundError
        If there is no ``query.json``.
    ValueError
        If it is not the envelope of an answer with rows.
    """
    folder = Path(folder)
    envelope = json.loads((folder / "query.json").read_text())
    rows = envelope.get("msg") if isinstance(envelope, dict) else None
    if not isinstance(rows, list):
        raise ValueError(f"{folder / 'query.json'} is not the envelope of an answer with rows")
    files = {}
    for path in sorted(folder.iterdir()):
        named = _FILE.fullmatch(path.name)
        if named:
            files[int(named[1]), named[3] or "image", int(named[2])] = path
    return RecordedFolder(rows, files)
