"""The pages of the documentation as the tests see them: their blocks, and how to run these.

A page is run by the test that asks for it with `page`, or else by ``tests/test_docs_pages.py``.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from atldld.cli import main

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(
    r"^(?P<fence>`{3,}|:{3,})(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=fence)$", re.S | re.M
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    path: Path
    language: str
    text: str
    line: int

    def run(self, names: dict[str, Any]) -> None:
        """Run a block of Python; tracebacks name the line of the page."""
        code = compile("\n" * self.line + self.text, str(self.path), "exec")
        exec(code, names)


@dataclass(frozen=True)
class Page:
    """One page."""

    path: Path

    @property
    def name(self) -> str:
        """Its path below the root of the repository."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def text(self) -> str:
        """What it says."""
        return self.path.read_text(encoding="utf-8")

    def blocks(self, language: str | None = None) -> list[Block]:
        """Return its blocks, of one language or of all, in their order."""
        text = self.text
        found = [
            Block(
                self.path,
                match["info"].strip().split(" ")[0],
                match["body"],
                text.count("\n", 0, match.start("body")),
            )
            for match in _FENCE.finditer(text)
        ]
        return [block for block in found if language in (None, block.language)]

    def run_python(self, names: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run its blocks of Python one after the other, and return the names they leave."""
        names = {} if names is None else names
        for block in self.blocks("python"):
            block.run(names)
        return names

    def commands(self) -> list[str]:
        """Return the lines of its console blocks; one that ends with a backslash goes on."""
        lines = [block.text.replace("\\\n", " ") for block in self.blocks("console")]
        return [line for text in lines for line in text.splitlines() if line.strip()]


def page(name: str) -> Page:
    """Return a page by its path below the root, such as ``docs/bundles.md``."""
    return Page(ROOT / name)


def every_page() -> list[Page]:
    """Return all pages that people wrote."""
    generated = {ROOT / "docs" / "notebooks", ROOT / "docs" / "reference" / "generated"}
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    paths += sorted((ROOT / "docs").rglob("*.md"))
    return [Page(path) for path in paths if not generated & set(path.parents)]


def run_command(line: str) -> None:
    """Run a command of ``atldld``; hold any other one against what it names.

    What installs, measures for hours, or runs the tests is not run from within a test: that it
    names targets, extras, options and files that are there is what can be held here.
    """
    words = shlex.split(line)
    if words[0] == "atldld":
        done = CliRunner().invoke(main, words[1:])
        assert done.exit_code == 0, f"{line}\n{done.output}"
    elif words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in words[1:]:
            assert re.search(rf"^{re.escape(target)}:", makefile, re.M), line
    elif words[:2] == ["pip", "install"]:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for extra in re.findall(r"[\w-]+", "".join(re.findall(r"\[(.*?)\]", line))):
            assert extra in project["optional-dependencies"], line
    elif words[0] == ".venv/bin/pytest":
        for word in words[1:]:
            assert not word.startswith("tests/") or (ROOT / word).exists(), f"{line}: {word}"
    elif words[:2] == ["python", "-m"]:
        parts = words[2].split(".")
        package = ROOT.joinpath(*parts)
        assert package.is_dir() or package.with_suffix(".py").is_file(), line
    else:
        raise AssertionError(f"no test knows how to hold this command: {line}")
