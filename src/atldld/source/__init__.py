"""Where bytes come from: the only rooms that touch network or disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .protocol import Source

__all__ = ["source_from"]


def source_from(source: str | Source | None = None) -> Source:
    """Return the source that a user named.

    Parameters
    ----------
    source
        None for the service that the options name (``api_url``); the base URL of an Allen
        API, such as ``"http://127.0.0.1:8000/api/v2"``, where a bare host gets ``/api/v2``
        and a slash at the end makes no difference; or a `Source`, which is returned as it is.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If it is a text, but not the base URL of a service.

    Examples
    --------
    >>> source_from("http://127.0.0.1:8000/").name
    'http://127.0.0.1:8000/api/v2'
    """
    from .protocol import Source

    if source is None:
        from ..options import current

        source = current().api_url
    if isinstance(source, str):
        if source.strip().lower().startswith(("http://", "https://")):
            from .allen import AllenSource

            return AllenSource(source.strip())
        from .urls import without_secrets

        raise ValueError(
            f"source is {without_secrets(source)!r}; it must be the base URL of an Allen API "
            "(http:// or https://). Bundles, given by a path or another URL, are not supported in this version"
        )
    if isinstance(source, Source) and not isinstance(source, type):
        return source
    raise TypeError(
        f"source is {source!r}; it must be None, the base URL of an Allen API, or a Source"
    )
