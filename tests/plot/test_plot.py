"""Sections, native pixels and volumes as pictures: what they mean, and what they read."""

import json
import warnings

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

import atldld
from atlases import labels, structure
from atldld.errors import AtldldWarning
from atldld.testing import AllenServer, Fault, PhantomBrain, phantom_dataset

mpl.use("agg")
from matplotlib import pyplot

from usual import usual

SMOOTH = PhantomBrain(texture="smooth")
OPENED = {
    plane: phantom_dataset(
        dataset_id=401 + number,
        plane=plane,
        sections=6,
        resolution=30,
        brain=SMOOTH,
        reference_space=9,
    )
    for number, plane in enumerate(("coronal", "sagittal", "transverse"))
}


@pytest.fixture(scope="module")
def smooth():
    """Return a server of brains whose every place has its own colour."""
    with AllenServer(list(OPENED.values())) as running:
        yield running


def of_gid(axes, gid):
    return [artist for artist in axes.get_children() if artist.get_gid() == gid]


def colour_at(axes, x, y):
    """Return what the figure shows, as drawn, at a place of the axes."""
    figure = axes.figure
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())
    column, row = axes.transData.transform((x, y))
    return pixels[round(pixels.shape[0] - 1 - row), round(column), :3].astype(float)


def annotation(step=200.0, **attrs):
    shape = tuple(int(length / step) + 1 for length in (13200, 8000, 11400))
    values = labels(step, "node", shape)
    nodes = {axis: np.arange(count) * step for axis, count in zip("pir", values.shape, strict=True)}
    attrs = {"reference_space": 9, "spacing_microns": step, "atlas": "made up", **attrs}
    return xr.DataArray(values, nodes, ("p", "i", "r"), attrs=attrs)


LABELS = {
    "coronal": ("left ← r [µm] → right", "ventral ← i [µm] → dorsal"),
    "sagittal": ("anterior ← p [µm] → posterior", "ventral ← i [µm] → dorsal"),
    "transverse": ("left ← r [µm] → right", "posterior ← p [µm] → anterior"),
}
AXES = {"coronal": ("r", "i"), "sagittal": ("p", "i"), "transverse": ("r", "p")}


@pytest.mark.parametrize("plane", OPENED)
@pytest.mark.parametrize("turned", [False, True])
def test_a_section_shows_each_place_where_its_axes_say(smooth, plane, turned):
    section = atldld.open_dataarray(
        OPENED[plane].id, resolution=100, source=smooth.url, masked=turned
    ).isel(section=3)
    if turned:
        section = section.isel(y=slice(None, None, -1), x=slice(None, None, -1))
    (axes,) = section.atlas.plot(outline=False).axes
    places = section.atlas.pir().compute()
    right, down = AXES[plane]
    checked = 0
    for x, y in ((3500, 2500), (5000, 5500), (7500, 3000), (8500, 4600)):
        place = places.sel(x=x, y=y)
        assert float(place[right]) == pytest.approx(x)
        assert float(place[down]) == pytest.approx(y)
        true = SMOOTH.colour(*(float(place[axis]) for axis in "pir"))
        assert np.abs(colour_at(axes, x, y) - true).max() < 8
        checked += 1
    assert checked == 4
    # Upright: the y axis grows downwards, x to the right, one scale for both.
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert axes.get_xlim()[0] < axes.get_xlim()[1]
    assert axes.get_aspect() == 1
    assert (axes.get_xlabel(), axes.get_ylabel()) == LABELS[plane]


def test_a_section_ends_half_a_step_past_its_outer_pixels(opened):
    (axes,) = opened("sagittal").isel(section=2).atlas.plot().axes
    assert axes.get_xlim() == (-50, 13150)
    assert axes.get_ylim() == (7950, -50)
    assert axes.get_title() == "Phantom1 (302), section 28: r = 2725 µm"


def test_thinning_shifts_nothing(smooth):
    fine = atldld.open_dataarray(401, resolution=5, source=smooth.url).isel(section=3)
    (axes,) = fine.atlas.plot(outline=False).axes
    (shown,) = axes.images
    assert max(shown.get_array().shape[:2]) <= 1600
    left, right = axes.get_xlim()
    assert left == pytest.approx(-5)
    assert right == pytest.approx(float(fine.x[-1]) + 2.5, abs=5)
    columns = shown.get_array().shape[1]
    step = (right - left) / columns
    values = np.asarray(shown.get_array())
    places = fine.atlas.pir()
    for column, row in ((700, 400), (1000, 700)):
        x, y = left + (column + 0.5) * step, axes.get_ylim()[1] + (row + 0.5) * step
        place = places.sel(x=x, y=y, method="nearest").compute()
        assert abs(float(place.x) - x) < 0.1
        true = SMOOTH.colour(*(float(place[axis]) for axis in "pir"))
        assert np.abs(values[row, column, :3] - true).max() < 4


def test_the_scale_bar_is_as_long_as_it_says(opened):
    for section, unit in (
        (opened("coronal").isel(section=4), 1.0),
        (opened("coronal").atlas.at(p=6600, i=slice(2000, 3000), r=slice(2000, 3000)), 1.0),
    ):
        (axes,) = section.atlas.plot().axes
        (bar,) = of_gid(axes, "scale bar")
        assert isinstance(bar, AnchoredSizeBar)
        length = bar.size_bar.get_children()[0].get_width() * unit
        said = bar.txt_label.get_text().split()
        assert float(said[0]) * {"mm": 1000, "µm": 1}[said[1]] == length
        span = abs(np.diff(axes.get_xlim()))
        assert 0.07 * span <= length <= 0.2 * span


def test_native_pixels_have_a_scale_bar_in_microns(server):
    image = atldld.open_image(301004, tier=1, source=server.url)
    (axes,) = image.atlas.plot().axes
    (bar,) = of_gid(axes, "scale bar")
    pixels = bar.size_bar.get_children()[0].get_width()
    number, unit = bar.txt_label.get_text().split()
    microns = float(number) * {"mm": 1000, "µm": 1}[unit]
    affine = image.atlas.pir().compute()
    step = [float(affine[axis].isel(y=0, x=1) - affine[axis].isel(y=0, x=0)) / 2 for axis in "pir"]
    assert pixels * np.linalg.norm(step) == pytest.approx(microns, rel=0.02)
    assert axes.get_xlabel() == "left ← x [full-resolution pixels] → right"
    assert axes.get_xlim() == (-1, image.sizes["x"] * 2 - 1)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert axes.get_title().endswith("tier 1")


@pytest.mark.parametrize("plane", ["coronal", "sagittal", "transverse"])
def test_the_outline_is_the_border_of_what_is_covered(opened, plane):
    dataset = opened(plane, atldld.open_dataset).isel(section=1)
    (axes,) = dataset.atlas.plot().axes
    (line,) = of_gid(axes, "outline")
    ring = mpl.path.Path(line.get_xydata())
    x, y = np.meshgrid(dataset.x.values, dataset.y.values)
    points = np.stack([x.ravel(), y.ravel()], axis=-1)
    inside = ring.contains_points(points, radius=0).reshape(x.shape)
    assert (inside == dataset.covered.values).mean() > 0.9999
    assert 0.1 < inside.mean() < 0.99


def test_a_contact_sheet_labels_its_panels_and_says_what_it_leaves_out(opened):
    sections = opened("coronal")
    figure = sections.atlas.plot()
    assert len(figure.axes) == 9
    assert figure.get_suptitle() == "Phantom1 (301): 9 sections"
    for axes, number, p in zip(figure.axes, sections.section, sections.p, strict=True):
        assert axes.get_title() == f"{int(number)}: p = {float(p):.0f} µm"
    few = sections.atlas.plot(panels=4)
    assert few.get_suptitle() == "Phantom1 (301): 4 of 9 sections, evenly chosen"
    numbers = [axes.get_title().split(":")[0] for axes in few.axes]
    assert numbers == [str(int(sections.section[place])) for place in (0, 3, 5, 8)]


@pytest.mark.parametrize("chunks", ["auto", None])
def test_a_sheet_reads_the_sections_that_it_shows_and_no_others(opened, server, chunks):
    sections = opened("coronal", chunks=chunks)
    server.reset_log()
    figure = sections.atlas.plot(panels=3)
    shown = {int(axes.get_title().split(":")[0]) for axes in figure.axes}
    ids = {int(image) for image in sections.image_id[np.isin(sections.section.values, list(shown))]}
    assert {request.image_id for request in server.image_requests} == ids


def test_too_much_is_refused_before_anything_is_read(opened, server):
    fine = opened("coronal", resolution=10, tier=0)
    server.reset_log()
    with pytest.raises(ValueError, match=r"would read \d+ MB of pixels from 9 images.*coarser"):
        fine.atlas.plot(max_bytes=1e6)
    assert server.requests == []
    plan = fine.atlas.plan()
    cost = int((plan.width * plan.height * 3).sum())
    with pytest.raises(ValueError, match="max_bytes"):
        fine.atlas.plot(max_bytes=cost * 0.99)
    fine.isel(section=[0]).compute().atlas.plot(max_bytes=1)


def test_images_that_are_lost_leave_an_empty_panel(opened, phantoms):
    with AllenServer([phantoms["coronal"]]) as own:
        own.add_fault(Fault("404", image_ids={301003}))
        sections = opened(source=own.url, on_error="fill")
        with atldld.set_options(retries=0), pytest.warns(AtldldWarning, match="301003"):
            figure = sections.atlas.plot()
        place = sections.image_id.values.tolist().index(301003)
        texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
        assert texts == [["image could not be had"] if k == place else [] for k in range(9)]
        assert not figure.axes[place].images
        with atldld.set_options(retries=0), pytest.raises(atldld.ImageError, match="301003"):
            opened(source=own.url).atlas.plot()


def test_what_is_all_nan_says_that_nothing_is_covered(opened):
    section = opened(masked=True).isel(section=3).atlas.at(i=slice(0, 300), r=slice(0, 300))
    (axes,) = section.atlas.plot().axes
    assert [text.get_text() for text in axes.texts] == ["nothing covered"]


def test_stains_stand_on_white_and_fluorescence_on_black(opened):
    for name, masked, ground in (
        ("coronal", False, 1.0),
        ("coronal", True, 1.0),
        ("fluorescent", False, 0.0),
        ("fluorescent", True, 0.0),
    ):
        section = opened(name, masked=masked).isel(section=1)
        (axes,) = section.atlas.plot().axes
        assert axes.get_facecolor()[:3] == (ground,) * 3, (name, masked)
        assert (colour_at(axes, 10, 10) == ground * 255).all()


def test_masked_and_plain_look_alike(opened):
    pictures = []
    for masked in (False, True):
        (axes,) = opened("sagittal", masked=masked).isel(section=4).atlas.plot().axes
        axes.figure.canvas.draw()
        pictures.append(np.asarray(axes.figure.canvas.buffer_rgba()).astype(int))
    assert np.abs(pictures[0] - pictures[1]).mean() < 0.5


@pytest.mark.parametrize("masked", [False, True])
def test_one_value_a_pixel_is_grey_with_a_bar(opened, masked):
    mask = opened(view="expression_mask", masked=masked)
    figure = mask.isel(section=4).atlas.plot()
    axes, bar = figure.axes
    (shown,) = axes.images
    assert shown.get_cmap().name == "gray"
    assert shown.get_clim() == (0, 255)
    assert bar.get_ylabel() == "Phantom1 expression mask"
    assert len(mask.atlas.plot().axes) == 10


def test_a_mean_is_grey_and_a_coverage_too(opened):
    tissue = opened(masked=True).isel(section=4).mean("channel", keep_attrs=True)
    axes, _ = tissue.atlas.plot().axes
    assert axes.images[0].get_clim()[0] == 0
    covered = opened("coronal", atldld.open_dataset).covered.isel(section=4)
    axes, _ = covered.atlas.plot().axes
    assert axes.images[0].get_clim() == (0, 1)


def test_expression_lies_over_the_image_where_there_is_some(opened):
    both = opened("coronal", atldld.open_dataset, include_expression=True).isel(section=2)
    axes, _ = both.atlas.plot(overlay="expression", alpha=0.5).axes
    ground, laid = axes.images
    assert ground.get_extent() == laid.get_extent()
    strength = both.expression.max("channel").values
    alpha = np.asarray(laid.get_array())[..., 3]
    assert set(np.unique(alpha)) == {0, 128}
    assert np.array_equal(alpha > 0, strength > 16)
    again, _ = both.image.atlas.plot(overlay=both.expression, alpha=0.5).axes
    assert np.array_equal(np.asarray(again.images[1].get_array()), np.asarray(laid.get_array()))


@pytest.mark.parametrize("name", ["coronal", "sagittal", "transverse"])
def test_borders_lie_where_the_exact_places_change_structure(opened, name):
    section = opened(name, resolution=40).isel(section=2)
    atlas = annotation(100.0)
    (axes,) = section.atlas.plot(overlay=atlas).axes
    (lines,) = of_gid(axes, "borders")
    ends = np.array(lines.get_segments())
    assert len(ends) > 4
    places = section.atlas.pir().compute()
    if int(section.reference_space) == 10:
        places["r"] = 11350 - places.r  # the made-up atlas lies in space 9
    told_apart = []
    lengths = np.abs(ends[:, 1] - ends[:, 0]).max(axis=1)
    for ((x0, y0), (x1, y1)), length in zip(ends, lengths, strict=True):
        level = y0 == y1
        middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
        across = np.array([0.0, 1.0]) if level else np.array([1.0, 0.0])
        along = 20.0 * across[::-1]  # to the middle of a pixel
        first = np.array([min(x0, x1), min(y0, y1)]) + along
        sides = [first + side * 20.0 * across for side in (-1, 1)]
        near = [places.sel(x=x, y=y, method="nearest") for x, y in sides]
        seen = [int(atlas.sel({a: float(at[a]) for a in "pir"}, method="nearest")) for at in near]
        assert seen[0] != seen[1]
        if length >= 3000:
            far = [middle + side * 220.0 * across for side in (-1, 1)]
            near = [places.sel(x=x, y=y, method="nearest") for x, y in far]
            true = [int(structure(*(np.float64(at[a]) for a in "pir"))) for at in near]
            told_apart.append(true[0] != true[1])
    # The others lie so near to a third structure that it is seen on both sides.
    assert np.mean(told_apart) > 0.7
    ids = atldld.structures_at(
        np.stack([places[axis].broadcast_like(places.p).values.ravel() for axis in "pir"], -1),
        atlas,
    ).reshape(places.p.shape)
    sides = (ids[1:] != ids[:-1]).sum() + (ids[:, 1:] != ids[:, :-1]).sum()
    assert lengths.sum() == pytest.approx(40 * sides)


def test_an_overlay_must_lie_on_the_same_grid(opened):
    both = opened("coronal", atldld.open_dataset, include_expression=True)
    section = both.image.isel(section=2)
    with pytest.raises(ValueError, match="its image_id differs"):
        section.atlas.plot(overlay=both.expression.isel(section=3))
    with pytest.raises(ValueError, match="its x differs"):
        section.atlas.plot(overlay=both.expression.isel(section=2, x=slice(1, None)))
    with pytest.raises(ValueError, match="sections over section"):
        section.atlas.plot(overlay=both.expression)
    with pytest.raises(ValueError, match="no variable 'energy'"):
        both.isel(section=2).atlas.plot(overlay="energy")
    with pytest.raises(TypeError, match="overlay is int"):
        section.atlas.plot(overlay=3)
    with pytest.raises(ValueError, match="alpha is 2"):
        section.atlas.plot(overlay=both.expression.isel(section=2), alpha=2)


def test_what_cannot_be_drawn_is_refused(opened):
    sections = opened()
    with pytest.raises(ValueError, match="dimensions"):
        sections.isel(x=3).atlas.plot()
    with pytest.raises(ValueError, match="not even"):
        sections.isel(section=0, x=[1, 2, 5]).atlas.plot()
    with pytest.raises(ValueError, match="shape"):
        sections.isel(section=slice(0, 0)).atlas.plot()
    with pytest.raises(ValueError, match="planes of a volume"):
        sections.atlas.plot(p=3000)
    with pytest.raises(ValueError, match="2 channels"):
        sections.isel(channel=[0, 1]).atlas.plot()
    with pytest.raises(ValueError, match="panels is 0"):
        sections.atlas.plot(panels=0)
    with pytest.raises(ValueError, match="lost its coordinate x"):
        sections.isel(section=0).drop_vars("x").atlas.plot()


def test_it_draws_into_axes_that_are_given(opened):
    sections = opened()
    figure, many = pyplot.subplots(2, 2)
    assert sections.isel(section=3).atlas.plot(ax=many[0, 1]) is figure
    assert many[0, 1].images
    assert not many[0, 0].images
    assert sections.atlas.plot(ax=many) is figure
    assert all(axes.images for axes in many.ravel())
    parts = pyplot.figure().subfigures(1, 2)
    inner = parts[1].subplots()
    assert isinstance(sections.isel(section=3).atlas.plot(ax=inner), Figure)
    with pytest.raises(TypeError, match="ax is Figure"):
        sections.isel(section=3).atlas.plot(ax=figure)
    volume = atldld.open_volume(301, resolution=400, source=sections.attrs["source"])
    with pytest.raises(ValueError, match="ax has 1 Axes; a volume takes 3"):
        volume.atlas.plot(ax=many[0, 0])


@pytest.mark.parametrize("plane", OPENED)
def test_the_planes_of_a_volume_show_each_place_where_their_axes_say(smooth, plane):
    volume = atldld.open_volume(OPENED[plane].id, resolution=100, source=smooth.url)
    point = {"p": 6400, "i": 3300, "r": 6100}
    # On a section, so that a voxel and what it shows agree.
    along = {"coronal": "p", "sagittal": "r", "transverse": "i"}[plane]
    near = np.abs(volume.distance.sel({axis: point[axis] for axis in "pir" if axis != along}))
    point[along] = float(volume[along][int(np.nanargmin(near.values))])
    figure = volume.atlas.plot(**point)
    panels = figure.axes
    assert [axes.get_title() for axes in panels] == [
        f"{axis} = {point[axis]:.0f} µm" for axis in "pri"
    ]
    assert [axes.get_xlabel() for axes in panels] == [
        "left ← r [µm] → right", "anterior ← p [µm] → posterior", "left ← r [µm] → right",
    ]  # fmt: skip
    assert [axes.get_ylabel() for axes in panels] == [
        "ventral ← i [µm] → dorsal", "ventral ← i [µm] → dorsal",
        "posterior ← p [µm] → anterior",
    ]  # fmt: skip
    for axes, (right, down) in zip(panels, (("r", "i"), ("p", "i"), ("r", "p")), strict=True):
        cross = of_gid(axes, "cross")
        assert cross[0].get_xdata()[0] == point[right]
        assert cross[1].get_ydata()[0] == point[down]
        assert axes.get_aspect() == 1
        assert axes.get_ylim()[0] > axes.get_ylim()[1]
    # The panel that lies in the sections shows what is there.
    axes = panels["pri".index(along)]
    right, down = {"p": ("r", "i"), "r": ("p", "i"), "i": ("r", "p")}[along]
    for x, y in ((5000, 2500), (7000, 5000)):
        place = {**point, right: x, down: y}
        if abs(float(volume.distance.sel(place))) > 60:
            continue
        assert np.abs(colour_at(axes, x, y) - SMOOTH.colour(**place)).max() < 20
    # All panels have one scale.
    figure.canvas.draw()
    scales = [axes.transData.transform([(0, 0), (1000, 0)]) for axes in panels]
    lengths = [ends[1, 0] - ends[0, 0] for ends in scales]
    assert np.ptp(lengths) < 0.05 * lengths[0]


@pytest.mark.parametrize("chunks", ["auto", None])
def test_only_the_three_planes_are_read(smooth, chunks):
    volume = atldld.open_volume(401, resolution=50, source=smooth.url, chunks=chunks)
    point = {"p": 6400.0, "i": 3300.0, "r": 6100.0}
    wanted = set()
    for axis, value in point.items():
        plan = volume.image.sel({axis: value}).atlas.plan()
        wanted |= set(zip(plan.image_id, plan.tier, plan.whole, strict=True))
    smooth.reset_log()
    volume.atlas.plot(**point)
    seen = {(each.image_id, each.tier, each.window is None) for each in smooth.image_requests}
    assert seen <= wanted
    assert seen


def test_a_volume_begins_in_the_middle_of_what_is_covered(opened, server):
    volume = atldld.open_volume(302, resolution=100, source=server.url)
    for given in (volume, volume.image):
        r = float(given.atlas.plot().axes[1].get_title().split()[2])
        covered = volume.section_number.sel(i=4000) >= 0
        some = volume.r.values[covered.any("p").values]
        assert abs(r - (some[0] + some[-1]) / 2) <= 300
    masked = atldld.open_volume(302, resolution=200, source=server.url, masked=True).compute()
    assert abs(float(masked.atlas.plot().axes[1].get_title().split()[2]) - r) <= 300
    with pytest.raises(ValueError, match="p=20000 lies outside the volume"):
        volume.atlas.plot(p=20000)


def test_a_plane_of_a_volume_is_drawn_by_itself(smooth):
    volume = atldld.open_volume(402, resolution=100, source=smooth.url)
    (axes,) = volume.image.sel(r=6100).atlas.plot().axes
    assert axes.get_xlabel().startswith("anterior ← p")
    assert axes.get_ylim() == (7950, -50)
    (axes,) = volume.image.sel(i=4000).transpose("channel", "r", "p").atlas.plot().axes
    assert axes.get_xlabel() == "left ← r [µm] → right"
    assert axes.get_ylabel() == "posterior ← p [µm] → anterior"
    borders = volume.image.sel(r=6000).atlas.plot(overlay=annotation()).axes[0]
    assert of_gid(borders, "borders")
    axes = volume.section_number.sel(r=6000).atlas.plot().axes[0]
    assert np.isnan(np.asarray(axes.images[0].get_array().filled(np.nan))).any()


def test_warnings_of_other_atlases_reach_the_user(opened):
    section = opened().isel(section=3)
    with pytest.warns(AtldldWarning, match="29 %"):
        section.atlas.plot(overlay=annotation(reference_space="CCFv3"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        section.atlas.plot(overlay=annotation())


def test_measures_are_shown_over_their_own_range(smooth):
    """They come from a view with grey levels, and are none."""
    measured = atldld.quantify(401, resolution=400, source=smooth.url).energy.compute()
    figure = (measured / measured.max()).assign_attrs(measured.attrs).atlas.plot()
    shown = [image.get_clim() for axes in figure.axes for image in axes.images]
    assert shown
    assert all(high <= 1 for _, high in shown)


class TestLeftAndRight:
    """Every picture says where left and right are, and which space it lies in."""

    def test_axes_of_r(self, opened):
        axes = opened("coronal").isel(section=2).atlas.plot().axes[0]
        assert axes.get_xlabel() == "left ← r [µm] → right"
        assert axes.figure.get_supxlabel() == "P56 Brain (space 9)"

    def test_tissue_that_stands_on_the_other_side(self, opened):
        native = opened("sagittal").isel(section=2).atlas.plot()
        assert native.get_supxlabel() == (
            "P56 Brain, L/R Flipped (space 10); tissue of the left hemisphere"
        )
        moved = opened("sagittal", reference_space=9).isel(section=2).atlas.plot()
        assert moved.get_supxlabel() == (
            "P56 Brain (space 9); tissue of the left hemisphere, shown on the right"
        )

    def test_a_sheet_says_it_in_words(self, opened):
        figure = opened("coronal").atlas.plot(panels=4)
        assert figure.get_supxlabel() == (
            "P56 Brain (space 9): left ← r → right, dorsal at the top"
        )

    def test_a_volume_and_a_placement(self, opened, server):
        volume = atldld.open_volume(301, resolution=200, source=server.url).atlas.plot()
        assert volume.get_supxlabel() == "P56 Brain (space 9)"
        assert volume.axes[2].get_xlabel() == "left ← r [µm] → right"
        placed = atldld.plot.placement(302, source=server.url)
        assert placed.get_supxlabel().startswith("P56 Brain, L/R Flipped (space 10)")

    def test_axes_of_the_user_are_told_below_themselves(self, opened):
        from matplotlib import pyplot

        figure, axes = pyplot.subplots()
        opened("coronal").isel(section=2).atlas.plot(ax=axes)
        assert axes.get_xlabel() == "left ← r [µm] → right\nP56 Brain (space 9)"
        assert figure.get_supxlabel() == ""

    @pytest.mark.parametrize(
        ("plane", "right", "down"),
        [
            ("coronal", "left ← x [full-resolution pixels] → right", "ventral ← y"),
            ("sagittal", "anterior ← x [full-resolution pixels] → posterior", "ventral ← y"),
        ],
    )
    def test_native_pixels_run_where_the_matrices_say(self, server, phantoms, plane, right, down):
        image = phantoms[plane].image_ids[2]
        axes = atldld.open_image(image, tier=1, source=server.url).atlas.plot().axes[0]
        assert axes.get_xlabel() == right
        assert axes.get_ylabel().startswith(down)
        x, y = np.array([0.0, 50.0]), np.array([0.0, 0.0])
        p, _, r = phantoms[plane].pir(image, x, y)
        assert (r if plane == "coronal" else p)[1] > (r if plane == "coronal" else p)[0]


class TestOverlays:
    def test_expression_has_a_bar(self, opened):
        both = opened("sagittal", atldld.open_dataset, include_expression=True)
        figure = both.atlas.at(r=3700).atlas.plot(overlay="expression")
        assert len(figure.axes) == 2
        bar = figure.axes[1]
        assert bar.get_ylabel() == "expression, in Allen's colours"
        assert [each.get_text() for each in bar.get_yticklabels()] == ["low", "high"]

    def test_grey_levels_and_measures_have_their_own_range(self, opened):
        image, mask = opened("coronal"), opened("coronal", view="expression_mask")
        figure = image.isel(section=3).atlas.plot(overlay=mask.isel(section=3))
        assert figure.axes[1].get_ylim() == (0, 255)
        share = (mask.isel(section=3) / 2000.0).rename("share").assign_attrs(view="")
        figure = image.isel(section=3).atlas.plot(overlay=share)
        top = figure.axes[1].get_ylim()[1]
        assert top == pytest.approx(float(share.max()))
        laid = figure.axes[0].images[1].get_array()
        assert laid[..., 1][laid[..., 3] > 0].min() == 0  # the greatest value is red

    def test_values_in_memory_are_drawn_like_lazy_ones(self, opened):
        lazy = opened("coronal", masked=True).atlas.at(p=7900)
        drawn = []
        for section in (lazy, lazy.compute()):
            axes = section.atlas.plot(overlay=annotation(100.0)).axes[0]
            (lines,), (ring,) = of_gid(axes, "borders"), of_gid(axes, "outline")
            drawn.append((np.array(lines.get_segments()), ring.get_xydata()))
        for one, other in zip(*drawn, strict=True):
            np.testing.assert_array_equal(one, other)

    def test_borders_carry_acronyms_of_a_named_annotation(self, opened, server):
        annotation = atldld.open_annotation("P56", resolution=200, source=server.url)
        section = opened("coronal", masked=True).atlas.at(p=7900)
        axes = section.atlas.plot(overlay=annotation).axes[0]
        texts = {each.get_text(): each for each in axes.texts if each.get_gid() == "acronym"}
        assert {"Isocortex", "TH", "BS"} <= set(texts)
        for acronym, number in (("Isocortex", 315), ("TH", 549), ("BS", 343)):
            r, i = texts[acronym].get_position()
            row, column = (
                int(np.abs(section[dim].values - at).argmin()) for dim, at in (("y", i), ("x", r))
            )
            places = section.atlas.pir().compute()
            exact = [places[axis].transpose("y", "x").values for axis in "pir"]
            point = [[float(each[row, column]) for each in exact]]
            assert atldld.structures_at(point, annotation).tolist() == [number]


@pytest.mark.parametrize("gene", usual([r"$\frac{$", "$x$", "A_1^{"]))
def test_no_part_of_a_name_is_a_formula(gene, tmp_path):
    odd = phantom_dataset(dataset_id=309, sections=3, resolution=60, gene=gene)
    with AllenServer([odd]) as server:
        sections = atldld.open_dataarray(309, resolution=200, source=server.url)
        volume = atldld.open_volume(309, resolution=400, source=server.url)
        mask = atldld.open_dataarray(309, resolution=200, view="expression_mask", source=server.url)
        for number, figure in enumerate(
            (
                sections.atlas.plot(),
                sections[1].atlas.plot(overlay=mask[1]),
                mask[1].atlas.plot(),
                volume.atlas.plot(),
                atldld.plot.placement(309, source=server.url),
                atldld.open_image(odd.image_ids[0], source=server.url).atlas.plot(),
            )
        ):
            figure.savefig(tmp_path / f"{number}.png", dpi=30)
        assert gene in sections[1].atlas.plot().axes[0].get_title()


class TestCCFv3:
    """Sections that a registration of the user's places in CCFv3."""

    @pytest.fixture
    def placed(self, opened, tmp_path):
        """Return a function that opens the coronal phantom as Allen places it, but in CCFv3."""
        opened().atlas.to_quicknii(tmp_path / "q.json")
        content = json.loads((tmp_path / "q.json").read_text())
        del content["atldld"]

        def placed(function=atldld.open_dataarray, **options):
            return opened(function=function, registration=content, **options)

        placed.content = content
        return placed

    def test_every_title_says_it(self, placed, phantoms):
        name = f"dataset {phantoms['coronal'].id}"
        sections = placed()
        gene = sections.attrs["gene"]
        named = f"{gene} ({phantoms['coronal'].id}) in CCFv3" if gene else f"{name} in CCFv3"
        sheet = sections.atlas.plot()
        assert sheet.get_suptitle().startswith(f"{named}: 9 sections")
        assert sheet.get_supxlabel().startswith("Allen CCFv3 (2017)")
        (axes,) = sections.atlas.at(p=7900).atlas.plot().axes
        assert axes.get_title().startswith(f"{named}, section ")
        volume = placed(atldld.open_volume, resolution=400)
        assert volume.atlas.plot().get_suptitle().startswith(f"{named} at p = ")
        assert atldld.plot.placement(sections).get_suptitle().startswith(f"{named}: 9 sections")
        image = atldld.open_image(
            phantoms["coronal"].image_ids[4], tier=1, source=sections.source,
            registration=placed.content,
        )  # fmt: skip
        assert "in CCFv3" in image.atlas.plot().axes[0].get_title()
        assert " in CCFv3" in repr(sections.atlas).splitlines()[0]
        assert " in CCFv3" in repr(volume.atlas).splitlines()[0]

    def test_borders_are_those_of_the_space_that_it_lies_in(self, placed, opened, server):
        with atldld.set_options(api_url=server.url):
            drawn = {}
            for name, section in (
                ("CCFv3", placed(masked=True).atlas.at(p=7900)),
                ("P56", opened(masked=True).atlas.at(p=7900)),
            ):
                annotation = atldld.open_annotation(name)
                drawn[name] = [
                    np.array(of_gid(section.atlas.plot(overlay=each).axes[0], "borders")[0]
                             .get_segments())
                    for each in ("borders", annotation)
                ]  # fmt: skip
                np.testing.assert_array_equal(*drawn[name])
            assert not np.array_equal(drawn["CCFv3"][0], drawn["P56"][0])
            volume = placed(atldld.open_volume, resolution=200).image.isel(p=40)
            assert of_gid(volume.atlas.plot(overlay="borders").axes[0], "borders")

    def test_the_annotation_of_2011_is_refused(self, placed):
        section = placed().atlas.at(p=7900)
        with pytest.raises(ValueError, match="lies in CCFv3, and the annotation in") as caught:
            section.atlas.plot(overlay=annotation())
        assert "open_annotation('CCFv3')" in str(caught.value)
        with pytest.raises(ValueError, match="no variable 'P56'"):
            section.atlas.plot(overlay="P56")

    def test_the_outline_of_a_bent_section_is_bent(self, placed, opened):
        for each in placed.content["slices"]:
            width, height = each["width"], each["height"]
            # Pulled to the right at the middle of the left side, and up amid the lower one.
            each["markers"] = [
                [0.0, height * 0.5, width * 0.06, height * 0.5],
                [width * 0.5, height, width * 0.5, height * 0.94],
            ]
        section = placed(atldld.open_dataset, masked=True, resolution=50).isel(section=4).compute()
        lazy = placed(atldld.open_dataarray, masked=True, resolution=50).isel(section=4)
        ring = of_gid(lazy.atlas.plot().axes[0], "outline")[0].get_xydata()
        straight = opened(resolution=50).sel(section=int(lazy.section)).atlas.plot().axes[0]
        assert len(of_gid(straight, "outline")[0].get_xydata()) == 5
        covered = section.covered.values
        seen = 0
        for x, y in ring:
            row, column = round(y / 50), round(x / 50)
            near = covered[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            if near.shape == (3, 3):
                assert near.any()
                assert not near.all()
                seen += 1
        assert seen > 80
