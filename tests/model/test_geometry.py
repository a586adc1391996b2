"""Normals, tilts, ranges, gaps and shares outside, against dense points and known planes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import atldld
from atldld.model.geometry import clip_to_box, geometry
from atldld.testing import AllenServer, load_recorded, oracle, phantom_dataset
from twins import matrix

AXIS = {"coronal": "p", "sagittal": "r", "transverse": "i"}
EXTENT = {"p": 13200.0, "i": 8000.0, "r": 11400.0}

PHANTOMS = {
    (plane, tilt): phantom_dataset(
        500 + 10 * number + tilt, plane=plane, tilt=tilt, sections=5, resolution=30, seed=tilt
    )
    for number, plane in enumerate(AXIS)
    for tilt in (1, 10)
}


@pytest.fixture(scope="module")
def server():
    with AllenServer(list(PHANTOMS.values())) as running:
        yield running


def along_axis(phantom, image, axis, space):
    """Return the slice coordinate at the corners, and the share of many points outside."""

    def places(u, v):
        x, y = u * (image["width"] - 1), v * (image["height"] - 1)
        p, i, r = phantom.pir(image["id"], x[None, :], y[:, None])
        return {"p": p, "i": i, "r": oracle.to_space(r, phantom.row["reference_space_id"], space)}

    ends, middles = np.array([0.0, 1.0]), (np.arange(300) + 0.5) / 300
    outside = np.zeros((300, 300), dtype=bool)
    for name, values in places(middles, middles).items():
        outside |= (values < 0) | (values > EXTENT[name])
    return places(ends, ends)[axis], outside.mean()


@pytest.mark.parametrize("mapping", ["oblique", "parallel"])
@pytest.mark.parametrize("space", [9, 10])
@pytest.mark.parametrize("key", PHANTOMS, ids=str)
def test_against_the_phantom(server, key, space, mapping):
    plane, tilt = key
    phantom, axis = PHANTOMS[key], AXIS[plane]
    sections = atldld.open_dataarray(
        phantom.id, resolution=200, mapping=mapping, reference_space=space, source=server.url
    )
    table = sections.atlas.geometry()
    assert table["section_number"].tolist() == sections.section.values.tolist()
    assert (table["slice_axis"] == axis).all()
    normal = matrix(phantom.row["alignment3d"], "trv")[2, :3]
    if phantom.row["reference_space_id"] != space:
        normal = normal * [1, 1, -1]
    normal *= np.sign(normal["pir".index(axis)]) / np.linalg.norm(normal)
    found = table[["normal_p", "normal_i", "normal_r"]].to_numpy()
    assert np.abs(found - normal).max() < (1e-12 if mapping == "oblique" else 2e-5)
    assert np.allclose(table["tilt"], tilt, atol=2e-3)
    numbers = table["section_number"].to_numpy() * 25.0
    stretch = np.linalg.norm(matrix(phantom.row["alignment3d"], "trv")[2, :3])
    gaps = np.abs(np.diff(numbers)) / stretch
    assert np.allclose(table["after"].to_numpy()[:-1], gaps, rtol=1e-4)
    assert np.allclose(table["before"].to_numpy()[1:], table["after"].to_numpy()[:-1], rtol=1e-9)
    assert math.isnan(table["before"].iloc[0])
    assert math.isnan(table["after"].iloc[-1])
    for row in table.itertuples():
        values, outside = along_axis(phantom, phantom.image(row.image_id), axis, space)
        assert abs(row.slice_low - values.min()) < 0.2
        assert abs(row.slice_high - values.max()) < 0.2
        assert abs(row.outside - outside) < 0.004
    assert (table["outside"] > 0).any() or tilt == 1


def test_after_selections_the_neighbours_are_those_of_the_stack(server):
    phantom = PHANTOMS["coronal", 10]
    for chunks in ("auto", None):
        sections = atldld.open_dataset(phantom.id, resolution=200, chunks=chunks, source=server.url)
        whole = sections.atlas.geometry()
        part = sections.isel(section=[3, 1], y=4).covered.atlas.geometry()
        assert part.equals(whole.iloc[[3, 1]].reset_index(drop=True))
        assert sections.image.isel(section=2, x=5).atlas.geometry().shape == (1, 12)
        assert sections.isel(section=slice(0, 0)).atlas.geometry().empty
    server.reset_log()
    sections.atlas.geometry()
    assert server.requests == []


def test_objects_without_sections(server):
    sections = atldld.open_dataarray(PHANTOMS["coronal", 10].id, resolution=200, source=server.url)
    one = sections.isel(section=0, y=0)
    assert one.compute().atlas.geometry().equals(one.atlas.geometry())
    with pytest.raises(ValueError, match="which image_id"):
        sections.mean("section").atlas.geometry()
    other = sections.assign_coords(image_id=("section", sections.image_id.values + 1_000_000))
    with pytest.raises(ValueError, match="was changed"):
        other.atlas.geometry()


def test_of_an_unknown_space_the_share_outside_is_not_known(tmp_path):
    phantom = phantom_dataset(9, sections=3, resolution=60, reference_space=9)
    told = phantom.altered(lambda row: row.update(reference_space_id=3))
    with AllenServer([told]) as server:
        table = atldld.open_dataarray(9, resolution=200, source=server.url).atlas.geometry()
    assert table["outside"].isna().all()


@pytest.mark.parametrize("dataset", ["69289763"])
def test_recorded_metadata(real, dataset):
    rows = load_recorded(real / dataset)
    row = rows.rows[0]
    with AllenServer([rows]) as server:
        for mapping in ("oblique", "parallel"):
            sections = atldld.open_dataarray(
                int(dataset), resolution=200, mapping=mapping, source=server.url
            )
            table = sections.atlas.geometry().set_index("section_number")
            assert len(table) == 18
            assert table["tilt"].between(0.3, 3).all()
            assert np.allclose(table["tilt"], oracle.tilt_degrees(row, "r"), atol=1e-3)
            for image in row["section_images"]:
                x, y = (np.array([0, image[side] - 1]) for side in ("width", "height"))
                _, _, r = oracle.image_to_reference(row, image, x[None, :], y[:, None])
                mine = table.loc[image["section_number"]]
                assert abs(mine.slice_low - r.min()) < 0.2
                assert abs(mine.slice_high - r.max()) < 0.2
            spread = table["slice_high"] - table["slice_low"]
            assert spread.between(27, 1400).all()
            assert 0 < table["outside"].max() < 0.5


def test_an_image_of_one_row_and_one_pixel():
    flat = np.array([[[2.0, 0, -1], [0, 2, 0], [0, 0, 100.0]]] * 2)
    found = geometry(flat, np.array([2, 1]), np.array([1, 1]), (10.0, 10.0, 1000.0))
    assert np.allclose(found["outside"], [0.5, 1.0])
    assert found["before"][1] == 0.0


numbers = st.floats(-20.0, 20.0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(numbers, min_size=9, max_size=9),
    st.lists(st.floats(0.5, 20.0), min_size=3, max_size=3),
)
def test_the_share_outside_is_that_of_dense_points(entries, bounds):
    affine = np.array(entries).reshape(3, 3)
    if np.linalg.norm(np.cross(affine[:, 0], affine[:, 1])) < 1e-3:
        return
    found = geometry(affine[None], np.array([2]), np.array([2]), tuple(bounds))
    side = (np.arange(300) + 0.5) / 300
    u, v = np.meshgrid(side, side)
    places = affine @ np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
    inside = ((places >= 0) & (places <= np.array(bounds)[:, None])).all(axis=0)
    assert abs(found["outside"][0] - (1 - inside.mean())) < 0.02


def test_a_polygon_cut_away_is_empty():
    square = np.array([[0.0, 0, 0], [4, 0, 0], [4, 4, 0], [0, 4, 0]])
    none = np.full(3, np.inf)
    assert len(clip_to_box(square, np.array([5.0, 0, 0]), none)) == 0
    assert clip_to_box(square, -none, none).tolist() == square.tolist()


def test_planes_that_are_not_parallel():
    tilted = np.array([[1.0, 0, -50], [0, 1, -50], [0.1, 0, 95.0]])
    flat = np.array([[1.0, 0, -50], [0, 1, -50], [0, 0, 0.0]])
    found = geometry(np.stack([flat, tilted]), np.array([101, 101]), np.array([101, 101]), None)
    assert np.allclose(found["tilt"], [0, np.degrees(np.arctan(0.1))])
    # From the middle of the flat one straight up; from that of the tilted one, aslant.
    assert np.allclose(found["after"][0], 100.0)
    assert np.allclose(found["before"][1], 100.0 * np.hypot(1, 0.1))


def test_sections_that_another_registration_places(server):
    phantom = PHANTOMS["coronal", 1]
    numbers = [image["section_number"] for image in phantom.row["section_images"]]
    corner = {
        number: [20.0, 40.0 + 100 * place, 320.0, 400.0, 8.0 * place, 0.0, 0.0, 5.0, -330.0]
        for place, number in enumerate(numbers)
    }
    sections = atldld.open_dataarray(
        phantom.id, resolution=200, registration=corner, source=server.url
    )
    table = sections.atlas.geometry()
    assert len(table) == len(numbers)
    assert table["outside"].notna().all()
    expected = [np.hypot(8.0 * place / 400, 5 / 330) for place in range(len(numbers))]
    by_number = table.sort_values("section_number")
    assert np.allclose(np.tan(np.radians(by_number["tilt"])), expected, rtol=1e-6)
    assert np.nanmin(by_number["after"]) > 1500
