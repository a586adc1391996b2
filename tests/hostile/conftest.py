"""A small phantom, the rows that tell of it, and what may come of a hostile answer."""

from __future__ import annotations

import copy
import itertools
import json
import os
import warnings
from typing import Any

import numpy as np
import pytest

import atldld
from atldld.errors import AtldldError, AtldldWarning
from atldld.options import set_options
from atldld.testing import AllenServer, Fault, PhantomBrain, phantom_dataset

DATASET = 901
BRAIN = PhantomBrain(texture="smooth")


def small_phantom(dataset_id: int = DATASET, sections: int = 4, **options: Any) -> Any:
    """Return a phantom with images of a few hundred pixels a side."""
    settings = {"plane": "coronal", "resolution": 40, "seed": 1, "brain": BRAIN, **options}
    return phantom_dataset(dataset_id=dataset_id, sections=sections, **settings)


def envelope(rows: Any, **changes: Any) -> dict[str, Any]:
    """Return the service's answer to a query, as values for JSON."""
    count = len(rows) if isinstance(rows, list) else 1
    head = {"success": True, "id": 0, "start_row": 0, "num_rows": count, "total_rows": count}
    return {**head, "msg": rows, **changes}


def metadata(body: bytes, **options: Any) -> Fault:
    """Return the fault that answers each query with a body."""
    return Fault("body", request="metadata", body=body, content_type="application/json", **options)


def changed(value: Any, path: list[int], new: Any) -> Any:
    """Return a copy of rows in which what a path leads to is something else."""
    if not path or not isinstance(value, dict | list) or not value:
        return None if new is MISSING else new
    keys: Any = sorted(value) if isinstance(value, dict) else range(len(value))
    key = list(keys)[path[0] % len(keys)]
    out = copy.copy(value)
    if new is MISSING and (len(path) == 1 or not isinstance(value[key], dict | list)):
        del out[key]
    else:
        out[key] = changed(value[key], path[1:], new)
    return out


MISSING = object()


class Openings:
    """Opens what a server answers, and says what came of it."""

    def __init__(self, server: AllenServer, folder: Any) -> None:
        self.server = server
        self._folders = (folder / str(number) for number in itertools.count())

    def __call__(self, body: Any, **options: Any) -> Any:
        """Return the opened Dataset, or the error, which is one of ours."""
        self.server.clear_faults()
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.server.add_fault(metadata(text))
        return self.outcome(**options)

    def outcome(self, **options: Any) -> Any:
        options = {"resolution": 500, "source": self.server.url, **options}
        with (
            set_options(cache_dir=next(self._folders), retries=0, timeout=20),
            warnings.catch_warnings(record=True) as said,
        ):
            warnings.simplefilter("always")
            try:
                found: Any = atldld.open_dataset(DATASET, **options)
                sound(found)
            except AtldldError as error:
                found = error
        strange = [str(each.message) for each in said if each.category is not AtldldWarning]
        assert not strange
        words = [str(each.message) for each in said]
        words += [str(found)] if isinstance(found, AtldldError) else []
        assert all(len(text) < 5000 for text in words)
        return found


def sound(dataset: Any) -> None:
    """Hold a Dataset against what every one of them must be."""
    sections = dataset.sizes["section"]
    assert sections >= 1
    for name in ("section", "image_id", "tier", "microns_per_pixel", "p", "i", "r", "x", "y"):
        values = dataset[name].values
        assert np.isfinite(values).all(), name
    along = next(axis for axis in "pir" if dataset[axis].dims == ("section",))
    assert (np.diff(dataset[along].values) > 0).all()
    assert (dataset.image_id.values >= 0).all()
    for value in dataset.attrs.values():
        assert isinstance(value, str | int | float)
        if isinstance(value, str):
            assert value.isprintable()
            assert len(value) < 2000
    corner = {dim: slice(0, 3) for dim in ("section", "y", "x")}
    covered = dataset.covered.isel(corner).compute()
    assert covered.dtype == bool
    repr(dataset)


@pytest.fixture(scope="package")
def server() -> Any:
    with AllenServer([small_phantom()]) as running:
        yield running


@pytest.fixture(scope="package")
def opening(server: AllenServer, tmp_path_factory: pytest.TempPathFactory) -> Openings:
    return Openings(server, tmp_path_factory.mktemp("caches"))


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, server: AllenServer) -> Any:
    for name in list(os.environ):
        if name.startswith("ATLDLD_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    server.clear_faults()
    yield
    server.clear_faults()
