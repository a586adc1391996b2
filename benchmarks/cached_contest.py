"""The contest on a cache that holds everything, and the figures that are read off it."""

from __future__ import annotations

from .bench import Side
from .figures import Contest, Figure, Part, given, times_as_long

_WINDOWS = 2_000
_FEW = 4


def cached_contest() -> Contest:
    """Return the contest of what is in the cache."""
    again = Part("prefetch again")
    windows = Part("small windows", ("windows",))
    cutting = Part(windows.side, ("bare",))
    section = Part("a section at 1 um", ("section",))
    warping = Part(section.side, ("bare",))
    sides, figures = [Side(again.side, "cached", "prefetch_again")], []
    for name, words, tier in (
        ("threads-auto", "64 sections at the tier of the grid", None),
        ("threads-full", "4 sections at full resolution", 0),
    ):
        parts = []
        for cores in (1, 2):
            part = Part(f"{words}, {cores} core{'s' * (cores > 1)}")
            parts.append(part)
            asked = given(
                cores=lambda *_, cores=cores: cores,
                tier=lambda *_, tier=tier: tier,
                sections=lambda bench, _, tier=tier: bench.sizes.sections if tier is None else _FEW,
            )
            sides.append(Side(part.side, "cached", "compute_on_cores", asked))
        figures.append(
            Figure(
                name,
                f"{words}, cached: on two cores against one",
                "`array.compute()` with two of dask's threads on two cores, and with one on one "
                "core: the process is kept to it, OpenCV's own threads as well.",
                "x",
                "at most",
                0.6,
                times_as_long(parts[1], parts[0]),
                parts[1],
                parts[0],
            )
        )
    sides += [
        Side(
            windows.side,
            "cached",
            "small_windows",
            given(sections=lambda *_: _FEW, windows=lambda *_: _WINDOWS),
        ),
        Side(
            section.side,
            "cached",
            "full_resolution",
            given(microns=lambda bench, _: bench.sizes.pieces_microns),
        ),
    ]
    figures = [
        Figure(
            "prefetch-again",
            "prefetch of what is there, a section",
            "`.atlas.prefetch()` of the default array once more, in a new opening.",
            "ms",
            "at most",
            0.5,
            lambda runs, _: 1e3 * again.wall(runs) / runs[again.side].counts["sections"],
            again,
        ),
        *figures,
        Figure(
            "small-windows",
            "2,000 windows of 64 x 64 from 4 whole images, against decoding each once and cutting",
            "`open_image(id, chunks=None)[y : y + 64, x : x + 64].values`, in any order. The bare "
            "side has the bodies in memory.",
            "x",
            "at most",
            2,
            times_as_long(windows, cutting),
            windows,
            cutting,
        ),
        Figure(
            "full-section",
            "one section at 1 um over 8 mm x 11 mm, cached, against decoding and one bare warp",
            "`open_dataarray(id, resolution=1, tier=0).isel(section=[k]).compute()` on dask's "
            "threads. The bare side has the body in memory, decodes it strictly, and calls "
            "`warpAffine` once.",
            "x",
            "at most",
            1.3,
            times_as_long(section, warping),
            section,
            warping,
        ),
    ]
    return Contest("cached", tuple(sides), tuple(figures), most_runs=3)
