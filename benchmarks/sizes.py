"""How large everything is: as the figures say, or small enough for a test."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Sizes of what is measured.

    Parameters
    ----------
    sections
        Sections of the dataset that is served over HTTP.
    width, height
        Of each of them, in full-resolution pixels.
    microns
        Stack microns of a full-resolution pixel.
    coarse
        The tier that is asked for by number.
    distinct
        How many sections have a full-resolution body of their own; the others are sent the
        body of one of these.
    latency
        Seconds before each answer of the server.
    graph_sections, many_sections
        Sections of the datasets that are opened without any pixel.
    pieces_sections, pieces_microns
        Sections, and microns between grid points, of the dataset that is reduced.
    zarr_sections
        How many of them are written to Zarr.
    workers
        Processes of the dask.distributed cluster.
    """

    sections: int
    width: int
    height: int
    microns: float
    coarse: int
    distinct: int
    latency: float
    graph_sections: int
    many_sections: int
    pieces_sections: int
    pieces_microns: float
    zarr_sections: int
    workers: int


FULL = Sizes(
    sections=64,
    width=10_000,
    height=7_600,
    microns=1.05,
    coarse=4,
    distinct=8,
    latency=0.05,
    graph_sections=1_000,
    many_sections=100_000,
    pieces_sections=100,
    pieces_microns=1.0,
    zarr_sections=20,
    workers=4,
)

QUICK = Sizes(
    sections=6,
    width=2_500,
    height=1_900,
    microns=4.2,
    coarse=3,
    distinct=2,
    latency=0.005,
    graph_sections=100,
    many_sections=200,
    pieces_sections=3,
    pieces_microns=10.0,
    zarr_sections=2,
    workers=2,
)
