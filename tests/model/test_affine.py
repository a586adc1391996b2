"""Pixels to reference space and back: against the service's answers, and point by point."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atldld.model.affine import (
    grid_affine,
    pir_to_xy,
    pixel_microns,
    plane_affines,
    slice_coordinates,
    tier_origin,
    tier_size,
    xy_to_pir,
)
from atldld.model.space import CORONAL, P56_MIDDLE, PLANES, SAGITTAL, TRANSVERSE


@pytest.fixture(scope="module")
def recorded():
    default = Path(__file__).parents[2].parent / "shared" / "real"
    file = Path(os.environ.get("ATLDLD_REAL_DATA", default)) / "sync_points.json"
    if not file.is_file():
        pytest.skip(f"no recorded answers at {file}; set ATLDLD_REAL_DATA")
    return json.loads(file.read_text())


def tilted(rng, plane, degrees):
    """Return trv and tvr of a stack whose normal leans by some degrees from the plane's axis."""
    normal = np.zeros(3)
    normal[plane.section] = rng.choice([-1, 1])
    sideways = np.zeros(3)
    turn = rng.uniform(0, 2 * np.pi)
    sideways[plane.y], sideways[plane.x] = np.cos(turn), np.sin(turn)
    normal = normal * np.cos(np.radians(degrees)) + sideways * np.sin(np.radians(degrees))
    first = np.cross(normal, rng.normal(size=3))
    first /= np.linalg.norm(first)
    linear = np.stack([first, np.cross(normal, first), normal]) * rng.uniform(0.8, 1.2, (3, 1))
    trv = np.concatenate([linear, rng.uniform(-3000, 3000, (3, 1))], axis=1)
    back = np.linalg.inv(linear)
    tvr = np.concatenate([back, -back @ trv[:, 3:]], axis=1)
    return trv, tvr


def turned(rng):
    """Return tvs and tsv of a section on its slide."""
    angle, zoom = rng.uniform(-np.pi, np.pi), rng.uniform(0.3, 2)
    linear = zoom * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    tvs = np.concatenate([linear, rng.uniform(-9000, 9000, (2, 1))], axis=1)
    back = np.linalg.inv(linear)
    return tvs, np.concatenate([back, -back @ tvs[:, 2:]], axis=1)


def times(matrix, vector):
    """Multiply a matrix and a vector, in plain Python."""
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


class TestAgainstTheService:
    def test_image_to_reference(self, recorded):
        assert len(recorded["image_to_reference"]) == 20
        for answer in recorded["image_to_reference"]:
            z = answer["section_number"] * answer["section_thickness"]
            found = xy_to_pir(
                [[answer["x"]], [answer["y"]], [z]], answer["affine_2d"], answer["affine_3d"]
            )
            expected = [answer["p"], answer["i"], answer["r"]]
            assert np.abs(found.ravel() - expected).max() < 1e-9

    def test_reference_to_image(self, recorded):
        assert len(recorded["reference_to_image"]) == 10
        for answer in recorded["reference_to_image"]:
            found = pir_to_xy(
                [[answer["p"]], [answer["i"]], [answer["r"]]],
                answer["affine_2d"],
                answer["affine_3d"],
            )
            assert np.abs(found[:2].ravel() - [answer["x"], answer["y"]]).max() < 1e-9

    def test_float32_matrices_would_fail_this(self, recorded):
        answer = recorded["reference_to_image"][0]
        found = pir_to_xy(
            [[answer["p"]], [answer["i"]], [answer["r"]]],
            np.float32(answer["affine_2d"]),
            np.float32(answer["affine_3d"]),
        )
        assert np.abs(found[:2].ravel() - [answer["x"], answer["y"]]).max() > 1e-6


class TestPoints:
    def test_shapes_and_dtype(self):
        rng = np.random.default_rng(1)
        (tvs, tsv), (trv, tvr) = turned(rng), tilted(rng, CORONAL, 3)
        for n in (0, 1, 5):
            points = rng.integers(0, 9000, (3, n)).astype(np.int32)
            for found in (pir_to_xy(points, tvs, trv), xy_to_pir(points, tsv, tvr)):
                assert found.shape == (3, n)
                assert found.dtype == np.float64

    @given(st.integers(0, 10**6))
    def test_one_undoes_the_other(self, seed):
        rng = np.random.default_rng(seed)
        (tvs, tsv), (trv, tvr) = turned(rng), tilted(rng, SAGITTAL, rng.uniform(0, 40))
        points = rng.uniform(-20_000, 20_000, (3, 7))
        np.testing.assert_allclose(
            pir_to_xy(xy_to_pir(points, tsv, tvr), tvs, trv), points, atol=1e-6
        )

    @given(st.integers(0, 10**6))
    def test_every_point_is_the_product_written_out(self, seed):
        rng = np.random.default_rng(seed)
        (tvs, tsv), (trv, tvr) = turned(rng), tilted(rng, TRANSVERSE, rng.uniform(0, 40))
        p, i, r = point = rng.uniform(-20_000, 20_000, 3).tolist()
        u, v, w = times(trv, [p, i, r, 1.0])
        x, y = times(tvs, [u, v, 1.0])
        found = pir_to_xy([[p], [i], [r]], tvs, trv).ravel()
        np.testing.assert_allclose(found, [x, y, w], rtol=1e-13, atol=1e-9)
        u, v = times(tsv, [point[0], point[1], 1.0])
        expected = times(tvr, [u, v, point[2], 1.0])
        found = xy_to_pir([[point[0]], [point[1]], [point[2]]], tsv, tvr).ravel()
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-9)

    @pytest.mark.parametrize(
        ("coords", "two", "three", "said"),
        [
            (np.zeros(3), np.eye(2, 3), np.eye(3, 4), r"\(3,\); it must be \(3, N\)"),
            (np.zeros((2, 3)), np.eye(2, 3), np.eye(3, 4), r"it must be \(3, N\)"),
            (np.zeros((3, 1)), np.eye(3), np.eye(3, 4), r"affine_2d has shape \(3, 3\)"),
            (np.zeros((3, 1)), np.eye(2, 3), np.eye(3), r"affine_3d has shape \(3, 3\)"),
        ],
    )
    def test_wrong_shapes_are_named(self, coords, two, three, said):
        with pytest.raises(ValueError, match=said):
            pir_to_xy(coords, two, three)
        with pytest.raises(ValueError, match=said):
            xy_to_pir(coords, two, three)


def slow_tier_pixel(tvs, trv, z, where, plane, mapping, row, column, grid, tier, offset):
    """Take one grid point to its tier pixel, step by step."""
    step, origin_column, origin_row = grid
    point = {}
    point[plane.y] = origin_row + row * step
    point[plane.x] = origin_column + column * step
    if mapping == "parallel":
        point[plane.section] = where
    else:
        # The point must lie on the section: third stack coordinate z. Its coordinate along
        # the slicing axis is found by trying 0 and 1, since it is linear.
        def depth(along):
            full = dict(point) | {plane.section: along}
            return times(trv, [full[0], full[1], full[2], 1.0])[2]

        point[plane.section] = (z - depth(0.0)) / (depth(1.0) - depth(0.0))
    u, v, w = times(trv, [point[0], point[1], point[2], 1.0])
    if mapping == "oblique":
        assert w == pytest.approx(z, abs=1e-6)
    x, y = times(tvs, [u, v, 1.0])
    pixel = []
    for place, start in ((x, offset[0]), (y, offset[1])):
        # On the slide, tier pixel k is centred on pixel k * 2**tier; the section's tier image
        # begins with the tier pixel in which the section's corner falls.
        on_slide = (start + place) / 2**tier
        pixel.append(on_slide - start // 2**tier)
    return pixel


class TestPlaneAffines:
    @given(
        seed=st.integers(0, 10**6),
        name=st.sampled_from(sorted(PLANES)),
        mapping=st.sampled_from(["oblique", "parallel"]),
        degrees=st.floats(0, 45),
        step=st.floats(0.1, 500),
        origin=st.tuples(st.floats(-2e4, 2e4), st.floats(-2e4, 2e4)),
        tier=st.integers(0, 9),
        offset=st.tuples(st.integers(0, 40_000), st.integers(0, 40_000)),
    )
    def test_one_affine_is_the_way_through_the_matrices(
        self, seed, name, mapping, degrees, step, origin, tier, offset
    ):
        rng = np.random.default_rng(seed)
        plane = PLANES[name]
        trv, _ = tilted(rng, plane, degrees)
        tvs = np.stack([turned(rng)[0] for _ in range(3)])
        z, where = rng.uniform(-500, 14_000, 3), rng.uniform(0, 13_000, 3)
        affines = plane_affines(tvs, trv, z, where, plane, mapping)
        assert affines.shape == (3, 2, 3)
        assert affines.dtype == np.float64
        onto = grid_affine(affines, step, origin, tier, offset)
        for n in range(3):
            for row, column in ((0, 0), (0, 100), (77, 0), (31, 58)):
                found = times(onto[n].tolist(), [column, row, 1.0])
                expected = slow_tier_pixel(
                    tvs[n].tolist(), trv.tolist(), z[n], where[n], plane, mapping,
                    row, column, (step, *origin), tier, offset,
                )  # fmt: skip
                assert np.abs(np.subtract(found, expected)).max() < 1e-6

    def test_the_two_mappings_meet_at_the_place_of_the_slice_coordinate(self):
        rng = np.random.default_rng(3)
        trv, _ = tilted(rng, CORONAL, 5)
        tvs, z = turned(rng)[0][None], np.array([5000.0])
        where = slice_coordinates(trv, z, CORONAL, P56_MIDDLE)
        middle = [P56_MIDDLE[CORONAL.x], P56_MIDDLE[CORONAL.y], 1.0]
        oblique, parallel = (
            plane_affines(tvs, trv, z, where, CORONAL, mapping)[0]
            for mapping in ("oblique", "parallel")
        )
        np.testing.assert_allclose(oblique @ middle, parallel @ middle, atol=1e-6)
        assert np.abs(oblique - parallel).max() > 1e-3

    def test_no_section_gives_no_affine(self):
        none = np.zeros(0)
        for mapping in ("oblique", "parallel"):
            affines = plane_affines(
                np.zeros((0, 2, 3)), np.eye(3, 4), none, none, SAGITTAL, mapping
            )
            assert affines.shape == (0, 2, 3)

    def test_arguments_are_left_as_they_were(self):
        affine = np.arange(6.0).reshape(2, 3)
        grid_affine(affine, 25.0, (5.0, 7.0), 2, (3, 1))
        np.testing.assert_array_equal(affine, np.arange(6.0).reshape(2, 3))


class TestTiers:
    @given(st.integers(0, 100_000), st.integers(0, 12))
    def test_tier_pixel_0_is_centred_where_the_slide_says(self, offset, tier):
        step = 2**tier
        centre_on_slide = (offset // step) * step
        assert tier_origin(offset, tier) == centre_on_slide - offset
        assert -step < tier_origin(offset, tier) <= 0

    def test_an_unshifted_section_has_pixel_k_on_k_times_2_to_the_tier(self):
        assert [tier_origin(0, tier) for tier in range(8)] == [0.0] * 8
        assert [tier_origin(256, tier) for tier in range(8)] == [0.0] * 8

    def test_half_a_block_is_not_where_pixels_are(self):
        """The mean of a block is centred on 1.5 at tier 2; the service's pixels are not."""
        identity = np.eye(2, 3)
        np.testing.assert_array_equal(
            grid_affine(identity, 1.0, (0.0, 0.0), 2, (0, 0)), identity / 4
        )

    @pytest.mark.parametrize(
        ("size", "tier", "expected"),
        [(11921, 2, 2980), (7553, 2, 1888), (14001, 1, 7000), (7601, 6, 118), (3, 2, 1), (1, 0, 1)],
    )
    def test_sizes_are_floored(self, size, tier, expected):
        assert tier_size(size, tier) == expected


class TestSliceCoordinates:
    @given(
        seed=st.integers(0, 10**6),
        name=st.sampled_from(sorted(PLANES)),
        degrees=st.floats(0, 20),
        numbers=st.lists(st.integers(-10, 2000), min_size=2, max_size=30, unique=True),
        thickness=st.floats(1, 200),
    )
    def test_they_are_strictly_monotone_and_as_even_as_the_sections(
        self, seed, name, degrees, numbers, thickness
    ):
        """Crops do not enter: no 2-D matrix is asked for."""
        plane = PLANES[name]
        trv, _ = tilted(np.random.default_rng(seed), plane, degrees)
        z = np.sort(numbers) * thickness
        where = slice_coordinates(trv, z, plane, P56_MIDDLE)
        gaps = np.diff(where)
        assert np.all(gaps > 0) or np.all(gaps < 0)
        np.testing.assert_allclose(gaps / gaps[0], np.diff(z) / np.diff(z)[0], rtol=1e-6)
        middle = np.repeat(np.array(P56_MIDDLE)[:, None], len(z), axis=1)
        middle[plane.section] = where
        np.testing.assert_allclose((trv[:, :3] @ middle + trv[:, 3:])[2], z, atol=1e-6)

    def test_the_middle_lines_are_those_of_the_documentation(self):
        assert P56_MIDDLE == (6600, 4000, 5675)


class TestPixelMicrons:
    @given(st.integers(0, 10**6))
    def test_it_is_how_far_a_pixel_reaches_in_reference_space(self, seed):
        rng = np.random.default_rng(seed)
        tsv = np.stack([turned(rng)[1] for _ in range(2)])
        _, tvr = tilted(rng, SAGITTAL, rng.uniform(0, 30))
        found = pixel_microns(tsv, tvr)
        assert found.shape == (2, 2)
        for n in range(2):
            z = rng.uniform(0, 5000)
            here, right, below = xy_to_pir(
                [[9.0, 10.0, 9.0], [5.0, 5.0, 6.0], [z, z, z]], tsv[n], tvr
            ).T
            assert found[n, 0] == pytest.approx(math.dist(here, right), rel=1e-6)
            assert found[n, 1] == pytest.approx(math.dist(here, below), rel=1e-6)
