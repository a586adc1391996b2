from __future__ import annotations

import hashlib
import json
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import pytest
import simplejpeg

import atldld
from atldld.errors import (
    APIError,
    AtldldWarning,
    BundleError,
    DatasetNotFoundError,
    ImageError,
    RegistrationError,
)
from atldld.model.read import ImageRead, Window
from atldld.options import current, set_options
from atldld.source import Source, allen, source_from
from atldld.source.allen import AllenSource, image_url
from atldld.store.records import image_name
from atldld.testing import AllenServer, Fault, phantom_dataset

from .conftest import REAL, a_read, answer, jpeg, needs_real_data, rows_answer

BODY = jpeg()
BASE = "http://h/api/v2"


# Naming a source


def test_a_source_is_found_by_what_a_user_names():
    assert source_from("http://127.0.0.1:8000/").name == "http://127.0.0.1:8000/api/v2"
    assert source_from(" http://h/api/v2 ") == AllenSource(BASE)
    assert source_from().name == "https://api.brain-map.org/api/v2"
    with set_options(api_url="http://h"):
        assert source_from(None) == AllenSource(BASE)
    source = AllenSource(BASE)
    assert source_from(source) is source
    assert isinstance(source, Source)


@pytest.mark.parametrize("source", ["prox1.zip", "/data/prox1", "memory://x", "memory://x.zip"])
def test_what_is_not_there_is_said_to_be_missing(source):
    with pytest.raises(BundleError, match=r"there is nothing at .*x|has no manifest.json"):
        source_from(source)


@pytest.mark.parametrize("source", [5, b"http://h", AllenSource, object()])
def test_other_things_are_no_sources(source):
    with pytest.raises(TypeError, match="must be None, the base URL"):
        source_from(source)


def test_a_source_is_a_small_value():
    source = AllenSource("http://h/")
    assert pickle.loads(pickle.dumps(source)) == source
    assert len(pickle.dumps(source)) < 200
    assert {source, AllenSource(BASE)} == {source}
    assert source.__dask_tokenize__() == AllenSource(BASE).__dask_tokenize__()
    assert source.__dask_tokenize__() != AllenSource("http://g").__dask_tokenize__()


def test_a_password_is_not_shown():
    source = AllenSource("http://me:secret@h/")
    shown = [repr(source), str(source), source.name, source.url(a_read())]
    assert not any("secret" in str(text) for text in [*shown, source.__dask_tokenize__()])


# URLs


def query_of(read: ImageRead) -> dict[str, str]:
    parts = urlsplit(image_url(BASE, read))
    assert parts.path == f"/api/v2/section_image_download/{read.image_id}"
    return {name: value for name, (value,) in parse_qs(parts.query).items()}


@pytest.mark.parametrize(
    ("view", "parameters"),
    [
        ("image", {}),
        ("projection", {"view": "projection"}),
        ("expression", {"view": "expression"}),
        (
            "expression_mask",
            {"view": "expression", "filter": "colormap", "filterVals": "0,1,0,256,0"},
        ),
    ],
)
def test_views(view, parameters):
    assert query_of(a_read(view=view, tier=3)) == {"downsample": "3", **parameters}


@pytest.mark.parametrize(
    ("x", "y", "left", "top"),
    # Tier pixel 10 of a section that starts at 13 on its slide is tier pixel 13 // 4 + 10 there,
    # which is centred on full-resolution pixel 52 of the slide.
    [(0, 0, 40, 80), (13, 0, 52, 80), (12, 16, 52, 96), (15, 3, 52, 80), (16, 4, 56, 84)],
)
def test_windows_count_from_the_slide(x, y, left, top):
    read = a_read(tier=2, x=x, y=y, window=Window(10, 20, 30, 40))
    assert query_of(read) == {
        "downsample": "2", "left": str(left), "top": str(top), "width": "30", "height": "40",
        "downsample_dimensions": "false",
    }  # fmt: skip
    assert left % 4 == top % 4 == 0


@pytest.mark.parametrize(
    "changes",
    [{"image_id": "7"}, {"image_id": True}, {"image_id": -1}, {"tier": 1.0}, {"view": "rgb"},
     {"image_id": "7/../../x"}],
)  # fmt: skip
def test_only_whole_numbers_and_known_words_reach_a_url(changes):
    with pytest.raises((TypeError, ValueError), match="must"):
        image_url(BASE, a_read(**{"image_id": 7, **changes}))


# Datasets


@needs_real_data
def test_a_recorded_dataset(serve):
    body = (REAL / "69289763" / "query.json").read_bytes()
    server = serve(lambda request: answer(body))
    dataset = AllenSource(server.url).dataset(69289763)
    assert (dataset.id, len(dataset.images), dataset.reference_space) == (69289763, 18, 10)
    assert server.paths == [
        "/api/v2/data/SectionDataSet/69289763.json?include=genes,products,"
        "specimen(donor(age)),treatments,alignment3d,equalization,section_images(alignment2d)"
    ]


@pytest.fixture(scope="module")
def phantom():
    return phantom_dataset(1001, sections=4, resolution=64.0, tier_count=3)


@pytest.fixture
def server(phantom):
    with AllenServer(phantom) as server:
        yield server


def test_a_dataset_takes_one_request(server):
    dataset = AllenSource(server.url).dataset(1001)
    assert (dataset.id, len(dataset.images)) == (1001, 4)
    assert [request.kind for request in server.requests] == ["metadata"]


@pytest.mark.parametrize("lacking", ["absent", "null", "empty"])
def test_images_that_are_not_nested_are_asked_for(serve, phantom, lacking):
    row = dict(phantom.row)
    images = row.pop("section_images")
    if lacking != "absent":
        row["section_images"] = None if lacking == "null" else []
    server = serve(lambda r: rows_answer([row] if "SectionDataSet" in r.path else images))
    assert AllenSource(server.url).dataset(1001) == AllenSource(server.url).dataset(1001)
    assert len(AllenSource(server.url).dataset(1001).images) == 4
    assert "[data_set_id$eq1001]" in server.paths[1].replace("%5B", "[").replace("%5D", "]")


def test_a_dataset_that_there_is_not(server, serve):
    with pytest.raises(DatasetNotFoundError, match=f"no section dataset 5 at {server.url}"):
        AllenSource(server.url).dataset(5)
    empty = serve(lambda request: rows_answer([]))
    lost = serve(lambda request: answer(b"", "404 Not Found"))
    for other in (empty, lost):
        with pytest.raises(DatasetNotFoundError, match="no section dataset 5"):
            AllenSource(other.url).dataset(5)
        assert len(other.requests) == 1


def test_another_dataset_is_refused(serve, phantom):
    server = serve(lambda request: rows_answer([phantom.row]))
    with pytest.raises(APIError, match="answered with dataset 1001 instead of 5"):
        AllenSource(server.url).dataset(5)


@pytest.mark.parametrize("dataset_id", ["5", 5.0, True, None, -5])
def test_a_dataset_is_named_by_a_whole_number(dataset_id):
    with pytest.raises((TypeError, ValueError), match=r"dataset_id is .*; it must"):
        AllenSource(BASE).dataset(dataset_id)


@pytest.fixture
def asking():
    with set_options(metadata_max_age=0):
        yield


@pytest.mark.usefixtures("asking")
def test_a_service_out_of_reach_is_stood_in_for_by_its_last_answer(server, phantom):
    source = AllenSource(server.url)
    with pytest.raises(APIError):
        AllenSource("http://127.0.0.1:9").dataset(1001)
    dataset = source.dataset(1001)
    server.add_fault(Fault("503", request="metadata"))
    server.reset_log()
    with pytest.warns(AtldldWarning, match="described by what .* answered on 20"):
        assert source.dataset(1001) == dataset
    assert len(server.requests) == 2
    server.clear_faults()
    server.add_fault(Fault("404", request="metadata"))
    with pytest.raises(DatasetNotFoundError):
        source.dataset(1001)


@pytest.mark.usefixtures("asking")
def test_metadata_are_asked_for_anew_while_the_service_answers(serve, phantom):
    rows = [phantom.row]
    server = serve(lambda request: rows_answer(rows))
    source = AllenSource(server.url)
    assert source.dataset(1001).failed is False
    rows[0] = {**phantom.row, "failed": True}
    assert source.dataset(1001).failed is True
    # What is kept is the newest answer.
    server.handler = lambda request: answer(b"", "500 Oh")
    with pytest.warns(AtldldWarning, match="HTTP status 500"):
        assert source.dataset(1001).failed is True


def test_a_young_description_costs_no_request(server):
    AllenSource(server.url).dataset(1001)
    server.reset_log()
    first = atldld.open_dataarray(1001, source=server.url, resolution=100)
    assert server.requests == []
    with set_options(metadata_max_age=0):
        atldld.open_dataarray(1001, source=server.url, resolution=100)
    assert len(server.requests) == 1
    # What was answered just now is young again.
    atldld.open_dataarray(1001, source=server.url, resolution=100)
    assert len(server.requests) == 1
    assert first.sizes["section"] > 0


@pytest.mark.parametrize("harm", ["damaged", "cut", "of another question", "of tomorrow", "old"])
def test_a_description_that_is_not_enough_is_asked_for_again(server, harm, tmp_path):
    source = AllenSource(server.url)
    with set_options(cache_dir=tmp_path / "there"):
        whole = source.dataset(1001)
        (file,) = (tmp_path / "there").rglob("1001.json")
        record = file.with_name("1001.json.json")
        told = json.loads(record.read_text())
        if harm == "damaged":
            file.write_bytes(file.read_bytes()[:-9] + b"         ")
        elif harm == "cut":
            file.write_bytes(file.read_bytes()[:100])
        elif harm == "of another question":
            record.write_text(json.dumps(told | {"url": told["url"].replace("genes,", "")}))
        elif harm == "of tomorrow":
            record.write_text(json.dumps(told | {"time": told["time"] + 86_400}))
        else:
            record.write_text(json.dumps(told | {"time": told["time"] - 8 * 86_400}))
        server.reset_log()
        assert source.dataset(1001) == whole
        assert len(server.requests) == 1
        assert source.dataset(1001) == whole
        assert len(server.requests) == 1


def test_a_description_without_what_places_it_is_asked_for_again(serve, phantom):
    rows = [{**phantom.row, "alignment3d": None}]
    server = serve(lambda request: rows_answer(rows))
    source = AllenSource(server.url)
    for _ in range(2):
        with pytest.raises(RegistrationError):
            source.dataset(1001)
    rows[0] = phantom.row
    assert source.dataset(1001).id == 1001
    count = len(server.requests)
    assert source.dataset(1001).id == 1001
    assert len(server.requests) == count


def test_what_is_open_stays_as_it_was(serve, phantom):
    rows = [phantom.row]
    server = serve(lambda request: rows_answer(rows))
    opened = atldld.open_dataarray(1001, source=server.url, resolution=100)
    before = opened.copy(deep=True)
    rows[0] = {**phantom.row, "section_images": phantom.row["section_images"][:1]}
    with set_options(metadata_max_age=0):
        again = atldld.open_dataarray(1001, source=server.url, resolution=100)
    assert again.sizes["section"] == 1
    assert opened.sizes["section"] == len(phantom.row["section_images"])
    assert opened.coords.equals(before.coords)


@pytest.mark.parametrize("by", [1e-9, 0.01])
def test_another_description_is_another_array(serve, by):
    """Also where it differs in one number of one of many sections: dask goes by the name."""
    many = phantom_dataset(1001, sections=300, resolution=100)
    images = [dict(image) for image in many.row["section_images"]]
    alignment = images[150]["alignment2d"]
    images[150]["alignment2d"] = {**alignment, "tvs_04": alignment["tvs_04"] + by}
    rows = [many.row]
    server = serve(lambda request: rows_answer(rows))
    with set_options(metadata_max_age=0):
        one = atldld.open_dataarray(1001, source=server.url, resolution=500)
        rows[0] = {**many.row, "section_images": images}
        other = atldld.open_dataarray(1001, source=server.url, resolution=500)
    assert one.data.name != other.data.name


# Images


def reads_of(source: AllenSource, tier: int = 0, **changes) -> list[ImageRead]:
    dataset = source.dataset(1001)
    return [
        ImageRead(
            image_id=image.id, view="image", tier=tier, width=image.width >> tier,
            height=image.height >> tier, x=image.x, y=image.y, dataset_id=dataset.id,
            section_number=image.section_number, **changes,
        )
        for image in dataset.images
    ]  # fmt: skip


@pytest.mark.parametrize("view", ["image", "expression", "expression_mask"])
def test_images_of_every_view(server, view):
    source = AllenSource(server.url)
    (read, *_) = reads_of(source, tier=1)
    read = ImageRead(read.image_id, view, 1, read.width, read.height)
    body = source.image(read)
    height, width, _, _ = simplejpeg.decode_jpeg_header(body)
    assert (width, height) == read.size
    assert source.image(read) == body
    assert len(server.image_requests) == 1
    assert None in source.held(read)


def test_a_window(server):
    source = AllenSource(server.url)
    (read, *_) = reads_of(source, tier=1, window=Window(8, 4, 20, 10))
    height, width, _, _ = simplejpeg.decode_jpeg_header(source.image(read))
    assert (width, height) == (20, 10)
    assert server.image_requests[0].window == (8, 4, 20, 10)


def test_an_image_is_fetched_once(serve):
    server = serve(lambda request: answer(BODY))
    source = AllenSource(server.url)
    assert [source.image(a_read()) for _ in range(3)] == [BODY] * 3
    assert server.paths == ["/api/v2/section_image_download/7?downsample=2"]


FAULTS = ["drop", "429", "500", "502", "503", "504", "html", "empty", "reset", "short",
          "early-end", "truncated", "wrong-size", "wrong-format"]  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_costs_one_more_request(server, kind):
    source = AllenSource(server.url)
    (read, *_) = reads_of(source)
    good = AllenSource(server.url.replace("127.0.0.1", "localhost")).image(read)
    server.reset_log()
    server.add_fault(Fault(kind, times=1))
    assert source.image(read) == good
    assert source.image(read) == good
    assert len(server.image_requests) == 2


@pytest.mark.parametrize("kind", FAULTS)
def test_a_lasting_fault_is_one_error_and_leaves_nothing(server, kind):
    source = AllenSource(server.url)
    (read, *_) = reads_of(source)
    server.add_fault(Fault(kind))
    with pytest.raises(ImageError, match="gave up after 3 tries, the last: ") as caught:
        source.image(read)
    assert len(server.image_requests) == 3
    error = caught.value
    assert (error.image_id, error.dataset_id) == (read.image_id, 1001)
    assert error.section_number == read.section_number
    assert error.url == source.url(read)
    assert not source.held(read)
    assert not list((current().cache_dir).rglob("*.jpg*"))


def test_sizes_are_named(server):
    source = AllenSource(server.url)
    (read, *_) = reads_of(source)
    wrong = ImageRead(read.image_id, "image", 0, read.width + 1, read.height)
    with pytest.raises(ImageError, match=rf"{read.width} x {read.height} pixels, not "):
        source.image(wrong)


def test_a_missing_image_is_not_asked_for_again(server):
    source = AllenSource(server.url)
    (read, *_) = reads_of(source)
    server.add_fault(Fault("404"))
    with pytest.raises(ImageError, match="the service does not have it: HTTP status 404"):
        source.image(read)
    assert len(server.image_requests) == 1


def test_the_error_of_a_window_names_it(serve):
    server = serve(lambda request: answer(b"", "404 Not Found"))
    read = a_read(window=Window(1, 2, 30, 40))
    with pytest.raises(ImageError) as caught:
        AllenSource(server.url).image(read)
    assert caught.value.window == (1, 2, 30, 40)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert "window (1, 2, 30, 40)" in str(again)


def test_an_absurdly_long_body_is_refused(serve):
    server = serve(lambda request: answer(BODY + bytes(2 * 2**20)))
    with pytest.raises(ImageError, match="more than the"):
        AllenSource(server.url).image(a_read())
    assert len(server.requests) == 1


def test_two_services_with_the_same_ids_do_not_mix(serve):
    bodies = [jpeg(seed=seed) for seed in (1, 2)]
    servers = [serve(lambda r, body=body: answer(body)) for body in bodies]
    for _ in range(2):
        for server, body in zip(servers, bodies, strict=True):
            assert AllenSource(server.url).image(a_read()) == body
    assert [len(server.requests) for server in servers] == [1, 1]


def test_a_discarded_image_is_fetched_again(serve):
    server = serve(lambda request: answer(BODY))
    source = AllenSource(server.url)
    source.image(a_read())
    source.discard(a_read())
    assert not source.held(a_read())
    source.image(a_read())
    assert len(server.requests) == 2


def path_of(source: AllenSource, read: ImageRead):
    (path,) = current().cache_dir.glob(f"*/{image_name(read)}")
    return path


@pytest.mark.parametrize("damage", ["flip", "truncate", "zero"])
def test_a_damaged_file_is_fetched_again_once(serve, damage):
    server = serve(lambda request: answer(BODY))
    source = AllenSource(server.url)
    source.image(a_read())
    path = path_of(source, a_read())
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 4
    path.write_bytes(
        {"flip": content, "truncate": content[:-100], "zero": bytes(len(content))}[damage]
    )
    assert source.image(a_read()) == BODY
    assert source.image(a_read()) == BODY
    assert len(server.requests) == 2


def test_a_file_of_another_size_is_fetched_again(serve):
    server = serve(lambda r: answer(jpeg(64, 48) if r.number == 0 else jpeg(32, 24)))
    source = AllenSource(server.url)
    source.image(a_read())
    assert source.image(a_read(width=32, height=24)) == jpeg(32, 24)
    assert len(server.requests) == 2


def test_without_network_hits_work_and_a_miss_says_what_it_wanted(serve):
    server = serve(lambda request: answer(BODY))
    source = AllenSource(server.url)
    source.image(a_read(7))
    server.stop()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert source.image(a_read(7)) == BODY
    with pytest.raises(ImageError, match=r"image 8 \(section 70 of dataset 5\): .*no connection"):
        source.image(a_read(8))


def test_threads_share_one_download(serve):
    def slowly(request):
        yield answer(BODY)[:200]
        yield gate
        yield answer(BODY)[200:]

    gate = threading.Event()
    server = serve(slowly)
    source = AllenSource(server.url)
    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(source.image, a_read()) for _ in range(16)]
        gate.set()
        assert {future.result() for future in futures} == {BODY}
    assert len(server.requests) == 1


def test_threads_share_one_error(serve):
    def slowly(request):
        yield gate
        yield answer(b"", "404 Not Found")

    gate = threading.Event()
    server = serve(slowly)
    source = AllenSource(server.url)
    started = threading.Barrier(9)

    def read():
        started.wait()
        return source.image(a_read())

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(read) for _ in range(8)]
        started.wait()
        gate.set()
        errors = [future.exception() for future in futures]
    assert {str(error) for error in errors} == {str(errors[0])}
    assert len({id(error) for error in errors}) == 8
    assert all(isinstance(error, ImageError) for error in errors)


def test_threads_share_a_download_also_where_nothing_can_be_kept(serve, tmp_path):
    (tmp_path / "file").write_text("in the way")
    gate = threading.Event()

    def slowly(request):
        yield gate
        yield answer(BODY)

    server = serve(slowly)
    source = AllenSource(server.url)

    def by_four():
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(source.image, a_read()) for _ in range(4)]
            gate.set()
            return {future.result() for future in futures}

    with set_options(cache_dir=tmp_path / "file"):
        with pytest.warns(AtldldWarning, match="not kept") as caught:
            assert by_four() == {BODY}
        assert source.image(a_read()) == BODY
    assert len(caught) == 1


def test_what_is_in_the_cache_can_be_checked_without_us(serve):
    server = serve(lambda request: answer(BODY))
    source = AllenSource(server.url)
    source.image(a_read())
    path = path_of(source, a_read())
    record = json.loads(path.with_name(path.name + ".json").read_text())
    assert path.read_bytes() == BODY
    assert record["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert record["url"] == source.url(a_read())


def test_a_password_reaches_the_service_and_no_file(serve):
    server = serve(lambda request: answer(BODY))
    source = AllenSource(server.url.replace("http://", "http://me:secret@"))
    source.image(a_read())
    assert server.requests[0].headers["authorization"].startswith("Basic ")
    for path in current().cache_dir.rglob("*"):
        assert "secret" not in str(path)
        assert not path.is_file() or b"secret" not in path.read_bytes()


def test_every_view_has_its_parameters():
    assert set(allen._VIEW_PARAMETERS) == set(allen.VIEWS)
