"""The results: as plain values for JSON, and as one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .bench import Round
from .figures import Outcome
from .measure import Run

COLUMNS = (
    "figure", "measured", "to reach", "reached", "ours, s", "theirs, s", "our peak, GB",
    "first, GB",
)  # fmt: skip
"""Of the table. Seconds are wall, and CPU in brackets."""

BRIEF = (
    "cold-prefetch", "cold-tier", "warm-defaults", "bare-loop", "open-again", "prefetch-again",
    "threads-auto", "threads-full", "full-section", "small-windows", "volume-compiled",
    "volume-scipy", "mean-memory",
)  # fmt: skip
"""The figures of the short table."""

GROWN = 1.05
"""From how many times the first peak on one has grown: less differs from run to run."""


def results(
    facts: Mapping[str, str],
    outcomes: Iterable[Outcome],
    rounds: Mapping[str, Sequence[Round]],
    sizes: Mapping[str, Any],
) -> dict[str, Any]:
    """Return everything that was measured, as values that JSON can hold."""
    return {
        "machine": dict(facts),
        "sizes": dict(sizes),
        "figures": [_figure(one) for one in outcomes],
        "rounds": {
            name: [{side: _told(run) for side, run in one.items()} for one in several]
            for name, several in rounds.items()
        },
    }


def table(
    figures: Iterable[Mapping[str, Any]], first: Mapping[str, int] | None = None
) -> list[tuple[str, ...]]:
    """Return the rows of the table, the heading first.

    Parameters
    ----------
    figures
        The ``figures`` of `results`.
    first
        Our peak in bytes when a figure was first measured, by name.
    """
    first = first or {}
    return [COLUMNS, *((*_row(each), _gigabytes(first.get(each["name"], 0))) for each in figures)]


def brief(figures: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the rows of the short table, the heading first; see `table`."""
    rows = {figure["name"]: _row(figure)[:4] for figure in figures}
    return [COLUMNS[:4], *(rows[name] for name in BRIEF if name in rows)]


def grown(figures: Iterable[Mapping[str, Any]], first: Mapping[str, int]) -> list[str]:
    """Return the names of the figures whose peak memory grew; see `table`."""
    return [
        figure["name"]
        for figure in figures
        if 0 < GROWN * first.get(figure["name"], 0) < figure.get("peak_bytes", 0)
    ]


def plain(facts: Mapping[str, str], rows: Sequence[Sequence[str]], width: int = 58) -> str:
    """Return header and table as text with aligned columns."""
    lines = [f"{name}: {fact}" for name, fact in facts.items()]
    folded = [[_folded(cell, width) for cell in row] for row in rows]
    widths = [
        max(len(line) for row in folded for line in row[place]) for place in range(len(rows[0]))
    ]
    lines.append("")
    for number, row in enumerate(folded):
        for line in range(max(map(len, row))):
            cells = [cell[line] if line < len(cell) else "" for cell in row]
            padded = (cell.ljust(size) for cell, size in zip(cells, widths, strict=True))
            lines.append("  ".join(padded).rstrip())
        if number == 0:
            lines.append("  ".join("-" * size for size in widths))
    return "\n".join(lines)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _figure(one: Outcome) -> dict[str, Any]:
    figure = one.figure
    return {
        "name": figure.name,
        "what": figure.what,
        "unit": figure.unit,
        "sense": figure.sense,
        "target": figure.target,
        "value": one.value,
        "values": list(one.values),
        "reached": one.reached,
        "missing": one.missing,
        "failed": one.failed,
        "peak_bytes": one.peak_bytes,
        "seconds": [[each.side, each.wall, each.cpu] for each in one.seconds],
    }


def _told(run: Run | Exception) -> dict[str, Any]:
    return {"missing": str(run)} if isinstance(run, Exception) else run.to_json()


def _row(figure: Mapping[str, Any]) -> tuple[str, ...]:
    unit = figure["unit"]
    target = "-"
    if figure["target"] is not None:
        target = f"{figure['sense']} {_number(figure['target'], unit)}"
    if figure["value"] is None:
        reason = figure["missing"].splitlines()[0]
        told = "failed" if figure["failed"] else "not available"
        return figure["what"], f"{told}: {reason}", target, "-", "", "", ""
    measured = _number(figure["value"], unit)
    values = figure["values"]
    if len(values) > 1 and max(values) > min(values):
        measured += f" ({_number(min(values), '')} to {_number(max(values), '')})"
    seconds = [f"{_number(wall, '')} ({_number(cpu, '')})" for _, wall, cpu in figure["seconds"]]
    ours, theirs = (*seconds, "", "")[:2]
    peak = _gigabytes(figure.get("peak_bytes", 0))
    # Where something is counted, seconds say nothing: they may be the server's.
    timed = len(seconds) == 2 or unit in ("s", "ms")
    reached = {True: "yes", False: "no", None: "-"}[figure["reached"]]
    return figure["what"], measured, target, reached, ours if timed else "", theirs, peak


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f}" if count else ""


def _number(value: float, unit: str) -> str:
    """Return a number with three digits that matter, and its unit.

    Examples
    --------
    >>> _number(41.234, "x"), _number(0.98765, "x"), _number(2, "tasks"), _number(1234.5, "")
    ('41.2x', '0.988x', '2 tasks', '1,234')
    """
    if value == round(value) or abs(value) >= 1000:
        digits = f"{value:,.0f}"
    elif abs(value) >= 100:
        digits = f"{value:.0f}"
    else:
        digits = f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
    if not unit:
        return digits
    return f"{digits}{unit}" if unit == "x" else f"{digits} {unit}"


def _folded(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
