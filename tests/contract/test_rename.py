"""CONTRACT sections 3 and 7: runs and steps that have another name now."""

import pytest
from fingerprint_kit.notebook import Notebook

import nbdurable
from nbdurable import UsageError, configure, gather
from nbdurable.inspection import amending, queries
from nbdurable.store import Store, check

WORK = """
import nbdurable
def clean(number):
    return number
@nbdurable.step(limit=2)
def work(number):
    probe.effect(f"work({number})")
    def scaled():
        return clean(number) * 10
    return scaled()
@nbdurable.step
def other(number):
    return number
"""
RENAMED = WORK.replace("def work(", "def work2(")
LINE = "renamed? `work2` has the body of `work`: `%durable rename work work2` takes 4 outcomes over"


@pytest.fixture
def run(tmp_path, probe):
    """Return a function that runs a step of a text four times, and gives values and notes."""

    def running(text, name="work", **options):
        notebook = Notebook(probe=probe)
        notebook.run(text)
        workflow = nbdurable.workflow("w", store=tmp_path / "s.duckdb", **options)
        try:
            with workflow:
                values = gather(notebook[name].go(number) for number in range(4)).result()
        finally:
            running.notes = workflow.notes
        return values

    running.place = tmp_path / "s.duckdb"
    running.bodies = lambda: sum(probe.count(f"work({number})") for number in range(4))
    return running


def _is_sound(place):
    store = Store.open(place)
    try:
        assert check(store) == []
    finally:
        store.close()


def test_a_renamed_function_is_told_and_its_outcomes_are_taken_over(run):
    """The line costs nothing until it is done; then nothing runs, under the new name."""
    run(WORK)
    configure(confirm=0)
    try:
        with pytest.raises(UsageError, match=r"4 saved outcomes.*would run again.*renamed"):
            run(RENAMED, "work2")
    finally:
        configure(confirm=None)
    assert LINE in run.notes
    assert amending.rename("work", "work2", run.place) == "w: work2 has the 4 outcomes of work now"
    assert run(RENAMED, "work2") == [0, 10, 20, 30]
    assert run.bodies() == 4
    assert not [note for note in run.notes if "work" in note]
    names = {row["step"] for row in queries.steps("w", str(run.place))}
    assert names == {f"work2({number})" for number in range(4)}
    _is_sound(run.place)


def test_without_the_rename_it_is_told_and_they_run(run):
    """Nothing is taken over unasked."""
    run(WORK)
    assert run(RENAMED, "work2") == [0, 10, 20, 30]
    assert LINE in run.notes
    assert run.bodies() == 8
    # Done in part or as a whole under the new name: the rename still does no harm.
    amending.rename("work", "work2", run.place)
    run(RENAMED, "work2")
    assert run.bodies() == 8
    _is_sound(run.place)


def test_another_body_is_not_told(run):
    """A new step with a body of its own is new; so is an equal one beside the old."""
    run(WORK)
    run(RENAMED.replace("* 10", "* 20"), "work2")
    assert not [note for note in run.notes if "renamed?" in note]


def test_an_edit_after_the_rename_runs_again(run):
    """The new name finds the calls; their code still has to be equal."""
    run(WORK)
    amending.rename("work", "work2", run.place)
    assert run(RENAMED.replace("return number\n", "return number + 1\n"), "work2")[0] == 10
    assert run.bodies() == 8
    run(RENAMED, "work2")
    assert run.bodies() == 8


def test_a_rename_of_what_was_renamed(run):
    """work, work2, work3: the outcomes follow, and back."""
    run(WORK)
    for old, new in (("work", "work2"), ("work2", "work3"), ("work3", "work")):
        amending.rename(old, new, run.place)
        run(WORK.replace("def work(", f"def {new}("), new)
    assert run.bodies() == 4
    _is_sound(run.place)


def test_a_run_has_another_name(run, tmp_path):
    """Its outcomes replay under that."""
    run(WORK)
    said = amending.rename("w", "v", run.place)
    assert said == "the run w is called v now: name its cell so, `%%durable v`"
    assert [one.name for one in queries.runs(str(run.place))] == ["v"]
    amending.rename("v", "w", run.place)
    run(WORK)
    assert run.bodies() == 4


def test_what_cannot_be_renamed_gets_one_line(run):
    """Onto a taken name, of nothing, of a run that is being executed: nothing changes."""
    run(WORK)
    run(WORK, "other")
    with nbdurable.workflow("v", store=run.place):
        for old, new, says in (
            ("w", "v", "another run is called v"),
            ("work", "other", "w has outcomes of another step called other; nothing was changed"),
            ("wrok", "x", "no run or step is called wrok"),
            ("work", "work", "give another name"),
            ("work", " ", "give another name"),
            ("v", "u", "v is running"),
        ):
            with pytest.raises(UsageError, match=says) as raised:
                amending.rename(old, new, run.place)
            assert "\n" not in str(raised.value)
    run(WORK)
    assert run.bodies() == 4
