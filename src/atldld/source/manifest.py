"""What a bundle says about itself: its manifest, read strictly, for it may be forged."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .bundle_files import MOST_FILES, FileEntry, PackedImage, believable_bytes

FORMAT: Final = "atldld bundle"
VERSION: Final = 1
MANIFEST: Final = "manifest.json"

MANIFEST_BYTES: Final = 8 * 2**20
_LONGEST_TEXT: Final = 10_000

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_KEY: Final = re.compile(r"[a-z_]{1,40}")


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """What a bundle says about itself.

    Parameters
    ----------
    dataset_id
        The one dataset that it holds.
    service
        Base URL of the service that the data came from, without credentials.
    asked
        What was packed: the options of each packing, as plain JSON objects.
    files
        Every file but the manifest, by name.
    remembered
        What was found out about the service, by key; see `KeepingSource.recall`.
    failed
        Images that were asked for and could not be had, by name, with the reason.
    citation
        How to cite the data, and the terms of their use.
    atldld_version
        Version of the package that packed it.
    packed_on
        The day, as ``2026-11-22``.
    """

    dataset_id: int
    service: str
    asked: tuple[Mapping[str, Any], ...] = ()
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    remembered: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    citation: str = ""
    atldld_version: str = ""
    packed_on: str = ""

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """Return the manifest that a text holds.

        Raises
        ------
        ValueError
            If it is not one; the message says why, and stays short.
        """
        top = _Fields(strict_json(text, MANIFEST_BYTES), "it")
        if top.text("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT!r}")
        version = top.whole("version")
        if version != VERSION:
            raise ValueError(f"its version is {version}; this package reads version {VERSION}")
        dataset_id = top.whole("dataset_id")
        return cls(
            dataset_id=dataset_id,
            service=top.text("service"),
            asked=tuple(top.objects("asked")),
            files=_files(top.mapping("files"), dataset_id),
            remembered=_texts(top.mapping("remembered"), "remembered", _key_fault),
            failed=_texts(top.mapping("failed"), "failed", _image_fault),
            citation=top.text("citation"),
            atldld_version=top.text("atldld_version"),
            packed_on=top.text("packed_on"),
        )

    def to_json(self) -> bytes:
        """Return the text of the manifest.

        Raises
        ------
        ValueError
            If it is larger than can be read back.
        """
        fields = {
            "format": FORMAT,
            "version": VERSION,
            "atldld_version": self.atldld_version,
            "packed_on": self.packed_on,
            "dataset_id": self.dataset_id,
            "service": self.service,
            "citation": self.citation,
            "asked": list(self.asked),
            "remembered": dict(self.remembered),
            "failed": dict(self.failed),
            "files": {
                name: {"size": entry.size, "sha256": entry.sha256}
                for name, entry in sorted(self.files.items())
            },
        }
        text = json.dumps(fields, indent=1, allow_nan=False).encode()
        if len(text) > MANIFEST_BYTES or len(self.files) > MOST_FILES:
            raise ValueError(
                f"{len(self.files)} files are too many for one bundle (at most {MOST_FILES}); pack "
                "fewer tiers or views, or a smaller region"
            )
        return text


def strict_json(text: bytes, most: int) -> Any:
    """Return what a JSON text holds, read strictly.

    UTF-8, no key twice, no NaN or infinity, no nesting that exhausts the stack.

    Raises
    ------
    ValueError
        If it is not that, or has more than `most` bytes.

    Examples
    --------
    >>> strict_json(b'{"a": 1, "a": 2}', 100)
    Traceback (most recent call last):
        ...
    ValueError: it has the key 'a' twice
    """
    if len(text) > most:
        raise ValueError(f"it has more than {most} bytes")
    try:
        return json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_each_once,
            parse_constant=_refused,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise ValueError("it is not JSON") from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"it has the key {_shown(twice)} twice")
    return found


def _refused(constant: str) -> Any:
    raise ValueError(f"it has the number {constant}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("it has a number that is too large")
    return number


def _files(entries: Mapping[str, Any], dataset_id: int) -> dict[str, FileEntry]:
    if len(entries) > MOST_FILES:
        raise ValueError(f"it lists more than {MOST_FILES} files")
    files = {}
    for name, value in entries.items():
        try:
            most = believable_bytes(name, dataset_id)
        except ValueError as error:
            raise ValueError(f"it lists a file {_shown(name)}: {error}") from None
        fields = _Fields(value, f"the entry of {_shown(name)}")
        size, digest = fields.whole("size"), fields.text("sha256")
        if size > most:
            raise ValueError(f"{_shown(name)} is said to have {size} bytes; {most} are believable")
        if not _SHA256.fullmatch(digest):
            raise ValueError(f"{_shown(name)} has no SHA-256")
        files[name] = FileEntry(size, digest)
    return files


def _texts(
    entries: Mapping[str, Any], where: str, fault_of: Callable[[str], str | None]
) -> dict[str, str]:
    if len(entries) > MOST_FILES:
        raise ValueError(f"{where} has more than {MOST_FILES} entries")
    for key, value in entries.items():
        fault = fault_of(key)
        if fault is not None:
            raise ValueError(f"{where} has an entry {_shown(key)}: {fault}")
        if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
            raise ValueError(f"{where} {_shown(key)} is {_shown(value)}; it must be a short text")
    return dict(entries)


def _key_fault(key: str) -> str | None:
    return None if _KEY.fullmatch(key) else "it must be a word of small letters"


def _image_fault(name: str) -> str | None:
    return None if PackedImage.of_name(name) is not None else "it is not the name of an image"


@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields of an object from a stranger."""

    value: Any
    owner: str

    def _field(self, name: str) -> Any:
        if not isinstance(self.value, dict):
            raise ValueError(f"{self.owner} is {_shown(self.value)}; it must be an object")
        if name not in self.value:
            raise ValueError(f"{self.owner} has no {name}")
        return self.value[name]

    def text(self, name: str) -> str:
        value = self._field(name)
        if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
            raise ValueError(f"{self.owner}: {name} is {_shown(value)}; it must be a short text")
        return value

    def whole(self, name: str) -> int:
        value = self._field(name)
        if type(value) is not int or not 0 <= value < 2**63:
            raise ValueError(f"{self.owner}: {name} is {_shown(value)}; it must be a whole number")
        return value

    def mapping(self, name: str) -> Mapping[str, Any]:
        value = self._field(name)
        if not isinstance(value, dict):
            raise ValueError(f"{self.owner}: {name} is {_shown(value)}; it must be an object")
        return value

    def objects(self, name: str) -> list[Mapping[str, Any]]:
        value = self._field(name)
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise ValueError(f"{self.owner}: {name} is {_shown(value)}; it must be a list")
        return value


def _shown(value: Any) -> str:
    """Return how a foreign value reads in a message, which stays short whatever it is."""
    text = repr(value[:100]) if isinstance(value, str) else type(value).__name__
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = repr(value) if abs(value) < 10**30 else "a number that is too large"
    return text
