"""Opening and looking make no request for pixels; computing makes those it needs."""

import dask
import numpy as np
import pytest
from dask.utils import key_split

import atldld


@pytest.mark.parametrize("function", [atldld.open_dataarray, atldld.open_dataset])
@pytest.mark.parametrize("chunks", ["auto", None, {"section": 1}])
def test_opening_and_looking_fetch_no_pixels(server, opened, function, chunks):
    server.reset_log()
    array = opened(function=function, chunks=chunks)
    repr(array)
    array._repr_html_()
    array.sel(p=6000, method="nearest").isel(y=slice(3, 9))
    if chunks is not None:
        array.mean("section")
    assert len(server.requests) == 1
    assert server.image_requests == []


def test_a_section_reads_its_own_image_only(server, opened):
    array = opened(chunks={"section": 1})
    server.reset_log()
    section = array.isel(section=2).compute()
    assert [each.image_id for each in server.image_requests] == [int(section.image_id)]
    array.isel(section=2).compute()
    assert len(server.image_requests) == 1  # the second time from the cache


def test_selections_reach_the_reads_of_a_lazy_array(server, opened):
    array = opened(chunks=None)
    server.reset_log()
    array.isel(section=slice(1, 5)).sel(i=slice(2000, 5000)).isel(section=[0, 3]).load()
    asked = {each.image_id for each in server.image_requests}
    assert asked == {int(array.image_id[1]), int(array.image_id[4])}
    assert len(server.image_requests) == 2


def test_coverage_needs_no_download(server, opened):
    data = opened(function=atldld.open_dataset)
    server.reset_log()
    covered = data.covered.compute()
    assert covered.dtype == bool
    assert 0.05 < float(covered.mean()) < 0.95
    assert server.requests == []


def test_points_that_no_section_covers_cost_no_request(server, opened, phantoms):
    data = opened(function=atldld.open_dataset, chunks=None)
    server.reset_log()
    corner = data.isel(y=slice(0, 1), x=slice(0, 1))
    assert not corner.covered.values.any()
    assert (corner.image.values == 255).all()
    assert server.requests == []


def test_region_cuts_sections_and_grid(server, opened):
    whole = opened()
    region = {"p": (4000, 8000), "i": (1000, 5000.5), "r": (2200, 2200)}
    cut = opened(region=region)
    assert cut.sizes == {"section": cut.sizes["section"], "y": 21, "x": 1, "channel": 3}
    expected = whole.sel(i=slice(1000, 5000.5), r=slice(2200, 2200))
    p = expected.atlas.pir().p.compute()
    passes = (p.max(("y", "x")) >= 4000) & (p.min(("y", "x")) <= 8000)
    expected = expected.isel(section=passes.values)
    np.testing.assert_array_equal(cut.image_id, expected.image_id)
    server.reset_log()
    values = cut.values
    assert {each.image_id for each in server.image_requests} <= set(cut.image_id.values.tolist())
    np.testing.assert_array_equal(values, expected.values)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ({"p": (20000, 30000)}, "holds no section of dataset 101; they lie from"),
        ({"r": (-50, -10)}, "holds no grid point; they lie from 0 to 11200"),
        ({"r": (10, 20)}, "holds no grid point"),
        ({"q": (1, 2)}, "its axes are 'p', 'i', 'r'"),
        ({"p": (2, 1)}, "the lower end comes first"),
    ],
)
def test_a_region_with_nothing_in_it_says_what_there_is(opened, region, message):
    with pytest.raises(ValueError, match=message):
        opened(region=region)


def test_no_tier_beyond_the_last_is_asked_for(server, opened, phantoms):
    with pytest.warns(atldld.AtldldWarning, match="no section has a tier 9"):
        array = opened(tier=9)
    counts = [
        phantoms["coronal"].image(int(image))["tier_count"] for image in array.image_id.values
    ]
    assert array.tier.values.tolist() == [count - 1 for count in counts]
    server.reset_log()
    array.isel(section=0).compute()
    assert server.image_requests[0].tier == counts[0] - 1


def test_no_more_connections_than_the_option_says(server, opened):
    with atldld.set_options(max_connections=2):
        opened(chunks=None).load()
    assert server.connections_high_water <= 2


def test_a_thousand_sections_make_a_small_graph():
    import cloudpickle

    from atldld.testing import phantom_dataset

    phantom = phantom_dataset(dataset_id=7, sections=1000, resolution=200, section_thickness=5)
    source = _Still(phantom.row)
    array = atldld.open_dataarray(7, chunks={"section": 1}, source=source)
    assert len(cloudpickle.dumps(array.data.dask)) / 1000 <= 150


def test_one_section_of_many_is_two_tasks():
    import dask

    from atldld.testing import phantom_dataset

    phantom = phantom_dataset(dataset_id=7, sections=100, resolution=200, section_thickness=50)
    array = atldld.open_dataarray(7, chunks={"section": 1}, source=_Still(phantom.row))
    (optimized,) = dask.optimize(array.isel(section=5).data)
    assert len(dict(optimized.__dask_graph__())) == 2


class _Still:
    """A source of metadata that has no pixels; what opening and planning need."""

    name = "still"

    def __init__(self, row):
        self.row = row

    def dataset(self, dataset_id):
        from atldld.model.dataset import SectionDataset

        return SectionDataset.from_rows(self.row)

    def __reduce__(self):
        return _Still, ({},)

    def image(self, read):
        raise AssertionError(f"{read} was asked for")

    def discard(self, read):
        raise AssertionError(f"{read} was discarded")

    def url(self, read):
        return f"still:{read.image_id}"

    def __dask_tokenize__(self):
        return "still"


def test_reading_has_a_name_of_its_own_in_the_graph_that_runs(opened):
    """It is what the dashboard of a cluster shows; selections are folded into it all the same."""
    array = opened(chunks={"section": 1})
    for lazy in (array, array.mean("section"), array.astype(float).isel(x=slice(3, 20)).sum()):
        (optimized,) = dask.optimize(lazy)
        names = {key_split(key) for key in dict(optimized.__dask_graph__())}
        assert any("atldld-read" in name for name in names - {"original-atldld-read"}), names
