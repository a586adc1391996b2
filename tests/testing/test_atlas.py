"""A whole atlas of made-up rows: the same however it is asked for."""

import json
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np
import pytest

from atldld.testing import AllenServer, SyntheticAtlas


def ask(server, criteria):
    with urlopen(f"{server.url}/data/query.json?criteria={quote(criteria)}") as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def atlas():
    return SyntheticAtlas(90)


def test_a_page_is_part_of_the_whole(atlas):
    with AllenServer(atlas) as server:
        page = ask(
            server,
            "model::SectionDataSet,rma::criteria,[id$gt70000400],rma::include,genes,alignment3d,"
            "rma::options[num_rows$eq7][order$eq'id']",
        )
        one = ask(
            server,
            "model::SectionDataSet,rma::criteria,[id$eq70000440],rma::include,genes,"
            "section_images(alignment2d)",
        )
    assert page["total_rows"] == 79
    assert [row["id"] for row in page["msg"]] == atlas.dataset_ids[11:18]
    assert page["msg"][0]["genes"] == [atlas.gene(11)]
    assert one["msg"][0]["section_images"] == atlas.row(11, images=True)["section_images"]


def test_images_of_several_datasets_come_by_id(atlas):
    criteria = (
        "model::SectionImage,rma::criteria,[data_set_id$in70000440,70000040][id$gt{}],"
        "rma::include,alignment2d,rma::options[num_rows$eq15][order$eq'id']"
    )
    rows, last = [], 0
    with AllenServer(atlas) as server:
        while page := ask(server, criteria.format(last))["msg"]:
            rows += page
            last = rows[-1]["id"]
    expected = [*atlas.row(1, images=True)["section_images"]]
    expected += atlas.row(11, images=True)["section_images"]
    assert rows == expected


def test_other_questions_look_at_every_row(atlas):
    failed = [row["id"] for row in atlas.all_rows("SectionDataSet") if row["failed"]]
    with AllenServer(atlas) as server:
        page = ask(server, "model::SectionDataSet,rma::criteria,[failed$eqtrue]")
        gene = ask(server, "model::Gene,rma::criteria,[acronym$il'syn1*']")
    assert [row["id"] for row in page["msg"]] == failed != []
    assert {row["acronym"] for row in gene["msg"]} == {"Syn1", *(f"Syn{k}" for k in range(10, 20))}


def test_grids_have_zeros_and_holes_and_some_are_missing(atlas):
    energy = atlas.grid(atlas.dataset_ids[0])
    assert energy.shape == (67, 41, 58)
    assert (energy == 0).any()
    assert (energy == -1).any()
    assert (energy > 1).any()
    assert np.array_equal(energy, atlas.grid(atlas.dataset_ids[0]))
    assert atlas.grid(atlas.dataset_ids[39]) is None
    assert len(atlas.grids) == 88
