"""What all openings share: which record, where sections lie, what is read, attributes, chunks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.tokenize import tokenize

from .. import __version__, options
from ..errors import AtldldError, AtldldWarning, DatasetNotFoundError, RegistrationError
from ..model import affine
from ..model.dataset import SectionDataset
from ..model.read import View
from ..model.registration import Registration, register
from ..model.sections import Detection, Sections, SectionTable, tabulate
from ..model.space import AXES, can_flip, space_name
from ..reading.failures import Failing, Ledger
from ..reading.reader import Reader
from ..sampling.reads import choose_tiers, serving_tiers
from ..source import Source, tiers_at_hand
from ..source.published import PublishedRegistration
from ..source.search import dataset_of_image
from .index import GUARD, GuardIndex, ImagePlaces
from .internals import writable
from .lazy import CHANNELS

_GRID = (("y",), ("x",), *((axis,) for axis in AXES))

AUTO_BYTES = 16 * 2**20
_PIECE = 512
"""Sides of pieces are multiples of this where they can be: it is the side of a warped tile."""

S = TypeVar("S", bound=Sections)
Space = int | Literal["CCFv3"] | None

CITATION = (
    "Allen Institute for Brain Science, Allen Mouse Brain Atlas, section dataset {id}, "
    "https://mouse.brain-map.org/experiment/show/{id}; Lein, E.S. et al. (2007) Genome-wide "
    "atlas of gene expression in the adult mouse brain, Nature 445: 168-176. Use is subject to "
    "https://alleninstitute.org/terms-of-use and "
    "https://alleninstitute.org/citation-policy."
)

_AXIS_NAMES = {"p": "posterior", "i": "inferior", "r": "right"}

VOLUMES = "volumes in"
"""How the frame of a volume begins."""

ACCURACY = "affine, to Allen's 2011 P56 space (not CCFv3): good to 200 to 400 microns of anatomy"


def record_of(source: Source, dataset_id: int) -> SectionDataset:
    """Return a dataset of a source; of the id of an image, say whose it is.

    Raises
    ------
    DatasetNotFoundError, RegistrationError, APIError, BundleError
        As the source does.
    """
    try:
        return source.dataset(dataset_id)
    except DatasetNotFoundError as error:
        try:
            owner = dataset_of_image(source, dataset_id)
        except (AtldldError, TypeError):
            raise error from None
        raise DatasetNotFoundError(
            f"there is no section dataset {dataset_id}: that is the id of a section image of "
            f"dataset {owner.id}. open_image({dataset_id}) opens it, open_dataarray({owner.id}) "
            "its dataset"
        ) from None


def target_space(
    record: SectionDataset, wanted: int | Literal["native"]
) -> tuple[int | None, bool]:
    """Return the space that a dataset is opened in, and whether its r is flipped for that."""
    native = record.reference_space
    if wanted in ("native", native):
        return native, False
    if not can_flip(native, int(wanted)):
        raise ValueError(
            f"dataset {record.id} lies in reference space {native}; only 9 and 10 can be turned "
            "into each other: use reference_space='native'"
        )
    return int(wanted), True


def placing_of(
    registration: Registration | PublishedRegistration | None, record: SectionDataset
) -> Registration | None:
    """Return where the sections of a dataset lie, fetched where it is published for many.

    Raises
    ------
    RegistrationError
        If nothing is published of its animal.
    """
    if isinstance(registration, PublishedRegistration):
        return registration.of_animal(record.specimen, record.id)
    return registration


def sections_of(
    record: SectionDataset,
    registration: Registration | None,
    reference_space: int | Literal["native"],
    *,
    mapping: affine.Mapping = "oblique",
    detection_xy: Detection = None,
) -> tuple[Space, SectionTable]:
    """Return the space that a dataset is opened in, and its sections there.

    Parameters
    ----------
    record
        The dataset.
    registration
        From `placing_of`; None for Allen's own matrices.
    reference_space
        What was asked for.
    mapping, detection_xy
        See `tabulate`.

    Raises
    ------
    ValueError
        If no way leads to the space that is asked for.
    RegistrationError
        If the registration does not fit.
    """
    if registration is None:
        space, flip = target_space(record, reference_space)
        return space, tabulate(record, mapping=mapping, detection_xy=detection_xy, flip=flip)
    if reference_space not in ("native", registration.reference_space):
        raise ValueError(
            f"{registration.name} places sections in {registration.space}, which cannot be turned "
            f"into reference_space={reference_space}: leave that out"
        )
    table = register(
        tabulate(record, mapping=mapping, detection_xy=detection_xy),
        registration,
        dataset_id=record.id,
        plane=record.plane,
        mapping=mapping,
        detection_xy=detection_xy,
        failed=[image.id for image in record.failed_images],
    )
    return registration.reference_space, table


def showing(
    sections: S,
    record: SectionDataset,
    view: View,
    stacklevel: int | None,
    instead: str = "use view='image'",
) -> S:
    """Leave out the sections that have nothing to show in an expression view.

    Parameters
    ----------
    sections
        Sections of the dataset.
    record
        The dataset.
    view
        The view.
    stacklevel
        Of the warning about those left out, counted from the caller of this function. None for
        no warning.
    instead
        What to do where none has anything to show, for the message.

    Raises
    ------
    RegistrationError
        If none has anything to show.
    """
    if not view.startswith("expression") or sections.has_expression.all():
        return sections
    if not sections.has_expression.any():
        raise RegistrationError(
            f"dataset {record.id}: no section image has an expression mask (expression_path is "
            f"null); {instead}"
        )
    if stacklevel is not None:
        missing = ", ".join(map(str, sections.image_id[~sections.has_expression]))
        warnings.warn(
            f"dataset {record.id}: sections without an expression mask left out, images {missing}",
            AtldldWarning,
            stacklevel=stacklevel + 1,
        )
    return sections.take(sections.has_expression)


def warn_if_failed(record: SectionDataset, stacklevel: int) -> None:
    """Warn of a dataset that failed quality control; `stacklevel` counts from the caller."""
    if record.failed:
        warnings.warn(
            f"dataset {record.id} failed quality control at the Allen Institute",
            AtldldWarning,
            stacklevel=stacklevel + 1,
        )


def chosen_tiers(
    source: Source,
    record: SectionDataset,
    sections: Sections,
    wanted: int | Literal["auto"],
    view: View,
    step: float,
    stacklevel: int | None,
) -> npt.NDArray[np.int16]:
    """Return the tier that each section is read at.

    Parameters
    ----------
    source
        Where it has only some tiers, those serve ``"auto"``.
    record, sections
        The dataset, and its sections that are shown.
    wanted
        A tier, or ``"auto"``.
    view
        Which picture of the sections.
    step
        Microns between the points that are sampled.
    stacklevel
        Of the warning where no section has such a tier, counted from the caller; None for none.
    """
    tiers = choose_tiers(wanted, sections.microns_per_pixel, sections.tier_count, step)
    if wanted == "auto":
        at_hand = [tiers_at_hand(source, each, view) for each in sections.image_id.tolist()]
        return serving_tiers(tiers, at_hand)
    if stacklevel is not None and len(tiers) and int(tiers.max()) != wanted:
        warnings.warn(
            f"dataset {record.id}: no section has a tier {wanted}; each is read at its last one, "
            f"up to {int(tiers.max())} (the coordinate 'tier' says which)",
            AtldldWarning,
            stacklevel=stacklevel + 1,
        )
    return tiers


def fill_of(
    record: SectionDataset, view: View, *, masked: bool = False, given: int | None = None
) -> float:
    """Return what a pixel is that shows nothing: NaN, what was asked for, or the ground.

    The ground is white for bright field, else black.
    """
    if masked:
        return float("nan")
    bright = view == "image" and not record.fluorescent
    return float((255 if bright else 0) if given is None else given)


def failing_of(*token: Any, fill: bool, other_tiers: bool) -> tuple[options.Carried, Failing]:
    """Return the options of this moment, and what to do about images that cannot be had.

    Parameters
    ----------
    *token
        What tells the arrays of this opening from others: its failures are noted by that.
    fill, other_tiers
        As for `Failing`.
    """
    carried = options.carry()
    return carried, Failing(fill, other_tiers, Ledger(f"{tokenize(*token)}-{carried.process}"))


def frame(dataset: SectionDataset, reference_space: Space) -> str:
    """Return plane and space of an array, as text that tells what may be combined."""
    where = space_name(reference_space)
    if reference_space is None:
        where = f"{where} of dataset {dataset.id}"
    return f"{dataset.plane.name} sections in {where}"


def volume_frame(dataset: SectionDataset, reference_space: Space) -> str:
    """Return the space of a volume, as text that tells what may be combined."""
    where = space_name(reference_space)
    if reference_space is None:
        where = f"{where} of dataset {dataset.id}"
    return voxel_frame(where)


def voxel_frame(where: str) -> str:
    """Return what volumes in a space say, which may be combined with one another."""
    return f"{VOLUMES} {where}"


def microns_of(axis: str) -> dict[str, str]:
    """Return the attributes of a coordinate p, i or r."""
    return {"long_name": f"{axis} ({_AXIS_NAMES[axis]})", "units": "µm"}


@cache
def channel_coordinate() -> xr.Coordinates:
    """Return the coordinate of the channels, of text that survives Zarr."""
    names = np.array(CHANNELS, dtype=object)
    said = {"long_name": "colour channel"}
    return xr.Coordinates({"channel": xr.Variable("channel", names, said)})


def attributes(
    dataset: SectionDataset,
    *,
    reference_space: Space,
    mapping: str,
    resolution: float,
    source: str,
    registration: Registration | PublishedRegistration | None = None,
) -> dict[str, Any]:
    """Return the attributes that an array of a dataset carries.

    Returns
    -------
    attributes
        Text and numbers only, so that they survive Zarr and netCDF.
    """
    along = abs(dataset.trv[2][dataset.plane.section])
    found: dict[str, Any] = {
        "dataset_id": dataset.id,
        "gene": ", ".join(dataset.genes),
        "plane": dataset.plane.name,
        "reference_space": -1 if reference_space is None else reference_space,
        "reference_space_name": space_name(reference_space),
        "native_reference_space": -1
        if dataset.reference_space is None
        else dataset.reference_space,
        "hemisphere": dataset.hemisphere,
        "specimen": dataset.specimen or "",
        "age": dataset.age or "",
        "products": ", ".join(dataset.products),
        "resolution_microns": resolution,
        "section_thickness_microns": dataset.section_thickness,
        "reference_microns_per_stack_micron": 1.0 / along,
        "mapping": mapping,
        "registration": ACCURACY if reference_space in (9, 10) else "",
        "source": source,
        "atldld_version": __version__,
        "citation": CITATION.format(id=dataset.id),
    }
    if isinstance(registration, Registration):
        # How far apart the sections are, is no longer told by Allen's matrix.
        del found["reference_microns_per_stack_micron"]
        found["registration"] = (
            registration.description
            if registration.citation
            else f"a user's: {registration.description}"
        )
        if registration.citation:
            found["citation"] = f"{found['citation']} Registration: {registration.citation}."
    return found


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Opening:
    """A dataset, where it comes from, and what holds for all that is opened of it.

    Parameters
    ----------
    record
        The dataset.
    source
        Where its pixels come from.
    space
        The reference space that it is opened in; None where it has none that is known.
    fill_value
        What a pixel is that shows nothing; NaN makes arrays float32.
    carried
        The options of this moment, for the process that computes.
    failing
        What to do about an image that cannot be had.
    """

    record: SectionDataset
    source: Source
    space: Space
    fill_value: float
    carried: options.Carried
    failing: Failing

    def attributes(
        self, *, mapping: str, resolution: float, registration: Any = None
    ) -> dict[str, Any]:
        """Return what an array says of its dataset and of how it was opened."""
        return attributes(
            self.record,
            reference_space=self.space,
            mapping=mapping,
            resolution=resolution,
            source=self.source.name,
            registration=registration,
        )

    def of_pixels(self, view: View, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return attributes with what is true of the pixels of a view."""
        name = " ".join([*self.record.genes, view.replace("_", " ")])
        return {**attrs, "view": view, "long_name": name}


def guarded(
    variables: Mapping[Any, xr.Variable],
    indexes: Mapping[Any, xr.Index],
    space: Space,
    frame: str,
    ledgers: Sequence[Ledger],
    places: Sequence[ImagePlaces] = (),
) -> xr.Coordinates:
    """Return coordinates with the one that keeps planes and spaces apart.

    Parameters
    ----------
    variables, indexes
        The coordinates of the array, and their indexes.
    space
        The reference space.
    frame
        Plane and space, as text: only arrays that agree in it can be combined.
    ledgers
        Where failures of the array are noted.
    places
        Where its sections lie.
    """
    # As an object, text is kept by Zarr as text of any length, which its format specifies.
    value: Any = np.array(space, dtype=object) if isinstance(space, str) else space
    said = {"long_name": "reference space", "frame": frame}
    guard = xr.Variable((), -1 if value is None else value, said)
    index = GuardIndex(GUARD, frame, tuple(each.name for each in ledgers), tuple(places))
    # Before rows and columns, so that it is asked before those of two planes are found to differ.
    known = dict(variables)
    plain = {name: known.pop(name) for name in list(known) if known[name].dims not in _GRID}
    return xr.Coordinates({**plain, GUARD: guard, **known}, indexes={GUARD: index, **indexes})


def in_chunks(
    variable: xr.Variable, sizes: Mapping[str, Any], *token: object, chunked: bool
) -> xr.Variable:
    """Return a lazy variable as a dask array of some chunks, or as it is with a hint of them.

    Parameters
    ----------
    variable
        Over a lazy array.
    sizes
        The chunk size of each of its dimensions, and perhaps of others.
    *token
        What tells its values apart from others: the name of the dask array follows from it, and
        from the chunks.
    chunked
        Whether to make a dask array of it.
    """
    sizes = {str(dim): sizes[str(dim)] for dim in variable.dims}
    if not chunked:
        variable = writable(variable)
        variable.encoding["preferred_chunks"] = sizes
        return variable
    from dask.base import annotate

    # Blocks of one name are one block to dask: other chunks need another.
    key = tokenize(repr(sizes), *token)
    kind = "read" if token and isinstance(token[0], Reader) else "place"
    # What has an annotation of its own is not taken into what comes after it when layers are
    # fused: so that the dashboard of a cluster names it.
    with annotate(atldld=kind):
        return variable.chunk(sizes, name=f"atldld-{kind}-{key}", inline_array=False)


def chunks_given(chunks: Mapping[Any, Any], dims: tuple[str, ...]) -> dict[str, Any]:
    """Return what a dict says of each dimension; one that it does not name stays whole."""
    unknown = set(chunks) - set(dims)
    if unknown:
        raise ValueError(f"chunks names {sorted(map(str, unknown))}; dimensions are {dims}")
    return {dim: chunks.get(dim, -1) for dim in dims}


def piece(rows: int, columns: int, points: int, unit: int = _PIECE) -> tuple[int, int]:
    """Return the rows and columns of a nearly square piece of at most `points` grid points."""
    side = math.isqrt(points)
    side = side // unit * unit or side
    rows = min(rows, side)
    columns = min(columns, points // rows)
    if columns > unit:
        columns = columns // unit * unit
    return min(rows, points // columns), columns
