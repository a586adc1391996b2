"""``docs/benchmarks.md``: the latest table, and what each figure is; written, never edited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import atlas, published
from .contests import CONTESTS
from .report import brief, grown, markdown, table

_BEGINNING = """\
# Benchmarks

This page is written by `python -m benchmarks --write-docs` from `benchmarks/latest.json`.
Change the code in `benchmarks/`, not this page.

```console
make bench
```

measures everything anew ({minutes} minutes here), prints the table below, and writes the numbers
of every run to `build/benchmarks/results.json`. Another machine gives other seconds; the ratios
carry over better. To keep the results of a measurement as the latest:

```console
python -m benchmarks --from-results build/benchmarks/results.json
```

`python -m benchmarks --help` lists what else there is: `--only NAME`, `--runs N`, `--quick`.

## The latest table

{facts}

{table}

{peaks}

The load tells whether the machine was left alone: above 0.5 at the start, or far above the number
of cores at the end, somebody else was at work, and the seconds, and some of the ratios, show it.

*Measured* is the median over the rounds, with the lowest and the highest of them in brackets.
Seconds are medians too: time on the clock, and processor time in brackets. *Our peak* is the most
memory that our process held in any round, from its start; *first* is what it was when the figure
was first measured with it.

## How it is measured

**The server.** A stand-in for the Allen API (`atldld.testing`) runs in a process of its own on
the same machine, and waits {latency:.0f} ms before each answer. Downloads are redirected to the
image service, as the real service does, so that an image costs every client two requests. All
bodies are encoded before anything is timed, and held in memory: sending them is all the work
that the server does. It shares the processor with whoever is measured.

**The dataset.** {sections} coronal sections of {width:,} x {height:,} pixels of about 1 um, tilted
by 3 degrees, of the phantom brain with its tissue texture. At full resolution {distinct} of the
sections have bodies of their own (5 to 7 MB each); the others are sent the body of one of
these. No client can tell: sizes and bytes are what they would be. Bodies of coarser tiers are
each section's own.

**The peer.** atldld 0.3.4 from the package index, in an environment of its own that is made at
the first measurement, with the OpenCV version that we use. It is driven through its documented
interface alone. It knows one address of the service; the driver leads requests for that address
to the server on this machine.

**Runs.** Each run is a fresh process with an empty cache folder. Before its clock starts it has
opened and computed a dataset of two small sections: imports, threads and the first connection
are no part of the figures, on any side. The sides of a ratio take turns: ours, theirs, ours,
theirs. A ratio is that of one round, and the figure is the median of {runs} rounds ({few} where a
round takes long, one for what does not vary). Processor time is that of the process and its
children.

## What each figure is
"""


_ATLAS = """
## The whole atlas

`python -m benchmarks.atlas`, which `make bench` runs last, measures each step in a fresh process.
The catalogue, its images, coverage and the mirror come from a stand-in that makes the rows of a
synthetic atlas when it is asked for them. Its matrices repeat, and pack better than real ones:
*images, random numbers* tells what as many take at most. The steps below them compute on a mirror
that was written straight: one dataset correlated with all, for its 20 nearest neighbours, and the
mean of every dataset in each of 700 structures, on dask.distributed with four workers of 1 GB, and
in a plain loop over the same chunks on one thread. Where a step is not measured at 26,078
datasets, a last row tells what its slope says. *Peak* is that of the process that asks; *more*
tells that of a worker, how many of the mirror's bytes the workers read, and processor time, which
another load of the machine changes less. *Load* is that of the machine at the start of a step: far
above 0, others were at work, and the seconds are upper bounds.

{facts}

{table}
"""


_PUBLISHED = """
## Bent sections

`python -m benchmarks.bending` puts one coronal section of 10,000 x 7,600 pixels onto the grid of
its space, straight and bent, in one thread: coverage, the window, and the warp, with the image at
hand. The quickest of 40 times, measured 2026-11-25, with others at work on the machine (load 8):

| grid, um | tier | interpolation | straight, ms | 16 markers | 60 markers | field |
| ---: | ---: | --- | ---: | ---: | ---: | ---: |
| 25 | 4 | linear | 0.9 | 2.4 ms, 2.7x | 2.9 ms, 3.1x | 3.1 ms, 3.4x |
| 25 | 3 | linear | 1.2 | 2.9 ms, 2.5x | 3.3 ms, 2.9x | 3.5 ms, 3.0x |
| 25 | 3 | area | 6.9 | 13.8 ms, 2.0x | 14.9 ms, 2.2x | 12.6 ms, 1.8x |
| 10 | 3 | linear | 4.3 | 11.9 ms, 2.8x | 13.8 ms, 3.2x | 13.1 ms, 3.0x |
| 10 | 2 | area | 40.6 | 65.1 ms, 1.6x | 69.1 ms, 1.7x | 61.7 ms, 1.5x |

## A published registration

`python -m benchmarks.published` writes an animal with two experiments of {sections} sections each
in the layout of the published registration (Carey et al. 2026), and opens it here and with
spatial_brain_maps 0.1.2 (pynutil 0.3.3, antspyx 0.6.1), in an environment of its own. Each call is
a fresh process; its imports are left out. The pictures are on disk for the one, in the cache for
the other. Others were at work on the machine, as its load says: the processor's seconds tell more.

{facts}

{table}

- It gives a pixel of the canvas the place of its upper left corner, `o + u x / width + v y /
  height`, where the middle is at `x + 0.5` and `y + 0.5`: half a pixel off, 12.5 um at 25 um. The
  same half voxel is in its volumes along the slicing axis ({behind:.1f} um here), since it rounds
  where voxel k reaches from k to k + 1.
- Once that half pixel is added, both put the same pixels to the same places, but for its steps to
  the nearest pixel: half a pixel for the affine and half a pixel for the field, 25.4 um along an
  axis of the picture here, and up to a fifth more where the field stretches.
- Values are held against each other at the pixel that it took. Its values are rounded to whole
  levels twice (the grey picture, and that once more when it is shrunk) and ours once, which leaves
  up to 1.5 levels. Without its two roundings they agree within one, as
  `tests/arrays/test_published_peer.py` shows, which makes them by hand.
- Its volume is grey, empty between sections, and the sum where two sections meet in a voxel. It is
  the quicker one where that is what is wanted.
- At another resolution than 25 um it rounds the picture to whole pixels of that resolution, and
  pads and scales it to a canvas that was rounded at 25 um. `tests/arrays/test_published_peer.py`
  says how far off that is, and that the arrays here are not.
"""


_README = """\
{begin}
On {cores} cores ({measured}), from a stand-in for the service that waits {latency:.0f} ms
before each answer. [Benchmarks](docs/benchmarks.md) has all figures, and says what each is.

{table}
{end}"""

BEGIN = "<!-- written by python -m benchmarks --write-docs -->"
END = "<!-- end of what is written -->"


def in_readme(text: str, measured: Mapping[str, Any]) -> str:
    """Return the text of the README with its short table as some results say; see `page`."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    written = _README.format(
        begin=BEGIN,
        end=END,
        cores=measured["machine"]["cores"],
        measured=measured["machine"]["measured"].split()[0],
        latency=1e3 * measured["sizes"]["latency"],
        table=markdown(brief(measured["figures"])),
    )
    return before + written + after


def _of_peaks(figures: Any, first: Mapping[str, int]) -> str:
    names = grown(figures, first)
    compared = sum(bool(each.get("peak_bytes")) and each["name"] in first for each in figures)
    if not compared:
        return "Peaks were not told of these figures."
    if not names:
        return f"Of {compared} figures none holds more memory than at first (5 % aside)."
    told = ", ".join(f"`{name}`" for name in names)
    return f"Of {compared} figures these hold more memory than at first (5 % aside): {told}."


def page(
    measured: Mapping[str, Any],
    first: Mapping[str, int],
    of_atlas: Mapping[str, Any] | None = None,
    of_published: Mapping[str, Any] | None = None,
) -> str:
    """Return the page for some results.

    Parameters
    ----------
    measured
        What `report.results` returned.
    first
        Our peak memory in bytes when a figure was first measured, by its name.
    of_atlas
        What `benchmarks.atlas` wrote, or None.
    of_published
        What `benchmarks.published` wrote, or None.
    """
    facts = "\n".join(f"- {name}: {fact}" for name, fact in measured["machine"].items())
    rounds = [len(several) for several in measured["rounds"].values()]
    head = _BEGINNING.format(
        facts=facts,
        table=markdown(table(measured["figures"], first)),
        peaks=_of_peaks(measured["figures"], first),
        minutes=measured["minutes"],
        latency=1e3 * measured["sizes"]["latency"],
        runs=max(rounds),
        few=len(measured["rounds"].get("pieces", ())) or 3,
        **{name: measured["sizes"][name] for name in ("sections", "width", "height", "distinct")},
    )
    figures = (figure for contest in CONTESTS for figure in contest.figures)
    parts = (f"**{one.what}** (`--only {one.name}`). {one.how}\n" for one in figures)
    whole = "\n".join([head, *parts])
    if of_atlas is not None:
        told = "\n".join(f"- {name}: {fact}" for name, fact in of_atlas["machine"].items())
        whole += _ATLAS.format(facts=told, table=atlas.table(of_atlas))
    if of_published is not None:
        told = "\n".join(f"- {name}: {fact}" for name, fact in of_published["machine"].items())
        whole += _PUBLISHED.format(
            facts=told,
            table=published.table(of_published),
            sections=of_published["sections"],
            behind=-of_published["errors"]["theirs_behind"],
        )
    return whole
