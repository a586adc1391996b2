"""Manifests from a stranger: one that is read, or a refusal that says why, never anything else."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atldld import AtldldError, BundleError, verify_bundle

from . import bundling
from .bundling import ROWS
from .test_records import BAD_NAMES, UNKNOWN_NAMES

GOOD = "images/7/image-t2.jpg"
ENTRY = {"size": 10, "sha256": "0" * 64, "section": None}
MOST_FILES = 40_000
MOST_BYTES = 16 * 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of a bundle, whose manifest a test writes anew."""
    return bundling.write_folder(tmp_path_factory.mktemp("bundle"), bundling.all_files())


@pytest.fixture(scope="module")
def verify(folder):
    """Return a function that verifies the folder with another manifest."""

    def verify(text: bytes):
        (folder / "manifest.json").write_bytes(text)
        return verify_bundle(folder)

    return verify


@pytest.fixture(scope="module")
def refusal(verify):
    """Return a function that returns why a manifest with some changes is refused."""

    def refusal(text: bytes = b"", **changes: Any) -> str:
        text = text or json.dumps(bundling.manifest(**changes)).encode()
        with pytest.raises(BundleError, match=r"its manifest is refused: \w") as caught:
            verify(text)
        said = str(caught.value)
        assert len(said) < 800
        return said

    return refusal


@pytest.mark.parametrize("name", [*BAD_NAMES, *UNKNOWN_NAMES])
def test_only_names_of_known_forms_are_listed(refusal, name):
    if name != "\ud800":
        assert "files: Value error" in refusal(files={ROWS: ENTRY, name: ENTRY})
        assert "is not the name of an image" in refusal(failed={name: "gone"})


def test_the_metadata_of_another_dataset_are_refused(refusal):
    said = refusal(files={ROWS: ENTRY, "datasets/6.json": ENTRY})
    assert "datasets/6.json, of another dataset" in said


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
    def test_what_is_no_manifest(self, verify, text):
        with pytest.raises(BundleError, match=r"its manifest is refused: \w") as caught:
            verify(text)
        assert len(str(caught.value)) < 800

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
    def test_each_field_is_held_to_its_type_and_bounds(self, refusal, changes, said):
        assert said in refusal(**changes)

    def test_a_missing_field(self, refusal):
        for name in ("dataset_id", "service", "files"):
            fields = bundling.manifest()
            del fields[name]
            assert f"{name}: Field required" in refusal(json.dumps(fields).encode())

    def test_unknown_fields_are_passed_over(self, verify):
        assert verify(json.dumps(bundling.manifest(invented_later={"x": [1]})).encode()).ok

    def test_too_many_files(self, refusal):
        files = {f"images/{number}/image-t0.jpg": ENTRY for number in range(MOST_FILES + 1)}
        assert "files: " in refusal(files=files)

    def test_a_bundle_must_list_its_metadata(self, tmp_path):
        these = {key: value for key, value in bundling.files().items() if key != ROWS}
        path = bundling.write_folder(tmp_path / "x", bundling.all_files(these))
        with pytest.raises(BundleError, match="lists no metadata"):
            bundling.dataset(path)


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


@pytest.fixture(scope="module")
def check(verify, folder):
    """Return a function that holds a manifest to be read or refused, and never anything else."""

    def check(text: bytes) -> None:
        try:
            report = verify(text)
        except BundleError as error:
            said = str(error)
        else:
            assert 0 <= report.dataset_id < 2**63
            said = str(report)
            with suppress(AtldldError):
                bundling.dataset(folder)
        assert 0 < len(said) < 20_000

    return check


class TestForged:
    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(anything)
    def test_any_json(self, check, value):
        check(json.dumps(value).encode())

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def test_a_manifest_with_anything_in_any_place(self, check, data):
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
        check(json.dumps(fields).encode())

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def test_a_manifest_with_bytes_changed(self, check, data):
        text = bytearray(json.dumps(bundling.manifest()).encode())
        for _ in range(data.draw(st.integers(1, 4))):
            text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
        check(bytes(text))

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=300))
    def test_any_bytes(self, check, text):
        check(text)

    def test_hostile_ones_take_memory_in_proportion_to_their_size(self, verify):
        half = 2**18
        for text in (
            b"[" + b"[]," * (half // 3) + b"[]]",
            b"[" + b"{}," * (half // 3) + b"{}]",
            b"[" + b"0.1," * (half // 4) + b"1]",
            b'{"files": "' + b"x" * half + b'"}',
        ):
            tracemalloc.start()
            with pytest.raises(BundleError, match=r"\w"):
                verify(text)
            assert tracemalloc.get_traced_memory()[1] < 100 * len(text)
            tracemalloc.stop()

    def test_a_larger_one_is_not_looked_at(self, verify):
        with pytest.raises(BundleError, match=rf"instead of {MOST_BYTES} at most"):
            verify(b" " * (MOST_BYTES + 1))
