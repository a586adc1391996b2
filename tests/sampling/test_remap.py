"""Sampling at displaced points, against float64 kernels written out."""

from __future__ import annotations

import numpy as np
import pytest

from atldld.sampling.displacement import DisplacementField
from atldld.sampling.remap import BORDER_MODES, INTERPOLATIONS

BORDERS = tuple(mode for mode in BORDER_MODES if mode != "transparent")


def pixel(img, row, column, mode, c):
    """Return one pixel of an image that goes on beyond its border."""
    height, width = img.shape
    if mode == "constant":
        inside = 0 <= row < height and 0 <= column < width
        return float(img[row, column]) if inside else float(c)
    return float(img[beyond(row, height, mode), beyond(column, width, mode)])


def beyond(index, size, mode):
    if mode == "replicate":
        return min(max(index, 0), size - 1)
    if mode == "wrap":
        return index % size
    if mode == "reflect":
        index %= 2 * size
        return min(index, 2 * size - 1 - index)
    if size == 1:
        return 0
    index %= 2 * size - 2
    return min(index, 2 * size - 2 - index)


def kernel(interpolation, fraction):
    """Return {offset from the pixel below: weight} along one axis."""
    if interpolation == "nearest":
        return {0: 1.0} if fraction < 0.5 else {1: 1.0}
    if interpolation in ("linear", "area"):
        return {0: 1 - fraction, 1: fraction}
    if interpolation == "cubic":
        a = -0.75
        weights = {}
        for offset in (-1, 0, 1, 2):
            t = abs(offset - fraction)
            weights[offset] = (
                (a + 2) * t**3 - (a + 3) * t**2 + 1
                if t <= 1
                else a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
            )
        return weights
    fraction = round(fraction * 32) / 32
    weights = {
        offset: np.sinc(offset - fraction) * np.sinc((offset - fraction) / 4)
        for offset in range(-3, 5)
    }
    total = sum(weights.values())
    return {offset: weight / total for offset, weight in weights.items()}


def sample(img, x, y, interpolation, mode, c):
    """Sample one channel at points, one by one."""
    out = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        column, row = int(np.floor(x[place])), int(np.floor(y[place]))
        across = kernel(interpolation, float(x[place]) - column)
        down = kernel(interpolation, float(y[place]) - row)
        out[place] = sum(
            wy * wx * pixel(img, row + dy, column + dx, mode, c)
            for dy, wy in down.items()
            for dx, wx in across.items()
        )
    return out


def points(rng, shape, size, spread=2.0):
    """Return points over `spread` times the image to either side, off the halves."""
    height, width = size
    x = rng.uniform(-spread * width, (1 + spread) * width, shape)
    y = rng.uniform(-spread * height, (1 + spread) * height, shape)
    return tuple(np.round(v * 64) / 64 + 1 / 128 for v in (x, y))


def levels(img, expected):
    if img.dtype.kind in "iu":
        ends = np.iinfo(img.dtype)
        return np.clip(np.rint(expected), ends.min, ends.max)
    return expected


@pytest.mark.parametrize("border_mode", BORDERS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [(9, 12), (1, 5), (2, 1)])
def test_every_kernel_and_border_is_what_its_name_says(size, interpolation, border_mode):
    rng = np.random.default_rng(1)
    x, y = points(rng, (12, 9), size)
    field = DisplacementField.from_transform(x, y)
    for dtype in (np.uint8, np.float32, np.uint16, np.int16, np.float64, np.float16, np.int8):
        img = rng.integers(0, 100, size).astype(dtype)
        warped = field.warp(img, interpolation, border_mode, c=33)
        assert warped.dtype == dtype
        expected = levels(img, sample(img, x, y, interpolation, border_mode, 33))
        tolerance = {"nearest": 0, "lanczos": 2.1}.get(interpolation, 1.01)
        if img.dtype.kind == "f" and interpolation not in ("nearest", "lanczos"):
            tolerance = 0.1 if dtype == np.float16 else 1e-3
        np.testing.assert_allclose(warped, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("border_mode", BORDERS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_points_far_away_follow_the_border_mode(interpolation, border_mode):
    rng = np.random.default_rng(2)
    img = rng.integers(0, 100, (7, 6)).astype(np.float32)
    # Whole numbers, which float32 holds exactly out there.
    x = rng.integers(-(10**6), 10**6, (8, 8)).astype(np.float64)
    y = rng.integers(-(10**6), 10**6, (8, 8)).astype(np.float64)
    warped = DisplacementField.from_transform(x, y).warp(img, interpolation, border_mode, c=33)
    expected = sample(img, x, y, interpolation, border_mode, 33)
    np.testing.assert_allclose(warped, expected, atol=1e-3)


@pytest.mark.parametrize("dtype", ["bool", "u4", "i8", "u8", "i4", "f8", ">u2", ">f4"])
@pytest.mark.parametrize("border_mode", BORDERS)
def test_nearest_moves_values_of_any_type_as_they_are(dtype, border_mode):
    rng = np.random.default_rng(3)
    img = rng.integers(0, 2**16 - 1, (9, 12, 2)).astype(dtype)
    if dtype in ("i8", "u8"):
        img += 2**62  # float64 would round it
    x, y = points(rng, (10, 9), (9, 12))
    warped = DisplacementField.from_transform(x, y).warp(img, "nearest", border_mode, c=1)
    assert warped.dtype == np.dtype(dtype).newbyteorder("=")
    for place in np.ndindex(10, 9):
        row, column = round(y[place]), round(x[place])
        if border_mode == "constant":
            inside = 0 <= row < 9 and 0 <= column < 12
            expected = img[row, column] if inside else np.ones(2, dtype)
        else:
            expected = img[beyond(row, 9, border_mode), beyond(column, 12, border_mode)]
        np.testing.assert_array_equal(warped[place], expected)


@pytest.mark.parametrize("dtype", ["bool", "i4", "u4", "i8", "u8"])
def test_types_that_cannot_blend_are_refused_with_the_remedy(dtype):
    field = DisplacementField(np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(TypeError, match="float32"):
        field.warp(np.zeros((3, 3), dtype))


@pytest.mark.parametrize("dtype", ["c8", "U3", "O", "M8[s]"])
def test_what_is_not_a_number_is_refused(dtype):
    field = DisplacementField(np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(TypeError, match="real numbers"):
        field.warp(np.zeros((3, 3), dtype), "nearest")


def test_halves_go_to_the_even_pixel():
    field = DisplacementField(np.full((1, 4), 0.5), np.zeros((1, 4)))
    row = np.arange(5)[None]
    for img in (row.astype(np.uint8), row.astype(np.int64)):
        np.testing.assert_array_equal(field.warp(img, "nearest"), [[0, 2, 2, 4]])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("border_mode", BORDERS)
def test_channels_are_sampled_each_on_its_own(channels, interpolation, border_mode):
    rng = np.random.default_rng(4)
    img = rng.integers(0, 255, (9, 12, channels)).astype(np.uint8)
    field = DisplacementField.from_transform(*points(rng, (10, 9), (9, 12)))
    c = rng.integers(0, 255, channels)
    warped = field.warp(img, interpolation, border_mode, c=c)
    assert warped.shape == (10, 9, channels)
    for k in range(channels):
        alone = field.warp(img[..., k], interpolation, border_mode, c=c[k])
        assert np.abs(warped[..., k].astype(int) - alone).max() <= 1


def test_no_channel_at_all_is_an_empty_image():
    field = DisplacementField(np.zeros((2, 3)), np.zeros((2, 3)))
    assert field.warp(np.zeros((4, 4, 0), np.uint8)).shape == (2, 3, 0)


def test_one_number_fills_every_channel():
    field = DisplacementField(np.full((2, 2), 100), np.zeros((2, 2)))
    img = np.zeros((3, 3, 3), np.uint8)
    np.testing.assert_array_equal(field.warp(img, c=255), np.full((2, 2, 3), 255))
    np.testing.assert_array_equal(field.warp(img, c=(1, 2, 3))[0, 0], [1, 2, 3])


def test_the_fill_is_rounded_and_clipped_to_the_type():
    field = DisplacementField(np.full((1, 1), 100), np.zeros((1, 1)))
    img = np.zeros((3, 3), np.uint8)
    for c, level in ((300, 255), (-5, 0), (1.5, 2), (2.5, 2), (True, 1)):
        for interpolation in INTERPOLATIONS:
            assert field.warp(img, interpolation, c=c) == level
    assert field.warp(img.astype(np.uint64), "nearest", c=2**64 - 1) == 2**64 - 1
    assert field.warp(img.astype(np.int64), "nearest", c=2**64 - 1) == 2**63 - 1


@pytest.mark.parametrize("c", [(1, 2), (1, 2, 3, 4), [[1, 2, 3]], np.nan, np.inf])
def test_a_fill_that_does_not_fit_is_refused(c):
    field = DisplacementField(np.zeros((1, 1)), np.zeros((1, 1)))
    with pytest.raises(ValueError, match=r"^c "):
        field.warp(np.zeros((3, 3, 3), np.uint8), c=c)


def test_a_fill_that_is_no_number_is_refused():
    field = DisplacementField(np.zeros((1, 1)), np.zeros((1, 1)))
    with pytest.raises(TypeError, match="it must be a number"):
        field.warp(np.zeros((3, 3), np.uint8), c="white")


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_nan_stays_outside_the_image(interpolation):
    img = np.random.default_rng(5).random((5, 6, 3)).astype(np.float32)
    rows, columns = np.mgrid[-2:7:0.25, -2:8:0.25]
    field = DisplacementField.from_transform(columns, rows)
    warped = field.warp(img, interpolation, c=np.nan)
    if interpolation == "nearest":
        columns, rows = np.rint(columns), np.rint(rows)
    outside = (columns < 0) | (columns > 5) | (rows < 0) | (rows > 4)
    np.testing.assert_array_equal(np.isnan(warped), np.repeat(outside[..., None], 3, axis=2))
    replicated = field.warp(img, interpolation, "replicate")
    np.testing.assert_array_equal(warped[~outside], replicated[~outside])


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_transparent_leaves_zeros_never_old_memory(interpolation, dtype):
    """The peer shows whatever the memory held."""
    img = np.full((40, 40, 3), 200, dtype)
    field = DisplacementField(np.full((500, 500), -250.0), np.full((500, 500), -250.0))
    for _ in range(3):
        dirty = np.full((500, 500, 3), 123, dtype)
        del dirty
        warped = field.warp(img, interpolation, "transparent", c=77)
        expected = np.zeros((500, 500, 3), dtype)
        expected[250:290, 250:290] = 200
        np.testing.assert_array_equal(warped, expected)


def test_area_samples_linearly():
    rng = np.random.default_rng(6)
    img = rng.integers(0, 255, (30, 30)).astype(np.uint8)
    field = DisplacementField.from_transform(*np.meshgrid(np.arange(4) * 6.3, np.arange(4) * 7.1))
    np.testing.assert_array_equal(field.warp(img, "area"), field.warp(img, "linear"))


@pytest.mark.parametrize("border_mode", BORDER_MODES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("tall", [False, True])
def test_images_of_any_side_are_seamless(interpolation, border_mode, tall):
    """A 40000 pixel image shows what a crop of it shows, at the seams and at the ends."""
    rng = np.random.default_rng(7)
    long, short = 40_000, 11
    img = rng.integers(0, 255, (short, long, 2)).astype(np.uint8)
    for centre in (0, 32_740, 32_750, 32_758, 32_767, long - 1):
        x = centre + np.round(rng.uniform(-20, 20, (20, 7)) * 64) / 64 + 1 / 128
        y = np.round(rng.uniform(-6, short + 6, x.shape) * 64) / 64 + 1 / 128
        left = min(max(centre - 100, 0), long - 200)
        crop = np.ascontiguousarray(img[:, left : left + 200])
        if border_mode == "wrap" and centre in (0, long - 1):
            # The other end comes in: put the two ends side by side.
            crop, left = np.roll(img, 100, axis=1)[:, :200], -100
            x = (x + 100) % long - 100
        big, small = (img, crop)
        places = [(x, y), (x - left, y)]
        if tall:
            big, small = (np.ascontiguousarray(a.transpose(1, 0, 2)) for a in (big, small))
            places = [(b, a) for a, b in places]
        warped, expected = (
            DisplacementField.from_transform(*place).warp(image, interpolation, border_mode, c=9)
            for place, image in zip(places, (big, small), strict=True)
        )
        assert np.abs(warped.astype(int) - expected).max() <= 1


def test_an_image_with_both_sides_beyond_the_limit():
    rng = np.random.default_rng(8)
    img = np.zeros((33_000, 33_500), np.uint8)
    corner = slice(32_650, 32_850)
    img[corner, corner] = rng.integers(0, 255, (200, 200))
    x, y = corner.start + 50 + np.round(rng.uniform(0, 100, (2, 30, 30)) * 64) / 64 + 1 / 128
    for interpolation in INTERPOLATIONS:
        warped = DisplacementField.from_transform(x, y).warp(img, interpolation)
        crop = DisplacementField.from_transform(x - corner.start, y - corner.start).warp(
            img[corner, corner], interpolation
        )
        assert np.abs(warped.astype(int) - crop).max() <= 1


def test_an_image_of_more_than_two_gib():
    """OpenCV 5.0 crashes on it. Sections of the human brain are as large."""
    rng = np.random.default_rng(11)
    img = np.zeros((27_000, 29_000, 3), np.uint8)
    row = (2**31 // img.strides[0]) - 8
    for top in (row - 100, 26_800):
        corner = slice(top, top + 200), slice(28_800, 29_000)
        img[corner] = rng.integers(0, 255, (200, 200, 3))
        x = 28_850 + np.round(rng.uniform(0, 100, (30, 30)) * 64) / 64 + 1 / 128
        y = top + 50 + np.round(rng.uniform(0, 100, (30, 30)) * 64) / 64 + 1 / 128
        for interpolation in INTERPOLATIONS:
            warped = DisplacementField.from_transform(x, y).warp(img, interpolation)
            crop = DisplacementField.from_transform(x - 28_800, y - top).warp(
                img[corner], interpolation
            )
            assert np.abs(warped.astype(int) - crop).max() <= 1


@pytest.mark.parametrize("shape", [(3, 40_000), (40_000, 3), (2_100, 2_100)])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_fields_of_any_side_are_seamless(shape, interpolation):
    rng = np.random.default_rng(9)
    img = rng.integers(0, 255, (50, 60, 3)).astype(np.uint8)
    rows, columns = np.indices(shape, sparse=True)
    field = DisplacementField.from_transform(
        np.round((columns * 0.37 + rows * 0.01) % 70 * 64) / 64 - 5 + 1 / 128,
        np.round((rows * 0.41 + columns * 0.02) % 60 * 64) / 64 - 5 + 1 / 128,
    )
    warped = field.warp(img, interpolation, c=9)
    assert warped.shape == (*shape, 3)
    for _ in range(50):
        row, column = (int(rng.integers(0, max(side - 2, 1))) for side in shape)
        piece = tuple(slice(at, at + 2) for at in (row, column))
        x, y = (part[piece] for part in field.transformation)
        alone = DisplacementField.from_transform(x, y).warp(img, interpolation, c=9)
        # Blocks of one call and of another may round a coordinate by its last bit.
        assert np.abs(warped[piece].astype(int) - alone).max() <= 3


def test_input_of_any_memory_layout_is_read_the_same():
    rng = np.random.default_rng(10)
    img = rng.integers(0, 255, (20, 24, 3)).astype(np.uint8)
    field = DisplacementField.from_transform(*points(rng, (6, 6), (20, 24), spread=0.1))
    expected = field.warp(img)
    wide = np.repeat(img, 2, axis=1)
    for same in (
        np.asfortranarray(img),
        wide[:, ::2],
        img[::-1][::-1],
        np.ascontiguousarray(img[..., ::-1])[..., ::-1],
        np.lib.stride_tricks.as_strided(img, img.shape, img.strides, writeable=False),
    ):
        np.testing.assert_array_equal(field.warp(same), expected)
    turned = np.asfortranarray(field.delta_x), np.asfortranarray(field.delta_y)
    np.testing.assert_array_equal(DisplacementField(*turned).warp(img), expected)


def test_the_image_is_left_as_it_was():
    img = np.full((4, 4), 7.0)
    img.flags.writeable = False
    field = DisplacementField(np.zeros((4, 4)), np.zeros((4, 4)))
    warped = field.warp(img)
    assert not np.shares_memory(img, warped)
    np.testing.assert_array_equal(warped, img)


@pytest.mark.parametrize("shape", [(3,), (3, 3, 3, 3), (0, 3), (3, 0, 3), ()])
def test_what_is_no_image_is_refused(shape):
    field = DisplacementField(np.zeros((2, 2)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"rows, columns"):
        field.warp(np.zeros(shape, np.uint8))


def test_names_are_checked_and_the_known_ones_listed():
    """The peer raised KeyError."""
    field = DisplacementField(np.zeros((2, 2)), np.zeros((2, 2)))
    img = np.zeros((3, 3), np.uint8)
    with pytest.raises(ValueError, match="'nearest', 'linear', 'cubic', 'area', 'lanczos'"):
        field.warp(img, "bilinear")
    with pytest.raises(
        ValueError,
        match="'constant', 'replicate', 'reflect', 'wrap', 'reflect_101', 'transparent'",
    ):
        field.warp(img, border_mode="edge")
