"""Warping against scipy and numpy twins in float64, and value by value determinism."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from atldld.model.read import Window
from atldld.sampling.reads import coverage, needed_window
from atldld.sampling.warp import warp
from usual import usual

FAR = ((-(10**6), 10**6), (-(10**6), 10**6))


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def sample(image, affine, rows, columns, interpolation, *, fill=255, window=None, bounds=FAR):
    size = image.shape[1], image.shape[0]
    covered = coverage(affine, size, rows, columns)
    dtype = np.float32 if np.isnan(fill) else np.uint8
    out = np.empty((len(rows), len(columns), *image.shape[2:]), dtype=dtype)
    window = window or Window(0, 0, *size)
    part = image[window.top : window.bottom, window.left : window.right]
    warp(part, window, size, affine, covered, columns, bounds, interpolation, fill, out)
    return out, covered.mask(columns)


def twin(image, affine, rows, columns, order):
    u, v = np.meshgrid(columns.astype(float), rows.astype(float))
    x = affine[0, 0] * u + affine[0, 1] * v + affine[0, 2]
    y = affine[1, 0] * u + affine[1, 1] * v + affine[1, 2]
    channels = [
        map_coordinates(image[..., c].astype(float), [y, x], order=order, mode="nearest")
        for c in range(image.shape[2])
    ]
    return np.stack(channels, axis=-1)


def cubic_twin(image, affine, rows, columns, sharpness=-0.75):
    """Keys's cubic convolution with OpenCV's parameter, written out."""

    def kernel(t):
        t, a = np.abs(t), sharpness
        near = (a + 2) * t**3 - (a + 3) * t**2 + 1
        far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
        return np.where(t <= 1, near, np.where(t < 2, far, 0))

    u, v = np.meshgrid(columns.astype(float), rows.astype(float))
    x = affine[0, 0] * u + affine[0, 1] * v + affine[0, 2]
    y = affine[1, 0] * u + affine[1, 1] * v + affine[1, 2]
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    total = np.zeros((*x.shape, image.shape[2]))
    for dy in range(-1, 3):
        for dx in range(-1, 3):
            weight = kernel(x - left - dx) * kernel(y - top - dy)
            rows_ = np.clip(top + dy, 0, image.shape[0] - 1)
            columns_ = np.clip(left + dx, 0, image.shape[1] - 1)
            total += weight[..., None] * image[rows_, columns_]
    return np.clip(total, 0, 255)


TURNED = np.array([[1.21, 0.07, -40.3], [-0.05, 1.17, -33.9]])


@pytest.mark.parametrize("interpolation", ["linear", "cubic"])
def test_smooth_kernels_equal_float64_to_a_grey_level(interpolation):
    image = noise(400, 500)
    rows, columns = np.arange(0, 330), np.arange(20, 470)
    out, mask = sample(image, TURNED, rows, columns, interpolation)
    if interpolation == "linear":
        expected = twin(image, TURNED, rows, columns, order=1)
    else:
        expected = cubic_twin(image, TURNED, rows, columns)
    # Single precision moves a sample by up to a thousandth of a pixel: half a level of
    # rounding, and a quarter of one between neighbours that are 255 apart.
    assert np.abs(out[mask] - expected[mask]).max() < 0.8
    assert 0.2 < mask.mean() < 1
    assert (out[~mask] == 255).all()


def test_nearest_takes_the_nearest_pixel():
    image = noise(400, 500)
    affine = np.add(TURNED, [[0, 0, 0.0123], [0, 0, 0.0457]])
    rows, columns = np.arange(330), np.arange(450)
    out, mask = sample(image, affine, rows, columns, "nearest")
    u, v = np.meshgrid(columns.astype(float), rows.astype(float))
    x = affine[0, 0] * u + affine[0, 1] * v + affine[0, 2]
    y = affine[1, 0] * u + affine[1, 1] * v + affine[1, 2]
    clear = mask & (np.abs(x % 1 - 0.5) > 0.002) & (np.abs(y % 1 - 0.5) > 0.002)
    expected = image[np.round(y[clear]).astype(int), np.round(x[clear]).astype(int)]
    np.testing.assert_array_equal(out[clear], expected)


@pytest.mark.parametrize(("shift_x", "shift_y"), [(0.5, 0), (0, 0.5)])
def test_half_a_pixel_would_be_seen(shift_x, shift_y):
    image = noise(400, 500)
    rows, columns = np.arange(330), np.arange(450)
    out, mask = sample(image, TURNED, rows, columns, "linear")
    off = twin(image, np.add(TURNED, [[0, 0, shift_x], [0, 0, shift_y]]), rows, columns, order=1)
    assert np.abs(out[mask] - off[mask]).mean() > 10


@pytest.mark.parametrize("span", usual([2.0, 8.0, 1.6, 3.7, 23.3], 2))
def test_area_is_the_mean_over_a_step(span):
    rng = np.random.default_rng(1)
    image = noise(700, 900, seed=2)
    affine = np.array([[span, 0, rng.uniform(5, 20)], [0, span, rng.uniform(5, 20)]])
    rows, columns = np.arange(int(600 / span)), np.arange(int(800 / span))
    out, mask = sample(image, affine, rows, columns, "area")
    # The twin: the mean of many linear samples over the cell of each grid point.
    n = 4 * int(np.ceil(span))
    offsets = (np.arange(n) + 0.5) / n - 0.5
    fine_rows = (rows[:, None] + offsets).ravel()
    fine_columns = (columns[:, None] + offsets).ravel()
    fine = twin(image, affine, fine_rows, fine_columns, order=1)
    expected = fine.reshape(len(rows), n, len(columns), n, 3).mean(axis=(1, 3))
    inner = mask[1:-1, 1:-1]
    error = (out[1:-1, 1:-1] - expected[1:-1, 1:-1])[inner]
    # White noise is the hardest source: its standard deviation is 74 grey levels. The weights
    # of the two-step mean differ most from a plain mean where few pixels are averaged.
    assert np.sqrt((error**2).mean()) < 0.45 * expected[1:-1, 1:-1][inner].std()
    assert abs(error.mean()) < 0.3


def test_area_of_a_ramp_has_no_shift():
    ramp = np.broadcast_to(np.linspace(10, 240, 1200)[None, :, None], (900, 1200, 3))
    image = np.round(ramp).astype(np.uint8)
    affine = np.array([[7.3, 0.4, 30], [-0.3, 7.1, 40]])
    rows, columns = np.arange(5, 100), np.arange(5, 140)
    out, mask = sample(image, affine, rows, columns, "area")
    expected = twin(ramp, affine, rows, columns, order=1)
    error = (out - expected)[mask]
    assert abs(error.mean()) < 0.1  # half a pixel of the source is 0.1 grey levels here
    assert np.abs(error).max() < 1.1


@settings(max_examples=60)
@given(
    st.data(),
    st.sampled_from(["nearest", "linear", "cubic", "area"]),
    st.floats(0.2, 30),
    st.floats(-3.1, 3.1),
)
def test_a_value_does_not_depend_on_what_else_is_asked_for(data, interpolation, span, angle):
    image = noise(300, 420)
    turn = span * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([210.0, 150.0]) - turn @ [30, 20]
    affine = np.column_stack([turn, middle])
    bounds = ((-20, 61), (-10, 90))
    rows, columns = np.arange(*bounds[0]), np.arange(*bounds[1])
    every, _ = sample(image, affine, rows, columns, interpolation, bounds=bounds)
    picked_rows = np.array(data.draw(st.lists(st.sampled_from(range(81)), min_size=1, max_size=9)))
    first = data.draw(st.integers(0, 99))
    picked_columns = np.arange(first, data.draw(st.integers(first + 1, 100)))
    covered = coverage(affine, (420, 300), rows[picked_rows], columns[picked_columns])
    window = needed_window(affine, covered, (420, 300), interpolation)
    some, _ = sample(
        image,
        affine,
        rows[picked_rows],
        columns[picked_columns],
        interpolation,
        window=window or Window(0, 0, 1, 1),
        bounds=bounds,
    )
    np.testing.assert_array_equal(some, every[np.ix_(picked_rows, picked_columns)])


def test_fill_is_exact_outside_and_none_of_it_bleeds_inside():
    image = np.full((90, 120, 3), 7, dtype=np.uint8)
    affine = np.array([[0.31, 0.02, -5.2], [-0.03, 0.29, -6.1]])
    rows, columns = np.arange(420), np.arange(470)
    for interpolation in ("nearest", "linear", "cubic", "area"):
        out, mask = sample(image, affine, rows, columns, interpolation, fill=200)
        assert (out[mask] == 7).all()
        assert (out[~mask] == 200).all()
        assert 0.5 < mask.mean() < 1


def test_nan_is_the_fill_of_float():
    image = noise(50, 60)
    rows, columns = np.arange(-5, 60), np.arange(-5, 70)
    out, mask = sample(image, np.eye(2, 3), rows, columns, "linear", fill=np.nan)
    np.testing.assert_array_equal(np.isnan(out), np.repeat(~mask[..., None], 3, axis=2))
    np.testing.assert_array_equal(out[mask], image.reshape(-1, 3))


def test_images_of_any_side_work():
    image = np.zeros((40, 40_000, 3), dtype=np.uint8)
    image[:, 33_000:] = 200
    rows, columns = np.arange(40), np.arange(0, 400)
    for interpolation in ("nearest", "linear", "cubic", "area"):
        affine = np.array([[100.0, 0, 0], [0, 1, 0]])
        out, mask = sample(image, affine, rows, columns, interpolation)
        assert mask.all()
        assert (out[:, :329] == 0).all()
        assert (out[:, 332:] == 200).all()


def test_grey_images_have_no_channels():
    image = noise(50, 60)[..., 0]
    out, mask = sample(image, np.eye(2, 3), np.arange(50), np.arange(60), "linear")
    np.testing.assert_array_equal(out, image)
    assert mask.all()


def test_reversed_and_repeated_grid_points():
    image = noise(90, 80)
    rows, columns = np.array([40, 3, 3, 70]), np.arange(79, -1, -1)
    out, _ = sample(image, np.eye(2, 3), rows, columns, "linear")
    np.testing.assert_array_equal(out, image[rows][:, columns])


def test_at_the_far_border_the_nearest_tier_pixel_stands_for_what_the_floor_cut_off():
    # 15 pixels halved twice are 3; full-resolution pixel 14 is tier pixel 3.5.
    image = np.arange(3, dtype=np.uint8)[None].repeat(3, axis=0) * 100
    covered = coverage(np.eye(2, 3), (15, 15), np.arange(15), np.arange(15))
    out = np.empty((15, 15), dtype=np.uint8)
    affine = np.array([[0.25, 0, 0], [0, 0.25, 0]])
    warp(image, Window(0, 0, 3, 3), (3, 3), affine, covered, np.arange(15), FAR, "linear", 255, out)
    assert (out[0] == np.minimum(np.round(np.arange(15) / 4 * 100), 200)).all()
