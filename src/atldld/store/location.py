"""Where a bundle is: a local path, or the URL of a store that fsspec knows."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from ..errors import BundleError
from ..urls import without_credentials, without_secrets

_LOCAL = ("file://", "local://")


@dataclass(frozen=True, slots=True, repr=False)
class Location:
    """Where a bundle is, or will be.

    Parameters
    ----------
    text
        An absolute local path, or a URL.

    Examples
    --------
    >>> Location.of("https://host/prox1.zip?signature=secret")
    Location('https://host/prox1.zip')
    """

    text: str

    @classmethod
    def of(cls, where: str | os.PathLike[str]) -> Self:
        """Return the location that a user named.

        Raises
        ------
        ValueError
            If it cannot be the place of a bundle.
        """
        text = os.fspath(where) if isinstance(where, str | os.PathLike) else None
        if not isinstance(text, str):
            raise TypeError(f"source or target is {where!r}; it must be a text or a path")
        text = text.strip()
        if not text or "\0" in text or not _encodable(text):
            raise ValueError(f"source or target is {without_secrets(text)!r}, which names nothing")
        for scheme in _LOCAL:
            text = text.removeprefix(scheme)
        if "::" in text:
            raise ValueError(
                f"source or target {without_secrets(text)!r} chains stores; name the zip file or "
                "folder itself"
            )
        if "://" not in text:
            return cls(os.path.abspath(os.path.expanduser(text)))  # noqa: PTH100, PTH111
        if without_credentials(text) != text:
            raise ValueError(
                f"source or target {without_secrets(text)!r} has a name or password in it; those "
                "of a store belong in its environment variables or fsspec's configuration"
            )
        return cls(text.rstrip("/"))

    def __repr__(self) -> str:
        return f"Location({self.name!r})"

    @property
    def path(self) -> Path | None:
        """The local path, or None where it is a URL."""
        return _local_path(self.text)

    @property
    def name(self) -> str:
        """What to call it; holds no secrets."""
        if self.path is not None:
            return self.text
        return re.split("[?#;]", self.text)[0]

    def below(self, name: str) -> Location:
        """Return the location of something below this one."""
        if self.path is not None:
            return Location(str(self.path / name))
        return Location(f"{self.text}/{name}")

    @property
    def is_web(self) -> bool:
        """Whether it is on a web server."""
        return self.text.lower().startswith(("http://", "https://"))

    @property
    def says_zip(self) -> bool:
        """Whether it is a zip file by its name."""
        return self.name.lower().endswith(".zip")

    def filesystem(self) -> tuple[Any, str]:
        """Return the fsspec file system of a URL, and the path within it.

        Found anew in every process: file systems have threads and connections.

        Raises
        ------
        BundleError
            If fsspec does not know such URLs, or lacks what it needs for them.
        """
        from fsspec.core import url_to_fs

        try:
            found, path = url_to_fs(self.text)
        except ImportError as error:
            missing = "" if error.name is None else f" (pip install {error.name})"
            fault = BundleError(f"{self.name} cannot be reached: {error}{missing}")
        except Exception as error:
            # Raised outside of the handler: what stores raise may hold secrets.
            fault = BundleError(f"{self.name} cannot be reached: {type(error).__name__}")
        else:
            return found, str(path).rstrip("/")
        raise fault


@lru_cache(maxsize=256)
def _local_path(text: str) -> Path | None:
    return None if "://" in text else Path(text)


def _encodable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True
