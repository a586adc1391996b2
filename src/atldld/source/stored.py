"""Finding out what a path or URL that a user names as a source is."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import BundleError
from .bundle import BundleSource
from .kept import CacheSource, cached_datasets
from .location import Location
from .manifest import MANIFEST
from .places import words_of


def stored_source(where: str | os.PathLike[str]) -> BundleSource | CacheSource:
    """Return the bundle, or the folder of a service in a cache, at a path or URL.

    Raises
    ------
    BundleError
        If there is neither, packing did not finish, or it is refused.
    ValueError, TypeError
        If that cannot be a place.
    """
    location = Location.of(where)
    path = location.path
    if path is not None:
        try:
            if cached_datasets(path):
                return CacheSource(path)
            if path.is_dir() and not (path / MANIFEST).exists():
                _refuse_all_caches(path)
        except OSError as error:
            raise BundleError(f"{location.name} cannot be read: {words_of(error)}") from error
    return BundleSource.at(where)


def _refuse_all_caches(path: Path) -> None:
    """Say so if a folder holds the caches of services, each in a folder of its own."""
    services = sorted(each for each in path.iterdir() if cached_datasets(each))
    if services:
        raise BundleError(
            f"{path} holds the caches of {len(services)} services; name the folder of one, such "
            f"as {services[0]}"
        )
