"""The atlas as tables: whole, resumable, the same as what the service says, and checked."""

import http.server
import json
import os
import random
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import requests

import atldld
from atldld.errors import APIError, AtldldWarning, BundleError
from atldld.testing import (
    AllenServer,
    Doubts,
    Fault,
    SyntheticAtlas,
    load_recorded,
    phantom_dataset,
)

COUNT = 320
FEW_ROWS = Doubts(max_rows=90)


@pytest.fixture
def cache(tmp_path):
    with atldld.set_options(cache_dir=tmp_path / "cache", retries=0):
        yield tmp_path / "cache"


def files(where):
    """Return the tables of a catalogue by name."""
    return {path.name: path.read_bytes() for path in Path(where).glob("*/*.parquet")}


def opened(number, source):
    """Return a dataset from a source, or why there is none."""
    from atldld.source import source_from

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AtldldWarning)
        try:
            return source_from(source).dataset(number)
        except atldld.RegistrationError:
            return "not registered"


def test_every_dataset_is_as_the_service_says(cache, tmp_path):
    atlas = SyntheticAtlas(COUNT)
    some = [*random.Random(0).sample(atlas.dataset_ids, 12), atlas.dataset_ids[-1]]
    some += [row["id"] for row in atlas.all_rows("SectionDataSet") if not row["alignment3d"]]
    with AllenServer(atlas) as server:
        asked = {number: opened(number, server.url) for number in some}
        found = atldld.catalogue(server.url, images=True)
        server.reset_log()
        for number in some:
            assert opened(number, server.url) == asked[number]
        assert server.requests == []
    assert "not registered" in asked.values()
    assert len(found) == COUNT
    rows = list(atlas.all_rows("SectionDataSet", images=True))
    assert found.datasets.sections.tolist() == [len(row["section_images"]) for row in rows]
    assert found.datasets.entrez_id.tolist() == [row["genes"][0]["entrez_id"] for row in rows]
    assert found.images.image_id.tolist() == [
        image["id"] for row in rows for image in row["section_images"]
    ]
    first = rows[0]["alignment3d"]
    assert found.datasets.tvr[0].tolist()[1] == [
        first[f"tvr_{place:02d}"] for place in (3, 4, 5, 10)
    ]


def test_odd_datasets_are_as_the_service_says(cache, real):
    bright = phantom_dataset(5, products=(5,), gene=[], sections=3)
    odd = phantom_dataset(6, slides=True, sections=5).row
    odd["section_images"][1]["failed"] = "t"
    odd["section_images"][2]["alignment2d"] = None
    odd["section_images"][3]["expression_path"] = None
    odd["section_images"][4]["tier_count"] = None
    odd["specimen"] = None
    odd["section_thickness"] = 25
    served = [bright, odd, load_recorded(real / "69289763")]
    with AllenServer(served) as server:
        asked = [opened(number, server.url) for number in (5, 6, 69289763)]
        infos = [atldld.dataset_info(number, source=server.url) for number in (5, 6, 69289763)]
        atldld.catalogue(server.url, images=True)
        server.reset_log()
        assert [opened(number, server.url) for number in (5, 6, 69289763)] == asked
        for number, info in zip((5, 6, 69289763), infos, strict=True):
            again = atldld.dataset_info(number, source=server.url)
            assert again.to_dict() == info.to_dict()
        assert server.requests == []


def test_with_a_catalogue_nothing_is_asked(cache):
    with AllenServer(SyntheticAtlas(40)) as server:
        atldld.catalogue(server.url, images=True)
        server.reset_log()
        sections = atldld.open_dataarray(70000000, source=server.url)
        assert sections.atlas.plan().dataset_id.unique().tolist() == [70000000]
        atldld.open_volume(70000040, source=server.url)
        atldld.points_to_sections(70000000, [[6600, 4000, 3000]], source=server.url)
        assert len(atldld.search("Syn3", source=server.url)) == 2
        with pytest.warns(AtldldWarning, match="another name of 'Syn4', looked for instead"):
            assert atldld.search("alias4", source=server.url).gene.tolist() == ["Syn4"]
        with pytest.warns(AtldldWarning, match="did you mean 'Syn4'"):
            assert atldld.search("Sny4", source=server.url).empty
        image = atldld.search(image_id=100000200, source=server.url)
        assert image.dataset_id.tolist() == [70000040]
        assert atldld.search(product="mouse brain", source=server.url).gene.nunique() > 20
        assert server.requests == []


def test_a_search_without_a_catalogue_tells_of_near_and_other_names(cache):
    with AllenServer(SyntheticAtlas(40)) as server:
        with pytest.warns(AtldldWarning, match="'Sny4': did you mean"):
            assert atldld.search("Sny4", source=server.url).empty
        with pytest.warns(AtldldWarning, match="another name of 'Syn4'"):
            assert atldld.search("Alias4", source=server.url).gene.tolist() == ["Syn4"]
        # Nothing is close, or it exists, but not so: there is nothing to say.
        assert atldld.search("Qqqqqq", source=server.url).empty
        assert atldld.search("Syn4", specimen="nobody", source=server.url).empty


def test_pages_are_small_and_end_at_an_empty_one(cache):
    with AllenServer(SyntheticAtlas(COUNT), doubts=FEW_ROWS) as server:
        atldld.catalogue(server.url, images=True)
        asked = [request.path for request in server.requests]
    pages = [path for path in asked if "SectionDataSet" in path]
    assert len(pages) == 4 + 1
    assert all("[num_rows$eq2000]" in path for path in asked)
    assert server.connections_high_water == 1


def test_a_total_that_lies_is_said_and_does_no_harm(cache):
    with AllenServer(SyntheticAtlas(COUNT), faults=[Fault("rows", rows=202)]) as server:
        with pytest.warns(AtldldWarning, match="promised 522 section datasets and delivered 320"):
            found = atldld.catalogue(server.url)
        assert len(found) == COUNT
        assert (found.datasets.sections > 0).all()


def test_without_images_they_are_counted_and_can_come_later(cache):
    with AllenServer(SyntheticAtlas(COUNT)) as server:
        few = atldld.catalogue(server.url)
        assert not few.has_images
        with pytest.raises(BundleError, match="holds no section images"):
            _ = few.images
        counts = few.datasets.sections
        server.reset_log()
        whole = atldld.catalogue(server.url, images=True)
        assert not any("SectionDataSet" in request.path for request in server.requests)
        assert whole.datasets.sections.equals(counts)
        assert whole.images.groupby("dataset_id").size().tolist() == counts.tolist()
        server.reset_log()
        assert atldld.catalogue(server.url) == whole
        assert server.requests == []
        atldld.catalogue(server.url, refresh=True)
        with pytest.raises(BundleError, match="replaced or removed"):
            _ = whole.images


def test_images_are_added_to_the_build_that_is_there(cache):
    """Beside it another build, of other products, may have been left unfinished."""
    with AllenServer(SyntheticAtlas(COUNT), doubts=FEW_ROWS) as server:
        some = atldld.catalogue(server.url, products=[5])
        server.add_fault(Fault("500", request="metadata", skip=2))
        with pytest.raises(APIError):
            atldld.catalogue(server.url, refresh=True)
        server.clear_faults()
        found = atldld.catalogue(server.url, products=[5], images=True)
        assert found.datasets.dataset_id.tolist() == some.datasets.dataset_id.tolist()
        assert len(some) < COUNT
        assert len(atldld.catalogue(server.url)) == COUNT


def test_a_copy_elsewhere_can_be_used_at_once(cache):
    with AllenServer(SyntheticAtlas(COUNT)) as server:
        found = atldld.catalogue(server.url)
        copied = found.export("memory://copies/atlas")
        assert copied.datasets.equals(found.datasets)
        with atldld.set_options(cache_dir="memory://caches/all"):
            assert atldld.catalogue(server.url).datasets.equals(found.datasets)


def test_products_are_chosen_by_id_or_name(cache):
    brains = [phantom_dataset(7, products=(1,)), phantom_dataset(8, products=(3, 1))]
    brains += [phantom_dataset(9, products=(5,))]
    with AllenServer(brains) as server:
        young = atldld.catalogue(server.url, products="DevMouse")
        assert young.datasets.dataset_id.tolist() == [8]
        # What it cannot know is asked of the service.
        assert atldld.search(product=5, source=server.url).dataset_id.tolist() == [9]
        both = atldld.catalogue(server.url, products=[1, 3])
        assert both.datasets.dataset_id.tolist() == [7, 8]
        every = atldld.catalogue(server.url)
        assert every.datasets.dataset_id.tolist() == [7, 8, 9]
        with pytest.raises(ValueError, match="product is 'Mose'"):
            atldld.catalogue(server.url, products="Mose")


BUILD = """
import sys, atldld
atldld.set_options(cache_dir=sys.argv[2], retries=0)
atldld.catalogue(sys.argv[1], images=True)
"""


@pytest.mark.exhaustive
def test_killed_at_any_page_it_goes_on_and_ends_the_same(tmp_path):
    atlas = SyntheticAtlas(COUNT)
    with AllenServer(atlas, doubts=FEW_ROWS) as server:
        with atldld.set_options(cache_dir=tmp_path / "undisturbed"):
            whole = atldld.catalogue(server.url, images=True)
        pages = len(server.requests)
        for after in sorted(random.Random(5).sample(range(pages), 4)):
            folder = tmp_path / f"killed-{after}"
            server.reset_log()
            server.add_fault(Fault("hang", request="metadata", skip=after))
            child = subprocess.Popen([sys.executable, "-c", BUILD, server.url, str(folder)])
            try:
                while len(server.requests) <= after:
                    assert child.poll() is None
                    threading.Event().wait(0.01)
            finally:
                child.kill()
                child.wait()
            server.clear_faults()
            server.reset_log()
            with atldld.set_options(cache_dir=folder):
                again = atldld.catalogue(server.url, images=True)
            assert files(again.where) == files(whole.where)
            assert len(files(again.where)) == 1 + 3
            # No more than the block that was under way is asked for twice.
            assert len(server.requests) <= pages - after + pages // 2


def test_a_page_that_fails_keeps_what_came(cache):
    with AllenServer(SyntheticAtlas(COUNT), doubts=FEW_ROWS) as server:
        server.add_fault(Fault("500", request="metadata", skip=3))
        with pytest.raises(APIError, match="500"):
            atldld.catalogue(server.url)
        server.clear_faults()
        server.reset_log()
        assert len(atldld.catalogue(server.url)) == COUNT
        assert sum("SectionDataSet" in request.path for request in server.requests) == 2


@pytest.mark.parametrize("order", ["ignored", "filter ignored"])
def test_a_service_that_does_not_order_its_rows_is_refused(cache, order):
    rows = [{"id": number} for number in ((5, 3, 4) if order == "ignored" else (1, 2, 3))]
    envelope = {"success": True, "start_row": 0, "num_rows": 3, "total_rows": 3, "msg": rows}
    body = Fault("body", request="metadata", body=json.dumps(envelope).encode())
    with AllenServer(faults=[body]) as server, pytest.raises(APIError, match="ascending order"):
        atldld.catalogue(server.url)


@pytest.fixture(params=["ignored", "refused"])
def plain_service(request):
    """A service of another make, of whose conditions one, that ids are above one, is lacking."""
    above = re.compile(r",?(%5B|\[)id(%24|\$)gt-?[0-9]+(%5D|\])")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, content = 200, b'{"success": false, "msg": "unknown operator"}'
            if request.param == "ignored" or not above.search(self.path):
                path = above.sub("", self.path).replace("rma::criteria,,", "rma::criteria,")
                answer = requests.get(allen.url.removesuffix("/api/v2") + path, timeout=20)
                status, content = answer.status_code, answer.content
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with (
        AllenServer(SyntheticAtlas(COUNT), doubts=FEW_ROWS) as allen,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server,
    ):
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api/v2", allen.url
        server.shutdown()
        thread.join()


def test_a_service_without_conditions_on_order_is_paged_by_rows(cache, plain_service):
    plain, allen = plain_service
    expected = atldld.catalogue(allen, images=True)
    found = atldld.catalogue(plain, images=True)
    assert len(found) == COUNT
    assert found.datasets.equals(expected.datasets)
    assert found.images.equals(expected.images)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copies")
    with (
        AllenServer(SyntheticAtlas(COUNT)) as server,
        atldld.set_options(cache_dir=folder / "cache"),
    ):
        atldld.catalogue(server.url, images=True).export(folder / "copy")
    return folder / "copy"


def test_a_copy_opens_without_its_service(copy, tmp_path):
    with atldld.set_options(cache_dir=tmp_path / "empty"):
        found = atldld.catalogue(copy)
        sections = atldld.open_dataarray(70000000, source=found)
        assert sections.sizes["section"] == 20
        assert len(atldld.search("Syn1*", source=found)) > 10
        assert found.date.endswith("Z")
        assert found.service.startswith("http://127.0.0.1:")


def rewritten(name, change):
    def damage(folder):
        (path,) = folder.glob(f"**/{name}")
        path.write_bytes(change(path.read_bytes()))

    return damage


def with_columns_lost(folder):
    (path,) = folder.glob("*/datasets.parquet")
    table = pq.read_table(path).drop_columns(["trv"])
    pq.write_table(table, path)
    trust(folder, path)


def unordered(folder):
    (path,) = folder.glob("*/datasets.parquet")
    table = pq.read_table(path)
    pq.write_table(table.take(list(range(len(table)))[::-1]), path)
    trust(folder, path)


def trust(folder, path):
    """Let the manifest say that a changed file is what it should be."""
    import hashlib

    manifest = json.loads((folder / "manifest.json").read_bytes())
    content = path.read_bytes()
    manifest["datasets"] |= {
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (rewritten("datasets.parquet", lambda old: old[:-1] + b"!"), "missing or damaged"),
        (rewritten("datasets.parquet", lambda old: old + bytes(100)), "missing or damaged"),
        (lambda folder: next(folder.glob("*/datasets.parquet")).unlink(), "missing or damaged"),
        (rewritten("manifest.json", lambda old: b"{}"), "not that of a catalogue"),
        (
            rewritten("manifest.json", lambda old: old.replace(b'"format": 1', b'"format": 2')),
            "not",
        ),
        (
            rewritten("manifest.json", lambda old: old.replace(b'"build": "2', b'"build": "../2')),
            "not that of a catalogue",
        ),
        (rewritten("manifest.json", lambda old: b" " * 2**23 + old), "at most"),
        (lambda folder: (folder / "manifest.json").unlink(), "there is no catalogue"),
        (with_columns_lost, "does not hold the columns"),
        (unordered, "not in order"),
    ],
    ids=["flip", "longer", "gone", "empty", "format", "path", "long", "none", "columns", "order"],
)
def test_a_strangers_catalogue_is_checked(copy, tmp_path, damage, words):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(copy, folder)
    damage(folder)
    with pytest.raises(BundleError, match=words):
        _ = atldld.catalogue(folder).datasets


def test_values_of_a_strangers_catalogue_are_held_to_what_rows_are(copy, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(copy, folder)
    (path,) = folder.glob("*/datasets.parquet")
    table = pq.read_table(path)
    place = table.schema.get_field_index("section_thickness")
    wild = np.full(len(table), np.inf)
    import pyarrow as pa

    pq.write_table(table.set_column(place, "section_thickness", pa.array(wild)), path)
    trust(folder, path)
    with pytest.raises(atldld.RegistrationError, match="section_thickness"):
        atldld.open_dataarray(70000000, source=atldld.catalogue(folder))


def test_a_damaged_catalogue_of_the_cache_is_passed_over(cache):
    with AllenServer(SyntheticAtlas(3)) as server:
        found = atldld.catalogue(server.url, images=True)
        Path(found.where, "manifest.json").write_text("{")
        os.utime(Path(found.where, "manifest.json"), (1, 1))
        with pytest.warns(AtldldWarning, match="not used"):
            assert atldld.open_dataarray(70000000, source=server.url).sizes["section"] == 20
