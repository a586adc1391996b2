"""Imports point one way, and the package is cheap to import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import atldld

SOURCE = Path(atldld.__file__).parent

FACES = {"sync", "cli", "plot", "export", "measure", "packing"}
ROOMS = {
    "errors": set(),
    "urls": set(),
    "forking": set(),
    "cancel": {"forking"},
    "options": {"forking"},
    "model": {"errors"},
    "sampling": {"model", "errors"},
    "store": {"model", "errors", "urls", "cancel", "forking", "options"},
    "source": {"store", "model", "errors", "urls", "cancel", "forking", "options"},
    "reading": {"sampling", "source", "model", "errors", "urls", "forking", "options"},
    "arrays": {"reading", "sampling", "source", "model", "errors", "options"},
    "testing": {"errors"},
    **{
        face: {
            "arrays",
            "reading",
            "sampling",
            "source",
            "store",
            "model",
            "errors",
            "urls",
            "forking",
            "options",
        }
        | ({"testing", "packing"} if face == "cli" else set())
        for face in FACES
    },
}
"""What each room may import from; the public names of the package itself are free to faces."""

DOOR = "arrays/accessor.py"
"""The accessor hands on to faces, inside its methods: what users find on an array."""

HEAVY = (
    "dask.array", "cv2", "requests", "urllib3", "fsspec", "pydantic", "filelock", "simplejpeg",
    "matplotlib", "distributed",
)  # fmt: skip


def modules():
    return sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))


def imported_rooms(path):
    """Yield the rooms of this package that a module imports from, wherever in the module."""
    inside = path.relative_to(SOURCE).parts
    package = ["atldld", *inside[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names = [*base, *(node.module or "").split(".")]
            names = [name for name in names if name]
            targets = [names] if len(names) > 1 else [[*names, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        else:
            continue
        for target in targets:
            if target[0] == "atldld" and len(target) > 1 and target[1] in ROOMS:
                yield target[1]


@pytest.mark.parametrize("name", [name for name in modules() if name != "__init__.py"])
def test_imports_point_one_way(name):
    room = name.split("/")[0].removesuffix(".py")
    allowed = ROOMS[room] | {room}
    if name == DOOR:
        allowed |= FACES
    assert set(imported_rooms(SOURCE / name)) <= allowed


def test_every_room_has_its_rule():
    rooms = {name.split("/")[0].removesuffix(".py") for name in modules()} - {"__init__"}
    assert rooms <= set(ROOMS)


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, atldld; print(*(name for name in sys.argv[1:] if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_public_names_are_there():
    for name in atldld.__all__:
        assert getattr(atldld, name).__doc__
    assert set(atldld.__all__) <= set(dir(atldld))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = atldld.nothing
