"""The contests, and the figures that are read off each."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from .bench import Bench, Side
from .cached_contest import cached_contest
from .cost_contest import cost_contest
from .figures import (
    Contest,
    Figure,
    Part,
    Value,
    given,
    times_as_long,
    times_faster,
    times_the_work,
)
from .measure import Run
from .volume_contest import volume_contest

CORNERS = (
    (3000, 5000),
    (2500, 3500),
    (3777, 5555),
    (3333, 4444),
    (2011, 6123),
    (4505, 4750),
    (4000, 7000),
)
"""i and r, in microns, of squares that lie in the tissue; each round reads another one."""

_GB = 1e9


def _http() -> Contest:
    fast = Part("open, prefetch, compute")
    plain = Part("open, compute")
    no_open = Part(fast.side, ("prefetch", "compute"))
    bare = Part("bare loop")
    peer = Part("peer, defaults")
    tier = given(tier=lambda bench, _: bench.service.auto_tier)
    return Contest(
        "cold",
        (
            Side(fast.side, "ours", "open_prefetch_compute"),
            Side(bare.side, "bare", "fetch_decode_warp", tier),
            Side(plain.side, "ours", "open_compute"),
            Side(
                peer.side, "peer_jobs", "download_and_warp", given(options=lambda *_: {}), peer=True
            ),
        ),
        (
            Figure(
                "cold-prefetch",
                "open, prefetch and compute, all defaults, against the peer at its defaults",
                "A cold cache on both sides. Ours: `open_dataarray(id)`, `.atlas.prefetch()`, "
                "`.compute()`. The peer: `DatasetDownloader(id)`, `fetch_metadata()`, `run()`, and "
                "`df.warp(img)` of each image, which is how its documentation says to register "
                "a dataset. Both give 64 sections on a grid of 25 um. The peer's defaults are "
                "images at full resolution; ours is the coarsest tier that is not coarser than "
                "the grid.",
                "x",
                "at least",
                40,
                times_faster(fast, peer),
                fast,
                peer,
            ),
            Figure(
                "cold-plain",
                "open and compute, without prefetch, against the peer at its defaults",
                "As above, but `open_dataarray(id).compute()`: dask's own threads ask for the "
                "images, chunk by chunk.",
                "x",
                "at least",
                30,
                times_faster(plain, peer),
                plain,
                peer,
            ),
            Figure(
                "bare-loop",
                "prefetch and compute, against the bare loop with 8 connections",
                "The bare loop has its URLs and matrices in hand before the clock starts. Eight "
                "threads over eight kept connections fetch, decode (strictly, as we do) and warp "
                "with one affine into one array. It has no cache, no check of what came, no "
                "labels. Opening is left out on our side, as the metadata request is on its.",
                "x",
                "at most",
                1.25,
                times_as_long(no_open, bare),
                no_open,
                bare,
            ),
            Figure(
                "bytes",
                "bytes received with defaults, against the sum of the chosen tier's files",
                "Bytes of image bodies that the server sent while `open_dataarray(id).compute()` "
                "ran, over the sum of the bodies of all sections at the tier that was chosen.",
                "x",
                "at most",
                1.02,
                lambda runs, bench: (
                    runs[plain.side].counts["served bytes"] / bench.service.auto_bytes
                ),
                plain,
            ),
        ),
    )


def _downloader() -> Contest:
    ours, peer = Part("DatasetDownloader"), Part("peer, coarse tier")
    lazy = Part("open, prefetch, compute, beside the peer")
    tier = given(tier=lambda bench, _: bench.service.coarse)
    options = given(options=lambda bench, _: {"downsample_img": bench.service.coarse})
    return Contest(
        "downloader",
        (
            Side(ours.side, "ours", "download_and_warp", tier),
            Side(peer.side, "peer_jobs", "download_and_warp", options, peer=True),
            Side(lazy.side, "ours", "open_prefetch_compute"),
        ),
        (
            Figure(
                "cold-tier",
                "open, prefetch and compute, cold, against the peer at the same tier",
                "All defaults on our side: the tier that they choose is the one that the peer is "
                "told. The peer: `DatasetDownloader(id, downsample_img=4)` and `df.warp(img)`.",
                "x",
                "at least",
                4,
                times_faster(lazy, peer),
                lazy,
                peer,
            ),
            Figure(
                "downloader",
                "DatasetDownloader(downsample_img=4).run() with df.warp, cold, against the "
                "peer's own run of the same",
                "The same lines of code on both sides, from a cold cache: `DatasetDownloader`, "
                "`fetch_metadata()`, `run()`, `df.warp(img)`.",
                "x",
                "at least",
                4,
                times_faster(ours, peer),
                ours,
                peer,
            ),
        ),
    )


def _warm() -> Contest:
    ours, peer = Part("tier=4, warm"), Part("peer, coarse tier, warm")
    defaults, again = Part("defaults, warm"), Part("open again")
    tier = given(tier=lambda bench, _: bench.service.coarse)
    options = given(options=lambda bench, _: {"downsample_img": bench.service.coarse})
    return Contest(
        "warm",
        (
            Side(ours.side, "ours", "warm_tier", tier),
            Side(peer.side, "peer_jobs", "warm_download_and_warp", options, peer=True),
            Side(defaults.side, "ours", "warm_defaults"),
            Side(again.side, "ours", "open_again", given(times=lambda *_: 11)),
        ),
        (
            Figure(
                "warm-defaults",
                "open, prefetch and compute from a warm cache, all defaults, against the peer from "
                "its warm cache",
                "Everything was read in the same process before the clock starts. The peer is told "
                "the tier that our defaults choose, and warps bilinearly, as it does by default.",
                "x",
                "at least",
                3,
                times_faster(defaults, peer),
                defaults,
                peer,
            ),
            Figure(
                "open-again",
                "opening a dataset again, all defaults",
                "`open_dataarray(id)` of 64 sections whose description is in the cache, in the "
                "same process: the median of 11 times. No request is made.",
                "ms",
                "at most",
                15,
                lambda runs, _: (
                    1e3 * statistics.median(lap.wall for lap in runs[again.side].laps.values())
                ),
                again,
            ),
            Figure(
                "warm",
                "tier=4 from a warm cache, lazy array, against the peer from its warm cache",
                "Everything was read once in the same process before the clock starts. Ours: "
                "`open_dataarray(id, tier=4, chunks=None).load()`. The peer: "
                "`DatasetDownloader(id, downsample_img=4)` and all that follows. Metadata are "
                "asked for again by the peer; we use the description that is kept.",
                "x",
                "at least",
                3,
                times_faster(ours, peer),
                ours,
                peer,
            ),
        ),
    )


def _square() -> Contest:
    square = given(
        section=lambda bench, _: bench.service.own_section,
        corner=lambda _, number: CORNERS[number % len(CORNERS)],
        side=lambda *_: 1000,
    )
    figures, sides = [], []
    for name, job, words in (
        ("square-region", "square_by_region", "cut out with `region=`"),
        ("square-lazy", "square_of_lazy_array", "selected from the array without dask"),
        ("square-dask", "square_of_dask_array", "selected from the default array"),
    ):
        part = Part(f"1 mm, {words}".replace("`", ""))
        sides.append(Side(part.side, "ours", job, square))
        figures.append(
            Figure(
                name,
                f"1 mm x 1 mm at 1 um from one section, {words.replace('`', '')}: pixels asked "
                "of the service, against the image's",
                f"One section at full resolution, {words}. Pixels that the server was asked for, "
                "over the pixels of the image. Each round takes another square; the worst is "
                "shown. What is asked of a service only once was asked before. The selection is "
                "one call of `sel`: of several in a row dask hands only the first to the reader, "
                "and what comes after it reads the whole chunk.",
                "%",
                "at most",
                3,
                _percent_asked(part),
                part,
                summary="worst",
            )
        )
    return Contest("square", tuple(sides), tuple(figures))


def _percent_asked(part: Part) -> Value:
    def value(runs: Mapping[str, Run], bench: Bench) -> float:
        image = bench.sizes.width * bench.sizes.height
        return 100 * runs[part.side].counts["served pixels"] / image

    return value


def _opening() -> Contest:
    some, many = Part("open 1,000"), Part("open 100,000")
    how = (
        "The rows are in memory as they come out of the JSON of an answer. The time covers "
        "building and checking the records, and `open_dataarray` with its defaults; no pixel is "
        "read."
    )
    return Contest(
        "opening",
        (
            Side(
                some.side,
                "scale",
                "open_many",
                given(sections=lambda bench, _: bench.sizes.graph_sections),
            ),
            Side(
                many.side,
                "scale",
                "open_many",
                given(sections=lambda bench, _: bench.sizes.many_sections),
            ),
        ),
        (
            Figure(
                "open-1000",
                "opening 1,000 sections, metadata answer in hand",
                how,
                "ms",
                "at most",
                50,
                lambda runs, _: 1e3 * some.wall(runs),
                some,
            ),
            Figure(
                "open-100000",
                "opening 100,000 sections, metadata answer in hand",
                how,
                "s",
                "at most",
                5,
                lambda runs, _: many.wall(runs),
                many,
            ),
        ),
    )


def _graph() -> Contest:
    graph = Part("graph of 1,000")
    return Contest(
        "graph",
        (
            Side(
                graph.side,
                "scale",
                "measure_graph",
                given(sections=lambda bench, _: bench.sizes.graph_sections),
            ),
        ),
        (
            Figure(
                "graph-bytes",
                "bytes of the graph per section, one section a chunk, 1,000 sections",
                '`len(cloudpickle.dumps(da.data.dask))` with `chunks={"section": 1}`, over the '
                "number of sections: what travels to a scheduler. The source itself weighs "
                "next to nothing here, as the source of a service does.",
                "bytes",
                "at most",
                150,
                lambda runs, _: (
                    runs[graph.side].counts["bytes"] / runs[graph.side].counts["sections"]
                ),
                graph,
            ),
            Figure(
                "graph-tasks",
                "tasks that dask.optimize leaves of one section",
                "Of `da.isel(section=k)` of the same array.",
                "tasks",
                "at most",
                2,
                lambda runs, _: runs[graph.side].counts["tasks"],
                graph,
            ),
        ),
        most_runs=1,
    )


def _pieces() -> Contest:
    mean, loop, zarr = Part("mean"), Part("plain loop"), Part("to Zarr")
    all_of_them = given(
        sections=lambda bench, _: bench.sizes.pieces_sections,
        microns=lambda bench, _: bench.sizes.pieces_microns,
    )
    some_of_them = given(
        sections=lambda bench, _: bench.sizes.zarr_sections,
        microns=lambda bench, _: bench.sizes.pieces_microns,
    )
    return Contest(
        "pieces",
        (
            Side(mean.side, "scale", "mean_of_pieces", all_of_them),
            Side(loop.side, "scale", "loop_over_pieces", all_of_them),
            Side(zarr.side, "scale", "write_pieces", some_of_them),
        ),
        (
            Figure(
                "mean-memory",
                "scalar mean over 100 sections at 1 um (27 GB), 2 threads: peak memory",
                "A source in memory, whose every image is one small JPEG (712 x 500 pixels of 16 "
                "um, so that it spans a whole section of 8000 x 11400 grid points): a piece costs "
                "decoding that, and the warp. `array.mean().compute()` on dask's two threads, in "
                "a fresh process; the peak is what the kernel says of the process from its start.",
                "GB",
                "at most",
                1.5,
                lambda runs, _: runs[mean.side].peak_bytes / _GB,
                mean,
            ),
            Figure(
                "mean-time",
                "the same mean, against a plain loop over the same pieces on two threads",
                "The plain loop takes the same pieces from two threads of its own: decode, one "
                "`warpAffine` with a constant border, sum as float64. It knows no coordinates, no "
                "coverage and no graph.",
                "x",
                "at most",
                1.3,
                times_as_long(mean, loop),
                mean,
                loop,
            ),
            Figure(
                "zarr-memory",
                "the same array streamed to Zarr, 2 threads: peak memory",
                "The first 20 of the sections (5.5 GB), with the defaults of `to_zarr`, to a "
                "local folder. Sections are written one after another: memory does not grow "
                "with their number.",
                "GB",
                "at most",
                1.5,
                lambda runs, _: runs[zarr.side].peak_bytes / _GB,
                zarr,
            ),
        ),
        most_runs=3,
    )


def _cluster() -> Contest:
    cluster, single = Part("cluster"), Part("single process")
    return Contest(
        "cluster",
        (
            Side(
                cluster.side,
                "cluster",
                "open_mean",
                given(workers=lambda bench, _: bench.sizes.workers),
            ),
            Side(single.side, "ours", "open_mean"),
        ),
        (
            Figure(
                "cluster-downloads",
                "dask.distributed, 4 processes, 64 sections, cold: downloads of one image",
                "`open_dataarray(id).mean('section').compute()` on a LocalCluster of four "
                "processes with one thread each, which share an empty cache folder. The most "
                "requests for one image that the server saw.",
                "download",
                "at most",
                1,
                lambda runs, _: runs[cluster.side].counts["served most"],
                cluster,
                summary="worst",
            ),
            Figure(
                "cluster-time",
                "the same, against a single process",
                "The workers are started, and have opened and averaged two small sections, before "
                "the clock starts; so has the single process. CPU seconds are those of the "
                "client and the workers together.",
                "x",
                "at most",
                1.5,
                times_as_long(cluster, single),
                cluster,
                single,
            ),
        ),
    )


def _warp() -> Contest:
    sides, figures = [], []
    for name, pixels, how in (("warp-linear", 1.4, "linear"), ("warp-area", 1.95, "area")):
        ours, plain = Part(f"warp, {how}"), Part(f"plain warp, {how}")
        settings: dict[str, Any] = {"pixels": pixels, "interpolation": how}
        sides += [
            Side(part.side, "warps", job, lambda bench, number, kept=settings: kept)
            for part, job in ((ours, "own"), (plain, "plain"))
        ]
        figures.append(
            Figure(
                name,
                f"64 colour images onto the grid of 25 um, {how}: processor time, against the "
                "same warp said plainly",
                f"Images of {pixels} pixels a grid step, in memory, on one thread, five times "
                "over. The plain warp takes the same tiles, samples three channels with one "
                "`warpAffine` each and fills the ends of rows. Both make the same pixels to the "
                "last bit, which a test holds.",
                "x",
                "at most",
                0.6,
                times_the_work(ours, plain),
                ours,
                plain,
            )
        )
    return Contest("warp", tuple(sides), tuple(figures))


CONTESTS = (
    _http(),
    _downloader(),
    _warm(),
    _square(),
    _opening(),
    _graph(),
    _pieces(),
    _warp(),
    _cluster(),
    volume_contest(),
    cached_contest(),
    cost_contest(),
)
"""All of them, in the order of the table."""
