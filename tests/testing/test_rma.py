"""Queries in every form of URL, joins, includes, paging, and the envelope."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atldld.testing import AllenServer, Doubts, Fault, phantom_dataset
from atldld.testing.queries import QueryError, parse_request

FULL = "genes,products,specimen(donor(age)),alignment3d,section_images(alignment2d)"


def ids(reply: Any) -> list[int]:
    assert reply.status == 200
    assert reply.json["success"] is True
    return [row["id"] for row in reply.json["msg"]]


@pytest.mark.parametrize(
    "path",
    [
        "/data/SectionDataSet/1001.json",
        "/data/SectionDataSet/query.json?criteria=[id$eq1001]",
        "/data/SectionDataSet/query.json?criteria=%5Bid%24eq1001%5D",
        "/data/SectionDataSet/query.json?q=[id$eq'1001']",
        "/data/query.json?criteria=model::SectionDataSet,rma::criteria,[id$eq1001]",
        "/data/query.json?criteria=model::SectionDataSet[id$eq1001]",
        "/data/query.json?q=model::SectionDataSet,rma::criteria,[id$eq1001]",
        "/data/query.json?q="
        + quote("model::SectionDataSet,rma::criteria,[id$eq1001],rma::options[num_rows$eq1]", ""),
    ],
)
def test_every_form_of_url_finds_the_row(server: Any, fetch: Any, path: str) -> None:
    reply = fetch(server, path)
    envelope = reply.json
    assert {name: envelope[name] for name in envelope if name != "msg"} == {
        "success": True,
        "id": 0,
        "start_row": 0,
        "num_rows": 1,
        "total_rows": 1,
    }
    assert ids(reply) == [1001]
    assert "section_images" not in envelope["msg"][0]
    assert "alignment3d" not in envelope["msg"][0]
    assert reply.headers["content-type"].startswith("application/json")


def test_a_full_include_gives_back_the_whole_row(server: Any, fetch: Any, slides: Any) -> None:
    reply = fetch(server, f"/data/SectionDataSet/1001.json?include={FULL}")
    expected = {name: value for name, value in slides.row.items() if name != "treatments"}
    assert reply.json["msg"] == [expected]


def test_includes_nest_only_what_they_name(server: Any, fetch: Any) -> None:
    (row,) = fetch(server, "/data/SectionDataSet/1001.json?include=section_images").json["msg"]
    assert len(row["section_images"]) == 6
    assert all("alignment2d" not in image for image in row["section_images"])
    (row,) = fetch(
        server, "/data/SectionDataSet/1001.json?include=plane_of_section,reference_space"
    ).json["msg"]
    assert row["plane_of_section"]["name"] == "coronal"
    assert row["reference_space"]["name"] == "P56 Brain"
    image = fetch(
        server,
        "/data/SectionImage/1001002.json?include=alignment2d,section_data_set(alignment3d,genes)",
    ).json["msg"][0]
    assert image["alignment2d"]["section_image_id"] == 1001002
    assert image["section_data_set"]["alignment3d"]["aligned_id"] == 1001
    assert image["section_data_set"]["genes"][0]["acronym"] == "Phantom1"


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ("[id$ne1001]", [2002]),
        ("[id$in1001,2002]", [1001, 2002]),
        ("[id$gt1001]", [2002]),
        ("[id$ge1001][id$lt2002]", [1001]),
        ("[id$le1001]", [1001]),
        ("[failed$eqfalse]", [1001, 2002]),
        ("[failed$eq'false']", [1001, 2002]),
        ("[failed$eqtrue]", []),
        ("[name$eqnull]", [1001, 2002]),
        ("[specimen_id$ne'nil']", [1001, 2002]),
        ("[storage_directory$li'*_2002/']", [2002]),
        ("[storage_directory$il'*SERIES_2002/']", [2002]),
        ("[storage_directory$li'*SERIES_2002/']", []),
        ("genes[acronym$eq'Prox1']", [2002]),
        ("genes[acronym$eqProx1]", [2002]),
        ("genes[acronym$eq'prox1']", []),
        ("products[abbreviation$eq'Mouse'],plane_of_section[name$eq'sagittal']", [2002]),
        ("[reference_space_id$eq10],genes[acronym$in'Prox1','Gad1']", [2002]),
        ("section_images[section_number$eq0]", [1001, 2002]),
        ("section_images(alignment2d[section_image_id$eq2002001])", [2002]),
        ("specimen(donor(age[name$eq'P56']))", [1001, 2002]),
        ("specimen(donor(age[name$eq'P14']))", []),
    ],
)
def test_criteria_filter_and_join(
    server: Any, fetch: Any, criteria: str, expected: list[int]
) -> None:
    for path in (
        f"/data/SectionDataSet/query.json?criteria={criteria}",
        f"/data/query.json?criteria=model::SectionDataSet,rma::criteria,{criteria}",
        f"/data/query.json?criteria=model::SectionDataSet,rma::criteria,{quote(criteria, '')}",
    ):
        assert ids(fetch(server, path)) == expected


def test_filters_in_an_include_join_and_thin_out(server: Any, fetch: Any) -> None:
    reply = fetch(
        server,
        "/data/query.json?criteria=model::SectionDataSet,"
        "rma::include,section_images[section_number$eq0](alignment2d)",
    )
    assert ids(reply) == [1001, 2002]
    for row in reply.json["msg"]:
        assert [image["section_number"] for image in row["section_images"]] == [0]
        assert "alignment2d" in row["section_images"][0]
    none = fetch(
        server, "/data/query.json?criteria=model::SectionDataSet,rma::include,genes[id$eq1]"
    )
    assert ids(none) == []


@pytest.mark.parametrize(
    ("model", "criteria", "expected"),
    [
        ("Gene", "[acronym$eq'Prox1']", 1),
        ("Product", "[id$eq1]", 1),
        ("PlaneOfSection", "[name$eq'sagittal']", 1),
        ("ReferenceSpace", "[id$in9,10]", 2),
        ("Specimen", "[name$li'phantom-*']", 2),
        ("Donor", "age[name$eq'P56']", 2),
        ("SectionImage", "[data_set_id$eq1001]", 6),
        ("SectionImage", "section_data_set[id$eq2002]", 3),
        ("Alignment3d", "[aligned_id$eq1001]", 1),
        ("ReferenceToReferenceTransform", "[from_reference_space_id$eq10]", 1),
    ],
)
def test_other_models_can_be_asked_for(
    server: Any, fetch: Any, model: str, criteria: str, expected: int
) -> None:
    reply = fetch(server, f"/data/{model}/query.json?criteria={criteria}")
    assert len(ids(reply)) == expected


def test_the_flip_is_served_as_a_transform(server: Any, fetch: Any) -> None:
    (row,) = fetch(
        server,
        "/data/ReferenceToReferenceTransform/query.json?criteria="
        "[from_reference_space_id$eq10],[to_reference_space_id$eq9]",
    ).json["msg"]
    t = [row[f"t_{place:02d}"] for place in range(12)]
    assert t == [1, 0, 0, 0, 1, 0, 0, 0, -1, 0, 0, 11350]


def test_order_only_and_except(server: Any, fetch: Any) -> None:
    base = "/data/SectionImage/query.json?criteria=[data_set_id$eq1001]"
    up = ids(fetch(server, f"{base}&order=section_number"))
    assert up == sorted(up)
    for order in ("section_number$desc", "section_number+desc", "section_number%2Bdesc"):
        assert ids(fetch(server, f"{base}&order={order}")) == up[::-1]
    options = "rma::options[order$eq'sub_images.section_number$desc'][only$eq'id,width']"
    reply = fetch(
        server,
        "/data/query.json?criteria=model::SectionImage,rma::criteria,"
        f"[data_set_id$eq1001],{options}",
    )
    assert ids(reply) == up[::-1]
    assert set(reply.json["msg"][0]) == {"id", "width"}
    reply = fetch(server, f"{base}&except=width,height")
    assert "width" not in reply.json["msg"][0]
    assert "section_number" in reply.json["msg"][0]


def test_no_match_is_an_empty_list(server: Any, fetch: Any) -> None:
    for path in ("/data/SectionDataSet/5.json", "/data/Gene/query.json?criteria=[acronym$eq'X']"):
        reply = fetch(server, path)
        assert ids(reply) == []
        assert (reply.json["num_rows"], reply.json["total_rows"]) == (0, 0)


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize(
    "path",
    [
        "/data/NoModel/query.json",
        "/data/query.json?criteria=rma::criteria,[id$eq1]",
        "/data/query.json?criteria=model::SectionDataSet,rma::criteria,[id$eq1",
        "/data/query.json?criteria=model::SectionDataSet,rma::criteria,[id$xx1]",
        "/data/query.json?criteria=model::SectionDataSet,rma::bogus,[id$eq1]",
        "/data/SectionDataSet/query.json?criteria=[nonsense$eq1]",
        "/data/SectionDataSet/query.json?include=nonsense",
        "/data/SectionDataSet/query.json?include=section_images(alignment2d",
        "/data/SectionDataSet/query.json?num_rows=many",
        "/data/SectionDataSet/query.json?order=nonsense",
        "/data/SectionDataSet/query.xml",
        "/data/SectionDataSet/query.json?criteria=" + "a(" * 5000,
    ],
)
def test_errors_are_a_text_with_either_status(fetch: Any, slides: Any, status: int, path: str):
    with AllenServer(slides, doubts=Doubts(rma_error_status=status)) as server:
        reply = fetch(server, path)
        assert reply.status == status
        assert reply.json["success"] is False
        assert isinstance(reply.json["msg"], str)
        assert server.errors == []


@given(st.text(alphabet="ab[]()$,':: eqmodelrma=19", max_size=40))
def test_any_text_is_a_query_or_an_error(text: str) -> None:
    for model in (None, "Gene"):
        try:
            parse_request(model, {"criteria": text, "include": text})
        except QueryError:
            continue


def test_pages_have_fifty_rows_unless_asked_and_never_more_than_the_most(fetch: Any) -> None:
    dataset = phantom_dataset(3, sections=60, resolution=200.0)
    base = "/data/SectionImage/query.json?"
    for doubts, asked, expected in (
        (Doubts(), "", 50),
        (Doubts(default_rows=7), "", 7),
        (Doubts(), "num_rows=55", 55),
        (Doubts(), "num_rows=all", 60),
        (Doubts(), "num_rows='all'", 60),
        (Doubts(max_rows=20), "num_rows=1000", 20),
        (Doubts(max_rows=20), "num_rows=all", 20),
        (Doubts(max_rows=20, all_rows="uncapped"), "num_rows=all", 60),
        (Doubts(max_rows=20), "num_rows=1000&start_row=50", 10),
        (Doubts(), "start_row=60", 0),
        (Doubts(), "num_rows=0", 0),
    ):
        with AllenServer(dataset, doubts=doubts) as server:
            envelope = fetch(server, base + asked).json
            assert envelope["num_rows"] == len(envelope["msg"]) == expected
            assert envelope["total_rows"] == 60


def test_pages_of_any_size_hold_every_row_once(server: Any, fetch: Any) -> None:
    everything = ids(fetch(server, "/data/SectionImage/query.json?order=id"))
    assert len(everything) == 9
    for size in range(1, 10):
        found: list[int] = []
        while True:
            page = fetch(
                server,
                f"/data/SectionImage/query.json?order=id&num_rows={size}&start_row={len(found)}",
            )
            assert page.json["start_row"] == len(found)
            if not page.json["msg"]:
                break
            found += ids(page)
        assert found == everything


def test_without_an_order_rows_may_come_in_any(fetch: Any, slides: Any) -> None:
    path = "/data/SectionImage/query.json"
    with AllenServer(slides, doubts=Doubts(row_order="scrambled")) as server:
        first, second = ids(fetch(server, path)), ids(fetch(server, path))
        assert first != second
        assert sorted(first) == sorted(second)
        ordered = ids(fetch(server, f"{path}?order=id"))
        assert ordered == sorted(first)
    with AllenServer(slides) as server:
        assert ids(fetch(server, path)) == ids(fetch(server, path)) == ordered


def test_promised_rows_never_come(fetch: Any, slides: Any) -> None:
    with AllenServer(slides, faults=[Fault("rows", rows=202)]) as server:
        base = "/data/SectionImage/query.json?num_rows=4&start_row="
        pages = [fetch(server, f"{base}{start}").json for start in (0, 4, 8)]
        assert [page["total_rows"] for page in pages] == [208] * 3
        assert [len(page["msg"]) for page in pages] == [4, 2, 0]
        assert [page["num_rows"] for page in pages] == [4, 2, 0]
        assert all(page["success"] for page in pages)


@pytest.mark.parametrize("missing", ["null", "absent"])
def test_a_missing_alignment_is_null_or_absent(fetch: Any, slides: Any, missing: str) -> None:
    def lose(row: dict) -> None:
        row["section_images"][0]["alignment2d"] = None
        del row["section_images"][1]["alignment2d"]
        row["alignment3d"] = None

    with AllenServer(slides.altered(lose), doubts=Doubts(missing_alignment=missing)) as server:
        include = "alignment3d,section_images(alignment2d)"
        (row,) = fetch(server, f"/data/SectionDataSet/1001.json?include={include}").json["msg"]
        for holder, name in (
            (row, "alignment3d"),
            (row["section_images"][0], "alignment2d"),
            (row["section_images"][1], "alignment2d"),
        ):
            assert (name in holder) == (missing == "null")
            assert holder.get(name) is None
        assert row["section_images"][2]["alignment2d"]["section_image_id"] == 1001002


def test_odd_rows_are_served_as_they_are(fetch: Any) -> None:
    odd = {
        "id": 5,
        "section_thickness": "thick",
        "alignment3d": 17,
        "genes": None,
        "section_images": [None, {"id": "x", "alignment2d": {"tsv_00": float("inf")}}, 3],
        "unheard_of": {"deep": [1]},
    }
    other = {"id": 6, "section_images": "none"}
    with AllenServer([odd, other]) as server:
        include = "alignment3d,genes,section_images(alignment2d)"
        path = f"/data/SectionDataSet/query.json?include={include}"
        assert fetch(server, path).json["msg"] == [
            odd,
            other | {"alignment3d": None, "genes": []},
        ]
        assert fetch(server, "/section_image_download/1").status == 404
        assert server.errors == []
