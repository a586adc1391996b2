"""Tests hold promises through the public face; those few that lean on inner rooms say why."""

import ast
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FACE = {
    "__version__",
    "arrays.accessor",
    "arrays.engine",
    "cli.main",
    "errors",
    "model.dataset",
    "options.current",
    "options.set_options",
    "plot",
    "store.inventory.cache_stock",
    "store.inventory.clear_cache",
    "store.inventory.trim_cache",
    "store.inventory.verify_cache",
    "sync",
    "testing",
}
"""What users are told of beside the names of the package itself; all that lies below it too.

The record of a dataset is what a source of one's own returns, and what points can be asked of.
"""

PURE = {"model", "sampling"}
"""Rooms of pure functions: their own folders of tests hold each to its contract."""

_HTTP = "answers byte by byte: what the one client makes of each, before anybody reads a row"
_PARTS = "parts of xarray and dask that are private: fails first when they change"

LEANING: dict[str, str] = {
    "arrays/test_bent.py": "markers as a registration file gives them, before any image",
    "arrays/test_failures.py": "the file of what failed, which no user is told of, and its owner",
    "arrays/test_image.py": "the search for the dataset of an image ends at a service's last page",
    "arrays/test_internals.py": _PARTS,
    "arrays/test_published.py": "the parts of a published registration are cut by columns",
    "arrays/test_volume.py": "the reader of a volume is small when it travels",
    "arrays/test_windows.py": "what is believed of a service, and one whole image read by itself",
    "benchmarks/test_plain_warp.py": "the plain loop of the benchmarks against the warp itself",
    "cluster/test_kills.py": "which worker has a request under way, so as to kill that one",
    "cluster/test_machines.py": "the share of a machine: a pure function, asked on a cluster",
    "export/test_packing.py": "how many images wait, and a target that another one holds",
    "measure/test_grids.py": "MetaImage headers: pure parsing of hostile text",
    "measure/test_ontology.py": "the addresses of Allen's annotations",
    "measure/test_quantify.py": "sums of pixels: a pure function against a slow twin",
    "source/conftest.py": "makes reads for the tests of this room",
    "source/test_allen.py": "the URLs of reads, and a source as a value that travels",
    "source/test_bucket.py": "a bucket as a source, image by image against the slides",
    "source/test_catalogue.py": "a source described by tables",
    "source/test_http.py": _HTTP,
    "source/test_jpeg.py": "what makes bytes a JPEG, and its pixels: pure functions of bytes",
    "source/test_limit.py": "places among processes, held and freed without any request",
    "source/test_prefetch.py": "downloads ahead: order, number and threads, with a slow source",
    "source/test_rma.py": "the query language: text of queries, and pages of answers",
    "source/test_search.py": "terms of a search against rows: pure functions",
    "store/test_records.py": "the grammar of names in a store: pure functions of text",
    "store/test_single_flight.py": "one piece of work for a crowd of threads: a pure contract",
    "test_bundles_page.py": "the limits that the page tells are those that are kept",
    "test_frozen_values.py": "values of pure functions, frozen to the last bit",
    "test_options.py": "options as they travel with a task",
    "test_process.py": "a value for each process: a pure contract",
    "test_sync.py": "how many images are decoded ahead",
    "test_urls.py": "URLs and what is secret in them: pure functions of text",
}
"""The modules that lean on inner rooms, with what only can be held there."""


def nodes(code: str) -> Iterator[ast.AST]:
    """Yield what a module consists of, and the scripts that it holds as texts."""
    for node in ast.walk(ast.parse(code)):
        yield node
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
            with suppress(SyntaxError):
                yield from ast.walk(ast.parse(node.value))


def imported(path: Path) -> set[str]:
    """Return the names within the package that a module imports, below the package."""
    found = set()
    for node in nodes(path.read_text(encoding="utf-8")):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            base = node.module.split(".")
            found |= {".".join([*base, alias.name]) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("atldld.") for name in found if name.startswith("atldld.")}


def inner(path: Path) -> set[str]:
    """Return what a test module imports that no user is told of."""
    import atldld
    import atldld.export

    told_of = {*atldld.__all__, *(f"export.{name}" for name in atldld.export.__all__), "export"}
    rooms = {each.stem for each in Path(atldld.__file__).parent.iterdir()}
    room = path.relative_to(ROOT / "tests").parts[0]
    return {
        name
        for name in imported(path)
        if name.split(".")[0] in rooms
        and name not in told_of
        and not any(name == each or name.startswith(f"{each}.") for each in FACE)
        and not (room in PURE and name.split(".")[0] in PURE)
    }


MODULES = sorted((ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize(
    "path", MODULES, ids=lambda path: path.relative_to(ROOT / "tests").as_posix()
)
def test_only_those_named_lean_on_inner_rooms(path):
    leans = bool(inner(path))
    assert leans == (path.relative_to(ROOT / "tests").as_posix() in LEANING), inner(path)


def test_each_has_its_reason():
    assert all(len(reason) > 20 for reason in LEANING.values())
