"""Images that could not be had: what is done about one, and what is told afterwards.

Tasks run in threads, in other processes and on other machines. A failure is noted in the
memory of the process, in a file that the processes of the machine share, and, in a
dask.distributed worker, in the events of the cluster. Who asks afterwards is told by all three.
Nothing that is computed hangs on these notes.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import stat
import sys
import tempfile
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import APIError, AtldldWarning, ImageError
from ..model.read import ImageRead
from ..process import PerProcess

FIELDS = ("dataset_id", "section_number", "image_id", "view", "tier", "url", "reason", "outcome")

_OF_THE_IMAGE = (200, 404, 500)
"""Statuses that speak of one image: sent but bad, missing, or the service stumbled over it."""

_PREFIX = "atldld-failures-"
_MOST_BYTES = 2**22
"""Of a file of failures; what comes later is noted elsewhere alone."""
_MOST_LEDGERS = 1000
_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Failure:
    """One image that could not be had as it was wanted.

    Parameters
    ----------
    dataset_id, section_number, image_id, view, tier
        What was wanted.
    url
        Where it was asked for.
    reason
        What was wrong, in words.
    outcome
        ``"filled"``; ``"tier N"``, served from another tier; or ``""``, had after all.
    count
        One more than that of every note of the array that was known where this was noted:
        which of two notes is the later one does not hang on clocks.
    """

    dataset_id: int | None
    section_number: int | None
    image_id: int
    view: str
    tier: int
    url: str
    reason: str
    outcome: str
    count: int

    @classmethod
    def of(cls, read: ImageRead, error: ImageError | None, outcome: str, count: int) -> Failure:
        """Return the note about a read."""
        return cls(
            read.dataset_id,
            read.section_number,
            read.image_id,
            read.view,
            read.tier,
            "" if error is None else error.url or "",
            "" if error is None else error.reason,
            outcome,
            count,
        )

    @property
    def key(self) -> _Key:
        """What tells wanted images apart."""
        return self.image_id, self.view, self.tier


_Key = tuple[int, str, int]


@dataclass(frozen=True, slots=True)
class Ledger:
    """The failures of one opened array, wherever its tasks run.

    Parameters
    ----------
    name
        What it is called in the memory of processes, among files and in clusters.
    folder
        Where the process that opened the array keeps its files; empty if nowhere.
    """

    name: str
    folder: str = field(default_factory=lambda: _folder())

    @property
    def _topic(self) -> str:
        return f"{_PREFIX}{self.name}"

    def note(self, read: ImageRead, error: ImageError, outcome: str) -> None:
        """Note a failure, and warn about it once per section and process."""
        known = self._known()
        failure = Failure.of(read, error, outcome, known.next_count)
        if self._write(failure, known) is None:
            what = "filled" if outcome == "filled" else f"served from {outcome}"
            section = f"section {read.section_number} of dataset {read.dataset_id}"
            _warn(f"{section} is {what}: {error}")

    def clear(self, read: ImageRead) -> None:
        """Note that an image was had, if it is known to have failed before."""
        # Asked of every image: where none failed, it costs a look at whether there is a file.
        known = self._known()
        before = known.last.get((read.image_id, read.view, read.tier))
        if before is not None and before.outcome:
            self._write(Failure.of(read, None, "", known.next_count), known)

    def failures(self) -> list[Failure]:
        """Return what failed, the last word about each image, oldest first."""
        words = [*self._from_cluster(), *self._known().last.values()]
        last: dict[_Key, Failure] = {}
        for failure in sorted(words, key=lambda failure: failure.count):
            last.pop(failure.key, None)
            last[failure.key] = failure
        return [failure for failure in last.values() if failure.outcome]

    def _known(self) -> _Notes:
        """Return what this process and others of the machine noted, as far as it is new."""
        with _state.value.lock:
            notes = _state.value.of(self.name)
            size = self._size()
            if size > notes.read_to:
                with suppress(OSError), self._file.open("rb") as lines:
                    lines.seek(notes.read_to)
                    new = lines.read(size - notes.read_to)
                    whole = new[: new.rfind(b"\n") + 1]
                    notes.read_to += len(whole)
                    notes.add(note for note in map(_parsed, whole.splitlines()) if note)
            return notes

    def _write(self, failure: Failure, known: _Notes) -> Failure | None:
        """Note a failure wherever it can be; return what was noted about the image before."""
        with _state.value.lock:
            before = known.last.get(failure.key)
            known.add([failure])
        if before is not None and (before.outcome, before.reason) == (
            failure.outcome,
            failure.reason,
        ):
            return before
        line = (json.dumps(asdict(failure)) + "\n").encode()
        if self._is_ours() and self._size() + len(line) <= _MOST_BYTES:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            with suppress(OSError):
                # One write to a file opened for appending: lines of processes do not mingle.
                descriptor = os.open(self._file, flags, 0o600)
                try:
                    os.write(descriptor, line)
                finally:
                    os.close(descriptor)
        worker = _worker()
        if worker is not None:
            worker.log_event(self._topic, asdict(failure))
        return before

    @property
    def _file(self) -> Path:
        return Path(self.folder) / f"{self.name}.jsonl"

    def _size(self) -> int:
        if not self.folder:
            return 0
        try:
            found = self._file.lstat()
        except OSError:
            return 0
        return min(found.st_size, _MOST_BYTES) if stat.S_ISREG(found.st_mode) else 0

    def _is_ours(self) -> bool:
        """Whether the folder is on this machine, and of this user."""
        return bool(self.folder) and _is_own_folder(Path(self.folder))

    def _from_cluster(self) -> list[Failure]:
        distributed = sys.modules.get("distributed")
        if distributed is None:
            return []
        try:
            events = distributed.get_client().get_events(self._topic)
        except (ValueError, OSError, RuntimeError):
            return []  # no client, or its cluster is gone
        return [note for note in (_checked(event) for _, event in events) if note is not None]


@dataclass(frozen=True, slots=True)
class Failing:
    """What an array does about an image that cannot be had.

    Parameters
    ----------
    fill
        Whether its section is filled; else the error is raised.
    other_tiers
        Whether a neighbouring tier may serve where the image is bad at the tier wanted.
    ledger
        Where it is noted.
    """

    fill: bool
    other_tiers: bool
    ledger: Ledger

    def had(self, read: ImageRead) -> None:
        """Note that an image was had, in case it failed before."""
        if self.fill or self.other_tiers:
            self.ledger.clear(read)


def neighbours(tier: int, count: int) -> tuple[int, ...]:
    """Return the tiers that may serve for another: the next finer, then the next coarser.

    Examples
    --------
    >>> neighbours(4, 7), neighbours(0, 7), neighbours(0, 1)
    ((3, 5), (1,), ())
    """
    return tuple(other for other in (tier - 1, tier + 1) if 0 <= other < count)


def is_bad_itself(error: ImageError) -> bool:
    """Whether an image is bad or missing at its tier, rather than its service out of reach.

    The service is known to have lost single tiers of images, and to send for them pages, other
    sizes or damaged files. Where it does not answer at all, no tier is worth a try.
    """
    cause = error.__cause__
    return not isinstance(cause, APIError) or cause.status in _OF_THE_IMAGE


@dataclass(slots=True)
class _Notes:
    """What a process knows of a ledger: the last word about each image."""

    last: dict[_Key, Failure] = field(default_factory=dict)
    read_to: int = 0
    next_count: int = 1

    def add(self, notes: Iterable[Failure]) -> None:
        for note in notes:
            before = self.last.get(note.key)
            if before is None or note.count >= before.count:
                self.last[note.key] = note
            self.next_count = max(self.next_count, note.count + 1)


class _State:
    """The ledgers that a process knows, and the folder of those of its own arrays."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.folder: str | None = None
        self._notes: OrderedDict[str, _Notes] = OrderedDict()

    def of(self, name: str) -> _Notes:
        notes = self._notes.setdefault(name, _Notes())
        self._notes.move_to_end(name)
        if len(self._notes) > _MOST_LEDGERS:
            self._notes.popitem(last=False)
        return notes


_state = PerProcess(_State)


def _folder() -> str:
    """Return the folder of this process, made when it is first asked for, or nothing."""
    state = _state.value
    with state.lock:
        if state.folder is None:
            try:
                _sweep()
                # For this user alone, of a name that nobody can know beforehand.
                state.folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")
                atexit.register(_remove, state.folder, os.getpid())
            except OSError:
                state.folder = ""
        return state.folder


def _remove(folder: str, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Remove what processes of this user left that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        number = folder.name.removeprefix(_PREFIX).partition("-")[0]
        with suppress(OSError):
            old = time.time() - folder.lstat().st_mtime > _HOUR
            if number.isdecimal() and old and _is_own_folder(folder) and not _runs(int(number)):
                shutil.rmtree(folder, ignore_errors=True)


def _runs(process: int) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _is_own_folder(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    own = not hasattr(os, "getuid") or (
        found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )
    return stat.S_ISDIR(found.st_mode) and own


def _parsed(line: bytes) -> Failure | None:
    try:
        return _checked(json.loads(line))
    except (ValueError, RecursionError):
        return None


def _checked(fields: Any) -> Failure | None:
    try:
        return Failure(**fields)
    except TypeError:
        return None


def _worker() -> Any:
    """Return the dask.distributed worker that runs this task, or None."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        return distributed.get_worker()
    except ValueError:
        return None


def _warn(message: str) -> None:
    if _worker() is not None:
        import distributed

        distributed.warn(message, AtldldWarning)
    else:
        warnings.warn(message, AtldldWarning, stacklevel=2)
