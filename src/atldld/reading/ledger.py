"""What went wrong while sections were read, for the user who asks afterwards.

Tasks run in threads, in other processes and on other machines. A failure is noted in the
memory of the process, in a file that all processes of the machine can reach, and, in a
dask.distributed worker, in the events of the cluster. Reading joins the three.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import AtldldWarning, ImageError
from ..model.read import ImageRead

FIELDS = ("dataset_id", "section_number", "image_id", "view", "tier", "url", "reason", "outcome")


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
    time
        Seconds since the epoch.
    """

    dataset_id: int | None
    section_number: int | None
    image_id: int
    view: str
    tier: int
    url: str
    reason: str
    outcome: str
    time: float

    @classmethod
    def of(cls, read: ImageRead, error: ImageError | None, outcome: str) -> Failure:
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
            time.time(),
        )

    @property
    def key(self) -> tuple[int, str, int]:
        """What tells wanted images apart."""
        return self.image_id, self.view, self.tier


@dataclass(frozen=True, slots=True)
class Ledger:
    """The failures of one opened array, wherever its tasks run.

    Parameters
    ----------
    name
        What it is called in the memory of processes, among files and in clusters.
    """

    name: str

    @property
    def _topic(self) -> str:
        return f"atldld-failures-{self.name}"

    @property
    def _file(self) -> Path:
        owner = str(os.getuid()) if hasattr(os, "getuid") else "all"
        return Path(tempfile.gettempdir()) / f"atldld-ledgers-{owner}" / f"{self.name}.jsonl"

    def note(self, read: ImageRead, error: ImageError, outcome: str) -> None:
        """Note a failure, and warn about it once per section and process."""
        failure = Failure.of(read, error, outcome)
        self._write(failure)
        what = "filled" if outcome == "filled" else f"served from {outcome}"
        with _lock:
            first = (self.name, failure.key) not in _warned
            _warned.add((self.name, failure.key))
        if first:
            _warn(f"section {read.section_number} of dataset {read.dataset_id} is {what}: {error}")

    def clear(self, read: ImageRead) -> None:
        """Note that an image was had, if it is known to have failed before."""
        key = Failure.of(read, None, "").key
        if any(failure.key == key for failure in self._known()):
            self._write(Failure.of(read, None, ""))

    def failures(self) -> list[Failure]:
        """Return what failed, the last word about each image, oldest first."""
        return _last_words([*self._known(), *self._from_cluster()])

    def _known(self) -> list[Failure]:
        with _lock:
            own = list(_notes.get(self.name, ()))
        return [*own, *self._from_file()]

    def _write(self, failure: Failure) -> None:
        with _lock:
            _notes.setdefault(self.name, []).append(failure)
        line = (json.dumps(asdict(failure)) + "\n").encode()
        with suppress(OSError):
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # One write to a file opened for appending: lines of processes do not mingle.
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        worker = _worker()
        if worker is not None:
            worker.log_event(self._topic, asdict(failure))

    def _from_file(self) -> list[Failure]:
        try:
            lines = self._file.read_bytes().splitlines()
        except OSError:
            return []
        return [note for note in map(_parsed, lines) if note is not None]

    def _from_cluster(self) -> list[Failure]:
        distributed = sys.modules.get("distributed")
        if distributed is None:
            return []
        try:
            events = distributed.get_client().get_events(self._topic)
        except (ValueError, OSError, RuntimeError):
            return []  # no client, or its cluster is gone
        return [note for note in (_checked(event) for _, event in events) if note is not None]

    def forget(self) -> None:
        """Remove what is kept of it on this machine."""
        with _lock:
            _notes.pop(self.name, None)
        with suppress(OSError):
            self._file.unlink()


def _last_words(failures: Iterable[Failure]) -> list[Failure]:
    last: dict[tuple[int, str, int], Failure] = {}
    for failure in sorted(failures, key=lambda failure: failure.time):
        last.pop(failure.key, None)
        last[failure.key] = failure
    return [failure for failure in last.values() if failure.outcome]


def _parsed(line: bytes) -> Failure | None:
    try:
        return _checked(json.loads(line))
    except ValueError:
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


_lock = threading.Lock()
_notes: dict[str, list[Failure]] = {}
_warned: set[tuple[str, tuple[int, str, int]]] = set()
