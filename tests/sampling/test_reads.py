"""Which tier and which window: numbers in, numbers out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atldld.model.read import Window
from atldld.sampling.reads import (
    LATTICE,
    choose_interpolation,
    choose_tiers,
    choose_window,
    coverage,
    needed_window,
    step_pixels,
)


@given(st.floats(0.05, 50), st.integers(1, 12), st.floats(0.1, 400))
def test_automatic_tier_is_the_coarsest_that_is_not_coarser_than_the_grid(microns, count, step):
    (tier,) = choose_tiers("auto", np.array([microns]), np.array([count], dtype=np.int16), step)
    assert 0 <= tier < count
    if tier > 0:
        assert microns * 2.0**tier <= step * (1 + 1e-6)
    if tier < count - 1:
        assert microns * 2.0 ** (tier + 1) > step * (1 - 1e-6)


def test_a_pixel_as_large_as_the_step_is_not_larger():
    counts = np.array([9], dtype=np.int16)
    assert choose_tiers("auto", np.array([25 / 16]), counts, 25.0) == [4]
    assert choose_tiers("auto", np.array([25 / 16 + 1e-6]), counts, 25.0) == [3]


@pytest.mark.parametrize("tier", [0, 3, 6, 30, 10**6])
def test_no_tier_beyond_the_last(tier):
    counts = np.array([1, 4, 7], dtype=np.int16)
    assert choose_tiers(tier, np.ones(3), counts, 25.0).tolist() == [
        min(tier, count - 1) for count in (1, 4, 7)
    ]


def test_automatic_interpolation_averages_where_a_step_spans_much():
    def turned(span):
        return span * np.array([[0.6, -0.8, 0], [0.8, 0.6, 0]])

    assert step_pixels(turned(3.0)) == pytest.approx(3.0)
    assert choose_interpolation("auto", turned(1.49)) == "linear"
    assert choose_interpolation("auto", turned(1.51)) == "area"
    assert choose_interpolation("cubic", turned(9.0)) == "cubic"


entries = st.tuples(*[st.floats(-4, 4)] * 2, st.floats(-300, 300)).filter(lambda row: any(row[:2]))


@given(entries, entries, st.sampled_from(["nearest", "linear", "cubic", "area"]))
def test_the_window_holds_every_pixel_that_a_covered_point_can_touch(row_x, row_y, interpolation):
    affine = np.array([row_x, row_y])
    size = 250, 180
    rows, columns = np.arange(-30, 60), np.arange(-20, 90)
    covered = coverage(affine, size, rows, columns)
    window = needed_window(affine, covered, size, interpolation)
    if not covered.any:
        assert window is None
        return
    v, u = np.nonzero(covered.mask(columns))
    u, v = columns[u], rows[v]
    x = affine[0, 0] * u + affine[0, 1] * v + affine[0, 2]
    y = affine[1, 0] * u + affine[1, 1] * v + affine[1, 2]
    reach = {"nearest": 0.5, "linear": 1, "cubic": 2, "area": step_pixels(affine) / 2 + 1}
    for values, first, past, side in (
        (x, window.left, window.right, size[0]),
        (y, window.top, window.bottom, size[1]),
    ):
        needed = np.arange(
            max(np.ceil(values.min() - reach[interpolation]), 0),
            min(np.floor(values.max() + reach[interpolation]), side - 1) + 1,
        )
        assert first <= needed[0]
        assert needed[-1] < past
        assert 0 <= first < past <= side


def test_a_window_beyond_the_image_is_refused():
    with pytest.raises(ValueError, match="not within an image of 10 x 10"):
        choose_window(Window(5, 5, 6, 1), (10, 10))


class TestChoice:
    size = (10_000, 7_600)

    def test_edges_lie_on_a_lattice_and_at_the_border(self):
        window = choose_window(Window(300, 10, 900, 700), self.size)
        assert window == Window(256, 0, 1024, 768)
        window = choose_window(Window(9_900, 7_590, 100, 10), self.size)
        assert (window.right, window.bottom) == self.size
        assert window.left % LATTICE == window.top % LATTICE == 0

    def test_small_images_are_read_whole(self):
        assert choose_window(Window(3, 3, 10, 10), (1024, 1024)) is None

    def test_most_of_an_image_is_all_of_it_unless_it_is_large(self):
        size = 6_000, 5_000
        assert choose_window(Window(0, 0, 5_000, 4_000), size) is None
        window = choose_window(Window(0, 0, 9_000, 7_000), self.size)
        assert window == Window(0, 0, 9_216, 7_168)
        assert choose_window(Window(0, 0, *self.size), self.size) is None

    def test_what_is_at_hand_serves(self):
        needed = Window(300, 300, 200, 200)
        larger, larger_still = Window(256, 256, 512, 512), Window(0, 0, 2_000, 2_000)
        assert choose_window(needed, self.size, {larger_still, larger}) == larger
        assert choose_window(needed, self.size, {larger, None}) is None
        assert choose_window(Window(0, 0, 30, 30), self.size, {larger}) == Window(0, 0, 256, 256)
