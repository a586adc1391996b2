"""``engine="atldld"``: section datasets through xarray's own functions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

import xarray as xr
from xarray.backends import BackendEntrypoint

from .internals import named_by_content
from .opening import open_dataset
from .request import DatasetOptions, check_names, options_of

_URL = re.compile(r"allen://([0-9]{1,19})/?", re.IGNORECASE)
OPTIONS = tuple(options_of(DatasetOptions))
"""The options of `open_dataset`."""


class AtldldBackend(BackendEntrypoint):
    """Opens ``allen://<dataset id>`` with `xarray.open_dataset` and `xarray.open_mfdataset`.

    The options of `atldld.open_dataset` are keyword arguments; all but ``chunks``, which is
    xarray's own there: ``chunks={}`` takes the chunks that `atldld.open_dataset` chooses, and
    None, the default, gives arrays that are read (and then kept) when they are indexed.

    Notes
    -----
    Name the engine: where netCDF4 is installed, it takes every URL for one of its own. Chunks
    other than ``{}`` can bring a warning from xarray that they separate stored ones; whole
    sections can be put together to chunks as one likes, at no cost.

    Sections of two datasets do not stack: their numbers would match by accident. So
    `xarray.open_mfdataset` takes a ``preprocess`` that leaves one section of each (or a mean),
    and stacks these along a new dimension. Datasets of one plane and reference space share their
    grid. ``combine_attrs`` leaves out what is not true of all.

    Examples
    --------
    >>> import xarray as xr
    >>> import atldld
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> brains = [phantom_dataset(1001), phantom_dataset(1002)]
    >>> with AllenServer(brains) as server, atldld.set_options(api_url=server.url):
    ...     sections = xr.open_dataset("allen://1001", engine="atldld", chunks={}, resolution=100)
    ...     planes = xr.open_mfdataset(
    ...         ["allen://1001", "allen://1002"],
    ...         engine="atldld",
    ...         resolution=100,
    ...         preprocess=lambda one: one.atlas.at(p=6600).expand_dims(
    ...             dataset=[one.attrs["dataset_id"]]
    ...         ),
    ...         combine="nested",
    ...         concat_dim="dataset",
    ...         coords="different",
    ...         compat="equals",
    ...         join="exact",
    ...         combine_attrs="drop_conflicts",
    ...     )
    >>> dict(sections.image.sizes)
    {'section': 12, 'y': 80, 'x': 114, 'channel': 3}
    >>> dict(planes.image.sizes)
    {'dataset': 2, 'y': 80, 'x': 114, 'channel': 3}
    >>> planes.dataset.values
    array([1001, 1002])
    """

    description = "Section datasets of the Allen Brain Atlas (allen://<dataset id>)"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", *OPTIONS)

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        **options: Any,
    ) -> xr.Dataset:
        """Open a dataset lazily; see `atldld.open_dataset`.

        Parameters
        ----------
        filename_or_obj
            ``"allen://<dataset id>"``.
        drop_variables
            Name or names of variables to leave out.
        **options
            Those of `atldld.open_dataset`.

        Raises
        ------
        ValueError
            If that is no such URL.
        TypeError
            If there is no such option; the message says which there are.
        """
        dataset_id = _dataset_id(filename_or_obj)
        names = [name for name in OPTIONS if name != "chunks"]
        check_names(names, f"engine 'atldld' ({filename_or_obj})", options)
        opened = open_dataset(dataset_id, chunks=None, **options)
        drop = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or [])
        opened = opened.drop_vars(drop, errors="ignore")
        return named_by_content(opened)

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether this is the URL of a dataset."""
        return isinstance(filename_or_obj, str) and bool(_URL.fullmatch(filename_or_obj))


def _dataset_id(url: Any) -> int:
    found = _URL.fullmatch(os.fspath(url)) if isinstance(url, str | os.PathLike) else None
    if found is None:
        raise ValueError(f"{url!r} is not the URL of a dataset; it must be like 'allen://69289763'")
    return int(found[1])
