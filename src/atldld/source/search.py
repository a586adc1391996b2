"""Finding section datasets, also by an image, and looking at one before it is opened."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import APIError, AtldldWarning, ImageError
from ..model.checks import listed, near
from ..model.dataset import SectionDataset
from ..model.info import DatasetInfo, DatasetSummary, datasets_table
from ..model.terms import SearchTerms, fits
from . import DescribingSource, SearchableSource, Source, source_from
from .allen import AllenSource
from .rma import DatasetRows, genes_like

if TYPE_CHECKING:
    import pandas as pd

_MOST_ASKED_ABOUT = 3
"""Genes that nothing was found of; beyond that, asking what was meant would be many questions."""

_ASKED_AT_ONCE = 100
"""Ids that one search asks for: more would make a URL too long."""

_MOST_KNOWN = 100_000


def search(
    gene: str | Sequence[str] | None = None,
    *,
    plane: str | Sequence[str] | None = None,
    product: str | int | Sequence[str | int] | None = None,
    specimen: str | int | Sequence[str | int] | None = None,
    dataset_id: int | Sequence[int] | None = None,
    image_id: int | Sequence[int] | None = None,
    failed: bool | None = False,
    source: str | Source | None = None,
) -> pd.DataFrame:
    """Find section datasets.

    A dataset is found if it meets every condition. In texts, case does not matter and ``*``
    stands for any text. Each condition can be a list: then one of its values must fit.

    Parameters
    ----------
    gene
        Acronym, such as ``"Prox1"`` or ``"Prox*"``; or another name of a gene, where no
        acronym is spelled that way.
    plane
        ``"coronal"``, ``"sagittal"`` or ``"transverse"``; or ``"variable"``, ``"n/a"`` or
        ``"tangential"``, whose datasets have no registration.
    product
        Name, abbreviation or id of one of Allen's products, such as ``"Mouse Brain"``,
        ``"DevMouse"`` or 1. A dataset can belong to several.
    specimen
        Name or id of the specimen.
    dataset_id, image_id
        Id of the dataset, or of one of its section images.
    failed
        Whether the dataset failed Allen's quality control; None finds both.
    source
        Where to look: None, the service of ``set_options(api_url=...)``; the base URL of a
        service; the path or URL of a bundle; the folder of a service in the cache; or a
        `Source` that can be searched.

    Returns
    -------
    pandas.DataFrame
        A row a dataset, by ascending id, the same columns and types where nothing is found:
        ``dataset_id``; ``gene`` and ``gene_name`` (those of all genes, with commas between) and
        ``entrez_id`` (of the first); ``plane``; ``product`` (all, with commas between);
        ``specimen``, ``specimen_id`` and ``age``; ``reference_space``; ``section_thickness``
        (microns); ``failed``. Missing texts are empty, missing numbers NA or NaN.

    Raises
    ------
    ValueError, TypeError
        If a condition cannot be one: the message says what would be right.
    APIError
        If the service does not answer as it should.

    Warns
    -----
    AtldldWarning
        If the service promised more rows than it sent; if there is no gene of that name. Then the
        gene of which it is another name is looked for, or a close name is told.

    See Also
    --------
    dataset_info : One dataset, with its section images.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> brains = [phantom_dataset(7, "sagittal", gene="Prox1"), phantom_dataset(8, gene="Prox2")]
    >>> with AllenServer(brains) as server:
    ...     found = atldld.search(gene="prox*", plane="sagittal", source=server.url)
    >>> found[["dataset_id", "gene", "plane", "product", "age"]]
       dataset_id   gene     plane      product  age
    0           7  Prox1  sagittal  Mouse Brain  P56
    """
    terms = SearchTerms.checked(
        gene=gene,
        plane=plane,
        product=product,
        specimen=specimen,
        dataset_id=dataset_id,
        image_id=image_id,
        failed=failed,
    )
    return datasets_table(summaries(terms, source))


def summaries_of(source: Source, ids: Sequence[int]) -> dict[int, DatasetSummary]:
    """Return what datasets are called, by id; those that a source does not have are left out.

    From a catalogue where one is at hand, else asked a hundred at a time.

    Raises
    ------
    TypeError
        If the source cannot be searched.
    """
    table = source.catalogue() if isinstance(source, AllenSource) else None
    wanted = {*ids}
    found = [] if table is None else [x for x in table.summaries() if x.dataset_id in wanted]
    known = {each.dataset_id: each for each in found}
    left = [each for each in ids if each not in known]
    if left and not isinstance(source, SearchableSource):
        raise TypeError(f"the source {source.name} cannot be searched: it has no method search")
    if isinstance(source, SearchableSource):
        for start in range(0, len(left), _ASKED_AT_ONCE):
            part = tuple(left[start : start + _ASKED_AT_ONCE])
            answered = source.search(SearchTerms(dataset_ids=part, failed=None))
            known |= {each.dataset_id: each for each in answered}
    return known


def summaries(terms: SearchTerms, source: str | Source | None = None) -> list[DatasetSummary]:
    """Return what a source has that meets some terms.

    A gene that nothing is called by is looked for among the other names of genes.

    Warns
    -----
    AtldldWarning
        If there is no such gene; the message says what it is another name of, or which name is
        close.

    Raises
    ------
    TypeError
        If the source cannot be searched.
    """
    origin = source_from(source)
    if not isinstance(origin, SearchableSource):
        raise TypeError(f"the source {origin.name} cannot be searched (it has no method search)")
    found = origin.search(terms)
    missing = [
        wanted
        for wanted in terms.genes
        if "*" not in wanted
        and not any(fits(wanted, gene) for each in found for gene in each.genes)
    ]
    if len(missing) > _MOST_ASKED_ABOUT:
        return found
    others = [other for wanted in missing for other in _meant(origin, wanted)]
    if others:
        found += origin.search(replace(terms, genes=tuple(others)))
        found = sorted({each.dataset_id: each for each in found}.values(), key=_id)
    return found


def _id(found: DatasetSummary) -> int:
    return found.dataset_id


def _meant(origin: SearchableSource, wanted: str) -> list[str]:
    """Return the genes of which a name is another one, and say what was found out about it."""
    genes = _genes_near(origin, wanted)
    if any(fits(wanted, gene) for gene in genes):
        return []  # There is one, but no dataset of it meets the other conditions.
    others = sorted(
        gene for gene, aliases in genes.items() if any(fits(wanted, alias) for alias in aliases)
    )
    if others:
        what = f"it is another name of {listed(others)}, looked for instead"
    else:
        names = [*genes, *(alias for aliases in genes.values() for alias in aliases)]
        what = near(wanted, names).strip()
    if not what:
        return []
    warnings.warn(f"no gene here is called {wanted!r}: {what}", AtldldWarning, stacklevel=4)
    return others


def _genes_near(origin: SearchableSource, wanted: str) -> dict[str, tuple[str, ...]]:
    """Return other names of genes by acronym: of all, or of those that could be meant."""
    if isinstance(origin, AllenSource):
        catalogue = origin.catalogue()
        if catalogue is None or catalogue.products is not None:
            return genes_like(origin.base, wanted)
        every: Iterable[DatasetSummary] = catalogue.summaries()
    else:
        every = origin.search(SearchTerms())
    return {gene: each.aliases for each in every for gene in each.genes}


def dataset_info(dataset_id: int, *, source: str | Source | None = None) -> DatasetInfo:
    """Return what is known of a section dataset, without opening it.

    Parameters
    ----------
    dataset_id
        Id of the section dataset.
    source
        As for `search`.

    Returns
    -------
    DatasetInfo
        Gene, plane, products, specimen, reference space and so on; ``images``, and
        ``to_dataframe()``, which returns them as a table; ``unregistered``, why it cannot be
        opened (empty where it can).

    Raises
    ------
    DatasetNotFoundError
        If there is no such dataset.
    APIError, BundleError
        If the source does not answer as it should.
    ValueError, TypeError
        If that cannot be the id of a dataset, or the source has no metadata to show.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with AllenServer([phantom_dataset(7, "sagittal", sections=3)]) as server:
    ...     info = atldld.dataset_info(7, source=server.url)
    >>> info.to_dataframe()[["section_number", "image_id", "r", "has_expression"]].round()
       section_number  image_id       r  has_expression
    0               0      7000  2010.0            True
    1              63      7001  3650.0            True
    2             126      7002  5290.0            True
    """
    (number,) = SearchTerms.checked(dataset_id=[dataset_id]).dataset_ids
    origin = source_from(source)
    rows = dataset_rows(origin, number)
    return DatasetInfo.from_rows(rows.row, rows.images, origin.name)


def dataset_rows(source: Source, dataset_id: int) -> DatasetRows:
    """Return the rows of a dataset from any source that has them.

    Raises
    ------
    TypeError
        If the source cannot give them.
    DatasetNotFoundError, APIError, BundleError
        As the source does.
    """
    if isinstance(source, DescribingSource):
        return source.rows(dataset_id)
    raise TypeError(
        f"the source {source.name} gives no rows of metadata (it has no method rows), and they "
        "belong in a bundle"
    )


def dataset_of_image(source: Source, image_id: int) -> SectionDataset:
    """Return the dataset that a section image belongs to.

    One search more than `Source.dataset` needs; none where an image of the same dataset was
    asked for before. Where a service is out of reach, its cache is searched.

    Raises
    ------
    ImageError
        If the source has no such image.
    TypeError
        If the source cannot be searched.
    DatasetNotFoundError, APIError, RegistrationError, BundleError
        As the source does.
    """
    known = _known.get((source.name, image_id))
    record = source.dataset(_searched(source, image_id) if known is None else known)
    for image in (*record.images, *record.failed_images):
        _known[source.name, image.id] = record.id
    while len(_known) > _MOST_KNOWN:
        _known.popitem(last=False)
    return record


def _searched(source: Source, image_id: int) -> int:
    if not isinstance(source, SearchableSource):
        raise TypeError(
            f"the source {source.name} cannot be searched (it has no method search): say which "
            "dataset the image belongs to, dataset_id=..."
        )
    terms = SearchTerms(image_ids=(image_id,))
    try:
        found = source.search(terms)
    except APIError as error:
        kept = _cached(source)
        found = [] if kept is None else kept.search(terms)
        if not found:
            raise error
    if not found:
        raise ImageError(f"there is no such section image at {source.name}", image_id=image_id)
    return found[0].dataset_id


def _cached(source: Source) -> SearchableSource | None:
    """Return what the cache holds of a service, as a source that needs no network."""
    from .stored import StoredSource

    if not isinstance(source, AllenSource):
        return None
    return StoredSource(source.cache.files.location, None)


_known: OrderedDict[tuple[str, int], int] = OrderedDict()
"""Datasets of images, by the name of the source."""
