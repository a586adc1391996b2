from __future__ import annotations

import io

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from atldld.source.jpeg import decode, jpeg_fault, size_limit

from .conftest import REAL, jpeg, needs_real_data

GOOD = jpeg(64, 48)


def encoded(kind: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 48)).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("padding", [b"", b"\0", b"\0" * 100, b"\r\n"])
def test_a_good_one(padding):
    assert jpeg_fault(GOOD + padding, (64, 48)) is None


@needs_real_data
def test_one_of_the_service():
    body = (REAL / "69289763" / "section_image_69177654_downsample_2.jpg").read_bytes()
    assert jpeg_fault(body, (2980, 1888)) is None
    assert len(body) < size_limit((2980, 1888))


def test_width_comes_first():
    assert jpeg_fault(GOOD, (48, 64)) == "the image is 64 x 48 pixels, not 48 x 64"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is empty, not a JPEG"),
        (b"<!DOCTYPE html><html>", "the body is an HTML page, not a JPEG"),
        (b"\n <HTML>", "the body is an HTML page, not a JPEG"),
        (b"<?xml version='1.0'?><Response/>", "the body is XML, not a JPEG"),
        (b'{"success": false}', "the body is JSON, not a JPEG"),
        (b"no such image", "the body is text, not a JPEG"),
        (b"\0" * 100, "the body is zeros, not a JPEG"),
        (b"\x01\x02\xfe", "the body is of no known format, not a JPEG"),
        (encoded("PNG"), "the body is a PNG image, not a JPEG"),
        (encoded("TIFF"), "the body is a TIFF image, not a JPEG"),
        (GOOD[:-1], f"the JPEG is cut off after {len(GOOD) - 1} bytes"),
        (GOOD[:200], "the JPEG is cut off after 200 bytes"),
        (GOOD[:20] + b"\xff\xd9", "the header of the JPEG is damaged"),
        (GOOD + b"<html>", "the JPEG is cut off"),
    ],
)
def test_what_is_wrong_is_named(body, said):
    assert jpeg_fault(body, (64, 48)).startswith(said)


@given(st.binary(max_size=300))
def test_no_bytes_are_too_strange(body):
    assert jpeg_fault(body, (64, 48)) is not None
    assert isinstance(jpeg_fault(GOOD[:100] + body + GOOD[-2:], (64, 48)), str | None)


def ramp(height=60, width=90):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 2, y * 3, 200 - x], axis=-1).astype(np.uint8)


def stored(pixels, mode=None, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode or "RGB").save(buffer, "JPEG", quality=98, **options)
    return buffer.getvalue()


def test_channels_are_red_green_blue():
    found = decode(stored(ramp(), subsampling=0))
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - ramp()).max() <= 6


def test_a_grey_file_serves_both_views():
    grey = ramp()[..., 0]
    body = stored(grey, mode="L")
    assert np.abs(decode(body, grey=True).astype(int) - grey).max() <= 4
    assert decode(body).shape == (60, 90, 3)


def test_grey_stored_as_colour_is_grey():
    grey = ramp()[..., 0]
    assert np.abs(decode(stored(grey), grey=True).astype(int) - grey).max() <= 4


def test_colours_are_not_grey_levels():
    with pytest.raises(ValueError, match="has colours"):
        decode(stored(ramp()), grey=True)


def test_four_channels_are_refused():
    with pytest.raises(ValueError, match="CMYK"):
        decode(stored(ramp(), mode="CMYK"))


def test_exif_rotation_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(stored(ramp(), exif=exif)).shape == (60, 90, 3)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_truncated_files_raise(share):
    body = stored(ramp(400, 600))
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
def test_any_bytes_are_decoded_or_a_value_error(body):
    for content in (body, b"\xff\xd8" + body, stored(ramp(8, 8))[:-20] + body):
        try:
            found = decode(content)
        except ValueError:
            continue
        assert found.ndim == 3
