"""What is in the wheel and in the source distribution, and what their metadata say."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import atldld

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
USER_EXTRAS = {"distributed", "export", "napari", "notebook", "plot", "progress", "s3"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build both without a network, in this environment."""
    folder = tmp_path_factory.mktemp("built")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        yield archive


@pytest.fixture(scope="module")
def source_names(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        return {name.split("/", 1)[1] for name in archive.getnames()}


def metadata(wheel):
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


def files_below(*folders):
    """Return the files of folders as far as they belong to the repository."""
    made = {"__pycache__", "notebooks", "generated"}
    return {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not (made & set(path.relative_to(ROOT / folder).parts))
    }


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert inside == {name.removeprefix("src/") for name in files_below("src")}
    assert "atldld/py.typed" in inside
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_the_wheel_has_its_command_and_its_engine(wheel):
    name = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    text = wheel.read(name).decode()
    assert "atldld = atldld.cli:main" in text
    assert "atldld = atldld.arrays.engine:AtldldBackend" in text


def test_the_source_distribution_holds_all_that_its_tests_read(source_names):
    wanted = files_below("src", "tests", "benchmarks", "docs", ".ci", ".github")
    wanted |= {
        "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md",
        "conftest.py", "pyproject.toml",
    }  # fmt: skip
    if (ROOT / "notebooks").is_dir():
        wanted |= files_below("notebooks")
    assert wanted <= source_names
    assert not {name for name in source_names if name.startswith(("build/", "docs/notebooks/"))}


def test_metadata(wheel):
    said = metadata(wheel)
    assert said["Name"] == "atldld"
    assert said["Version"] == atldld.__version__ == PROJECT["version"]
    assert said["License-Expression"] == "BSD-3-Clause"
    assert said["Requires-Python"] == ">=3.11"
    assert "Typing :: Typed" in said.get_all("Classifier")
    assert set(said.get_all("Provides-Extra")) >= USER_EXTRAS | {"all", "docs", "lint", "test"}


def test_all_has_what_each_extra_for_users_has(wheel):
    needs = {}
    for line in metadata(wheel).get_all("Requires-Dist"):
        if found := re.fullmatch(r"(.+?); extra == '(\w+)'", line):
            needs.setdefault(found[2], set()).add(found[1])
    for extra in USER_EXTRAS:
        assert needs[extra] <= needs["all"]


def test_the_citation_is_one_of_this_version():
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert said["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "license"} <= set(said)
    assert said["version"] == PROJECT["version"]
    assert said["license"] == PROJECT["license"]


def test_the_changelog_begins_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first = re.search(r"^## (\S+?),? ", text, re.M)
    assert first[1].rstrip(",") == PROJECT["version"]


def test_ci_runs_on_every_python_that_is_named():
    named = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert ci["jobs"]["ci"]["strategy"]["matrix"]["python"] == named
    assert {"run": ".ci/run"} in ci["jobs"]["ci"]["steps"]
