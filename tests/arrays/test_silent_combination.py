"""Two datasets, one expression: right, or raises.

Right means: at each place (section, row, column, channel) of the result stands what plain
arithmetic on the values at that place gives, and nothing else has a value. The expectation is made
with pandas from the labels alone.
"""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import atldld
from atldld import MixError
from atldld.testing import AllenServer, PhantomBrain, phantom_dataset

BRAIN = PhantomBrain(texture="smooth")
DATASETS = [
    phantom_dataset(dataset_id=number, sections=4, brain=BRAIN, resolution=60, seed=number, **how)
    for number, how in {
        301: {"plane": "coronal", "tilt": 0.0},
        302: {"plane": "coronal", "tilt": 9.0},
        303: {"plane": "sagittal"},
        304: {"plane": "sagittal", "reference_space": 9},
        305: {"plane": "transverse"},
    }.items()
]
STEP = 1000.0

REFUSED = (MixError, xr.AlignmentError)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Return a function that opens a phantom, computed, and remembers it."""
    made = {}
    cache = tmp_path_factory.mktemp("cache")
    with AllenServer(DATASETS) as server, atldld.set_options(cache_dir=cache, progress=False):

        def opened(dataset_id, lazy=False, **options):
            options = {"resolution": STEP, "masked": True, "source": server.url, **options}
            key = (dataset_id, repr(sorted(options.items(), key=str)))
            if key not in made:
                array = atldld.open_dataarray(dataset_id, **options)
                made[key] = array, array.compute()
            return made[key][0 if lazy else 1]

        yield opened


def reduced(array):
    """Return the mean over the sections: an array of a plane that belongs to no section."""
    return array.mean("section")


def places(array):
    """Return the values of an array by section, row, column and channel, as a series."""
    for dim, axis in zip("yx", "ir", strict=True):
        if axis in array.coords and array.plane == "coronal":
            # What an outer join adds has a row and a column, and no copy of them.
            known = array[axis].notnull().values
            np.testing.assert_array_equal(array[axis].values[known], array[dim].values[known])
    index = pd.MultiIndex.from_product([array[dim].values for dim in array.dims], names=array.dims)
    series = pd.Series(np.asarray(array.values, dtype=np.float64).ravel(), index)
    return series.reorder_levels(sorted(array.dims)).sort_index()


def same(result, expected):
    """Hold a result against values by place, all of them and no other."""
    pd.testing.assert_series_equal(
        places(result), expected.sort_index(), check_names=False, rtol=1e-6, check_index_type=False
    )


def inner(one, two):
    return one.index.intersection(two.index)


def union(one, two):
    return one.index.union(two.index)


DIFFERENT = {
    "tilt": (reduced, (301, {}), (302, {})),
    "one section of each": (lambda a: a.isel(section=1), (301, {}), (302, {})),
    "resolution": (reduced, (301, {}), (302, {"resolution": 2 * STEP})),
    "resolutions that seldom meet": (reduced, (301, {"resolution": 600}), (301, {})),
    "region": (
        reduced,
        (301, {"region": {"i": (0, 5000), "r": (2000, 9000)}}),
        (302, {"region": {"i": (3000, 8000)}}),
    ),
    "regions apart": (
        reduced,
        (301, {"region": {"i": (0, 2000)}}),
        (302, {"region": {"i": (4000, 8000)}}),
    ),
    "resolution and region": (
        reduced,
        (302, {"resolution": 500, "region": {"i": (1000, 5000)}}),
        (301, {"resolution": 1500}),
    ),
    "sections of one dataset": (
        lambda a: a,
        (301, {"region": {"p": (0, 9000)}}),
        (301, {"region": {"p": (4000, 13000), "i": (2000, 6000)}}),
    ),
    "sections of one dataset, resolution": (
        lambda a: a,
        (301, {}),
        (301, {"resolution": 2 * STEP, "region": {"p": (3000, 13000)}}),
    ),
    "mapping": (lambda a: a, (302, {}), (302, {"mapping": "parallel"})),
    "order of the axes": (lambda a: a.transpose(), (301, {}), (301, {})),
    "order of the sections": (lambda a: a, (301, {}), (301, {})),
    "sagittal, space of the opening": (
        reduced,
        (304, {}),
        (303, {"reference_space": 9}),
    ),
}


@pytest.fixture(params=DIFFERENT)
def pair(request, opened):
    """Two arrays that may be combined, and that differ in one thing."""
    change, (one, first), (two, second) = DIFFERENT[request.param]
    a, b = change(opened(one, **first)), change(opened(two, **second))
    if request.param == "order of the axes":
        b = b.transpose()
    if request.param == "order of the sections":
        b = b.isel(section=slice(None, None, -1))
    return a, b


class TestRight:
    @pytest.mark.parametrize(
        "work",
        [np.subtract, np.add, np.multiply, np.maximum, np.greater, np.arctan2],
        ids=lambda work: work.__name__,
    )
    def test_arithmetic(self, pair, work):
        a, b = pair
        one, two = places(a), places(b)
        common = inner(one, two)
        expected = pd.Series(work(one[common], two[common]), common).astype(float)
        same(work(a, b), expected)

    def test_where(self, pair):
        a, b = pair
        one, two = places(a), places(b)
        common = inner(one, two)
        same(a.where(b > 100), one[common].where(two[common] > 100))
        a, b = xr.align(a, b)
        same(a.where(b > 100, b), one[common].where(two[common] > 100, two[common]))
        same(xr.where(b.notnull(), a, -1.0), one[common].where(two[common].notna(), -1.0))

    def test_where_with_another_raises_if_places_differ(self, pair):
        a, b = pair
        one, two = places(a), places(b)
        try:
            result = a.where(b > 100, b)
        except REFUSED:
            result = None
        if result is not None:
            assert one.index.equals(two.index)
            same(result, one.where(two > 100, two))

    @pytest.mark.parametrize("join", ["inner", "outer", "left", "right"])
    def test_align(self, pair, join):
        a, b = pair
        one, two = places(a), places(b)
        index = {"inner": inner(one, two), "outer": union(one, two), "left": one.index,
                 "right": two.index}[join]  # fmt: skip
        first, second = xr.align(a, b, join=join)
        if join == "outer":
            # Rows and columns are joined one by one: the corners belong to neither.
            index = places(first).index
            assert index.isin(union(one, two)).sum() == len(union(one, two))
        same(first, one.reindex(index))
        same(second, two.reindex(index))

    def test_exact_alignment_refuses_what_differs(self, pair):
        a, b = pair
        if not places(a).index.equals(places(b).index):
            with pytest.raises((ValueError, *REFUSED)):
                xr.align(a, b, join="exact")

    @pytest.mark.parametrize("join", ["inner", "outer"])
    def test_concat_and_merge(self, pair, join):
        a, b = pair
        one, two = places(a), places(b)
        together = xr.concat([a, b], "gene", join=join, coords="minimal", compat="override")
        merged = xr.merge([a.rename("a"), b.rename("b")], join=join, compat="override")
        for number, (name, values) in enumerate((("a", one), ("b", two))):
            part = together.isel(gene=number)
            same(part, values.reindex(places(part).index))
            same(merged[name], values.reindex(places(merged[name]).index))
            if join == "outer":
                assert int(part.notnull().sum()) == int(values.notna().sum())

    def test_combine_first_and_fillna(self, pair):
        a, b = pair
        one, two = places(a), places(b)
        both = a.combine_first(b)
        index = places(both).index
        same(both, one.reindex(index).combine_first(two.reindex(index)).reindex(index))
        same(a.fillna(b), one.fillna(two.reindex(one.index)))

    def test_like_another(self, pair):
        a, b = pair
        one, two = places(a), places(b)
        same(a.reindex_like(b), one.reindex(two.index))

    def test_datasets_and_trees(self, pair):
        a, b = pair
        one, two = places(a), places(b)
        common = inner(one, two)
        expected = one[common] - two[common]
        first, second = (each.to_dataset(name="v") for each in pair)
        same((first - second).v, expected)
        trees = [xr.DataTree.from_dict({"/m/n": each}) for each in (first, second)]
        same((trees[0] - trees[1])["/m/n/v"], expected)
        mapped = xr.map_over_datasets(lambda x, y: x - y, *trees)
        same(mapped["/m/n/v"], expected)

    def test_what_is_said_of_the_result_holds_for_both(self, pair):
        a, b = pair
        result = a - b
        for name, value in result.attrs.items():
            assert a.attrs[name] == value or b.attrs[name] == value
            assert a.attrs.get(name, value) == b.attrs.get(name, value)
        assert int(result.reference_space) == int(a.reference_space) == int(b.reference_space)


class TestInterpolationLikeAnother:
    """xarray takes the numbers of y and x; what they mean stays with the array that has pixels."""

    @pytest.mark.parametrize("other", [(302, 700.0), (303, STEP), (305, STEP)])
    def test_values_are_those_at_the_labels(self, opened, other):
        a = reduced(opened(301, masked=False))
        b = reduced(opened(other[0], resolution=other[1]))
        result = a.interp_like(b)
        y, x = a.i.values, a.r.values
        for channel in range(3):
            grid = a.values[..., channel]
            rows = np.stack([np.interp(b.x, x, row, np.nan, np.nan) for row in grid])
            expected = np.stack([np.interp(b.y, y, c, np.nan, np.nan) for c in rows.T]).T
            np.testing.assert_allclose(result.values[..., channel], expected, rtol=1e-6)
        inside = result.x.values <= x[-1]
        np.testing.assert_allclose(result.r.values[inside], b.x.values[inside])

    def test_the_result_still_belongs_to_its_own_plane(self, opened):
        a, b = (reduced(opened(number, masked=False)) for number in (301, 303))
        with pytest.raises(MixError):
            a.interp_like(b) - b


PLANES = [(301, {}), (303, {}), (304, {}), (305, {})]
OTHERS = [(PLANES[one], PLANES[two]) for one in range(4) for two in range(4) if one != two] + [
    ((303, {}), (303, {"reference_space": 9})),
    ((303, {"reference_space": 9}), (303, {})),
]

WAYS = {
    "where with other": lambda a, b: a.where(a > 3, b),
    "fillna": lambda a, b: a.fillna(b),
    "clip": lambda a, b: a.clip(min=b),
    "combine_first": lambda a, b: a.combine_first(b),
    "weighted": lambda a, b: a.weighted(b.fillna(0)).mean(),
    "cov": xr.cov,
    "corr": xr.corr,
    "assign_coords": lambda a, b: a.assign_coords(other=b),
    "broadcast_like": lambda a, b: a.broadcast_like(b),
    "reindex_like": lambda a, b: a.reindex_like(b, method="nearest"),
    "update": lambda a, b: a.to_dataset(name="a").update(b.to_dataset(name="b")),
    "combine_by_coords": lambda a, b: xr.combine_by_coords(
        [a.to_dataset(name="a"), b.to_dataset(name="b")], combine_attrs="drop"
    ),
    "combine_nested": lambda a, b: xr.combine_nested([a, b], "gene"),
    "concat along x": lambda a, b: xr.concat([a, b], "x"),
    "concat, override": lambda a, b: xr.concat([a, b], "g", coords="minimal", compat="override"),
    "merge, override": lambda a, b: xr.merge([a.rename("a"), b.rename("b")], compat="override"),
    "trees": lambda a, b: tree(a) - tree(b),
    "tree and dataset": lambda a, b: tree(a) - b.to_dataset(name="v"),
    "map_over_datasets": lambda a, b: xr.map_over_datasets(lambda x, y: x + y, tree(a), tree(b)),
    "a tree with one inside the other": lambda a, b: xr.DataTree.from_dict(
        {"/": a.to_dataset(name="v"), "/inner": b.to_dataset(name="w")}
    ),
    "after interp": lambda a, b: a.interp(y=[STEP]) + b.interp(y=[STEP]),
    "after renaming": lambda a, b: a.rename(x="q", y="s") + b.rename(x="q", y="s"),
    "after stacking": lambda a, b: a.stack(z=("y", "x")) + b.stack(z=("y", "x")),
    "after astype": lambda a, b: a.mean("channel").astype(int) + b.mean("channel").astype(int),
    "after expand_dims": lambda a, b: a.expand_dims("g") + b.expand_dims("g"),
    "after to_array": lambda a, b: a.to_dataset(name="a").to_array() + b.to_dataset(
        name="a"
    ).to_array(),
    "one point": lambda a, b: a.isel(x=3, y=3) + b.isel(x=3, y=3),
    "rolling": lambda a, b: a.rolling(x=2).mean() + b.rolling(x=2).mean(),
    "differentiate": lambda a, b: a.differentiate("x") + b.differentiate("x"),
    "resampled": lambda a, b: a.groupby_bins("x", 3).mean() + b.groupby_bins("x", 3).mean(),
    "integrate": lambda a, b: a.integrate("x") + b.integrate("x"),
    "map_blocks": lambda a, b: a.chunk().map_blocks(np.abs) + b.chunk().map_blocks(np.abs),
    "numpy first": np.add,
}  # fmt: skip


def tree(array):
    return xr.DataTree.from_dict({"/m": array.to_dataset(name="v")})


@pytest.mark.parametrize(
    "others", OTHERS, ids=lambda o: "-".join(str(n) + "s9" * bool(how) for n, how in o)
)
@pytest.mark.parametrize("way", WAYS)
def test_planes_and_spaces_raise(opened, way, others):
    (one, first), (two, second) = others
    a = reduced(opened(one, masked=False, **first))
    b = reduced(opened(two, masked=False, **second))
    with pytest.raises((ValueError, *REFUSED)):
        WAYS[way](a, b)


AFTER = {
    "rolling": lambda a: a.rolling(section=2).mean(),
    "shift": lambda a: a.shift(section=1),
    "roll": lambda a: a.roll(section=1, roll_coords=True),
    "diff": lambda a: a.diff("section"),
    "cumsum": lambda a: a.cumsum("section"),
    "sortby": lambda a: a.sortby("p"),
    "isel": lambda a: a.isel(section=[0, 2]),
    "sel": lambda a: a.sel(section=a.section.values[:2]),
    "dropna": lambda a: a.fillna(0).dropna("section"),
    "interp of rows": lambda a: a.interp(y=[STEP]),
    "reversed": lambda a: a[::-1],
    "chunked": lambda a: a.chunk(section=1),
    "copied": lambda a: a.copy(deep=True),
    "stacked rows": lambda a: a.stack(z=("y", "x")),
    "a tree": tree,
    "a dataset": lambda a: a.to_dataset(name="v"),
}


@pytest.mark.parametrize("after", AFTER)
def test_sections_of_two_datasets_raise_after_any_of_these(opened, after):
    a, b = (AFTER[after](opened(number)) for number in (301, 302))
    with pytest.raises(REFUSED):
        a + b


@pytest.mark.parametrize("way", ["sum", "tree"])
def test_lazy_arrays_refuse_before_anything_is_read(opened, way):
    a, b = opened(301, lazy=True), opened(303, lazy=True)
    with pytest.raises(REFUSED):
        a + b if way == "sum" else tree(a) + tree(b)


class TestHoles:
    """Where xarray asks no index: what happens is pinned here, and the README says what to do."""

    def test_an_array_put_into_a_dataset_by_name(self, opened):
        """``ds["b"] = array`` throws away scalar coordinates that the dataset has, guard included.

        The rows of a sagittal mean then stand at the places of a coronal one. ``merge`` refuses.
        """
        a, b = (reduced(opened(number)) for number in (301, 303))
        dataset = a.to_dataset(name="a")
        dataset["b"] = b
        assert {"r", "p"} <= set(dataset.coords)
        with pytest.raises(MixError):
            xr.merge([a.to_dataset(name="a"), b.to_dataset(name="b")])

    def test_sections_put_into_a_dataset_by_name_are_refused(self, opened):
        dataset = opened(301).to_dataset(name="a")
        with pytest.raises(REFUSED):
            dataset["b"] = opened(302)

    @pytest.mark.parametrize(
        "lose",
        [
            lambda a: a.coarsen(y=2, boundary="trim").mean(),
            lambda a: a.quantile(0.5, "channel"),
            lambda a: a.drop_vars("reference_space"),
        ],
        ids=["coarsen", "quantile", "drop_vars"],
    )
    def test_what_loses_the_guard_shows_two_axes_afterwards(self, opened, lose):
        a, b = (lose(reduced(opened(number, masked=False))) for number in (301, 303))
        assert {"p", "r"} <= set((a + b).coords)

    @pytest.mark.parametrize(
        "lose",
        [
            lambda a: a.groupby("section").mean(),
            lambda a: a.drop_vars("section"),
            lambda a: a.reset_index("section"),
            lambda a: a.drop_attrs(),
        ],
        ids=["groupby", "drop_vars", "reset_index", "drop_attrs"],
    )
    def test_what_loses_the_index_of_sections_matches_by_number_or_position(self, opened, lose):
        a, b = (lose(opened(number, masked=False)) for number in (301, 302))
        result = a + b
        assert result.sizes["section"] >= 1
        assert "image_id" not in result.coords

    def test_dropping_the_attributes_of_coordinates_drops_the_guard(self, opened):
        a, b = (reduced(opened(number, masked=False)) for number in (301, 303))
        assert "reference_space" not in a.drop_attrs().xindexes
        assert {"p", "r"} <= set((a.drop_attrs() + b.drop_attrs()).coords)
        with pytest.raises(MixError):
            a.drop_attrs(deep=False) + b.drop_attrs(deep=False)

    def test_sections_interpolated_to_the_numbers_of_another_dataset_pass_for_its(self, opened):
        a, b = opened(301, masked=False), opened(302)
        assert "section" in a.interp_like(b).xindexes
        assert (a.interp_like(b) - b).sizes["section"] == b.sizes["section"]

    def test_rows_that_an_outer_join_adds_have_no_copy_of_their_place(self, opened):
        """``y`` and ``x`` say where they are; ``i``, ``r`` and ``p`` become NaN there."""
        a = reduced(opened(301, region={"i": (0, 2000)}))
        b = reduced(opened(302, region={"i": (4000, 8000)}))
        first, _ = xr.align(a, b, join="outer")
        assert first.y.notnull().all()
        assert first.i.isnull().any()

    def test_uint8_wraps(self, opened):
        a, b = (opened(number, masked=False).isel(section=1) for number in (301, 302))
        assert (a - b).dtype == np.uint8
        exact = a.astype(int) - b.astype(int)
        assert (exact < 0).any()
        assert not ((a - b) == exact).all()

    def test_a_fill_value_of_one_enters_the_sum_with_another(self, opened):
        a = opened(301).isel(section=1)
        b = opened(302, masked=False, region={"i": (0, 8000)}).isel(section=1)
        truth = a - opened(302).isel(section=1)
        assert int((a - b).notnull().sum()) > int(truth.notnull().sum())

    def test_regions_apart_have_no_common_place(self, opened):
        a = opened(301, region={"i": (0, 2000)})
        b = opened(301, region={"i": (4000, 8000)})
        assert (a - b).size == 0
        with pytest.raises(xr.AlignmentError), xr.set_options(arithmetic_join="exact"):
            a - b
