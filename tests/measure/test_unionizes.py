"""Allen's published values per structure, over the stand-in service."""

import numpy as np
import pytest

import atldld
from atldld.errors import APIError, AtldldWarning
from atldld.testing import AllenServer, Doubts, Fault


def served(dataset_id, structures):
    return {
        "id": dataset_id,
        "structure_unionizes": [
            {
                "id": dataset_id * 10_000 + structure,
                "section_data_set_id": dataset_id,
                "structure_id": structure,
                "expression_energy": dataset_id + structure / 1000,
                "expression_density": None,
                "sum_pixels": 1e9 + structure,
                "structure": {
                    "id": structure,
                    "acronym": f"s{structure}",
                    "name": f"box {structure}",
                },
            }
            for structure in structures
        ],
    }


def test_one_frame_of_all_pages():
    sets = [served(7, range(1, 900)), served(3, range(5, 700))]
    with AllenServer(sets, doubts=Doubts(max_rows=100)) as server:
        table = atldld.unionizes([7, 3], source=server.url)
        assert len(server.requests) > 10
    assert len(table) == 899 + 695
    assert table.dataset_id.unique().tolist() == [7, 3]
    mine = table[table.dataset_id == 3]
    assert mine.structure_id.tolist() == list(range(5, 700))
    assert mine.expression_energy.tolist() == [3 + n / 1000 for n in range(5, 700)]
    assert mine.acronym.iloc[0] == "s5"
    assert mine.name.iloc[0] == "box 5"
    assert table.expression_density.isna().all()
    assert table.voxel_energy_mean.dtype == np.float64


def test_many_datasets_take_several_queries():
    sets = [served(n, [1, 2]) for n in range(1, 121)]
    with AllenServer(sets) as server:
        table = atldld.unionizes(range(1, 121), source=server.url)
        assert len(server.requests) == 3
    assert len(table) == 240


def test_datasets_without_values_are_named():
    with AllenServer([served(7, [1]), {"id": 8}]) as server:
        with pytest.warns(AtldldWarning, match="datasets 8, 9"):
            table = atldld.unionizes([8, 7, 9], source=server.url)
        with pytest.warns(AtldldWarning, match="datasets 8$"):
            empty = atldld.unionizes(8, source=server.url)
    assert table.dataset_id.tolist() == [7]
    assert len(empty) == 0
    assert list(empty.columns) == list(table.columns)


def test_failures_are_those_of_the_service():
    with (
        AllenServer([served(7, [1])], faults=[Fault("500", request="metadata")]) as server,
        atldld.set_options(retries=0),
        pytest.raises(APIError, match="500"),
    ):
        atldld.unionizes([7], source=server.url)
    for ids, error in [
        ([], ValueError),
        ([7, 7], ValueError),
        ("7", TypeError),
        ([1.5], TypeError),
    ]:
        with pytest.raises(error):
            atldld.unionizes(ids, source="http://127.0.0.1:9")
