"""Tables, structures of points and bounds, against plain loops."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import atldld
from atlases import TREE, labels, structure
from atldld.errors import AtldldWarning
from atldld.testing import AllenServer, PhantomBrain, oracle, phantom_dataset
from twins import covered, pixels_of_grid

BRAIN = PhantomBrain(texture="smooth")
PHANTOMS = {
    "coronal": phantom_dataset(
        41, plane="coronal", sections=6, tilt=10, brain=BRAIN, resolution=30, seed=1
    ),
    "sagittal": phantom_dataset(
        42, plane="sagittal", sections=5, tilt=3, brain=BRAIN, resolution=30, seed=2
    ),
}


def atlas(space=9, step=200.0, origin="node", shape=(67, 41, 58), **attrs):
    half = step / 2 if origin == "centre" else 0.0
    coords = {a: half + np.arange(n) * step for a, n in zip("pir", shape, strict=True)}
    attrs = {"reference_space": space, "midline_r": 5700.0, "atlas": "boxes", **attrs}
    return xr.DataArray(labels(step, origin, shape), coords, ("p", "i", "r"), attrs=attrs)


@pytest.fixture(scope="module")
def server():
    with AllenServer(list(PHANTOMS.values())) as running:
        yield running


@pytest.fixture
def opened(server):
    def opened(plane, function=atldld.open_dataarray, **options):
        return function(PHANTOMS[plane].id, **{"resolution": 200, "source": server.url, **options})

    return opened


def nearest_label(p, i, r, step=200.0):
    """Return the label of the nearest node of `atlas()`, the higher one halfway."""
    place = [np.floor(np.asarray(c) / step + 0.5) * step for c in (p, i, r)]
    inside = np.ones(np.broadcast(*place).shape, bool)
    for c, top in zip(place, (66, 40, 57), strict=True):
        inside = inside & (c >= 0) & (c <= top * step)
    return np.where(inside, structure(*place), 0)


def looped(values, ids, weights=None):
    """Return size, count, mean and sum of every structure, one after the other."""
    rows = {}
    for number in np.unique(ids[ids != 0]):
        mine = ids == number
        good = mine & ~np.isnan(values)
        w = np.ones(values.shape) if weights is None else weights.astype(float)
        good &= w > 0
        total = (w * values)[good].sum()
        mean = total / w[good].sum() if good.any() else np.nan
        rows[int(number)] = (mine.sum(), good.sum(), mean, total)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["size", "count", "mean", "sum"])


def same(table, expected):
    assert table.index.tolist() == expected.index.tolist()
    assert (table[["size", "count"]].values == expected[["size", "count"]].values).all()
    np.testing.assert_allclose(
        table[["mean", "sum"]], expected[["mean", "sum"]], rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(table["covered"], expected["count"] / expected["size"])


@pytest.fixture
def both(real):
    energy = atldld.open_grid(real / "69289763" / "energy.mhd", reference_space=10).energy
    annotation = atldld.open_annotation(
        real / "P56_Mouse_gridAnnotation.zip", reference_space=10, version="2011"
    )
    return energy, annotation


def test_a_plain_loop_over_the_files(both, real):
    table = atldld.structure_table(*both)
    raw = np.fromfile(real / "69289763" / "energy.raw", "<f4").astype(float)
    raw = raw.reshape(58, 41, 67).T
    same(table, looped(np.where(raw < 0, np.nan, raw), both[1].values))
    assert table.attrs["atlas"] == "P56_Mouse_gridAnnotation"
    assert table.attrs["atlas_version"] == "2011"
    assert table.attrs["annotation_space"] == 10


def test_prox1_is_highest_in_the_dentate_gyrus(both):
    table = atldld.structure_table(*both)
    highest = table[table["count"] >= 20]["mean"].sort_values(ascending=False).head(4)
    assert highest.index.tolist() == [10704, 632, 10703, 218]
    assert highest.round(1).tolist() == [23.5, 18.6, 12.3, 7.5]
    wrong = atldld.structure_table(both[0].fillna(-1), both[1])
    assert round(wrong.loc[632, "mean"], 1) == 7.7


def test_dask_and_memory_agree(both):
    energy, annotation = both
    table = atldld.structure_table(energy, annotation)
    chunked = atldld.structure_table(energy.chunk({"p": 7, "i": 20, "r": 11}), annotation)
    pd.testing.assert_frame_equal(table, chunked)
    turned = atldld.structure_table(energy.transpose("r", "p", "i"), annotation)
    pd.testing.assert_frame_equal(table, turned)


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("mapping", ["oblique", "parallel"])
@pytest.mark.parametrize("plane", PHANTOMS)
def test_tilted_sections_count_where_they_truly_lie(opened, plane, mapping, flipped):
    phantom = PHANTOMS[plane]
    native = phantom.row["reference_space_id"]
    space = 19 - native if flipped else native
    sections = opened(plane, masked=True, mapping=mapping)
    values, ids = [], []
    for place, image_id in enumerate(sections.image_id.values):
        image = phantom.image(int(image_id))
        coordinate = float(sections[{"coronal": "p", "sagittal": "r"}[plane]][place])
        px, py, point = pixels_of_grid(
            phantom.row, image, plane, sections.y, sections.x, mapping, coordinate
        )
        if mapping == "parallel":
            point = np.stack(oracle.image_to_reference(phantom.row, image, px, py))
        if flipped:
            point[2] = 11350.0 - point[2]
        ids.append(nearest_label(*point))
        values.append(np.where(covered(image, px, py)[..., None], sections.values[place], np.nan))
    ids, values = np.stack(ids), np.stack(values)
    table = atldld.structure_table(sections, atlas(space))
    assert table.index.names == ["structure_id", "channel"]
    for place, channel in enumerate(["red", "green", "blue"]):
        same(table.xs(channel, level="channel"), looped(values[..., place].astype(float), ids))


def test_an_asymmetric_annotation_catches_a_forgotten_flip(opened):
    sections = opened("sagittal", masked=True).isel(channel=0)
    one_sided = atlas(10).copy()
    one_sided.values[..., 29:] = 0
    there = atldld.structure_table(sections, one_sided)
    assert there["count"].sum() > 100
    flipped = atldld.structure_table(sections, one_sided.assign_attrs(reference_space=9))
    assert flipped["count"].sum() == 0


def test_each_image_is_read_once_in_one_pass(opened, server):
    sections = opened("coronal", masked=True, chunks={"section": 1})
    server.reset_log()
    atldld.structure_table(sections, atlas())
    asked = [request.image_id for request in server.image_requests]
    assert len(asked) == len(set(asked)) == 6


def test_selections_and_arrays_without_dask(opened):
    whole = opened("coronal", masked=True)
    part = whole.isel(section=2, channel=1)
    lazy = opened("coronal", masked=True, chunks=None).isel(section=2, channel=1)
    one, two = (atldld.structure_table(each, atlas()) for each in (part, lazy))
    pd.testing.assert_frame_equal(one, two)
    assert one.index.name == "structure_id"
    inverse = atldld.structure_table(255 - part, atlas())
    np.testing.assert_allclose(inverse["mean"], 255 - one["mean"])


def test_filling_is_not_tissue(opened):
    both = opened("coronal", atldld.open_dataset)
    with pytest.warns(AtldldWarning, match="filling cannot be told"):
        wrong = atldld.structure_table(both.image, atlas())
    with pytest.warns(AtldldWarning, match="filling cannot be told"):
        atldld.structure_table(both.image.mean("channel"), atlas())
    atldld.structure_table(both.image.where(both.covered).mean("channel"), atlas())
    right = atldld.structure_table(both.image, atlas(), weights=both.covered)
    masked = atldld.structure_table(opened("coronal", masked=True), atlas())
    assert (right["weight"] == right["count"]).all()
    pd.testing.assert_frame_equal(right.drop(columns="weight"), masked)
    assert not np.allclose(wrong["mean"], right["mean"])


def test_weights_are_those_of_a_ratio_of_sums():
    random = np.random.default_rng(3)
    annotation = atlas()
    pixels = annotation.copy(data=random.integers(0, 50, annotation.shape))
    intensity = annotation.copy(data=random.random(annotation.shape)).where(pixels != 7)
    table = atldld.structure_table(intensity, annotation, weights=pixels)
    expected = looped(intensity.values, annotation.values, pixels.values)
    same(table, expected)
    spread = atldld.structure_table(intensity.chunk({"r": 9}), annotation, weights=pixels)
    np.testing.assert_allclose(spread["mean"], table["mean"])
    with pytest.raises(ValueError, match="not be negative"):
        atldld.structure_table(intensity, annotation, weights=-pixels)
    with pytest.raises(ValueError, match="exact"):
        atldld.structure_table(intensity, annotation, weights=pixels.isel(p=slice(3, 9)))


@pytest.mark.parametrize("form", ["json", "envelope", "path", "frame", "paths", "indexed"])
def test_descendants_are_rolled_up(form, tmp_path):
    annotation = atlas()
    values = annotation.astype(float)
    flat = [(997, None, "/997/"), (8, 997, "/997/8/"), (9, 997, "/997/9/")]
    flat += [(n, 8, f"/997/8/{n}/") for n in (11, 12, 111, 112)]
    flat += [(n, 9, f"/997/9/{n}/") for n in (21, 22, 121, 122)]
    flat += [(614454277, 997, "/997/614454277/")]
    frame = pd.DataFrame(flat, columns=["id", "parent_structure_id", "structure_id_path"])
    (tmp_path / "1.json").write_text(json.dumps({"success": True, "msg": TREE}))
    tree = {
        "json": TREE,
        "envelope": {"success": True, "msg": TREE},
        "path": tmp_path / "1.json",
        "frame": frame[["id", "parent_structure_id"]],
        "paths": frame[["id", "structure_id_path"]],
        "indexed": frame.set_index("id")[["parent_structure_id"]],
    }[form]
    single = atldld.structure_table(values, annotation)
    table = atldld.structure_table(values, annotation, tree=tree)
    assert table.loc[997, "sum"] == pytest.approx(single["sum"].sum())
    parts = single.loc[[11, 12, 111, 112]]
    assert table.loc[8, "count"] == parts["count"].sum()
    assert table.loc[8, "mean"] == pytest.approx(parts["sum"].sum() / parts["count"].sum())
    assert table.loc[11, "mean"] == 11
    if form in ("json", "envelope", "path"):
        assert table.loc[9, "acronym"] == "ventral"
        assert table.loc[9, "name"] == "ventral part"
    chosen = atldld.structure_table(values, annotation, structures=[9, 8, 5], tree=tree)
    assert chosen.index.tolist() == [9, 8, 5]
    assert chosen.loc[5, "size"] == 0
    assert np.isnan(chosen.loc[5, "mean"])


def test_a_tree_that_is_none():
    annotation = atlas()
    for tree, error in [
        ([{"name": "x"}], ValueError),
        (7, TypeError),
        ([{"id": 11, "parent": 12}, {"id": 12, "parent": 11}], ValueError),
        (pd.DataFrame({"id": [1]}), ValueError),
    ]:
        with pytest.raises(error):
            atldld.structure_table(annotation.astype(float), annotation, tree=tree)


def test_hemispheres():
    annotation = atlas()
    left = annotation.r < 5700
    values = xr.where(left, 1.0, 2.0) + 0 * annotation
    values.attrs["reference_space"] = 9
    table = atldld.structure_table(values, annotation, by_hemisphere=True)
    assert table.index.names == ["structure_id", "hemisphere"]
    assert (table.xs("left", level="hemisphere")["mean"] == 1).all()
    assert (table.xs("right", level="hemisphere")["mean"] == 2).all()
    both = atldld.structure_table(values, annotation)
    assert (table.groupby("structure_id")["size"].sum() == both["size"]).all()
    several = xr.concat([values, 2 * values], xr.Variable("dataset", [5, 3]))
    table = atldld.structure_table(several, annotation, by_hemisphere=True)
    assert table.index.names == ["structure_id", "hemisphere", "dataset"]
    assert table.loc[(11, "right", 3), "mean"] == 4
    assert table.loc[(11, "left", 5), "mean"] == 1


@pytest.mark.parametrize(("space", "middle"), [(9, 5700.0), (10, 5650.0), ("CCFv3", 5700.0)])
def test_labels_that_show_no_middle_are_parted_at_that_of_the_atlas(tmp_path, space, middle):
    half = np.zeros((8, 8, 58), np.uint32)
    half[..., :29] = 7
    half[..., 29] = [[7, *[8] * 7]] * 8  # a few labels mirror each other, elsewhere
    path = tmp_path / "half.mha"
    path.write_bytes(
        b"NDims = 3\nElementSpacing = 200 200 200\nDimSize = 8 8 58\nElementType = MET_UINT\n"
        b"ElementDataFile = LOCAL\n" + half.tobytes(order="F")
    )
    for origin in ("node", (0, 0, 0)):
        annotation = atldld.open_annotation(path, reference_space=space, origin=origin)
        assert np.isnan(annotation.attrs["midline_r"])
        coords = {"p": [200.0], "i": [200.0], "r": middle + np.array([-60.0, -10.0, 10.0, 60.0])}
        attrs = {"reference_space": space}
        values = xr.DataArray([[[1.0, 1.0, 2.0, 2.0]]], coords, ("p", "i", "r"), attrs=attrs)
        table = atldld.structure_table(values, annotation, by_hemisphere=True).query("count > 0")
        assert (table.xs("left", level="hemisphere")["mean"] == 1).all()
        assert (table.xs("right", level="hemisphere")["mean"] == 2).all()


def test_ccfv3_labels_on_2011_data_warn():
    annotation = atlas("CCFv3", 100.0, "centre", (132, 80, 114))
    values = atlas().astype(float)
    with pytest.warns(AtldldWarning, match="different atlases"):
        atldld.structure_table(values, annotation)
    with pytest.warns(AtldldWarning, match="different atlases"):
        atldld.structures_at([5200, 3200, 2400], annotation, reference_space=9)
    atldld.structures_at([5200, 3200, 2400], annotation, reference_space="CCFv3")


def test_structures_of_points():
    random = np.random.default_rng(0)
    points = random.uniform(-300, 13500, (2000, 3))
    truth = nearest_label(*points.T)
    found = atldld.structures_at(points, atlas())
    assert found.dtype == np.int64
    assert np.array_equal(found, truth)
    assert (found == 0).any()
    assert (found != 0).any()
    mirrored = points * [1, 1, -1] + [0, 0, 11350]
    assert np.array_equal(atldld.structures_at(mirrored, atlas(), reference_space=10), truth)
    frame = pd.DataFrame(points, columns=list("pir"))[["r", "p", "i"]]
    assert np.array_equal(atldld.structures_at(frame, atlas()), truth)
    assert atldld.structures_at([[np.nan, 3000, 3000]], atlas()).tolist() == [0]
    assert atldld.structures_at(np.empty((0, 3)), atlas()).shape == (0,)
    with pytest.raises(ValueError, match=r"\(N, 3\)"):
        atldld.structures_at(np.zeros((3, 5)), atlas())


def test_bounds_are_a_region(opened):
    annotation = atlas()
    for number, tree in ((614454277, None), (8, TREE)):
        region = atldld.structure_bounds(number, annotation, tree=tree)
        ids = {8: [11, 12, 111, 112]}.get(number, [number])
        where = np.argwhere(np.isin(annotation.values, ids)) * 200.0
        for column, axis in enumerate("pir"):
            assert region[axis] == (where[:, column].min() - 100, where[:, column].max() + 100)
    part = opened("coronal", region=atldld.structure_bounds(614454277, annotation))
    assert 0 < part.sizes["section"] < 6
    assert float(part.i.max()) <= 2500
    with pytest.raises(KeyError, match="pass tree="):
        atldld.structure_bounds(8, annotation)


def test_what_cannot_be_put_together(opened):
    annotation = atlas()
    values = annotation.astype(float)
    homeless = values.copy()
    homeless.attrs.clear()
    with pytest.raises(ValueError, match="which reference space"):
        atldld.structure_table(homeless, annotation)
    with pytest.raises(ValueError, match="annotation does not say its space"):
        atldld.structure_table(values, annotation.drop_attrs())
    with pytest.raises(TypeError, match="several variables"):
        atldld.structure_table(xr.Dataset({"a": values, "b": values}), annotation)
    with pytest.raises(ValueError, match="space 4"):
        atldld.structure_table(values.assign_attrs(reference_space=4), annotation)
    lost = opened("coronal", masked=True).compute().drop_vars("image_id")
    with pytest.raises(ValueError, match="image_id"):
        atldld.structure_table(lost, annotation)
    with pytest.raises(ValueError, match="must be sections"):
        atldld.structure_table(values.rename(p="a", i="b", r="c"), annotation)


def test_sections_in_memory_count_where_they_lie(opened):
    lazy = opened("coronal", masked=True)
    pd.testing.assert_frame_equal(
        atldld.structure_table(lazy.compute(), atlas()), atldld.structure_table(lazy, atlas())
    )


@pytest.mark.parametrize("space", [9, 10])
def test_structures_at_the_exact_places_of_pixels(opened, space):
    section = opened("sagittal", reference_space=space).isel(section=2)
    places = section.atlas.pir()
    found = atldld.structures_at(places, atlas())
    assert found.dims == ("y", "x")
    assert found.chunks
    r = places.r.values if space == 9 else 11350.0 - places.r.values
    np.testing.assert_array_equal(found, nearest_label(places.p.values, places.i.values, r))
    in_memory = atldld.structures_at(section.compute().atlas.pir().compute(), atlas())
    xr.testing.assert_equal(found, in_memory)
    volume = atldld.open_volume(42, resolution=400, source=section.attrs["source"])
    voxels = atldld.structures_at(volume.atlas.pir(), atlas())
    assert voxels.dims == ("p", "i", "r")
    with pytest.raises(ValueError, match="points lack r"):
        atldld.structures_at(places.drop_vars("r"), atlas())
