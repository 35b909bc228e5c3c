"""The hazards notebook, killed with SIGKILL after a cell, resumed, compared with a plain run."""

import os

import pytest
from plain.hazard_cells import CELLS, DRAWN, LIVE
from support.plain_notebooks import same

KILLS = range(len(CELLS)) if os.environ.get("NBDURABLE_HAZARDS") == "all" else (4, 19, 34, 47)
"""All kill points take some minutes."""


def left(passed):
    """Give what a pass left, without what nobody can compare."""
    out = {n: text for n, text in passed.left["out"].items() if "matplotlib" not in text}
    values = {n: v for n, v in passed.left["values"].items() if n not in LIVE | DRAWN}
    links = [one for one in passed.left["links"] if not LIVE & set(one.split())]
    return {**passed.left, "values": values, "links": links, "out": out}


@pytest.fixture(scope="module")
def undisturbed(notebooks, tmp_path_factory):
    """Run the notebook once, plainly."""
    return notebooks.run(tmp_path_factory.mktemp("plain"), CELLS, "plain")


def test_it_is_a_notebook(undisturbed):
    """It runs, but for the error that it is to have."""
    assert [error for error in undisturbed.errors if error] == [
        "AttributeError: 'list' object has no attribute 'missing'"
    ]


@pytest.mark.parametrize("killed", KILLS)
def test_killed_and_resumed(notebooks, undisturbed, tmp_path_factory, killed):
    """No silent difference: values, links, what is around, results and output are the same."""
    folder = tmp_path_factory.mktemp("hazards")
    first = notebooks.run(folder, CELLS, kill_after=killed, settle=killed % 2 == 0)
    second = notebooks.run(folder, CELLS)
    assert [one["at"] for one in first.cells] == list(range(killed + 1))
    mine, theirs = left(second), left(undisturbed)
    for one in (mine, theirs):
        one["around"] = {n: v for n, v in one["around"].items() if n not in {"cwd", "environ"}}
    assert same(mine, theirs) == []
    assert second.shown == undisturbed.shown
    assert second.errors == undisturbed.errors
    if killed % 2 == 0 and killed > 2:
        assert second.restored


def test_all_of_it_is_restored(notebooks, undisturbed, tmp_path_factory):
    """Nothing runs again but what is live, what can't be seen, and what raised."""
    folder = tmp_path_factory.mktemp("hazards")
    notebooks.run(folder, CELLS)
    second = notebooks.run(folder, CELLS)
    again = {at: second.unsaved(at) for at in second.ran}
    live = ("iterator", "lock", "TextIOWrapper", "raised", "can't be seen", "less than saving")
    assert [at for at, why in again.items() if not any(word in why for word in live)] == [
        41  # it looks at the figure, which the cell before it has drawn into again
    ], again
    assert len(again) <= 10
