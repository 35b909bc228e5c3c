"""CONTRACT sections 2 and 3: saved outcomes of other code, accepted, told, or confirmed first."""

import asyncio

import pytest
from fingerprint_kit.notebook import Notebook

import nbdurable
from nbdurable import UntrustedCheckpointError, UsageError, configure, gather, race, select
from nbdurable.codec import versions
from nbdurable.inspection import amending, queries, settings
from nbdurable.records import RunStatus
from nbdurable.store import Store, check

WORK = """
import nbdurable
def clean(number):
    return number
@nbdurable.step
def work(number):
    probe.effect(f"work({number})")
    return clean(number) * 10
"""
MENDED = WORK.replace("return number\n", "return number + 0\n")
AGAIN = WORK.replace("return number\n", "return 0 + number\n")


@pytest.fixture(autouse=True)
def settings_back():
    """Leave no setting to the next test."""
    yield
    configure(confirm=None, pin_packages=None)


class Cell:
    """A durable cell that is edited and run."""

    def __init__(self, folder, probe):
        self.place = folder / "s.duckdb"
        self.probe = probe
        self.notes = ()

    def run(self, text, use=None, **options):
        """Define the steps of `text` anew, and run `use` in the workflow."""
        notebook = Notebook(probe=self.probe)
        notebook.run(text)
        workflow = nbdurable.workflow("w", store=self.place, **options)
        try:
            with workflow:
                return (use or _each)(notebook["work"])
        finally:
            self.notes = workflow.notes

    def run_async(self, text, **options):
        """The same in an async cell."""

        async def main():
            notebook = Notebook(probe=self.probe)
            notebook.run(text.replace("def work", "async def work"))
            workflow = nbdurable.workflow("w", store=self.place, **options)
            try:
                async with workflow:
                    return await gather(notebook["work"].go(number) for number in range(4))
            finally:
                self.notes = workflow.notes

        return asyncio.run(main())

    def bodies(self):
        """Count how often bodies have run."""
        return sum(self.probe.count(f"work({number})") for number in range(10))

    def rows(self, query):
        """Ask the store, which must be sound."""
        store = Store.open(self.place)
        try:
            assert check(store) == []
            return store.rows(query)
        finally:
            store.close()


def _each(work, count=4):
    return gather(work.go(number) for number in range(count)).result()


@pytest.fixture
def cell(tmp_path, probe):
    """Return a durable cell."""
    return Cell(tmp_path, probe)


KEPT = "--keep: 4 saved outcomes of work are used as they are, though clean() changed"
TOLD = (
    "4 saved outcomes of work from before clean() changed are used, as --keep accepted; "
    "another pass with --keep ends this line"
)


@pytest.mark.parametrize("way", ["run", "run_async"])
def test_keep_accepts_what_the_edit_would_run_again(cell, way):
    """Nothing runs; it says which, once; that is told on every pass until the next with --keep."""
    run = getattr(cell, way)
    assert run(WORK) == [0, 10, 20, 30]
    assert run(MENDED, keep=True) == [0, 10, 20, 30]
    assert KEPT in cell.notes
    for _ in range(2):
        assert run(MENDED) == [0, 10, 20, 30]
        assert TOLD in cell.notes
    run(MENDED, keep=True)
    assert not [note for note in cell.notes if "saved outcomes of work" in note]
    run(MENDED)
    assert not [note for note in cell.notes if "saved outcomes of work" in note]
    assert cell.bodies() == 4
    assert cell.rows("SELECT kind, name, what, outcomes, settled FROM nbdurable.acceptances") == [
        ("code", "work", "clean()", 4, 5)
    ]


def test_a_keep_that_stays_in_the_cell_is_never_silent(cell):
    """Each further edit that it accepts is said, and told by a pass without it."""
    cell.run(WORK, keep=True)
    cell.run(MENDED, keep=True)
    assert KEPT in cell.notes
    cell.run(MENDED, keep=True)
    assert KEPT not in cell.notes
    cell.run(AGAIN, keep=True)
    assert KEPT in cell.notes
    cell.run(AGAIN)
    assert TOLD in cell.notes
    assert cell.bodies() == 4


def test_without_keep_they_run_again(cell):
    """What nobody accepted runs; new calls of an accepted code do too."""
    cell.run(WORK)
    cell.run(MENDED)
    assert cell.bodies() == 8
    cell.run(AGAIN, keep=True)
    assert cell.run(AGAIN, lambda work: _each(work, 5)) == [0, 10, 20, 30, 40]
    assert cell.bodies() == 9
    cell.run(AGAIN, lambda work: _each(work, 5))
    assert cell.bodies() == 9


def test_an_error_is_not_kept(cell):
    """Who mended the bug gets the failed ones run, and the others kept."""
    broken = WORK.replace("return clean", "if number == 2: 1 / 0\n    return clean")
    use = lambda work: gather(  # noqa: E731
        [work.go(number) for number in range(4)], return_exceptions=True
    ).result()
    assert isinstance(cell.run(broken, use)[2], ZeroDivisionError)
    assert cell.run(WORK, use, keep=True) == [0, 10, 20, 30]
    assert cell.bodies() == 5


def test_other_values_received_are_not_kept(cell):
    """--keep accepts other code: what received another value runs again."""
    load = "@nbdurable.step\ndef load():\n    return probe.effect('load()')\n"

    def use(work):
        return work.go(work.__wrapped__.__globals__["load"].go()).result()

    assert cell.run(WORK + load, use) == 10
    amending.redo("w", ["load"], store=cell.place)
    assert cell.run(MENDED + load, use, keep=True) == 20
    assert cell.run(MENDED + load, use) == 20
    assert (cell.probe.count("work(1)"), cell.probe.count("work(2)")) == (1, 1)


@pytest.mark.parametrize("combine", [select, race])
def test_decisions_over_kept_outcomes_stand(cell, combine):
    """The winner is kept, and its loser, with an outcome or without one, does not start."""
    slow = WORK.replace(
        "return clean", "if number == 1: probe.event('never').wait(0.2)\n    return clean"
    )
    use = lambda work: combine(work.go(1), work.go(0)).winner.label  # noqa: E731
    assert cell.run(slow, use) == "work(0)"
    mended = slow.replace("return number\n", "return number + 0\n")
    assert cell.run(mended, use, keep=True) == "work(0)"
    assert cell.run(mended, use) == "work(0)"
    assert cell.bodies() == 2


def test_an_acceptance_that_nobody_signed_is_refused(cell):
    """Nothing is given by a row that another key wrote."""
    cell.run(WORK)
    cell.run(MENDED, keep=True)
    store = Store.open(cell.place)
    store.commit(lambda batch: batch.execute("UPDATE nbdurable.acceptances SET name = 'work '", []))
    store.commit(lambda batch: batch.execute("UPDATE nbdurable.acceptances SET name = 'work', "
                                             "signature = ?", [bytes(32)]))  # fmt: skip
    store.close()
    with pytest.raises(UntrustedCheckpointError, match="not what your key signed"):
        cell.run(MENDED)


@pytest.mark.parametrize("way", ["run", "run_async"])
def test_confirm_suspends_before_the_first_of_them_starts(cell, way):
    """More than N: the count, the time, and the line that goes on; nothing was started."""
    run = getattr(cell, way)
    run(WORK)
    configure(confirm=3)
    with pytest.raises(
        UsageError,
        match=r"w is suspended before 4 saved outcomes, which took .*, would run again "
        r"\(work: code changed: clean\(\)\): `%%durable w --keep` uses them as they are; "
        r"`%durable config confirm=default`",
    ):
        run(MENDED)
    assert cell.bodies() == 4
    assert queries.runs(str(cell.place))[0].status is RunStatus.INTERRUPTED
    configure(confirm=4)
    run(MENDED)
    assert cell.bodies() == 8


def test_confirm_and_keep_go_together(cell):
    """What --keep accepts is not counted."""
    cell.run(WORK)
    configure(confirm=0)
    assert cell.run(MENDED, keep=True) == [0, 10, 20, 30]
    assert cell.run(WORK) == [0, 10, 20, 30]
    assert cell.bodies() == 4


@pytest.mark.parametrize("call", ["outer()", "outer.go().result()"])
@pytest.mark.parametrize("caught", ["BaseException", "KeyError"])
def test_a_body_does_not_keep_the_suspension_as_its_outcome(cell, call, caught):
    """It ends no sub-workflow, whether that lets it escape or catches everything."""
    outer = (
        "@nbdurable.step(version=1)\ndef outer():\n"
        f"    try:\n        return work(1)\n    except {caught}:\n        return 'caught'\n"
        f"def use():\n    return {call}\n"
    )

    def use(work):
        return work.__wrapped__.__globals__["use"]()

    assert cell.run(WORK + outer, use) == 10
    amending.redo("w", ["outer"], store=cell.place)
    configure(confirm=0)
    with pytest.raises(UsageError, match="is suspended before"):
        cell.run(MENDED + outer, use)
    assert cell.rows("SELECT count(*) FROM nbdurable.checkpoints WHERE name = 'outer'") == [(0,)]
    configure(confirm=None)
    assert cell.run(MENDED + outer, use) == 10


def test_bad_values_get_one_line():
    """In `configure`, and in `%durable config`."""
    for value in (-1, True, "3", 1.5):
        with pytest.raises(UsageError, match="give a whole number, 0 or more, or None"):
            configure(confirm=value)
    with pytest.raises(UsageError, match="give True or False"):
        configure(pin_packages="yes")
    with pytest.raises(UsageError, match="confirm=few: give a whole number, 0 or more"):
        settings.read(["confirm=few"])
    assert settings.read(["confirm=5", "pin_packages=on"]) == {"confirm": 5, "pin_packages": True}


PINNED = """
import nbdurable, numpy as np
def helper(number):
    return np.add(number, 1)
@nbdurable.step
def work(number):
    probe.effect(f"work({number})")
    return int(helper(number))
@nbdurable.step
def plain(number):
    probe.effect(f"plain({number})")
    return number
"""


def test_pinned_packages_are_part_of_the_version(cell, monkeypatch):
    """Another numpy runs again what uses it, and nothing else; `why` names it."""

    def use(work):
        return work(1), work.__wrapped__.__globals__["plain"](1)

    configure(pin_packages=True)
    cell.run(PINNED, use)
    cell.run(PINNED, use)
    assert (cell.bodies(), cell.probe.count("plain(1)")) == (1, 1)
    real = versions.packages_of
    newer = lambda names: real(names) | ({"numpy": "99.0"} if "numpy" in names else {})  # noqa: E731
    monkeypatch.setattr("nbdurable.engine.pinned.packages_of", newer)
    cell.run(PINNED, use)
    assert (cell.bodies(), cell.probe.count("plain(1)")) == (2, 1)
    whys = {row["step"]: row["why"] for row in queries.why("w", str(cell.place))}
    assert whys["work(1)"] == "code changed: numpy"
    configure(pin_packages=None)
    monkeypatch.undo()


def test_inner_functions_are_kept_too(cell):
    """A function defined in another has its code in its call; --keep finds it all the same."""
    inner = (
        "import nbdurable\ndef make():\n    @nbdurable.step\n    def work(number):\n"
        "        probe.effect(f'work({number})')\n        return number * 10\n"
        "    return work\nwork = make()\n"
    )
    cell.run(inner)
    mended = inner.replace("number * 10", "10 * number")
    cell.run(mended, keep=True)
    assert cell.bodies() == 4
    cell.run(mended)
    assert cell.bodies() == 4
    assert [note for note in cell.notes if "as --keep accepted" in note]
