"""Coverage of grid points against a twin that asks point by point."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atldld.sampling.reads import coverage

slopes = st.floats(-40, 40).filter(lambda value: value == 0 or abs(value) > 1e-6)
shifts = st.floats(-500, 500)


def twin(affine, size, rows, columns):
    mask = np.zeros((len(rows), len(columns)), dtype=bool)
    for a, v in enumerate(rows):
        for b, u in enumerate(columns):
            x = affine[0, 0] * u + (affine[0, 1] * v + affine[0, 2])
            y = affine[1, 0] * u + (affine[1, 1] * v + affine[1, 2])
            mask[a, b] = 0 <= x <= size[0] - 1 and 0 <= y <= size[1] - 1
    return mask


@given(
    st.tuples(slopes, slopes, shifts, slopes, slopes, shifts),
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(-9, 9),
)
def test_equals_the_twin_point_by_point(entries, width, height, first):
    affine = np.array(entries).reshape(2, 3)
    rows, columns = np.arange(first, first + 7), np.arange(first - 3, first + 11)
    found = coverage(affine, (width, height), rows, columns)
    expected = twin(affine, (width, height), rows, columns)
    np.testing.assert_array_equal(found.mask(columns), expected)
    assert found.any == expected.any()
    assert found.all == expected.all()


@pytest.mark.parametrize("step", [0.1, 0.3, 1 / 3, 7.7])
def test_points_on_the_border_are_covered(step):
    # x runs from 0 to exactly the last pixel in 10 steps.
    width = 1 + round(10 * step, 12)
    affine = np.array([[step, 0, 0], [0, 1, 0]])
    columns = np.arange(-2, 14)
    found = coverage(affine, (width, 3), np.arange(3), columns)
    np.testing.assert_array_equal(
        found.mask(columns), twin(affine, (width, 3), np.arange(3), columns)
    )


def test_half_a_pixel_beyond_the_last_is_not_covered():
    affine = np.array([[0.5, 0, 0], [0, 1, 0]])
    found = coverage(affine, (4, 4), np.array([0]), np.arange(9))
    assert found.mask(np.arange(9))[0].tolist() == [True] * 7 + [False] * 2


def test_rows_may_come_in_any_order_and_repeat():
    affine = np.array([[1.0, 0.5, -2], [0, 1, -1]])
    rows, columns = np.array([5, 0, 0, 3]), np.array([4, 1, 9, 1])
    found = coverage(affine, (6, 4), rows, columns)
    np.testing.assert_array_equal(found.mask(columns), twin(affine, (6, 4), rows, columns))


def test_no_columns_cover_nothing():
    found = coverage(np.eye(2, 3), (4, 4), np.arange(3), np.arange(0))
    assert not found.any


def test_ends_span_the_covered_points():
    affine = np.array([[2.0, 0.3, -3], [0.1, 2.0, -5]])
    rows, columns = np.arange(20), np.arange(20)
    mask = twin(affine, (17, 12), rows, columns)
    v, u = np.nonzero(mask)
    ends = coverage(affine, (17, 12), rows, columns).ends()
    # The extremes of an affine over a convex set of points lie at row ends.
    for row in affine:
        values = row[0] * u + row[1] * v + row[2]
        at_ends = row[:2] @ ends + row[2]
        assert np.isclose(at_ends.min(), values.min())
        assert np.isclose(at_ends.max(), values.max())
