"""How rounds become figures, and figures a table."""

import json

import pytest
from benchmarks.contests import CONTESTS
from benchmarks.figures import Figure, Part, outcome, reaches, times_as_long, times_faster
from benchmarks.measure import Lap, NotAvailableError, Run
from benchmarks.process import JobFailedError
from benchmarks.report import grown, markdown, plain, results, table

OURS, THEIRS = Part("ours"), Part("theirs")


def figure(value, *, sense="at least", target=2.0, summary="median", theirs=THEIRS):
    return Figure("f", "a figure", "how", "x", sense, target, value, OURS, theirs, summary)


def rounds(*pairs):
    return [
        {"ours": Run({"all": Lap(ours, ours / 2)}), "theirs": Run({"all": Lap(theirs, theirs)})}
        for ours, theirs in pairs
    ]


def test_the_median_is_of_paired_ratios_not_the_ratio_of_medians():
    several = rounds((1, 4), (2, 4), (4, 10))
    assert outcome(figure(times_faster(OURS, THEIRS)), several, None).value == 2.5
    assert outcome(figure(times_as_long(OURS, THEIRS)), several, None).value == 0.4


def test_seconds_stand_beside_it_wall_and_cpu():
    done = outcome(figure(times_faster(OURS, THEIRS)), rounds((1, 4), (3, 6), (2, 5)), None)
    assert [(each.side, each.wall, each.cpu) for each in done.seconds] == [
        ("ours", 2, 1),
        ("theirs", 5, 5),
    ]


@pytest.mark.parametrize(("sense", "worst"), [("at most", 3.0), ("at least", 1.0)])
def test_the_worst_round_counts_where_it_is_asked_for(sense, worst):
    one = figure(lambda runs, _: runs["ours"].wall(), sense=sense, summary="worst")
    assert outcome(one, rounds((1, 1), (3, 1), (2, 1)), None).value == worst


def test_the_most_memory_of_all_rounds_stands_in_the_table():
    several = rounds((1, 4), (2, 4))
    several[0]["ours"].peak_bytes, several[1]["ours"].peak_bytes = 2_340_000_000, 120_000_000
    several[1]["theirs"].peak_bytes = 9_000_000_000
    done = outcome(figure(times_faster(OURS, THEIRS)), several, None)
    told = results({}, [done], {"c": several}, {})
    assert table(told["figures"])[1][-2:] == ("2.34", "")
    assert table(told["figures"], {"f": 2_290_000_000})[1][-2:] == ("2.34", "2.29")


@pytest.mark.parametrize(("first", "names"), [(2_290_000_000, []), (2_100_000_000, ["f"])])
def test_a_peak_that_grew_is_named(first, names):
    several = rounds((1, 4))
    several[0]["ours"].peak_bytes = 2_340_000_000
    done = outcome(figure(times_faster(OURS, THEIRS)), several, None)
    told = results({}, [done], {"c": several}, {})
    assert grown(told["figures"], {"f": first}) == names
    assert grown(told["figures"], {}) == []


def test_laps_that_are_not_named_do_not_count():
    run = Run({"open": Lap(1, 1), "compute": Lap(2, 1)})
    assert Part("ours").wall({"ours": run}) == 3
    assert Part("ours", ("compute",)).wall({"ours": run}) == 2


@pytest.mark.parametrize(
    ("error", "failed"), [(NotAvailableError("no peer"), False), (JobFailedError("crash"), True)]
)
def test_what_is_not_there_is_said_and_what_failed_is_told_apart(error, failed):
    done = outcome(
        figure(times_faster(OURS, THEIRS)), [{**rounds((1, 4))[0], "theirs": error}], None
    )
    assert (done.value, done.reached, done.failed) == (None, None, failed)
    measured = results({}, [done], {}, {})
    assert str(error) in table(measured["figures"])[1][1]


def test_a_target_is_reached_at_its_value():
    assert reaches(2.0, "at least", 2.0)
    assert reaches(2.0, "at most", 2.0)
    assert not reaches(1.999, "at least", 2.0)
    assert not reaches(2.001, "at most", 2.0)


def test_the_table_says_value_range_target_and_seconds():
    several = rounds((1, 4), (2, 4), (4, 10))
    done = outcome(figure(times_faster(OURS, THEIRS)), several, None)
    rows = table(json.loads(json.dumps(results({}, [done], {"c": several}, {})))["figures"])
    assert rows[1] == ("a figure", "2.5x (2 to 4)", "at least 2x", "yes", "2 (1)", "4 (4)", "", "")
    assert markdown(rows).splitlines()[2].startswith("| a figure | 2.5x (2 to 4) |")
    assert "a figure" in plain({"python": "3"}, rows)


def test_runs_survive_json():
    run = Run({"open": Lap(0.5, 0.25)}, 1024, {"tasks": 2.0})
    assert Run.from_json(json.loads(json.dumps(run.to_json()))) == run


def test_every_figure_has_its_sides_and_a_name_of_its_own():
    names = [one.name for contest in CONTESTS for one in contest.figures]
    assert len(names) == len(set(names))
    for contest in CONTESTS:
        sides = {side.name for side in contest.sides}
        assert {name for one in contest.figures for name in one.sides} == sides
