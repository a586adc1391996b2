"""Whatever bytes are served as an image: its pixels, or an ImageError that names it."""

from __future__ import annotations

import io
import itertools
import re
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import atldld
from atldld.errors import ImageError
from atldld.options import set_options
from atldld.testing import Fault

from .conftest import DATASET, small_phantom

pytestmark = pytest.mark.exhaustive

SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=SHARED, derandomize=True)

PHANTOM = small_phantom()
IMAGE = PHANTOM.row["section_images"][1]
SIZE = IMAGE["width"], IMAGE["height"]


def encoded(size: tuple[int, int] = SIZE, mode: str = "RGB", **options: Any) -> bytes:
    """Return a JPEG of a smooth gradient."""
    down, along = np.indices((size[1], size[0]))
    pixels = np.stack([along % 256, down % 256, (along + down) % 256], axis=-1).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


GOOD = {
    "baseline": encoded(quality=80),
    "progressive": encoded(quality=80, progressive=True),
    "grey": encoded(mode="L"),
    "with restarts": encoded(quality=80, restart_marker_blocks=4),
}


class Images:
    """Reads one section whose image is what a test says."""

    def __init__(self, server: Any, folder: Any) -> None:
        self.server = server
        self._folders = (folder / str(number) for number in itertools.count())

    def __call__(self, body: bytes, **options: Any) -> Any:
        """Return the pixels, or the ImageError."""
        self.server.clear_faults()
        self.server.add_fault(Fault("body", image_ids=IMAGE["id"], request="image", body=body))
        options = {"resolution": 100, "tier": 0, "chunks": None, **options}
        with set_options(cache_dir=next(self._folders), retries=0, timeout=20):
            sections = atldld.open_dataarray(DATASET, source=self.server.url, **options)
            one = sections.isel(section=sections.image_id.values.tolist().index(IMAGE["id"]))
            try:
                found: Any = one.load().values
            except ImageError as error:
                found = error
        if isinstance(found, ImageError):
            assert found.image_id == IMAGE["id"]
            assert found.dataset_id == DATASET
            assert found.section_number == IMAGE["section_number"]
            assert self.server.url in str(found)
            assert len(str(found)) < 1000
        return found


@pytest.fixture(scope="module")
def images(server, tmp_path_factory):
    return Images(server, tmp_path_factory.mktemp("images"))


def seen(found: Any) -> bool:
    """Whether there are pixels; then they have the shape of the grid, and nothing else is one."""
    if isinstance(found, ImageError):
        return False
    assert found.shape == (80, 114, 3)
    assert found.dtype == np.uint8
    return True


@pytest.mark.parametrize("kind", GOOD)
def test_good_ones_are_read(images, kind):
    assert seen(images(GOOD[kind]))


def scans_of(body: bytes) -> list[int]:
    """Return where the scans of a JPEG begin."""
    return [match.start() for match in re.finditer(rb"\xff\xda", body)]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_progressive_jpeg_without_its_last_scans_is_no_image(images, mode):
    """A decoder shows it, with coarser pixels, and calls it sound."""
    body = encoded(quality=90, progressive=True, mode=mode)
    scans = scans_of(body)
    assert len(scans) > 3
    assert seen(images(body))
    for place in scans[1:]:
        found = images(body[:place] + b"\xff\xd9")
        assert not seen(found)
        assert "lacks its last scans" in str(found)


def test_a_scan_that_is_missing_from_the_middle_is_noticed(images):
    body = encoded(quality=90, progressive=True)
    scans = [*scans_of(body), len(body) - 2]
    for start, stop in itertools.pairwise(scans):
        # The tables of the next scan stand at the end of this one: they are kept.
        tables = body.find(b"\xff\xc4", start, stop)
        assert not seen(images(body[:start] + body[tables if tables > 0 else stop :]))


@FUZZ
@given(
    st.sampled_from(sorted(GOOD)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_bytes_changed_anywhere(images, kind, changes):
    body = bytearray(GOOD[kind])
    for place, value in changes:
        body[int(place * (len(body) - 1))] = value
    held_against_another_decoder(images, bytes(body))


@FUZZ
@given(
    st.sampled_from(sorted(GOOD)),
    st.integers(0, 700),
    st.binary(min_size=1, max_size=4),
)
def test_the_head_changed(images, kind, place, value):
    """Most of what a decoder obeys stands in the first bytes: sizes, tables, components."""
    body = GOOD[kind]
    held_against_another_decoder(images, body[:place] + value + body[place + len(value) :])


@FUZZ
@given(st.sampled_from(sorted(GOOD)), st.floats(0, 1), st.floats(0, 1), st.binary(max_size=40))
def test_pieces_cut_out_or_put_in(images, kind, first, second, piece):
    body = GOOD[kind]
    low, high = sorted((int(first * len(body)), int(second * len(body))))
    held_against_another_decoder(images, body[:low] + piece + body[high:])


@FUZZ
@given(st.binary(max_size=300))
def test_any_bytes(images, body):
    assert not seen(images(body))
    assert not seen(images(b"\xff\xd8\xff" + body + b"\xff\xd9"))


def held_against_another_decoder(images: Images, body: bytes) -> None:
    """A picture comes only where another decoder sees one of the same size, too."""
    if seen(images(body)):
        with Image.open(io.BytesIO(body)) as other:
            assert other.size == SIZE


def test_more_pixels_than_are_allowed_are_not_asked_for(server, tmp_path):
    """Metadata and image may agree on a size that fills the memory."""
    with set_options(cache_dir=tmp_path, max_image_pixels=SIZE[0] * SIZE[1] - 1):
        sections = atldld.open_dataarray(DATASET, source=server.url, tier=0, chunks=None)
        one = sections.isel(section=sections.image_id.values.tolist().index(IMAGE["id"]))
        server.reset_log()
        table = one.atlas.prefetch()
        assert table["error"].str.contains("max_image_pixels").all()
        with pytest.raises(ImageError, match=r"max_image_pixels.* allows more"):
            one.load()
        assert server.image_requests == []
        with set_options(max_image_pixels=SIZE[0] * SIZE[1]):
            assert one.load().any()


@pytest.mark.parametrize(
    "size", [(SIZE[0] + 1, SIZE[1]), (SIZE[1], SIZE[0]), (1, 1), (SIZE[0], 2 * SIZE[1])]
)
def test_another_size_is_refused(images, size):
    found = images(encoded(size))
    assert not seen(found)
    assert f"{size[0]} x {size[1]}" in str(found)


def test_four_channels_are_refused(images):
    assert "CMYK" in str(images(encoded(mode="CMYK")))


def test_a_declared_giant_fills_no_memory(images):
    """A head that declares 65535 x 65535 pixels is 12 GB for a decoder that believes it."""
    body = bytearray(GOOD["baseline"])
    frame = body.index(b"\xff\xc0")
    body[frame + 5 : frame + 9] = b"\xff" * 4
    tracemalloc.start()
    try:
        assert not seen(images(bytes(body)))
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


def with_empty_scans(count: int) -> bytes:
    """Return a sound progressive JPEG, grey, that goes over all its coefficients many times.

    The scan says that the next 2**14 and more blocks are empty: one code of 15 bits.
    """
    flat = io.BytesIO()
    Image.new("L", SIZE, 128).save(flat, "JPEG", progressive=True)
    blocks = -(-SIZE[0] // 8) * -(-SIZE[1] // 8)
    assert blocks < 2**14
    table = b"\xff\xc4\x00\x14\x10" + bytes([1] + [0] * 15) + b"\xe0"
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00" + b"\x00\x01"
    return flat.getvalue()[:-2] + table + scan * count + b"\xff\xd9"


def test_scans_without_an_end_are_refused_before_they_are_decoded(images):
    """Each costs a walk through the picture: at 80 megapixels a body within limits takes hours."""
    assert seen(images(with_empty_scans(100)))
    assert "scans, which no picture needs" in str(images(with_empty_scans(10_000)))


def test_a_body_far_too_long_is_left_early(images):
    """Twenty megabytes behind a picture of a few hundred pixels a side."""
    found = images(GOOD["baseline"] + b"\0" * 20_000_000 + b"\xff\xd9")
    assert "more than the" in str(found)


def test_an_orientation_is_not_obeyed(images):
    """A picture turned by a note in its head would show another place."""
    note = Image.Exif()
    note[0x0112] = 3
    assert np.array_equal(images(encoded(quality=80, exif=note)), images(GOOD["baseline"]))


def test_a_colour_picture_is_no_expression_mask(images):
    found = images(GOOD["baseline"], view="expression_mask")
    assert isinstance(found, ImageError)
    assert "colours" in str(found)


@pytest.mark.parametrize("scheduler", ["threads", "sync", "processes"])
def test_damage_is_an_error_on_every_scheduler(server, tmp_path, scheduler):
    body = GOOD["baseline"]
    server.clear_faults()
    server.add_fault(
        Fault("body", image_ids=IMAGE["id"], body=body[: len(body) // 2] + b"\xff\xd9")
    )
    with set_options(retries=0, cache_dir=tmp_path):
        sections = atldld.open_dataarray(DATASET, source=server.url, resolution=100, tier=0)
        with pytest.raises(ImageError, match=str(IMAGE["id"])):
            sections.compute(scheduler=scheduler)
