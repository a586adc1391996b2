"""Many datasets as one tree: each as it is opened alone, and as lazily."""

from __future__ import annotations

import pickle

import pytest
import xarray as xr

import atldld
from atldld.errors import AtldldWarning, DatasetNotFoundError, RegistrationError
from atldld.testing import AllenServer, Fault, phantom_dataset

OPTIONS = {"resolution": 400}


def a_dataset(dataset_id, plane="coronal", gene="Prox1"):
    return phantom_dataset(dataset_id, plane, gene=gene, sections=3, resolution=64)


def unplaced(dataset_id):
    return a_dataset(dataset_id).altered(lambda row: row.update(alignment3d=None))


@pytest.fixture(scope="module")
def server():
    datasets = [
        a_dataset(1),
        a_dataset(2, "sagittal"),
        a_dataset(3, gene="H2/K*, ../x"),
        a_dataset(4, gene=()),
        a_dataset(5, gene=("Calb1", "Pvalb")),
        unplaced(6).altered(lambda row: row.update(genes=[{"acronym": "Lost"}])),
    ]
    with AllenServer(datasets) as running:
        yield running


def test_a_node_holds_what_open_dataset_returns(server):
    tree = atldld.open_datatree([2, 1], source=server.url, **OPTIONS)
    assert list(tree) == ["Prox1_2", "Prox1_1"]
    for number in (1, 2):
        alone = atldld.open_dataset(number, source=server.url, **OPTIONS)
        node = tree[f"Prox1_{number}"].to_dataset()
        assert node.chunksizes == alone.chunksizes
        assert dict(node.xindexes).keys() == dict(alone.xindexes).keys()
        xr.testing.assert_identical(node.compute(), alone.compute())


def test_what_nodes_share_cannot_be_changed_in_one_of_them(server):
    tree = atldld.open_datatree([1, 3], source=server.url, **OPTIONS)
    one, two = (node.to_dataset() for node in tree.leaves)
    one.y.attrs["units"] = one.i.attrs["units"] = one.channel.attrs["long_name"] = "other"
    assert two.y.attrs["units"] == two.i.attrs["units"] == "µm"
    assert two.channel.attrs["long_name"] == "colour channel"
    with pytest.raises(ValueError, match="read-only"):
        one.i.values[:] = 0
    again = atldld.open_dataset(1, source=server.url, **OPTIONS)
    assert again.y.attrs == two.y.attrs
    assert again.channel.attrs == two.channel.attrs


def test_names_are_safe(server):
    tree = atldld.open_datatree([1, 3, 4, 5, 1], source=server.url, **OPTIONS)
    assert list(tree) == ["Prox1_1", "H2-K-x_3", "dataset_4", "Calb1-Pvalb_5"]
    assert [node.path for node in tree.leaves] == [f"/{name}" for name in tree]


def test_by_gene_and_plane(server):
    assert list(atldld.open_datatree(gene="prox*", source=server.url, **OPTIONS)) == [
        "Prox1_1",
        "Prox1_2",
    ]
    found = atldld.open_datatree(gene="Prox1", plane="sagittal", source=server.url, **OPTIONS)
    assert list(found) == ["Prox1_2"]


def test_pixels_wait_until_they_are_asked_for(server):
    server.reset_log()
    tree = atldld.open_datatree([1, 2], source=server.url, include_expression=True, **OPTIONS)
    repr(tree), tree._repr_html_()
    means = tree.map_over_datasets(lambda node: node.mean("section") if "section" in node else node)
    assert len(server.requests) == 2
    assert not server.image_requests
    means["Prox1_1"].to_dataset().image.compute()
    assert {request.image_id for request in server.image_requests} == {1000, 1001, 1002}
    assert {request.view for request in server.image_requests} == {"image"}


def test_it_pickles_and_computes(server):
    tree = atldld.open_datatree([1, 2], source=server.url, **OPTIONS)
    again = pickle.loads(pickle.dumps(tree)).compute()
    xr.testing.assert_identical(again, tree.compute())


class TestFailing:
    def test_an_error_says_which_dataset_it_was(self, server):
        with pytest.raises(RegistrationError, match="dataset 6") as caught:
            atldld.open_datatree([1, 6, 2], source=server.url, **OPTIONS)
        assert "on_dataset_error='skip'" in caught.value.__notes__[0]

    def test_so_does_one_that_names_no_dataset_itself(self, server):
        with pytest.raises(ValueError, match="grid point") as caught:
            atldld.open_datatree([1, 2], source=server.url, resolution=400, region={"i": (1, 2)})
        assert caught.value.__notes__ == ["while opening dataset 1"]

    def test_it_can_be_left_out(self, server):
        with pytest.warns(AtldldWarning, match="dataset 6 is left out: .*alignment3d"):
            tree = atldld.open_datatree(
                [6, 1], on_dataset_error="skip", source=server.url, **OPTIONS
            )
        assert list(tree) == ["Prox1_1"]

    def test_a_service_that_fails_for_one(self):
        faults = [Fault("404", request="metadata", path="/2.json")]
        with AllenServer([a_dataset(1), a_dataset(2)], faults=faults) as server:
            with pytest.raises(DatasetNotFoundError, match="no section dataset 2"):
                atldld.open_datatree([1, 2], source=server.url, **OPTIONS)
            with pytest.warns(AtldldWarning, match="dataset 2 is left out"):
                tree = atldld.open_datatree(
                    [1, 2], on_dataset_error="skip", source=server.url, **OPTIONS
                )
        assert list(tree) == ["Prox1_1"]

    def test_nothing_is_found(self, server):
        with (
            pytest.warns(AtldldWarning, match="did you mean 'Prox1'"),
            pytest.raises(DatasetNotFoundError, match="gene='Prox9'"),
        ):
            atldld.open_datatree(gene="Prox9", source=server.url)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({}, ValueError, "nothing to open"),
        ({"dataset_ids": [1], "gene": "Prox1"}, ValueError, "leave out gene"),
        ({"dataset_ids": []}, ValueError, "empty list"),
        ({"dataset_ids": ["1"]}, TypeError, "dataset_id is '1'"),
        ({"dataset_ids": list(range(2000))}, ValueError, "2000 datasets, more than 1000"),
        ({"dataset_ids": 1, "resolutoin": 25}, TypeError, "did you mean 'resolution'"),
        ({"dataset_ids": 1, "on_dataset_error": "fill"}, ValueError, "'raise', 'skip'"),
        ({"plane": "sagital"}, ValueError, "did you mean 'sagittal'"),
        ({"dataset_ids": 1, "resolution": -1}, ValueError, "resolution is -1"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_before_anything_is_asked(server, arguments, error, said):
    server.reset_log()
    with pytest.raises(error, match=said):
        atldld.open_datatree(source=server.url, **arguments)
    assert not server.requests
