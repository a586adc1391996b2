"""The documented sync interface, against a server that speaks the Allen API."""

from __future__ import annotations

import gc
import threading
import time

import numpy as np
import pytest

import atldld
import twins
from atldld import sync
from atldld.errors import (
    APIError,
    AtldldError,
    AtldldWarning,
    ImageError,
    RegistrationError,
)
from atldld.options import current, set_options
from atldld.reading import images
from atldld.sync import DatasetDownloader, DatasetNotFoundError
from atldld.testing import AllenServer, Fault, PhantomBrain, phantom_dataset

BRAIN = PhantomBrain(texture="smooth")


def phantom(dataset_id, plane, change=None, **options):
    made = phantom_dataset(
        dataset_id=dataset_id, plane=plane, brain=BRAIN,
        **{"sections": 4, "resolution": 16, "tier_count": 6, "seed": dataset_id} | options,
    )  # fmt: skip
    return made if change is None else made.altered(change)


def faulty(row):
    images = row["section_images"]
    images[1]["failed"] = True
    images[2]["expression_path"] = None
    images[3]["alignment2d"] = None


def reordered(row):
    images = row["section_images"]
    images[0]["section_number"] = images[2]["section_number"]
    images.reverse()
    row["plane_of_section_id"] = None


PHANTOMS = {
    "coronal": phantom(201, "coronal"),
    "sagittal": phantom(202, "sagittal"),
    "transverse": phantom(203, "transverse"),
    "faulty": phantom(204, "coronal", faulty),
    "reordered": phantom(205, "sagittal", reordered),
    "slides": phantom(207, "coronal", slides=True),
    "many": phantom(206, "coronal", sections=40, resolution=60, tier_count=2),
}


@pytest.fixture
def server(tmp_path):
    # One for each test: what a test left under way must not be counted by the next.
    with (
        AllenServer(list(PHANTOMS.values())) as running,
        set_options(api_url=running.url, cache_dir=tmp_path / "cache", retries=1, timeout=5),
    ):
        yield running
    assert running.errors == []


def fetched(name, **options):
    downloader = DatasetDownloader(PHANTOMS[name].id, **{"downsample_ref": 200} | options)
    downloader.fetch_metadata()
    return downloader


def numbers(downloader):
    return [image["section_number"] for image in downloader.metadata["images"]]


class TestNames:
    def test_the_documented_names_are_there(self):
        assert {
            "DatasetDownloader", "DatasetNotFoundError", "DisplacementField",
            "get_parallel_transform", "pir_to_xy", "xy_to_pir",
        } <= set(sync.__all__)  # fmt: skip
        assert all(getattr(sync, name).__doc__ for name in sync.__all__)
        assert sync.DisplacementField is atldld.DisplacementField
        assert sync.DatasetNotFoundError is atldld.DatasetNotFoundError
        assert issubclass(DatasetNotFoundError, AtldldError)

    def test_the_documented_defaults(self):
        downloader = DatasetDownloader(5)
        assert downloader.dataset_id == 5
        assert downloader.downsample_ref == 25
        assert downloader.detection_xy == (0, 0)
        assert downloader.include_expression is False
        assert downloader.downsample_img == 0
        assert downloader.metadata == {}
        positional = DatasetDownloader(5, 10, (3, 4), True, 2)
        assert positional.downsample_ref == 10
        assert positional.detection_xy == (3, 4)
        assert positional.include_expression is True
        assert positional.downsample_img == 2

    @pytest.mark.parametrize(
        ("wrong", "error", "said"),
        [
            ({"dataset_id": "5"}, TypeError, "dataset_id is '5'"),
            ({"dataset_id": -5}, ValueError, "dataset_id is -5"),
            ({"downsample_ref": 0}, ValueError, "downsample_ref is 0; it must be at least 1"),
            ({"downsample_ref": 2.5}, TypeError, "downsample_ref is 2.5"),
            ({"downsample_img": -1}, ValueError, "downsample_img is -1"),
            ({"downsample_img": True}, TypeError, "downsample_img is True"),
            ({"detection_xy": (1,)}, ValueError, r"detection_xy is \(1,\)"),
            ({"detection_xy": 3}, ValueError, "detection_xy is 3"),
            ({"detection_xy": (0, np.nan)}, ValueError, "detection_xy"),
            ({"detection_xy": "ab"}, ValueError, "detection_xy"),
            ({"on_error": "fill"}, ValueError, "it must be one of 'raise', 'skip'"),
        ],
    )
    def test_bad_arguments_are_named_with_the_remedy(self, wrong, error, said):
        with pytest.raises(error, match=said):
            DatasetDownloader(**{"dataset_id": 5} | wrong)


class TestMetadata:
    def test_it_is_empty_before_and_asks_nothing(self, server):
        downloader = DatasetDownloader(201)
        assert downloader.metadata == {}
        with pytest.raises(RuntimeError, match=r"dataset 201.*fetch_metadata"):
            len(downloader)
        with pytest.raises(RuntimeError, match="fetch_metadata"):
            next(downloader.run())
        assert repr(downloader) == "<DatasetDownloader of dataset 201: metadata not fetched>"
        assert server.requests == []

    @pytest.mark.parametrize("name", ["coronal", "sagittal", "transverse"])
    def test_keys_types_and_values(self, server, name):
        downloader = fetched(name)
        row = PHANTOMS[name].row
        assert set(downloader.metadata) == {"dataset", "images"}
        dataset = downloader.metadata["dataset"]
        assert set(dataset) == {
            "id", "affine_tvr", "affine_trv", "plane_of_section_id", "section_thickness",
        }  # fmt: skip
        assert dataset["id"] == row["id"]
        assert dataset["plane_of_section_id"] == row["plane_of_section_id"]
        assert dataset["section_thickness"] == 25
        for field in ("tvr", "trv"):
            matrix = dataset[f"affine_{field}"]
            assert matrix.dtype == np.float64
            np.testing.assert_array_equal(matrix, twins.matrix(row["alignment3d"], field))
        images = {image["id"]: image for image in row["section_images"]}
        assert len(downloader) == len(images) == len(downloader.metadata["images"])
        for image in downloader.metadata["images"]:
            assert set(image) == {"id", "affine_tsv", "affine_tvs", "section_number"}
            told = images[image["id"]]
            assert image["section_number"] == told["section_number"]
            for field in ("tsv", "tvs"):
                matrix = image[f"affine_{field}"]
                assert matrix.dtype == np.float64
                np.testing.assert_array_equal(matrix, twins.matrix(told["alignment2d"], field))
        assert numbers(downloader) == sorted(numbers(downloader), reverse=True)
        assert repr(downloader) == f"<DatasetDownloader of dataset {row['id']}: 4 images>"

    def test_fetching_makes_no_pixel_request(self, server):
        fetched("coronal")
        assert server.image_requests == []

    def test_the_second_time_does_nothing_unless_forced(self, server):
        downloader = fetched("coronal")
        first, asked = downloader.metadata, len(server.requests)
        downloader.fetch_metadata()
        assert downloader.metadata is first
        assert len(server.requests) == asked
        downloader.metadata["images"].clear()
        downloader.fetch_metadata(force_redownload=True)
        assert len(downloader) == 4
        assert len(server.requests) > asked

    def test_what_is_filled_by_hand_is_kept(self, server):
        downloader = DatasetDownloader(201)
        downloader.metadata = {"dataset": {"id": 201}, "images": []}
        downloader.fetch_metadata()
        assert downloader.metadata == {"dataset": {"id": 201}, "images": []}
        assert len(downloader) == 0
        assert server.requests == []

    def test_an_unknown_id(self, server):
        downloader = DatasetDownloader(999)
        with pytest.raises(DatasetNotFoundError, match="999"):
            downloader.fetch_metadata()
        assert downloader.metadata == {}

    def test_a_service_in_trouble(self, server):
        server.add_fault(Fault("500", request="metadata"))
        with pytest.raises(APIError, match="data/SectionDataSet/201"):
            DatasetDownloader(201).fetch_metadata()

    def test_a_dataset_without_a_place(self, tmp_path):
        lost = phantom(201, "coronal", lambda row: row.update(alignment3d=None))
        with (
            AllenServer(lost) as lost_server,
            set_options(api_url=lost_server.url, cache_dir=tmp_path),
            pytest.raises(RegistrationError, match="dataset 201: alignment3d"),
        ):
            DatasetDownloader(201).fetch_metadata()

    def test_failed_images_are_listed_and_those_without_alignment_are_not(self, server):
        downloader = DatasetDownloader(204)
        with pytest.warns(AtldldWarning) as warned:
            downloader.fetch_metadata()
        assert [str(warning.message).split(": ", 1)[1] for warning in warned] == [
            "dataset 204, image 204001: failed quality control",
            "dataset 204, image 204003: alignment2d is null or absent; without it there is no "
            "registration",
        ]
        assert [image["id"] for image in downloader.metadata["images"]] == [204002, 204001, 204000]

    def test_highest_section_number_first_whatever_the_order_of_the_answer(self, server):
        downloader = DatasetDownloader(205)
        with pytest.warns(AtldldWarning, match="names none"):
            downloader.fetch_metadata()
        ids = [image["id"] for image in downloader.metadata["images"]]
        assert ids == [205003, 205002, 205000, 205001]
        assert numbers(downloader) == sorted(numbers(downloader), reverse=True)

    def test_the_matrix_tells_the_plane_where_the_service_does_not(self, server):
        downloader = DatasetDownloader(205)
        with pytest.warns(AtldldWarning, match="names none"):
            downloader.fetch_metadata()
        assert downloader.metadata["dataset"]["plane_of_section_id"] == 2

    def test_the_environment_names_the_service(self, tmp_path, monkeypatch):
        with AllenServer(PHANTOMS["coronal"]) as running:
            monkeypatch.setenv("ATLDLD_API_URL", running.url)
            monkeypatch.setenv("ATLDLD_CACHE_DIR", str(tmp_path))
            assert len(fetched("coronal")) == 4


class TestRun:
    @pytest.mark.parametrize("name", ["coronal", "sagittal"])
    @pytest.mark.parametrize("tier", [0, 1, 3])
    def test_fields_register_the_images(self, server, name, tier):
        """Every covered grid point shows the colour of the place its pixel truly comes from."""
        made = PHANTOMS[name]
        count = 0
        for image_id, slice_coordinate, img, img_expression, df in fetched(
            name, downsample_img=tier
        ).run():
            count += 1
            image = made.image(image_id)
            assert img.dtype == np.uint8
            assert img.shape == (image["height"] >> tier, image["width"] >> tier, 3)
            assert img_expression is None
            f_x, f_y = (part * 2.0**tier for part in df.transformation)
            inside = (
                (f_x >= 0) & (f_x <= (img.shape[1] - 1) * 2**tier)
                & (f_y >= 0) & (f_y <= (img.shape[0] - 1) * 2**tier)
            )  # fmt: skip
            assert inside.mean() > 0.1
            truth = twins.true_colour(made, image_id, f_x, f_y)
            error = np.abs(df.warp(img) - truth)[inside]
            assert np.median(error) <= 1
            assert np.percentile(error, 99) <= 8
            self.check_slice(made, image, slice_coordinate, df, tier)
        assert count == 4

    def check_slice(self, made, image, slice_coordinate, df, tier):
        """The coordinate is that of the pixel (0, 0); the field is that of its plane."""
        p, _, r = made.pir(image["id"], 0.0, 0.0)
        along, free = ("p", "ir") if made.row["plane_of_section_id"] == 1 else ("r", "pi")
        assert slice_coordinate == pytest.approx(float({"p": p, "r": r}[along]), abs=1e-9)
        assert type(slice_coordinate) is float
        extent = {"p": 13200, "i": 8000, "r": 11400}
        assert df.shape == tuple(extent[axis] // 200 for axis in free)
        trv = twins.matrix(made.row["alignment3d"], "trv")
        tvs = twins.matrix(image["alignment2d"], "tvs")
        f_x, f_y = df.transformation
        for row, column in ((0, 0), (5, 3), (30, 20)):
            point = {along: slice_coordinate, free[0]: row * 200.0, free[1]: column * 200.0}
            u, v, _ = trv @ [point["p"], point["i"], point["r"], 1.0]
            x, y = tvs @ [u, v, 1.0] / 2**tier
            assert (f_x[row, column], f_y[row, column]) == pytest.approx((x, y), abs=0.01)

    def test_highest_section_number_first_and_in_the_order_of_the_metadata(self, server):
        downloader = fetched("many", downsample_img=1)
        found = [section.image_id for section in downloader.run()]
        assert found == [image["id"] for image in downloader.metadata["images"]]
        assert len(found) == 40

    @pytest.mark.parametrize("name", ["coronal", "sagittal"])
    def test_detection_xy_gives_the_slice_coordinate(self, server, name):
        made = PHANTOMS[name]
        axis = {"coronal": 0, "sagittal": 2}[name]
        for section in fetched(name, detection_xy=(300, 211.5), downsample_img=3).run():
            there = made.pir(section.image_id, 300.0, 211.5)[axis]
            corner = made.pir(section.image_id, 0.0, 0.0)[axis]
            assert section.slice_coordinate == pytest.approx(float(there), abs=1e-9)
            assert section.slice_coordinate != pytest.approx(float(corner), abs=1)

    def test_it_yields_a_tuple_with_names(self, server):
        section = next(fetched("coronal").run())
        assert isinstance(section, tuple)
        assert section._fields == ("image_id", "slice_coordinate", "img", "img_expression", "df")
        image_id, slice_coordinate, img, img_expression, df = section
        assert image_id == section.image_id == 201003
        assert slice_coordinate == section.slice_coordinate
        assert img is section.img
        assert img_expression is section.img_expression is None
        assert df is section.df
        assert isinstance(df, atldld.DisplacementField)

    def test_expression_images_where_asked_and_where_there_are_any(self, server):
        downloader = DatasetDownloader(204, 200, include_expression=True, downsample_img=1)
        with pytest.warns(AtldldWarning, match="image 20400"):
            downloader.fetch_metadata()
        found = {section.image_id: section for section in downloader.run()}
        assert found[204002].img_expression is None
        for image_id in (204000, 204001):
            expression = found[image_id].img_expression
            assert expression.dtype == np.uint8
            assert expression.shape == found[image_id].img.shape
            truth = PHANTOMS["faulty"].pixels(image_id, tier=1, view="expression")
            assert np.abs(expression.astype(int) - truth).mean() < 3
        views = [(r.image_id, r.view) for r in server.image_requests]
        assert sorted(views) == [
            (204000, "expression"), (204000, "image"), (204001, "expression"), (204001, "image"),
            (204002, "image"),
        ]  # fmt: skip

    def test_each_image_is_downloaded_once_and_at_its_tier(self, server):
        downloader = fetched("coronal", downsample_img=2)
        for _ in range(2):
            list(downloader.run())
        assert sorted((r.image_id, r.tier) for r in server.image_requests) == [
            (201000 + n, 2) for n in range(4)
        ]

    def test_images_are_raw(self, server):
        section = next(fetched("coronal", downsample_img=1).run())
        truth = PHANTOMS["coronal"].pixels(section.image_id, tier=1)
        assert np.abs(section.img.astype(int) - truth).mean() < 2

    def test_a_transverse_dataset_is_refused_before_any_download(self, server):
        downloader = fetched("transverse")
        with pytest.raises(ValueError, match=r"dataset 203: the plane of section is \d+.*coronal"):
            next(downloader.run())
        assert server.image_requests == []

    @pytest.mark.parametrize("plane_id", [0, 3, 4, 6, None, "coronal"])
    def test_only_planes_1_and_2(self, server, plane_id):
        downloader = fetched("coronal")
        downloader.metadata["dataset"]["plane_of_section_id"] = plane_id
        with pytest.raises(ValueError, match="plane of section"):
            next(downloader.run())

    def test_a_tier_that_no_image_has_is_refused_before_any_download(self, server):
        downloader = fetched("coronal", downsample_img=6)
        with pytest.raises(ValueError, match="image 201003 of dataset 201 has tiers 0 to 5"):
            next(downloader.run())
        assert server.image_requests == []


class TestMetadataByHand:
    def copied(self, name):
        downloader = fetched(name, downsample_img=2)
        return {
            "dataset": dict(downloader.metadata["dataset"]),
            "images": [dict(image) for image in downloader.metadata["images"]],
        }

    def test_a_run_goes_by_the_dict(self, server):
        expected = {s.image_id: s for s in fetched("coronal", downsample_img=2).run()}
        by_hand = DatasetDownloader(201, downsample_ref=200, downsample_img=2)
        by_hand.metadata = self.copied("coronal")
        by_hand.metadata["images"] = by_hand.metadata["images"][1:3][::-1]
        assert len(by_hand) == 2
        found = list(by_hand.run())
        assert [section.image_id for section in found] == [201002, 201001]
        for section in found:
            twin = expected[section.image_id]
            assert section.slice_coordinate == twin.slice_coordinate
            assert section.df == twin.df
            np.testing.assert_array_equal(section.img, twin.img)

    def test_changed_matrices_hold(self, server):
        downloader = DatasetDownloader(201, downsample_ref=200, downsample_img=2)
        downloader.metadata = self.copied("coronal")
        image = downloader.metadata["images"][0]
        before = next(downloader.run())
        image["affine_tvs"] = image["affine_tvs"] + [[0, 0, 8.0], [0, 0, -12.0]]
        downloader.metadata["dataset"]["section_thickness"] *= 2
        after = next(downloader.run())
        assert after.slice_coordinate != pytest.approx(before.slice_coordinate, abs=1)
        image["affine_tsv"] = np.zeros((2, 3))
        tvr = downloader.metadata["dataset"]["affine_tvr"]
        z = image["section_number"] * 50.0
        expected = tvr[0, 2] * z + tvr[0, 3]
        assert next(downloader.run()).slice_coordinate == pytest.approx(expected, abs=1e-6)

    def test_images_that_the_service_does_not_list(self, server):
        downloader = DatasetDownloader(201)
        downloader.metadata = self.copied("coronal")
        downloader.metadata["images"][0]["id"] = 77
        with pytest.raises(ValueError, match=r"images \[77\]; dataset 201 has no such image"):
            next(downloader.run())
        assert server.image_requests == []

    def test_the_dataset_need_not_say_its_id_again(self, server):
        downloader = DatasetDownloader(201, downsample_ref=200, downsample_img=2)
        downloader.metadata = self.copied("coronal")
        del downloader.metadata["dataset"]["id"]
        assert next(downloader.run()).image_id == 201003

    def test_a_plane_without_an_id_is_refused_all_the_same(self, server):
        downloader = DatasetDownloader(201)
        downloader.metadata = {"dataset": {"plane_of_section_id": 9}, "images": []}
        with pytest.raises(ValueError, match="dataset 201: the plane of section is 9"):
            next(downloader.run())

    @pytest.mark.parametrize(
        ("part", "key"),
        [
            *[("dataset", key) for key in ("affine_tvr", "affine_trv", "section_thickness")],
            *[("images", key) for key in ("id", "affine_tsv", "affine_tvs", "section_number")],
        ],
    )
    def test_what_is_lacking_is_named_before_any_download(self, server, part, key):
        downloader = DatasetDownloader(201)
        downloader.metadata = self.copied("coronal")
        of = downloader.metadata[part]
        del (of if part == "dataset" else of[2])[key]
        where = part if part == "dataset" else r"images\[2\]"
        with pytest.raises(ValueError, match=rf"dataset 201 lack {where}\.{key}; fetch_metadata"):
            next(downloader.run())
        assert server.image_requests == []

    def test_metadata_without_images(self, server):
        downloader = DatasetDownloader(201)
        downloader.metadata = {"dataset": self.copied("coronal")["dataset"]}
        with pytest.raises(ValueError, match="lack images"):
            next(downloader.run())


class TestTrouble:
    @pytest.mark.parametrize("kind", ["404", "html", "truncated", "damaged", "wrong-size", "empty"])
    def test_an_image_that_cannot_be_read_raises(self, server, kind):
        """The peer prints a line and goes on."""
        server.add_fault(Fault(kind, image_ids=201001))
        sections = fetched("coronal").run()
        assert [next(sections).image_id for _ in range(2)] == [201003, 201002]
        with pytest.raises(ImageError, match=r"image 201001.*of dataset 201") as raised:
            next(sections)
        assert raised.value.image_id == 201001
        assert "section_image_download/201001" in raised.value.url

    @pytest.mark.parametrize("kind", ["404", "html", "truncated", "damaged", "wrong-size"])
    @pytest.mark.parametrize("place", ["class", "run"])
    def test_skip_passes_over_it_and_says_so(self, server, kind, place):
        server.add_fault(Fault(kind, image_ids=[201003, 201001]))
        downloader = fetched("coronal", **({"on_error": "skip"} if place == "class" else {}))
        with pytest.warns(AtldldWarning) as warned:
            found = [
                section.image_id
                for section in downloader.run(**({"on_error": "skip"} if place == "run" else {}))
            ]
        assert found == [201002, 201000]
        messages = [str(warning.message) for warning in warned]
        assert len(messages) == 2
        for message, image_id in zip(messages, (201003, 201001), strict=True):
            assert message.startswith(f"skipped: image {image_id} (section ")
        assert warned[0].filename == __file__

    def test_run_may_be_stricter_than_the_class(self, server):
        server.add_fault(Fault("404", image_ids=201001))
        with pytest.raises(ImageError):
            list(fetched("coronal", on_error="skip").run(on_error="raise"))
        with pytest.raises(ValueError, match="it must be one of 'raise', 'skip'"):
            next(fetched("coronal").run(on_error="ignore"))

    def test_a_lost_expression_image_skips_the_section(self, server):
        server.add_fault(Fault("404", image_ids=201002, views="expression"))
        downloader = fetched("coronal", include_expression=True, on_error="skip", downsample_img=2)
        with pytest.warns(AtldldWarning, match="image 201002"):
            found = [section.image_id for section in downloader.run()]
        assert found == [201003, 201001, 201000]

    def test_a_damaged_image_is_fetched_again(self, server):
        server.add_fault(Fault("damaged", image_ids=201002, times=1))
        assert len(list(fetched("coronal").run())) == 4
        asked = [request.image_id for request in server.image_requests]
        assert sorted(asked) == [201000, 201001, 201002, 201002, 201003]

    def test_a_run_can_be_repeated_after_an_error(self, server):
        server.add_fault(Fault("404", image_ids=201001))
        downloader = fetched("coronal")
        with pytest.raises(ImageError):
            list(downloader.run())
        server.clear_faults()
        assert len(list(downloader.run())) == 4


class TestWhatVersion034GotWrong:
    """What it did otherwise; its warps are held to account in the tests of the sampling."""

    def test_a_section_is_not_its_slide(self, server):
        """It took corners from image_width and image_height, which are the slide's."""
        made = PHANTOMS["slides"]
        for section in fetched("slides").run():
            image = made.image(section.image_id)
            assert image["x"] > 0 or image["y"] > 0 or image["image_width"] > image["width"]
            assert section.img.shape == (image["height"], image["width"], 3)
            f_x, f_y = section.df.transformation
            inside = (
                (f_x >= 0) & (f_x <= image["width"] - 1)
                & (f_y >= 0) & (f_y <= image["height"] - 1)
            )  # fmt: skip
            error = np.abs(
                section.df.warp(section.img) - twins.true_colour(made, section.image_id, f_x, f_y)
            )[inside]
            assert np.percentile(error, 99) <= 8

    def test_coordinates_are_float64(self, server):
        """It rounded matrices and coordinates to float32."""
        downloader = fetched("coronal", detection_xy=(101.25, 77.5), downsample_img=3)
        for section in downloader.run():
            p = PHANTOMS["coronal"].pir(section.image_id, 101.25, 77.5)[0]
            assert section.slice_coordinate == pytest.approx(float(p), abs=1e-9)

    @pytest.mark.parametrize("kind", ["html", "truncated", "damaged", "wrong-size"])
    def test_a_bad_body_is_not_kept(self, server, kind):
        """It wrote the body to its cache before it looked at it, and served it for ever."""
        server.add_fault(Fault(kind, image_ids=201003))
        downloader = fetched("coronal", downsample_img=2)
        with pytest.raises(ImageError, match="image 201003"):
            next(downloader.run())
        server.clear_faults()
        assert next(downloader.run()).image_id == 201003

    @pytest.mark.parametrize("kind", ["503", "reset", "short", "drop", "html"])
    def test_a_passing_fault_is_tried_again(self, server, kind):
        server.add_fault(Fault(kind, request="image", times=1))
        assert len(list(fetched("coronal", downsample_img=2).run())) == 4

    def test_rows_that_never_come_are_not_waited_for(self, server):
        """It raised where a page was empty before all promised rows had come."""
        server.add_fault(Fault("rows", rows=202))
        assert len(fetched("coronal")) == 4

    def test_missing_alignments_and_planes_are_expected(self, server):
        """It asked for both without looking."""
        for dataset_id, count in ((204, 3), (205, 4)):
            downloader = DatasetDownloader(dataset_id)
            with pytest.warns(AtldldWarning):
                downloader.fetch_metadata()
            assert len(downloader) == count


def download_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("atldld-download")]


@pytest.fixture
def no_download_threads():
    """Check that no thread is left that began meanwhile; those of other tests do not count.

    Returns a function that says which began meanwhile.
    """
    gc.collect()
    before = set(download_threads())
    gc.disable()
    yield lambda: set(download_threads()) - before
    meanwhile = set(download_threads()) - before
    for thread in meanwhile:
        thread.join(120)
    gc.enable()
    assert not [thread for thread in meanwhile if thread.is_alive()]


@pytest.mark.usefixtures("no_download_threads")
class TestAhead:
    def test_downloads_run_ahead_by_a_bounded_number(self, server):
        downloads = fetched("many", downsample_img=1).run()
        next(downloads)
        until = time.monotonic() + 120
        while len(server.image_requests) < 16 and time.monotonic() < until:
            threading.Event().wait(0.01)
        assert 16 <= len(server.image_requests) <= 20
        assert len(list(downloads)) == 39
        assert len(server.image_requests) == 40

    def test_leaving_early_leaves_nothing_behind(self, server, no_download_threads):
        downloads = fetched("many", downsample_img=1).run()
        next(downloads)
        downloads.close()
        for thread in no_download_threads():
            thread.join(120)
        asked = len(server.image_requests)
        assert asked < 40
        assert len(list(fetched("many", downsample_img=1).run())) == 40
        # The server may still be at those that were under way.
        assert len(server.image_requests) - asked <= 40 + current().max_connections

    def test_an_error_leaves_nothing_behind(self, server):
        server.add_fault(Fault("404", image_ids=206039))
        with pytest.raises(ImageError):
            next(fetched("many", downsample_img=1).run())

    @pytest.mark.parametrize("kind", ["404", "damaged"])
    def test_a_skipped_section_leaves_nothing_behind(self, server, kind):
        """An error keeps the frames that it passed; no thread may hang on them."""
        server.add_fault(Fault(kind, image_ids=206020))
        with pytest.warns(AtldldWarning, match="image 206020"):
            found = list(fetched("many", downsample_img=1, on_error="skip").run())
        assert len(found) == 39

    def test_nothing_is_asked_before_the_first_is_wanted(self, server):
        fetched("many").run()
        assert server.image_requests == []


def test_two_downloaders_side_by_side_do_not_wait_for_each_other(server, monkeypatch):
    # What is decoded and waits in the hands of a user is not counted against others.
    monkeypatch.setattr(images.decoded_bytes, "value", images.Budget(1))
    pairs = []

    def walk():
        downloaders = [DatasetDownloader(number, downsample_img=3) for number in (201, 202)]
        for downloader in downloaders:
            downloader.fetch_metadata()
        pairs.extend(zip(*(downloader.run() for downloader in downloaders), strict=True))

    thread = threading.Thread(target=walk, daemon=True)
    thread.start()
    thread.join(300)
    assert not thread.is_alive()
    assert len(pairs) == 4
