"""The files of a catalogue: what they are called, how they are checked, read and written.

Whatever ends a build, the next one goes on behind the last file that was written: each is written
whole elsewhere and moved into place, the manifest last.
"""

from __future__ import annotations

import hashlib
import io
import re
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import BundleError
from ..process import PerProcess
from ..store.files import FileFaultError, Files, Location, locked

if TYPE_CHECKING:
    import os

    import pyarrow as pa

MANIFEST: Final = "manifest.json"
BUILDING: Final = "building.json"
FORMAT: Final = 1
MOST_DATASETS: Final = 1_000_000
MOST_IMAGES_A_BLOCK: Final = 1_000_000
_LARGEST_MANIFEST: Final = 2**23
_LARGEST_FILE: Final = 2**28
_LARGEST_TABLE: Final = 2**30
"""Bytes of a Parquet file, and of the table that it says it holds."""

_BUILD: Final = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{8}")
_Count = Field(ge=0, le=2**40)


class TableFile(BaseModel):
    """A table that the manifest lists."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int = _Count
    size: int = Field(ge=0, le=_LARGEST_FILE)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class TableBlock(TableFile):
    """The section images of some neighbouring datasets."""

    first: int = _Count
    """The lowest id of a dataset whose images it holds."""


class BuildState(BaseModel):
    """What a build was asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1]
    build: str = Field(pattern=r"^[0-9]{8}T[0-9]{6}-[0-9a-f]{8}$")
    service: str = Field(max_length=2000)
    date: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
    products: tuple[int, ...] | None = Field(default=None, max_length=1000)
    promised: int | None = Field(default=None, ge=0)
    pages: int | None = Field(default=None, ge=0, le=MOST_DATASETS)
    """How many pages there were, once all have come."""


class CatalogueManifest(BuildState):
    """What a finished build holds."""

    datasets: TableFile
    blocks: tuple[TableBlock, ...] | None = Field(default=None, max_length=MOST_DATASETS)
    images: bool = False


def block_name(place: int) -> str:
    """Return the name of the table of images of a block."""
    return f"images-{place:04d}.parquet"


def count_name(place: int) -> str:
    """Return the name of the table that counts the images of a block."""
    return f"counts-{place:04d}.parquet"


def count_schema() -> pa.Schema:
    """Return the columns of a table that counts images."""
    import pyarrow as pa

    return pa.schema([("dataset_id", pa.int64()), ("sections", pa.int64())])


def parquet_of(table: pa.Table) -> bytes:
    """Return a table as a Parquet file."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table.combine_chunks(), buffer, compression="zstd")
    return buffer.getvalue()


def file_of(content: bytes, rows: int) -> TableFile:
    """Return what the manifest says of a table."""
    return TableFile(rows=rows, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def dumped(model: BaseModel) -> bytes:
    """Return a record as JSON."""
    return model.model_dump_json(indent=1).encode()


def table_of(content: bytes, schema: pa.Schema, name: str, most_rows: int) -> pa.Table:
    """Return the table of a Parquet file whose columns and sizes are as they should be.

    Raises
    ------
    BundleError
        If they are not; before anything is unpacked.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(io.BytesIO(content), thrift_string_size_limit=2**22)
        same = file.schema_arrow.remove_metadata().equals(schema)
        meta = file.metadata
        groups = [meta.row_group(k).total_byte_size for k in range(min(meta.num_row_groups, 1000))]
        if not same or not 0 <= meta.num_rows <= most_rows or meta.num_row_groups > 1000:
            raise BundleError(f"{name} does not hold the columns or rows of a catalogue")
        if sum(groups) > _LARGEST_TABLE:
            raise BundleError(f"{name} says that it holds {sum(groups)} bytes, more than it may")
        return file.read(use_threads=False).combine_chunks()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BundleError(f"{name} is damaged: {error}") from error


@dataclass(frozen=True, slots=True)
class CatalogueFolder:
    """The folder of a catalogue, wherever fsspec finds it."""

    location: Location

    @classmethod
    def of(cls, where: str | os.PathLike[str]) -> CatalogueFolder:
        """Return the folder that a user named."""
        return cls(Location.of(where))

    @property
    def where(self) -> str:
        """Its path or URL."""
        return self.location.text

    @property
    def files(self) -> Files:
        """Its files."""
        return Files(self.location)

    def read(self, name: str, most: int = _LARGEST_FILE) -> bytes | None:
        """Return the content of a file, or None where there is none.

        Raises
        ------
        BundleError
            If it cannot be read, or is larger than it may be.
        """
        try:
            return self.files.read(name, most)
        except FileFaultError as error:
            if error.missing:
                return None
            raise BundleError(f"{name} of {self.location.name}: {error.reason}") from error

    def sound(self, name: str, file: TableFile) -> bytes:
        """Return the content of a file that is as the manifest says."""
        content = self.read(name)
        if (
            content is None
            or len(content) != file.size
            or hashlib.sha256(content).hexdigest() != file.sha256
        ):
            raise BundleError(f"{name} of the catalogue {self.location.name} is missing or damaged")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        try:
            self.files.write(name, content)
        except FileFaultError as error:
            raise BundleError(
                f"{name} cannot be written to {self.location.name}: {error.reason}"
            ) from error
        if name == MANIFEST:
            _manifests.value.forget(self)

    def kept(self, name: str, schema: pa.Schema) -> tuple[bytes, pa.Table] | None:
        """Return a sound table that an earlier build left, its file's bytes first, or None."""
        try:
            content = self.read(name)
            if content is None:
                return None
            return content, table_of(content, schema, name, MOST_DATASETS)
        except BundleError:
            return None

    def manifest(self) -> CatalogueManifest | None:
        """Return the manifest, or None where there is none.

        Raises
        ------
        BundleError
            If it is damaged.
        """
        return _manifests.value.manifest(self)

    def state(self) -> BuildState | None:
        """Return what is under way, or None."""
        try:
            content = self.read(BUILDING, _LARGEST_MANIFEST)
            return None if content is None else BuildState.model_validate_json(content)
        except (BundleError, ValidationError):
            return None

    def checked(self) -> tuple[int, int, dict[str, str]]:
        """Hold every table against the manifest.

        Returns
        -------
        files, bytes
            How many are as they should be.
        faults
            Names of the others, and what is wrong.
        """
        try:
            manifest = self.manifest()
        except BundleError as error:
            return 0, 0, {MANIFEST: str(error)}
        if manifest is None:
            return 0, 0, {}
        named = {"datasets.parquet": manifest.datasets}
        if manifest.images:
            named |= {block_name(place): each for place, each in enumerate(manifest.blocks or ())}
        files, size, faults = 0, 0, {}
        for name, file in named.items():
            try:
                size += len(self.sound(f"{manifest.build}/{name}", file))
                files += 1
            except BundleError as error:
                faults[f"{manifest.build}/{name}"] = str(error)
        return files, size, faults

    def locked(self) -> AbstractContextManager[Any]:
        """Hold the folder against other builds on this machine, for the time of the block."""
        path = self.location.path
        return nullcontext() if path is None else locked(path / ".lock", -1.0)

    def tidy(self, build: str, images: bool) -> None:
        """Remove what a finished build does not need."""
        for name in list(self.files.names()):
            folder, _, file = name.rpartition("/")
            spare = file.startswith("page-") or (images and file.startswith("counts-"))
            if name == BUILDING or (_BUILD.fullmatch(folder) and (folder != build or spare)):
                self.files.remove(name)


class _Manifests:
    """The manifests that were read in this process, by where they are."""

    def __init__(self) -> None:
        self._manifests: dict[str, tuple[Any, CatalogueManifest | None]] = {}

    def forget(self, folder: CatalogueFolder) -> None:
        self._manifests.pop(folder.where, None)

    def manifest(self, folder: CatalogueFolder) -> CatalogueManifest | None:
        stamp: Any = None
        path = folder.location.path
        if path is not None:
            try:
                told = (path / MANIFEST).stat()
                stamp = told.st_mtime_ns, told.st_size, told.st_ino
            except OSError:
                return None
        known = self._manifests.get(folder.where)
        if known is not None and stamp is not None and known[0] == stamp:
            return known[1]
        if known is not None and stamp is None and time.monotonic() < known[0]:
            return known[1]
        content = folder.read(MANIFEST, _LARGEST_MANIFEST)
        manifest = None
        if content is not None:
            try:
                manifest = CatalogueManifest.model_validate_json(content)
            except ValidationError as error:
                raise BundleError(
                    f"{MANIFEST} of {folder.location.name} is not that of a catalogue "
                    f"that this version reads: {error.errors()[0]['msg']}"
                ) from error
        # Elsewhere nobody tells whether it was replaced; a minute is short enough.
        self._manifests[folder.where] = (stamp or time.monotonic() + 60.0, manifest)
        return manifest


_manifests = PerProcess(_Manifests)
