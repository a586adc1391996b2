"""Manifests from a stranger: one that is read, or a refusal that says why, never anything else."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atldld.errors import BundleError
from atldld.model.read import VIEWS, ImageRead, Window
from atldld.source.stored import StoredSource
from atldld.store.manifest import MANIFEST_BYTES, MOST_FILES, Checked, Manifest
from atldld.store.names import LONGEST_NAME, KeptImage, image_name, most_bytes, name_fault

from . import bundling
from .bundling import ROWS

GOOD = "images/7/image-t2.jpg"
ENTRY = {"size": 10, "sha256": "0" * 64, "section": None}

BAD_NAMES = [
    "",
    "..",
    ".",
    "/etc/passwd",
    "images/../../x",
    "images/7/../8/image-t2.jpg",
    "images//image-t2.jpg",
    "images/7/image-t2.jpg/",
    "./images/7/image-t2.jpg",
    "C:/images/7/image-t2.jpg",
    "C:images",
    "images\\7\\image-t2.jpg",
    "..\\..\\x",
    "images/7/image-t2.jpg\0.png",
    "images/7/image-t2.jpg\n",
    "images/\u202e7/image-t2.jpg",
    "\ud800",
    "~/x",
    "images/" + "7" * LONGEST_NAME + "/image-t2.jpg",
    "images/7/" * 100,
]
UNKNOWN_NAMES = [
    "manifest.json",
    ".atldld-packing/draft.json",
    "datasets/05.json",
    "images/07/image-t2.jpg",
    "images/7/image-t02.jpg",
    "images/7/image-t100.jpg",
    "images/7/IMAGE-t2.jpg",
    "images/7/other-t2.jpg",
    "images/7/image-t2.png",
    "images/7/image-t2.jpg.json",
    "images/-7/image-t2.jpg",
    "images/\u0667/image-t2.jpg",
    "images/7/image-t2-w0-0-0-10.jpg",
    "images/7/image-t2-w0-0-10.jpg",
    "images/7/image-t2-w0-0-10-9999999999.jpg",
    "x.py",
    "README.txt.exe",
]


def parsed(**changes: Any) -> Manifest:
    return Manifest.from_json(json.dumps(bundling.manifest(**changes)).encode())


class TestNames:
    @pytest.mark.parametrize("name", [*BAD_NAMES, *UNKNOWN_NAMES])
    def test_only_names_of_known_forms_name_files(self, name):
        with pytest.raises(ValueError, match=r"no bundle has|it has a|it is longer"):
            most_bytes(name)
        if name != "\ud800":
            with pytest.raises(ValueError, match=r"^files: Value error"):
                parsed(files={ROWS: ENTRY, name: ENTRY})
            with pytest.raises(ValueError, match="is not the name of an image"):
                parsed(failed={name: "gone"})

    def test_the_metadata_of_another_dataset_are_refused(self):
        with pytest.raises(ValueError, match=r"datasets/6.json, of another dataset"):
            parsed(files={ROWS: ENTRY, "datasets/6.json": ENTRY})

    @pytest.mark.parametrize("name", BAD_NAMES[:-2])
    def test_names_that_climb_have_a_fault_of_their_own(self, name):
        assert name_fault(name) is not None or "~" in name

    @given(
        st.builds(
            KeptImage,
            st.integers(0, 2**62),
            st.sampled_from(VIEWS),
            st.integers(0, 99),
            st.none() | st.builds(Window, *[st.integers(1, 10**9 - 1)] * 4),
        )
    )
    def test_the_name_of_every_read_names_that_read_and_no_other(self, image):
        read = ImageRead(image.image_id, image.view, image.tier, 9, 9, window=image.window)
        assert KeptImage.of_name(image_name(read)) == image
        assert most_bytes(image_name(read)) == 2**30

    @settings(suppress_health_check=[HealthCheck.too_slow])
    @given(st.text(max_size=60) | st.from_regex(r"[a-z0-9./\\:-]{0,40}", fullmatch=True))
    def test_any_text_as_a_name(self, text):
        try:
            most_bytes(text)
        except ValueError:
            return
        assert name_fault(text) is None
        assert not {"..", ""} & set(text.split("/"))


class TestStrictness:
    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"{",
            b"\xff\xfe{\0}\0",
            "{}".encode("utf-16"),
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b"1" * 10_000,
            b"[]",
        ],
    )
    def test_what_is_no_manifest(self, text):
        with pytest.raises(ValueError, match=r"\w") as caught:
            Manifest.from_json(text)
        assert len(str(caught.value)) < 400

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"format": "zip"}, "format: "),
            ({"format": None}, "format: "),
            ({"version": 2}, "version: "),
            ({"version": 1.5}, "version: "),
            ({"dataset_id": -1}, "dataset_id: "),
            ({"dataset_id": 10**30}, "dataset_id: "),
            ({"dataset_id": "5"}, "dataset_id: "),
            ({"service": 5}, "service: "),
            ({"service": "x" * 20_000}, "service: "),
            ({"citation": None}, "citation: "),
            ({"asked": {}}, "asked: "),
            ({"asked": [5]}, "asked 0: "),
            ({"remembered": []}, "remembered: "),
            ({"remembered": {"../x": "y"}}, "remembered "),
            ({"remembered": {"conventions": 5}}, "remembered conventions: "),
            ({"failed": {GOOD: 5}}, f"failed {GOOD}: "),
            ({"files": []}, "files: "),
            ({"files": {GOOD: 5}}, f"files {GOOD}: "),
            ({"files": {GOOD: {"size": 1}}}, f"files {GOOD} sha256: "),
            ({"files": {GOOD: {"size": -1, "sha256": "0" * 64}}}, f"files {GOOD} size: "),
            ({"files": {GOOD: {"size": 1.5, "sha256": "0" * 64}}}, f"files {GOOD} size: "),
            ({"files": {GOOD: {"size": True, "sha256": "0" * 64}}}, f"files {GOOD} size: "),
            ({"files": {GOOD: {"size": 2**62, "sha256": "0" * 64}}}, "are believable"),
            ({"files": {ROWS: {"size": 2**24 + 1, "sha256": "0" * 64}}}, "are believable"),
            ({"files": {GOOD: {"size": 1, "sha256": "F" * 64}}}, f"files {GOOD} sha256: "),
            ({"files": {GOOD: {"size": 1, "sha256": "0" * 63}}}, f"files {GOOD} sha256: "),
            ({"files": {GOOD: {"size": 1, "sha256": "0" * 64}}}, "of which section it is"),
        ],
    )
    def test_each_field_is_held_to_its_type_and_bounds(self, changes, said):
        with pytest.raises(ValueError, match=said) as caught:
            parsed(**changes)
        assert len(str(caught.value)) < 400

    def test_a_missing_field(self):
        for name in ("dataset_id", "service", "files"):
            fields = bundling.manifest()
            del fields[name]
            with pytest.raises(ValueError, match=f"^{name}: Field required"):
                Manifest.from_json(json.dumps(fields).encode())

    def test_unknown_fields_are_passed_over(self):
        assert parsed(invented_later={"x": [1]}).dataset_id == bundling.DATASET

    def test_too_many_files(self):
        files = {f"images/{number}/image-t0.jpg": ENTRY for number in range(MOST_FILES + 1)}
        with pytest.raises(ValueError, match="files: "):
            parsed(files=files)

    def test_a_bundle_must_list_its_metadata(self, tmp_path):
        these = {key: value for key, value in bundling.files().items() if key != ROWS}
        path = bundling.write_folder(tmp_path / "x", bundling.all_files(these))
        with pytest.raises(BundleError, match="lists no metadata"):
            StoredSource.at(path)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([*BAD_NAMES, *UNKNOWN_NAMES, GOOD]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["size", "sha256", "files", GOOD, *BAD_NAMES[:5]]) | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


class TestForged:
    def check(self, text: bytes) -> None:
        try:
            manifest = Manifest.from_json(text)
        except ValueError as error:
            said = str(error)
        else:
            self.check_read(manifest)
            return
        assert 0 < len(said) < 1000

    def check_read(self, manifest: Manifest) -> None:
        assert 0 <= manifest.dataset_id < 2**63
        for name, entry in manifest.files.items():
            assert entry.size <= most_bytes(name)
            assert len(bytes.fromhex(entry.sha256)) == 32
        # What is accepted can be written again, and says the same.
        again = Manifest.from_json(manifest.to_json())
        assert (again.files, again.failed, again.remembered) == (
            manifest.files,
            manifest.failed,
            manifest.remembered,
        )

    @settings(max_examples=300, deadline=None)
    @given(anything)
    def test_any_json(self, value):
        self.check(json.dumps(value).encode())

    @settings(max_examples=400, deadline=None)
    @given(st.data())
    def test_a_manifest_with_anything_in_any_place(self, data):
        fields = bundling.manifest()
        place: Any = fields
        while True:
            key = data.draw(st.sampled_from(sorted(place)))
            inner = place[key]
            if not (isinstance(inner, dict) and inner and data.draw(st.booleans())):
                break
            place = inner
        if data.draw(st.booleans()):
            place[key] = data.draw(anything)
        else:
            place[data.draw(st.text() | st.sampled_from(BAD_NAMES))] = place.pop(key)
        self.check(json.dumps(fields).encode())

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_a_manifest_with_bytes_changed(self, data):
        text = bytearray(json.dumps(bundling.manifest()).encode())
        for _ in range(data.draw(st.integers(1, 4))):
            text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
        self.check(bytes(text))

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=300))
    def test_any_bytes(self, text):
        self.check(text)

    def test_hostile_ones_take_memory_in_proportion_to_their_size(self):
        half = 2**18
        for text in (
            b"[" + b"[]," * (half // 3) + b"[]]",
            b"[" + b"{}," * (half // 3) + b"{}]",
            b"[" + b"0.1," * (half // 4) + b"1]",
            b'{"files": "' + b"x" * half + b'"}',
        ):
            tracemalloc.start()
            with pytest.raises(ValueError, match=r"\w"):
                Manifest.from_json(text)
            assert tracemalloc.get_traced_memory()[1] < 100 * len(text)
            tracemalloc.stop()

    def test_a_larger_one_is_not_looked_at(self, tmp_path):
        these = {**bundling.all_files(), "manifest.json": b" " * (MANIFEST_BYTES + 1)}
        path = bundling.write_folder(tmp_path / "x", these)
        with pytest.raises(BundleError, match=rf"instead of {MANIFEST_BYTES} at most"):
            StoredSource.at(path)


class TestWriting:
    def test_a_manifest_is_read_as_it_was_written(self):
        manifest = Manifest(
            dataset_id=5,
            service="http://h",
            asked=({"resolution": 25.0, "tiers": None},),
            files={ROWS: Checked.of(b"x"), GOOD: Checked.of(b"y", (0, 0, 9, 9))},
            remembered={"conventions": "{}"},
            failed={"images/8/image-t2.jpg": "404"},
            citation="Cite.",
            atldld_version="1",
            packed_on="2026-11-22",
        )
        again = Manifest.from_json(manifest.to_json())
        for name in ("dataset_id", "service", "asked", "files", "remembered", "failed"):
            assert getattr(again, name) == getattr(manifest, name)
        assert (again.citation, again.atldld_version, again.packed_on) == (
            "Cite.",
            "1",
            "2026-11-22",
        )

    def test_what_could_not_be_read_back_is_not_written(self):
        what = Checked(size=1, sha256="0" * 64, section=(0, 0, 9, 9))
        files = {f"images/{n}/image-t0.jpg": what for n in range(MOST_FILES + 1)}
        with pytest.raises(ValueError, match="at most 40000 items"):
            Manifest(dataset_id=5, service="http://h", files=files)
