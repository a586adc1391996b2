"""Folders and zip files from a stranger: refused, in bounded time and memory, nothing touched."""

from __future__ import annotations

import io
import os
import random
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

import atldld
from atldld.errors import AtldldError, BundleError, DatasetNotFoundError, ImageError
from source.conftest import jpeg

from . import bundling
from .bundling import ROWS, dataset, image, pixels, reads, right

SECRET = b"what lies outside of the bundle"


def archive(entries, method=zipfile.ZIP_STORED) -> bytes:
    """Return a zip archive of (name or ZipInfo, content) pairs."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as writer:
        for name, content in entries:
            info = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            if info.compress_type == zipfile.ZIP_STORED:
                info.compress_type = method
            writer.writestr(info, content)
    return out.getvalue()


def whole(*more) -> bytes:
    return archive([*bundling.all_files().items(), *more])


def refused(tmp_path: Path, content: bytes, said: str) -> None:
    """Open and verify an archive that must be refused as a whole."""
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    for use in (dataset, atldld.verify_bundle):
        with pytest.raises(BundleError, match=said) as caught:
            use(str(path))
        assert len(str(caught.value)) < 600
    assert sorted(each.name for each in tmp_path.iterdir() if each.name != "cache") == ["x.zip"]


def renamed(content: bytes, old: str, new: str) -> bytes:
    """Return an archive with the name of an entry changed to one of the same length."""
    assert len(old) == len(new)
    return content.replace(old.encode(), new.encode())


def harmless(tmp_path: Path, content: bytes) -> None:
    """Open, read and verify an archive with entries that no manifest lists."""
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    dataset(path)
    assert right(path, *reads(1))
    assert atldld.verify_bundle(path).ok
    assert sorted(each.name for each in tmp_path.iterdir() if each.name != "cache") == ["x.zip"]


class TestZipNames:
    """Only what the manifest lists is read, so that other names do nothing."""

    @pytest.mark.parametrize(
        "name",
        [
            "../evil",
            "images/../../evil",
            "/etc/passwd",
            "//host/share",
            "C:/evil",
            "images/7/./image-t2.jpg",
            "x//y",
            "x" * 300,
            "a\u202eb",
            "../",
            "/",
        ],
    )
    def test_that_lead_elsewhere(self, tmp_path, name):
        harmless(tmp_path, whole((name, b"x")))

    @pytest.mark.parametrize("name", ["imagesx7.jpg\0zz", "..\\..\\windows1", "c:\\windows\\12"])
    def test_that_python_would_have_changed_when_it_reads_or_writes_them(self, tmp_path, name):
        stand_in = "q" * len(name)
        harmless(tmp_path, renamed(whole((stand_in, b"x")), stand_in, name))

    def test_that_come_twice(self, tmp_path):
        first = reads(1)[0].name
        stand_in = "q" * len(first)
        path = tmp_path / "x.zip"
        path.write_bytes(renamed(whole((stand_in, SECRET)), stand_in, first))
        with pytest.raises(ImageError, match="damaged in the bundle"):
            pixels(path, reads(1)[0])

    def test_of_folders_are_passed_over(self, tmp_path):
        content = whole(("images/", b""), ("empty/", b""))
        harmless(tmp_path, content)
        assert atldld.verify_bundle(tmp_path / "x.zip").extra == ()


class TestZipEntries:
    def test_a_link_is_not_followed(self, tmp_path):
        name = reads(1)[0].name
        link = zipfile.ZipInfo(name)
        link.create_system = 3
        link.external_attr = 0o120777 << 16
        these = {key: value for key, value in bundling.all_files().items() if key != name}
        path = tmp_path / "x.zip"
        path.write_bytes(archive([*these.items(), (link, b"/etc/passwd")]))
        with pytest.raises(ImageError, match="instead of"):
            pixels(path, reads(1)[0])

    def test_an_encrypted_one_is_refused(self, tmp_path):
        content = bytearray(whole())
        for place in _directory(bytes(content)):
            content[place + 8] |= 1
        refused(tmp_path, bytes(content), "is encrypted")

    def test_a_bomb_that_nobody_lists_does_nothing(self, tmp_path):
        bomb = zipfile.ZipInfo("images/7/image-t0.jpg")
        bomb.compress_type = zipfile.ZIP_DEFLATED
        harmless(tmp_path, whole((bomb, bytes(2**24))))

    def test_a_bomb_in_the_place_of_the_manifest_is_not_unpacked(self, tmp_path):
        these = {**bundling.all_files(), "manifest.json": bytes(2**28)}
        content = archive(these.items(), zipfile.ZIP_DEFLATED)
        tracemalloc.start()
        refused(tmp_path, content, "its manifest: it has 268435456 bytes")
        assert tracemalloc.get_traced_memory()[1] < 2**22
        tracemalloc.stop()

    def test_a_bomb_that_lies_about_its_size_stops_at_what_it_said(self, tmp_path):
        """The directory says 900 bytes, the data unpack to 64 MiB."""
        name = reads(1)[0].name
        these = {**bundling.all_files(), name: bytes(900)}
        these["manifest.json"] = bundling.all_files(
            {key: these[key] for key in these if key != "manifest.json"}
        )["manifest.json"]
        bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = bomb.compress(bytes(2**26)) + bomb.flush()
        path = tmp_path / "x.zip"
        path.write_bytes(_forged(these, name, packed, method=8, size=900))
        array = image(path, reads(1)[0])
        tracemalloc.start()
        with pytest.raises(ImageError, match="damaged in the bundle"):
            array.load()
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()

    def test_what_cannot_be_unpacked_is_damaged(self, tmp_path):
        name = reads(1)[0].name
        these = bundling.all_files()
        path = tmp_path / "x.zip"
        size = len(these[name])
        path.write_bytes(_forged(these, name, b"\xff" * size, method=8, size=size))
        with pytest.raises(ImageError, match="cannot be unpacked"):
            pixels(path, reads(1)[0])

    def test_an_entry_that_lies_on_another_is_not_believed(self, tmp_path):
        """Many entries that share the same data: how a small file unpacks to a huge one."""
        content = bytearray(whole())
        places = {_name_at(bytes(content), place): place for place in _directory(bytes(content))}
        first, second = (places[read.name] for read in reads(1)[:2])
        offset = struct.unpack_from("<L", content, first + 42)[0]
        struct.pack_into("<L", content, second + 42, offset)
        path = tmp_path / "x.zip"
        path.write_bytes(bytes(content))
        with pytest.raises(ImageError, match="damaged in the bundle"):
            pixels(path, reads(1)[1])

    def test_an_entry_that_reaches_past_the_end_is_not_read(self, tmp_path):
        content = bytearray(whole())
        name = reads(1)[0].name
        place = next(p for p in _directory(bytes(content)) if _name_at(bytes(content), p) == name)
        struct.pack_into("<LL", content, place + 20, 2**30, 2**30)
        path = tmp_path / "x.zip"
        path.write_bytes(bytes(content))
        with pytest.raises(ImageError, match=r"it has \d+ bytes instead of"):
            pixels(path, reads(1)[0])

    @pytest.mark.parametrize("shift", [True, False], ids=["data shifted", "of another name"])
    def test_a_header_that_does_not_fit_the_directory_is_found(self, tmp_path, shift):
        first, second = (read.name for read in reads(1)[:2])
        content = bytearray(whole())
        places = {_name_at(bytes(content), place): place for place in _directory(bytes(content))}
        local = struct.unpack_from("<L", content, places[first] + 42)[0]
        if shift:
            struct.pack_into("<H", content, local + 28, 60_000)
        else:
            content[local + 30 : local + 30 + len(first)] = second.encode()
        path = tmp_path / "x.zip"
        path.write_bytes(bytes(content))
        with pytest.raises(ImageError, match="damaged in the bundle"):
            pixels(path, reads(1)[0])

    def test_a_huge_directory_is_not_read(self, tmp_path):
        """The end of the archive says that its directory has 3 GiB; the file has holes."""
        path = tmp_path / "x.zip"
        with path.open("wb") as file:
            file.truncate(3 * 2**30)
            file.seek(0, 2)
            file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, 3 * 2**30, 0, 0))
        tracemalloc.start()
        with pytest.raises(BundleError, match=r"\d+ are believable"):
            dataset(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
        tracemalloc.stop()

    def test_a_gap_between_entries_is_not_read(self, tmp_path):
        """An entry is followed by a gibibyte that belongs to none."""
        first = reads(1)[0].name
        content = whole()
        place = {_name_at(content, at): at for at in _directory(content)}[first]
        local = struct.unpack_from("<L", content, place + 42)[0]
        packed = struct.unpack_from("<L", content, place + 20)[0]
        end = local + 30 + len(first) + packed
        gap = 2**30
        changed = bytearray(content[end:])
        for at in _directory(content):
            offset = struct.unpack_from("<L", content, at + 42)[0]
            if offset > local:
                struct.pack_into("<L", changed, at - end + 42, offset + gap)
        eocd = changed.rindex(b"PK\5\6")
        start = struct.unpack_from("<L", changed, eocd + 16)[0]
        struct.pack_into("<L", changed, eocd + 16, start + gap)
        path = tmp_path / "x.zip"
        with path.open("wb") as file:
            file.write(content[:end])
            file.seek(gap, 1)
            file.write(changed)
        array = image(path, reads(1)[0])
        tracemalloc.start()
        np.testing.assert_array_equal(array, bundling.packed(first))
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()


def _directory(content: bytes) -> list[int]:
    """Return where the entries of the directory begin."""
    place = struct.unpack_from("<L", content, content.rindex(b"PK\5\6") + 16)[0]
    places = []
    while content[place : place + 4] == b"PK\1\2":
        places.append(place)
        place += 46 + sum(struct.unpack_from("<3H", content, place + 28))
    return places


def _name_at(content: bytes, place: int) -> str:
    length = struct.unpack_from("<H", content, place + 28)[0]
    return content[place + 46 : place + 46 + length].decode()


def _forged(these, name: str, packed: bytes, *, method: int, size: int) -> bytes:
    """Return an archive in which one entry has other data than its directory says."""
    content = bytearray(archive([*((k, v) for k, v in these.items() if k != name), (name, packed)]))
    place = next(at for at in _directory(bytes(content)) if _name_at(bytes(content), at) == name)
    struct.pack_into("<H", content, place + 10, method)
    struct.pack_into("<L", content, place + 24, size)
    return bytes(content)


class TestFuzz:
    @pytest.mark.parametrize(
        "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(2, 12))]
    )
    def test_damaged_archives_give_what_was_packed_or_one_of_our_errors(self, tmp_path, seed):
        random_ = random.Random(seed)
        content = whole()
        path = tmp_path / "x.zip"
        read = reads(1)[0]
        start = _directory(content)[0]
        said: list[str] = []
        for _ in range(30):
            changed = bytearray(content)
            for _ in range(random_.randint(1, 6)):
                # Half of the changes hit the directory and the end, which say what there is.
                low = start if random_.random() < 0.5 else 0
                changed[random_.randrange(low, len(changed))] = random_.randrange(256)
            if random_.random() < 0.2:
                del changed[random_.randrange(len(changed)) :]
            path.write_bytes(bytes(changed))
            try:
                dataset(path)
                assert right(path, read)
            except AtldldError as error:
                said.append(str(error))
        assert all(said)


class TestFolders:
    @pytest.fixture
    def outside(self, tmp_path) -> Path:
        path = tmp_path / "outside"
        path.mkdir()
        (path / "secret.jpg").write_bytes(SECRET)
        return path

    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        return bundling.write_folder(tmp_path / "bundle", bundling.all_files())

    @pytest.mark.parametrize(
        "name", ["manifest.json", ROWS, reads(1)[0].name, "README.txt", "other"]
    )
    def test_a_link_to_a_file_is_refused(self, folder, outside, name):
        path = folder / name
        path.unlink(missing_ok=True)
        path.symlink_to(outside / "secret.jpg")
        if name == "manifest.json":
            for use in (dataset, atldld.verify_bundle):
                with pytest.raises(BundleError, match="is a link"):
                    use(folder)
            return
        report = atldld.verify_bundle(folder)
        assert name in (report.extra if name == "other" else report.damaged)
        if name == ROWS:
            with pytest.raises(BundleError, match="is a link"):
                dataset(folder)
        if name.endswith(".jpg"):
            with pytest.raises(ImageError, match="is a link"):
                pixels(folder, reads(1)[0])

    def test_a_link_that_appears_later_is_not_followed(self, folder, outside):
        array = image(folder, reads(1)[0])
        path = folder / reads(1)[0].name
        content = path.read_bytes()
        (outside / "image-t1.jpg").write_bytes(content)
        path.unlink()
        path.symlink_to(outside / "image-t1.jpg")
        with pytest.raises(ImageError, match="is a link"):
            array.load()
        path.unlink()
        path.parent.rename(folder / "moved")
        path.parent.symlink_to(outside, target_is_directory=True)
        with pytest.raises(ImageError, match="behind a link"):
            array.load()

    def test_a_folder_that_is_a_link_itself_was_named_by_the_user(self, folder, tmp_path):
        (tmp_path / "here").symlink_to(folder, target_is_directory=True)
        assert right(tmp_path / "here", reads(1)[0])

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
    @pytest.mark.parametrize("name", [reads(1)[0].name, "manifest.json"])
    def test_a_pipe_is_not_waited_for(self, folder, name):
        array = image(folder, reads(1)[0])
        (folder / name).unlink()
        os.mkfifo(folder / name)
        if name == "manifest.json":
            with pytest.raises(BundleError, match="not a plain file"):
                dataset(folder)
        else:
            with pytest.raises(ImageError, match="not a plain file"):
                array.load()

    def test_a_folder_in_the_place_of_a_file(self, folder):
        path = folder / reads(1)[0].name
        path.unlink()
        path.mkdir()
        with pytest.raises(ImageError, match="damaged in the bundle"):
            pixels(folder, reads(1)[0])
        assert reads(1)[0].name in atldld.verify_bundle(folder).damaged

    def test_a_file_of_another_size_is_not_read(self, folder):
        path = folder / reads(1)[0].name
        array = image(folder, reads(1)[0])
        os.truncate(path, 2**36)
        with pytest.raises(ImageError, match=f"it has {2**36} bytes instead of"):
            array.load()


class TestMetadata:
    """A bundle that agrees with itself, and says what cannot be."""

    def opened(self, tmp_path, rows: bytes):
        these = {**bundling.files(), ROWS: rows}
        path = tmp_path / "x.zip"
        path.write_bytes(archive(bundling.all_files(these).items()))
        return path

    def test_the_rows_of_another_dataset(self, tmp_path):
        source = self.opened(tmp_path, b'{"row": {"id": 6}, "images": null}')
        with pytest.raises(BundleError, match="describes another dataset"):
            dataset(source)
        with pytest.raises(DatasetNotFoundError):
            dataset(source, 6)

    @pytest.mark.parametrize(
        "rows",
        [
            b'{"row": ' * 5000,
            b"[" * 200_000,
            b'{"row": [], "images": null}',
            b'{"row": {"id": 5}, "images": 7}',
            b'{"row": {"id": 5}, "images": null}',
            b'{"row": {"id": 5, "section_images": [null, 5, {}]}, "images": null}',
            b'{"row": {"id": NaN}, "images": []}',
        ],
    )
    def test_rows_that_are_none(self, tmp_path, rows):
        source = self.opened(tmp_path, rows)
        with pytest.raises(AtldldError):
            dataset(source)

    def test_an_image_of_another_size_than_the_metadata_say(self, tmp_path):
        read = reads(1)[0]
        larger = jpeg(read.size[0] + 1, read.size[1])
        these = {**bundling.files(), read.name: larger}
        path = tmp_path / "x.zip"
        path.write_bytes(archive(bundling.all_files(these).items()))
        with pytest.raises(ImageError, match=r"the image is .* pixels, not"):
            pixels(path, read)
        assert atldld.verify_bundle(path).damaged == (read.name,)

    def test_a_page_in_the_place_of_an_image(self, tmp_path):
        read = reads(1)[0]
        these = {**bundling.files(), read.name: b"<html>no</html>"}
        path = tmp_path / "x.zip"
        path.write_bytes(archive(bundling.all_files(these).items()))
        with pytest.raises(ImageError, match="an HTML page, not a JPEG"):
            pixels(path, read)

    def test_a_file_of_more_bytes_than_its_image_could_have_is_refused_unread(self, tmp_path):
        read = reads(1)[0]
        these = {**bundling.files(), read.name: bytes(2**21)}
        path = tmp_path / "x.zip"
        path.write_bytes(archive(bundling.all_files(these).items()))
        with pytest.raises(ImageError, match="is refused: 2097152 bytes"):
            pixels(path, read)


def test_reading_a_bundle_writes_nothing(tmp_path):
    path = bundling.write_folder(tmp_path / "b", bundling.all_files())
    before = {each: each.stat().st_mtime_ns for each in tmp_path.rglob("*")}
    dataset(path).load()
    assert right(path, *reads(1))
    atldld.verify_bundle(path)
    assert {each: each.stat().st_mtime_ns for each in path.rglob("*")} == {
        each: when for each, when in before.items() if each != path
    }
