"""CONTRACT sections 2 to 4: select, its losers, its decisions, each live and replayed."""

import threading

import pytest

from nbdurable import after, gather, go, select, step


def fast_and_slow(probe):
    """Race two steps whose order an event fixes."""

    def fast():
        probe.effect("fast")
        return "fast"

    def slow():
        probe.effect("slow")
        probe.event("decided").wait(10)
        return "slow"

    handles = go(slow), go(fast)
    first = select(*handles)
    won = first.winner is handles[1], first.winner.label, first.index, first.result()
    probe.event("decided").set()
    return won, handles[0].result()


def test_winner_and_late_loser(always_replay, bench):
    """The first to finish wins, last in the list or not; the loser is read afterwards."""
    report = always_replay(fast_and_slow)
    assert report.value == ((True, "fast()", 1, "fast"), "slow")
    winner = bench.rows("SELECT winner FROM nbdurable.decisions")
    assert winner == [("fast()",)]


def error_wins(probe):
    """Let an error win a select, and handle it."""

    def fails():
        probe.effect("fails")
        raise ValueError("first")

    def waits():
        probe.event("decided").wait(10)
        return "late"

    loser = go(waits)
    first = select(go(fails), loser)
    try:
        first.result()
    except ValueError as error:
        found = str(error)
    probe.event("decided").set()
    return found, first.winner.name, loser.result()


def test_an_error_wins(always_replay, bench):
    """Errors can win; replay raises the same one."""
    assert always_replay(error_wins).value == (
        "first",
        ["error_wins", "<locals>", "fails"][-1],
        "late",
    )
    assert bench.effects()["fails"] == 1


def winner_of_an_error_only(probe):
    """Branch on who won, never asking for the error."""

    def fails():
        raise ValueError(f"failure {probe.effect('fails')}")

    def waits():
        probe.event("decided").wait(10)

    loser = go(waits)
    name = select(go(fails), loser).winner.name
    probe.event("decided").set()
    return name


def test_a_seen_winner_is_a_seen_error(always_replay, bench):
    """Knowing that an error won is knowing the error: it is not retried."""
    assert always_replay(winner_of_an_error_only).value == "fails"
    assert bench.effects()["fails"] == 1


def success_only(probe):
    """Take the first that is no error."""

    def fails(number):
        raise ValueError(number)

    def works():
        gather(failed, return_exceptions=True).result()
        return "works"

    failed = [go(fails, 1), go(fails, 2)]
    for handle in failed:
        handle.outcome()
    first = select(*failed, go(lambda: "works"), success=True)
    try:
        select(*failed, success=True).result()
    except ExceptionGroup as group:
        errors = [repr(error) for error in group.exceptions]
    return first.result(), first.index, errors


def test_success(always_replay):
    """`success=True` passes errors over; when all fail, an ExceptionGroup of them."""
    assert always_replay(success_only).value == (
        "works",
        2,
        ["ValueError(1)", "ValueError(2)"],
    )


def in_a_loop(probe):
    """Select in a loop, over what is left."""

    def one(number):
        probe.effect(f"one {number}")
        if number:
            probe.event(number - 1).wait(10)
        return number

    left = {number: go(one, number) for number in (3, 1, 2, 0)}
    order = []
    while left:
        winner = select(left.values()).winner
        order.append(winner.result())
        del left[winner.result()]
        probe.event(order[-1]).set()
    return order


def test_select_in_a_loop(always_replay):
    """A loop of selects comes in the same order on every run."""
    assert always_replay(in_a_loop).value == [0, 1, 2, 3]


def both_ready(probe):
    """Select over branches that have both ended."""
    a, b = go(len, "a"), go(len, "bb")
    b.result()
    a.result()
    first = select(a, b)
    again = select(b, a)
    return first.winner is again.winner, {first.index, again.index}


def test_both_ready(always_replay):
    """Of two that have ended the lower number wins, however they are listed."""
    same, indexes = always_replay(both_ready).value
    assert same
    assert indexes == {0, 1}


def nested(probe):
    """Nest selects and gathers."""

    def quick(name):
        probe.effect(f"quick {name}")
        return name

    def gated(name):
        probe.effect(f"gated {name}")
        probe.event("all decided").wait(10)
        return name

    slow = go(gated, "s")
    inner = select(slow, go(quick, "q"))
    outer = select(gather(inner, go(quick, "r")), gather(slow, go(quick, "t")), after(60))
    value = outer.result(), outer.index, inner.winner.name
    probe.event("all decided").set()
    return value, slow.result()


def test_nested(always_replay, bench):
    """A decision through nested combinators is the same on every run."""
    assert always_replay(nested).value == ((["q", "r"], 0, "quick"), "s")
    numbers = bench.rows("SELECT number FROM nbdurable.decision_log ORDER BY number")
    assert len(numbers) == 2


def timeout_branch(probe):
    """Let a timer win."""

    def never():
        probe.effect("never")
        probe.event("never").wait(10)

    slow = go(never)
    timer = after(0.01)
    won = select(slow, timer).winner is timer
    probe.event("never").set()
    return won


def test_a_timer_branch_wins(always_replay, bench):
    """A timeout branch that won wins again, at once."""
    assert always_replay(timeout_branch).value is True
    assert bench.effects()["never"] <= 1


def loser_never_recorded(probe):
    """Finish while the loser still runs."""

    def loser():
        probe.effect("loser")
        probe.event("never").wait(10)

    def winner():
        probe.effect("winner")
        return "won"

    slow = go(loser)
    return select(slow, go(winner)).result()


def test_a_loser_without_checkpoint_is_not_started_on_replay(always_replay, bench):
    """A finished run's replay runs no body, the loser's neither; the cell does not wait for it."""
    assert always_replay(loser_never_recorded).value == "won"
    assert bench.effects() == {"loser": 1, "winner": 1}


def loser_asked_on_replay(probe):
    """Ask for the loser, only from the second execution on."""

    def loser():
        if probe.effect("loser") == 1:
            probe.event("never").wait(10)
        return "lost"

    slow = go(loser)
    found = select(slow, go(len, "ab")).result()
    return found, slow.result() if probe.parameters.get("ask") else None


def test_a_deferred_loser_starts_when_asked_for(bench):
    """`loser.result()` on replay starts the loser; the decision stands."""
    assert bench.run(loser_asked_on_replay).value == (2, None)
    assert bench.run(loser_asked_on_replay, parameters={"ask": True}).value == (2, "lost")
    assert bench.effects()["loser"] == 2
    assert bench.check()[0] == []


def changed_branches(probe):
    """Race branches that later executions change."""
    which = probe.parameters.get("which", "ab")

    @step
    def branch(name):
        probe.effect(f"branch {name}")
        if name != "a":
            probe.event("decided").wait(0.5)
        return name

    handles = [branch.go(name) for name in which]
    first = select(handles)
    found = first.result(), first.index
    probe.event("decided").set()
    gather(handles).result()
    return found


@pytest.mark.parametrize(
    ("then", "expected", "ran"),
    [
        ("ba", ("a", 1), set()),  # reordered: the decision belongs to the set
        ("abc", ("a", 0), {"branch c"}),  # added: re-opened, and decided by the lowest number
        ("b", ("b", 0), set()),  # removed
        ("bc", ("b", 0), {"branch c"}),  # another set
    ],
)
def test_changed_sets(bench, then, expected, ran):
    """A changed set re-opens a decision, an unchanged one never does; `.index` is computed anew."""
    assert bench.run(changed_branches).value == ("a", 0)
    before = bench.effects()
    assert bench.run(changed_branches, parameters={"which": then}).value == expected
    assert {name for name in bench.effects() if bench.effects()[name] != before[name]} == ran
    assert bench.check()[0] == []


def edited_winner(probe):
    """Race two steps; the winner's code depends on a parameter."""
    text = probe.parameters.get("text", "old")

    def winner():
        probe.effect(f"winner {text}")
        return text

    def loser():
        probe.effect("loser")
        probe.event("decided").wait(10)
        return "loser"

    slow = go(loser)
    first = select(go(winner), slow)
    found = first.result()
    probe.event("decided").set()
    slow.result()
    return found


def test_edited_winner_reopens_and_editing_back_finds_the_old_decision(bench):
    """A changed branch re-opens the select; its old version still has its old decision."""
    assert bench.run(edited_winner).value == "old"
    assert bench.run(edited_winner, parameters={"text": "new"}).value == "loser"
    assert bench.run(edited_winner).value == "old"
    assert bench.effects() == {"winner old": 1, "winner new": 1, "loser": 1}


def unpicklable_winner(probe):
    """Let a branch win whose result can't be saved."""

    def winner():
        probe.effect("winner")
        return threading.Lock()

    def loser():
        probe.event("decided").wait(10)
        return "loser"

    slow = go(loser)
    first = select(go(winner), slow)
    found = first.winner.name, type(first.result()).__name__
    probe.event("decided").set()
    return found, slow.result()


def test_unpicklable_winner_stays_the_winner(always_replay):
    """A winner that is not saved runs again on replay, and has still won."""
    report = always_replay(unpicklable_winner, runs_again={"winner"})
    assert report.value == (("winner", "lock"), "loser")


def swapped_arguments(probe):
    """Call one step twice; the arguments' order is a parameter."""

    def one(name):
        probe.effect(f"one {name}")
        return name

    return [go(one, name).result() for name in probe.parameters.get("names", "ab")]


def test_swapped_arguments_take_their_values_along(bench):
    """Two same-name calls with swapped arguments swap their replayed values."""
    assert bench.run(swapped_arguments).value == ["a", "b"]
    assert bench.run(swapped_arguments, parameters={"names": "ba"}).value == ["b", "a"]
    assert bench.run(swapped_arguments, parameters={"names": "xba"}).value == ["x", "b", "a"]
    assert bench.effects() == {"one a": 1, "one b": 1, "one x": 1}


def base_exceptions(probe):
    """Raise SystemExit in one branch; the other wins."""

    def leaves():
        probe.effect("leaves")
        raise SystemExit("out")

    def works():
        return "works"

    left = go(leaves)
    try:
        left.result()
    except SystemExit as error:
        found = str(error)
    return found, go(works).result()


def test_base_exception_in_a_branch(always_replay):
    """What is no Exception is an outcome like any other, and handed over as itself."""
    assert always_replay(base_exceptions).value == ("out", "works")


def gather_fails_at_once(probe):
    """Fail a gather while a branch still runs."""

    def fails():
        raise ValueError("first")

    def slow():
        probe.event("failed").wait(10)
        return "went on"

    going = go(slow)
    try:
        gather(going, go(fails)).result()
    except ValueError as error:
        found = str(error)
    probe.event("failed").set()
    return (
        found,
        going.result(),
        [type(one).__name__ for one in gather(going, go(len, 3), return_exceptions=True).result()],
    )


def test_gather_fails_at_once_and_the_others_go_on(always_replay):
    """A gather fails with its lowest-numbered failure at once; the others go on."""
    assert always_replay(gather_fails_at_once).value == ("first", "went on", ["str", "TypeError"])


def result_timeout(probe):
    """Wait too short a time; then long enough."""

    def slow():
        probe.event("waited").wait(10)
        return "slow"

    handle = go(slow)
    try:
        handle.result(timeout=0.01)
    except TimeoutError as error:
        found = str(error)
    probe.event("waited").set()
    return found, handle.result()


def test_result_timeout_is_recorded(always_replay):
    """A wait that timed out times out again on replay, though the step has ended since."""
    found, value = always_replay(result_timeout).value
    assert found == "slow(): not finished after a wait of 0.01 s (it goes on)"
    assert value == "slow"


def interrupted_branch(probe):
    """Race a branch whose own code raises KeyboardInterrupt; then nothing but such branches."""

    def leaves(number):
        if number == 2:
            probe.event("left").wait(10)
        raise KeyboardInterrupt(number)

    def works():
        probe.event("left").wait(10)
        return "works"

    left, other = go(leaves, 1), go(leaves, 2)
    found = [select(left, go(works)).winner.label]
    probe.event("left").set()
    for combine in (select, gather):
        try:
            combine(left, other).result()
        except KeyboardInterrupt as error:
            found.append(error.args)
    try:
        go(str, left).result()
    except KeyboardInterrupt as error:
        found.append(error.args)
    return found


def test_a_keyboard_interrupt_of_a_steps_own_code(always_replay):
    """In a thread nobody can interrupt from outside: it is an outcome, and can win."""
    assert always_replay(interrupted_branch).value == ["leaves(1)", (1,), (1,), (1,)]


def same_set_again(probe):
    """Select over one set several times, live and when all have ended."""

    def branch(number):
        if number == 1:
            probe.event("decided").wait(10)
        return number

    one, two = go(branch, 1), go(branch, 2)
    found = [select(one, two).index, select(one, two).index, select(two, one).index]
    probe.event("decided").set()
    one.result()
    return [*found, select(one, two).index]


def test_one_set_has_one_decision(always_replay, bench):
    """Selects over the same set agree, and the store holds one decision."""
    assert always_replay(same_set_again).value == [1, 1, 0, 1]
    assert bench.rows("SELECT count(*) FROM nbdurable.decision_log") == [(1,)]


def waiting_branch(probe):
    """Race a step that still waits for its upstream; its code depends on a parameter."""
    text = probe.parameters.get("text", "old")

    def upstream():
        probe.event("decided").wait(10)
        return "up"

    def downstream(received):
        return received, text

    slow = go(downstream, go(upstream))
    first = select(slow, go(len, "ab"))
    found = first.result()
    probe.event("decided").set()
    return found, slow.result()


def test_a_changed_branch_that_never_started_reopens(bench):
    """Editing a loser that was still waiting for its upstream makes another set."""
    for text in ("old", "new", "old", "new"):
        parameters = {"text": text}
        assert bench.run(waiting_branch, parameters=parameters).value == (2, ("up", text))
    assert bench.rows("SELECT count(*) FROM nbdurable.decision_log") == [(2,)]
    assert bench.check()[0] == []
