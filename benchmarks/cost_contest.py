"""What a section costs where there are many, and the figures that are read off it."""

from __future__ import annotations

import math
from itertools import pairwise

from .bench import Side
from .figures import Contest, Figure, Part, Value, given, times_the_work

_COUNTS = (100, 1_000, 10_000)

_STEPS = {
    "open": ("open", "`open_dataarray` of records that are in memory as rows"),
    "plan": ("plan", "`.atlas.plan()` of all of it"),
    "graph": ("graph", "`dict(array.data.__dask_graph__())`"),
    "places": ("pir", "`.atlas.pir()`"),
    "compute": ("compute", "`.compute()` of blank images at 400 um, on two threads"),
    "volume": ("open a volume", "`open_volume` of the same records"),
}


def slope(ours: Part, theirs: Part, times_as_many: float) -> Value:
    """Return by which power of the number of sections the processor time grows."""
    ratio = times_the_work(ours, theirs)
    return lambda runs, bench: math.log(ratio(runs, bench), times_as_many)


def cost_contest() -> Contest:
    """Return the contest of one dataset with 100, 1,000 and 10,000 sections."""
    names = {count: f"{count:,} sections" for count in _COUNTS}
    sides = [
        Side(
            names[count],
            "scale",
            "cost_of_sections",
            given(
                sections=lambda bench, _, count=count: min(count, bench.sizes.many_sections),
            ),
        )
        for count in _COUNTS
    ]
    figures = []
    for lap, (what, how) in _STEPS.items():
        for few, many in pairwise(_COUNTS):
            ours, theirs = Part(names[many], (lap,)), Part(names[few], (lap,))
            figures.append(
                Figure(
                    f"cost-{lap}-{many}",
                    f"{what}: slope from {few:,} to {many:,} sections of one dataset",
                    f"{how}, processor time: by which power of the number of sections it grows. 1 "
                    "is a cost that grows with the number, 2 one that grows with its square. The "
                    "seconds are those of the larger and of the smaller number.",
                    "",
                    "at most",
                    1.2,
                    slope(ours, theirs, many / few),
                    ours,
                    theirs,
                )
            )
    return Contest("cost", tuple(sides), tuple(figures), most_runs=3)
