"""The contest of volumes, and the figures that are read off it."""

from __future__ import annotations

from .bench import Side
from .figures import Contest, Figure, Part, given, times_as_long, times_faster, times_the_work

_GB = 1e9


def volume_contest() -> Contest:
    """Return the contest of volumes."""
    cold, warm, zarr = Part("volume, cold"), Part("volume, warm"), Part("volume to Zarr")
    bare, bare_warm = Part("bare loop, cold"), Part("bare loop, warm")
    scipy, compiled = Part("scipy"), Part("compiled pass")
    linear = Part("volume, linear")
    tier = given(tier=lambda bench, _: bench.service.auto_tier)
    return Contest(
        "volume",
        (
            Side(cold.side, "volumes", "volume_cold"),
            Side(bare.side, "bare", "fetch_decode_warp", tier),
            Side(warm.side, "volumes", "volume_warm"),
            Side(bare_warm.side, "volumes", "bare_warm", tier),
            Side(scipy.side, "volumes", "map_coordinates", tier),
            Side(compiled.side, "volumes", "compiled", tier),
            Side(linear.side, "volumes", "volume_linear"),
            Side(zarr.side, "volumes", "volume_to_zarr"),
        ),
        (
            Figure(
                "volume-cold",
                "whole brain as a volume of 25 um (528 x 320 x 456 x 3) from 64 sections, cold, "
                "against the bare loop",
                "`open_volume(id, resolution=25)`, `.image.atlas.prefetch()`, `.image.compute()` "
                "on two threads. The bare loop is the one above: each of the 64 sections once "
                "onto one plane of 320 x 456, an eighth of the voxels.",
                "x",
                "at most",
                None,
                times_as_long(cold, bare),
                cold,
                bare,
            ),
            Figure(
                "volume-warm",
                "the volume of 25 um, warm, against decoding and warping each section once",
                "The bare side has the bodies in memory, and decodes and warps each of the 64 "
                "sections once, on two threads.",
                "x",
                "at most",
                None,
                times_as_long(warm, bare_warm),
                warm,
                bare_warm,
            ),
            Figure(
                "volume-scipy",
                "the volume of 25 um, warm, against scipy's map_coordinates of the same voxels",
                "`scipy.ndimage.map_coordinates`, order 1, plane by plane and section by section, "
                "on two threads, with decoded images in memory.",
                "x",
                "at least",
                8,
                times_faster(warm, scipy),
                warm,
                scipy,
            ),
            Figure(
                "volume-compiled",
                "the volume of 25 um, warm, processor time, against one compiled pass",
                "The pass is numba's, over the same voxels with the same values to a grey level: "
                "which section is nearest, its affine, three channels sampled linearly. Images "
                "are decoded in memory, and the compiling is left out. Ours opens, reads the "
                "cache, decodes and puts the chunks together as well.",
                "x",
                "at most",
                1.5,
                times_the_work(warm, compiled),
                warm,
                compiled,
            ),
            Figure(
                "volume-linear",
                "the volume blended between sections, processor time, against the nearest section",
                '`open_volume(id, resolution=25, between="linear").image.compute()` from a warm '
                "cache, and the same with the default.",
                "x",
                "at most",
                3,
                times_the_work(linear, warm),
                linear,
                warm,
            ),
            Figure(
                "volume-memory",
                "the volume streamed to Zarr, 2 threads: peak memory",
                "`volume[['image']].to_zarr(folder)` from a warm cache, in a fresh process.",
                "GB",
                "at most",
                1,
                lambda runs, _: runs[zarr.side].peak_bytes / _GB,
                zarr,
            ),
        ),
        most_runs=3,
    )
