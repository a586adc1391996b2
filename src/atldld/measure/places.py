"""Points as users give them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..model.space import AXES


def points_array(points: Any) -> npt.NDArray[np.float64]:
    """Return p, i, r of points as an array of shape (N, 3), float64.

    Parameters
    ----------
    points
        Shape (N, 3), or (3,) for one point; or a pandas frame with the columns p, i and r.

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    >>> points_array([6600, 4000, 3400])
    array([[6600., 4000., 3400.]])
    """
    if isinstance(points, pd.DataFrame):
        missing = [axis for axis in AXES if axis not in points.columns]
        if missing:
            raise ValueError(f"points lack the columns {', '.join(missing)}")
        points = points[list(AXES)].to_numpy(dtype=np.float64)
    array = np.asarray(points, dtype=np.float64)
    if array.shape == (3,):
        array = array[None]
    if array.size == 0:
        array = array.reshape(0, 3)
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(
            f"points have shape {array.shape}; they must be (N, 3): a row of p, i, r each"
        )
    return array
