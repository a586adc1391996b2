"""The doctor's answers are what the stand-in was told to be, in each variant of its doubts."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import usual as cases
from atldld.cli import main
from atldld.options import current
from atldld.testing import AllenServer, Doubts, Fault, phantom_dataset

DATASET, ON_SLIDES = 69289763, 100055044
"""Two public datasets that are asked about by default, the second with shared slides."""

RECORDED, RECORDED_IMAGE = 100055064, 101082698
"""A dataset and an image whose place was recorded years ago."""

ID = 611
PHANTOM = phantom_dataset(
    dataset_id=ID, plane="sagittal", sections=60, resolution=12, slides=6, seed=3, gaps=1
)


def run(*words: object) -> Result:
    """Return what the command line says of the words after ``doctor``."""
    return CliRunner().invoke(main, ["doctor", *map(str, words)])


def examined(*words: object) -> dict[str, dict[str, str]]:
    """Return the findings by question."""
    done = run(*words, "--json")
    assert done.exit_code in (0, 1), done.output
    return {one["question"]: one for one in json.loads(done.output)["findings"]}


def ask(doubts: Doubts | None = None, phantom: object = PHANTOM) -> dict[str, str]:
    """Return the findings about a stand-in, by question."""
    with AllenServer([phantom], doubts=doubts) as server:
        found = examined(server.url, "--dataset", ID)
        assert not server.errors
        assert len(server.requests) < 80
    return {question: one["answer"] for question, one in found.items()}


@pytest.fixture(scope="module")
def usual():
    return ask()


USUAL = {
    "reachable": "yes",
    "rows per page, default": "50",
    "rows per page, most": "at least 60",
    "unknown dataset": "no rows",
    "bad query": "200, JSON",
    "unknown image": "404, text",
    "image_to_reference, unknown image": "200, JSON",
    "missing alignment": "",
    "image_to_reference": "agrees",
    "size of a tier": "floor",
    "content type of images": "image/jpeg",
    "redirects of images": "yes",
    "window sizes": "tier",
    "window sizes, downsample_dimensions=false": "tier",
    "window sizes, downsample_dimensions=true": "full",
    "window past the slide": "padded",
    "tier past the last": "last tier",
    "missing expression": "",
    "grey expression masks": "both",
    "windows show the place asked for": "yes",
    "tier origin": "slide",
}


def test_the_likelier_reading(usual):
    assert usual == USUAL


@pytest.mark.parametrize(
    ("doubts", "changed"),
    [
        ({"window_sizes": "full"}, {"window sizes": "full"}),
        (
            {"downsample_dimensions": "inverted"},
            {
                "window sizes, downsample_dimensions=false": "full",
                "window sizes, downsample_dimensions=true": "tier",
                "window past the slide": "cut",
            },
        ),
        (
            {"downsample_dimensions": "ignored"},
            {"window sizes, downsample_dimensions=true": "tier"},
        ),
        (
            {"downsample_dimensions": "ignored", "window_sizes": "full"},
            {
                "window sizes": "full",
                "window sizes, downsample_dimensions=false": "full",
                "window past the slide": "cut",
            },
        ),
        ({"tier_origin": "exact"}, {"tier origin": "section"}),
        ({"pixel_centre": "corner"}, {}),
        ({"outside": "clip"}, {"window past the slide": "cut"}),
        ({"beyond_tiers": "404"}, {"tier past the last": "404, text"}),
        ({"grey_mask": "filter"}, {"grey expression masks": "filter"}),
        ({"grey_mask": "colormap"}, {"grey expression masks": "colormap"}),
        ({"grey_mask": "neither"}, {"grey expression masks": "neither"}),
        ({"redirects": False}, {"redirects of images": "no"}),
        ({"content_type": "application/x"}, {"content type of images": "application/x"}),
        ({"rma_error_status": 400}, {"bad query": "400, JSON"}),
        ({"sync_error_status": 500}, {"image_to_reference, unknown image": "500, JSON"}),
        ({"default_rows": 25}, {"rows per page, default": "25"}),
        ({"max_rows": 20}, {"rows per page, default": "20", "rows per page, most": "20"}),
        ({"all_rows": "uncapped"}, {}),
        ({"row_order": "scrambled"}, {}),
        ({"unaligned": "null"}, {}),
    ],
    ids=str,
)
def test_each_other_reading_changes_its_answer_and_no_other(doubts, changed):
    assert ask(Doubts(**doubts)) == USUAL | changed


def lacking(row: dict) -> None:
    """Take the alignment from one image, and the expression mask from another."""
    row["section_images"][0]["alignment2d"] = None
    row["section_images"][1]["expression_path"] = None


@pytest.mark.parametrize("alignment", ["null", "absent"])
@pytest.mark.parametrize(
    ("expression", "form"), [("404", "404, text"), ("html", "200, an HTML page")]
)
def test_what_is_missing(alignment, expression, form):
    doubts = Doubts(missing_alignment=alignment, missing_expression=expression)
    found = ask(doubts, PHANTOM.altered(lacking))
    assert found["missing alignment"] == alignment
    assert found["missing expression"] == form


def test_the_well_known_datasets_are_asked_by_default():
    """Phantoms under their public ids; the recorded answer is not theirs, and that is seen."""
    phantoms = [
        phantom_dataset(dataset_id=number, sections=4, resolution=30, slides=slides, seed=4)
        for number, slides in ((DATASET, False), (ON_SLIDES, 2))
    ]
    recorded = phantom_dataset(dataset_id=RECORDED, sections=2, first_image_id=RECORDED_IMAGE)
    with AllenServer([*phantoms, recorded]) as server:
        found = examined(server.url)
    assert found["reachable"]["detail"].count(str(DATASET)) == 1
    assert found["image_to_reference, recorded"]["answer"] == "differs"
    assert found["image_to_reference"]["answer"] == "agrees"
    assert found["tier origin"]["answer"] == "slide"


def test_the_recorded_answer_is_reproduced():
    """With the matrices that were recorded with it (see its source)."""
    phantom = phantom_dataset(
        dataset_id=RECORDED,
        plane="sagittal",
        sections=2,
        first_image_id=RECORDED_IMAGE,
    )

    def as_recorded(row: dict) -> None:
        row["section_thickness"] = 25.0
        image = row["section_images"][0]
        image["section_number"] = 138
        tsv = (1.04897, -0.00827914, 0.00827914, 1.04897, -48.3907, 1229.89)
        tvr = (1.06512, 0.00954653, -0.0388257, -0.0161521, 1.0205, -0.174613, 0.033595, 0.176889,
               1.03048, -1716.6, -786.453, 247.604)  # fmt: skip
        image["alignment2d"] |= {f"tsv_{n:02d}": value for n, value in enumerate(tsv)}
        row["alignment3d"] |= {f"tvr_{n:02d}": value for n, value in enumerate(tvr)}

    with AllenServer([phantom.altered(as_recorded)]) as server:
        found = examined(server.url)
    assert found["image_to_reference, recorded"]["answer"] == "agrees"


@pytest.mark.parametrize(
    "kind", cases.usual(["html", "reset", "404", "500", "503", "empty", "short", "drop"], 2)
)
@pytest.mark.parametrize(
    "request_kind", cases.usual(["image", "metadata", "redirect", "sync", "any"], 2)
)
def test_a_service_in_trouble_is_described(kind, request_kind):
    with AllenServer([PHANTOM], faults=[Fault(kind, request=request_kind)]) as server:
        found = examined(server.url, "--dataset", ID, "--timeout", 10)
    assert found
    assert all(len(one["detail"]) < 2000 for one in found.values())


def test_a_service_that_never_answers_is_left_in_time():
    with AllenServer([PHANTOM], faults=[Fault("hang", request="any")]) as server:
        found = examined(server.url, "--dataset", ID, "--timeout", 0.2)
    assert len(found) == 1 or found["reachable"]["answer"] == "no"


def oddly(row: dict) -> None:
    """Leave one usable image, beside what is none."""
    image = row["section_images"][0] | {"image_width": None}
    row["section_images"] = [None, 7, "x", {"id": None}, {"id": [1]}, image]


def test_an_odd_answer_is_described():
    found = ask(None, PHANTOM.altered(oddly))
    assert found["window sizes"] == "tier"


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = run(f"http://127.0.0.1:{port}", "--timeout", 2)
    assert done.exit_code == 1
    assert "reachable: **no**" in done.output
    assert "Traceback" not in done.output


def test_an_empty_service():
    with AllenServer([]) as server:
        found = {question: one["answer"] for question, one in examined(server.url).items()}
    assert found["reachable"] == "yes"
    assert found["unknown dataset"] == "no rows"
    assert "window sizes" not in found


def test_the_command_prints_what_can_be_pasted():
    with AllenServer([PHANTOM]) as server:
        address = server.url.replace("//", "//me:s3cret@")
        done = run(address, "--dataset", ID)
        as_json = run(address, "--dataset", ID, "--json")
    assert done.exit_code == as_json.exit_code == 0
    assert "s3cret" not in done.output + as_json.output
    for question, answer in USUAL.items():
        assert f"- {question}: **{answer or 'not told'}** (" in done.output
    found = json.loads(as_json.output)
    assert found["service"] == server.url
    assert {one["question"]: one["answer"] for one in found["findings"]} == USUAL


@pytest.mark.parametrize("address", ["ftp://h/", "nonsense", "http://h/api?key=s3cret"])
def test_what_is_no_address_is_refused(address):
    done = run(address)
    assert done.exit_code == 2
    assert "not the base URL" in done.output
    assert "s3cret" not in done.output


def test_nothing_is_kept_and_no_option_is_left_changed(tmp_path, monkeypatch):
    monkeypatch.setenv("ATLDLD_CACHE_DIR", str(tmp_path / "cache"))
    before = current()
    ask()
    assert current() == before
    assert not (tmp_path / "cache").exists()


def test_the_issue_template_asks_for_it():
    template = Path(__file__).parents[2] / ".github" / "ISSUE_TEMPLATE" / "service-answers.md"
    assert "atldld doctor" in template.read_text(encoding="utf-8")
