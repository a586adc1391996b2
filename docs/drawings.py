"""Makes the drawings of ``docs/concepts.md``: ``python docs/drawings.py [FOLDER]``.

They are schemes, not data: tilts and gaps are exaggerated. Needs the extra ``plot``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("agg")
import matplotlib.pyplot as plt

IMAGES = Path(__file__).parent / "images"

INK = "#2b3440"
QUIET = "#8a96a3"
FIRST = "#c2571a"
SECOND = "#1f6f8b"
TISSUE = "#e7d9c4"
STYLE = {
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "svg.hashsalt": "atldld",
    "svg.fonttype": "path",
}
EXTENT = np.array([13.2, 8.0, 11.4])


def _bare(axes: Any) -> None:
    axes.set_aspect("equal")
    axes.set_axis_off()


def _arrow(axes: Any, start: Any, end: Any, color: str = INK, style: str = "-|>") -> None:
    axes.annotate(
        "", end, start, arrowprops={"arrowstyle": style, "color": color, "lw": 1.3, "shrinkA": 0,
                                    "shrinkB": 0},
    )  # fmt: skip


def _seen(p: Any, i: Any, r: Any) -> Any:
    """Return where a point of the space, in millimetres, is drawn: a cabinet projection."""
    p, i, r = np.broadcast_arrays(np.asarray(p, float), i, r)
    return np.stack([p + 0.42 * r, -i + 0.30 * r], axis=-1)


def _outline(brain: float = 1.0) -> tuple[Any, Any]:
    """Return a brain seen from the side: p and i in millimetres."""
    turn = np.linspace(0, 2 * np.pi, 200)
    p = 6.6 + brain * (5.7 * np.cos(turn) + 0.35 * np.cos(2 * turn))
    i = 4.0 + brain * (3.1 * np.sin(turn) + 0.3 * np.sin(2 * turn))
    return p, i


def reference_space() -> Any:
    """Draw the box of the space, its axes, and one plane of each cut."""
    figure, axes = plt.subplots(figsize=(7.2, 4.6))
    p, i, r = EXTENT
    for one in (0, i):
        for two in (0, r):
            axes.plot(*_seen([0, p], one, two).T, color=QUIET, lw=0.8)
    for one in (0, p):
        for two in (0, r):
            axes.plot(*_seen(one, [0, i], two).T, color=QUIET, lw=0.8)
        for two in (0, i):
            axes.plot(*_seen(one, two, [0, r]).T, color=QUIET, lw=0.8)
    coronal = _seen(8.4, [0, i, i, 0], [0, 0, r, r])
    sagittal = _seen([0, p, p, 0], [0, 0, i, i], 3.4)
    axes.fill(*sagittal.T, color=SECOND, alpha=0.22, lw=0)
    axes.fill(*coronal.T, color=FIRST, alpha=0.22, lw=0)
    axes.plot(*_seen(*_outline(), 3.4).T, color=SECOND, lw=1.4)
    turn = np.linspace(0, 2 * np.pi, 200)
    axes.plot(
        *_seen(8.4, 4 + 3.2 * np.sin(turn), 5.675 + 4.8 * np.cos(turn)).T, color=FIRST, lw=1.4
    )
    origin = _seen(0, 0, 0)
    for end, name, shift in (
        ((p + 1.4, 0, 0), "p  posterior\n13200 µm", (0.25, 0)),
        ((0, i + 1.4, 0), "i  inferior\n8000 µm", (0.3, -0.1)),
        ((0, 0, r + 2.4), "r  right\n11400 µm", (0.1, 0.35)),
    ):
        _arrow(axes, origin, _seen(*end))
        axes.text(*(_seen(*end) + shift), name, va="center", ha="left")
    axes.plot(*origin, "o", color=INK)
    axes.text(-0.3, 0.25, "origin: anterior,\nsuperior, left", ha="right", va="center")
    axes.text(*_seen(8.6, 8.55, 0), "coronal: one p", color=FIRST, ha="center")
    axes.text(*_seen(13.5, 5.6, 3.4), "sagittal: one r", color=SECOND, ha="left")
    axes.set(xlim=(-5.2, 22), ylim=(-10, 5.2))
    _bare(axes)
    return figure


def flip() -> Any:
    """Draw the same sagittal tissue in spaces 10 and 9, seen from above."""
    figure, rows = plt.subplots(2, 1, figsize=(7.2, 4.4), sharex=True, layout="constrained")
    turn = np.linspace(0, 2 * np.pi, 200)
    for axes, space, low, high in (
        (rows[0], 10, 2.0, 5.3),
        (rows[1], 9, 11.35 - 5.3, 11.35 - 2.0),
    ):
        axes.fill(5.675 + 4.9 * np.cos(turn), 0.95 * np.sin(turn), color=TISSUE, lw=0)
        axes.axvspan(low, high, 0.08, 0.92, color=SECOND, alpha=0.25, lw=0)
        inside = np.linspace(low, high, 12)
        axes.vlines(inside, -0.9, 0.9, color=SECOND, lw=0.9)
        marked = 3.365 if space == 10 else 11.35 - 3.365
        axes.vlines(marked, -1.0, 1.0, color=FIRST, lw=2)
        axes.text(marked, 1.05, f"r = {marked * 1000:.0f}", color=FIRST, ha="center", va="bottom")
        axes.axvline(5.675, color=INK, lw=0.9, ls=(0, (4, 3)))
        axes.set(ylim=(-1.15, 1.55), xlim=(0, 11.4), yticks=[])
        axes.set_title(f"space {space}", loc="left", fontsize=10.5, fontweight="bold")
        for side in ("left", "right", "top"):
            axes.spines[side].set_visible(False)
    rows[0].text(5.75, -1.08, "r = 5675, the same in both", ha="left", va="bottom", fontsize=9)
    rows[0].text(0.1, -1.1, "left", ha="left", va="bottom", color=QUIET)
    rows[0].text(11.3, -1.1, "right", ha="right", va="bottom", color=QUIET)
    rows[1].set_xlabel("r [mm]          r of space 9 = 11.350 - r of space 10")
    return figure


def mappings() -> Any:
    """Draw what oblique and parallel take from a tilted section, seen from the side."""
    figure, pair = plt.subplots(1, 2, figsize=(7.2, 4.9), sharey=True, layout="constrained")
    tilt = np.deg2rad(14)
    foot, at = np.array([6.6, 4.0]), np.linspace(1, 7, 7)
    for axes, name in zip(pair, ("oblique", "parallel"), strict=True):
        ends = np.array([-3.9, 3.9])
        axes.plot(foot[0] + ends * np.sin(tilt), foot[1] + ends * np.cos(tilt), color=FIRST, lw=2.4)
        axes.axvline(foot[0], color=SECOND, lw=1.2, ls=(0, (4, 3)))
        if name == "oblique":
            taken = np.stack([foot[0] + (at - foot[1]) * np.tan(tilt), at], axis=-1)
        else:
            along = (at - foot[1]) * np.cos(tilt)
            taken = foot + along[:, None] * np.array([np.sin(tilt), np.cos(tilt)])
        for i, point in zip(at, taken, strict=True):
            if abs(i - foot[1]) > 0.1:
                _arrow(axes, (foot[0], i), point, color=QUIET)
        axes.plot(np.full_like(at, foot[0]), at, "o", color=SECOND, ms=4)
        axes.plot(*taken.T, "s", color=FIRST, ms=4.5)
        axes.set(xlim=(3.4, 9.8), ylim=(8, 0), aspect="equal")
        axes.set_title(f'mapping="{name}"', fontsize=10.5, family="monospace")
    pair[0].set_ylabel("i [mm]")
    pair[0].set_xlabel("p [mm]\n\nalong p: i of each pixel is exact")
    pair[1].set_xlabel("p [mm]\n\nat a right angle to the section")
    pair[0].text(7.7, 6.6, "the section", color=FIRST, fontsize=9)
    pair[0].text(6.8, 0.6, "the p that stands for it", color=SECOND, fontsize=9)
    return figure


def tiers() -> Any:
    """Draw the pixel centres of three tiers over those of full resolution."""
    figure, axes = plt.subplots(figsize=(7.2, 2.9), layout="constrained")
    for tier, color in ((0, INK), (1, SECOND), (2, FIRST)):
        count, step = 17 >> tier, 2**tier
        places = np.arange(count) * step
        height = 2 - tier
        axes.hlines(height, -0.5, 16.5, color=QUIET, lw=0.7)
        axes.plot(places, np.full(count, height), "o", color=color, ms=6 + 3 * tier)
        axes.text(
            -1.2, height, f"tier {tier}: {count} pixels", ha="right", va="center", color=color
        )
    for column in range(0, 17, 4):
        axes.vlines(column, -0.1, 2.1, color=QUIET, lw=0.7, ls=":")
    axes.axvspan(15.5, 16.5, 0.04, 0.94, color=TISSUE, lw=0, zorder=0)
    axes.text(16.8, 0, "cut off\nby the floor", fontsize=8.5, va="center")
    axes.set(xlim=(-6, 20.5), ylim=(-0.55, 2.5), yticks=[], xticks=range(0, 17, 4))
    axes.set_xlabel("x, in full-resolution pixels")
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    return figure


def coverage() -> Any:
    """Draw the outline of a turned image over the grid of the space."""
    figure, axes = plt.subplots(figsize=(7.2, 3.7), layout="constrained")
    turn = np.deg2rad(9)
    middle, half = np.array([6.4, 3.9]), np.array([5.6, 2.9])
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    p, i = np.meshgrid(np.arange(0.4, 13.2, 0.4), np.arange(0.4, 8, 0.4))
    local = (np.stack([p, i], axis=-1) - middle) @ spin
    inside = (np.abs(local) <= half).all(axis=-1)
    corners = middle + (np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half) @ spin.T
    axes.fill(*corners.T, facecolor="none", edgecolor=FIRST, lw=1.8)
    axes.plot(p[inside], i[inside], "o", color=SECOND, ms=3.2, label="covered")
    axes.plot(
        p[~inside], i[~inside], "o", mfc="none", mec=QUIET, ms=3.2, mew=0.8, label="not covered"
    )
    axes.set(xlim=(0, 13.2), ylim=(8, 0), aspect="equal", xlabel="p [mm]", ylabel="i [mm]")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.13), ncols=2, frameon=False)
    return figure


def volume() -> Any:
    """Draw which section each voxel of a volume shows, seen from the side."""
    figure, axes = plt.subplots(figsize=(7.2, 3.9), layout="constrained")
    tilt = np.deg2rad(8)
    normal = np.array([np.cos(tilt), -np.sin(tilt)])
    depths = np.array([1.0, 2.2, 3.4, 4.6, 9.4, 10.6, 11.8])
    p, i = np.meshgrid(np.arange(0.4, 13.2, 0.4), np.arange(0.4, 8, 0.4))
    depth = p * normal[0] + (i - 4) * normal[1]
    distance = depth[..., None] - depths
    nearest = np.abs(distance).argmin(axis=-1)
    shown = np.abs(distance).min(axis=-1) <= 0.6
    colors = np.array([SECOND, FIRST])
    axes.scatter(p[shown], i[shown], s=15, color=colors[nearest[shown] % 2], alpha=0.65, lw=0)
    axes.plot(p[~shown], i[~shown], "o", mfc="none", mec=QUIET, ms=3, mew=0.7)
    ends = np.array([0.0, 8.0])
    for number, each in enumerate(depths):
        axes.plot((each - (ends - 4) * normal[1]) / normal[0], ends, color=colors[number % 2], lw=2)
    axes.text(
        7.15, 0.9, "too far\nfrom any section", ha="center", va="center", fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
    )  # fmt: skip
    axes.set(xlim=(0, 13.2), ylim=(8, 0), aspect="equal", xlabel="p [mm]", ylabel="i [mm]")
    return figure


def registrations() -> Any:
    """Draw what Allen's affine, an anchoring and a bent section may move."""
    figure, panels = plt.subplots(
        1, 3, figsize=(7.6, 3.1), layout="constrained", width_ratios=(13.2, 13.2, 11.4)
    )
    brain, ends = _outline(), np.array([0.3, 7.7])
    at = np.linspace(1.6, 11.6, 8)
    off = np.array([0.5, 0.22, 0.1, -0.06, 0.05, -0.1, -0.2, -0.55])
    tilt = np.deg2rad([9, 3, 6, 4, 7, 3, 5, 0])
    for axes, own in zip(panels[:2], (False, True), strict=True):
        axes.fill(*brain, color=TISSUE, lw=0)
        for number, where in enumerate(at):
            cut = where + off[number] + (ends - 4) * np.tan(tilt[number])
            axes.plot(cut, ends, color=QUIET, lw=1.0, ls=(0, (3, 2)))
            put = cut if own else where + (ends - 4) * np.tan(np.deg2rad(5))
            axes.plot(put, ends, color=FIRST if own else SECOND, lw=1.6, alpha=0.9)
        axes.set(xlim=(0, 13.2), ylim=(8.2, -0.2))
    panels[0].set_title("Allen's matrices", fontsize=10.5)
    panels[0].text(
        6.6, 8.3, "one affine: parallel,\nevenly spaced", ha="center", va="top", color=SECOND
    )
    panels[1].set_title("an anchoring", fontsize=10.5)
    panels[1].text(6.6, 8.3, "a plane for each section", ha="center", va="top", color=FIRST)
    axes = panels[2]
    turn = np.linspace(0, 2 * np.pi, 300)
    axes.fill(5.7 + 4.8 * np.cos(turn), 4 + 3.3 * np.sin(turn), color=TISSUE, lw=0)

    def bent(r: Any, i: Any) -> tuple[Any, Any]:
        swell = np.exp(-(((r - 7.6) / 2.4) ** 2) - ((i - 3.0) / 1.9) ** 2)
        return r + 0.75 * swell - 0.2 * np.sin(i), i + 0.55 * swell + 0.2 * np.sin(r * 0.8)

    fine = np.linspace(0, 1, 80)
    for share in np.linspace(0, 1, 9):
        for r, i in (
            (0.5 + 10.4 * share, 0.4 + 7.2 * fine),
            (0.5 + 10.4 * fine, 0.4 + 7.2 * share),
        ):
            r, i = np.broadcast_arrays(r, i)
            axes.plot(r, i, color=QUIET, lw=0.6)
            axes.plot(*bent(r, i), color=FIRST, lw=1.1)
    axes.set_title("a bent section", fontsize=10.5)
    axes.text(
        5.7, 8.3, "in its plane, a place\nfor every pixel", ha="center", va="top", color=FIRST
    )
    axes.set(xlim=(0, 11.4), ylim=(8.2, -0.2))
    for axes in panels:
        _bare(axes)
    return figure


DRAWINGS: dict[str, Callable[[], Any]] = {
    "space": reference_space,
    "flip": flip,
    "mappings": mappings,
    "tiers": tiers,
    "coverage": coverage,
    "volume": volume,
    "registrations": registrations,
}


def draw(folder: Path = IMAGES) -> None:
    """Write each drawing into a folder, as SVG."""
    folder.mkdir(exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, drawing in DRAWINGS.items():
            figure = drawing()
            figure.savefig(
                folder / f"concept-{name}.svg", bbox_inches="tight", metadata={"Date": None}
            )
            plt.close(figure)


if __name__ == "__main__":
    draw(*map(Path, sys.argv[1:2]))
