"""Tests hold promises through the public face; those few that lean on inner rooms say why."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FACE = {
    "__version__",
    "arrays.accessor.AtlasAccessor",
    "arrays.engine",
    "cli.main",
    "errors",
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
"""What users are told of beside the names of the package itself; all that lies below it too."""

PURE = {"model", "sampling"}
"""Rooms of pure functions: their own folders of tests hold each to its contract."""

LEANING: dict[str, str] = {
}
"""The modules that lean on inner rooms, with what only can be held there."""


def imported(path: Path) -> set[str]:
    """Return the names within the package that a module imports, below the package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            base = node.module.split(".")
            found |= {".".join([*base, alias.name]) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("atldld.") for name in found if name.startswith("atldld.")}


def inner(path: Path) -> set[str]:
    """Return what a test module imports that no user is told of."""
    import atldld

    room = path.relative_to(ROOT / "tests").parts[0]
    return {
        name
        for name in imported(path)
        if name not in atldld.__all__
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
