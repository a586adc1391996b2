"""Planes, axes, and the flip between the two adult spaces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atldld.model import space
from atldld.model.affine import pir_to_xy
from atldld.model.space import CORONAL, PLANES, SAGITTAL, TRANSVERSE, plane_of_matrix


class TestPlanes:
    def test_axes_of_the_arrays(self):
        assert CORONAL.axes == ("p", "i", "r")
        assert SAGITTAL.axes == ("r", "i", "p")
        assert TRANSVERSE.axes == ("i", "p", "r")
        assert {name: plane.name for name, plane in PLANES.items()} == {
            name: name for name in ("coronal", "sagittal", "transverse")
        }

    def test_the_largest_component_of_the_normal_names_the_plane(self):
        for plane in PLANES.values():
            for sign in (-1, 1):
                trv = np.zeros((3, 4))
                trv[2] = 0.4, -0.4, 0.4, 9e9  # the shift is no direction
                trv[2, plane.section] = sign * 0.5
                trv[:2] = 10
                assert plane_of_matrix(trv) is plane

    @given(st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 1e-6))
    def test_no_normal_is_as_much_as_60_degrees_off_its_axis(self, normal):
        """The farthest from every axis is the diagonal: arccos(1 / sqrt(3)) = 54.74 degrees."""
        trv = np.zeros((3, 4))
        trv[2, :3] = normal
        plane = plane_of_matrix(trv)
        cosine = abs(normal[plane.section]) / np.linalg.norm(normal)
        assert np.degrees(np.arccos(np.clip(cosine, 0, 1))) <= 54.7357

    def test_ids_of_the_service(self):
        named = {n: space.plane_of_section(n) for n in (1, 2, 7, 8, 6, 9, 10, 11, 531107579)}
        assert [n for n, plane in named.items() if plane is CORONAL] == [1, 11, 531107579]
        assert [n for n, plane in named.items() if plane is SAGITTAL] == [2, 7, 8]
        assert [n for n, plane in named.items() if plane is TRANSVERSE] == [6, 9, 10]
        for unnamed in (None, 0, 3, 4, 5, -1, 10**30):
            assert space.plane_of_section(unnamed) is None


class TestFlip:
    @given(*[st.floats(-1e5, 1e5)] * 3)
    def test_r_becomes_11350_less_r_and_back(self, p, i, r):
        flip = space.flip_matrix()
        np.testing.assert_allclose(flip @ [p, i, r, 1], [p, i, 11350 - r, 1], atol=1e-9)
        np.testing.assert_array_equal(flip @ flip, np.eye(4))

    def test_the_extent_is_not_what_mirrors(self):
        assert space.FLIP_R == 11350
        assert space.P56_EXTENT == (13200, 8000, 11400)
        assert 2 * space.P56_MIDDLE[2] == space.FLIP_R

    def test_the_recorded_pair_of_answers(self):
        """Dataset 75457491 was asked for one p, i, r in both spaces.

        As space 10, its own: section 100, at 7169.250, 4219.260. As space 9: its last, 156.
        """
        trv = [
            [0.975511, -0.0348973, 6.75444e-20, 1097.69],
            [0.0333129, 0.974126, 0.019521, 1571.99],
            [-0.000666346, -0.0194851, 0.975919, -1628.43],
        ]
        tvs = [[0.950397, 0.0741949, -730.394], [-0.0741949, 0.950397, -1256.65]]
        point = np.array([[7050.0], [4600.0], [4300.0]])
        x, y, z = pir_to_xy(point, tvs, trv).ravel()
        assert (x, y) == pytest.approx((7169.250113636281, 4219.259987042813), abs=1e-9)
        assert z / 25 == pytest.approx(100, abs=4)
        flipped = (space.flip_matrix() @ np.vstack([point, [[1]]]))[:3]
        assert pir_to_xy(flipped, tvs, trv)[2, 0] / 25 > 156

    def test_only_9_and_10_are_mirror_images(self):
        assert space.can_flip(9, 10)
        assert space.can_flip(10, 9)
        for pair in ((9, 9), (10, 10), (9, 1), (1, 2), (None, 9), (9, None), (None, None)):
            assert not space.can_flip(*pair)


def test_extents_and_names():
    assert space.extent(9) == space.extent(10) == (13200, 8000, 11400)
    assert space.extent(1) is None
    assert space.extent(None) is None
    names = [space.space_name(n) for n in (9, 10, 3, None)]
    assert names == [
        "P56 Brain",
        "P56 Brain, L/R Flipped",
        "reference space 3",
        "unknown reference space",
    ]
