"""Decoding: strict, in the right order of channels, and no colours for grey."""

import io

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from atldld.sampling.decode import decode


def ramp(height=60, width=90):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 2, y * 3, 200 - x], axis=-1).astype(np.uint8)


def encoded(pixels, mode=None, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode or "RGB").save(buffer, "JPEG", quality=98, **options)
    return buffer.getvalue()


def test_channels_are_red_green_blue():
    found = decode(encoded(ramp(), subsampling=0))
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - ramp()).max() <= 6


def test_a_grey_file_serves_both_views():
    grey = ramp()[..., 0]
    body = encoded(grey, mode="L")
    assert np.abs(decode(body, grey=True).astype(int) - grey).max() <= 4
    assert decode(body).shape == (60, 90, 3)


def test_grey_stored_as_colour_is_grey():
    grey = ramp()[..., 0]
    assert np.abs(decode(encoded(grey), grey=True).astype(int) - grey).max() <= 4


def test_colours_are_not_grey_levels():
    with pytest.raises(ValueError, match="has colours"):
        decode(encoded(ramp()), grey=True)


def test_four_channels_are_refused():
    with pytest.raises(ValueError, match="CMYK"):
        decode(encoded(ramp(), mode="CMYK"))


def test_exif_rotation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(ramp(), exif=exif)).shape == (60, 90, 3)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_truncated_files_raise(share):
    body = encoded(ramp(400, 600))
    with pytest.raises(ValueError):  # noqa: PT011 - the decoder's words vary
        decode(body[: int(len(body) * share)])


def test_damage_inside_the_scan_raises():
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    body = bytearray(simplejpeg.encode_jpeg(noise, quality=90))
    middle = len(body) // 2
    body[middle : middle + 2] = b"\xff\xd9"
    with pytest.raises(ValueError):  # noqa: PT011 - the decoder's words vary
        decode(bytes(body))


@given(st.binary(max_size=300))
def test_any_bytes_give_pixels_or_a_value_error(body):
    for content in (body, b"\xff\xd8" + body, encoded(ramp(8, 8))[:-20] + body):
        try:
            found = decode(content)
        except ValueError:
            continue
        assert found.ndim == 3
