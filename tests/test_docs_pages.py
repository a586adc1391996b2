"""Every block of every page runs: here, or in a test of the page's own."""

from __future__ import annotations

import inspect
import re
import runpy
import tomllib
from importlib import import_module

import matplotlib as mpl
import pytest

import atldld
from atldld.testing import AllenServer, phantom_dataset
from pages import ROOT, every_page, page, run_command
from usual import usual

SHOWN = {"text", "json", "bibtex", ""}
"""Languages of blocks that are there to be read; the directives of the site are in braces."""

USES = {"python": r"run_python\(|blocks\(\"python\"\)", "console": r"\.commands\(\)"}


def claims() -> dict[tuple[str, str], str]:
    """Return which test module runs which language of which page."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"\bpage\(\"([^\"]+)\"\)", text):
            for language, uses in USES.items():
                if re.search(uses, text):
                    found[name, language] = path.relative_to(ROOT).as_posix()
    return found


def unclaimed(language: str) -> list[str]:
    taken = claims()
    names = [each.name for each in every_page() if each.blocks(language)]
    return [name for name in names if (name, language) not in taken]


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Serve the dataset that the pages name, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    prox1 = phantom_dataset(
        69289763,
        "sagittal",
        gene="Prox1",
        tilt=1,
        sections=18,
        resolution=8,
        tier_count=7,
        first_image_id=69177653,
    )
    with AllenServer([prox1]) as server, atldld.set_options(api_url=server.url):
        yield server
    # Imported late: pyplot takes long, and most pages draw nothing.
    from matplotlib import pyplot as plt

    plt.close("all")


@pytest.mark.parametrize(
    "name", usual(unclaimed("python"), {*unclaimed("python")} - {"docs/dask.md"})
)
def test_python_blocks_run(name, served):
    page(name).run_python()


@pytest.mark.parametrize("name", unclaimed("console"))
def test_commands_run(name, served):
    for line in page(name).commands():
        run_command(line)


@pytest.mark.parametrize("each", every_page(), ids=lambda each: each.name)
def test_every_block_is_one_that_is_run_or_shown(each):
    languages = {block.language for block in each.blocks()}
    unknown = {name for name in languages - SHOWN - set(USES) if not re.match(r"\{.+\}", name)}
    assert not unknown, f"{each.name}: blocks of {unknown} would not be run by any test"
    assert len(re.findall(r"^(?:```|:::)", each.text, re.M)) == 2 * len(each.blocks())


def test_pages_that_tests_name_are_there():
    for name, _ in claims():
        assert page(name).path.is_file(), name


@pytest.mark.parametrize("each", every_page(), ids=lambda each: each.name)
def test_links_lead_somewhere(each):
    for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", each.text):
        if not re.match(r"https?://", target):
            generated = "notebooks/" in target and target.endswith(".ipynb")
            where = each.path.parent / target
            where = ROOT / "notebooks" / where.name if generated else where
            assert where.exists(), f"{each.name} leads to {target}, which is not there"


def test_nothing_tells_to_install_an_extra_of_the_name_on_the_index():
    # The package index has another package of that name.
    texts = [*ROOT.glob("src/atldld/**/*.py"), *ROOT.glob("notebooks/*.ipynb")]
    for path in [*texts, *(each.path for each in every_page())]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"pip install ['\"]?atldld|atldld\[\w", text), path


def test_one_page_lists_every_option_and_every_extra():
    text = page("docs/options.md").text
    listed = re.findall(r"^\| `(\w+)` \| `(ATLDLD_\w+)` \|", text, re.M)
    assert {name for name, _ in listed} == set(inspect.signature(atldld.set_options).parameters)
    assert all(variable == f"ATLDLD_{name.upper()}" for name, variable in listed)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(project["optional-dependencies"]) - {"docs", "lint", "test"}
    rows = text.partition("| name | brings | for |")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", rows, re.M)) == extras


@pytest.mark.parametrize("module", ["atldld", "atldld.plot", "atldld.sync", "atldld.testing"])
def test_the_reference_has_every_public_name(module):
    text = page("docs/reference/index.md").text
    listed = re.findall(r"^   ([\w.]+)$", text, re.M)
    assert set(import_module(module).__all__) <= {name.split(".")[-1] for name in listed}


def test_the_drawings_can_be_made(tmp_path):
    runpy.run_path(str(ROOT / "docs" / "drawings.py"))["draw"](tmp_path)
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {path.name for path in (ROOT / "docs" / "images").glob("concept-*")}
    concepts = page("docs/concepts.md").text
    assert all(f"(images/{name})" in concepts for name in made)
