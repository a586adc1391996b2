"""``python -m benchmarks``: measure, print one table, write the numbers."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from .atlas import LATEST as ATLAS
from .bench import Bench, Round
from .contests import CONTESTS
from .figures import Outcome, outcome
from .machine import load, machine
from .page import in_readme, page
from .process import ROOT
from .published import LATEST as PUBLISHED
from .report import plain, results, table
from .service import serving
from .sizes import FULL, QUICK

LATEST = ROOT / "benchmarks" / "latest.json"
PEAKS = ROOT / "benchmarks" / "peaks.json"
PAGE = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for; returns 1 if something failed, 0 also where targets are missed."""
    asked = _parser().parse_args(arguments)
    if asked.from_results:
        _write_docs(asked.from_results)
        return 0
    began = time.monotonic()
    sizes = QUICK if asked.quick else FULL
    runs = asked.runs or (1 if asked.quick else 7)
    outcomes: list[Outcome] = []
    rounds: dict[str, list[Round]] = {}
    facts = machine()
    asked.work.mkdir(parents=True, exist_ok=True)
    _say("preparing the server")
    with serving(sizes, asked.work) as service:
        peer = "" if asked.no_peer else asked.peer_python
        bench = Bench(sizes, asked.work, service, peer)
        for contest in CONTESTS:
            figures = [one for one in contest.figures if not asked.only or one.name in asked.only]
            needed = {name for figure in figures for name in figure.sides}
            sides = [side for side in contest.sides if side.name in needed]
            if not figures:
                continue
            count = min(runs, contest.most_runs)
            _say(f"{contest.name}: {', '.join(side.name for side in sides)}")
            rounds[contest.name] = bench.rounds(sides, count, _say)
            outcomes += [outcome(figure, rounds[contest.name], bench) for figure in figures]
    facts["load at the end"] = load()
    measured = results(facts, outcomes, rounds, asdict(sizes))
    measured["minutes"] = max(round((time.monotonic() - began) / 60), 1)
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    first = json.loads(PEAKS.read_text(encoding="utf-8"))
    print(plain(facts, table(measured["figures"], first)))
    if asked.write_docs:
        _write_docs(asked.output)
    return int(any(one.failed for one in outcomes))


def _write_docs(source: Path) -> None:
    """Keep some results as the latest, and write the page and the table that show them."""
    text = source.read_text(encoding="utf-8")
    measured = json.loads(text)
    LATEST.write_text(text, encoding="utf-8")
    first = json.loads(PEAKS.read_text(encoding="utf-8"))
    for figure in measured["figures"]:
        if figure.get("peak_bytes"):
            first.setdefault(figure["name"], figure["peak_bytes"])
    PEAKS.write_text(json.dumps(first, indent=1) + "\n", encoding="utf-8")
    of_atlas = json.loads(ATLAS.read_text(encoding="utf-8")) if ATLAS.exists() else None
    of_published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    PAGE.write_text(page(measured, first, of_atlas, of_published), encoding="utf-8")
    readme = README.read_text(encoding="utf-8")
    README.write_text(in_readme(readme, measured), encoding="utf-8")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    names = [figure.name for contest in CONTESTS for figure in contest.figures]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}"
    )
    parser.add_argument("--runs", type=int, help="rounds; by default 7, or 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="small sizes: whether it all works")
    parser.add_argument("--no-peer", action="store_true", help="leave out the peer")
    parser.add_argument("--peer-python", metavar="FILE", help="interpreter that has the peer")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "benchmarks", help="folder of what is kept"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "build" / "benchmarks" / "results.json",
        help="where the numbers go",
    )
    parser.add_argument(
        "--write-docs",
        action="store_true",
        help="keep the results, and write the page and the table of the README",
    )
    parser.add_argument(
        "--from-results", type=Path, metavar="FILE", help="measure nothing: write the page of these"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
