"""Options of a process, and how a task carries those of its opening to workers.

Each option is, in this order: what `set_options` was given, the environment variable
``ATLDLD_<NAME>``, the default. They are looked up when they are needed.

A plain call of `set_options` holds for the whole process. A ``with`` block holds in its own thread
(more exactly, in its own `contextvars` context: a task of asyncio has one of its own), and what
it set is gone when it ends, whatever other threads did meanwhile. Threads of dask have no block of
their own: what they compute goes by the block that was entered last and has not ended.

A lazy array takes the options of its opening along as a `Carried`. In the process that made it
they count for nothing: there the options of the moment hold. In another process they stand
between the defaults and what that process sets for itself.
"""

from __future__ import annotations

import operator
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize, ConfigDict, Field
from pydantic import ValidationError as _Refused

from .process import PerProcess

DEFAULT_API_URL: Final = "https://api.brain-map.org/api/v2"

MOST_CONNECTIONS: Final = 256


def _default_cache_dir() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("atldld", appauthor=False)


def _folder(value: Any) -> Path | str:
    text = os.fspath(value)
    if not isinstance(text, str):
        raise TypeError
    if not text.strip() or "\0" in text or "::" in text:
        raise ValueError
    if "://" in text and not text.startswith("file://"):
        parts = urlsplit(text.strip())
        if parts.scheme in ("http", "https") or "@" in parts.netloc:
            raise ValueError
        return text.strip().rstrip("/")
    text = text.removeprefix("file://")
    return Path(text).expanduser().absolute()


def _byte_count(value: Any) -> Any:
    if isinstance(value, bool | bytes):
        raise TypeError
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError
        return int(value)
    return value


def _number(value: Any) -> Any:
    """Return whole numbers of numpy and the like as those of Python."""
    return operator.index(value) if hasattr(value, "__index__") and value is not True else value


def _service(value: str) -> str:
    parts = urlsplit(value.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError
    return value.strip()


_Whole = Annotated[int, BeforeValidator(_number)]


class Options(BaseModel):
    """What holds at one moment. Descriptions say what a value must be, for messages.

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
    max_image_pixels
        Most pixels of an image, or of a window of one, that is downloaded or decoded.
    metadata_max_age
        Seconds for which the kept description of a dataset is used without asking.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cache_dir: Annotated[Path | str, BeforeValidator(_folder)] = Field(
        default_factory=_default_cache_dir,
        description="it must be the path of a folder, or the URL of a bucket or the like without "
        "a password",
    )
    cache_limit: Annotated[
        ByteSize | None, Field(ge=1, le=10**18), BeforeValidator(_byte_count)
    ] = Field(
        None,
        description="it must be a number of bytes above 0, or text such as '20 GB' "
        "(in variables also none)",
    )
    max_connections: _Whole = Field(
        8,
        ge=1,
        le=MOST_CONNECTIONS,
        description=f"it must be a whole number from 1 to {MOST_CONNECTIONS}",
    )
    timeout: float = Field(
        60.0,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="it must be a number of seconds above 0 and at most a day",
    )
    retries: _Whole = Field(4, ge=0, le=100, description="it must be a whole number from 0 to 100")
    api_url: Annotated[str, AfterValidator(_service)] = Field(
        DEFAULT_API_URL, description=f"it must be a URL such as {DEFAULT_API_URL}"
    )
    progress: bool | None = Field(
        None, description="it must be True, False or None (in the environment 1, 0 or auto)"
    )
    max_image_pixels: _Whole = Field(
        400_000_000,
        ge=1,
        le=10**10,
        description="it must be a whole number of pixels from 1 to 10,000,000,000",
    )
    metadata_max_age: float = Field(
        604_800.0,
        ge=0,
        le=10**10,
        allow_inf_nan=False,
        description="it must be a number of seconds from 0 (ask each time) to 10,000,000,000",
    )

    @property
    def longest(self) -> float:
        """Seconds that all tries of a request may take together."""
        return self.timeout * (self.retries + 1)

    @property
    def local_cache_dir(self) -> Path:
        """The folder of downloaded files, or where that is elsewhere, the user's own."""
        return self.cache_dir if isinstance(self.cache_dir, Path) else _default_cache_dir()


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
    max_image_pixels: int | None = _UNCHANGED,
    metadata_max_age: float | None = _UNCHANGED,
) -> _Block:
    """Set options for this process, or for the time of a ``with`` block.

    A plain call holds for every thread. A ``with`` block holds in its own thread, and one in
    the main thread for all threads that are in none. What dask's threads compute goes by the block
    that was entered last and has not ended. None gives an option back to its environment variable
    (``ATLDLD_CACHE_DIR`` and so on) or to its default.

    Parameters
    ----------
    cache_dir
        Folder of downloaded files; by default the user's cache folder for ``atldld``. An fsspec
        URL such as ``"s3://bucket/cache"`` is shared by machines.
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
    max_image_pixels
        Most pixels of an image, or of a window of one, that is downloaded or decoded, at 3 bytes
        each in memory; by default 400 million. A larger one is an `ImageError`.
    metadata_max_age
        Seconds for which the kept description of a dataset is used without asking the service;
        by default a week, for the atlas hardly changes. 0 asks each time.

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
    given = dict(locals())
    return _set(
        {
            name: None if value is None else _checked(name, value, name, value, strict=True)
            for name, value in given.items()
            if value is not _UNCHANGED
        }
    )


def current() -> Options:
    """Return the options that hold here and now.

    Within `using`, in a process other than the one that made the `Carried`, the carried
    options stand between the defaults and what this process sets for itself.
    """
    return _resolved(_in_use.get(), _blocks_here())


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
        return _resolved(self, _blocks_here())


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
    chosen = _chosen_values(_in_use.get(), _blocks_here())
    return Carried(_process.value, tuple(sorted(chosen.items())))


@contextmanager
def using(carried: Carried) -> Iterator[None]:
    """Let `current` heed carried options, in this thread and for the time of the block."""
    before = _in_use.set(carried)
    try:
        yield
    finally:
        _in_use.reset(before)


@dataclass(eq=False, slots=True)
class _Block:
    """What a call of `set_options` set: for the process, or once entered for a ``with`` block."""

    values: Mapping[str, Any]
    """None gives an option back."""
    process: str
    """Token of the process that it was called in."""
    open: bool = False
    main: bool = False
    """Whether it was entered in the main thread."""
    around: tuple[_Block, ...] = ()
    """The blocks within which it was entered, and itself last."""
    inner: tuple[_Block, ...] = ()
    """The plain calls within the block, in its own thread."""

    def __enter__(self) -> Self:
        global _calls
        with _changing.value:
            outer = tuple(block for block in _blocks.get() if block.open)
            _calls = tuple(call for call in _calls if call is not self)
            if outer:
                outer[-1].inner = tuple(call for call in outer[-1].inner if call is not self)
            self.open, self.around = True, (*outer, self)
            self.main = threading.current_thread() is threading.main_thread()
            _open.append(self)
        _blocks.set(self.around)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with _changing.value:
            self.open = False
            _open[:] = [block for block in _open if block is not self]
        _blocks.set(tuple(block for block in _blocks.get() if block.open))


_calls: tuple[_Block, ...] = ()
"""The plain calls, the last one last; replaced whole, so that readers need no lock."""

_blocks: ContextVar[tuple[_Block, ...]] = ContextVar("atldld_option_blocks", default=())
_open: list[_Block] = []
"""The blocks of all threads, in the order in which they were entered."""

_in_use: ContextVar[Carried | None] = ContextVar("atldld_carried_options", default=None)

_changing = PerProcess(threading.Lock)
_process = PerProcess(lambda: os.urandom(8).hex())
"""Token of this process; another machine may have a process of the same number."""


def _blocks_here() -> tuple[_Block, ...]:
    """Return the blocks that this thread is in, the innermost last."""
    own = tuple(block for block in _blocks.get() if block.open)
    if own or not _open or threading.current_thread() is threading.main_thread():
        return own
    # Perhaps a thread of dask, amid a computation that another thread asked for.
    computing = _in_use.get() is not None
    for block in reversed(_open):
        if computing or block.main:
            return tuple(each for each in block.around if each.open)
    return ()


def _set(values: Mapping[str, Any]) -> _Block:
    """Set options for the process, and return what makes a ``with`` block of that."""
    global _calls
    block = _Block(values, _process.value)
    with _changing.value:
        _calls = _with_last(_calls, block)
        own = [each for each in _blocks.get() if each.open]
        if own:
            own[-1].inner = _with_last(own[-1].inner, block)
    return block


def _with_last(calls: tuple[_Block, ...], last: _Block) -> tuple[_Block, ...]:
    """Return calls with one more; of many the first two are made one, of no ``with`` any more."""
    calls = (*calls, last)
    if len(calls) > _MOST_CALLS and calls[0].process == calls[1].process:
        one = _Block({**calls[0].values, **calls[1].values}, calls[0].process)
        calls = (one, *calls[2:])
    return calls


def _chosen_values(carried: Carried | None, blocks: tuple[_Block, ...]) -> dict[str, Any]:
    """Return everything that was set on purpose, the strongest last."""
    given = _from_environment()
    here = [*_calls, *(each for block in blocks for each in (block, *block.inner))]
    if carried is not None and carried.process != _process.value:
        # A forked worker inherits what its parent had set by then; that was not set here.
        here = [each for each in here if each.process == _process.value]
        given = {**dict(carried.chosen), **given}
    set_here: dict[str, Any] = {}
    for each in here:
        set_here |= each.values
    return given | {name: value for name, value in set_here.items() if value is not None}


_Key = tuple[Carried | None, tuple[_Block, ...]]


def _resolved(carried: Carried | None, blocks: tuple[_Block, ...]) -> Options:
    # Asked for with every image: worked out again only where something was set since.
    state = (
        tuple(map(os.environ.get, _VARIABLES)),
        _calls,
        [block.inner for block in blocks],
        _process.value,
    )
    before = _worked_out.get((carried, blocks))
    if before is not None and before[0] == state:
        return before[1]
    chosen = _chosen_values(carried, blocks)
    folder = chosen.get("cache_dir", "")
    # A path may have been carried from a system that writes paths in another way.
    if "://" not in str(folder) and not Path(folder).is_absolute():
        chosen.pop("cache_dir", None)
    options = Options(**chosen)
    if len(_worked_out) >= _MOST_WORKED_OUT:
        _worked_out.clear()
    _worked_out[carried, blocks] = state, options
    return options


def _from_environment() -> dict[str, Any]:
    """Return what environment variables say; None there is a word for none."""
    found = {}
    for name in Options.model_fields:
        text = os.environ.get(_variable(name), "").strip()
        if text:
            value = None if text.lower() in ("none", "auto") else text
            found[name] = _checked(name, value, _variable(name), text, strict=False)
    return found


def _checked(name: str, value: Any, called: str, shown: Any, *, strict: bool) -> Any:
    """Return the value of an option in its one form, or say what would be right."""
    try:
        options = Options.model_validate({name: value}, strict=strict)
    except TypeError:
        kind: type[Exception] = TypeError
    except _Refused as error:
        wrong_type = strict and error.errors()[0]["type"].endswith("_type")
        kind = TypeError if wrong_type else ValueError
    except (ValueError, OverflowError):
        kind = ValueError
    else:
        found = getattr(options, name)
        return str(found) if isinstance(found, Path) else found
    # A URL may hold a password.
    shown = re.sub(r"//.*@", "//", repr(shown))
    raise kind(f"{called} is {shown}; {Options.model_fields[name].description}")


def _variable(name: str) -> str:
    return f"ATLDLD_{name.upper()}"


_VARIABLES = (
    *(_variable(name) for name in Options.model_fields),
    # What the default cache folder depends on.
    "HOME", "XDG_CACHE_HOME", "LOCALAPPDATA", "USERPROFILE",
)  # fmt: skip

_MOST_CALLS = 256
_MOST_WORKED_OUT = 64
_worked_out: dict[_Key, tuple[tuple[Any, ...], Options]] = {}
"""The last answer for carried options and blocks, and what it was worked out from."""
