"""A displacement field: where each point of a grid finds its pixel in an image."""

from __future__ import annotations

import numbers
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .remap import remap

Floats = npt.NDArray[np.float32]


class DisplacementField:
    """Where each point of a grid finds its pixel in an image.

    Grid point (row, column) shows the image at ``x = column + delta_x[row, column]``,
    ``y = row + delta_y[row, column]``. Whole numbers are pixel centres; (0, 0) is the top left
    pixel, x runs right and y runs down.

    Parameters
    ----------
    delta_x, delta_y
        Shape (h, w), pixels; kept as float32.

    Raises
    ------
    ValueError
        If the two are not two-dimensional, of one shape, and finite.

    Examples
    --------
    >>> import numpy as np
    >>> field = DisplacementField(np.full((2, 3), 1.0), np.zeros((2, 3)))
    >>> field
    <DisplacementField of 2 x 3 points: x by 1 to 1, y by 0 to 0 pixels>
    >>> field.warp(np.array([[1, 2, 3, 4], [5, 6, 7, 8]], dtype=np.uint8))
    array([[2, 3, 4],
           [6, 7, 8]], dtype=uint8)
    >>> (0.5 * field).delta_x[0, 0]
    np.float32(0.5)
    """

    __hash__ = None  # type: ignore[assignment]  # equality within a tolerance has no hash
    __array_ufunc__ = None
    """Tells numpy to leave ``number * field`` to the field."""

    def __init__(self, delta_x: npt.ArrayLike, delta_y: npt.ArrayLike) -> None:
        self.delta_x = _float32(delta_x, "delta_x")
        self.delta_y = _float32(delta_y, "delta_y")
        if self.delta_x.shape != self.delta_y.shape:
            raise ValueError(
                f"delta_x has shape {self.delta_x.shape} and delta_y {self.delta_y.shape}; "
                "they must be of one shape"
            )

    @classmethod
    def from_transform(cls, f_x: npt.ArrayLike, f_y: npt.ArrayLike) -> DisplacementField:
        """Build a field from the image coordinates of each grid point.

        Parameters
        ----------
        f_x, f_y
            Shape (h, w): x and y in the image, in pixels; what `transformation` returns.

        Raises
        ------
        ValueError
            If the two are not two-dimensional, of one shape, and finite.
        """
        x, y = np.asarray(f_x), np.asarray(f_y)
        for name, values in (("f_x", x), ("f_y", y)):
            _check_plane(values, name)
        columns = np.arange(x.shape[1], dtype=np.float64)
        rows = np.arange(y.shape[0], dtype=np.float64)[:, None]
        return cls(_difference(x, columns), _difference(y, rows))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        rows, columns = self.delta_x.shape
        return rows, columns

    @property
    def transformation(self) -> tuple[Floats, Floats]:
        """Image coordinates ``f_x, f_y`` of each grid point: shape (h, w), pixels, float32."""
        height, width = self.shape
        columns: Floats = np.arange(width, dtype=np.float32)
        rows: Floats = np.arange(height, dtype=np.float32)[:, None]
        return self.delta_x + columns, self.delta_y + rows

    @property
    def norm(self) -> Floats:
        """Length of each displacement: shape (h, w), pixels, float32."""
        return np.hypot(self.delta_x, self.delta_y)

    def warp(
        self,
        img: npt.ArrayLike,
        interpolation: str = "linear",
        border_mode: str = "constant",
        c: npt.ArrayLike = 0,
    ) -> npt.NDArray[Any]:
        """Sample an image on the grid.

        Parameters
        ----------
        img
            Shape (rows, columns) or (rows, columns, channels), of any size, not necessarily
            that of the grid. uint8, uint16, int16, float32, and through float32 or a wider type
            int8, float16 and float64. Other integers and booleans with ``"nearest"`` only.
        interpolation
            ``"nearest"`` (halves go to the even pixel), ``"linear"``, ``"cubic"``, ``"area"``
            (points have no area: it samples linearly) or ``"lanczos"`` (8 x 8 pixels; points
            count in 1/32 of a pixel).
        border_mode
            What lies beyond the image ``abcd``: ``"constant"`` (`c`), ``"replicate"``
            (``aaa|abcd|ddd``), ``"reflect"`` (``cba|abcd|dcb``), ``"wrap"`` (``bcd|abcd|abc``),
            ``"reflect_101"`` (``dcb|abcd|cba``) or ``"transparent"`` (nothing: zeros).
        c
            The value of ``"constant"``: a number for every channel, or one value a channel.
            Rounded and clipped to what the type of `img` holds. Within a kernel's reach of the
            border it blends with the image, unless it is not finite: then points outside the
            outermost pixel centres have it, and the others nothing of it.

        Returns
        -------
        warped
            Shape (h, w) or (h, w, channels), type of `img`.

        Raises
        ------
        ValueError
            If a name is not known, or `img` or `c` has no usable shape or value.
        TypeError
            If the type of `img` cannot be interpolated in this way.
        """
        return remap(
            img,
            self.delta_x,
            self.delta_y,
            interpolation=interpolation,
            border_mode=border_mode,
            c=c,
        )

    def save(self, path: str | Path) -> None:
        """Write the field to a ``.npy`` file: shape (h, w, 2), delta_x before delta_y.

        Raises
        ------
        ValueError
            If `path` does not end in ``.npy``.
        """
        np.save(_npy(path), np.stack([self.delta_x, self.delta_y], axis=-1), allow_pickle=False)

    @classmethod
    def from_file(cls, path: str | Path) -> DisplacementField:
        """Read a field that `save` wrote. Nothing is unpickled.

        Raises
        ------
        ValueError
            If the file holds no array of numbers of shape (h, w, 2), or if `path` does not end
            in ``.npy``.
        """
        file = _npy(path)
        try:
            # Mapped, so that a header cannot promise more than the file holds.
            values = np.lib.format.open_memmap(file, mode="r")
        except OSError:
            raise
        except Exception as error:  # whatever numpy raises over a header it cannot read
            raise ValueError(f"{file} holds no displacement field: {error}") from error
        if values.ndim != 3 or values.shape[2] != 2 or values.dtype.kind not in "biuf":
            raise ValueError(
                f"{file} holds {values.dtype} of shape {values.shape}; a displacement field is "
                "real numbers of shape (h, w, 2)"
            )
        return cls(np.array(values[..., 0]), np.array(values[..., 1]))

    def __mul__(self, factor: Any) -> DisplacementField:
        if not isinstance(factor, numbers.Real):
            return NotImplemented
        scale = np.float32(factor)
        return DisplacementField(self.delta_x * scale, self.delta_y * scale)

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        """Whether both displace by the same, to 1e-3 pixels and 1e-5 of the displacement.

        Coordinates are rounded to that by float32 at the far end of a large section image.
        """
        if not isinstance(other, DisplacementField):
            return NotImplemented
        return self.shape == other.shape and all(
            np.allclose(mine, its, rtol=1e-5, atol=1e-3)
            for mine, its in ((self.delta_x, other.delta_x), (self.delta_y, other.delta_y))
        )

    def __repr__(self) -> str:
        rows, columns = self.shape
        spans = [
            f"{axis} by {delta.min():.6g} to {delta.max():.6g}"
            for axis, delta in (("x", self.delta_x), ("y", self.delta_y))
            if delta.size
        ]
        moved = f": {', '.join(spans)} pixels" if spans else ""
        return f"<DisplacementField of {rows} x {columns} points{moved}>"


def _difference(values: npt.NDArray[Any], grid: npt.NDArray[np.float64]) -> Floats:
    out = np.empty(values.shape, dtype=np.float32)
    with np.errstate(over="ignore"):
        np.subtract(values, grid, out=out, casting="same_kind")
    return out


def _check_plane(values: npt.NDArray[Any], name: str) -> None:
    if values.ndim != 2:
        raise ValueError(f"{name} has shape {values.shape}; it must be two-dimensional")
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds {values.dtype}; it must hold real numbers")


def _float32(delta: npt.ArrayLike, name: str) -> Floats:
    values = np.asarray(delta)
    _check_plane(values, name)
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, copy=False)
    # The two ends tell, and take no array as large as the field.
    if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
        raise ValueError(f"{name} holds values that are not finite in float32")
    return values


def _npy(path: str | Path) -> Path:
    file = Path(path)
    if file.suffix != ".npy":
        raise ValueError(f"{file} does not end in .npy")
    return file
