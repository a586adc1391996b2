"""Bad arguments are refused before anything is asked of the service."""

import inspect

import numpy as np
import pytest
import xarray as xr

import atldld

WRONG = [
    ({"resolution": 0}, ValueError, "resolution is 0; it must be a number of microns above 0"),
    ({"resolution": -5}, ValueError, "above 0"),
    ({"resolution": float("nan")}, ValueError, "finite"),
    ({"resolution": "25"}, TypeError, "must be a number"),
    ({"resolution": True}, TypeError, "must be a number"),
    ({"tier": -1}, ValueError, "tier is -1; it must be from 0 to"),
    ({"tier": 1.5}, TypeError, "whole number"),
    ({"tier": "best"}, TypeError, "tier is 'best'; it must be 'auto' or a whole number"),
    ({"tier": True}, TypeError, "whole number"),
    ({"view": "picture"}, ValueError, "'image', 'projection', 'expression', 'expression_mask'"),
    ({"mapping": "straight"}, ValueError, "'oblique', 'parallel'"),
    ({"detection_xy": "corner"}, ValueError, "None, 'center' or"),
    ({"detection_xy": (1, 2, 3)}, TypeError, "two numbers"),
    ({"detection_xy": (1, float("inf"))}, ValueError, "finite"),
    ({"region": [1, 2]}, TypeError, "must be a dict"),
    ({"region": {"p": 5}}, TypeError, "two numbers"),
    ({"interpolation": "lanczos"}, ValueError, "'auto', 'nearest', 'linear', 'cubic', 'area'"),
    ({"masked": 1}, TypeError, "True or False"),
    ({"masked": True, "fill_value": 3}, ValueError, "leave out fill_value"),
    ({"fill_value": 256}, ValueError, "from 0 to 255"),
    ({"fill_value": 1.5}, TypeError, "whole number"),
    ({"chunks": 5}, TypeError, "a dict of dimensions"),
    ({"chunks": {"section": 0}}, ValueError, "chunks has 0 for 'section'; it must be 1 or more"),
    ({"chunks": {"y": np.int64(-2)}}, ValueError, "or -1 for all in one"),
    ({"reference_space": 8}, ValueError, "'native', 9 or 10"),
    ({"reference_space": "CCFv3"}, ValueError, "no formula leads to CCFv3: a registration does"),
    ({"reference_space": "nine"}, ValueError, "it must be 'native', 9 or 10"),
    ({"on_error": "ignore"}, ValueError, "'raise'"),
    ({"source": 5}, TypeError, "source"),
    ({"source": "/no/such/folder"}, atldld.BundleError, "/no/such/folder"),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG)
@pytest.mark.parametrize("function", [atldld.open_dataarray, atldld.open_dataset])
def test_wrong_options(server, opened, function, options, error, message):
    server.reset_log()
    with pytest.raises(error, match=message):
        opened(function=function, **options)
    assert server.requests == []


def test_truth_values_of_numpy_are_truth_values(opened):
    assert opened(masked=np.True_).dtype == np.float32
    assert opened(masked=np.False_).dtype == np.uint8


def test_two_numbers_may_be_an_array(opened):
    lists = {"detection_xy": [10, 20], "region": {"i": (1000.5, 3000)}}
    arrays = {"detection_xy": np.array([10, 20]), "region": {"i": np.array([1000.5, 3000])}}
    xr.testing.assert_identical(opened(**arrays), opened(**lists))


@pytest.mark.parametrize("dataset_id", ["69289763", 1.5, True, None, -3, 2**70])
def test_wrong_ids(server, dataset_id):
    server.reset_log()
    with pytest.raises((TypeError, ValueError), match="dataset_id"):
        atldld.open_dataarray(dataset_id, source=server.url)
    assert server.requests == []


def test_the_name_of_a_gene_is_no_id(server):
    with pytest.raises(TypeError, match=r"atldld.search\('Prox1'\) finds ids"):
        atldld.open_dataarray("Prox1", source=server.url)
    with pytest.raises(TypeError, match="without quotes"):
        atldld.open_volume("69289763", source=server.url)


@pytest.mark.parametrize(
    "function", [atldld.open_dataarray, atldld.open_dataset, atldld.open_volume]
)
def test_the_id_of_an_image_is_told_from_one_of_a_dataset(server, phantoms, function):
    image = phantoms["coronal"].image_ids[2]
    with pytest.raises(atldld.DatasetNotFoundError, match=f"section image of dataset 101.*{image}"):
        function(image, source=server.url)


@pytest.mark.parametrize("function", [atldld.open_dataarray, atldld.open_volume])
def test_a_tier_that_sections_lack_is_told(opened, function):
    with pytest.warns(atldld.AtldldWarning, match="no section has a tier 20; each is read at"):
        opened(function=function, tier=20)


def test_unknown_chunk_dimension(opened):
    with pytest.raises(ValueError, match=r"chunks names \['z'\]"):
        opened(chunks={"z": 1})


def test_there_is_no_such_dataset(server):
    with pytest.raises(atldld.DatasetNotFoundError, match="999"):
        atldld.open_dataarray(999, source=server.url)


def test_numpy_numbers_are_numbers(opened, phantoms, server):
    array = atldld.open_dataarray(
        np.int64(phantoms["coronal"].id),
        resolution=np.float32(200),
        tier=np.int8(1),
        source=server.url,
    )
    assert array.sizes["x"] == 57


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ("auto", ((6,), (40,), (57,), (3,))),
        ({}, ((6,), (40,), (57,), (3,))),
        ({"section": 4}, ((4, 2), (40,), (57,), (3,))),
        ({"section": -1, "y": 15}, ((6,), (15, 15, 10), (57,), (3,))),
        ({"x": (30, 27)}, ((6,), (40,), (30, 27), (3,))),
    ],
)
def test_chunks(opened, chunks, expected):
    assert opened(chunks=chunks).chunks == expected


def test_automatic_chunks_stay_within_16_mebibytes(opened):
    for resolution, options in ((25, {}), (10, {}), (2, {}), (2, {"masked": True}), (1, {})):
        array = opened(resolution=resolution, **options)
        sections, rows, columns, channels = (sizes[0] for sizes in array.chunks)
        size = sections * rows * columns * channels * array.dtype.itemsize
        assert size <= 16 * 2**20
        whole = np.prod(array.shape[1:]) * array.dtype.itemsize
        if whole <= 16 * 2**20:
            assert (rows, columns) == array.shape[1:3]
            assert sections == min(8, 16 * 2**20 // whole, array.shape[0])
        else:
            assert sections == 1
            assert size >= 8 * 2**20  # not cut smaller than need be


def test_no_dask_without_chunks(opened):
    array = opened(chunks=None)
    assert array.chunks is None
    assert array.variable._in_memory is False


def test_the_token_is_deterministic_and_tells_arrays_apart(opened):
    names = {
        str(options): opened(**options).data.name
        for options in (
            {},
            {"resolution": 300},
            {"tier": 0},
            {"mapping": "parallel"},
            {"interpolation": "nearest"},
            {"masked": True},
            {"fill_value": 3},
            {"reference_space": 10},
            {"region": {"i": (0, 5000)}},
            {"view": "expression"},
            {"name": "sagittal"},
        )
    }
    assert len(set(names.values())) == len(names)
    assert opened().data.name == names["{}"]


def test_a_dataset_that_failed_quality_control_says_so(phantoms):
    from atldld.testing import AllenServer

    row = {**phantoms["coronal"].row, "failed": True}
    with (
        AllenServer([row]) as server,
        pytest.warns(atldld.AtldldWarning, match="dataset 101 failed quality control"),
    ):
        atldld.open_dataarray(101, source=server.url)


def test_sections_without_an_expression_mask_are_left_out_of_its_views(phantoms):
    from atldld.testing import AllenServer

    row = dict(phantoms["coronal"].row)
    images = [dict(image) for image in row["section_images"]]
    images[2]["expression_path"] = None
    row["section_images"] = images
    with AllenServer([row]) as server:
        with pytest.warns(atldld.AtldldWarning, match=f"left out, images {images[2]['id']}"):
            array = atldld.open_dataarray(101, view="expression", source=server.url)
        assert images[2]["id"] not in array.image_id
        both = atldld.open_dataset(101, include_expression=True, resolution=500, source=server.url)
        flags = dict(zip(both.image_id.values.tolist(), both.has_expression.values, strict=True))
        assert not flags.pop(images[2]["id"])
        assert all(flags.values())
        server.reset_log()
        place = both.image_id.values.tolist().index(images[2]["id"])
        assert (both.expression.isel(section=place).values == 0).all()
        assert server.requests == []


def test_a_space_of_unknown_extent_spans_the_footprints(phantoms):
    from atldld.testing import AllenServer

    row = {**phantoms["coronal"].row, "reference_space_id": 6}
    with AllenServer([row]) as server:
        data = atldld.open_dataset(101, resolution=200, source=server.url)
        assert data.sizes["y"] != 40
        # No covered point is lost: the border of the grid is not covered at all.
        border = data.covered.isel(y=[0, -1]).any() | data.covered.isel(x=[0, -1]).any()
        assert float(data.covered.mean()) > 0.2
        assert not bool(border.compute()) or float(data.y[0]) % 200 == 0
        with pytest.raises(ValueError, match="only 9 and 10 can be turned"):
            atldld.open_dataarray(101, reference_space=9, source=server.url)


def test_slice_coordinates_by_pixel_and_centre(opened, phantoms):
    phantom = phantoms["coronal"]
    for wanted, place in (((0, 0), None), ((310, 12.5), None), ("center", "middle")):
        array = opened("coronal", detection_xy=wanted)
        for image_id, p in zip(array.image_id.values.tolist(), array.p.values, strict=True):
            image = phantom.image(image_id)
            x, y = (
                wanted if place is None else ((image["width"] - 1) / 2, (image["height"] - 1) / 2)
            )
            assert p == pytest.approx(float(phantom.pir(image_id, x, y)[0]), abs=1e-6)


def test_one_matrix_among_thousands_changes_the_token():
    from dask.tokenize import tokenize

    from atldld.testing import AllenServer, phantom_dataset

    row = phantom_dataset(5, sections=2000, resolution=200, section_thickness=3).row
    names = []
    with AllenServer([row]) as server:
        for shift in (0.0, 5.0):
            row["section_images"][1000]["alignment2d"]["tvs_04"] += shift
            row["section_images"][1000]["alignment2d"]["tsv_04"] -= 200 * shift
            with AllenServer([row]) as server:
                array = atldld.open_dataset(5, resolution=500, source=server.url)
            names.append((array.image.data.name, array.covered.data.name))
        assert tokenize(array.image) == tokenize(array.image)
    assert names[0][1] != names[1][1]


@pytest.mark.parametrize(
    ("function", "some"),
    [
        (atldld.open_dataarray, {"detection_xy": None, "resolution": 25, "tier": "auto"}),
        (atldld.open_dataset, {"annotation": None, "include_expression": False, "chunks": "auto"}),
        (atldld.open_volume, {"between": "nearest", "like": None, "masked": False}),
        (atldld.open_volumes, {"mirror": False, "max_distance": None, "source": None}),
        (atldld.open_image, {"tier": 0, "dataset_id": None, "on_error": "raise"}),
    ],
)
def test_signature_and_help_say_every_option(function, some):
    parameters = inspect.signature(function).parameters
    options = {name: each for name, each in parameters.items() if each.kind == each.KEYWORD_ONLY}
    assert {name: options[name].default for name in some} == some
    words = inspect.getdoc(function)
    listed = words[words.index("Parameters\n") : words.index("Returns\n")]
    told = [line for line in listed.splitlines()[2:] if line and not line.startswith(" ")]
    assert told == list(parameters)
    with pytest.raises(TypeError, match=rf"'resolutoin' is no option of {function.__name__}; "):
        function(1, resolutoin=25)
