from __future__ import annotations

import os
from pathlib import Path

import pytest

from atldld.source.allen import AllenSource

from .conftest import a_read, answer, jpeg


def test_image_is_fetched_once(serve):
    body = jpeg()
    server = serve(lambda request: answer(body))
    source = AllenSource(server.url)
    assert source.image(a_read()) == body
    assert source.image(a_read()) == body
    assert server.paths == ["/api/v2/section_image_download/7?downsample=2"]


REAL = Path(os.environ.get("ATLDLD_REAL_DATA", Path(__file__).parents[3] / "shared" / "real"))


@pytest.mark.skipif(not REAL.is_dir(), reason="no recorded data (ATLDLD_REAL_DATA)")
def test_recorded_dataset_opens(serve):
    body = (REAL / "69289763" / "query.json").read_bytes()
    server = serve(lambda request: answer(body))
    dataset = AllenSource(server.url).dataset(69289763)
    assert (dataset.id, len(dataset.images), dataset.reference_space) == (69289763, 18, 10)
    assert server.paths == [
        "/api/v2/data/SectionDataSet/69289763.json?include=genes,products,"
        "specimen(donor(age)),treatments,alignment3d,equalization,section_images(alignment2d)"
    ]
