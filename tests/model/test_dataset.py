"""Datasets from rows of the service, in every shape and state in which they come."""

from __future__ import annotations

import copy
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atldld.errors import AtldldWarning, RegistrationError
from atldld.model.dataset import SectionDataset
from atldld.model.sections import tabulate

TRV = [
    [0.01, 0.02, 0.99, 12.0],
    [-0.03, 0.98, 0.01, -250.0],
    [0.97, 0.03, -0.01, 300.0],
]
TVS = [[0.95, 0.02, -400.0], [-0.02, 0.95, -200.0]]


def entries(name, matrix):
    """Number the entries of a matrix as the service does."""
    linear = [value for row in matrix for value in row[:-1]]
    return {f"{name}_{k:02d}": v for k, v in enumerate(linear + [row[-1] for row in matrix])}


def inverse(matrix):
    square = np.array(matrix)
    back = np.linalg.inv(square[:, :-1])
    return np.concatenate([back, -back @ square[:, -1:]], axis=1).tolist()


def image_row(image_id=1, section_number=10, **columns):
    return {
        "id": image_id, "data_set_id": 5, "section_number": section_number,
        "width": 9001, "height": 6705, "x": 0, "y": 0, "image_width": 9001,
        "image_height": 6705, "tier_count": 7, "resolution": 1.049, "failed": False,
        "expression_path": "/a/b.aff",
        "alignment2d": {**entries("tvs", TVS), **entries("tsv", inverse(TVS))},
    } | columns  # fmt: skip


def dataset_row(images=None, **columns):
    return {
        "id": 5, "plane_of_section_id": 1, "reference_space_id": 9, "section_thickness": 25.0,
        "failed": False, "red_channel": None, "green_channel": None, "blue_channel": None,
        "alignment3d": {**entries("trv", TRV), **entries("tvr", inverse(TRV))},
        "genes": [{"acronym": "Prox1"}], "products": [{"id": 1, "name": "Mouse Brain"}],
        "specimen": {"name": "05-0660", "hemisphere": "(none)", "donor": {"age": {"name": "P56"}}},
        "equalization": None, "treatments": [{"name": "ISH"}],
        "section_images": [image_row(1, 10), image_row(2, 18)] if images is None else images,
    } | columns  # fmt: skip


def without(row, *fields):
    return {name: value for name, value in row.items() if name not in fields}


def with_alignment(row, field, **changes):
    return {**row, field: {**row[field], **changes}}


class TestRealMetadata:
    @pytest.fixture
    def row(self):
        default = Path(__file__).parents[2].parent / "shared" / "real"
        file = Path(os.environ.get("ATLDLD_REAL_DATA", default)) / "69289763" / "query.json"
        if not file.is_file():
            pytest.skip(f"no recorded metadata at {file}; set ATLDLD_REAL_DATA")
        return json.loads(file.read_text())["msg"][0]

    def test_everything_is_read_and_nothing_warned_of(self, row):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dataset = SectionDataset.from_rows(row)
        assert dataset.id == 69289763
        assert dataset.plane.name == "sagittal"
        assert (dataset.plane_of_section_id, dataset.reference_space) == (2, 10)
        assert dataset.section_thickness == 25
        assert dataset.genes == ("Prox1",)
        assert dataset.age == "P56"
        assert dataset.hemisphere == "left"
        assert not dataset.fluorescent
        numbers = [image.section_number for image in dataset.images]
        assert numbers == [n for n in range(6, 159, 8) if n not in (94, 110)]
        image = dataset.images[numbers.index(70)]
        assert (image.id, image.width, image.height) == (69177654, 11921, 7553)
        assert all(image.tier_count == 7 for image in dataset.images)

    def test_tier_counts_follow_the_rule_where_they_are_null(self, row):
        for image in row["section_images"]:
            image["tier_count"] = None
        dataset = SectionDataset.from_rows(row)
        assert all(image.tier_count == 7 for image in dataset.images)


class TestShapes:
    def test_one_query_and_two_give_the_same(self):
        row = dataset_row()
        images = row.pop("section_images")
        assert SectionDataset.from_rows({**row, "section_images": images}) == (
            SectionDataset.from_rows(row, images)
        )
        assert SectionDataset.from_rows(row, iter(images)).images

    def test_matrices_stand_as_the_service_numbers_them(self):
        row = dataset_row()
        row["alignment3d"] = {
            f"trv_{k:02d}": float(v) for k, v in enumerate([0, 0, 1, 0, 1, 0, 1, 0, 0, 30, 31, 32])
        } | {
            f"tvr_{k:02d}": float(v)
            for k, v in enumerate([0, 0, 1, 0, 1, 0, 1, 0, 0, -32, -31, -30])
        }
        row["section_images"][0]["alignment2d"] = {
            "tvs_00": 1.0, "tvs_01": 2.0, "tvs_02": 3.0, "tvs_03": 4.0, "tvs_04": 50.0,
            "tvs_05": 60.0, "tsv_00": -2.0, "tsv_01": 1.0, "tsv_02": 1.5, "tsv_03": -0.5,
            "tsv_04": 40.0, "tsv_05": -45.0,
        }  # fmt: skip
        dataset = SectionDataset.from_rows(row)
        np.testing.assert_array_equal(
            dataset.matrix("trv"), [[0, 0, 1, 30], [0, 1, 0, 31], [1, 0, 0, 32]]
        )
        assert dataset.matrix("tvr").dtype == np.float64
        assert dataset.images[0].tvs == ((1, 2, 50), (3, 4, 60))

    def test_images_come_ascending_by_number_then_id(self):
        images = [image_row(3, 18), image_row(9, 2), image_row(1, 18), image_row(4, 0)]
        dataset = SectionDataset.from_rows(dataset_row(images))
        assert [(i.section_number, i.id) for i in dataset.images] == [
            (0, 4), (2, 9), (18, 1), (18, 3)
        ]  # fmt: skip

    def test_number_0_gaps_and_two_images_with_one_number(self):
        images = [image_row(1, 0), image_row(2, 7), image_row(3, 7), image_row(4, 500)]
        dataset = SectionDataset.from_rows(dataset_row(images))
        where = tabulate(dataset).slice_coordinate
        assert len(np.unique(where)) == 4
        assert np.all(np.diff(where) > 0)

    def test_nulls_among_the_images_are_passed_over(self):
        images = [None, image_row(1), None, image_row(2)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for dataset in (
                SectionDataset.from_rows(dataset_row(images)),
                SectionDataset.from_rows(dataset_row([]), images),
            ):
                assert [image.id for image in dataset.images] == [1, 2]

    def test_sections_of_one_slide_keep_their_own_rectangles(self):
        slide = {"image_width": 19200, "image_height": 38272, "tier_count": 9}
        images = [
            image_row(1, 1, width=10992, height=7296, x=3248, y=20688, **slide),
            image_row(2, 2, width=10993, height=7297, x=3008, y=30592, **slide),
        ]
        dataset = SectionDataset.from_rows(dataset_row(images))
        found = [(i.width, i.height, i.x, i.y, i.tier_count) for i in dataset.images]
        assert found == [(10992, 7296, 3248, 20688, 9), (10993, 7297, 3008, 30592, 9)]

    def test_the_tier_count_of_a_slide_follows_the_slide(self):
        images = [image_row(1, 1, tier_count=None, image_width=19200, image_height=38272)]
        assert SectionDataset.from_rows(dataset_row(images)).images[0].tier_count == 9

    @pytest.mark.parametrize(
        ("sides", "count"), [((14001, 7601), 7), ((256, 100), 1), ((257, 9), 2), ((1, 1), 1)]
    )
    def test_odd_and_small_sizes(self, sides, count):
        images = [without(
            image_row(1, 1, width=sides[0], height=sides[1]),
            "tier_count", "image_width", "image_height",
        )]  # fmt: skip
        image = SectionDataset.from_rows(dataset_row(images)).images[0]
        assert (image.width, image.height, image.tier_count) == (*sides, count)

    @pytest.mark.parametrize("resolution", [None, 0, -1, "1.049", float("nan"), [], 10**400])
    def test_a_resolution_that_says_nothing_costs_no_image(self, resolution):
        dataset = SectionDataset.from_rows(dataset_row([image_row(1, resolution=resolution)]))
        assert dataset.images[0].resolution is None

    def test_null_genes_products_and_paths(self):
        images = [image_row(1, 1, expression_path=None, resolution=None, x=None, y=None)]
        row = dataset_row(
            images, genes=None, products=None, specimen=None, treatments=None, failed=None
        )
        for absent in (row, without(row, "genes", "products", "specimen", "failed")):
            dataset = SectionDataset.from_rows(absent)
            assert dataset.genes == dataset.products == ()
            assert dataset.specimen is None
            assert dataset.age is None
            assert not dataset.failed
            image = dataset.images[0]
            assert not image.has_expression
            assert (image.resolution, image.x, image.y) == (None, 0, 0)

    def test_nulls_inside_associations(self):
        row = dataset_row(genes=[None, {"acronym": None}, {"acronym": "A"}, {}, {"acronym": ""}])
        row["specimen"] = {"name": None, "donor": {"age": None}}
        dataset = SectionDataset.from_rows(row)
        assert dataset.genes == ("A",)
        assert dataset.specimen is dataset.age is None

    def test_genes_may_be_none_at_all_for_connectivity_data(self):
        row = dataset_row(genes=[], products=[{"id": 5, "name": "Mouse Connectivity Projection"}])
        assert SectionDataset.from_rows(row).fluorescent

    @pytest.mark.parametrize(
        "signs", [{"red_channel": "x"}, {"green_channel": "y"}, {"equalization": {"id": 1}}]
    )
    def test_fluorescence_shows_in_channels_and_equalization(self, signs):
        assert SectionDataset.from_rows(dataset_row(**signs)).fluorescent
        assert not SectionDataset.from_rows(dataset_row()).fluorescent


class TestLeftOut:
    """One unusable image does not lose the dataset; a warning names it."""

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"alignment2d": None}, "alignment2d is null or absent"),
            ({"alignment2d": []}, r"alignment2d is \[\]"),
            ({"failed": True}, "failed quality control"),
            ({"failed": "true"}, "failed quality control"),
            ({"width": 0}, "width is 0; it must be a whole number of at least 1"),
            ({"width": None}, "width is None"),
            ({"height": -3}, "height is -3"),
            ({"height": 10.5}, "height is 10.5"),
            ({"width": 2**40}, "width"),
            ({"section_number": None}, "section_number is None"),
            ({"section_number": "70"}, "section_number is '70'"),
            ({"section_number": 2**60}, "section_number is 1152921504606846976"),
            ({"data_set_id": 6}, "data_set_id is 6, another dataset"),
            ({"x": -1}, "x is -1"),
            ({"x": 2**40}, "x is"),
            ({"y": 2**40}, "y is"),
            ({"tier_count": 0}, "tier_count is 0"),
            ({"tier_count": 40_000}, "tier_count is 40000"),
        ],
    )
    def test_the_image_and_the_field_are_named(self, changes, said):
        images = [image_row(1), image_row(222, 18) | changes]
        with pytest.warns(AtldldWarning, match=rf"dataset 5, image 222: {said}"):
            dataset = SectionDataset.from_rows(dataset_row(images))
        assert [image.id for image in dataset.images] == [1]
        tabulate(dataset)

    def test_a_missing_alignment_reads_as_a_null_one(self):
        images = [image_row(1), without(image_row(222, 18), "alignment2d")]
        with pytest.warns(AtldldWarning, match="image 222: alignment2d is null or absent"):
            SectionDataset.from_rows(dataset_row(images))

    @pytest.mark.parametrize(
        "value", [None, "1.0", float("nan"), float("inf"), True, [1], 10**400, -2e9]
    )
    @pytest.mark.parametrize("name", ["tvs", "tsv"])
    @pytest.mark.parametrize("place", range(6))
    def test_every_entry_of_the_matrices_is_checked(self, value, name, place):
        entry = f"{name}_{place:02d}"
        images = [image_row(1), with_alignment(image_row(222, 18), "alignment2d", **{entry: value})]
        with pytest.warns(AtldldWarning, match=f"image 222: alignment2d.{entry} is"):
            SectionDataset.from_rows(dataset_row(images))

    @pytest.mark.parametrize(
        "matrix",
        [
            [[1, 2, 3], [2, 4, 5]],
            [[0, 0, 3], [0, 0, 5]],
            [[1e-200, 0, 0], [0, 1e-200, 0]],
            [[1e9, 1e9, 0], [1e9, 1e9, 0]],
        ],
    )
    def test_singular_matrices(self, matrix):
        for name in ("tvs", "tsv"):
            numbers = {key: float(value) for key, value in entries(name, matrix).items()}
            images = [image_row(1), with_alignment(image_row(222, 18), "alignment2d", **numbers)]
            with pytest.warns(AtldldWarning, match=f"image 222: alignment2d.{name} is singular"):
                SectionDataset.from_rows(dataset_row(images))

    @pytest.mark.parametrize(
        "matrix", [TVS, [[1e9, 0.0, 0.0], [0.0, 1e9, 0.0]], [[1.0, 0.0, 1e9], TVS[1]]]
    )
    def test_a_matrix_that_is_not_the_inverse_of_the_other(self, matrix):
        wrong = with_alignment(image_row(222, 18), "alignment2d", **entries("tsv", matrix))
        with pytest.warns(AtldldWarning, match=r"image 222.*not each other's inverse"):
            SectionDataset.from_rows(dataset_row([image_row(1), wrong]))

    def test_rounding_to_six_digits_is_an_inverse(self):
        rounded = {k: float(f"{v:.6g}") for k, v in image_row()["alignment2d"].items()}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            SectionDataset.from_rows(dataset_row([image_row(1, alignment2d=rounded)]))

    def test_an_image_listed_twice(self):
        images = [image_row(1), image_row(1), image_row(2, 18), image_row(2, 26)]
        with pytest.warns(AtldldWarning, match="image 2: listed twice, not alike"):
            dataset = SectionDataset.from_rows(dataset_row(images))
        assert [image.id for image in dataset.images] == [1, 2]

    def test_images_that_failed_quality_control_are_set_aside(self):
        images = [image_row(2, 18, failed=True), image_row(3), image_row(1, 26, failed=True)]
        with pytest.warns(AtldldWarning) as warned:
            dataset = SectionDataset.from_rows(dataset_row(images))
        assert [str(warning.message) for warning in warned] == [
            f"section image set aside: dataset 5, image {n}: failed quality control" for n in (2, 1)
        ]
        assert [image.id for image in dataset.images] == [3]
        assert [image.id for image in dataset.failed_images] == [2, 1]

    def test_a_dataset_of_failed_images_only_is_refused(self):
        with pytest.raises(RegistrationError, match="image 1: failed quality control"):
            SectionDataset.from_rows(dataset_row([image_row(1, failed=True)]))

    def test_an_image_without_an_id(self):
        with pytest.warns(AtldldWarning, match="dataset 5, image None: id is None"):
            SectionDataset.from_rows(dataset_row([image_row(1), image_row(None)]))


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"id": None}, "dataset None: id is None"),
            ({"id": "5"}, "dataset '5': id is '5'"),
            ({"id": -1}, "dataset -1: id is -1"),
            ({"alignment3d": None}, "dataset 5: alignment3d is null or absent"),
            ({"section_thickness": None}, "dataset 5: section_thickness is None"),
            ({"section_thickness": 0}, "dataset 5: section_thickness is 0"),
            ({"section_thickness": -25}, "dataset 5: section_thickness is -25"),
            ({"section_thickness": float("nan")}, "dataset 5: section_thickness is nan"),
            ({"section_thickness": float("inf")}, "dataset 5: section_thickness is inf"),
            ({"section_thickness": 1e300}, "dataset 5: section_thickness is 1e[+]300"),
            ({"plane_of_section_id": "coronal"}, "dataset 5: plane_of_section_id is 'coronal'"),
            ({"reference_space_id": 9.5}, "dataset 5: reference_space_id is 9.5"),
            ({"section_images": []}, "dataset 5 has no usable section image: the service lists"),
            ({"section_images": None}, "dataset 5 has no usable section image"),
            ({"section_images": 7}, "dataset 5 has no usable section image"),
            ({"section_images": "none"}, "dataset 5 has no usable section image"),
        ],
    )
    def test_the_dataset_and_the_field_are_named(self, changes, said):
        with pytest.raises(RegistrationError, match=said):
            SectionDataset.from_rows(dataset_row() | changes)

    def test_a_missing_alignment_reads_as_a_null_one(self):
        with pytest.raises(RegistrationError, match="dataset 5: alignment3d is null or absent"):
            SectionDataset.from_rows(without(dataset_row(), "alignment3d"))

    @pytest.mark.parametrize("value", [None, "1.0", float("nan"), float("-inf"), False])
    @pytest.mark.parametrize("name", ["tvr", "trv"])
    @pytest.mark.parametrize("place", range(12))
    def test_every_entry_of_the_matrices_is_checked(self, value, name, place):
        entry = f"{name}_{place:02d}"
        row = with_alignment(dataset_row(), "alignment3d", **{entry: value})
        with pytest.raises(RegistrationError, match=f"dataset 5: alignment3d.{entry} is"):
            SectionDataset.from_rows(row)

    @pytest.mark.parametrize("scale", [1e-200, 1.0, 1e8])
    def test_a_singular_matrix(self, scale):
        matrix = np.array([[1, 2, 3, 0], [4, 5, 6, 0], [7, 8, 9, 0]]) * scale
        row = with_alignment(dataset_row(), "alignment3d", **entries("trv", matrix.tolist()))
        with pytest.raises(RegistrationError, match=r"dataset 5: alignment3d.trv is singular"):
            SectionDataset.from_rows(row)

    def test_matrices_that_are_not_each_others_inverse(self):
        row = with_alignment(dataset_row(), "alignment3d", **entries("tvr", TRV))
        with pytest.raises(RegistrationError, match=r"dataset 5.*not each other's inverse"):
            SectionDataset.from_rows(row)

    def test_reasons_are_given_where_no_image_is_left(self):
        images = [image_row(7, alignment2d=None), image_row(8, width=0)]
        with pytest.raises(RegistrationError) as raised:
            SectionDataset.from_rows(dataset_row(images))
        assert "image 7: alignment2d is null" in str(raised.value)
        assert "image 8: width is 0" in str(raised.value)

    def test_messages_stay_short_whatever_the_service_sent(self):
        long = "x" * 10**6
        for row in (
            dataset_row(id=long),
            dataset_row(alignment3d=long),
            dataset_row([image_row(1, width=long)]),
            dataset_row([image_row(1, alignment2d=[long])]),
            with_alignment(dataset_row(), "alignment3d", trv_00=long),
        ):
            with pytest.raises(RegistrationError) as raised:
                SectionDataset.from_rows(row)
            assert len(str(raised.value)) < 2000


class TestPlaneAndSpace:
    @pytest.mark.parametrize(
        ("plane_id", "said"),
        [
            (2, "its matrix says coronal, its plane of section says sagittal"),
            (9, "its plane of section says transverse"),
            (4, r"its plane of section \(4\) names none"),
            (777, r"its plane of section \(777\) names none"),
            (None, r"its plane of section \(None\) names none"),
        ],
    )
    def test_a_plane_that_disagrees_or_is_missing_is_a_warning(self, plane_id, said):
        with pytest.warns(AtldldWarning, match=f"dataset 5.*{said}"):
            dataset = SectionDataset.from_rows(dataset_row(plane_of_section_id=plane_id))
        assert dataset.plane.name == "coronal"
        assert dataset.plane_of_section_id == plane_id

    def test_another_reference_space_opens(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert SectionDataset.from_rows(dataset_row(reference_space_id=6)).reference_space == 6

    def test_an_unknown_reference_space_is_a_warning(self):
        for row in (
            dataset_row(reference_space_id=None), without(dataset_row(), "reference_space_id"),
        ):  # fmt: skip
            with pytest.warns(AtldldWarning, match="dataset 5: the reference space is not given"):
                assert SectionDataset.from_rows(row).reference_space is None

    @pytest.mark.parametrize(
        ("said", "space", "hemisphere"),
        [("left", 10, "left"), ("Right", 10, "right"), ("(none)", 9, "both"), (None, 9, "both")],
    )
    def test_the_hemisphere_of_the_tissue(self, said, space, hemisphere):
        row = dataset_row(reference_space_id=space, specimen={"hemisphere": said})
        assert SectionDataset.from_rows(row).hemisphere == hemisphere


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from([10**400, 2**53 + 1, -(2**70), 1e308, 5e-324, -0.0]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["id", "width", "alignment2d", "alignment3d", "section_images", "name", "donor",
             "age", "acronym", "tvs_00", "trv_08"]
        ) | st.text(max_size=3),
        inner, max_size=4,
    ),
    max_leaves=8,
)  # fmt: skip


def places(value, path=()):
    """Yield the paths of everything inside nested rows."""
    inner = (
        value.items() if isinstance(value, dict)
        else enumerate(value) if isinstance(value, list) else ()
    )  # fmt: skip
    for key, below in inner:
        yield (*path, key)
        yield from places(below, (*path, key))


PLACES = list(places(dataset_row()))


class TestHostile:
    """Whatever the service sends: a dataset whose table can be made, or a RegistrationError."""

    def opened(self, row, images=None):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", AtldldWarning)
            try:
                dataset = SectionDataset.from_rows(row, images)
            except RegistrationError:
                return
            table = tabulate(dataset)
        assert np.isfinite(table.affine).all()
        assert np.isfinite(table.slice_coordinate).all()
        assert len(table) == len(dataset.images) > 0
        hash(dataset)

    @given(JSON, st.none() | JSON)
    def test_any_json(self, row, images):
        self.opened(row, images)

    @given(st.dictionaries(st.sampled_from(sorted(dataset_row())), JSON))
    def test_any_columns_in_a_good_row(self, columns):
        self.opened(dataset_row() | columns)

    @given(st.dictionaries(st.sampled_from(sorted(image_row())), JSON))
    def test_any_columns_in_a_good_image(self, columns):
        self.opened(dataset_row([image_row(2, 18) | columns]))

    @settings(max_examples=300)
    @given(st.lists(st.tuples(st.sampled_from(PLACES), JSON), max_size=3), st.booleans())
    def test_anything_anywhere(self, changes, cut):
        row = copy.deepcopy(dataset_row())
        for path, value in changes:
            holder = row
            try:
                for key in path[:-1]:
                    holder = holder[key]
                if cut and isinstance(holder, dict):
                    holder.pop(path[-1], None)
                else:
                    holder[path[-1]] = value
            except (KeyError, IndexError, TypeError):
                continue  # an earlier change took the place away
        self.opened(row)

    @given(
        st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=24, max_size=24),
        st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=12, max_size=12),
    )
    def test_any_finite_matrices(self, three, two):
        row = dataset_row()
        names3 = [f"{n}_{k:02d}" for n in ("trv", "tvr") for k in range(12)]
        names2 = [f"{n}_{k:02d}" for n in ("tvs", "tsv") for k in range(6)]
        row["alignment3d"] = dict(zip(names3, three, strict=True))
        self.opened(row)
        row = dataset_row()
        row["section_images"][0]["alignment2d"] = dict(zip(names2, two, strict=True))
        self.opened(row)

    @given(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300))
    def test_matrices_of_any_scale(self, three, two):
        row = dataset_row()
        for holder, field, there, back, scale in (
            (row, "alignment3d", "trv", "tvr", three),
            (row["section_images"][0], "alignment2d", "tvs", "tsv", two),
        ):
            for name in holder[field]:
                factor = scale if name.startswith(there) else 1 / scale
                if name[:3] == back and int(name[4:]) >= len(holder[field]) // 2 * 3 // 4:
                    factor = 1.0
                holder[field][name] *= factor
        self.opened(row)

    def test_ten_thousand_images_without_an_alignment(self):
        images = [image_row(n, n, alignment2d=None) for n in range(10_000)]
        self.opened(dataset_row([*images, image_row(10_000)]))
        self.opened(dataset_row(images))
