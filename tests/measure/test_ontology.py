"""Structures by name: Allen's own annotations and ontology, fetched and kept."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import atldld
from atldld.errors import APIError
from atldld.testing import AllenServer, Fault, phantom_dataset
from atldld.testing.archive import (
    STRUCTURES,
    archive_file,
    grid_labels,
    ontology,
    structure_at,
)

PHANTOM = phantom_dataset(71, sections=6, resolution=40, tier_count=4, seed=1)


@pytest.fixture(scope="module")
def server():
    with AllenServer([PHANTOM]) as running:
        yield running


@pytest.fixture(autouse=True)
def cache(server, tmp_path):
    with atldld.set_options(cache_dir=tmp_path, api_url=server.url):
        server.reset_log()
        yield tmp_path


def paths(server):
    return [each.path.partition("?")[0] for each in server.requests]


class TestTheOntology:
    def test_every_structure_with_its_path_and_colour(self, server):
        table = atldld.structures()
        assert list(table) == ["id", "acronym", "name", "parent", "path", "colour"]
        assert len(table) == len(STRUCTURES)
        row = table[table.acronym == "DG-sg"].iloc[0]
        assert (row.id, row["name"], row.parent) == (632, "Dentate gyrus, granule cell layer", 726)
        assert row.path == "/997/8/567/688/1089/1080/726/632/"
        assert row.colour == "#66A83D"
        assert table.parent.isna().tolist() == [True] + [False] * (len(table) - 1)

    def test_it_is_asked_for_once(self, server):
        first = atldld.structures()
        assert paths(server) == ["/api/v2/structure_graph_download/1.json"]
        pd.testing.assert_frame_equal(atldld.structures(), first)
        assert len(server.requests) == 1

    def test_an_answer_that_is_none_is_refused(self, tmp_path):
        with (
            AllenServer(structures=b'{"success": false, "msg": "no such graph"}') as broken,
            atldld.set_options(retries=0, cache_dir=tmp_path / "other"),
            pytest.raises(APIError, match="holds no structures"),
        ):
            atldld.structures(source=broken.url)


class TestAnnotationsByName:
    @pytest.mark.parametrize(
        ("name", "resolution", "space", "shape", "origin"),
        [
            ("P56", 200, 9, (67, 41, 58), "node"),
            ("CCFv3", 100, "CCFv3", (132, 80, 114), "centre"),
            ("ccfv3", 50, "CCFv3", (264, 160, 228), "centre"),
        ],
    )
    def test_they_are_fetched_and_kept(self, server, name, resolution, space, shape, origin):
        annotation = atldld.open_annotation(name, resolution=resolution)
        assert annotation.shape == shape
        assert annotation.attrs["reference_space"] == space
        assert annotation.attrs["origin"] == origin
        assert len(server.requests) == 2
        again = atldld.open_annotation(name, resolution=resolution)
        xr.testing.assert_identical(again, annotation)
        assert len(server.requests) == 2

    def test_labels_lie_where_the_atlas_has_them(self, server):
        for name, resolution, shift in (("P56", 200, 0), ("CCFv3", 100, 300)):
            annotation = atldld.open_annotation(name, resolution=resolution)
            for p, i, r in ((1500, 4100, 6500), (11100, 2700, 5300), (6700, 3700, 7100)):
                found = annotation.sel(p=p, i=i, r=r, method="nearest")
                at = [float(found[axis]) for axis in "pir"]
                assert int(found) == int(structure_at(at[0] - shift, *at[1:], reach=0)), name

    @pytest.mark.exhaustive
    def test_25_microns_by_default(self, server):
        annotation = atldld.open_annotation("P56")
        assert annotation.shape == (528, 320, 456)
        assert float(annotation.p[0]) == 12.5
        with pytest.raises(ValueError, match="P56 is to be had at 25, 200 microns"):
            atldld.open_annotation("P56", resolution=100)

    def test_a_name_is_never_laid_into_the_other_space(self, server):
        server.reset_log()
        with pytest.raises(ValueError, match="'CCFv3', but the annotation P56 lies in space 9"):
            atldld.open_annotation("P56", reference_space="CCFv3")
        with pytest.raises(ValueError, match="the annotation CCFv3 lies in CCFv3"):
            atldld.open_annotation("CCFv3", reference_space=9)
        with pytest.raises(ValueError, match="origin, spacing and axes are of files"):
            atldld.open_annotation("P56", origin="centre")
        assert server.requests == []
        p56, ccf = (atldld.open_annotation(name, resolution=step)
                    for name, step in (("P56", 200), ("CCFv3", 100)))  # fmt: skip
        with pytest.raises(ValueError, match="cannot be combined"):
            p56 + ccf

    def test_a_damaged_file_is_fetched_again_or_named(self, server, tmp_path):
        path = "mouse_annotation/P56_Mouse_gridAnnotation.zip"
        good = archive_file(path)
        torn = {path: good[: len(good) // 2] + bytes(100) + good[len(good) // 2 + 100 :]}
        with (
            AllenServer(archive=torn) as broken,
            atldld.set_options(retries=0),
            pytest.raises(APIError, match="zip"),
        ):
            atldld.open_annotation("P56", resolution=200, source=broken.url)
        nrrd = "mouse_ccf/annotation/ccf_2017/annotation_100.nrrd"
        for body in (b"<html>busy</html>", archive_file(nrrd)[:-1000]):
            with (
                AllenServer(archive={nrrd: body}) as broken,
                atldld.set_options(retries=0),
                pytest.raises(APIError, match="NRRD"),
            ):
                atldld.open_annotation("CCFv3", resolution=100, source=broken.url)
        with AllenServer(faults=[Fault("503", times=1)]) as shaky:
            assert atldld.open_annotation("P56", resolution=200, source=shaky.url).size == 159_326

    def test_allens_own_host_has_the_archive_elsewhere(self):
        from atldld.source.archives import annotation_url

        url = annotation_url("https://api.brain-map.org/api/v2", "P56", 200)
        assert url == (
            "https://download.alleninstitute.org/informatics-archive/current-release/"
            "mouse_annotation/P56_Mouse_gridAnnotation.zip"
        )
        assert annotation_url("http://127.0.0.1:8000/api/v2", "CCFv3", 10).startswith(
            "http://127.0.0.1:8000/informatics-archive/"
        )


class TestNamesWhereIdsAre:
    @pytest.fixture
    def annotation(self, server):
        return atldld.open_annotation("P56", resolution=200)

    @pytest.fixture
    def values(self, annotation):
        random = np.random.default_rng(3)
        return annotation.copy(data=random.random(annotation.shape)).assign_attrs(reference_space=9)

    def test_tables_carry_names_and_count_parts(self, values, annotation):
        table = atldld.structure_table(values, annotation)
        assert table.loc[549, ["acronym", "name"]].tolist() == ["TH", "Thalamus"]
        parts = np.isin(annotation, [1080, 726, 632])
        assert table.loc[1080, "size"] == parts.sum()
        assert table.loc[1080, "mean"] == pytest.approx(values.values[parts].mean())
        alone = atldld.structure_table(values, annotation, tree=False)
        assert "acronym" not in alone
        assert alone.loc[1080, "size"] == (annotation.values == 1080).sum()

    @pytest.mark.parametrize("asked", [["TH", 1080], ["thalamus", "Hippocampal region"]])
    def test_rows_by_acronym_name_or_id(self, values, annotation, asked):
        table = atldld.structure_table(values, annotation, structures=asked)
        assert table.index.tolist() == [549, 1080]

    def test_bounds_by_acronym(self, annotation):
        by_name = atldld.structure_bounds("HPF", annotation)
        assert by_name == atldld.structure_bounds(1089, annotation)
        # The formation has no voxel of its own label: its parts are its box.
        assert by_name == atldld.structure_bounds("HIP", annotation)
        one = atldld.structure_bounds("DG-sg", annotation)
        assert one["i"][0] > by_name["i"][0]

    def test_pixels_of_a_structure_with_its_parts(self, annotation):
        sections = atldld.open_dataarray(71, resolution=200, masked=True).atlas.at(p=7900)
        by_name = sections.atlas.to_table(structure="HIP", annotation=annotation)
        assert set(by_name.structure_id) == {1080, 632}
        pd.testing.assert_frame_equal(
            by_name, sections.atlas.to_table(structure=[1080, 632], annotation=annotation)
        )
        opened = atldld.open_dataset(71, resolution=200, masked=True, annotation=annotation)
        from_dataset = opened.atlas.at(p=7900).atlas.to_table(structure="Hippocampal region")
        assert len(from_dataset) == len(by_name)

    def test_what_is_not_known_says_what_is_like_it(self, values, annotation):
        with pytest.raises(KeyError, match="no structure 'thalamos'; there is 'Thalamus'"):
            atldld.structure_bounds("thalamos", annotation)
        with pytest.raises(KeyError, match="no structure 'th'"):
            atldld.structure_table(values, annotation, structures=["th"])
        with pytest.raises(TypeError, match="id, acronym or name"):
            atldld.structure_bounds(3.5, annotation)

    def test_a_file_takes_names_from_the_ontology_where_they_are_asked_for(
        self, tmp_path, server, values
    ):
        path = tmp_path / "grid.zip"
        path.write_bytes(archive_file("mouse_annotation/P56_Mouse_gridAnnotation.zip"))
        annotation = atldld.open_annotation(path, reference_space=9)
        server.reset_log()
        table = atldld.structure_table(values, annotation)
        assert "acronym" not in table
        assert server.requests == []
        assert atldld.structure_bounds("TH", annotation) == atldld.structure_bounds(549, annotation)
        named = atldld.structure_table(values, annotation, tree=atldld.structures())
        assert named.loc[8, "acronym"] == "grey"
        with pytest.raises(TypeError, match="does not say its space"):
            atldld.open_annotation(path)

    def test_measures_by_acronym(self, annotation):
        measured = atldld.quantify(71)
        table = atldld.structure_measures(measured, annotation, structures=["Isocortex"])
        assert table.index.tolist() == [315]
        assert table.acronym.tolist() == ["Isocortex"]
        cells = measured.compute().where(annotation == 315)
        assert table.n_pixels.tolist() == [float(cells.n_pixels.sum())]

    def test_names_are_there_without_the_service(self, tmp_path):
        with AllenServer() as shortly, atldld.set_options(cache_dir=tmp_path / "kept"):
            annotation = atldld.open_annotation("P56", resolution=200, source=shortly.url)
        with atldld.set_options(cache_dir=tmp_path / "kept", retries=0):
            assert atldld.structure_bounds("TH", annotation)["p"][0] == 6100.0


def test_the_stand_in_serves_what_its_module_has():
    assert json.loads(ontology())["msg"][0]["acronym"] == "root"
    assert grid_labels().shape == (67, 41, 58)
