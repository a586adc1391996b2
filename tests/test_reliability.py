"""Every test that the page of promises names is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text(encoding="utf-8"))))


@cache
def names_of(file):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {getattr(node, "name", None) for node in tree.body}


@pytest.mark.parametrize(("file", "name"), NAMED, ids=map("::".join, NAMED))
def test_what_the_page_names_is_there(file, name):
    assert name in names_of(file)


def test_it_names_some():
    assert len(NAMED) > 40
