"""What the service says of a section dataset, whether it can be opened or not: for people."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from html import escape
from typing import TYPE_CHECKING, Any, Self

from ..errors import AtldldWarning, RegistrationError
from . import rows as rma
from .dataset import SectionDataset
from .rows import Row
from .sections import tabulate
from .space import space_name
from .terms import SearchTerms, fits, plane_name

if TYPE_CHECKING:
    import pandas as pd


_MOST_ALIASES = 100
_LONGEST_ALIAS = 100


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """What the service says about a dataset in its own row; nothing is required but an id.

    Parameters
    ----------
    dataset_id
        Id of the section dataset.
    genes, gene_names, entrez_ids
        Acronyms, names and Entrez ids of the genes probed.
    plane
        Of the names that can be searched for; empty where the service gives none.
    products, product_ids
        Allen's products that it belongs to.
    specimen, specimen_id
        Name and id, or empty and None.
    age
        Such as ``"P56"``, or empty.
    reference_space
        Id of the reference space, or None.
    section_thickness
        Microns, or NaN.
    failed
        Whether it failed quality control.
    aliases
        Other names of the genes probed.
    """

    dataset_id: int
    genes: tuple[str, ...] = ()
    gene_names: tuple[str, ...] = ()
    entrez_ids: tuple[int, ...] = ()
    plane: str = ""
    products: tuple[str, ...] = ()
    product_ids: tuple[int, ...] = ()
    specimen: str = ""
    specimen_id: int | None = None
    age: str = ""
    reference_space: int | None = None
    section_thickness: float = math.nan
    failed: bool = False
    aliases: tuple[str, ...] = ()

    @classmethod
    def from_row(cls, row: Row) -> Self:
        """Build from a SectionDataSet row with ``genes``, ``products`` and ``specimen`` nested.

        Raises
        ------
        RegistrationError
            If it has no usable id.
        """
        owner = f"dataset {rma.shown(row.get('id'))}"
        genes, products = rma.records(row.get("genes")), rma.records(row.get("products"))
        specimen = next(iter(rma.records(row.get("specimen"))), {})
        thickness = rma.optional_positive(row, "section_thickness")
        return cls(
            dataset_id=rma.integer(row, "id", owner, least=0),
            genes=rma.texts(genes, "acronym"),
            gene_names=rma.texts(genes, "name"),
            entrez_ids=_numbers(genes, "entrez_id"),
            plane=plane_name(rma.whole_or_none(row.get("plane_of_section_id"), 0)),
            products=rma.texts(products, "name"),
            product_ids=_numbers(products, "id"),
            specimen=next(iter(rma.texts([specimen], "name")), ""),
            specimen_id=rma.whole_or_none(row.get("specimen_id"), 0)
            if row.get("specimen_id") is not None
            else rma.whole_or_none(specimen.get("id"), 0),
            age=next(rma.ages(row, specimen), ""),
            reference_space=rma.whole_or_none(row.get("reference_space_id"), 0),
            section_thickness=math.nan if thickness is None else thickness,
            failed=rma.flag(row, "failed"),
            aliases=_aliases(genes),
        )

    def meets(self, terms: SearchTerms) -> bool:
        """Whether the dataset is what was looked for; products by id, images not looked at."""
        return (
            (not terms.genes or any(fits(one, two) for one in terms.genes for two in self.genes))
            and (not terms.planes or self.plane in terms.planes)
            and (not terms.specimens or any(self._is_of(each) for each in terms.specimens))
            and (not terms.products or any(each in self.product_ids for each in terms.products))
            and (not terms.dataset_ids or self.dataset_id in terms.dataset_ids)
            and (terms.failed is None or self.failed == terms.failed)
        )

    def _is_of(self, specimen: int | str) -> bool:
        if isinstance(specimen, int):
            return self.specimen_id == specimen
        return fits(specimen, self.specimen)

    @property
    def title(self) -> str:
        """Genes and id in a few words."""
        return f"dataset {self.dataset_id}" + (f" ({', '.join(self.genes)})" if self.genes else "")

    def plain(self) -> dict[str, Any]:
        """Return the fields as values that JSON can hold."""
        values = {}
        for field in fields(DatasetSummary):
            value = getattr(self, field.name)
            value = list(value) if isinstance(value, tuple) else value
            values[field.name] = None if value != value else value
        return values


_TYPES_OF_DATASETS = {
    "dataset_id": "int64",
    "gene": "str",
    "gene_name": "str",
    "entrez_id": "Int64",
    "plane": "str",
    "product": "str",
    "specimen": "str",
    "specimen_id": "Int64",
    "age": "str",
    "reference_space": "Int64",
    "section_thickness": "float64",
    "failed": "bool",
}


def datasets_table(found: Sequence[DatasetSummary]) -> pd.DataFrame:
    """Return summaries as a table, the same columns and types where there are none."""
    import pandas as pd

    records = [
        {
            "dataset_id": each.dataset_id,
            "gene": ", ".join(each.genes),
            "gene_name": ", ".join(each.gene_names),
            "entrez_id": next(iter(each.entrez_ids), None),
            "plane": each.plane,
            "product": ", ".join(each.products),
            "specimen": each.specimen,
            "specimen_id": each.specimen_id,
            "age": each.age,
            "reference_space": each.reference_space,
            "section_thickness": each.section_thickness,
            "failed": each.failed,
        }
        for each in found
    ]
    return pd.DataFrame(records, columns=list(_TYPES_OF_DATASETS)).astype(_TYPES_OF_DATASETS)


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """What the service says about a section image.

    Parameters
    ----------
    image_id, section_number
        Id, and number in the stack (None where the service gives none).
    slice_coordinate
        Where the section meets the middle line of its space, in microns along the slicing axis;
        NaN where the image has no place.
    width, height
        Full-resolution pixels, or None.
    x, y
        Its corner on the slide, full-resolution pixels, or None.
    resolution
        Microns per full-resolution pixel on the slide, or NaN.
    tier_count
        Number of tiers, or None.
    failed
        Whether the image failed quality control.
    has_expression
        Whether there is an expression mask.
    """

    image_id: int
    section_number: int | None
    slice_coordinate: float
    width: int | None
    height: int | None
    x: int | None
    y: int | None
    resolution: float
    tier_count: int | None
    failed: bool
    has_expression: bool


@dataclass(frozen=True, slots=True, repr=False)
class DatasetInfo(DatasetSummary):
    """All that is known of a section dataset before it is opened.

    It exists for datasets that cannot be opened, too.

    Parameters
    ----------
    images
        The section images, by ascending section number.
    axis
        The slicing axis, ``"p"``, ``"i"`` or ``"r"``; empty without a registration.
    unregistered
        Why the dataset cannot be opened; empty where it can.
    source
        Where this was told.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with AllenServer([phantom_dataset(1001, gene="Prox1", sections=3)]) as server:
    ...     info = atldld.dataset_info(1001, source=server.url)
    >>> info.genes, info.plane, len(info.images)
    (('Prox1',), 'coronal', 3)
    """

    images: tuple[ImageSummary, ...] = ()
    axis: str = ""
    unregistered: str = ""
    source: str = ""

    @classmethod
    def from_rows(cls, row: Row, image_rows: Iterable[Any] | None, source: str = "") -> DatasetInfo:
        """Build from the rows that a dataset is built from.

        Parameters
        ----------
        row
            A SectionDataSet row with all that is nested in it.
        image_rows
            SectionImage rows; None takes those of `row`.
        source
            Where they come from.

        Raises
        ------
        RegistrationError
            If there is no usable id.
        """
        summary = DatasetSummary.from_row(row)
        places: dict[int, float] = {}
        axis, reason = "", ""
        try:
            with warnings.catch_warnings():
                # What is set aside is told by the columns.
                warnings.simplefilter("ignore", AtldldWarning)
                record = SectionDataset.from_rows(row, image_rows)
                table = tabulate(record)
            axis = record.plane.axes[0]
            places = dict(
                zip(table.image_id.tolist(), table.slice_coordinate.tolist(), strict=True)
            )
        except RegistrationError as error:
            reason = str(error)
        rows = row.get("section_images") if image_rows is None else image_rows
        images = [_image(each, places) for each in rma.records(rows)]
        listed = {image.image_id: image for image in images if image is not None}
        return cls(
            **{field.name: getattr(summary, field.name) for field in fields(DatasetSummary)},
            images=tuple(
                sorted(listed.values(), key=lambda one: (one.section_number or 0, one.image_id))
            ),
            axis=axis,
            unregistered=reason,
            source=source,
        )

    def to_dataframe(self) -> pd.DataFrame:
        """Return the section images as a table.

        Returns
        -------
        pandas.DataFrame
            A row an image, by ascending section number: ``section_number`` and ``image_id``; ``p``,
            ``i`` or ``r`` (microns: where the section lies along the slicing axis; left out where
            the dataset has no registration); ``width``, ``height`` (full-resolution pixels),
            ``resolution`` (microns per pixel on the slide), ``tier_count``, ``failed`` and
            ``has_expression``. What the service does not say is NA.
        """
        import pandas as pd

        table = pd.DataFrame([_plain(image) for image in self.images], columns=list(_TYPES))
        table = table.astype(_TYPES)
        if self.axis:
            return table.rename(columns={"slice_coordinate": self.axis})
        return table.drop(columns="slice_coordinate")

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as values that JSON can hold."""
        return {
            **self.plain(),
            "axis": self.axis,
            "unregistered": self.unregistered,
            "source": self.source,
            "images": [
                {name: None if value != value else value for name, value in _plain(image).items()}
                for image in self.images
            ],
        }

    def __repr__(self) -> str:
        lines = [f"<atldld.DatasetInfo {self.title}>"]
        return "\n".join([*lines, *(f"    {name}: {text}" for name, text in self._lines())])

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th>"
            f"<td style='text-align:left'>{escape(text)}</td></tr>"
            for name, text in self._lines()
        )
        images = self.to_dataframe().to_html(index=False, border=0, max_rows=12)
        return (
            f"<div><strong>Section {escape(self.title)}</strong><table>{cells}</table>"
            f"<details><summary>section images ({len(self.images)})</summary>{images}</details>"
            "</div>"
        )

    def _lines(self) -> list[tuple[str, str]]:
        """Return what there is to say, each with its name."""
        genes = [
            acronym if not name or name == acronym else f"{acronym} ({name})"
            for acronym, name in zip(
                self.genes, (*self.gene_names, *[""] * len(self.genes)), strict=False
            )
        ]
        placed = [
            one.slice_coordinate for one in self.images if math.isfinite(one.slice_coordinate)
        ]
        span = f", {self.axis} from {min(placed):.0f} to {max(placed):.0f} um" if placed else ""
        failed = sum(image.failed for image in self.images)
        tissue = ", ".join(text for text in (self.specimen, self.age) if text)
        said = (
            ("gene", "; ".join(genes)),
            ("plane", self.plane),
            ("sections", f"{len(self.images)}{span}"),
            ("of them failed", str(failed) if failed else ""),
            ("with expression mask", str(sum(image.has_expression for image in self.images))),
            ("section thickness", f"{self.section_thickness:g} um" * (self.section_thickness > 0)),
            (
                "reference space",
                ""
                if self.reference_space is None
                else f"{self.reference_space} ({space_name(self.reference_space)})",
            ),
            ("specimen", tissue),
            ("product", ", ".join(self.products)),
            ("quality control", "failed" if self.failed else ""),
            ("cannot be opened", self.unregistered),
            ("page", f"https://mouse.brain-map.org/experiment/show/{self.dataset_id}"),
            ("source", self.source),
        )
        return [(name, text) for name, text in said if text]


_TYPES = {
    "section_number": "Int64",
    "image_id": "int64",
    "slice_coordinate": "float64",
    "width": "Int64",
    "height": "Int64",
    "resolution": "float64",
    "tier_count": "Int64",
    "failed": "bool",
    "has_expression": "bool",
}


def _plain(image: ImageSummary) -> dict[str, Any]:
    return {name: getattr(image, name) for name in _TYPES}


def _image(row: Mapping[str, Any], places: Mapping[int, float]) -> ImageSummary | None:
    image_id = rma.whole_or_none(row.get("id"))
    if image_id is None:
        return None
    resolution = rma.optional_positive(row, "resolution")
    return ImageSummary(
        image_id=image_id,
        section_number=rma.whole_or_none(row.get("section_number")),
        slice_coordinate=places.get(image_id, math.nan),
        width=rma.whole_or_none(row.get("width")),
        height=rma.whole_or_none(row.get("height")),
        x=rma.whole_or_none(row.get("x")),
        y=rma.whole_or_none(row.get("y")),
        resolution=math.nan if resolution is None else resolution,
        tier_count=rma.whole_or_none(row.get("tier_count")),
        failed=rma.flag(row, "failed"),
        has_expression=bool(row.get("expression_path")),
    )


def _aliases(genes: list[Row]) -> tuple[str, ...]:
    """Return the names that ``alias_tags`` hold with blanks between."""
    tags = (gene.get("alias_tags") for gene in genes)
    names = [name for text in tags if isinstance(text, str) for name in text.split()]
    return tuple(
        name for name in names[:_MOST_ALIASES] if len(name) <= _LONGEST_ALIAS and name.isprintable()
    )


def _numbers(rows: list[Row], field: str) -> tuple[int, ...]:
    found = (rma.whole_or_none(row.get(field), 0) for row in rows)
    return tuple(number for number in found if number is not None)
