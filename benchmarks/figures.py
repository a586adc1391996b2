"""What is measured, of whom, and what is to be reached."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .bench import Bench, Round, Side
from .measure import NotAvailableError, Run

Sense = Literal["at least", "at most"]
Value = Callable[[Mapping[str, Run], Bench], float]


@dataclass(frozen=True)
class Part:
    """Some laps of a side; all of them where none is named."""

    side: str
    laps: tuple[str, ...] = ()

    def wall(self, runs: Mapping[str, Run]) -> float:
        """Return its wall seconds in one round."""
        return runs[self.side].wall(*self.laps)

    def cpu(self, runs: Mapping[str, Run]) -> float:
        """Return its CPU seconds in one round."""
        return runs[self.side].cpu(*self.laps)


@dataclass(frozen=True)
class Figure:
    """One row of the table.

    Parameters
    ----------
    name
        To ask for it by.
    what
        What it is, in the words of the table.
    how
        How it is measured, for the documentation.
    unit
        ``"x"`` for ratios, ``"%"`` for shares, ``"s"``, ``"ms"``, ``"GB"``, or a plain word.
    sense, target
        What is to be reached; None where the figure is only told.
    value
        The figure of one round.
    ours, theirs
        Whose seconds stand beside it.
    summary
        How the rounds become one value.
    """

    name: str
    what: str
    how: str
    unit: str
    sense: Sense
    target: float | None
    value: Value
    ours: Part
    theirs: Part | None = None
    summary: Literal["median", "worst"] = "median"

    @property
    def sides(self) -> tuple[str, ...]:
        """Names of the sides that it needs."""
        return (self.ours.side,) if self.theirs is None else (self.ours.side, self.theirs.side)


@dataclass(frozen=True)
class Contest:
    """Figures that are read off the same rounds.

    Parameters
    ----------
    name
        What to call it.
    sides
        In the order in which they take turns.
    figures
        What is read off.
    most_runs
        Most rounds, where a round takes long.
    """

    name: str
    sides: tuple[Side, ...]
    figures: tuple[Figure, ...]
    most_runs: int = 1000


@dataclass(frozen=True)
class Seconds:
    """Median wall and CPU seconds of one side."""

    side: str
    wall: float
    cpu: float


@dataclass(frozen=True)
class Outcome:
    """What came of one figure.

    Parameters
    ----------
    figure
        Which.
    values
        One a round; empty where there are none.
    missing
        Why there are none.
    failed
        Whether that is an error.
    seconds
        Of ours, and of theirs.
    peak_bytes
        The most memory that ours held in any round; 0 where it is not known.
    """

    figure: Figure
    values: tuple[float, ...] = ()
    missing: str = ""
    failed: bool = False
    seconds: tuple[Seconds, ...] = ()
    peak_bytes: int = 0

    @property
    def value(self) -> float | None:
        """The figure: the median of the rounds, or the worst of them."""
        if not self.values:
            return None
        if self.figure.summary == "median":
            return statistics.median(self.values)
        return max(self.values) if self.figure.sense == "at most" else min(self.values)

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None where there is no value or no target."""
        value, target = self.value, self.figure.target
        if value is None or target is None:
            return None
        return reaches(value, self.figure.sense, target)


def reaches(value: float, sense: Sense, target: float) -> bool:
    """Whether a value is at least, or at most, its target.

    Examples
    --------
    >>> reaches(1.2, "at most", 1.25), reaches(3.9, "at least", 4.0)
    (True, False)
    """
    return value >= target if sense == "at least" else value <= target


def outcome(figure: Figure, rounds: Sequence[Round], bench: Bench) -> Outcome:
    """Read one figure off its rounds."""
    whole: list[dict[str, Run]] = []
    for one in rounds:
        runs: dict[str, Run] = {}
        for name in figure.sides:
            got = one[name]
            if isinstance(got, Exception):
                failed = not isinstance(got, NotAvailableError)
                return Outcome(figure, missing=str(got), failed=failed)
            runs[name] = got
        whole.append(runs)
    parts = [part for part in (figure.ours, figure.theirs) if part is not None]
    return Outcome(
        figure,
        tuple(figure.value(runs, bench) for runs in whole),
        seconds=tuple(
            Seconds(
                part.side,
                statistics.median(part.wall(runs) for runs in whole),
                statistics.median(part.cpu(runs) for runs in whole),
            )
            for part in parts
        ),
        peak_bytes=max((runs[figure.ours.side].peak_bytes for runs in whole), default=0),
    )


def times_faster(ours: Part, theirs: Part) -> Value:
    """Return how many times as long theirs takes as ours."""
    return lambda runs, bench: theirs.wall(runs) / ours.wall(runs)


def times_as_long(ours: Part, theirs: Part) -> Value:
    """Return how many times as long ours takes as theirs."""
    return lambda runs, bench: ours.wall(runs) / theirs.wall(runs)


def times_the_work(ours: Part, theirs: Part) -> Value:
    """Return how many times the processor time of the other side ours takes."""
    return lambda runs, _: ours.cpu(runs) / theirs.cpu(runs)


def given(**values: Callable[[Bench, int], Any]) -> Callable[[Bench, int], dict[str, Any]]:
    """Return what tells a job these values, each computed from bench and round."""
    return lambda bench, number: {name: of(bench, number) for name, of in values.items()}
