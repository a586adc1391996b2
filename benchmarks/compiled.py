"""One compiled pass over the voxels of a volume that does nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .measure import NotAvailableError


def compiled_pass() -> Any:
    """Return the pass, compiled when it is first called.

    It takes decoded images (sections, rows, columns, 3), the affines from p, i, r, 1 to their
    pixels (sections, 2, 4), the row of the matrix that gives z (4,), z of the sections (ascending),
    how far a section shows, the step, and the volume (p, i, r, 3) to fill: the nearest section in
    z, the lower one on a tie, sampled linearly where it covers the voxel.

    Raises
    ------
    NotAvailableError
        If numba is not there.
    """
    try:
        import numba
    except ImportError as error:
        raise NotAvailableError("numba") from error

    @numba.njit(nogil=True)  # type: ignore[untyped-decorator]  # numba has no types
    def fill(
        images: npt.NDArray[np.uint8],
        onto: npt.NDArray[np.float64],
        row: npt.NDArray[np.float64],
        sections: npt.NDArray[np.float64],
        reach: float,
        step: float,
        out: npt.NDArray[np.uint8],
    ) -> None:
        height, width = images.shape[1], images.shape[2]
        for a in range(out.shape[0]):
            for b in range(out.shape[1]):
                j = 0
                for c in range(out.shape[2]):
                    p, i, r = a * step, b * step, c * step
                    z = row[0] * p + row[1] * i + row[2] * r + row[3]
                    while j + 1 < len(sections) and z - sections[j] > sections[j + 1] - z:
                        j += 1
                    while j > 0 and z - sections[j - 1] <= sections[j] - z:
                        j -= 1
                    if abs(z - sections[j]) > reach:
                        continue
                    m = onto[j]
                    x = m[0, 0] * p + m[0, 1] * i + m[0, 2] * r + m[0, 3]
                    y = m[1, 0] * p + m[1, 1] * i + m[1, 2] * r + m[1, 3]
                    if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
                        continue
                    left, top = min(int(x), width - 2), min(int(y), height - 2)
                    along, down = x - left, y - top
                    for k in range(3):
                        upper = images[j, top, left, k] * (1 - along)
                        upper += images[j, top, left + 1, k] * along
                        lower = images[j, top + 1, left, k] * (1 - along)
                        lower += images[j, top + 1, left + 1, k] * along
                        out[a, b, c, k] = np.uint8(upper * (1 - down) + lower * down + 0.5)

    return fill
