"""Wall seconds, CPU seconds, peak memory and counts of one piece of work.

Uses the standard library alone: the peer's environment, which has nothing else of ours, measures
with the same clock.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self


class NotAvailableError(Exception):
    """What is to be measured is not there; the message says what is missing."""


@dataclass(frozen=True)
class Lap:
    """One part of a run.

    Parameters
    ----------
    wall
        Seconds that passed.
    cpu
        Seconds of processor time, of the process and of its children that have ended.
    """

    wall: float
    cpu: float


@dataclass
class Run:
    """What was measured of one run of one side.

    Parameters
    ----------
    laps
        Parts of the run by name, in their order.
    peak_bytes
        Most memory that the process held at once, from its start on; 0 where it is not known.
    counts
        Other numbers by name.
    """

    laps: dict[str, Lap] = field(default_factory=dict)
    peak_bytes: int = 0
    counts: dict[str, float] = field(default_factory=dict)

    def wall(self, *laps: str) -> float:
        """Return the wall seconds of some laps, of all where none is named."""
        return sum(self.laps[name].wall for name in laps or self.laps)

    def cpu(self, *laps: str) -> float:
        """Return the CPU seconds of some laps, of all where none is named."""
        return sum(self.laps[name].cpu for name in laps or self.laps)

    @contextmanager
    def lap(self, name: str, more_cpu: Callable[[], float] = lambda: 0.0) -> Iterator[None]:
        """Measure the block as one lap.

        Parameters
        ----------
        name
            What to call it.
        more_cpu
            Returns CPU seconds so far of other processes that work for this one.
        """
        cpu = cpu_seconds() + more_cpu()
        began = time.perf_counter()
        yield
        wall = time.perf_counter() - began
        self.laps[name] = Lap(wall, cpu_seconds() + more_cpu() - cpu)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "laps": {name: [lap.wall, lap.cpu] for name, lap in self.laps.items()},
            "peak_bytes": self.peak_bytes,
            "counts": self.counts,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build from what `to_json` gave."""
        laps = {name: Lap(wall, cpu) for name, (wall, cpu) in values["laps"].items()}
        return cls(laps, values["peak_bytes"], dict(values["counts"]))


def cpu_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    mine = resource.getrusage(resource.RUSAGE_SELF)
    theirs = resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime


def peak_bytes() -> int:
    """Return the most memory that this process has held at once.

    The kernel's own mark of this program is read where there is one: ``getrusage`` also counts
    what the process that began this one held at that moment.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


Job = Callable[[Mapping[str, Any], Run], None]


def answer(jobs: Mapping[str, Job]) -> None:
    """Do the one job that the command line names, and print what was measured.

    What the job is given is read from standard input as JSON; the last line of standard output
    is the answer.
    """
    given = json.load(sys.stdin)
    run = Run()
    try:
        jobs[sys.argv[1]](given, run)
        run.peak_bytes = peak_bytes()
        told: dict[str, Any] = {"run": run.to_json()}
    except NotAvailableError as error:
        told = {"not_available": str(error)}
    print(json.dumps(told), flush=True)
