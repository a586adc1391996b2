"""Displacement fields between planes of reference space and section images."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atldld.sampling.displacement import DisplacementField
from atldld.sampling.parallel import get_parallel_transform

EXTENT = {"p": 13200, "i": 8000, "r": 11400}
FREE = {"coronal": ("i", "r"), "sagittal": ("p", "i"), "transverse": ("p", "r")}
HELD = {"coronal": "p", "sagittal": "r", "transverse": "i"}


def matrices(rng):
    """Return plausible tvs and trv, none of whose entries is zero."""
    angle, zoom = rng.uniform(-0.6, 0.6), rng.uniform(0.5, 1.5)
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    tvs = np.array([[cos, sin, rng.uniform(-5e3, 5e3)], [-sin, cos, rng.uniform(-5e3, 5e3)]])
    trv = np.concatenate(
        [np.eye(3)[rng.permutation(3)] + rng.normal(0, 0.1, (3, 3)), rng.normal(0, 2e3, (3, 1))],
        axis=1,
    )
    return tvs, trv


@pytest.mark.parametrize("axis", FREE)
def test_rows_and_columns_are_the_free_axes_in_the_order_p_i_r(axis):
    tvs, trv = matrices(np.random.default_rng(3))
    rows, columns = FREE[axis]
    for step in (25, 100, 1000, 1001, 777):
        field = get_parallel_transform(4000, tvs, trv, axis, downsample_ref=step)
        assert field.shape == (EXTENT[rows] // step, EXTENT[columns] // step)


@given(
    seed=st.integers(0, 10**6),
    axis=st.sampled_from(sorted(FREE)),
    where=st.floats(-2000, 15000),
    step=st.integers(150, 1500),
    tier=st.integers(0, 8),
)
def test_every_point_goes_through_the_matrices(seed, axis, where, step, tier):
    tvs, trv = matrices(np.random.default_rng(seed))
    field = get_parallel_transform(where, tvs, trv, axis, step, tier)
    f_x, f_y = (part.tolist() for part in field.transformation)
    rows, columns = FREE[axis]
    for row, column in np.ndindex(field.shape):
        point = {HELD[axis]: where, rows: row * step, columns: column * step}
        p, i, r = (point[name] for name in "pir")
        v = [m[0] * p + m[1] * i + m[2] * r + m[3] for m in trv.tolist()[:2]]
        x, y = ((m[0] * v[0] + m[1] * v[1] + m[2]) / 2**tier for m in tvs.tolist())
        assert abs(f_x[row][column] - x) < 0.01
        assert abs(f_y[row][column] - y) < 0.01


def test_float32_enters_once():
    """The displacements are the float64 ones, rounded; the peer computes in float32."""
    tvs, trv = matrices(np.random.default_rng(4))
    field = get_parallel_transform(6600.123, tvs, trv, downsample_ref=200)
    rows, columns = np.mgrid[: field.shape[0], : field.shape[1]]
    point = np.stack([np.full(rows.shape, 6600.123), 200.0 * rows, 200.0 * columns])
    stack = np.tensordot(trv[:, :3], point, 1) + trv[:, 3][:, None, None]
    image = np.tensordot(tvs[:, :2], stack[:2], 1) + tvs[:, 2][:, None, None]
    for delta, exact in zip(
        (field.delta_x, field.delta_y), (image[0] - columns, image[1] - rows), strict=True
    ):
        assert np.all(np.abs(delta - exact) <= np.spacing(np.abs(delta)) / 2 + 1e-9)


def test_no_float64_array_of_the_size_of_the_field_is_made():
    tvs, trv = matrices(np.random.default_rng(5))
    get_parallel_transform(4000, tvs, trv, downsample_ref=100)
    tracemalloc.start()
    try:
        field = get_parallel_transform(4000, tvs, trv, downsample_ref=4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    both = field.delta_x.nbytes + field.delta_y.nbytes
    assert peak < 1.2 * both


def test_numpy_numbers_and_lists_are_numbers_and_matrices():
    tvs, trv = matrices(np.random.default_rng(6))
    field = get_parallel_transform(
        np.float32(4000), tvs.tolist(), trv.tolist(), "coronal", np.int64(500), np.uint8(1)
    )
    assert field == get_parallel_transform(4000, tvs, trv, "coronal", 500, 1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"axis": "axial"}, "'coronal', 'sagittal', 'transverse'"),
        ({"downsample_ref": 0}, "downsample_ref is 0; it must be a whole number of at least 1"),
        ({"downsample_ref": 2.5}, "downsample_ref is 2.5"),
        ({"downsample_img": -1}, "downsample_img is -1"),
        ({"downsample_img": 1.5}, "downsample_img is 1.5"),
        ({"slice_coordinate": np.nan}, "slice_coordinate is nan"),
        ({"slice_coordinate": [1, 2]}, "slice_coordinate has shape"),
        ({"affine_2d": np.eye(3)}, r"affine_2d has shape \(3, 3\)"),
        ({"affine_3d": np.eye(3)}, r"affine_3d has shape \(3, 3\)"),
        ({"affine_3d": np.full((3, 4), np.inf)}, "affine_3d is .*finite"),
    ],
)
def test_bad_arguments_are_named_with_the_remedy(wrong, said):
    good = {"slice_coordinate": 1.0, "affine_2d": np.eye(2, 3), "affine_3d": np.eye(3, 4)}
    with pytest.raises(ValueError, match=said):
        get_parallel_transform(**good | {"downsample_ref": 1000} | wrong)


def test_the_tolerance_covers_the_way_through_a_transformation():
    tvs, trv = matrices(np.random.default_rng(2))
    field = get_parallel_transform(4000, tvs, trv, downsample_ref=10)
    assert DisplacementField.from_transform(*field.transformation) == field
