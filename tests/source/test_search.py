"""What is looked for is what is found, whatever stands in the words."""

from __future__ import annotations

import json
import math
import shutil

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import atldld
from atldld.errors import APIError, AtldldWarning, DatasetNotFoundError
from atldld.model.terms import PLANE_NAMES, SearchTerms, fits
from atldld.testing import AllenServer, Doubts, Fault, PhantomBrain, load_recorded, phantom_dataset
from atldld.testing.queries import parse_stages

from .conftest import answer

BRAIN = PhantomBrain(texture="smooth")


def a_dataset(dataset_id, plane="coronal", **columns):
    return phantom_dataset(dataset_id, plane, brain=BRAIN, sections=2, resolution=64, **columns)


def changed(dataset, **columns):
    return dataset.altered(lambda row: row.update(columns))


DATASETS = (
    a_dataset(1, gene="Prox1", products=(1, 3)),
    a_dataset(2, "sagittal", gene="Prox1"),
    a_dataset(3, gene="Prox2", products=(3,)),
    a_dataset(4, gene=("Calb1", "Pvalb")),
    a_dataset(5, gene=(), products=(5,)),
    changed(a_dataset(6, gene="Prox1"), failed=True),
    a_dataset(7, "transverse", gene="2310003H01Rik (x), y"),
    changed(
        a_dataset(8, gene="prox1"),
        plane_of_section_id=5,
        reference_space_id=None,
        alignment3d=None,
        section_thickness=None,
        specimen=None,
    ),
    changed(a_dataset(9, gene="Unc5"), plane_of_section_id=11),
)  # fmt: skip


@pytest.fixture(scope="module")
def server():
    with AllenServer(list(DATASETS)) as running:
        yield running


def ids(server, **terms):
    return atldld.search(source=server.url, **terms)["dataset_id"].tolist()


@pytest.mark.parametrize(
    ("terms", "found"),
    [
        ({}, [1, 2, 3, 4, 5, 7, 8, 9]),
        ({"failed": None}, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"failed": True}, [6]),
        ({"gene": "Prox1"}, [1, 2, 8]),
        ({"gene": "PROX1"}, [1, 2, 8]),
        ({"gene": "Prox*"}, [1, 2, 3, 8]),
        ({"gene": "*al*b"}, [4]),
        ({"gene": "Pro_1"}, []),
        ({"gene": "Prox%"}, []),
        ({"gene": "Prox?"}, []),
        ({"gene": "2310003H01Rik (x), y"}, [7]),
        ({"gene": "2310003H01Rik (x)"}, []),
        ({"gene": ["Prox2", "calb1", "nothing"]}, [3, 4]),
        ({"gene": ["Prox*", "2310003H01Rik (x), y"]}, [1, 2, 3, 7, 8]),
        ({"plane": "sagittal"}, [2]),
        ({"plane": "Coronal"}, [1, 3, 4, 5, 9]),
        ({"plane": ["sagittal", "transverse"]}, [2, 7]),
        ({"plane": "n/a"}, [8]),
        ({"plane": "tangential"}, []),
        ({"product": "Mouse Brain"}, [1, 2, 4, 7, 8, 9]),
        ({"product": "devmouse"}, [1, 3]),
        ({"product": 5}, [5]),
        ({"product": "*connectivity*"}, [5]),
        ({"product": ["DevMouse", 5], "plane": "coronal"}, [1, 3, 5]),
        ({"specimen": "phantom-3"}, [3]),
        ({"specimen": "PHANTOM-*", "gene": "Prox2"}, [3]),
        ({"specimen": 500_000_004}, [4]),
        ({"specimen": [500_000_004, "phantom-1"]}, [1, 4]),
        ({"dataset_id": 3}, [3]),
        ({"dataset_id": [*range(3, 200)]}, [3, 4, 5, 7, 8, 9]),
        ({"dataset_id": [1, 2, 3], "gene": "prox1"}, [1, 2]),
        ({"image_id": 4001}, [4]),
        ({"image_id": [4001, 2000, 77]}, [2, 4]),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:no gene here is called:atldld.AtldldWarning")
def test_what_is_found(server, terms, found):
    assert ids(server, **terms) == found
    assert not server.errors


def test_several_are_any_that_can_be_iterated_over(server):
    import numpy as np

    for some in (np.array([3, 1]), pd.Series([3, 1]), (3, 1), iter([3, 1]), {3, 1}):
        assert ids(server, dataset_id=some) == [1, 3]
    assert ids(server, dataset_id=np.array(3)) == [3]
    assert ids(server, dataset_id=np.int64(3)) == [3]


def test_columns_and_their_types_are_the_same_with_rows_and_without(server):
    some = atldld.search("Prox*", source=server.url)
    none = atldld.search("nothing", source=server.url)
    assert len(none) == 0
    assert some.dtypes.to_dict() == none.dtypes.to_dict()
    assert some.dtypes["dataset_id"] == "int64"
    assert some.dtypes["entrez_id"] == pd.Int64Dtype()
    assert some.dtypes["section_thickness"] == "float64"
    assert some.dtypes["failed"] == "bool"


def test_a_row_tells_what_the_service_says(server):
    (first,) = atldld.search("Prox1", plane="coronal", source=server.url).to_dict("records")
    entrez_id = first.pop("entrez_id")
    assert entrez_id == DATASETS[0].row["genes"][0]["entrez_id"]
    assert first == {
        "dataset_id": 1,
        "gene": "Prox1",
        "gene_name": "Prox1, a gene of the phantom",
        "plane": "coronal",
        "product": "Mouse Brain, Developing Mouse Brain",
        "specimen": "phantom-1",
        "specimen_id": 500_000_001,
        "age": "P56",
        "reference_space": 9,
        "section_thickness": 25.0,
        "failed": False,
    }


def test_what_the_service_does_not_say_is_missing(server):
    (row,) = atldld.search(plane="n/a", source=server.url).to_dict("records")
    assert (row["specimen"], row["age"]) == ("", "")
    assert pd.isna(row["reference_space"])
    assert math.isnan(row["section_thickness"])


@pytest.mark.parametrize("row_order", ["stored", "scrambled"])
def test_pages_come_together(row_order):
    doubts = Doubts(max_rows=2, row_order=row_order)
    with AllenServer(list(reversed(DATASETS)), doubts=doubts) as server:
        assert ids(server) == [1, 2, 3, 4, 5, 7, 8, 9]
        assert len(server.requests) == 4


def test_fewer_rows_than_promised_are_told_of():
    with (
        AllenServer(list(DATASETS), faults=[Fault("rows", rows=3)]) as server,
        pytest.warns(AtldldWarning, match="promised 11 rows of SectionDataSet and delivered 8"),
    ):
        assert len(ids(server)) == 8


def test_many_genes_cost_few_queries(server):
    server.reset_log()
    genes = [f"Gene{number}" for number in range(60)]
    assert ids(server, gene=["Prox1", "Prox2", "Calb1"]) == [1, 2, 3, 4]
    assert len(server.requests) == 1
    server.reset_log()
    assert ids(server, gene=[*genes[:49], "Prox1", *genes[49:]][:51]) == [1, 2]
    # Two lists, and one query for each gene that is perhaps only spelled otherwise.
    assert len(server.requests) == 2 + 50


@pytest.mark.parametrize(
    ("terms", "error", "said"),
    [
        ({"plane": "sagital"}, ValueError, r"plane is 'sagital'; did you mean 'sagittal'\?"),
        ({"plane": "horizontal"}, ValueError, "one of 'coronal', 'sagittal', 'transverse'"),
        ({"plane": 2}, TypeError, "plane is 2"),
        ({"failed": "no"}, TypeError, "failed is 'no'"),
        ({"gene": ""}, ValueError, "gene is ''"),
        ({"gene": []}, ValueError, "gene is an empty list"),
        ({"gene": 5}, TypeError, "gene is 5"),
        ({"gene": b"Prox1"}, TypeError, "gene is b'Prox1'"),
        ({"gene": "a" * 300}, ValueError, "1 to 200 characters"),
        ({"gene": "*" * 30}, ValueError, "at most 20"),
        ({"gene": "Prox1']"}, ValueError, r"put \* in their place"),
        ({"gene": ["Prox1", "x[id$eq1]"]}, ValueError, "brackets"),
        ({"specimen": 'a"b'}, ValueError, "specimen"),
        ({"product": "a\nb"}, ValueError, "product"),
        ({"dataset_id": "7"}, TypeError, "dataset_id is '7'"),
        ({"dataset_id": True}, TypeError, "dataset_id is True"),
        ({"dataset_id": -1}, ValueError, "dataset_id is -1"),
        ({"image_id": 2**63}, ValueError, "image_id"),
        ({"image_id": 1.0}, TypeError, "image_id is 1.0"),
    ],
    ids=str,
)
def test_terms_that_cannot_be_are_refused_before_anything_is_asked(server, terms, error, said):
    server.reset_log()
    with pytest.raises(error, match=said):
        atldld.search(source=server.url, **terms)
    assert not server.requests


def test_a_wrong_product_is_answered_with_the_right_ones(server):
    with pytest.raises(ValueError, match=r"'Mouse Brian'; did you mean 'Mouse Brain'\?") as caught:
        atldld.search(product="Mouse Brian", source=server.url)
    assert "'Developing Mouse Brain', 'Mouse Brain', 'Mouse Connectivity Proj" in str(caught.value)


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.text(max_size=12)
    | st.text(alphabet="'\"[]()$,:*&?#%+ =\\/;AB", min_size=1, max_size=12)
    | st.sampled_from(["'],rma::options[num_rows$eqall", "x&criteria=model::Gene", "a,b", "a)(b"])
)
@pytest.mark.filterwarnings("ignore:no gene here is called:atldld.AtldldWarning")
def test_no_name_changes_the_query(server, name):
    server.reset_log()
    try:
        found = atldld.search(gene=name, specimen=name, plane="coronal", source=server.url)
    except ValueError:
        assert not server.requests
        return
    name = name.strip()
    for request in server.requests:
        query = parse_stages(request.path.partition("criteria=")[2])
        if query.model == "Gene":
            (near,) = query.filters
            assert (near.column, near.operator) in [("acronym", "il"), ("alias_tags", "il")]
            assert {*near.value} <= {*name, "*"}
            assert query.criteria == query.include == ()
            continue
        assert query.model == "SectionDataSet"
        assert [(one.column, one.value) for one in query.filters] == [
            ("failed", "false"),
            ("plane_of_section_id", "1,11,531107579"),
        ]
        genes, specimen = query.criteria
        assert (genes.name, genes.inner) == ("genes", ())
        assert [(one.column, one.operator, one.value) for one in genes.filters] == [
            ("acronym", "il", name)
        ]
        assert (specimen.name, specimen.inner) == ("specimen", ())
        assert [one.value for one in specimen.filters] == [name]
        assert [node.name for node in query.include] == ["genes", "products", "specimen"]
        assert query.options == {"start_row": "0", "num_rows": "2000", "order": "'id'"} or (
            query.options == {"start_row": "0", "num_rows": "2000", "order": "id"}
        )
    assert all(fits(name, gene) for gene in found["gene"])


def test_a_service_that_finds_too_much_is_not_believed(serve):
    # As if it took % and _ for the wildcards that they are to its database.
    rows = [{"id": 1, "genes": [{"acronym": "H2-K1"}]}, {"id": 2, "genes": [{"acronym": "H2_K1"}]}]
    rows += [{"genes": [{"acronym": "H2_K1"}]}, {"id": "3; drop"}, {"id": None}]
    body = {"success": True, "start_row": 0, "num_rows": 5, "total_rows": 5, "msg": rows}
    server = serve(lambda _: answer(json.dumps(body).encode()))
    assert ids(server, gene="H2_K1") == [2]


def test_rows_of_any_kind_are_passed_over_or_shown(serve):
    odd = {
        "id": 3, "genes": [None, {"acronym": 5}, {"acronym": "A\x1b[31m\n"}], "products": "none",
        "specimen": [], "plane_of_section_id": "1", "section_thickness": -1, "failed": "f",
        "reference_space_id": 1e300,
    }  # fmt: skip
    body = {"success": True, "msg": [odd]}
    server = serve(lambda _: answer(json.dumps(body).encode()))
    (row,) = atldld.search(source=server.url).to_dict("records")
    assert (row["gene"], row["plane"], row["failed"]) == ("A?[31m?", "", False)


def test_a_service_that_refuses(serve):
    body = json.dumps({"success": False, "msg": "no"}).encode()
    server = serve(lambda _: answer(body))
    with pytest.raises(APIError, match="refused the query: no"):
        atldld.search("Prox1", source=server.url)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Return a bundle of dataset 1, and the cache folder that it was packed through."""
    folder = tmp_path_factory.mktemp("stored")
    with (
        AllenServer(list(DATASETS)) as server,
        atldld.set_options(cache_dir=folder / "cache", api_url=server.url),
    ):
        atldld.pack(1, folder / "one.zip", resolution=500)
        atldld.open_dataarray(2)
    (service,) = (each for each in (folder / "cache").iterdir() if (each / "datasets").is_dir())
    return folder / "one.zip", service


class TestStored:
    @pytest.mark.parametrize(
        ("terms", "found"),
        [
            ({}, True),
            ({"gene": "prox*", "plane": "coronal", "product": "DevMouse"}, True),
            ({"image_id": 1001, "specimen": "phantom-1", "dataset_id": 1}, True),
            ({"product": 1}, True),
            ({"gene": "Prox2"}, False),
            ({"plane": "sagittal"}, False),
            ({"product": "no such product"}, False),
            ({"image_id": 2001}, False),
            ({"failed": True}, False),
            ({"dataset_id": 2}, False),
        ],
        ids=str,
    )
    @pytest.mark.filterwarnings("ignore:no gene here is called:atldld.AtldldWarning")
    def test_a_bundle_answers_from_its_metadata(self, stored, terms, found):
        table = atldld.search(source=stored[0], **terms)
        assert table["dataset_id"].tolist() == [1] * found
        assert table.dtypes["reference_space"] == pd.Int64Dtype()

    def test_so_does_a_cache(self, stored):
        assert atldld.search(source=stored[1])["dataset_id"].tolist() == [1, 2]
        assert atldld.search(plane="sagittal", source=stored[1])["dataset_id"].tolist() == [2]

    def test_a_damaged_one_is_passed_over(self, stored, tmp_path):
        copy = shutil.copytree(stored[1], tmp_path / stored[1].name)
        (copy / "datasets" / "2.json").write_bytes(b"{}")
        with pytest.warns(AtldldWarning, match="passed over"):
            assert atldld.search(source=copy)["dataset_id"].tolist() == [1]

    def test_info_of_stored_ones(self, stored):
        for source in stored:
            info = atldld.dataset_info(1, source=source)
            assert (info.dataset_id, info.genes, len(info.images)) == (1, ("Prox1",), 2)


class TestInfo:
    def test_a_registered_dataset(self, server):
        info = atldld.dataset_info(2, source=server.url)
        sections = atldld.open_dataarray(2, source=server.url)
        table = info.to_dataframe()
        assert info.axis == "r"
        assert info.unregistered == ""
        assert sorted(table["r"]) == pytest.approx(sections.r.values, abs=1e-9)
        assert table["section_number"].is_monotonic_increasing
        assert {str(dtype) for dtype in table.dtypes} <= {"Int64", "int64", "float64", "bool"}
        assert "sagittal" in repr(info)
        assert "Prox1" in info._repr_html_()
        assert json.loads(json.dumps(info.to_dict()))["images"][0]["image_id"] == 2000

    def test_one_without_registration(self, server):
        info = atldld.dataset_info(8, source=server.url)
        assert "alignment3d" in info.unregistered or "section_thickness" in info.unregistered
        assert "cannot be opened" in repr(info)
        assert info.plane == "n/a"
        assert len(info.images) == 2
        assert "slice_coordinate" not in info.to_dataframe()
        assert json.loads(json.dumps(info.to_dict(), allow_nan=False))["section_thickness"] is None

    def test_failed_images_are_listed(self):
        dataset = a_dataset(1).altered(lambda row: row["section_images"][0].update(failed=True))
        with AllenServer([dataset]) as server:
            table = atldld.dataset_info(1, source=server.url).to_dataframe()
        assert table["failed"].tolist() == [True, False]
        assert table["p"].isna().tolist() == [True, False]

    def test_images_of_any_kind(self, serve):
        images = [None, "x", {"id": None}, {"id": 7}, {"id": 8, "section_number": 1e99, "x": []}]
        row = {
            "id": 3,
            "genes": [{"acronym": "<b>&", "name": "<script>"}],
            "section_images": images,
        }
        body = {"success": True, "msg": [row]}
        server = serve(lambda _: answer(json.dumps(body).encode()))
        info = atldld.dataset_info(3, source=server.url)
        assert info.to_dataframe()["image_id"].tolist() == [7, 8]
        assert info.to_dataframe()["section_number"].isna().all()
        assert "<script>" not in info._repr_html_()
        assert "&lt;b&gt;" in info._repr_html_()

    @pytest.mark.parametrize("wrong", ["1", 1.0, True, None, -1, [1]])
    def test_ids_are_whole_numbers(self, server, wrong):
        server.reset_log()
        with pytest.raises((TypeError, ValueError), match="dataset_id"):
            atldld.dataset_info(wrong, source=server.url)
        assert not server.requests

    def test_there_is_none(self, server):
        with pytest.raises(DatasetNotFoundError, match="77"):
            atldld.dataset_info(77, source=server.url)


def test_a_source_that_cannot_be_searched(server):
    class Plain:
        name = "plain"

        def dataset(self, dataset_id): ...
        def image(self, read): ...
        def discard(self, read): ...
        def url(self, read): ...
        def __dask_tokenize__(self): ...

    with pytest.raises(TypeError, match="plain cannot be searched"):
        atldld.search("Prox1", source=Plain())


def test_every_plane_can_be_looked_for():
    for name in PLANE_NAMES:
        assert SearchTerms.checked(plane=name.upper()).plane_ids


@given(st.text(alphabet="ab*", max_size=8), st.text(alphabet="abAB", max_size=8))
def test_wildcards_are_those_of_the_stand_in(term, text):
    import re

    pattern = ".*".join(map(re.escape, term.split("*")))
    assert fits(term, text) == bool(re.fullmatch(pattern, text, re.IGNORECASE))


def test_the_recorded_dataset(real):
    with AllenServer([load_recorded(real / "69289763")]) as server:
        table = atldld.search(dataset_id=69289763, product="DevMouse", source=server.url)
        info = atldld.dataset_info(69289763, source=server.url)
    assert table["section_thickness"].tolist() == [25.0]
    assert len(info.images) == 18
    assert info.to_dataframe()["r"].is_monotonic_increasing
    assert info.unregistered == ""
