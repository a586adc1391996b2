"""Options of a process, and how a task carries those of its opening to workers.

Each option is, in this order: what `set_options` was given, the environment variable
``ATLDLD_<NAME>``, the default. They hold for a whole process, dask's threads included, and are
looked up when they are needed.

A lazy array takes the options of its opening along as a `Carried`. In the process that made it
they count for nothing: there the options of the moment hold. In another process they stand
between the defaults and what that process sets for itself.
"""

from __future__ import annotations

import operator
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

DEFAULT_API_URL: Final = "https://api.brain-map.org/api/v2"

MOST_CONNECTIONS: Final = 256


@dataclass(frozen=True, slots=True)
class Options:
    """What holds at one moment.

    Parameters
    ----------
    cache_dir
        Folder of downloaded files.
    cache_limit
        Most bytes to keep there, or None. Beyond it the images that were used longest ago go.
    max_connections
        How many requests the processes of a machine may have under way at once.
    timeout
        Seconds that one try of a request may take, from connecting to the last byte.
    retries
        How often a request is tried again. All tries and pauses of a request together take at
        most ``timeout * (retries + 1)`` seconds.
    api_url
        Base URL of the service that is used where no source is named.
    progress
        Whether to show progress; None decides by the terminal.
    """

    cache_dir: Path
    cache_limit: int | None = None
    max_connections: int = 8
    timeout: float = 60.0
    retries: int = 4
    api_url: str = DEFAULT_API_URL
    progress: bool | None = None


class _Unchanged:
    def __repr__(self) -> str:
        return "<unchanged>"


_UNCHANGED: Final[Any] = _Unchanged()


def set_options(
    *,
    cache_dir: str | os.PathLike[str] | None = _UNCHANGED,
    cache_limit: int | float | str | None = _UNCHANGED,
    max_connections: int | None = _UNCHANGED,
    timeout: float | None = _UNCHANGED,
    retries: int | None = _UNCHANGED,
    api_url: str | None = _UNCHANGED,
    progress: bool | None = _UNCHANGED,
) -> _Restore:
    """Set options for this process, or for the time of a ``with`` block.

    They hold for every thread. None gives an option back to its environment variable
    (``ATLDLD_CACHE_DIR`` and so on) or to its default.

    Parameters
    ----------
    cache_dir
        Folder of downloaded files; by default the user's cache folder for ``atldld``.
    cache_limit
        Most bytes to keep there: a number, or text such as ``"20 GB"`` or ``"512 MiB"``; by
        default there is no limit. Whenever a download goes beyond it, the images that were used
        longest ago are removed. ``ATLDLD_CACHE_LIMIT=none`` means no limit.
    max_connections
        How many requests may be under way at once, 1 to 256; by default 8. It holds for all
        processes of a machine together, and on dask.distributed it is divided among the
        machines of the workers.
    timeout
        Seconds that one try of a request may take, from connecting to the last byte; by
        default 60.
    retries
        How often a request is tried again after a fault, 0 to 100; by default 4.
    api_url
        Base URL of the service that is used where no source is named.
    progress
        Whether to show progress; by default where the output is a terminal.

    Returns
    -------
    context manager
        Leaving its ``with`` block brings back what held before the call.

    Raises
    ------
    TypeError, ValueError
        If a value cannot be used; the message says what could.

    Examples
    --------
    >>> from atldld import options, set_options
    >>> with set_options(timeout=5, retries=1):
    ...     options.current().timeout
    5.0
    """
    given = {
        "cache_dir": cache_dir,
        "cache_limit": cache_limit,
        "max_connections": max_connections,
        "timeout": timeout,
        "retries": retries,
        "api_url": api_url,
        "progress": progress,
    }
    changes = {
        name: None if value is None else _checked(name, value)
        for name, value in given.items()
        if value is not _UNCHANGED
    }
    return _Restore(_change({name: _chosen_here(value) for name, value in changes.items()}))


def current() -> Options:
    """Return the options that hold here and now.

    Within `using`, in a process other than the one that made the `Carried`, the carried
    options stand between the defaults and what this process sets for itself.
    """
    return _resolved(_in_use.get())


@dataclass(frozen=True, slots=True)
class Carried:
    """The options of an opening, on their way to the process that computes.

    Small and picklable. It holds only what was set on purpose: a default, such as the user's
    cache folder, is looked up where it is needed. It says nothing about what is computed, so
    it belongs in no token.

    Parameters
    ----------
    process
        Token of the process that made it.
    chosen
        Names and values of what was set there.
    """

    process: str
    chosen: tuple[tuple[str, Any], ...]

    def options(self) -> Options:
        """Return the options for a computation in this process."""
        return _resolved(self)


def carry() -> Carried:
    """Return the options of this moment, to be taken along to workers.

    Examples
    --------
    >>> from atldld import options
    >>> carried = options.carry()
    >>> with options.set_options(retries=0):
    ...     carried.options().retries  # still in the process that made it
    0
    """
    chosen = _chosen_values(_in_use.get())
    return Carried(_process, tuple(sorted(chosen.items())))


@contextmanager
def using(carried: Carried) -> Iterator[None]:
    """Let `current` heed carried options, in this thread and for the time of the block."""
    before = _in_use.set(carried)
    try:
        yield
    finally:
        _in_use.reset(before)


@dataclass(frozen=True, slots=True)
class _Choice:
    """A value that `set_options` was given, and the process in which that happened."""

    value: Any
    process: str


class _Restore:
    """Puts back, at the end of a ``with`` block, what a call of `set_options` replaced."""

    def __init__(self, replaced: Mapping[str, _Choice | None]) -> None:
        self._replaced = replaced

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _change(self._replaced)


_choices: dict[str, _Choice] = {}
"""What `set_options` set; replaced whole, so that readers need no lock."""

_changing = threading.Lock()
_in_use: ContextVar[Carried | None] = ContextVar("atldld_carried_options", default=None)
_process = os.urandom(8).hex()
"""Token of this process; another machine may have a process of the same number."""


def _after_fork() -> None:
    # A thread of the parent may have held the lock at that moment; no thread of the child does.
    global _changing, _process
    _changing = threading.Lock()
    _process = os.urandom(8).hex()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _chosen_here(value: Any) -> _Choice | None:
    return None if value is None else _Choice(value, _process)


def _change(changes: Mapping[str, _Choice | None]) -> dict[str, _Choice | None]:
    """Replace choices (None removes one) and return what they replaced."""
    global _choices
    with _changing:
        replaced = {name: _choices.get(name) for name in changes}
        merged = {**_choices, **changes}
        _choices = {name: choice for name, choice in merged.items() if choice is not None}
    return replaced


def _chosen_values(carried: Carried | None) -> dict[str, Any]:
    """Return everything that was set on purpose, the strongest last."""
    environment = {
        name: _from_environment(name, text)
        for name, text in ((name, os.environ.get(_variable(name))) for name in _OPTIONS)
        if text
    }
    if carried is None or carried.process == _process:
        return {**environment, **{name: choice.value for name, choice in _choices.items()}}
    # A forked worker inherits what its parent had set by then; that was not set here.
    here = {name: c.value for name, c in _choices.items() if c.process == _process}
    return {**dict(carried.chosen), **environment, **here}


def _resolved(carried: Carried | None) -> Options:
    # Asked for with every image: worked out again only where something was set since.
    here = tuple(os.environ.get(name) for name in _VARIABLES)
    before = _worked_out.get(carried)
    if before is not None and before[0] == here and before[1] is _choices and before[2] == _process:
        return before[3]
    choices, process = _choices, _process
    options = _work_out(carried)
    if len(_worked_out) >= _MOST_WORKED_OUT:
        _worked_out.clear()
    _worked_out[carried] = here, choices, process, options
    return options


def _work_out(carried: Carried | None) -> Options:
    chosen = _chosen_values(carried)
    cache_dir = chosen.pop("cache_dir", None)
    # A path may have been carried from a system that writes paths in another way.
    if cache_dir is None or not Path(cache_dir).is_absolute():
        cache_dir = _default_cache_dir()
    return replace(Options(Path(cache_dir)), **chosen)


def _default_cache_dir() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("atldld", appauthor=False)


def _variable(name: str) -> str:
    return f"ATLDLD_{name.upper()}"


def _from_environment(name: str, text: str) -> Any:
    option, variable = _OPTIONS[name], _variable(name)
    try:
        return option.check(option.parse(text.strip()))
    except ValueError:
        raise ValueError(f"{variable} is {_shown(text)}; {option.wanted}") from None


def _checked(name: str, value: Any) -> Any:
    """Return the value of an option in its one form, or say what would be right."""
    option = _OPTIONS[name]
    try:
        return option.check(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} is {_shown(value)}; {option.wanted}") from None


def _shown(value: Any) -> str:
    """Return how a value is shown in a message: without a password that a URL may hold."""
    return re.sub(r"//.*@", "//", repr(value))


@dataclass(frozen=True, slots=True)
class _Option:
    """How an option is read: from text, from a value, and what to say if it cannot be."""

    parse: Callable[[str], Any]
    check: Callable[[Any], Any]
    wanted: str


def _folder(value: Any) -> str:
    text = os.fspath(value)
    if not isinstance(text, str):
        raise TypeError
    if not text.strip() or "\0" in text:
        raise ValueError
    return str(Path(text).expanduser().absolute())


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
        if not least <= number <= most:
            raise ValueError
        return number

    return check


_UNITS: Final = {
    **{unit: 1000**power for power, unit in enumerate(("b", "kb", "mb", "gb", "tb"))},
    **{unit: 1024**power for power, unit in enumerate(("kib", "mib", "gib", "tib"), 1)},
    "": 1,
}


def _bytes(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, str):
        found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,6})?)\s*([a-z]*)", value.strip().lower())
        if found is None or found[2] not in _UNITS:
            raise ValueError
        value = int(float(found[1]) * _UNITS[found[2]])
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError
        value = int(value)
    return _whole(1, 10**18)(value)


def _bytes_or_none(text: str) -> int | None:
    return None if text.lower() == "none" else _bytes(text)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    if not 0 < value <= 86_400:
        raise ValueError
    return float(value)


def _url(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    parts = urlsplit(value.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError
    return value.strip()


def _yes_or_no(value: Any) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise TypeError
    return value


_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
    "auto": None,
}


def _word(text: str) -> bool | None:
    if text.lower() not in _WORDS:
        raise ValueError
    return _WORDS[text.lower()]


_OPTIONS = {
    "cache_dir": _Option(str, _folder, "it must be the path of a folder"),
    "cache_limit": _Option(
        _bytes_or_none,
        _bytes,
        "it must be a number of bytes above 0, or text such as '20 GB' (in variables also none)",
    ),
    "max_connections": _Option(
        int,
        _whole(1, MOST_CONNECTIONS),
        f"it must be a whole number from 1 to {MOST_CONNECTIONS}",
    ),
    "timeout": _Option(float, _seconds, "it must be a number of seconds above 0 and at most a day"),
    "retries": _Option(int, _whole(0, 100), "it must be a whole number from 0 to 100"),
    "api_url": _Option(str, _url, f"it must be a URL such as {DEFAULT_API_URL}"),
    "progress": _Option(
        _word, _yes_or_no, "it must be True, False or None (in the environment 1, 0 or auto)"
    ),
}

_VARIABLES = (
    *(_variable(name) for name in _OPTIONS),
    # What the default cache folder depends on.
    "HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "USERPROFILE",
)  # fmt: skip

_MOST_WORKED_OUT = 64
_worked_out: dict[
    Carried | None, tuple[tuple[str | None, ...], dict[str, _Choice], str, Options]
] = {}
"""The last answer for each carried options, and what it was worked out from."""
