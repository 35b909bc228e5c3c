"""A step that kills the kernel again and again: known, named, run alone, given up."""

import asyncio
import os
import signal

import pytest

from nbdurable import RetriesExhaustedError, after, go, race, select, step


def deadly(probe):
    """Kill the process in one of several steps, as often as a parameter says."""

    def body(name):
        number = probe.effect(f"{name} starts")
        if name == "deadly" and number <= probe.parameters["deaths"]:
            probe.event("others").wait(0.5)
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "long":
            probe.event("others").set()
            probe.event("never").wait(0.3)
        return name

    handles = [go(body, name) for name in ("deadly", "long")]
    try:
        return [handle.result() for handle in handles]
    except RetriesExhaustedError as error:
        return str(error)


def alone(probe):
    """Note who runs at the same time as a step that has been in flight at deaths."""
    running = set()

    def body(name):
        running.add(name)
        probe.event(f"seen {name}").wait(0.05)
        met = sorted(running)
        running.discard(name)
        if probe.effect(f"{name} starts") <= 2 and name == "suspect":
            os.kill(os.getpid(), signal.SIGKILL)
        return met

    probe.running = running
    return [handle.result() for handle in [go(body, name) for name in ("suspect", "b", "c")]]


def test_a_suspect_runs_alone(bench):
    """After two deaths in which it was in flight, a step is named, and nothing runs beside it."""
    for _ in range(2):
        assert bench.run(alone).killed
        assert bench.check()[0] == []
    report = bench.run(alone)
    assert not report.killed
    assert report.value[0] == ["suspect"]
    named = [note for note in report.notes if "runs alone" in note]
    said = "body('suspect') was in flight at each of 2 deaths of the kernel: it runs alone"
    assert f"{said} while nothing is timed" in named
    assert bench.check()[0] == []


async def timed_beside_a_suspect(probe):
    """Wait for a quick step as long as a timeout lets."""

    @step(version=1)
    async def suspect():
        if probe.effect("suspect starts") <= 2:
            await asyncio.sleep(0.2)  # its start is saved by then
            os.kill(os.getpid(), signal.SIGKILL)
        while not probe.event("on").is_set():  # noqa: ASYNC110 - set by the cell
            await asyncio.sleep(0.001)

    @step(version=1)
    async def quick():
        return "quick"

    handle = suspect.go()
    if probe.count("suspect starts") < 2:
        await handle
    async with asyncio.timeout(5):
        found = await quick.go()
    probe.event("on").set()
    await handle
    return found


def test_time_does_not_pass_for_what_a_suspect_holds_back(bench):
    """Where time is counted nothing runs alone: else it would decide what is a timeout."""
    for _ in range(2):
        assert bench.run(timed_beside_a_suspect).killed
    for _ in range(2):
        report = bench.run(timed_beside_a_suspect)
        assert (report.value, report.error) == ("quick", None)


TIMED = 20.0
"""Seconds that a timer of these tests has: it passes only where a suspect holds others back."""


async def by_select(quick):
    """Select a step or a timer."""
    return await select(quick.go(), after(TIMED))


async def by_race(quick):
    """Let them race."""
    return await race(quick.go(), after(TIMED))


async def by_a_timer_alone(quick):
    """Begin a timer for nobody, and wait for the step."""
    timer = after(TIMED)
    found = await quick.go()
    timer.cancel()
    return found


WAYS = {way.__name__: way for way in (by_select, by_race, by_a_timer_alone)}


async def timer_beside_a_suspect(probe):
    """Let a step die twice; beside it, wait for a quick one while a timer counts."""

    @step(version=1)
    async def suspect():
        if probe.effect("suspect starts") <= 2:
            await asyncio.sleep(0.2)  # its start is saved by then
            os.kill(os.getpid(), signal.SIGKILL)
        while not probe.event("on").is_set():  # noqa: ASYNC110 - set by the cell
            await asyncio.sleep(0.001)

    @step(version=1)
    async def quick():
        return "quick"

    handle = suspect.go()
    if probe.count("suspect starts") < 2:
        await handle
    found = await WAYS[probe.parameters["way"]](quick)
    probe.event("on").set()
    await handle
    return found


@pytest.mark.parametrize("way", WAYS)
def test_no_timer_passes_for_what_a_suspect_holds_back(bench, way):
    """A timer decides as it would without the suspect: the quick step is first, on each pass."""
    for _ in range(2):
        assert bench.run(timer_beside_a_suspect, parameters={"way": way}).killed
    for _ in range(2):
        report = bench.run(timer_beside_a_suspect, parameters={"way": way})
        assert (report.value, report.error) == ("quick", None)
    assert bench.check()[0] == []


def test_deaths_have_a_cap_of_their_own(bench):
    """Retries are not used up by deaths; after five deaths the step ends with an error."""
    deaths = 0
    while (report := bench.run(deadly, parameters={"deaths": 99})).killed:
        deaths += 1
        assert deaths <= 6
    assert deaths >= 5  # one more where the first came too early for its start to be saved
    assert report.value == "body('deadly'): gave up after 5 attempts: the kernel died during each"
    assert bench.effects()["deadly starts"] == deaths
    assert bench.check()[0] == []
    again = bench.run(deadly, parameters={"deaths": 99})
    assert again.seen() == report.seen()


def retried(probe):
    """Fail twice with an error and die twice, with three retries."""

    @step(retries=3, backoff=0.001)
    def body():
        number = probe.effect("body")
        if number in {1, 3}:
            raise OSError(number)
        if number in {2, 4}:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    return body.go().result()


def test_deaths_do_not_use_up_retries(bench):
    """Two errors and two deaths are two of the three retries."""
    assert bench.run(retried).killed
    assert bench.run(retried).killed
    report = bench.run(retried)
    assert report.value == 5, report.traceback
    assert bench.check()[0] == []


def in_place(probe):
    """Die in steps called in place."""

    @step
    def body(number):
        if probe.effect(f"body {number}") <= 2 and number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    return [body(number) for number in range(3)]


def test_a_suspect_called_in_place(bench):
    """It is named, and runs."""
    while (report := bench.run(in_place)).killed:
        pass
    assert report.value == [0, 1, 2]
    assert bench.effects() == {"body 0": 1, "body 1": 3, "body 2": 1}
