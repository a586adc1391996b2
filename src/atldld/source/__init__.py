"""Where bytes come from: the only rooms that touch network or disk."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .catalogue import Catalogue
    from .protocol import Source

__all__ = ["source_from"]


def source_from(source: str | os.PathLike[str] | Source | Catalogue | None = None) -> Source:
    """Return the source that a user named.

    Parameters
    ----------
    source
        None for the service that the options name (``api_url``); the base URL of an Allen
        API, such as ``"http://127.0.0.1:8000/api/v2"``, where a bare host gets ``/api/v2``
        and a slash at the end makes no difference; the path or fsspec URL of a bundle (http and
        https only for a zip file); the folder of one service in a cache; a bucket of slides
        (``"s3://allen-mouse-brain-atlas"``, or another path or URL of its layout); a
        `Catalogue`, for its service, described by its tables; or a `Source`, which is returned
        as it is.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If it is a text that cannot name a source.
    BundleError
        If there is nothing at a path or URL, or no bundle that may be opened.

    Examples
    --------
    >>> source_from("http://127.0.0.1:8000/").name
    'http://127.0.0.1:8000/api/v2'
    """
    from .protocol import Source

    if source is None:
        from ..options import current

        source = current().api_url
    if isinstance(source, str) and _is_service(source):
        from .allen import AllenSource

        return AllenSource(source.strip())
    if isinstance(source, str | os.PathLike):
        return _stored(source)
    if isinstance(source, Source) and not isinstance(source, type):
        return source
    from .catalogue import Catalogue

    if isinstance(source, Catalogue):
        from .allen import AllenSource

        return AllenSource(source.service, source.where)
    raise TypeError(
        f"source is {source!r}; it must be None, the base URL of an Allen API, the path or URL of "
        "a bundle, a Catalogue, or a Source"
    )


def _stored(where: str | os.PathLike[str]) -> Source:
    """Return the bundle, cache folder or bucket of slides at a path or URL."""
    from ..errors import BundleError
    from ..store.files import Location
    from .bucket import OPEN_BUCKET, bucket_at
    from .stored import StoredSource

    if str(where).rstrip("/") == OPEN_BUCKET:
        return bucket_at(where) or StoredSource.at(where)
    try:
        return StoredSource.at(where)
    except BundleError:
        found = None
        # A web server is asked for nothing beside a bundle; what is wrong with a place that
        # cannot be reached was said.
        if not Location.of(where).is_web:
            with suppress(BundleError):
                found = bucket_at(where)
        if found is None:
            raise
        return found


def _is_service(source: str) -> bool:
    url = source.strip().lower()
    return url.startswith(("http://", "https://")) and not url.partition("?")[0].endswith(".zip")
