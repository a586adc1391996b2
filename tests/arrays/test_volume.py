"""Volumes: what every voxel shows, to the last bit against a twin that goes voxel by voxel."""

import cloudpickle
import numpy as np
import pytest
import xarray as xr

import atldld
import volumes
from atldld import MixError
from atldld.arrays.planning import readers
from atldld.testing import AllenServer, Doubts, Fault, PhantomBrain, phantom_dataset

SMOOTH = PhantomBrain("smooth")
TILTED = {
    (plane, tilt): phantom_dataset(
        dataset_id=3000 + 100 * number + int(tilt),
        plane=plane,
        tilt=tilt,
        sections=12,
        brain=SMOOTH,
        slides=True,
        resolution=16.0,
        seed=number + int(tilt),
    )
    for number, plane in enumerate(("coronal", "sagittal", "transverse"))
    for tilt in (1.0, 3.0, 10.0, 20.0)
}
LINEAR = {
    plane: phantom_dataset(
        dataset_id=3900 + number,
        plane=plane,
        tilt=8.0,
        sections=7,
        gaps=0,
        brain=PhantomBrain("linear"),
        resolution=16.0,
        image_size=(1000, 1000),
        seed=9,
    )
    for number, plane in enumerate(("coronal", "sagittal", "transverse"))
}


@pytest.fixture(scope="module")
def server():
    """Serve all phantoms."""
    with AllenServer([*TILTED.values(), *LINEAR.values()]) as running:
        # What is found out about a service once is found out here, whichever test is the first.
        volume = atldld.open_volume(TILTED["coronal", 3.0].id, resolution=400, source=running.url)
        volume.image.isel(p=slice(14, 16)).compute()
        yield running


def drawn(volume, count, seed=0):
    """Return places of random voxels along p, i, r, and their microns."""
    random = np.random.default_rng(seed)
    places = [random.integers(0, volume.sizes[axis], count) for axis in "pir"]
    return places, [volume[axis].values[at] for axis, at in zip("pir", places, strict=True)]


def picked(array, places):
    """Return the values of voxels."""
    return array.values[tuple(places)]


def images(phantom):
    """Return the rows of the images that volumes show: those that passed quality control."""
    rows = phantom.row["section_images"]
    return [image for image in rows if image and not image["failed"] and image["alignment2d"]]


def gap(phantom):
    """Return the default of max_distance."""
    every = sorted({image["section_number"] for image in images(phantom)})
    return max(100.0, np.median(np.diff(every)) * phantom.row["section_thickness"] / 2)


@pytest.mark.parametrize("tilt", [1.0, 3.0, 10.0, 20.0])
@pytest.mark.parametrize("plane", ["coronal", "sagittal", "transverse"])
class TestEveryVoxel:
    def test_shows_the_section_that_the_twin_says(self, server, plane, tilt):
        phantom = TILTED[plane, tilt]
        volume = atldld.open_volume(phantom.id, resolution=150, source=server.url)
        places, (p, i, r) = drawn(volume, 4000, int(tilt))
        found = volumes.voxels(phantom.row, images(phantom), p, i, r, gap(phantom))
        number, distance = volumes.numbers(found)
        assert (number >= 0).mean() > 0.05
        np.testing.assert_array_equal(picked(volume.section_number, places), number)
        np.testing.assert_array_equal(picked(volume.distance, places), distance)
        assert server.image_requests == []

    def test_shows_the_colour_of_its_projection(self, server, plane, tilt):
        phantom = TILTED[plane, tilt]
        volume = atldld.open_volume(
            phantom.id, resolution=150, tier=2, interpolation="linear", source=server.url
        )
        places, (p, i, r) = drawn(volume, 6000, int(tilt))
        found = volumes.voxels(phantom.row, images(phantom), p, i, r, gap(phantom))
        colour = volumes.colours(phantom, found)
        shown = picked(volume.image, places)
        nothing = np.isnan(colour[:, 0])
        assert (shown[nothing] == volume.image.attrs["value_where_not_covered"]).all()
        error = np.abs(shown - colour)[~nothing]
        assert np.median(error) <= 1
        assert np.percentile(error, 99) <= 8


@pytest.mark.parametrize("origin", ["floor", "exact"])
@pytest.mark.parametrize("plane", ["coronal", "sagittal", "transverse"])
def test_places_are_right_to_a_part_of_a_pixel(plane, origin):
    """On a fine texture, of sections that start between two pixels of the tier on their slide."""
    phantom = phantom_dataset(
        4030,
        plane,
        tilt=4.0,
        sections=4,
        brain=PhantomBrain("fine"),
        slides=True,
        resolution=8.0,
        seed=3,
    )
    with AllenServer([phantom], doubts=Doubts(tier_origin=origin)) as server:
        volume = atldld.open_volume(
            phantom.id, resolution=100, tier=2, interpolation="linear", source=server.url
        )
        places, (p, i, r) = drawn(volume, 20000)
        found = volumes.voxels(phantom.row, images(phantom), p, i, r, gap(phantom))
        colour = volumes.colours(phantom, found)
        there = np.isfinite(colour[:, 0])
        error = np.abs(picked(volume.image, places) - colour)[there]
        # A tier pixel is 32 of 400 microns: half of one off would be 14 levels.
        assert there.sum() > 300
        assert np.median(error) <= 2
        assert np.percentile(error, 95) <= 8


def test_of_two_images_with_one_number_the_lower_id_shows():
    def double(row):
        row["section_images"][3]["section_number"] = row["section_images"][2]["section_number"]

    phantom = phantom_dataset(4031, sections=6, brain=SMOOTH, resolution=30).altered(double)
    first, second = (phantom.row["section_images"][k]["id"] for k in (2, 3))
    with AllenServer([phantom]) as server:
        with pytest.warns(atldld.AtldldWarning, match=str(max(first, second))):
            volume = atldld.open_volume(phantom.id, resolution=400, source=server.url)
        plan = volume.image.atlas.plan()
        assert min(first, second) in set(plan.image_id)
        assert max(first, second) not in set(plan.image_id)


@pytest.fixture(autouse=True)
def fresh_log(server):
    """Forget what earlier tests asked for."""
    server.reset_log()


class TestBlending:
    @pytest.mark.parametrize("plane", ["coronal", "sagittal", "transverse"])
    def test_a_linear_field_comes_back(self, server, plane):
        phantom = LINEAR[plane]
        volume = atldld.open_volume(
            phantom.id,
            resolution=120,
            between="linear",
            tier=1,
            interpolation="linear",
            masked=True,
            source=server.url,
        )
        image = volume.image.compute()
        ends = volume.section_number.isin(
            [min(phantom_numbers(phantom)), max(phantom_numbers(phantom))]
        ).values
        inside = np.isfinite(image.values[..., 0]) & ~ends
        # Where the other section does not reach, the nearest one stands alone.
        p, i, r = np.meshgrid(*(volume[axis].values for axis in "pir"), indexing="ij")
        if phantom.row["reference_space_id"] == 10:
            r = 11350.0 - r
        error = (image.values - phantom.brain.colour(p, i, r))[inside]
        assert inside.sum() > 2000
        # A grey level, of which half is rounding and noise of the JPEGs.
        assert np.percentile(np.abs(error), 90) <= 1
        assert np.percentile(np.abs(error), 95) <= 1.1
        assert np.abs(np.median(error, axis=0)).max() < 0.1
        nearest = atldld.open_volume(
            phantom.id, resolution=120, tier=1, interpolation="linear", source=server.url
        ).image
        off = np.abs(nearest.values - phantom.brain.colour(p, i, r))[inside]
        assert np.percentile(off, 95) > 2

    def test_shows_the_same_sections_as_nearest(self, server):
        phantom = LINEAR["coronal"]
        both = [
            atldld.open_volume(
                phantom.id, resolution=200, between=between, masked=True, source=server.url
            ).compute()
            for between in ("nearest", "linear")
        ]
        xr.testing.assert_identical(both[0].section_number, both[1].section_number)
        xr.testing.assert_identical(both[0].distance, both[1].distance)
        np.testing.assert_array_equal(np.isnan(both[0].image), np.isnan(both[1].image))

    def test_whole_levels_are_rounded(self, server):
        options = {"resolution": 200, "between": "linear", "source": server.url}
        number = LINEAR["sagittal"].id
        exact = atldld.open_volume(number, masked=True, **options).image.compute()
        whole = atldld.open_volume(number, **options).image.compute()
        np.testing.assert_array_equal(whole, np.rint(exact.fillna(255)))

    def test_a_section_that_only_touches_costs_no_read(self):
        """A plane of voxels that lies on a section takes no share of its neighbours."""
        phantom = straight(4000)
        with AllenServer([phantom]) as server:
            volume = atldld.open_volume(
                phantom.id, resolution=25, between="linear", source=server.url
            )
            plane = volume.image.sel(p=slice(6600, 6600))
            plan = plane.atlas.plan()
            assert list(plan.section_number) == [24]


def phantom_numbers(phantom):
    return [image["section_number"] for image in images(phantom)]


def straight(dataset_id, tilt=0.0):
    """Return a phantom whose matrices are whole numbers: ties are exact."""

    def level(row):
        shift = 6600.0 - 600.0
        entries = np.array([[0, 0, 1.0, 0], [0, 1.0, 0, 0], [-1.0, tilt, 0, shift + 6600.0 - 5400]])
        entries[2, 3] = 600.0 + 6600.0
        inverse = np.linalg.inv(np.vstack([entries, [0, 0, 0, 1]]))[:3]
        for name, matrix in (("trv", entries), ("tvr", inverse)):
            for k, value in enumerate([*matrix[:, :3].ravel(), *matrix[:, 3]]):
                row["alignment3d"][f"{name}_{k:02d}"] = float(value)
        for number, image in enumerate(row["section_images"]):
            image["section_number"] = 8 * number
            for name, scale, shift in (("tsv", 16.0, -100.0), ("tvs", 1 / 16.0, 6.25)):
                values = [scale, 0.0, 0.0, scale, shift, shift]
                for k, value in enumerate(values):
                    image["alignment2d"][f"{name}_{k:02d}"] = value
        return row

    return phantom_dataset(
        dataset_id, sections=6, gaps=0, brain=SMOOTH, resolution=16.0, image_size=(720, 500)
    ).altered(level)


class TestTies:
    def test_the_lower_number_shows_on_a_tie(self):
        phantom = straight(4001)
        with AllenServer([phantom]) as server:
            volume = atldld.open_volume(
                phantom.id, resolution=25, region={"i": (4000, 4100)}, source=server.url
            )
            column = volume.sel(i=4000, r=5700)
            z = 7200.0 - column.p.values
            number = column.section_number.values
            for value, shown, distance in zip(z, number, column.distance.values, strict=True):
                expected = -1
                if -100 <= value <= 1100:
                    expected = min(range(0, 48, 8), key=lambda n: (abs(value - n * 25), n))
                assert shown == expected, value
                assert np.isnan(distance) if shown < 0 else distance == value - shown * 25
            assert (number[(z == 100)] == 0).all()
            assert (number[(z == 1100)] == 40).all()
            assert (number[(z == 1125)] == -1).all()

    def test_max_distance_is_included(self):
        phantom = straight(4002)
        with AllenServer([phantom]) as server:
            near = atldld.open_volume(phantom.id, resolution=25, max_distance=50, source=server.url)
            column = near.section_number.sel(i=4000, r=5700).compute()
            assert column.sel(p=7200 - 50).item() == 0
            assert column.sel(p=7200 - 75).item() == -1

    def test_ties_of_a_slanted_plane_are_those_of_the_twin(self):
        """A tilt of one in 64 puts a tie on a column of every plane, in exact arithmetic."""
        phantom = straight(4003, tilt=1 / 64)
        with AllenServer([phantom]) as server:
            volume = atldld.open_volume(phantom.id, resolution=25, source=server.url)
            box = volume.sel(p=slice(6200, 7000), i=slice(0, 6400, 8), r=5700)
            p, i = np.meshgrid(box.p.values, box.i.values, indexing="ij")
            r = np.full(p.size, 5700.0)
            found = volumes.voxels(phantom.row, images(phantom), p.ravel(), i.ravel(), r, 100.0)
            number, distance = volumes.numbers(found)
            assert (np.abs(distance) == 100).sum() > 10
            np.testing.assert_array_equal(box.section_number.values.ravel(), number)
            np.testing.assert_array_equal(box.distance.values.ravel(), distance)


class TestReads:
    def test_opening_and_placing_ask_for_no_pixels(self, server):
        volume = atldld.open_volume(TILTED["coronal", 3.0].id, resolution=200, source=server.url)
        volume[["section_number", "distance"]].compute()
        assert server.image_requests == []

    @pytest.mark.parametrize("between", ["nearest", "linear"])
    @pytest.mark.parametrize("plane", ["coronal", "sagittal", "transverse"])
    def test_a_box_reads_the_sections_that_it_shows_each_once(self, server, plane, between):
        phantom = TILTED[plane, 10.0]
        volume = atldld.open_volume(
            phantom.id, resolution=150, between=between, chunks=None, source=server.url
        )
        random = np.random.default_rng(5)
        for _ in range(6):
            start = [random.integers(0, volume.sizes[axis] - 8) for axis in "pir"]
            box = volume.isel(
                {axis: slice(at, at + 8) for axis, at in zip("pir", start, strict=True)}
            )
            server.reset_log()
            plan = box.image.atlas.plan()
            shown = set(np.unique(box.section_number.values)) - {-1}
            if between == "nearest":
                assert set(plan.section_number) == shown
            else:
                assert set(plan.section_number) >= shown
            box.image.load()
            asked = sorted(request.image_id for request in server.image_requests)
            assert asked == sorted(plan.image_id[~plan.cached])
            assert len(set(asked)) == len(asked)

    def test_a_window_holds_what_a_box_needs_and_no_more(self):
        phantom = phantom_dataset(
            4010, tilt=5.0, sections=8, brain=SMOOTH, resolution=3.0, image_size=(3400, 2600)
        )
        with AllenServer([phantom]) as server:
            volume = atldld.open_volume(
                phantom.id,
                resolution=10,
                tier=0,
                interpolation="linear",
                region={"p": (5000, 5400), "i": (3000, 3400), "r": (5000, 5400)},
                source=server.url,
            )
            plan = volume.image.atlas.plan()
            windows = plan[~plan.whole]
            p, i, r = np.meshgrid(*(volume[axis].values for axis in "pir"), indexing="ij")
            found = volumes.voxels(
                phantom.row, images(phantom), p.ravel(), i.ravel(), r.ravel(), gap(phantom)
            )
            by_image = {}
            for image, _, x, y in found:
                if image is not None:
                    by_image.setdefault(image["id"], []).append((x, y))
            last = windows.drop_duplicates("image_id", keep="last").set_index("image_id")
            assert set(by_image) <= set(last.index)
            for image_id, places in by_image.items():
                window = last.loc[image_id]
                low, high = np.min(places, axis=0), np.max(places, axis=0)
                for axis, (left, size) in enumerate((("left", "width"), ("top", "height"))):
                    assert window[left] <= low[axis]
                    assert window[left] + window[size] - 1 >= high[axis]
                    assert low[axis] - window[left] < 256 + 2
                    assert window[left] + window[size] - 1 - high[axis] < 256 + 2

    @pytest.mark.parametrize("plane", ["coronal", "sagittal", "transverse"])
    def test_the_needed_pixels_are_those_of_the_voxels(self, server, plane):
        """Of every plane of the box, with one pixel around for the kernel."""
        phantom = TILTED[plane, 20.0]
        volume = atldld.open_volume(
            phantom.id,
            resolution=100,
            tier=0,
            interpolation="linear",
            chunks=None,
            region={"p": (5600, 7000), "i": (3000, 4400), "r": (3600, 5000)},
            source=server.url,
        )
        (reader,) = readers(volume.image)
        p, i, r = (
            axis.ravel()
            for axis in np.meshgrid(*(volume[axis].values for axis in "pir"), indexing="ij")
        )
        found = volumes.voxels(phantom.row, images(phantom), p, i, r, gap(phantom))
        places = {}
        for image, _, x, y in found:
            if image is not None:
                places.setdefault(image["id"], []).append((x, y))
        pieces = {piece.whole.image_id: piece for piece in reader.pieces((slice(None),) * 4)}
        assert set(pieces) == set(places)
        for image_id, piece in pieces.items():
            whole, needed = piece.whole, piece.needed
            (left, top), (right, bottom) = np.min(places[image_id], 0), np.max(places[image_id], 0)
            assert needed.left == max(np.floor(left) - 1, 0)
            assert needed.top == max(np.floor(top) - 1, 0)
            assert needed.right == min(np.floor(right) + 2, whole.width)
            assert needed.bottom == min(np.floor(bottom) + 2, whole.height)

    def test_one_answer_however_it_is_cut(self, server):
        phantom = TILTED["sagittal", 10.0]
        for between in ("nearest", "linear"):
            options = {"resolution": 150, "between": between, "source": server.url}
            whole = atldld.open_volume(phantom.id, chunks=None, **options).image.load()
            pieces = atldld.open_volume(
                phantom.id, chunks={"p": 17, "i": 50, "r": 9}, **options
            ).image.compute()
            xr.testing.assert_identical(whole, pieces)
            lazy = atldld.open_volume(phantom.id, chunks=None, **options).image
            odd = {"p": [3, 40, 11], "i": slice(None, None, -2), "r": np.array([15, 14, 30])}
            xr.testing.assert_identical(whole.isel(odd), lazy.isel(odd).load())
            region = atldld.open_volume(
                phantom.id, region={"p": (4000, 7000), "r": (2000, 4000)}, **options
            ).image
            expected = whole.sel(p=slice(4000, 7000), r=slice(2000, 4000))
            xr.testing.assert_identical(expected, region.compute())

    def test_the_plan_is_what_the_server_sees(self, server):
        phantom = TILTED["transverse", 20.0]
        volume = atldld.open_volume(phantom.id, resolution=200, source=server.url)
        wanted = volume.image.sel(i=slice(2000, 4000)).mean("r").isel(channel=1)
        plan = wanted.atlas.plan()
        wanted.compute()
        assert sorted(r.image_id for r in server.image_requests) == sorted(plan.image_id)
        table = volume.image.atlas.prefetch()
        assert (table.error == "").all()
        server.reset_log()
        volume.image.compute()
        assert server.image_requests == []

    def test_what_needs_no_image_has_an_empty_plan(self, server):
        volume = atldld.open_volume(TILTED["coronal", 3.0].id, resolution=400, source=server.url)
        assert len(volume.distance.atlas.plan()) == 0


class TestLike:
    def test_nodes_are_those_of_the_other_to_the_last_bit(self, server):
        nodes = {"p": np.arange(500, 12000, 312.7), "i": np.arange(7) * 1000 / 3, "r": [5000.5]}
        like = xr.DataArray(np.zeros([len(v) for v in nodes.values()]), nodes, list(nodes))
        phantom = TILTED["coronal", 10.0]
        volume = atldld.open_volume(phantom.id, like=like, source=server.url)
        for axis in "pir":
            assert (volume[axis].values == np.asarray(nodes[axis])).all()
        xr.align(volume, like, join="exact")
        p, i, r = (grid.ravel() for grid in np.meshgrid(*nodes.values(), indexing="ij"))
        found = volumes.voxels(phantom.row, images(phantom), p, i, r, gap(phantom))
        number, distance = volumes.numbers(found)
        np.testing.assert_array_equal(volume.section_number.values.ravel(), number)
        np.testing.assert_allclose(volume.distance.values.ravel(), distance, atol=1e-8)

    def test_datasets_of_other_tilt_plane_and_space_subtract(self, server):
        one = atldld.open_volume(
            TILTED["coronal", 3.0].id, resolution=200, masked=True, source=server.url
        )
        other = atldld.open_volume(
            TILTED["sagittal", 10.0].id, like=one, masked=True, source=server.url
        )
        assert other.attrs["reference_space"] == 9
        xr.align(one, other, join="exact")
        difference = (one.image - other.image).compute()
        both = np.isfinite(one.image.values) & np.isfinite(other.image.values)
        assert both.sum() > 1000
        # One brain, cut twice: the same tissue, up to the distance of the sections.
        assert np.abs(difference.values[both]).mean() < 8
        assert np.isnan(difference.values[~both]).all()

    def test_the_tier_goes_by_the_steps_of_the_other(self, server):
        phantom = TILTED["coronal", 3.0]
        for step, tier in ((200.0, 3), (40.0, 1), (17.0, 0)):
            like = xr.Dataset(
                coords={"p": [6000.0], "i": [4000.0], "r": 5000 + step * np.arange(9)}
            )
            volume = atldld.open_volume(phantom.id, like=like, source=server.url)
            # What is found out about a service comes first.
            assert volume.image.atlas.plan()["tier"].iloc[-1] == tier

    def test_picked_and_single_nodes(self, server):
        phantom = TILTED["coronal", 3.0]
        volume = atldld.open_volume(phantom.id, resolution=200, source=server.url)
        part = volume.isel(p=[3, 30, 12], i=slice(30, 5, -3)).sel(r=5600)
        again = atldld.open_volume(phantom.id, like=part, resolution=200, source=server.url)
        assert again.image.dims == ("p", "i", "channel")
        xr.testing.assert_equal(part.section_number, again.section_number.drop_attrs())
        xr.testing.assert_equal(part.distance, again.distance)

    def test_what_is_no_grid_is_refused_before_anything_is_asked(self, server):
        phantom = TILTED["coronal", 3.0]
        sections = atldld.open_dataarray(phantom.id, resolution=400, source=server.url)
        server.reset_log()
        for bad in (sections, xr.DataArray(0.0), np.zeros(3), "other.nii"):
            with pytest.raises((TypeError, ValueError), match="like"):
                atldld.open_volume(phantom.id, like=bad, source=server.url)
        uneven = xr.Dataset(coords={"p": [0.0, 1.0, 17.123], "i": [0.0], "r": [0.0]})
        with pytest.raises(ValueError, match="evenly spaced"):
            atldld.open_volume(phantom.id, like=uneven, source=server.url)
        assert server.requests == []

    def test_another_atlas_is_refused(self, server):
        nodes = xr.Dataset(coords={axis: [0.0, 200.0] for axis in "pir"})
        for like in (
            nodes.assign_attrs(reference_space="CCFv3"),
            nodes.assign_coords(reference_space="CCFv3"),
        ):
            with pytest.raises(ValueError, match="CCFv3"):
                atldld.open_volume(TILTED["coronal", 3.0].id, like=like, source=server.url)
        said = nodes.assign_attrs(reference_space=np.int64(9))
        volume = atldld.open_volume(TILTED["sagittal", 3.0].id, like=said, source=server.url)
        assert volume.attrs["reference_space"] == 9

    def test_a_space_that_contradicts_like_is_refused(self, server):
        one = atldld.open_volume(TILTED["coronal", 3.0].id, resolution=400, source=server.url)
        with pytest.raises(ValueError, match="like lies in"):
            atldld.open_volume(
                TILTED["sagittal", 3.0].id, like=one, reference_space=10, source=server.url
            )


class TestSpaces:
    def test_the_other_space_is_sampled_where_it_is(self, server):
        phantom = TILTED["sagittal", 3.0]
        volume = atldld.open_volume(
            phantom.id, resolution=170, reference_space=9, source=server.url
        )
        places, (p, i, r) = drawn(volume, 3000)
        found = volumes.voxels(phantom.row, images(phantom), p, i, r, gap(phantom), flipped=True)
        number, distance = volumes.numbers(found)
        assert (number >= 0).any()
        np.testing.assert_array_equal(picked(volume.section_number, places), number)
        np.testing.assert_allclose(picked(volume.distance, places), distance, atol=1e-8)
        shown = (volume.section_number >= 0).any(("p", "i")).values
        assert volume.r.values[shown].mean() > 7000

    def test_spaces_and_kinds_do_not_mix(self, server):
        native = atldld.open_volume(TILTED["sagittal", 3.0].id, resolution=400, source=server.url)
        other = atldld.open_volume(
            TILTED["sagittal", 3.0].id, resolution=400, reference_space=9, source=server.url
        )
        sections = atldld.open_dataarray(
            TILTED["sagittal", 3.0].id, resolution=400, source=server.url
        )
        for left, right in ((native.image, other.image), (native.image, sections)):
            with pytest.raises(MixError):
                left - right

    def test_the_mirror_shows_the_other_hemisphere(self, server):
        phantom = TILTED["sagittal", 3.0]
        options = {"region": {"p": (6000, 7000), "i": (3000, 4500)}, "source": server.url}
        plain = atldld.open_volume(phantom.id, resolution=50, **options).compute()
        both = atldld.open_volume(phantom.id, resolution=50, mirror=True, **options).compute()
        own = (plain.section_number >= 0).values
        np.testing.assert_array_equal(both.image.values[own], plain.image.values[own])
        np.testing.assert_array_equal(
            both.section_number.values[own], plain.section_number.values[own]
        )
        assert not both.mirrored.values[own].any()
        mirrored = both.mirrored.values
        assert mirrored.sum() > 0.8 * own.sum()
        # 11350 - r leads from node to node of this grid: each takes what its partner shows.
        partner = plain.reindex(r=11350 - both.r.values, fill_value=-1)
        np.testing.assert_array_equal(
            both.section_number.values[mirrored], partner.section_number.values[mirrored]
        )
        np.testing.assert_allclose(
            both.distance.values[mirrored], partner.distance.values[mirrored], atol=1e-8
        )
        error = np.abs(both.image.values[mirrored] - partner.image.values[mirrored].astype(float))
        assert error.max() <= 1
        nothing = ~own & ~mirrored
        assert (both.section_number.values[nothing] == -1).all()
        assert (both.image.values[nothing] == 255).all()

    def test_what_sections_show_is_not_mirrored(self, server):
        phantom = TILTED["coronal", 10.0]
        for between in ("nearest", "linear"):
            options = {"resolution": 200, "between": between, "source": server.url}
            plain = atldld.open_volume(phantom.id, **options).compute()
            both = atldld.open_volume(phantom.id, mirror=True, **options).compute()
            own = (plain.section_number >= 0).values
            for name in ("image", "section_number", "distance"):
                np.testing.assert_array_equal(both[name].values[own], plain[name].values[own])
            assert both.mirrored.values.any()
            assert not (both.mirrored.values & own).any()

    def test_a_mirror_image_that_is_not_shown_is_not_read(self):
        phantom = phantom_dataset(4022, tilt=15.0, sections=20, brain=SMOOTH, resolution=30)
        with AllenServer([phantom]) as server:
            volume = atldld.open_volume(
                phantom.id, resolution=100, mirror=True, chunks=None, source=server.url
            )
            inside = volume.sel(p=slice(6000, 6200), i=slice(3900, 4100), r=slice(3600, 3800))
            number = inside.section_number.values
            assert (number >= 0).all()
            assert not inside.mirrored.values.any()
            assert set(inside.image.atlas.plan().section_number) == set(np.unique(number))

    def test_the_mirror_reads_what_it_shows(self, server):
        phantom = TILTED["sagittal", 3.0]
        volume = atldld.open_volume(
            phantom.id, resolution=100, mirror=True, chunks=None, source=server.url
        )
        far = volume.sel(r=slice(8000, 8400), p=slice(6000, 6400), i=slice(3000, 3400))
        shown = set(np.unique(far.section_number.values)) - {-1}
        assert shown
        assert set(far.image.atlas.plan().section_number) == shown

    def test_without_a_known_midline_there_is_no_mirror(self):
        phantom = phantom_dataset(4020, reference_space=17, sections=3)
        with AllenServer([phantom]) as server, pytest.raises(ValueError, match="midline"):
            atldld.open_volume(phantom.id, mirror=True, source=server.url)

    def test_other_spaces_open_over_the_footprint(self):
        phantom = phantom_dataset(4021, reference_space=17, sections=4, resolution=30)
        with AllenServer([phantom]) as server:
            volume = atldld.open_volume(phantom.id, resolution=400, source=server.url)
            assert (volume.section_number >= 0).any()
            assert "reference space 17" in str(volume.reference_space.attrs["frame"])


def test_the_places_of_voxels_are_the_coordinates(server):
    volume = atldld.open_volume(TILTED["coronal", 3.0].id, resolution=400, source=server.url)
    for obj in (volume, volume.image.isel(p=slice(3, 9)), volume.image.isel(p=3).compute()):
        places = obj.atlas.pir()
        for axis in "pir":
            np.testing.assert_array_equal(places[axis], obj[axis])


@pytest.mark.exhaustive
def test_volumes_travel_to_other_processes(server):
    """As tasks of a cluster do, with what is derived made anew there."""
    phantom = TILTED["transverse", 10.0]
    for between in ("nearest", "linear"):
        volume = atldld.open_volume(
            phantom.id, resolution=300, between=between, mirror=True, source=server.url
        )
        here = volume.compute()
        there = cloudpickle.loads(cloudpickle.dumps(volume))
        xr.testing.assert_identical(here, there.compute(scheduler="processes", num_workers=2))


class TestFailures:
    @pytest.mark.parametrize("between", ["nearest", "linear"])
    def test_a_filled_section_is_not_shown(self, between):
        phantom = TILTED["coronal", 1.0]
        bad = images(phantom)[7]
        options = {"resolution": 200, "between": between}
        with AllenServer([phantom]) as server:
            options["source"] = server.url
            whole = atldld.open_volume(phantom.id, **options)[["section_number"]].compute()
            server.add_fault(Fault("404", image_ids=(bad["id"],)))
            volume = atldld.open_volume(phantom.id, tier=2, on_error="fill", **options)
            with pytest.warns(atldld.AtldldWarning, match="filled"):
                shown = volume.image.compute()
            lost = (whole.section_number == bad["section_number"]).values
            assert (shown.values[lost] == 255).all()
            number = volume.section_number.compute()
            assert (number.values[lost] == -1).all()
            assert np.isnan(volume.distance.values[lost]).all()
            np.testing.assert_array_equal(number.values[~lost], whole.section_number.values[~lost])
            (row,) = volume.atlas.failures().to_dict("records")
            assert row["section_number"] == bad["section_number"]

    def test_a_failed_image_is_named(self):
        phantom = TILTED["coronal", 1.0]
        bad = images(phantom)[7]["id"]
        with AllenServer([phantom]) as server:
            server.add_fault(Fault("404", image_ids=(bad,)))
            volume = atldld.open_volume(phantom.id, resolution=400, tier=2, source=server.url)
            with pytest.raises(atldld.ImageError, match=str(bad)):
                volume.image.compute()

    def test_bad_options_are_refused(self, server):
        number = TILTED["coronal", 1.0].id
        for options, error in (
            ({"between": "cubic"}, ValueError),
            ({"max_distance": -1}, ValueError),
            ({"max_distance": float("nan")}, ValueError),
            ({"max_distance": "far"}, TypeError),
            ({"max_distance": 10**400}, ValueError),
            ({"mirror": 1}, TypeError),
            ({"resolution": 0.5}, ValueError),
            ({"resolution": 1e-300}, ValueError),
            ({"resolution": 0}, ValueError),
            ({"chunks": {"section": 1}}, ValueError),
            ({"region": {"p": (20000, 30000)}}, ValueError),
        ):
            with pytest.raises(error):
                atldld.open_volume(number, source=server.url, **options)


@pytest.mark.parametrize("between", ["nearest", "linear"])
def test_no_mirror_image_shows_where_an_own_section_could_not_be_had(between, tmp_path):
    """An own section hides the mirrored ones behind it, whether or not it could be had."""
    tilted = phantom_dataset(1001, "sagittal", tilt=10)
    images = [row["id"] for row in tilted.row["section_images"]]
    with AllenServer([tilted]) as server:
        for image_id in images:
            server.add_fault(Fault("404", image_ids=image_id))
            with atldld.set_options(cache_dir=tmp_path / str(image_id)):
                volume = atldld.open_volume(
                    1001,
                    resolution=200,
                    between=between,
                    mirror=True,
                    masked=True,
                    on_error="fill",
                    source=server.url,
                )
                with pytest.warns(atldld.AtldldWarning):
                    found = volume.compute()
            server.clear_faults()
            there = found.image.notnull().any("channel")
            assert not (there & (found.section_number < 0)).any()
