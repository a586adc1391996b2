from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from atldld.source.jpeg import jpeg_fault, size_limit

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
