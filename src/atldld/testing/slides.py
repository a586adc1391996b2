"""Phantom datasets in the layout of Allen's open bucket: whole slides as TIFF, in any form."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .datasets import PhantomDataset
from .service_rows import Row


@dataclass(frozen=True, slots=True)
class TiffForm:
    """How the slides of a bucket are written: nobody outside knows.

    Parameters
    ----------
    tile
        Side of square tiles; None for strips.
    rows
        Rows of a strip; None for one strip.
    compression
        None, or a name that tifffile knows: ``"zlib"``, ``"lzw"``, ``"packbits"``, ``"jpeg"``.
    big
        Whether it is a BigTIFF.
    grey
        Whether red alone is kept.
    planar
        Whether each colour has segments of its own.
    predictor
        Whether differences are compressed.
    """

    tile: int | None = None
    rows: int | None = 16
    compression: Literal["zlib", "lzw", "packbits", "jpeg"] | None = None
    big: bool = False
    grey: bool = False
    planar: bool = False
    predictor: bool = False

    def write(self, path: Path, pixels: Any) -> None:
        """Write pixels, uint8 of shape (height, width, 3), as a TIFF."""
        import tifffile

        options: dict[str, Any] = {"compression": self.compression, "metadata": None}
        if self.predictor:
            options["predictor"] = True
        if self.tile is not None:
            options["tile"] = (self.tile, self.tile)
        else:
            options["rowsperstrip"] = pixels.shape[0] if self.rows is None else self.rows
        if self.grey:
            pixels, options["photometric"] = np.ascontiguousarray(pixels[..., 0]), "minisblack"
        else:
            options["photometric"] = "rgb"
        if self.planar and not self.grey:
            pixels, options["planarconfig"] = np.moveaxis(pixels, -1, 0), "separate"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tifffile.TiffWriter(path, bigtiff=self.big) as file:
            file.write(pixels, **options)


def write_slides(
    datasets: Iterable[PhantomDataset],
    folder: Path,
    form: TiffForm | None = None,
    *,
    lost: Iterable[tuple[int, int]] = (),
) -> None:
    """Write phantom datasets to a folder as Allen's open bucket has them.

    Parameters
    ----------
    datasets
        What to write.
    folder
        Where to.
    form
        How the TIFFs are written.
    lost
        Image ids and tiers whose slides are listed and not there.
    """
    form = form or TiffForm()
    gone = {*lost}
    listing = []
    for dataset in datasets:
        home = folder / f"section_data_set_{dataset.id}"
        images: list[Row] = []
        for image_id in dataset.image_ids:
            image = dataset.image(image_id)
            name = f"section_image_{dataset.slides.get(image_id, image_id)}.tiff"
            tiers = {}
            for tier in range(image["tier_count"]):
                tiers[f"downsample_{tier}"] = tier_of(image, tier)
                path = home / f"downsample_{tier}" / name
                if (image_id, tier) not in gone and not path.exists():
                    size = (
                        max(image["image_width"] >> tier, 1),
                        max(image["image_height"] >> tier, 1),
                    )
                    pixels = dataset.slide_pixels(image_id, "image", tier, (0, 0), size)
                    form.write(path, pixels)
            images.append(
                {
                    "bits_per_component": 8,
                    "id": image_id,
                    "resolution": image["resolution"],
                    "section_number": image["section_number"],
                    "downsampling": tiers,
                    "image_file_name": name,
                }
            )
        row = {"id": dataset.id, "section_images": images}
        home.mkdir(parents=True, exist_ok=True)
        (home / "section_data_set.json").write_text(json.dumps(row), encoding="utf-8")
        listing.append({"id": dataset.id, "genes": dataset.row.get("genes")})
    (folder / "section_data_sets.json").write_text(json.dumps(listing), encoding="utf-8")


def tier_of(image: Row, tier: int) -> Row:
    """Return what the bucket says of a tier: every number is halved and floored."""
    return {
        "width": max(image["width"] >> tier, 1),
        "height": max(image["height"] >> tier, 1),
        "x": image["x"] >> tier,
        "y": image["y"] >> tier,
        "image_file_width": max(image["image_width"] >> tier, 1),
        "image_file_height": max(image["image_height"] >> tier, 1),
    }
