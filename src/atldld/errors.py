"""The exceptions and warnings of the package.

Everything raised on purpose about data or a service lies below
:class:`AtldldError`. A bad argument is a `ValueError` or a `TypeError`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


class AtldldError(Exception):
    """Base of all errors of this package."""


class DatasetNotFoundError(AtldldError):
    """There is no section dataset for the given id."""


class RegistrationError(AtldldError):
    """A dataset or an image has no usable place in reference space."""


class MixError(AtldldError, ValueError):
    """Two arrays that do not belong together were combined.

    Raised by arithmetic, align, merge and concat. The message names both sides and the remedy.
    """


class APIError(AtldldError):
    """The service refused, failed, or answered what cannot be right.

    Parameters
    ----------
    message
        What was wrong, in words.
    url
        What was asked.
    status
        HTTP status code of the last answer, if there was one.

    Examples
    --------
    >>> error = APIError("the service answered 503 four times", url="http://x/y", status=503)
    >>> print(error)
    the service answered 503 four times (http://x/y)
    """

    def __init__(self, message: str, *, url: str | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.url = url
        self.status = status

    def __str__(self) -> str:
        return self.message if self.url is None else f"{self.message} ({self.url})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, {"url": self.url, "status": self.status})


class ImageError(AtldldError):
    """A section image could not be had, or is not what it should be.

    Parameters
    ----------
    reason
        What was wrong, in words.
    image_id, dataset_id, section_number
        Which image it was.
    url
        Where it was asked for.
    window
        ``(left, top, width, height)`` in pixels of the tier, or None for the whole image.

    Examples
    --------
    >>> print(ImageError("the body is not a JPEG", image_id=7, dataset_id=1, section_number=70,
    ...                  url="http://x/section_image_download/7"))
    image 7 (section 70 of dataset 1): the body is not a JPEG (http://x/section_image_download/7)
    """

    def __init__(
        self,
        reason: str,
        *,
        image_id: int,
        dataset_id: int | None = None,
        section_number: int | None = None,
        url: str | None = None,
        window: tuple[int, int, int, int] | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.image_id = image_id
        self.dataset_id = dataset_id
        self.section_number = section_number
        self.url = url
        self.window = window

    def __str__(self) -> str:
        place = [
            text
            for text, value in (
                (f"section {self.section_number}", self.section_number),
                (f"of dataset {self.dataset_id}", self.dataset_id),
            )
            if value is not None
        ]
        where = f" ({' '.join(place)})" if place else ""
        window = f", window {self.window}" if self.window is not None else ""
        url = f" ({self.url})" if self.url is not None else ""
        return f"image {self.image_id}{where}{window}: {self.reason}{url}"

    def __reduce__(self) -> tuple[Any, ...]:
        fields = ("image_id", "dataset_id", "section_number", "url", "window")
        return _rebuild, (type(self), self.reason, {name: getattr(self, name) for name in fields})


class BundleError(AtldldError):
    """A bundle is damaged, incomplete, or not a bundle."""


class AtldldWarning(UserWarning):
    """Something about the data that a user should know, and that was dealt with."""


def library(module: str, what: str, package: str | None = None) -> Any:
    """Return a module of a library that is not installed with the package itself.

    Parameters
    ----------
    module
        The module, such as ``"matplotlib.pyplot"``.
    what
        What needs it, to begin the message with.
    package
        What is to be installed, where that is not the first part of the module's name.

    Raises
    ------
    ImportError
        If it is not installed; the message says how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = package or module.partition(".")[0]
        # The library, not an extra of ours: the package index has another package of our name.
        raise ImportError(f"{what} needs {name}: pip install {name}") from error


def _rebuild(cls: type[Any], message: str, fields: dict[str, Any]) -> Any:
    return cls(message, **fields)


def plain(text: str, most: int = 200) -> str:
    """Return foreign text as one printable line of at most `most` characters."""
    words = " ".join(text[: 20 * most].split())
    line = "".join(c if c.isprintable() else "?" for c in words)
    return line if len(line) <= most else line[: most - 3] + "..."
