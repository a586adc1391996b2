"""Many section datasets as one tree."""

from __future__ import annotations

import contextvars
import re
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Literal

import xarray as xr

from .. import __version__
from ..errors import AtldldError, AtldldWarning, DatasetNotFoundError
from ..model.checks import checked_choice
from ..model.terms import SearchTerms
from ..source import Source, source_from
from ..source.search import summaries
from .engine import OPTIONS
from .opening import open_dataset
from .request import check_names

_AT_ONCE = 8
"""Datasets whose metadata are asked for at one time."""

_MOST = 1000
"""Datasets of a tree: more are a slip, such as a search without a gene."""

_LONGEST_NAME = 40


def open_datatree(
    dataset_ids: int | Sequence[int] | None = None,
    *,
    gene: str | Sequence[str] | None = None,
    plane: str | Sequence[str] | None = None,
    product: str | int | Sequence[str | int] | None = None,
    specimen: str | int | Sequence[str | int] | None = None,
    failed: bool | None = False,
    on_dataset_error: Literal["raise", "skip"] = "raise",
    source: str | Source | None = None,
    **options: Any,
) -> xr.DataTree:
    """Open several section datasets as one lazy tree.

    Only metadata are read, of several datasets at a time.

    Parameters
    ----------
    dataset_ids
        Ids of section datasets; one that is named twice is opened once. Without them, the
        datasets that meet the conditions are found first.
    gene, plane, product, specimen, failed
        Conditions as in `atldld.search`, instead of ids.
    on_dataset_error
        What to do about a dataset that cannot be opened. ``"raise"``: its error, with a note that
        says which dataset it was. ``"skip"``: leave it out, with a warning that names it. (What to
        do about an *image* that cannot be had is ``on_error``.)
    source
        Where data come from, as in `atldld.open_dataset`.
    **options
        Those of `atldld.open_dataset`, the same for all.

    Returns
    -------
    xarray.DataTree
        A node a dataset, in the order of `dataset_ids` or of ascending ids, each holding what
        `atldld.open_dataset` returns. A node is named by the dataset's genes and id, such as
        ``"Prox1_69289763"`` (``"dataset_69289763"`` without a gene; of a name only letters,
        digits, ``.``, ``-`` and ``_`` are kept, and ``-`` stands for the rest). Nodes do not share
        coordinates: sections of two datasets are never aligned.

    Raises
    ------
    ValueError, TypeError
        If an option or condition cannot be used; if neither ids nor conditions are given, or
        both; if that would be more than 1000 datasets.
    DatasetNotFoundError
        If there is no such dataset, or none meets the conditions.
    RegistrationError, APIError
        As `atldld.open_dataset`.

    Warns
    -----
    AtldldWarning
        With ``on_dataset_error="skip"``, for each dataset that is left out.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> brains = [phantom_dataset(7, gene="Prox1"), phantom_dataset(8, "sagittal", gene="Prox1")]
    >>> with AllenServer(brains) as server:
    ...     tree = atldld.open_datatree(gene="Prox1", resolution=100, source=server.url)
    >>> list(tree)
    ['Prox1_7', 'Prox1_8']
    >>> tree["Prox1_8/image"].dims
    ('section', 'y', 'x', 'channel')
    """
    check_names([*OPTIONS], "open_datatree", options)
    checked_choice("on_dataset_error", on_dataset_error, ("raise", "skip"))
    conditions = {"gene": gene, "plane": plane, "product": product, "specimen": specimen}
    origin = source_from(source)
    numbers = _wanted(dataset_ids, conditions, failed, origin)
    opened: dict[str, xr.DataTree] = {}
    with ThreadPoolExecutor(min(_AT_ONCE, len(numbers))) as pool:
        # Each with the context of the caller, in which options may have been set.
        futures = [
            pool.submit(
                contextvars.copy_context().run,
                partial(open_dataset, number, source=origin, **options),
            )
            for number in numbers
        ]
        for number, future in zip(numbers, futures, strict=True):
            dataset = _result(number, future, futures, on_dataset_error == "skip")
            if dataset is not None:
                opened[_node_name(dataset.attrs["gene"], number)] = xr.DataTree(dataset)
    attributes = {"source": origin.name, "atldld_version": __version__}
    title = f"{len(opened)} section dataset{'' if len(opened) == 1 else 's'}"
    root = xr.Dataset(attrs={"title": title, **attributes})
    return xr.DataTree(root, children=opened)


def _wanted(dataset_ids: Any, conditions: dict[str, Any], failed: Any, source: Source) -> list[int]:
    """Return the ids of the datasets to be opened, each once."""
    given = {name: value for name, value in conditions.items() if value is not None}
    if dataset_ids is not None and given:
        raise ValueError(
            f"dataset_ids name the datasets already; leave out {', '.join(given)}, or the ids"
        )
    if dataset_ids is None and not given:
        raise ValueError("there is nothing to open: give dataset_ids, or a condition such as gene=")
    terms = SearchTerms.checked(dataset_id=dataset_ids, failed=failed, **conditions)
    numbers = list(dict.fromkeys(terms.dataset_ids))
    if not numbers:
        numbers = [each.dataset_id for each in summaries(terms, source)]
        if not numbers:
            said = ", ".join(f"{name}={value!r}" for name, value in given.items())
            raise DatasetNotFoundError(f"there is no section dataset with {said}")
    if len(numbers) > _MOST:
        raise ValueError(
            f"these are {len(numbers)} datasets, more than {_MOST}: narrow the conditions, or open "
            "the ids in parts"
        )
    return numbers


def _result(
    number: int, future: Future[xr.Dataset], futures: list[Future[xr.Dataset]], skip: bool
) -> xr.Dataset | None:
    try:
        return future.result()
    except BaseException as error:
        if skip and isinstance(error, AtldldError):
            warnings.warn(f"dataset {number} is left out: {error}", AtldldWarning, stacklevel=3)
            return None
        for each in futures:
            each.cancel()
        error.add_note(
            f"while opening dataset {number}"
            + "; on_dataset_error='skip' leaves it out" * isinstance(error, AtldldError)
        )
        raise


def _node_name(gene: str, number: int) -> str:
    """Return the name of a node, which a path of the tree can hold.

    Examples
    --------
    >>> _node_name("Prox1", 7), _node_name("", 7), _node_name("H2/K*, ../x", 7)
    ('Prox1_7', 'dataset_7', 'H2-K-x_7')
    """
    name = re.sub(r"[^\w.]+|\.\.+", "-", gene)
    name = re.sub(r"-+", "-", name).strip("-.")[:_LONGEST_NAME]
    return f"{name or 'dataset'}_{number}"
