"""The page is written from the latest results, and never by hand."""

import json

from benchmarks.__main__ import ATLAS, LATEST, PAGE, PEAKS, PUBLISHED, README
from benchmarks.page import in_readme, page


def test_the_page_is_what_the_latest_results_say():
    latest = json.loads(LATEST.read_text(encoding="utf-8"))
    of_atlas = json.loads(ATLAS.read_text(encoding="utf-8"))
    of_published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    first = json.loads(PEAKS.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(latest, first, of_atlas, of_published)


def test_the_table_of_the_readme_is_what_the_latest_results_say():
    latest = json.loads(LATEST.read_text(encoding="utf-8"))
    readme = README.read_text(encoding="utf-8")
    assert in_readme(readme, latest) == readme
    assert "| figure | measured |" in readme
