"""Programs that the random ones led to, each reduced to what matters.

Each is run uninterrupted, then again twice, and compared with the oracle as the random
ones are.
"""

import pytest
from programs import trial
from programs.build import after, ask, cancel, each, gather, go, race, select
from programs.drawing import Case, Kill
from programs.oracle import Schedule

PATIENCE_SECONDS = 5


def case(*program, order=(), lazy=True, asynchronous=False, live=False, kills=()):
    """Return a case whose events come in `order`, as far as the program lets them."""
    ranks = [9] * 20
    for rank, node in enumerate(order):
        ranks[node] = rank
    return Case(program, asynchronous, Schedule(tuple(ranks), lazy=lazy, live=live), kills)


FOUND = {
    "a failure passed on has its upstream's number": case(
        go(1, fails=True),
        go(2, 1),
        go(3, fails=True),
        gather(4, 2, 3),
        ask(4, "outcome"),
        ask(3, "outcome"),
        order=(1, 3),
    ),
    "a failure is passed on though another upstream goes on": case(
        go(1, fails=True),
        go(2),
        go(3, 1, 2),
        go(4, fails=True),
        gather(5, 3, 4),
        ask(5, "outcome"),
        ask(4, "outcome"),
        order=(1, 4, 2),
    ),
    "a retried body's output holds that of its steps": case(
        go(1, stumbles=1, retries=1, body=[go(2, prints=True), ask(2)]), ask(1), order=(2, 1)
    ),
    "two loops over one set are left early": case(
        go(1), go(2), each(3, 1, 2, most=1), each(4, 1, 2, most=1), order=(1, 2)
    ),
    "a loop is left early again after its error was tried again": case(
        go(1, fails=True), go(2), each(3, 1, 2, most=1), order=(1, 2)
    ),
    "a step is cancelled before its body begins": case(
        go(1, asynchronous=True), cancel(1), go(2), order=(2,)
    ),
    "a loser that waited for its upstream does not start on replay": case(
        go(1), go(2, 1), go(3), select(4, 2, 3), ask(4, "winner"), ask(1), order=(3, 1, 2)
    ),
    "nor one that a race cancelled while it waited": case(
        go(1), go(2, 1), race(3, 1, 2), ask(3, "winner"), order=(1, 2)
    ),
    "the cell's end does not wait for what a losing step started": case(
        go(1, body=[go(2), ask(2)]), go(3), select(4, 1, 3), order=(3,)
    ),
    "nor for what loses while it waits": case(go(1), go(2), select(3, 1, 2), order=(2, 1)),
    "what is below the winner too is no loser": case(
        go(1, fails=True),
        go(2, prints=True),
        go(3),
        gather(4, 1, 2),
        gather(5, 2, 3),
        select(6, 4, 5),
        ask(6, "outcome"),
        order=(1, 2, 3),
    ),
    "a loser's output is shown on no pass, or on each": case(
        go(1, prints=True),
        go(2),
        select(3, 1, 2),
        ask(3, "winner"),
        go(4, 1),
        ask(4),
        order=(2, 1, 4),
    ),
    "as_completed: a failure passed on comes by its number": case(
        go(1, fails=True),
        go(2, 1),
        go(3),
        each(4, 2, 3),
        ask(1, "outcome"),
        ask(2, "outcome"),
        order=(1, 3),
    ),
    "as_completed: a select decided when it is made comes by its number": case(
        go(1), go(2), ask(1), ask(2), select(3, 1, 2), each(4, 3, 2), order=(1, 2)
    ),
    "as_completed: what a race cancelled comes by its number": case(
        go(1),
        go(2),
        go(3),
        ask(1),
        race(4, 1, 2),
        ask(4),
        ask(3),
        each(5, 2, 3),
        ask(2, "outcome"),
        order=(1, 3),
    ),
    "gather: what a race cancelled fails first, if it was first": case(
        go(1),
        go(2),
        go(3, fails=True),
        gather(4, 2, 3),
        ask(1),
        race(5, 1, 2),
        ask(5),
        ask(4, "outcome"),
        ask(2, "outcome"),
        ask(3, "outcome"),
        order=(1, 3),
    ),
    "as_completed in a body goes on when the cell's code ends": case(
        go(1, body=[go(2), go(3), each(4, 2, 3)]),
        go(5),
        after(6, 1),
        ask(5),
        order=(5, 2, 3, 1),
    ),
    "two selects over one set agree, whatever the order of their branches": case(
        go(1),
        select(2, 1),
        gather(3, 1, 2),
        ask(3),
        select(4, 2, 3),
        ask(4, "winner"),
        select(5, 3, 2),
        ask(5, "winner"),
    ),
    "what a cancelled body does after that is not recorded": case(
        go(1),
        go(2, body=[go(3), go(4), gather(5, 3, 4), ask(5), cancel(5)]),
        go(6),
        race(7, 1, 2),
        ask(7, "winner"),
        ask(6),
        order=(4, 1, 6),
    ),
    "a select without winner is a step's argument": case(
        go(1, fails=True),
        select(2, 1, success=True),
        gather(3, 2, exceptions=True),
        go(4, 3),
        ask(4),
        order=(1, 4),
    ),
    "who asks for a winner is not shown its output, however long that takes": case(
        go(1, prints=True),
        go(2, prints=True),
        each(3, 1),
        select(4, 1),
        ask(4, "winner"),
        select(5, 1, 2),
        ask(5, "winner"),
        order=(2, 1),
        live=True,
    ),
    "an attempt of a child is told from those before its error was taken out": case(
        go(
            1,
            stumbles=1,
            retries=1,
            body=[go(2, fails=True, stumbles=1, retries=1), ask(2, catch="wrap")],
        ),
        ask(1, "outcome"),
        order=(2, 1),
        kills=(Kill("after", twentieths=9, commit=1, pause=0),),
    ),
}


@pytest.mark.parametrize("found", FOUND.values(), ids=FOUND)
def test_found(found, theatre, folders):
    """The engine does as the oracle says, on the first pass and on each replay."""
    trial.Trial(found, theatre, folders(), patience=PATIENCE_SECONDS).run()
