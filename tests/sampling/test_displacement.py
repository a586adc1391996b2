"""Displacement fields: points, arithmetic, files."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

import atldld
from atldld.sampling.displacement import DisplacementField


@pytest.fixture
def field():
    rng = np.random.default_rng(1)
    return DisplacementField(rng.normal(0, 50, (7, 5)), rng.normal(0, 50, (7, 5)))


class TestField:
    def test_is_where_the_documentation_says(self):
        assert atldld.DisplacementField is DisplacementField
        assert atldld.DisplacementField.__doc__

    def test_holds_float32(self, field):
        assert field.delta_x.dtype == field.delta_y.dtype == np.float32
        assert field.shape == (7, 5)
        for part in (*field.transformation, field.norm):
            assert part.dtype == np.float32
            assert part.shape == (7, 5)

    def test_float32_input_is_not_copied(self):
        delta = np.zeros((3, 4), np.float32)
        field = DisplacementField(delta, delta)
        assert field.delta_x is delta

    def test_x_runs_along_columns_and_y_along_rows(self):
        field = DisplacementField(np.full((2, 3), 10.0), np.full((2, 3), 100.0))
        f_x, f_y = field.transformation
        np.testing.assert_array_equal(f_x, [[10, 11, 12], [10, 11, 12]])
        np.testing.assert_array_equal(f_y, [[100, 100, 100], [101, 101, 101]])
        again = DisplacementField.from_transform(f_x, f_y)
        np.testing.assert_array_equal(again.delta_x, field.delta_x)
        np.testing.assert_array_equal(again.delta_y, field.delta_y)

    def test_warp_shows_the_pixel_at_the_transformed_place(self):
        img = np.arange(200, dtype=np.uint8).reshape(10, 20)
        field = DisplacementField(np.full((3, 4), 5), np.full((3, 4), 2))
        np.testing.assert_array_equal(field.warp(img), img[2:5, 5:9])

    def test_norm_is_the_length(self):
        field = DisplacementField(np.full((2, 2), 3.0), np.full((2, 2), -4.0))
        np.testing.assert_array_equal(field.norm, np.full((2, 2), 5.0))

    def test_fields_of_no_point_are_fields(self):
        field = DisplacementField(np.zeros((0, 5)), np.zeros((0, 5)))
        assert field.warp(np.zeros((3, 3), np.uint8)).shape == (0, 5)
        assert repr(field) == "<DisplacementField of 0 x 5 points>"

    def test_repr_says_the_shape_and_how_far(self):
        field = DisplacementField([[1.5, -2]], [[0, 1000.25]])
        assert repr(field) == (
            "<DisplacementField of 1 x 2 points: x by -2 to 1.5, y by 0 to 1000.25 pixels>"
        )

    @pytest.mark.parametrize(
        ("delta_x", "delta_y", "said"),
        [
            (np.zeros((2, 3)), np.zeros((3, 2)), r"\(2, 3\) and delta_y \(3, 2\)"),
            (np.zeros(3), np.zeros(3), "two-dimensional"),
            (np.zeros((2, 2, 1)), np.zeros((2, 2, 1)), "two-dimensional"),
            (np.zeros((2, 2)), [[0, np.nan], [0, 0]], "delta_y holds values that are not finite"),
            ([[np.inf]], [[0]], "delta_x holds values that are not finite"),
            ([[1e39]], [[0]], "delta_x holds values that are not finite in float32"),
            ([["a"]], [[0]], "real numbers"),
            ([[1j]], [[0]], "real numbers"),
        ],
    )
    def test_what_is_no_field_is_refused(self, delta_x, delta_y, said):
        with pytest.raises(ValueError, match=said):
            DisplacementField(delta_x, delta_y)
        if np.ndim(delta_x) == 2:
            with pytest.raises(ValueError, match=r"delta_|f_"):
                DisplacementField.from_transform(delta_x, delta_y)

    def test_transforms_must_be_planes(self):
        with pytest.raises(ValueError, match=r"f_x has shape \(3,\)"):
            DisplacementField.from_transform([1, 2, 3], [1, 2, 3])


class TestArithmetic:
    @pytest.mark.parametrize(
        "number", [2, 0.5, -1, True, np.float32(3), np.float64(3), np.int64(3), np.uint8(3)]
    )
    def test_a_number_scales_from_either_side(self, field, number):
        for scaled in (field * number, number * field):
            assert isinstance(scaled, DisplacementField)
            np.testing.assert_array_equal(scaled.delta_x, field.delta_x * np.float32(number))
            np.testing.assert_array_equal(scaled.delta_y, field.delta_y * np.float32(number))

    @pytest.mark.parametrize("other", ["2", None, [1, 2], np.ones(3), 1j])
    def test_nothing_else_does(self, field, other):
        with pytest.raises(TypeError):
            field * other
        with pytest.raises(TypeError):
            other * field
        with pytest.raises(TypeError):
            field * field

    def test_equality_has_a_tolerance(self, field):
        near = DisplacementField(field.delta_x + 1e-4, field.delta_y * (1 + 5e-6))
        far = DisplacementField(field.delta_x + 0.01, field.delta_y)
        assert field == near
        assert field != far
        assert field != DisplacementField(field.delta_x, field.delta_y + 0.01)
        assert field != DisplacementField(field.delta_x[1:], field.delta_y[1:])

    @pytest.mark.parametrize("other", [1, "field", None, (1, 2)])
    def test_a_field_equals_nothing_but_a_field(self, field, other):
        assert field != other

    def test_has_no_hash(self, field):
        with pytest.raises(TypeError, match="unhashable"):
            hash(field)

    def test_copies_and_pickles(self, field):
        for same in (copy.copy(field), copy.deepcopy(field), pickle.loads(pickle.dumps(field))):
            assert same == field


class TestFiles:
    @pytest.mark.parametrize("kind", [str, Path])
    def test_round_trip_is_exact(self, field, tmp_path, kind):
        path = kind(tmp_path / "field.npy")
        field.save(path)
        again = DisplacementField.from_file(path)
        np.testing.assert_array_equal(again.delta_x, field.delta_x)
        np.testing.assert_array_equal(again.delta_y, field.delta_y)

    def test_the_file_is_rows_columns_xy(self, field, tmp_path):
        field.save(tmp_path / "field.npy")
        values = np.load(tmp_path / "field.npy")
        assert values.shape == (7, 5, 2)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values[..., 0], field.delta_x)

    def test_the_field_does_not_hang_on_its_file(self, field, tmp_path):
        path = tmp_path / "field.npy"
        field.save(path)
        again = DisplacementField.from_file(path)
        (again * 0.0).save(path)
        assert again == field

    @pytest.mark.parametrize("dtype", ["f8", ">f4", "i4"])
    def test_other_numbers_are_read(self, tmp_path, dtype):
        np.save(tmp_path / "field.npy", np.ones((3, 4, 2), dtype))
        assert DisplacementField.from_file(tmp_path / "field.npy").shape == (3, 4)

    @pytest.mark.parametrize("name", ["field", "field.npz", "field.txt"])
    def test_only_npy(self, field, tmp_path, name):
        with pytest.raises(ValueError, match=r"does not end in \.npy"):
            field.save(tmp_path / name)
        with pytest.raises(ValueError, match=r"does not end in \.npy"):
            DisplacementField.from_file(tmp_path / name)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "values", [np.ones((3, 4)), np.ones((3, 4, 3)), np.ones(()), np.ones((2, 2, 2, 2))]
    )
    def test_another_shape_is_refused(self, tmp_path, values):
        np.save(tmp_path / "field.npy", values)
        with pytest.raises(ValueError, match=r"of shape \(h, w, 2\)"):
            DisplacementField.from_file(tmp_path / "field.npy")

    def test_text_is_refused(self, tmp_path):
        np.save(tmp_path / "field.npy", np.full((2, 2, 2), "a"))
        with pytest.raises(ValueError, match="real numbers"):
            DisplacementField.from_file(tmp_path / "field.npy")

    def test_nothing_is_unpickled(self, tmp_path):
        touched = tmp_path / "touched"

        class Trap:
            def __reduce__(self):
                return Path.touch, (touched,)

        objects = np.empty((1, 1, 2), object)
        objects[:] = Trap()
        np.save(tmp_path / "array.npy", objects, allow_pickle=True)
        (tmp_path / "bare.npy").write_bytes(pickle.dumps(Trap()))
        np.savez(tmp_path / "zip.npz", a=objects, allow_pickle=True)
        (tmp_path / "zip.npz").rename(tmp_path / "zip.npy")
        for name in ("array.npy", "bare.npy", "zip.npy"):
            with pytest.raises(ValueError, match=name):
                DisplacementField.from_file(tmp_path / name)
        assert not touched.exists()

    def test_a_cut_or_lying_file_is_refused(self, field, tmp_path):
        path = tmp_path / "field.npy"
        field.save(path)
        whole = path.read_bytes()
        lying = whole.replace(b"(7, 5, 2)", b"(7000000000, 5, 2)"[:9].ljust(9))
        assert lying != whole
        huge = whole.replace(b"'shape': (7, 5, 2), }", b"'shape':(9**9,9**9,2)}")
        for damaged in (whole[:-1], whole[:100], whole[:3], b"", lying, huge):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"field\.npy"):
                DisplacementField.from_file(path)
        path.write_bytes(_header((10**7, 10**6, 2)))
        with pytest.raises(ValueError, match=r"field\.npy"):
            DisplacementField.from_file(path)

    def test_a_file_that_is_not_there_is_what_python_says(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            DisplacementField.from_file(tmp_path / "field.npy")


def _header(shape):
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text = text.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * 64
