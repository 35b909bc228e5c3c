"""Errors between executions: seen ones replay, what ended the last execution is tried again."""

import pytest

from nbdurable import gather, go, select, step


def child_of_a_step(probe):
    """Fail in the child of a concurrent step, the first time."""

    def child():
        if probe.effect("child") == 1:
            raise OSError("for now")
        return "fine"

    def parent():
        return go(child).result()

    return go(parent).result()


def child_in_place(probe):
    """Fail in the child of a step, both called in place, the first time."""

    @step
    def child(number):
        if probe.effect("child") == 1:
            raise OSError("for now")
        return number

    @step
    def parent(number):
        return child(number)

    return parent(1)


def upstream(probe):
    """Fail in what another step receives, the first time."""

    def first():
        if probe.effect("first") == 1:
            raise OSError("for now")
        return 1

    return go(lambda number: number + 1, go(first)).result()


def every_branch(probe):
    """Fail in every branch of a select, the first time."""

    def branch(number):
        if probe.effect(f"branch {number}") == 1:
            raise OSError(f"for now {number}")
        return number

    select(go(branch, 1), go(branch, 2), success=True).result()
    return "fine"


def wrapped(probe):
    """End with an error whose cause is a step's."""

    def fails():
        if probe.effect("fails") == 1:
            raise OSError("for now")
        return "fine"

    try:
        return go(fails).result()
    except OSError as error:
        raise ValueError("wrapped") from error


@pytest.mark.parametrize(
    ("program", "value"),
    [
        (child_of_a_step, "fine"),
        (child_in_place, 1),
        (upstream, 2),
        (every_branch, "fine"),
        (wrapped, "fine"),
    ],
)
def test_what_ended_the_run_is_tried_again(bench, program, value):
    """The error that ended the run, wherever it came from, does not replay for ever."""
    first = bench.run(program)
    assert first.error is not None
    assert bench.check()[0] == []
    second = bench.run(program)
    assert (second.value, second.error) == (value, None)
    effects = bench.effects()
    assert set(effects.values()) == {2}
    assert bench.run(program).value == value
    assert bench.effects() == effects
    assert bench.check()[0] == []


def handled_downstream(probe):
    """Handle an upstream's error where the downstream passes it on."""

    def fails():
        probe.effect("fails")
        raise KeyError("gone")

    try:
        go(str, go(fails)).result()
    except KeyError:
        return go(lambda: probe.effect("instead")).result()


def test_an_error_seen_through_a_downstream_is_seen(always_replay):
    """Who handled what a downstream passes on has seen the upstream's error: it replays."""
    assert always_replay(handled_downstream).value == 1


def all_branches_failed(probe):
    """Look at the group alone, never at the branches."""

    def branch(number):
        probe.effect(f"branch {number}")
        raise ValueError(number)

    try:
        select(go(branch, 1), go(branch, 2), success=True).result()
    except ExceptionGroup as group:
        return sorted(error.args for error in group.exceptions)


def test_all_branches_failed_replays(always_replay):
    """The ExceptionGroup of a select without winner is made again from what was saved."""
    assert always_replay(all_branches_failed).value == [(1,), (2,)]


def group_through_gather(probe):
    """Meet the error of a select without winner inside a gather."""

    def branch(number):
        probe.effect(f"branch {number}")
        raise ValueError(number)

    lost = select(go(branch, 1), go(branch, 2), success=True)
    outcome = gather(lost, go(len, "abc")).outcome()
    return type(outcome.error).__name__, outcome.kind.value


def test_a_group_inside_a_gather(always_replay):
    """A select without winner is a failure like any other to what contains it."""
    assert always_replay(group_through_gather).value == ("ExceptionGroup", "error")
