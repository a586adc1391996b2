"""Grid points: whole multiples of the step, whatever is cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atldld.model.grid import Axis, Grid

steps = st.floats(0.05, 900)


@pytest.mark.parametrize(("step", "count"), [(25, 528), (10, 1320), (30, 440), (0.1, 132_000)])
def test_as_many_points_as_whole_steps_fit(step, count):
    axis = Axis.spanning(0.0, 13200.0, step)
    assert axis.count == count
    assert axis.microns[0] == 0


@given(steps)
def test_points_are_multiples_of_the_step_within_the_extent(step):
    axis = Axis.spanning(0.0, 13200.0, step)
    assert axis.count == max(int(np.floor(13200.0 / step + 1e-9)), 1)
    np.testing.assert_array_equal(axis.microns, np.arange(axis.count) * step)


@given(steps, st.integers(-50, 300), st.integers(0, 300))
def test_ends_of_a_cut_are_included(step, first, more):
    axis = Axis.spanning(-20 * step, 200 * step, step)
    low, high = first * step, (first + more) * step
    cut = axis.cut(low, high)
    expected = [k for k in axis.numbers if first <= k <= first + more]
    assert cut.numbers.tolist() == expected
    assert cut.lattice == axis.lattice


@given(steps, st.floats(-1e5, 1e5), st.floats(0, 1e5))
def test_a_cut_takes_what_lies_between_its_ends(step, low, width):
    axis = Axis.spanning(0.0, 8000.0, step)
    cut = axis.cut(low, low + width)
    inside = (axis.microns >= low) & (axis.microns <= low + width)
    # A point on an end may fall to either side of it by rounding.
    near = np.isclose(axis.microns, low, atol=1e-4)
    near |= np.isclose(axis.microns, low + width, atol=1e-4)
    chosen = np.isin(axis.numbers, cut.numbers)
    assert (chosen == inside)[~near].all()


def test_a_region_without_points_says_where_they_lie():
    axes = Axis.spanning(0.0, 8000.0, 25.0), Axis.spanning(0.0, 11400.0, 25.0)
    grid = Grid(("i", "r"), axes)
    with pytest.raises(ValueError, match=r"i=\(8100, 9000\).*from 0 to 7975 microns, 25 apart"):
        grid.cut({"i": (8100.0, 9000.0)})


def test_too_many_points_are_refused():
    with pytest.raises(ValueError, match="use a larger resolution"):
        Axis.spanning(0.0, 13200.0, 1e-4)
