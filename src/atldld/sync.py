"""Section datasets image by image: the raw pixels, each with the field that registers it.

For one lazy array in reference space see `atldld.open_dataarray`; this is the interface for
those who want the images themselves, or who come from version 0.3.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import AtldldWarning, DatasetNotFoundError, ImageError
from .model.affine import pir_to_xy, xy_to_pir
from .model.checks import checked_choice, whole_number
from .model.dataset import SectionDataset, SectionImage
from .model.read import ImageRead, View
from .model.space import AXES, CORONAL, SAGITTAL, Plane
from .options import set_options
from .reading.images import pixels_ahead
from .sampling.displacement import DisplacementField
from .sampling.parallel import get_parallel_transform
from .source import Source, source_from

__all__ = [
    "DatasetDownloader",
    "DatasetNotFoundError",
    "DisplacementField",
    "DownloadedSection",
    "get_parallel_transform",
    "pir_to_xy",
    "xy_to_pir",
]

Pixels = npt.NDArray[np.uint8]
OnError = Literal["raise", "skip"]

_PLANES = {1: CORONAL, 2: SAGITTAL}
_ON_ERROR = ("raise", "skip")
_DATASET_KEYS = ("affine_tvr", "affine_trv", "section_thickness")
_IMAGE_KEYS = ("id", "affine_tsv", "affine_tvs", "section_number")


class DownloadedSection(NamedTuple):
    """One section image and the field that registers it.

    Parameters
    ----------
    image_id
        Id of the section image.
    slice_coordinate
        p (coronal) or r (sagittal) of the section, in microns of the dataset's own reference
        space.
    img
        uint8, shape (rows, columns, 3): the raw image.
    img_expression
        uint8, shape (rows, columns, 3): Allen's coloured heat map, or None.
    df
        The field that warps either of them onto the plane of `slice_coordinate`.
    """

    image_id: int
    slice_coordinate: float
    img: Pixels
    img_expression: Pixels | None
    df: DisplacementField


class DatasetDownloader:
    """Downloads a whole section dataset, image by image.

    Images come from the service that the options name (`atldld.set_options`, ``api_url``;
    ``ATLDLD_API_URL``), through its cache, and ahead of their turn: up to sixteen are
    downloaded or wait while one is worked on.

    Parameters
    ----------
    dataset_id
        Id of the section dataset.
    downsample_ref
        Microns between grid points of the fields; see `get_parallel_transform`.
    detection_xy
        x, y of the full-resolution pixel whose place gives a section its slice coordinate. The
        default is the top left pixel; over an image the coordinate varies, as sections are
        tilted.
    include_expression
        Whether to download the expression images as well.
    downsample_img
        Tier of the images: each side is halved this many times.
    on_error
        ``"raise"``: an image that cannot be had or read raises. ``"skip"``: it is passed over,
        with an `AtldldWarning` that names it.

    Attributes
    ----------
    metadata : dict
        Empty until `fetch_metadata` was called; then ``"dataset"`` is a dict with ``id``,
        ``affine_tvr`` and ``affine_trv`` (shape (3, 4), float64), ``plane_of_section_id`` and
        ``section_thickness``, and ``"images"`` a list of dicts with ``id``, ``affine_tsv`` and
        ``affine_tvs`` (shape (2, 3), float64) and ``section_number``, highest section number
        first. `run` goes by this dict, so that what is changed in it holds.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as above.

    Examples
    --------
    >>> import atldld, tempfile
    >>> from atldld.sync import DatasetDownloader
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with (
    ...     AllenServer(phantom_dataset(7, sections=2)) as server,
    ...     tempfile.TemporaryDirectory() as folder,
    ...     atldld.set_options(api_url=server.url, cache_dir=folder),
    ... ):
    ...     downloader = DatasetDownloader(7, downsample_ref=100)
    ...     downloader.fetch_metadata()
    ...     for image_id, slice_coordinate, img, img_expression, df in downloader.run():
    ...         print(df.warp(img, c=255).shape, img.dtype, img_expression)
    (80, 114, 3) uint8 None
    (80, 114, 3) uint8 None
    """

    def __init__(
        self,
        dataset_id: int,
        downsample_ref: int = 25,
        detection_xy: tuple[float, float] = (0, 0),
        include_expression: bool = False,
        downsample_img: int = 0,
        *,
        on_error: OnError = "raise",
    ) -> None:
        self.dataset_id = whole_number("dataset_id", dataset_id, 0)
        self.downsample_ref = whole_number("downsample_ref", downsample_ref, 1)
        self.detection_xy = _pixel(detection_xy)
        self.include_expression = bool(include_expression)
        self.downsample_img = whole_number("downsample_img", downsample_img, 0)
        self.on_error = checked_choice("on_error", on_error, _ON_ERROR)
        self.metadata: dict[str, Any] = {}
        self._sections: dict[int, SectionImage] = {}

    def __len__(self) -> int:
        """Return the number of images.

        Raises
        ------
        RuntimeError
            Before `fetch_metadata`.
        """
        self._check_fetched()
        return len(self.metadata.get("images", ()))

    def fetch_metadata(self, force_redownload: bool = False) -> None:
        """Fetch the metadata of the dataset and of its images into `metadata`.

        Every image with a usable alignment is listed, also one that failed quality control
        (arrays leave these out). An image without one is left out with an `AtldldWarning` that
        names it. Where the service names no plane of section, the dataset's matrix tells it.

        Parameters
        ----------
        force_redownload
            Whether to fetch although `metadata` is filled, or kept of an earlier run.

        Raises
        ------
        DatasetNotFoundError
            If there is no dataset of this id.
        APIError
            If the service did not answer as it should.
        RegistrationError
            If the dataset has no usable place in reference space.
        """
        if self.metadata and not force_redownload:
            return
        with set_options(metadata_max_age=0) if force_redownload else nullcontext():
            dataset = source_from().dataset(self.dataset_id)
        self._sections = _sections(dataset)
        self.metadata = _metadata(dataset)

    def run(self, *, on_error: OnError | None = None) -> Iterator[DownloadedSection]:
        """Download the images, highest section number first.

        For each image (1) `detection_xy` is mapped to p, i, r; (2) p (coronal) or r (sagittal)
        is its slice coordinate; (3) `get_parallel_transform` gives the field; (4) the image is
        downloaded, and its expression image if asked for; (5) all this is yielded. Leaving the
        generator early gives up the downloads ahead.

        Parameters
        ----------
        on_error
            As in the class; None for what was said there.

        Yields
        ------
        image_id, slice_coordinate, img, img_expression, df
            A `DownloadedSection`. `img_expression` is None unless `include_expression`, and for
            an image that has no expression mask.

        Raises
        ------
        RuntimeError
            Before `fetch_metadata`.
        ValueError
            If the dataset is neither coronal nor sagittal (plane of section 1 or 2), an image
            has no tier `downsample_img`, `metadata` lists one that the service does not, or
            lacks a key that is needed (all but the dataset's ``id`` are).
        ImageError
            If an image cannot be had, or is damaged even when fetched again.

        Notes
        -----
        A field divides full-resolution coordinates by ``2 ** downsample_img``. Where a slide
        holds several sections, and the offset of one is no multiple of that, its image may
        begin up to one pixel earlier than its field takes it to.
        """
        self._check_fetched()
        chosen = self.on_error if on_error is None else on_error
        skips = checked_choice("on_error", chosen, _ON_ERROR) == "skip"
        plane = _plane(self.metadata, self.dataset_id)
        _check_complete(self.metadata, self.dataset_id)
        source = source_from()
        images = sorted(self.metadata["images"], key=lambda image: -image["section_number"])
        self._find_sections(source, images)
        wanted = [(image, self._reads(image)) for image in images]
        for image, (img, *expression) in _in_order(source, wanted, skips):
            yield self._registered(image, plane, img, expression)

    def _check_fetched(self) -> None:
        if not self.metadata:
            raise RuntimeError(
                f"the metadata of dataset {self.dataset_id} are not there yet; call "
                "fetch_metadata first"
            )

    def _find_sections(self, source: Source, images: list[Mapping[str, Any]]) -> None:
        """Look up the sizes of images; `metadata` does not hold them, and may be hand-made."""
        ids = {image["id"] for image in images}
        dataset_id = int(self.metadata["dataset"].get("id", self.dataset_id))
        if not ids <= self._sections.keys():
            self._sections |= _sections(source.dataset(dataset_id))
        if unknown := ids - self._sections.keys():
            raise ValueError(
                f"metadata lists images {sorted(unknown)}; dataset {dataset_id} has no such image "
                "with a usable alignment"
            )

    def _reads(self, image: Mapping[str, Any]) -> list[ImageRead]:
        """Return the reads of an image: itself, and its expression image if there is one."""
        section = self._sections[image["id"]]
        tier = self.downsample_img
        if tier >= section.tier_count:
            raise ValueError(
                f"downsample_img is {tier}; image {section.id} of dataset {section.dataset_id} has "
                f"tiers 0 to {section.tier_count - 1}"
            )
        views: list[View] = ["image"]
        if self.include_expression and section.has_expression:
            views.append("expression")
        return [section.read(tier, view) for view in views]

    def _registered(
        self, image: Mapping[str, Any], plane: Plane, img: Pixels, expression: list[Pixels]
    ) -> DownloadedSection:
        dataset = self.metadata["dataset"]
        x, y = self.detection_xy
        z = image["section_number"] * dataset["section_thickness"]
        pir = xy_to_pir([[x], [y], [z]], image["affine_tsv"], dataset["affine_tvr"])
        slice_coordinate = float(pir[plane.section, 0])
        df = get_parallel_transform(
            slice_coordinate,
            image["affine_tvs"],
            dataset["affine_trv"],
            axis=plane.name,
            downsample_ref=self.downsample_ref,
            downsample_img=self.downsample_img,
        )
        return DownloadedSection(
            image["id"], slice_coordinate, img, expression[0] if expression else None, df
        )

    def __repr__(self) -> str:
        images = f"{len(self)} images" if self.metadata else "metadata not fetched"
        return f"<DatasetDownloader of dataset {self.dataset_id}: {images}>"


def _in_order(
    source: Source, wanted: list[tuple[Mapping[str, Any], list[ImageRead]]], skips: bool
) -> Iterator[tuple[Mapping[str, Any], list[Pixels]]]:
    """Yield each image with the pixels of its reads; without those that fail, if it skips."""
    pending = deque(wanted)
    while pending:
        reads_ahead = [read for _, reads in pending for read in reads]
        # An error holds this frame in a cycle: what is ahead must not wait for its collection.
        with closing(pixels_ahead(source, reads_ahead)) as ahead:
            while pending:
                image, reads = pending.popleft()
                try:
                    found = [next(ahead)[1] for _ in reads]
                except ImageError as error:
                    if not skips:
                        raise
                    warnings.warn(f"skipped: {error}", AtldldWarning, stacklevel=3)
                    # What lies ahead begins anew; what was downloaded of it is in the cache.
                    break
                yield image, found


def _sections(dataset: SectionDataset) -> dict[int, SectionImage]:
    return {image.id: image for image in (*dataset.images, *dataset.failed_images)}


def _metadata(dataset: SectionDataset) -> dict[str, Any]:
    plane_id = dataset.plane_of_section_id
    if plane_id is None:
        plane_id = next((n for n, plane in _PLANES.items() if plane is dataset.plane), None)
    images = sorted(
        _sections(dataset).values(), key=lambda image: (-image.section_number, -image.id)
    )
    return {
        "dataset": {
            "id": dataset.id,
            "affine_tvr": dataset.matrix("tvr"),
            "affine_trv": dataset.matrix("trv"),
            "plane_of_section_id": plane_id,
            "section_thickness": dataset.section_thickness,
        },
        "images": [
            {
                "id": image.id,
                "affine_tsv": np.array(image.tsv, dtype=np.float64),
                "affine_tvs": np.array(image.tvs, dtype=np.float64),
                "section_number": image.section_number,
            }
            for image in images
        ],
    }


def _plane(metadata: Mapping[str, Any], dataset_id: int) -> Plane:
    """Return the plane of section; it is checked first, whatever else is lacking."""
    dataset = metadata.get("dataset", {})
    plane_id = dataset.get("plane_of_section_id")
    if plane_id not in _PLANES:
        known = " or ".join(
            f"{plane.name} ({n}, slice coordinate {AXES[plane.section]})"
            for n, plane in _PLANES.items()
        )
        raise ValueError(
            f"dataset {dataset.get('id', dataset_id)}: the plane of section is {plane_id!r}; it "
            f"must be {known}. atldld.open_dataarray opens datasets of every plane"
        )
    return _PLANES[plane_id]


def _check_complete(metadata: Mapping[str, Any], dataset_id: int) -> None:
    """Refuse hand-made metadata that lack what a run needs."""
    lacking = [f"dataset.{key}" for key in _DATASET_KEYS if key not in metadata["dataset"]]
    if "images" not in metadata:
        lacking.append("images")
    for number, image in enumerate(metadata.get("images", ())):
        lacking += [f"images[{number}].{key}" for key in _IMAGE_KEYS if key not in image]
    if lacking:
        raise ValueError(
            f"the metadata of dataset {dataset_id} lack {', '.join(lacking[:8])}; fetch_metadata "
            "fills them"
        )


def _pixel(detection_xy: Any) -> tuple[float, float]:
    try:
        x, y = (float(value) for value in detection_xy)
    except (TypeError, ValueError):
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        raise ValueError(
            f"detection_xy is {detection_xy!r}; it must be the x, y of a full-resolution pixel"
        )
    return x, y
