"""Random programs of asyncio's own waits and of threads, killed at random commits and resumed.

wait_for, timeout, gather, groups of tasks, wait, as_completed, queues fed by several tasks,
cancelled tasks, and steps in pools and threads, with bodies that take another while in each
process and give what no other would. Every execution's output is a prefix of the last one's,
and what has been saved never runs again. 60 programs by default; more with ::

    NBDURABLE_WAITS=500 python -m pytest tests/property/test_random_waits.py
"""

import itertools
import json
import os
from pathlib import Path

import pytest
from programs import waits, waits_mutants
from support.always_replay import Zygote

from nbdurable.store import Store, check

PROGRAMS = int(os.environ.get("NBDURABLE_WAITS", "60"))
SEED = int(os.environ.get("NBDURABLE_WAITS_SEED", "1"))
MOST_PROGRAMS = 60
"""So many programs in which a mutant comes up are tried to catch it."""
ENGINE = Path(waits.__file__).with_name("waits_engine.py")
EVERYTHING = {
    "cancel", "ended", "equal", "fails", "first", "gather", "group", "later", "queue", "step",
    "threads equal", "threads executor", "threads inner", "threads map", "threads submit",
    "threads thread", "threads to_thread", "timeout", "wait_for",
}  # fmt: skip


@pytest.fixture(scope="module")
def stage(signing_key):
    """Two processes with different hash seeds, which fork for each execution."""
    pair = [Zygote(seed, ENGINE) for seed in (1, 2)]
    yield itertools.cycle(pair)
    for zygote in pair:
        zygote.close()


class Story:
    """One program on one store."""

    def __init__(self, stage, folder, program, mutant=""):
        self._stage = stage
        self._folder = folder
        self._program = program
        self._mutant = mutant
        self._count = itertools.count()
        self.told = [json.dumps(program)]

    def execute(self, kill=None):
        """Run it once; give what it showed, the bodies that ran, and whether it was killed."""
        name = f"{next(self._count)}"
        output, ran, report = (self._folder / f"{what}{name}" for what in ("out", "ran", "report"))
        output.touch()
        ran.touch()
        code = next(self._stage).run(
            {
                "program": self._program, "store": str(self._folder / "s.duckdb"), "kill": kill,
                "output": str(output), "ran": str(ran), "report": str(report),
                "mutant": self._mutant,
            }
        )  # fmt: skip
        lines = output.read_text().splitlines()
        self.told.append(f"killed {kill}: {lines}" if code else f"{lines}")
        if code == 0:
            ended = json.loads(report.read_text())
            assert ended["error"] is None, self.story(ended["error"])
        return lines, ran.read_text().splitlines(), code != 0

    def story(self, what):
        """Say what is wrong, with all that was shown."""
        return "\n".join([what, *self.told])

    def run(self, kills, *, checked=False):
        """Run the whole story; raise AssertionError where an execution differs."""
        shown, before = [], set()
        killed = 0
        for kill in kills:
            lines, ran, died = self.execute(kill)
            shown.append(lines)
            before.update(ran)
            killed += died
        lines, ran, _ = self.execute()
        shown.append(lines)
        before.update(ran)
        last, ran, _ = self.execute()
        assert last[-1:] == ["the end"], self.story("it did not come to its end")
        # What was cancelled while it waited for a thread never ran: it may find one now.
        again = [one for one in ran if one in before or not one.startswith("called")]
        assert again == [], self.story(f"ran again: {again}")
        for lines in shown:
            assert lines == last[: len(lines)], self.story("shown in another order, or otherwise")
        assert shown[-1] == last, self.story("the last execution shows something else")
        if checked:
            store = Store.open(self._folder / "s.duckdb")
            problems = check(store)
            store.close()
            assert problems == [], self.story("the store contradicts itself")
        return killed


def folder_of(tmp_path, number):
    """Return a new folder."""
    made = tmp_path / f"case{number}"
    made.mkdir()
    return made


@pytest.mark.timeout(300 + 5 * PROGRAMS)
def test_random_waits(stage, tmp_path):
    """Killed anywhere and resumed, it shows what it has shown, and goes on from there."""
    come_up, killed = set(), 0
    for number in range(PROGRAMS):
        drawn = waits.Drawing(SEED * 1000 + number)
        program = drawn.program()
        come_up |= waits.words(program)
        killed += Story(stage, folder_of(tmp_path, number), program).run(
            drawn.kills(), checked=number % 5 == 0
        )
    print(f"{PROGRAMS} programs, {killed} processes killed")
    if PROGRAMS >= 60:
        assert not EVERYTHING - come_up
        assert killed >= PROGRAMS / 5, "too few processes were killed"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", waits_mutants.MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_broken_engine_is_caught(mutant, stage, tmp_path):
    """One of a few random programs tells it, of those in which what it breaks comes up."""
    tried = 0
    for number in itertools.count():
        drawn = waits.Drawing(number)
        program = drawn.program()
        if not waits_mutants.MUTANTS[mutant] & waits.words(program):
            continue
        tried += 1
        assert tried <= MOST_PROGRAMS, f"{mutant.__doc__} None of them told"
        story = Story(stage, folder_of(tmp_path, number), program, mutant.__name__)
        try:
            story.run(drawn.kills())
        except AssertionError as wrong:
            print(f"after {tried}: {str(wrong).splitlines()[0]}")
            return
