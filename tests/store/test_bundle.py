"""Bundles as sources: what they hold, what they say about what they do not, and damage."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import os
import pickle
import subprocess
import sys
import threading
import tracemalloc
import uuid
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest

import atldld
from atldld.errors import BundleError, DatasetNotFoundError, ImageError

from . import bundling
from .bundling import DATASET, ROWS, dataset, image, packed, pixels, reads, right

STORES = ("folder", "zip", "deflated zip", "memory", "zip in memory")


def written(store: str, folder: Path, these=None) -> str:
    """Write a bundle and return what a user calls it."""
    these = bundling.all_files() if these is None else these
    name = uuid.uuid4().hex
    if store == "folder":
        return str(bundling.write_folder(folder / name, these))
    if store == "memory":
        return bundling.write_memory(name, these)
    method = zipfile.ZIP_DEFLATED if store == "deflated zip" else zipfile.ZIP_STORED
    path = bundling.write_zip(folder / f"{name}.zip", these, method)
    if store != "zip in memory":
        return str(path)
    bundling.write_memory(name, {"x.zip": path.read_bytes()})
    return f"memory://{name}/x.zip"


@pytest.fixture(params=STORES)
def store(request) -> str:
    return request.param


class TestServing:
    def test_everything_that_was_packed_comes_back_as_it_was(self, store, tmp_path):
        where = written(store, tmp_path)
        truth = bundling.row()["section_images"]
        numbers = sorted(each["section_number"] for each in truth)
        assert sorted(dataset(where).section.values) == numbers
        assert right(where, *reads(1))

    def test_names_and_addresses(self, tmp_path):
        path = written("zip", tmp_path)
        assert dataset(path).attrs["source"] == path
        (url,) = image(path, reads(1)[0]).atlas.plan().url
        assert url == f"{path}/{reads(1)[0].name}"

    def test_it_is_found_under_every_spelling_of_its_path(self, tmp_path, monkeypatch):
        path = Path(written("zip", tmp_path))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        spelled = (path, path.name, f"file://{path}", f" {path} ", f"~/{path.name}")
        assert all(right(each, reads(1)[0]) for each in spelled)

    def test_another_dataset_is_not_found_and_the_message_says_what_is_there(self, store, tmp_path):
        where = written(store, tmp_path)
        with pytest.raises(DatasetNotFoundError, match=r"no section dataset 6 .* holds dataset 5"):
            dataset(where, 6)

    def test_threads_may_read_at_once(self, store, tmp_path):
        where = written(store, tmp_path)
        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(lambda read: right(where, read), reads(1) * 5))


def elsewhere(array) -> subprocess.CompletedProcess[bytes]:
    """Compute an opened array in another process."""
    code = (
        "import pickle, sys; array = pickle.load(sys.stdin.buffer);"
        "sys.stdout.buffer.write(array.values.tobytes())"
    )
    return subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(array), capture_output=True, check=False
    )


class TestValue:
    def test_a_pickled_array_carries_no_pixels(self, tmp_path):
        array = image(written("zip", tmp_path), reads(1)[0])
        text = pickle.dumps(array)
        assert bundling.files()[reads(1)[0].name] not in text
        assert packed(reads(1)[0].name).tobytes() not in text
        np.testing.assert_array_equal(pickle.loads(text), packed(reads(1)[0].name))

    def test_its_token_is_that_of_its_content_wherever_it_is(self, tmp_path):
        def name(where):
            opened = atldld.open_dataarray(DATASET, resolution=400, tier=1, source=where)
            return opened.data.name

        assert len({name(written(store, tmp_path)) for store in STORES}) == 1
        other = written("zip", tmp_path, bundling.all_files(packed_on="2026-11-23"))
        assert name(other) != name(written("zip", tmp_path))

    def test_another_process_opens_it_by_itself(self, tmp_path):
        read = reads(1)[1]
        done = elsewhere(image(written("zip", tmp_path), read))
        assert done.stdout == packed(read.name).tobytes(), done.stderr

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
    def test_a_forked_process_reads_too(self, tmp_path):
        array, wanted = image(written("folder", tmp_path), reads(1)[0]), packed(reads(1)[0].name)
        child = os.fork()
        if child == 0:
            os._exit(0 if np.array_equal(array.values, wanted) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def test_where_another_bundle_stands_in_its_place_it_says_so(self, tmp_path):
        path = written("folder", tmp_path)
        array = image(path, reads(1)[0])
        bundling.write_folder(Path(path), bundling.all_files(packed_on="2026-11-23"))
        done = elsewhere(array)
        assert b"BundleError" in done.stderr
        assert b"is another bundle than when it was opened" in done.stderr

    def test_many_bundles_are_read_in_turn(self, tmp_path):
        paths = [
            written("folder", tmp_path, bundling.all_files(packed_on=str(number)))
            for number in range(20)
        ]
        opened = [image(path, reads(1)[0]) for path in paths]
        for array in (*opened, *opened):
            np.testing.assert_array_equal(array, packed(reads(1)[0].name))


class TestLacking:
    """What a bundle does not hold is an error that says what it holds."""

    def error(self, path: str, read) -> str:
        with pytest.raises(ImageError) as caught:
            pixels(path, read)
        error = caught.value
        assert (error.image_id, error.dataset_id) == (read.image_id, DATASET)
        assert error.section_number == read.section_number
        assert "atldld.pack(5," in str(error)
        return str(error)

    def test_a_tier(self, tmp_path):
        said = self.error(written("zip", tmp_path), replace(reads(1)[0], tier=3))
        assert "does not hold its image at tier 3" in said
        assert "tier 1 (tier=1 opens it)" in said
        assert "of tier 0 the windows (8, 0, 24, 16)" in said
        assert "tiers=[3], views=['image']" in said

    def test_a_view(self, tmp_path):
        said = self.error(written("folder", tmp_path), replace(reads(1)[0], view="expression"))
        assert "it holds only image of it" in said

    def test_a_whole_image_of_which_there_are_parts(self, tmp_path):
        self.error(written("folder", tmp_path), reads(0)[0])

    def test_what_could_not_be_had_when_it_was_packed(self, tmp_path):
        read = reads(2)[0]
        failed = {read.name: "HTTP status 404"}
        path = written("folder", tmp_path, bundling.all_files(failed=failed))
        with pytest.raises(ImageError, match=r"could not be had when .* packed: HTTP status 404"):
            pixels(path, read)


class TestDamage:
    """Damage is an error, never pixels."""

    def damaged(self, store, tmp_path, name, content):
        these = bundling.all_files()
        if content is None:
            del these[name]
        else:
            these[name] = content
        return written(store, tmp_path, these)

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            (lambda body: None, "missing from"),
            (lambda body: body[: len(body) // 2], "instead of"),
            (lambda body: body + b"\0", "instead of|it has more than"),
            (lambda body: b"", "instead of"),
            (lambda body: body[:300] + bytes([body[300] ^ 1]) + body[301:], "SHA-256 differs"),
        ],
        ids=["missing", "truncated", "longer", "empty", "one bit"],
    )
    def test_of_an_image(self, store, tmp_path, damage, said):
        read = reads(1)[0]
        name = read.name
        source = self.damaged(store, tmp_path, name, damage(bundling.files()[name]))
        with pytest.raises(ImageError, match=said) as caught:
            pixels(source, read)
        assert caught.value.image_id == read.image_id
        assert name in str(caught.value)
        assert right(source, reads(1)[1])

    @pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]", b"\xff\xfe"])
    def test_of_the_metadata(self, store, tmp_path, content):
        source = self.damaged(store, tmp_path, ROWS, content)
        with pytest.raises(BundleError, match=r"datasets/5.json is of no use"):
            dataset(source)

    def test_of_the_manifest(self, store, tmp_path):
        these = bundling.all_files()
        these["manifest.json"] = these["manifest.json"][:-100]
        with pytest.raises(BundleError, match="manifest is refused: Invalid JSON"):
            dataset(written(store, tmp_path, these))

    def test_of_a_file_after_it_was_opened(self, tmp_path):
        path = written("folder", tmp_path)
        array = image(path, reads(1)[0])
        (Path(path) / reads(1)[0].name).unlink()
        with pytest.raises(ImageError, match="missing from"):
            array.load()

    def test_a_zip_that_was_cut_off(self, tmp_path):
        path = Path(written("zip", tmp_path))
        whole = path.read_bytes()
        for length in (0, 10, len(whole) // 2, len(whole) - 30, len(whole) - 1):
            path.write_bytes(whole[:length])
            with pytest.raises(BundleError, match="not a whole zip archive"):
                dataset(path)


class TestFinding:
    """What is at a path or URL, if it is no bundle."""

    def test_nothing(self, tmp_path):
        for where in (tmp_path / "none", f"memory://{uuid.uuid4().hex}/x.zip"):
            with pytest.raises(BundleError, match="there is nothing at"):
                dataset(where)

    def test_a_bundle_whose_packing_did_not_finish(self, store, tmp_path):
        these = bundling.all_files()
        del these["manifest.json"]
        with pytest.raises(BundleError, match=r"has no manifest.json: packing it did not finish"):
            dataset(written(store, tmp_path, these))

    def test_another_file(self, tmp_path):
        (tmp_path / "x.txt").write_text("hello")
        with pytest.raises(BundleError, match="not a whole zip archive"):
            dataset(tmp_path / "x.txt")

    def test_a_store_that_nobody_knows(self):
        with pytest.raises(BundleError, match="nosuch://x cannot be reached"):
            dataset("nosuch://x")

    @pytest.mark.parametrize(
        "text", ["", "  ", "a\0b", "\ud800", "zip://x::memory://y.zip", "s3://k:p@b/x"]
    )
    def test_texts_that_name_no_place(self, text):
        with pytest.raises(ValueError, match="source or target"):
            dataset(text)

    def test_what_is_no_place(self):
        for where in (os.fsencode("x"), 5):
            with pytest.raises(TypeError, match="must be"):
                dataset(where)

    def test_paths_that_the_system_refuses(self):
        for text in ("x" * 5000, "~nobody-of-that-name/x"):
            with pytest.raises(BundleError):
                dataset(text)

    def test_secrets_are_in_no_message_and_no_cause(self):
        for text in (
            "s3://key:SECRET@bucket/x",
            "ftp://me:SECRET@127.0.0.1:9/x",
            "https://127.0.0.1:9/x.zip?signature=SECRET",
            "zip://a::https://me:SECRET@127.0.0.1:9/x.zip",
        ):
            with pytest.raises((ValueError, BundleError)) as caught:
                dataset(text)
            error: BaseException | None = caught.value
            while error is not None:
                assert "SECRET" not in f"{error} {error!r}"
                error = error.__cause__ or error.__context__

    def test_what_stores_raise_is_not_shown(self):
        """A store of other people, whose errors tell its credentials."""

        class Leaky(fsspec.AbstractFileSystem):
            protocol = "leaky"

            def cat_file(self, path, start=None, end=None, **kwargs):
                raise RuntimeError("no access with SECRET")

            info = find = exists = cat_file

        fsspec.register_implementation("leaky", Leaky, clobber=True)
        for text in ("leaky://bucket/x", "leaky://bucket/x.zip"):
            for use in (dataset, atldld.verify_bundle):
                with pytest.raises(BundleError, match="RuntimeError") as caught:
                    use(text)
                error: BaseException | None = caught.value
                while error is not None:
                    assert "SECRET" not in f"{error} {error!r}"
                    error = error.__cause__ or error.__context__


class Web(http.server.BaseHTTPRequestHandler):
    """One file by HTTP, in parts, or as the test's server misbehaves."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.paths.append(self.path)
        if server.how == "redirect" and "elsewhere" not in self.path:
            self.send_response(302)
            self.send_header("Location", f"{server.to}/elsewhere.zip?signature=SECRET")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if not self.path.startswith("/b.zip"):
            self.send_error(404)
            return
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        part = server.content[first : last + 1]
        headers = {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(server.content)}"}
        if server.how == "whole":
            part, headers = server.content, {}
        if server.how == "gzip":
            part, headers["Content-Encoding"] = gzip.compress(part), "gzip"
        self.send_response(206 if headers else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        if server.how in ("silent", "endless"):
            self.send_header("Connection", "close")
            self.end_headers()
            with contextlib.suppress(OSError):
                while not server.over.is_set():
                    if server.how == "endless":
                        self.wfile.write(bytes(2**16))
                        server.sent += 2**16
                    else:
                        server.over.wait(0.05)
            return
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


class TestWeb:
    @pytest.fixture
    def web(self, tmp_path):
        """Serve a bundle; `how` says how."""
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
            server.content = Path(written("zip", tmp_path)).read_bytes()
            server.how, server.paths, server.sent, server.over = "parts", [], 0, threading.Event()
            server.url = f"http://127.0.0.1:{server.server_address[1]}/b.zip?signature=SECRET"
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            yield server
            server.over.set()
            server.shutdown()
            thread.join()

    def test_a_zip_file_opens_from_a_server_that_sends_parts(self, web):
        array = image(web.url, reads(1)[0])
        assert dataset(web.url).attrs["source"] == web.url.partition("?")[0]
        before = len(web.paths)
        np.testing.assert_array_equal(array, packed(reads(1)[0].name))
        assert len(web.paths) == before + 1
        assert atldld.verify_bundle(web.url).ok

    @pytest.mark.parametrize("how", ["whole", "gzip", "silent", "endless"])
    @pytest.mark.parametrize("late", [False, True], ids=["at once", "later"])
    def test_a_server_that_misbehaves_costs_little_and_is_named(self, web, how, late):
        array = image(web.url, reads(1)[0]) if late else None
        web.how = how
        tracemalloc.start()
        with (
            atldld.set_options(timeout=0.3, retries=0),
            pytest.raises((BundleError, ImageError), match=r"/b.zip") as caught,
        ):
            _ = dataset(web.url) if array is None else array.load()
        assert tracemalloc.get_traced_memory()[1] < 2**23
        tracemalloc.stop()
        assert web.sent < 2**26
        assert "SECRET" not in str(caught.value)

    def test_a_redirect_that_leaves_the_web_is_refused_and_not_quoted(self, web):
        web.how, web.to = "redirect", "ftp://127.0.0.1:9"
        with pytest.raises(BundleError) as caught:
            dataset(web.url)
        error: BaseException | None = caught.value
        while error is not None:
            assert "SECRET" not in f"{error} {error!r}"
            error = error.__cause__ or error.__context__
        assert len(web.paths) == 1

    def test_what_is_not_there_and_what_is_no_zip_file(self, web):
        with pytest.raises(BundleError, match="there is nothing at"):
            dataset(web.url.replace("b.zip", "none.zip"))
        with pytest.raises(BundleError, match="a bundle is a zip file"):
            atldld.verify_bundle(web.url.replace("b.zip", "folder"))
        with pytest.raises(BundleError, match="cannot be written to"):
            atldld.pack(DATASET, web.url, source=web.url)


class TestVerifying:
    def test_a_sound_bundle(self, store, tmp_path):
        report = atldld.verify_bundle(written(store, tmp_path))
        assert report.ok
        assert (report.missing, report.damaged, report.extra, report.failed) == ((), (), (), ())
        assert report.files == len(bundling.files())
        assert report.bytes == sum(map(len, bundling.files().values()))
        assert report.dataset_id == DATASET
        assert "is sound" in str(report)

    def test_everything_that_is_wrong_is_named(self, store, tmp_path):
        first, second, third = (each.name for each in reads(1))
        these = bundling.all_files(failed={reads(2)[0].name: "HTTP status 404"})
        del these[first]
        these[second] = these[second][:-1]
        these[third] = these[third][:-9] + b"x" + these[third][-8:]
        these["notes.txt"] = b"mine"
        report = atldld.verify_bundle(written(store, tmp_path, these))
        assert not report.ok
        assert report.missing == (first,)
        assert report.damaged == (second, third)
        assert report.extra == ("notes.txt",)
        assert report.failed == (reads(2)[0].name,)
        assert "is NOT sound" in str(report)
        assert f"missing: {first}" in str(report)
        assert f"damaged: {third} (its content is not what came" in str(report)

    def test_what_does_not_fit_the_metadata_is_damaged_too(self, tmp_path):
        """A bundle can agree with its manifest and still not with itself."""
        these = dict(bundling.files())
        first, second, _ = (each.name for each in reads(1))
        these[first] = these[second]
        these["images/99/image-t1.jpg"] = these[second]
        report = atldld.verify_bundle(written("zip", tmp_path, bundling.all_files(these)))
        assert "images/99/image-t1.jpg" in report.damaged
        assert report.reasons["images/99/image-t1.jpg"] == "the metadata know no such image"
        sizes = {read.size for read in reads(1)[:2]}
        assert (first in report.damaged) == (len(sizes) == 2)

    @pytest.mark.parametrize("content", [b"{", b'{"row": {"id": 6}, "images": null}', b"[]"])
    def test_metadata_that_describe_nothing_are_damaged(self, tmp_path, content):
        these = {**bundling.files(), ROWS: content}
        report = atldld.verify_bundle(written("zip", tmp_path, bundling.all_files(these)))
        assert report.damaged == (ROWS,)

    def test_what_is_no_bundle_raises(self, tmp_path):
        with pytest.raises(BundleError, match="there is nothing"):
            atldld.verify_bundle(tmp_path / "none")
