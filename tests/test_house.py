"""Imports point one way, and the package is cheap to import."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import atldld

SOURCE = Path(atldld.__file__).parent

FACES = {"sync", "cli", "plot", "export", "measure"}
ROOMS = {
    "errors": set(),
    "urls": set(),
    "process": set(),
    "options": {"process"},
    "model": {"errors"},
    "sampling": {"model", "errors"},
    "store": {"model", "errors", "urls", "process", "options"},
    "source": {"store", "model", "errors", "urls", "process", "options"},
    "reading": {"sampling", "source", "store", "model", "errors", "urls", "process", "options"},
    "arrays": {"reading", "sampling", "source", "model", "errors", "options"},
    "testing": set(),
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
            "process",
            "options",
        }
        | ({"testing", "export"} if face == "cli" else set())
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


def imported(path, *, root=SOURCE):
    """Yield each name that a module imports from the package, wherever in the module."""
    package = ["atldld", *path.relative_to(root).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            inside = [*base, *filter(None, (node.module or "").split("."))]
            targets = [[*inside, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        else:
            continue
        yield from (target for target in targets if target[0] == "atldld")


def imported_rooms(path):
    """Yield the rooms of this package that a module imports from."""
    for target in imported(path):
        if len(target) > 1 and target[1] in ROOMS:
            yield target[1]


def imported_modules(path, *, root=SOURCE):
    """Yield the modules of this package that a module imports from, as paths."""
    for _, *names in imported(path, root=root):
        for length in range(len(names), -1, -1):
            place = root.joinpath(*names[:length])
            found = place.with_suffix(".py") if length else root / "__init__.py"
            found = found if found.is_file() else place / "__init__.py"
            if found.is_file():
                yield found.relative_to(root).as_posix()
                break


def loop_of_imports(root, names):
    """Return a loop of imports among some modules, or None."""
    graph = {name: {*imported_modules(root / name, root=root)} & {*names} for name in names}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


@pytest.mark.parametrize("name", [name for name in modules() if name != "__init__.py"])
def test_imports_point_one_way(name):
    room = name.split("/")[0].removesuffix(".py")
    allowed = ROOMS[room] | {room}
    if name == DOOR:
        allowed |= FACES
    assert set(imported_rooms(SOURCE / name)) <= allowed


def test_there_is_no_loop_of_imports():
    # The package itself hands out its public names when they are asked for.
    assert loop_of_imports(SOURCE, [name for name in modules() if name != "__init__.py"]) is None


@pytest.mark.parametrize(
    "second",
    [
        "from .first import one",
        "from . import first",
        "import atldld.room.first",
        "def late():\n    from .first import one",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from atldld.room import first",
    ],
)
def test_a_loop_of_imports_is_found(tmp_path, second):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "first.py").write_text("from .second import two")
    (tmp_path / "room" / "second.py").write_text(second)
    loop = loop_of_imports(tmp_path, ["room/first.py", "room/second.py"])
    assert set(loop) == {"room/first.py", "room/second.py"}
    (tmp_path / "room" / "second.py").write_text("import json")
    assert loop_of_imports(tmp_path, ["room/first.py", "room/second.py"]) is None


def test_modules_of_the_stand_in_have_names_of_their_own():
    names = [Path(name).stem for name in modules()]
    inside = {Path(name).stem for name in modules() if name.startswith("testing/")}
    assert {name for name in inside if names.count(name) > 1} == {"__init__"}


def test_every_room_has_its_rule():
    rooms = {name.split("/")[0].removesuffix(".py") for name in modules()} - {"__init__"}
    assert rooms <= set(ROOMS)


def test_one_name_is_one_module_and_one_class():
    names = [
        (name, Path(name).stem)
        for name in modules()
        if not name.startswith("testing/") and Path(name).stem not in ("__init__", "__main__")
    ]
    homes = {}
    for name, stem in names:
        homes.setdefault(stem, []).append(name)
        for node in ast.walk(ast.parse((SOURCE / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(name)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


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


EVALUATING = {"cloudpickle", "eval", "exec", "extractall", "marshal", "pickle", "shelve"}


@pytest.mark.parametrize("name", [name for name in modules() if not name.startswith("testing/")])
def test_nothing_that_was_read_is_run(name):
    """No bytes from elsewhere are unpickled, evaluated, or unpacked to where they say."""
    tree = ast.parse((SOURCE / name).read_text(encoding="utf-8"))
    words = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    words |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    words |= {node.name for node in ast.walk(tree) if isinstance(node, ast.alias)}
    assert not words & EVALUATING
