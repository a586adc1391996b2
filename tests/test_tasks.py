"""The ten tasks of docs/tasks.md: five lines each, and the right answer."""

import re

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

import atldld
import stand_in
import twins
from atldld.testing import PhantomBrain
from pages import page

PAGE = page("docs/tasks.md")
TITLES = re.findall(r"^## (.*)$", PAGE.text, re.M)
IMPORTS, *BLOCKS = PAGE.blocks("python")
BRAIN = PhantomBrain()
NODE = 200.0


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    stand_in.write_annotation(folder)
    with (
        stand_in.stand_in(resolution=16) as server,
        atldld.set_options(api_url=server.url, cache_dir=folder / "cache"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.chdir(folder)
        mpl.use("agg")
        yield server
        from matplotlib import pyplot as plt

        plt.close("all")


@pytest.fixture(scope="module")
def prox1():
    return next(each for each in stand_in.datasets(resolution=16) if each.id == stand_in.PROX1)


def run(title):
    """Run the one block of a task by itself, and return the names it leaves."""
    names = {}
    IMPORTS.run(names)
    BLOCKS[TITLES.index(title)].run(names)
    return names


def test_there_are_ten_and_each_is_five_lines():
    assert len(TITLES) == len(BLOCKS) == 10
    for title, block in zip(TITLES, BLOCKS, strict=True):
        assert len([line for line in block.text.splitlines() if line.strip()]) <= 5, title
        assert ";" not in block.text, title
        section = PAGE.text.split(f"## {title}\n")[1].split("\n## ")[0]
        assert section.count("```python") == 1, title


def structure(p, i, r):
    """Return the structure at places of space 9, from the nearest node, by hand.

    Halfway between two nodes the upper one counts.
    """
    nodes = [np.floor(np.asarray(axis) / NODE + 0.5).astype(int) for axis in (p, i, r)]
    shape = stand_in.labels().shape
    inside = np.all([(n >= 0) & (n < size) for n, size in zip(nodes, shape, strict=True)], axis=0)
    nodes = [np.clip(n, 0, size - 1) for n, size in zip(nodes, shape, strict=True)]
    return np.where(inside, stand_in.labels()[tuple(nodes)], 0)


def size(path):
    with Image.open(path) as picture:
        return picture.size


def shifts(values, truth, dims):
    """Return the mean error in place, and the least of those one and two steps beside it."""
    here = float(np.abs(values - truth).mean())
    beside = [
        float(np.abs(values - truth.shift({dim: step})).mean())
        for dim in dims
        for step in (-2, -1, 1, 2)
    ]
    return here, min(beside)


def true_section(prox1, section):
    """Return what the phantom shows on a section's grid, float64, NaN where not covered."""
    image = prox1.image(int(section.image_id))
    px, py, _ = twins.pixels_of_grid(
        prox1.row, image, "sagittal", section.y.values, section.x.values, "oblique"
    )
    colour = twins.true_colour(prox1, image["id"], px, py)
    colour[~twins.covered(image, px, py)] = np.nan
    return section.copy(data=colour)


def test_a_section_at_a_place(served, prox1):
    names = run("A section at a place")
    section = names["section"]
    everywhere = atldld.open_dataarray(stand_in.PROX1).r
    assert abs(section.r - 3365) == abs(everywhere - 3365).min()
    here, beside = shifts(section.compute().astype(float), true_section(prox1, section), "yx")
    assert here < 1.5
    assert beside > 1.5 * here
    assert size("section.png") > (400, 200)


def test_a_full_resolution_crop_of_a_structure(served, prox1):
    crop = run("A full-resolution crop of a structure")["crop"]
    image = prox1.image(int(crop.image_id))
    x, y = np.meshgrid(np.arange(image["width"]), np.arange(image["height"]))
    p, i, r = prox1.pir(image["id"], x, y)
    where = np.argwhere(stand_in.labels() == 632) * NODE
    low, high = where.min(axis=0) - NODE / 2, where.max(axis=0) + NODE / 2
    inside = (p >= low[0]) & (p <= high[0]) & (i >= low[1]) & (i <= high[1])
    for axis, places in (("x", x[inside]), ("y", y[inside])):
        assert crop[axis].values.tolist() == list(range(places.min(), places.max() + 1))
    granular = structure(p, i, 11350 - r) == 632
    assert granular.sum() > 500
    assert crop.x[0] <= x[granular].min() <= x[granular].max() <= crop.x[-1]
    assert crop.y[0] <= y[granular].min() <= y[granular].max() <= crop.y[-1]
    true = prox1.pixels(image["id"])[y[inside].min() :, x[inside].min() :]
    error = np.abs(crop.values.astype(float) - true[: crop.sizes["y"], : crop.sizes["x"]])
    assert error.mean() < 1.5


def test_native_pixels_with_their_p_i_r(served, prox1):
    table = run("Native pixels, with their p, i, r")["table"].reset_index()
    assert table.x.nunique() * table.y.nunique() == len(table) > 900
    truth = prox1.pir(int(table.image_id[0]), table.x, table.y)
    for axis, places in zip("pir", truth, strict=True):
        np.testing.assert_allclose(table[axis], places, atol=1e-6)
    assert table.r.max() - table.r.min() > 1
    colour = BRAIN.colour(truth[0], truth[1], 11350 - truth[2])
    assert np.abs(table[["red", "green", "blue"]] - colour).to_numpy().mean() < 1.5


def test_cells_to_structures(served, prox1):
    random = np.random.default_rng(3)
    images = [prox1.image(number) for number in random.choice(prox1.image_ids, 300)]
    cells = pd.DataFrame({"section_number": [image["section_number"] for image in images]})
    cells["x"] = [random.uniform(0, image["width"]) for image in images]
    cells["y"] = [random.uniform(0, image["height"]) for image in images]
    cells.to_csv("cells.csv", index=False)
    expected = []
    for image, x, y in zip(images, cells.x, cells.y, strict=True):
        p, i, r = prox1.pir(image["id"], x, y)
        expected.append(int(structure(p, i, 11350 - r)))
    names = run("Cells to structures")
    assert names["cells"].structure_id.tolist() == expected
    assert names["counts"].to_dict() == pd.Series(expected).value_counts().to_dict()
    assert names["counts"].index.size > 5


def genes():
    """Return volumes of the genes that the tasks name, by the columns they should have."""
    numbers = {"Calb1": 1011, "Pvalb": 1014, "Prox1": stand_in.PROX1}
    return {f"{gene} {number}": stand_in.energies()[gene] for gene, number in numbers.items()}


def test_gene_by_structure_for_many_genes(served):
    table = run("Gene by structure, for many genes")["table"]
    assert list(table.columns) == list(genes())
    assert set(stand_in.STRUCTURES) < set(table.index)
    for column, volume in genes().items():
        for number in stand_in.STRUCTURES:
            inside = np.isin(stand_in.labels(), stand_in.parts_of(number))
            mean = volume[inside & (volume >= 0)].mean(dtype=float)
            assert table.loc[number, column] == pytest.approx(mean, rel=1e-6)
    assert table["Prox1 69289763"].idxmax() == 632


def test_many_grids_as_genes_by_voxels(served):
    matrix = run("Many grids as genes by voxels")["matrix"]
    assert matrix.dims == ("dataset", "voxel")
    assert matrix.dataset.values.tolist() == [1011, 1014, stand_in.PROX1]
    for row, volume in zip(matrix, genes().values(), strict=True):
        assert row.size == (volume >= 0).sum()
        nodes = [
            np.rint(axis / NODE).astype(int) for axis in (matrix.p, matrix.i, 11350 - matrix.r)
        ]
        assert (row.values == volume[tuple(nodes)]).all()


def test_a_sagittal_replicate_against_a_coronal_dataset(served):
    names = run("A sagittal replicate against a coronal dataset")
    assert names["coronal"].attrs["plane"] == "coronal"
    assert names["agreement"] > 0.8
    one, other = names["sagittal"].energy.compute(), names["coronal"].energy.compute()
    both = (one.notnull() & other.notnull()).values
    plain = np.corrcoef(one.values[both], other.values[both])[0, 1]
    assert names["agreement"] == pytest.approx(plain)
    assert one.r.where(one.notnull()).min() > 5675 - NODE
    for axis in "pir":
        for step in (-1, 1):
            assert float(xr.corr(one, other.shift({axis: step}))) < names["agreement"] - 0.05


def test_expression_density_at_100_microns(served, prox1):
    run("Expression density of my gene at 100 microns")
    with xr.open_dataset("prox1-density.nc") as opened:
        measured = opened.load()
    pixels, expressing = (np.zeros(measured.density.shape) for _ in range(2))
    for number in prox1.image_ids:
        image = prox1.image(number)
        x, y = np.meshgrid(np.arange(image["width"]), np.arange(image["height"]))
        cells = tuple(np.floor(axis / 100 + 0.5).astype(int) for axis in prox1.pir(number, x, y))
        inside = np.all(
            [(n >= 0) & (n < size) for n, size in zip(cells, pixels.shape, strict=True)], axis=0
        )
        cells = tuple(axis[inside] for axis in cells)
        np.add.at(pixels, cells, 1)
        np.add.at(expressing, cells, prox1.pixels(number, view="expression_mask")[inside] >= 32)
    # Rounding at the faces of cells may put a pixel into the next one.
    assert np.abs(measured.n_pixels.values - pixels).sum() < 1e-5 * pixels.sum()
    with np.errstate(invalid="ignore"):
        truth = expressing / pixels
    assert (np.isnan(measured.density.values) == np.isnan(truth)).all()
    # The masks are sent as JPEG, which moves some pixels across the threshold.
    assert np.nanmean(np.abs(measured.density.values - truth)) < 0.01
    assert measured.density.max() == 1


def test_atlas_borders_over_a_section(served, prox1):
    names = run("Atlas borders over a section")
    section = names["section"]
    figure = section.atlas.plot(overlay=names["annotation"])
    (lines,) = (each for each in figure.axes[0].collections if each.get_gid() == "borders")
    image = prox1.image(int(section.image_id))
    y, x = section.y.values, section.x.values
    _, _, place = twins.pixels_of_grid(prox1.row, image, "sagittal", y, x, "oblique")
    found = structure(place[0], place[1], 11350 - place[2])
    step = float(x[1] - x[0])
    drawn = np.zeros((2, *found.shape), dtype=bool)
    for segment in lines.get_segments():
        (x0, y0), (x1, y1) = segment
        assert x0 == x1 or y0 == y1
        axis = 0 if y0 == y1 else 1
        fixed, low, high = (y0, *sorted((x0, x1))) if axis == 0 else (x0, *sorted((y0, y1)))
        before = round(fixed / step - 0.5)
        first, last = round(low / step + 0.5), round(high / step - 0.5)
        if axis == 0:
            drawn[0, before, first : last + 1] = True
        else:
            drawn[1, first : last + 1, before] = True
    expected = np.zeros_like(drawn)
    expected[0, :-1] = found[:-1] != found[1:]
    expected[1, :, :-1] = found[:, :-1] != found[:, 1:]
    assert expected.sum() > 500
    assert (drawn == expected).all()
    assert size("borders.png") > (400, 200)


def test_a_virtual_coronal_plane_from_sagittal_sections(served, prox1):
    plane = run("A virtual coronal plane from sagittal sections")["plane"]
    assert plane.dims == ("i", "r", "channel")

    def brain(p):
        colour = BRAIN.colour(p, plane.i.values[:, None], 11350 - plane.r.values[None, :])
        return plane.copy(data=colour)

    here, beside = shifts(plane, brain(6600), "ir")
    assert here < 6
    assert beside > 1.15 * here
    for p in (6300, 6900):
        assert float(np.abs(plane - brain(p)).mean()) > 1.15 * here
    shown = plane.notnull().all("channel").any("i")
    assert 1500 < float(plane.r[shown].min()) < 2100
    assert 5300 < float(plane.r[shown].max()) < 5700
    assert size("coronal.png") > (400, 200)
