"""Service addresses: one spelling for each, and none that shows a password."""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

API_PATH = "/api/v2"

_DEFAULT_PORTS = {"http": 80, "https": 443}


def base_url(text: str) -> str:
    """Return the one spelling of the base URL of an Allen API.

    Scheme and host in lower case, no default port, no slash at the end. A URL that names
    only a host gets ``/api/v2``; any other path is taken as the place of the API. A name and
    password stay.

    Raises
    ------
    ValueError
        If it is not an http or https URL, or has a query or a fragment.

    Examples
    --------
    >>> base_url("HTTP://Localhost:80")
    'http://localhost/api/v2'
    >>> base_url("https://api.brain-map.org/api/v2/")
    'https://api.brain-map.org/api/v2'
    """
    parts = _web_parts(text)
    if parts is None or parts.query or parts.fragment or text.endswith(("?", "#")):
        raise ValueError(
            f"{without_secrets(text)!r} is not the base URL of a service; it must be like "
            "'https://api.brain-map.org/api/v2', without query and fragment"
        )
    path = parts.path.rstrip("/") or API_PATH
    return urlunsplit((parts.scheme, _userinfo(parts) + _host(parts), path, "", ""))


def without_credentials(url: str) -> str:
    """Return a URL without name and password, for names and messages.

    Examples
    --------
    >>> without_credentials("http://me:secret@host:8000/api/v2")
    'http://host:8000/api/v2'
    """
    start = url.find("//")
    if start < 0:
        return url
    start += 2
    # Whatever stands before an @ may be a password, also in a URL that does not parse, or
    # where the password itself holds a slash.
    return url[:start] + url[start:].rpartition("@")[2]


def without_secrets(url: str) -> str:
    """Return what may be shown of a URL that a user wrote: nothing that could be a secret.

    Without name, password, parameters, query and fragment: keys and tokens stand there.

    Examples
    --------
    >>> without_secrets("https://me:secret@host/api/v2?api_key=secret")
    'https://host/api/v2?...'
    """
    shown = without_credentials(url)
    end = min((shown.find(mark) for mark in "?#;" if mark in shown), default=len(shown))
    return shown[: end + 1] + "..." if shown[end + 1 :] else shown


def redirected(url: str, location: str) -> str:
    """Return where a redirect leads.

    Raises
    ------
    ValueError
        If it leaves http and https, or falls from https to http; the message names no more
        of the new address than its scheme.
    """
    try:
        target = urljoin(url, location.strip())
        parts = _web_parts(target)
    except ValueError:
        parts = None
    if parts is None:
        raise ValueError("redirected to something that is not an http or https URL")
    if url.startswith("https:") and parts.scheme != "https":
        raise ValueError("redirected from https to http, which would lose its protection")
    return urlunsplit(parts._replace(fragment=""))


def host_and_port(url: str) -> str:
    """Return ``host`` or ``host:port`` of a URL, in lower case."""
    return _host(urlsplit(url))


def _web_parts(text: str) -> SplitResult | None:
    # urlsplit drops tabs and line ends without a word; here they are refused.
    if any(character <= " " or character == "\x7f" for character in text):
        return None
    try:
        parts = urlsplit(text)
        good = parts.scheme in _DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if good else None


def _userinfo(parts: SplitResult) -> str:
    userinfo, at, _ = parts.netloc.rpartition("@")
    return userinfo + at


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    if parts.port is None or parts.port == _DEFAULT_PORTS.get(parts.scheme):
        return host
    return f"{host}:{parts.port}"
