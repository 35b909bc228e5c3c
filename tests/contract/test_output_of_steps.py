"""CONTRACT section 6: what of a step's output the cell shows, when, and in which order.

That something is shown live is told by the body itself, which waits for the cell to
show it before it goes on: shown at its end, it would be too late.
"""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from nbdurable import StepTimeoutError, after, gather, go, race, select, step

# --- live ----------------------------------------------------------------------------


def waited_for(probe):
    """Wait for a step that goes on when the cell shows what it says."""

    def talk():
        probe.event("started").set()
        print("one")
        probe.event("said").set()
        probe.wait_until_shown("one")
        print("two")
        probe.wait_until_shown("two")
        return "said"

    handle = go(talk)
    if probe.count("first") == 0:
        probe.effect("first")
        probe.event("said").wait(10)
    print("the cell waits")
    return handle.result()


def test_the_step_that_is_waited_for_is_shown_live(always_replay):
    """What it had printed before the wait comes first, the rest as it comes, nothing twice."""
    assert always_replay(waited_for).stdout == "the cell waits\none\ntwo\n"


def called(probe):
    """Call steps in the cell's own thread."""

    @step
    def talk(number):
        print("one", number)
        probe.wait_until_shown(f"one {number}")
        print("two", number)
        return number

    return talk(1) + talk(2)


def test_a_called_step_is_shown_live(always_replay):
    """A step that runs in the cell's own thread is waited for all the time."""
    assert always_replay(called).stdout == "one 1\ntwo 1\none 2\ntwo 2\n"


async def awaited(probe):
    """Await an async step, a sync one, and a gather."""

    async def talk(number):
        print("one", number)
        await asyncio.to_thread(probe.wait_until_shown, f"one {number}\n")
        print("two", number)

    def talk_on_a_thread(number):
        print("one", number)
        probe.wait_until_shown(f"one {number}\n")
        print("two", number)

    await go(talk, 1)
    await go(talk_on_a_thread, 2)
    await step(talk)(3)
    await gather(go(talk, 4), go(talk_on_a_thread, 5))


def test_an_awaited_step_is_shown_live(always_replay):
    """In an async cell as in any other, whatever the body runs on."""
    expected = "".join(f"one {n}\ntwo {n}\n" for n in range(1, 6))
    assert always_replay(awaited).stdout == expected


def gathered(probe):
    """Gather steps of which each waits for the one before it to be shown, and the last is first."""

    def talk(number):
        print("one", number)
        if number == 3:
            probe.event("three").set()
        else:
            probe.event("three").wait(10)
            probe.wait_until_shown(f"one {number}\n")
            assert not probe.shows(f"one {number + 1}\n")
        print("two", number)
        return number

    handles = [go(talk, number) for number in (1, 2, 3)]
    return gather(gather(handles[0], handles[1]), handles[2]).result()


def test_a_gathers_branches_are_shown_one_after_the_other(always_replay):
    """The first that is not delivered yet is live; the others wait, though they may be done."""
    report = always_replay(gathered)
    assert report.stdout == "one 1\ntwo 1\none 2\ntwo 2\none 3\ntwo 3\n"


def at_the_end(probe):
    """Start steps and ask none; the second is done first."""

    def talk(number):
        print("one", number)
        if number == 1:
            probe.event("two").wait(10)
            probe.wait_until_shown("one 1\n")
        else:
            probe.event("two").set()
        print("two", number)

    for number in (1, 2):
        go(talk, number)
    print("the cell is done")


def test_at_the_cells_end_steps_are_shown_in_the_order_in_which_they_began(always_replay):
    """What nobody asked for comes in `go` order, the one that is waited for live."""
    report = always_replay(at_the_end)
    assert report.stdout == "the cell is done\none 1\ntwo 1\none 2\ntwo 2\n"


def a_parent_and_its_child(probe):
    """Wait for a step that waits for steps, one in place and two beside it."""

    def child(number):
        print("child", number)
        probe.wait_until_shown(f"child {number}\n")
        print("child", number, "ends")

    def parent():
        print("parent")
        probe.wait_until_shown("parent\n")
        step(child)(1)
        handle = go(child, 2)
        print("parent waits")
        handle.result()
        unasked = go(child, 3)
        unasked.outcome()
        print("parent ends")

    go(parent).result()


def test_a_parents_output_contains_its_childrens(always_replay):
    """Children are shown live in their parent, and are part of what is recorded for it."""
    expected = (
        "parent\nchild 1\nchild 1 ends\nparent waits\nchild 2\nchild 2 ends\n"
        "child 3\nchild 3 ends\nparent ends\n"
    )
    assert always_replay(a_parent_and_its_child).stdout == expected


def shown_before_it_starts(probe):
    """Wait for a step that has not got a thread yet, and for one that waits for another."""

    def talk(text, _=None):
        print(text)
        probe.wait_until_shown(f"{text}\n")
        print(text, "ends")
        return text

    def hold():
        probe.event("never").wait(0.2)

    holding = go(hold)
    go(talk, "queued").result()
    go(talk, "downstream", go(hold)).result()
    holding.result()


def test_a_step_that_is_yet_to_start_is_shown_live_when_it_does(always_replay):
    """A wait may begin before the attempt does."""
    report = always_replay(shown_before_it_starts, limit=1)
    assert report.stdout == "queued\nqueued ends\ndownstream\ndownstream ends\n"


# --- order -----------------------------------------------------------------------------


def by_turns(probe):
    """Run two steps that print by turns, character by character."""

    def talk(me, other):
        for number in range(5):
            probe.event(f"{me}{number}").wait(10)
            print(me, end="")
            print(number)
            probe.event(f"{other}{number + (me == 'b')}").set()

    probe.event("a0").set()
    handles = [go(talk, "a", "b"), go(talk, "b", "a")]
    print("cell")
    handles[1].result()
    print("between")
    handles[0].result()


def test_concurrent_steps_do_not_mix(always_replay):
    """Each step's output is in one piece, where the cell first received it."""
    expected = ["cell", *(f"b{n}" for n in range(5)), "between", *(f"a{n}" for n in range(5))]
    assert always_replay(by_turns).stdout.split() == expected


def winners_and_losers(probe):
    """Race, select, and read a loser later; the losers have printed before they lost."""

    def fast(name):
        probe.event(f"slow {name}").wait(10)
        print("fast", name)
        return name

    def slow(name):
        print("slow", name)
        probe.event(f"slow {name}").set()
        probe.event(f"decided {name}").wait(10)
        print("slow ends", name)
        return name

    never = select(go(slow, "never"), go(fast, "never"))
    never.result()
    probe.event("decided never").set()
    later = go(slow, "later")
    print(select(later, go(fast, "later")).index)
    probe.event("decided later").set()
    later.result()
    race(go(slow, "raced"), go(fast, "raced")).result()
    probe.event("decided raced").set()


def test_losers_are_not_shown_unless_they_are_asked(always_replay):
    """A loser's output is shown where the cell asks it, and else never."""
    expected = "fast never\n1\nslow later\nslow ends later\nfast raced\nfast later\n"
    assert always_replay(winners_and_losers).stdout == expected


def undecided_at_the_end(probe):
    """End with a select that nobody asked, whose first branch prints and loses."""

    def slow():
        print("slow")
        probe.event("slow").set()
        probe.event("never").wait(0.5)
        print("slow ends")

    def fast():
        probe.event("slow").wait(10)
        probe.event("never").wait(0.2)
        print("fast")

    select(go(slow), go(fast))


def test_what_may_still_lose_is_not_shown_live(always_replay):
    """At the end of the cell a select may be open: nobody knows yet who is a loser."""
    assert always_replay(undecided_at_the_end).stdout == "fast\n"


def a_gather_that_fails(probe):
    """Gather two that succeed, one that fails when they have, one that comes later."""

    def talk(number):
        print("talks", number)
        if number == 4:
            probe.event("failed").wait(10)
        return number

    def fail(*_):
        print("fails")
        raise ValueError("no")

    first, second = go(talk, 1), go(talk, 2)
    failing = go(fail, first, second)
    last = go(talk, 4)
    try:
        gather(first, second, failing, last).result()
    except ValueError:
        print("caught")
    probe.event("failed").set()


def test_a_gather_that_fails_shows_what_it_had_received(always_replay):
    """What came before the failure in its order is shown before it; what comes later, later."""
    report = always_replay(a_gather_that_fails)
    assert report.stdout == "talks 1\ntalks 2\nfails\ncaught\ntalks 4\n"


async def waited_for_by_a_task_of_the_cells(probe):
    """Await one step in the cell and another in a task that the cell has made."""

    async def talk(number):
        print("one", number)
        if number == 1:
            await asyncio.to_thread(probe.wait_until_shown, "one 1\n")
            probe.event("one is shown").set()
            await asyncio.to_thread(probe.event("two is received").wait, 10)
        else:
            await asyncio.to_thread(probe.event("one is shown").wait, 10)
        print("two", number)

    async def other():
        await second
        probe.event("two is received").set()

    first, second = go(talk, 1), go(talk, 2)
    task = asyncio.ensure_future(other())
    await first
    await task


def test_what_is_received_meanwhile_is_shown_after_the_live_one(always_replay):
    """A task of the cell's receives a step while another is shown live: they don't mix."""
    report = always_replay(waited_for_by_a_task_of_the_cells)
    assert report.stdout == "one 1\ntwo 1\none 2\ntwo 2\n"


def with_threads_of_its_own(probe):
    """Start threads in a step, in three ways, in a sync and in an async body."""

    def talk(text):
        print(text)
        probe.wait_until_shown(f"{text}\n")

    def threads(name):
        print(name)
        plain = threading.Thread(target=talk, args=(f"{name}'s thread",))
        plain.start()
        plain.join()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(talk, f"{name}'s pool").result()

    async def on_a_loop(name):
        threads(name)
        await asyncio.to_thread(talk, f"{name}'s loop's")

    go(threads, "started").result()
    print("cell")
    step(threads)("called")
    go(on_a_loop, "async").result()


def test_what_a_steps_own_threads_print_is_its_output(always_replay):
    """Threads that a step starts write for it: live while it is waited for, and on replay."""
    assert always_replay(with_threads_of_its_own).stdout == (
        "started\nstarted's thread\nstarted's pool\ncell\n"
        "called\ncalled's thread\ncalled's pool\n"
        "async\nasync's thread\nasync's pool\nasync's loop's\n"
    )


# --- the final attempt --------------------------------------------------------------------


@pytest.mark.parametrize("how", ["go", "call"])
def test_the_final_attempts_output_counts(always_replay, how):
    """An attempt that may be retried is not shown; the last that there can be is live."""
    report = always_replay(retried, parameters={"how": how})
    assert report.stdout == "attempt 3\nfirst part\nends\n"
    assert report.value == "attempt 3"


def retried(probe):
    """Fail twice; the third attempt waits to be seen."""

    @step(retries=2, backoff=0.001)
    def flaky():
        attempt = probe.effect("flaky")
        print("attempt", attempt)
        if attempt < 3:
            raise OSError("again")
        print("first part")
        probe.wait_until_shown("first part")
        print("ends")
        return f"attempt {attempt}"

    return flaky() if probe.parameters["how"] == "call" else flaky.go().result()


def a_retried_parent(probe):
    """Retry a parent whose child was delivered into the attempt that failed."""

    def child():
        print("child")
        return probe.effect("child")

    @step(retries=1, backoff=0.001)
    def parent():
        attempt = probe.effect("parent")
        print("attempt", attempt)
        found = go(child).result()
        if attempt == 1:
            raise OSError("again")
        return found

    return parent.go().result()


def test_a_retried_parents_output_contains_its_childrens(always_replay, bench):
    """What a child has printed for the attempt that failed, it has for the one that counts."""
    assert always_replay(a_retried_parent).stdout == "attempt 2\nchild\n"
    assert bench.effects()["child"] == 1


@pytest.mark.parametrize("how", ["thread", "loop"])
def test_what_a_timed_out_step_has_printed(always_replay, how):
    """It is its output, live and replayed; what its body prints afterwards is not."""
    report = always_replay(timed_out, parameters={"how": how})
    assert report.stdout == "before\ntimed out\n"


def timed_out(probe):
    """Let a step time out that has printed, and prints again."""

    def slow():
        print("before")
        probe.event("timed out").wait(10)
        print("after")
        probe.event("printed").set()

    async def slow_async():
        print("before")
        await asyncio.sleep(10)

    body = slow if probe.parameters["how"] == "thread" else slow_async
    try:
        step(body, timeout=0.1).go().result()
    except StepTimeoutError:
        print("timed out")
        probe.event("timed out").set()
        if probe.parameters["how"] == "thread" and probe.count("seen") == 0:
            probe.effect("seen")
            assert probe.event("printed").wait(10)


def cancelled(probe):
    """Cancel a step that has printed, and ask it."""

    def slow():
        print("before")
        probe.event("printed").set()
        probe.event("cancelled").wait(10)
        print("after")

    handle = go(slow)
    if probe.count("first") == 0:
        probe.effect("first")
        assert probe.event("printed").wait(10)
    handle.cancel()
    probe.event("cancelled").set()
    kind = handle.outcome().kind.value
    print(kind)
    return kind


def test_what_a_cancelled_step_has_printed(always_replay):
    """It is its output, where the cell asks it."""
    assert always_replay(cancelled).stdout == "before\ncancelled\n"


# --- what is replayed ------------------------------------------------------------------------


def a_progress_bar(probe):
    """Draw bars that overwrite themselves, called and started, in a parent and alone."""

    def bar(name):
        print(name, end=":")
        for number in range(5):
            print(f"\r{name} {number}", end="", flush=True)
        print("!")
        print("half\r", end="")

    def parent():
        bar("parent's own")
        go(bar, "child").result()
        print("ends")

    step(bar)("called")
    print("cell")
    go(bar, "started").result()
    print("cell")
    step(parent)()


def test_lines_keep_their_last_state(always_replay):
    """Where nobody looks a line is shown when it is done, as replay shows it."""
    assert always_replay(a_progress_bar).stdout == (
        "called 4!\nhalfcell\nstarted 4!\nhalfcell\nparent's own 4!\nhalfchild 4!\nhalfends\n"
    )


def several_kinds(probe):
    """Print in the cell, in steps, in their children; ask some in another order, some never."""

    def child(number):
        print("child", number)
        return number

    def parent(number):
        print("parent", number)
        return sum(gather(go(child, number), go(child, -number)).result())

    @step
    def talk(number):
        print("talk", number)
        return number

    print("cell")
    first, second, unasked = go(parent, 1), go(parent, 2), go(talk, 3)
    second.result()
    print("between")
    talk(4)
    first.result()
    print("last")
    return unasked.name


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_resumed_run_shows_what_an_uninterrupted_one_does(make_bench, moment):
    """Killed at each of its commits and run again, the cell shows the same text."""
    whole = make_bench().run(several_kinds)
    assert whole.error is None, whole.traceback
    for commit in range(1, 40):
        bench = make_bench()
        if not bench.run(several_kinds, kill=(moment, commit, 0.0)).killed:
            break
        resumed = bench.run(several_kinds)
        assert resumed.error is None, resumed.traceback
        assert resumed.stdout == whole.stdout
    assert commit > 5


# --- tee -------------------------------------------------------------------------------------


def all_at_once(probe):
    """Run two steps that both wait to be seen, and a loser; none is waited for."""

    def talk(number):
        print("one", number)
        for other in (1, 2):
            probe.wait_until_shown(f"one {other}\n")
        print("two", number)

    def lose():
        print("loser")
        probe.event("lost").wait(10)

    def win():
        probe.wait_until_shown("loser\n")

    handles = [go(talk, number) for number in (1, 2)]
    select(go(lose), go(win)).result()
    probe.event("lost").set()
    probe.wait_until_shown("two 1\n")
    print("cell")
    gather(handles).result()


def test_tee_shows_everything_live(bench):
    """With tee all steps are shown as they print; replay shows what is recorded, in `go` order."""
    live = bench.run(all_at_once, tee=True)
    assert live.error is None, live.traceback
    lines = ["cell", "loser", "one 1", "one 2", "two 1", "two 2"]
    assert sorted(live.stdout.splitlines()) == lines
    for _ in range(2):
        again = bench.run(all_at_once, tee=True)
        assert again.error is None, again.traceback
        shown = again.stdout.splitlines()
        assert [line for line in shown if line != "loser"] == [
            "one 1", "two 1", "one 2", "two 2", "cell",
        ]  # fmt: skip


def tee_with_children(probe):
    """Run a parent whose children print; a retried step; one that is called."""

    def child(number):
        print("child", number)

    def parent():
        print("parent")
        gather(go(child, 1), go(child, 2)).result()

    @step(retries=1, backoff=0.001)
    def flaky():
        print("attempt", attempt := probe.effect("flaky"))
        if attempt == 1:
            raise OSError("again")

    go(parent).result()
    flaky()
    flaky.go().result()


def test_tee_records_the_same(bench):
    """What is recorded, and so replayed, is the final attempts' output, each in one piece."""
    live = bench.run(tee_with_children, tee=True)
    assert live.error is None, live.traceback
    assert sorted(live.stdout.splitlines()) == [
        "attempt 1", "attempt 2", "attempt 3", "child 1", "child 2", "parent",
    ]  # fmt: skip
    again = bench.run(tee_with_children, tee=True)
    assert again.stdout.splitlines()[0] == "parent"
    assert again.stdout.splitlines()[3:] == ["attempt 2", "attempt 3"]
    assert again.stdout == bench.run(tee_with_children).stdout


def test_a_recorded_run_has_no_timer_output(always_replay):
    """Timers print nothing, and disturb nobody's order."""
    assert always_replay(with_timers).stdout == "one\ntwo\n"


def with_timers(probe):
    """Wait for timers and steps in one gather."""

    def talk(text):
        print(text)

    gather(after(0.001), go(talk, "one"), after(0.002), go(talk, "two")).result()
