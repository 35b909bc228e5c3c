"""Engines broken on purpose, for programs of asyncio's waits and of threads."""

from nbdurable.engine import handed_over, turns
from nbdurable.engine.program_order import _Beside
from nbdurable.engine.turns import Turns


def tasks_go_on_as_they_come():
    """A task goes on as soon as its handle has ended, whoever else waits."""
    turns._Row.is_turn = lambda row, mine: True


def cancelled_awaits_are_forgotten():
    """That an await was cancelled, or a timeout passed, is not saved."""
    Turns._record = lambda turns, *_: turns_decision
    Turns.passed = lambda turns, *_: None


def threads_stand_outside():
    """What is called in other threads belongs to no run."""
    handed_over.patches.install = lambda: None
    handed_over.patches.remove = lambda: None


def equal_calls_as_they_come():
    """Which of several equal calls is whose is not looked up."""

    def place(beside, path, strand, present, *, finished):
        found = min(set(range(beside._end + 1)) - beside._taken.keys())
        beside.take(found, (path, beside._counts.get(strand, 0)), strand)
        return found

    _Beside.place = place


class _Decision:
    key = b""


turns_decision = _Decision()
MUTANTS = {
    tasks_go_on_as_they_come: {"gather", "group", "first", "ended"},
    cancelled_awaits_are_forgotten: {"wait_for", "timeout", "queue"},
    threads_stand_outside: {"threads map", "threads inner", "threads submit"},
    equal_calls_as_they_come: {"threads equal"},
}
"""Each with the operations of which one must come up in a program, or it can't show."""
