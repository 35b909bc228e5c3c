"""CONTRACT section 3: what a step is found again by, and why it ran, run by run.

A program is run, changed as a person would change a cell, and run again in new
processes; each test says which bodies ran and which outcomes were found. An edit is
made by a parameter of the program that chooses between two texts of one function.
"""

import asyncio
import contextvars
import random
import threading
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from nbdurable import InputMovedError, UsageError, gather, go, now, rng, step, uuid4, workflow
from nbdurable.api import open_stores
from nbdurable.events import AttemptStarted, Noticed

setting = 1
calls = 0
known = {}


def ran(bench, before):
    """Return the bodies that have run since the effects were `before`."""
    effects = bench.effects()
    return {name for name in effects if effects[name] != before[name]}


def whys(bench, execution):
    """Return why each step of one execution ran, by its label.

    What is named is named with its module, and that of a program is called program.
    """
    rows = bench.rows(f"SELECT label, why FROM nbdurable.steps WHERE execution = {execution}")
    return {label: why.replace("program.", "") for label, why in rows}


@pytest.fixture
def execute(tmp_path):
    """Yield a function that runs a program in this process, and what could be seen of it."""

    def run(program, **options):
        events = []
        flow = workflow("w", store=tmp_path / "store.duckdb", observers=(events.append,), **options)
        with flow:
            value = program()
        started = [(one.why.value, one.reason) for one in events if isinstance(one, AttemptStarted)]
        return SimpleNamespace(value=value, notes=flow.notes, events=events, whys=started)

    yield run
    open_stores.close_stores()


# --- calls: inserted, deleted, reordered, repeated -----------------------------------------


def a_list_of_calls(probe):
    """Make a call for each letter, capitals in place; each value tells which run it is of."""

    def one(letter):
        return letter, probe.effect(letter)

    called = step(one)
    letters = probe.parameters.get("letters", "aBcD")
    handles = {x: go(one, x) for x in letters if x.islower()}
    found = {x: called(x) for x in letters if x.isupper()}
    return [handles[x].result() if x.islower() else found[x] for x in letters]


async def a_list_of_awaited_calls(probe):
    """Make a call for each letter, awaiting it in place or starting it first."""

    @step
    async def one(letter):
        return letter, probe.effect(letter)

    letters = probe.parameters.get("letters", "aBcD")
    handles = {x: one.go(x) for x in letters if x.islower()}
    return [await (handles[x] if x.islower() else one(x)) for x in letters]


@pytest.mark.parametrize("program", [a_list_of_calls, a_list_of_awaited_calls])
@pytest.mark.parametrize(
    "letters", ["xaBcD", "aXBcD", "aBcDx", "aBD", "D", "", "DcBa", "BaDc", "xDyaZ"]
)
def test_inserting_deleting_and_reordering_disturb_nothing(bench, program, letters):
    """Calls that are still there give what they gave; only new ones run; none is lost."""
    first = bench.run(program).value
    assert first == [(letter, 1) for letter in "aBcD"]
    before = bench.effects()
    expected = [(letter, 1) for letter in letters]
    assert bench.run(program, parameters={"letters": letters}).value == expected
    assert ran(bench, before) == set(letters) - set("aBcD")
    assert bench.run(program).value == first
    assert set(bench.effects().values()) == {1}
    assert bench.check()[0] == []


def rolls(probe):
    """Make the same call several times; each value tells how many there had been."""

    def roll():
        return probe.effect("roll")

    return [go(roll).result() for _ in range(probe.parameters.get("times", 3))]


def test_identical_calls_are_counted(bench):
    """The n-th of equal calls is the n-th on every run; one more runs, one fewer is kept."""
    assert bench.run(rolls).value == [1, 2, 3]
    assert bench.run(rolls).value == [1, 2, 3]
    assert bench.run(rolls, parameters={"times": 5}).value == [1, 2, 3, 4, 5]
    assert bench.run(rolls, parameters={"times": 2}).value == [1, 2]
    assert bench.run(rolls, parameters={"times": 5}).value == [1, 2, 3, 4, 5]
    assert bench.effects() == {"roll": 5}


def rolls_in_any_order(probe):
    """Make the same call three times at once, and let them run in an order of their own."""

    def roll():
        probe.effect("roll")
        return random.random()

    handles = [go(roll) for _ in range(3)]
    return [handle.result() for handle in reversed(handles)], gather(handles).result()


def test_occurrences_are_counted_at_go(always_replay):
    """Which call is which is settled where it is made, not where it runs or is asked for."""
    backwards, forwards = always_replay(rolls_in_any_order).value
    assert backwards == forwards[::-1]
    assert len(set(forwards)) == 3


def ids(probe):
    """Take ids, with and without a name; how many come before is a parameter."""
    before = [uuid4().hex for _ in range(probe.parameters.get("before", 0))]
    return before, uuid4().hex, uuid4(name="mine").hex, rng().random(), now().isoformat()


def test_what_takes_no_arguments_is_matched_by_its_place_or_its_name(bench):
    """One more of its kind before it, and an unnamed id is the next one's; a named one stays."""
    before, own, mine, drawn, time = bench.run(ids).value
    assert (before, len({own, mine})) == ([], 2)
    assert bench.run(ids).value == (before, own, mine, drawn, time)
    shifted = bench.run(ids, parameters={"before": 1}).value
    assert shifted == ([own], shifted[1], mine, drawn, time)
    assert shifted[1] not in {own, mine}
    assert bench.run(ids).value == (before, own, mine, drawn, time)


def one_call_in_many_spellings(probe):
    """Make one call in all the ways that mean the same."""

    def one(x, scale=2, *, unit="m"):
        return probe.effect("one")

    if probe.parameters.get("turned"):
        made = [
            go(one, unit="m", x=5),
            *(step(one).go(5, 2, unit="m") for _ in range(3)),
            go(one, 5),
        ]
    else:
        made = [
            go(one, 5),
            go(one, 5, 2),
            go(one, x=5),
            go(one, 5, unit="m"),
            go(one, scale=2, x=5),
        ]
    return [handle.result() for handle in made]


def test_a_call_is_one_however_it_is_written(bench):
    """Positional, named, or left at its default: equal arguments are occurrences of one call."""
    first = bench.run(one_call_in_many_spellings, limit=1).value
    assert first == [1, 2, 3, 4, 5]
    turned = bench.run(one_call_in_many_spellings, parameters={"turned": True})
    assert turned.value == first
    assert bench.effects() == {"one": 5}


def rolls_of_parents(probe):
    """Make the same call in the cell and in two parents."""

    def roll():
        return probe.effect("roll")

    def parent(name):
        return [name, go(roll).result(), step(roll)()]

    names = probe.parameters.get("names", "ab")
    found = {name: go(parent, name).result() for name in names}
    return found, go(roll).result()


def test_each_step_is_a_namespace_of_its_own(bench):
    """Equal calls of two parents and of the cell don't meet, in whatever order they come."""
    found, own = bench.run(rolls_of_parents).value
    assert sorted([*found["a"][1:], *found["b"][1:], own]) == [1, 2, 3, 4, 5]
    assert bench.run(rolls_of_parents, parameters={"names": "ba"}).value == (found, own)
    assert bench.effects() == {"roll": 5}


async def same_call_from_two_tasks(probe):
    """Make the same call from two tasks; then with a name, and with a key."""

    async def one(number):
        return probe.effect("one")

    async def task(name):
        found = []
        for call in (
            lambda: go(one, 1),
            lambda: step(one, name=name).go(1),
            lambda: step(one, key=lambda number: name).go(1),
        ):
            try:
                found.append(await call())
            except UsageError as error:
                found.append(str(error))
        return found

    return await asyncio.gather(task("first"), task("second"))


def same_call_from_two_threads(probe):
    """Make the same call in the cell's thread and in another; then with a name, and a key."""

    def one(number):
        return probe.effect("one")

    def calls(name):
        for call in (
            lambda: go(one, 1).result(),
            lambda: step(one, name=name)(1),
            lambda: step(one, key=lambda number: name)(1),
        ):
            try:
                found[name].append(call())
            except UsageError as error:
                found[name].append(str(error))

    found = {"first": [], "second": []}
    calls("first")
    thread = threading.Thread(target=contextvars.copy_context().run, args=(calls, "second"))
    thread.start()
    thread.join()
    return [found["first"], found["second"]]


def test_the_same_call_from_two_tasks_is_told_apart(always_replay, bench):
    """By where the cell made the tasks, which has an order."""
    first, second = always_replay(same_call_from_two_tasks).value
    assert sorted(first + second) == [1, 2, 3, 4, 5, 6]
    assert bench.effects() == {"one": 6}


def test_the_same_call_from_two_strands_is_refused(always_replay, bench):
    """What runs in a copy of the cell's context was handed over by nobody: it has no order."""
    first, second = always_replay(same_call_from_two_threads).value
    assert isinstance(first[0], int)
    assert "one: the same call with the same arguments comes from two tasks or threads" in second[0]
    assert "`name=`" in second[0]
    assert "`key=`" in second[0]
    assert all(isinstance(value, int) for value in [*first, *second[1:]])
    assert bench.effects() == {"one": 5}


async def same_call_from_tasks_in_a_row(probe):
    """Make the same call from one short task after the other."""

    async def one():
        return probe.effect("one")

    async def task():
        return await go(one)

    return [await asyncio.create_task(task()) for _ in range(20)]


def test_a_task_that_is_gone_is_still_another_task(always_replay):
    """Which task a call comes from does not hang on where Python puts a new one."""
    assert always_replay(same_call_from_tasks_in_a_row).value == list(range(1, 21))


# --- edits -------------------------------------------------------------------------------


def chain(probe):
    """Load, clean, report, and do something beside; `edit` chooses the text of a function."""
    edit = probe.parameters.get("edit")

    def load():
        probe.effect("load")
        return [3, 1, 2]

    if edit == "clean":

        def clean(rows):
            probe.effect("clean")
            return sorted(rows, reverse=True)

    elif edit == "clean, same value":

        def clean(rows):
            probe.effect("clean")
            return sorted(rows, key=lambda row: row)

    else:

        def clean(rows):
            probe.effect("clean")
            return sorted(rows)

    if edit == "helper":

        def shown(rows):
            return ";".join(str(row) for row in rows)

    else:

        def shown(rows):
            return ",".join(str(row) for row in rows)

    def report(rows, title):
        probe.effect("report")
        return f"{title}: {shown(rows)}"

    def beside(number):
        probe.effect("beside")
        return number

    title = probe.parameters.get("title", "rows")
    reported = go(report, go(clean, go(load)), title)
    return reported.result(), go(beside, 1).result()


@pytest.mark.parametrize(
    ("change", "value", "expected"),
    [
        (
            {"edit": "clean"},
            "rows: 3,2,1",
            {
                "clean(load)": "code changed: chain.clean()",
                "report(clean, 'rows')": "upstream changed",
            },
        ),
        (
            {"edit": "clean, same value"},
            "rows: 1,2,3",
            {"clean(load)": "code changed: chain.clean()"},
        ),
        (
            {"edit": "helper"},
            "rows: 1;2;3",
            {"report(clean, 'rows')": "code changed: chain.shown(), shown"},
        ),
        (
            {"title": "sorted"},
            "sorted: 1,2,3",
            {"report(clean, 'sorted')": "argument changed: title"},
        ),
        ({}, "rows: 1,2,3", {}),
    ],
)
def test_an_edit_runs_what_it_reaches_and_nothing_else(bench, change, value, expected):
    """What was edited runs, and what received a changed value; `why` says which it was."""
    assert bench.run(chain).value == ("rows: 1,2,3", 1)
    assert whys(bench, 1) == {
        "load()": "new",
        "clean(load)": "new",
        "report(clean, 'rows')": "new",
        "beside(1)": "new",
    }
    before = bench.effects()
    assert bench.run(chain, parameters=change).value == (value, 1)
    assert whys(bench, 2) == expected
    assert ran(bench, before) == {label.partition("(")[0] for label in expected}
    effects = bench.effects()
    for parameters in ({}, change, {}):
        again = bench.run(chain, parameters=parameters)
        assert again.value == ((value if parameters else "rows: 1,2,3"), 1)
    assert bench.effects() == effects, "editing back finds the old version, and forth the new one"
    assert bench.check()[0] == []


def values_handed_on(probe):
    """Hand values on as values, not through handles."""
    scale = probe.parameters.get("scale", 2)

    def upstream():
        probe.effect("upstream")
        return scale // 2

    def downstream(number):
        probe.effect("downstream")
        return number + 1

    return step(downstream)(step(upstream, name="upstream").go().result())


def test_a_value_handed_on_is_an_argument(bench):
    """A rerun with an equal value changes nothing downstream; with another, it does."""
    assert bench.run(values_handed_on).value == 2
    assert bench.run(values_handed_on, parameters={"scale": 3}).value == 2
    assert bench.effects() == {"upstream": 2, "downstream": 1}
    assert bench.run(values_handed_on, parameters={"scale": 4}).value == 3
    assert bench.effects() == {"upstream": 3, "downstream": 2}
    assert whys(bench, 2) == {"upstream()": "value changed: scale"}
    assert whys(bench, 3) == {
        "upstream()": "value changed: scale",
        "downstream(2)": "argument changed: number",
    }


def edited_parent(probe):
    """Start children in a parent whose text a parameter chooses."""

    def child(number):
        probe.effect(f"child {number}")
        return number

    if probe.parameters.get("edited"):

        def parent():
            probe.effect("parent")
            return sum(gather(go(child, number) for number in (3, 2, 1)).result()), "edited"

    else:

        def parent():
            probe.effect("parent")
            return sum([step(child)(number) for number in (1, 2)])

    return step(parent, name="parent").go().result()


def test_children_of_an_edited_parent_keep_their_outcomes(bench):
    """Editing a step that starts steps runs it again, and of its children only the new ones."""
    assert bench.run(edited_parent).value == 3
    assert bench.run(edited_parent, parameters={"edited": True}).value == (6, "edited")
    assert bench.effects() == {"parent": 2, "child 1": 1, "child 2": 1, "child 3": 1}
    found = whys(bench, 2)
    assert found.pop("parent()").startswith("code changed: edited_parent.parent()")
    assert found == {"child(3)": "new"}
    assert bench.run(edited_parent).value == 3
    assert bench.effects()["parent"] == 2


def edited_child(probe):
    """Start children, one of which a parameter edits."""
    if probe.parameters.get("edited"):

        def child():
            probe.effect("child")
            return "new"

    else:

        def child():
            probe.effect("child")
            return "old"

    def sibling():
        probe.effect("sibling")
        return "same"

    def parent():
        probe.effect("parent")
        return go(sibling).result(), go(child).result()

    return step(parent, name="parent").go().result()


def test_an_edited_child_runs_its_parent(bench):
    """A parent's code contains its children's: it runs again, the unchanged sibling does not."""
    assert bench.run(edited_child).value == ("same", "old")
    assert bench.run(edited_child, parameters={"edited": True}).value == ("same", "new")
    assert bench.effects() == {"parent": 2, "child": 2, "sibling": 1}


# --- what is no identity, and what stands in its place -----------------------------------------


def with_options(probe):
    """Run a step with options in place, beside, and awaited by a combinator."""
    options = dict(probe.parameters.get("options", {}))
    if "retry_on" in options:
        options["retry_on"] = (OSError, KeyError)

    def one(number):
        return probe.effect("one")

    changed = step(one).with_options(**options)
    return [changed(1), changed.go(2).result(), gather(step(one, **options).go(3)).result()]


@pytest.mark.parametrize(
    "options",
    [
        {"retries": 3},
        {"limit": 1},
        {"timeout": 60},
        {"backoff": 1, "max_backoff": 7},
        {"retries": 1, "timeout": 9.5, "backoff": 0.2},
        {"retry_on": "OSError and KeyError"},
    ],
)
def test_options_are_no_identity(bench, options):
    """How often a step is tried and for how long is no part of what it is."""
    assert bench.run(with_options).value == [1, 2, [3]]
    for limit in (1, 3):
        report = bench.run(with_options, parameters={"options": options}, limit=limit)
        assert report.value == [1, 2, [3]]
    assert bench.effects() == {"one": 3}


def versioned(probe):
    """State a version; the code is a parameter too."""
    if probe.parameters.get("edited"):

        def one():
            return "edited", probe.effect("one")

    else:

        def one():
            return "first", probe.effect("one")

    return step(one, version=probe.parameters.get("version", 1)).go().result()


def test_a_version_stands_in_place_of_the_code(bench):
    """With ``version=`` an edit changes nothing, another version does, and the old one is kept."""
    assert bench.run(versioned).value == ("first", 1)
    assert bench.run(versioned, parameters={"edited": True}).value == ("first", 1)
    edited = {"edited": True, "version": 2}
    assert bench.run(versioned, parameters=edited).value == ("edited", 2)
    assert whys(bench, 3) == {"one()": "code changed: version="}
    assert bench.run(versioned, parameters={"version": "2"}).value == ("first", 3)
    assert bench.run(versioned).value == ("first", 1)
    assert bench.effects() == {"one": 3}


def keyed(probe):
    """State what identifies a call."""

    def fetch(url, session):
        return probe.effect("fetch")

    url, number = probe.parameters.get("url", "a"), probe.parameters.get("number", 1)
    one = step(fetch, key=lambda url, session: url.lower())
    return one(url, number), one.go(url, session=number + 1).result()


def test_a_key_stands_in_place_of_the_arguments(bench):
    """With ``key=`` only what it returns is compared; ``why`` says that it changed."""
    assert bench.run(keyed).value == (1, 2), "two calls of one key are counted"
    assert bench.run(keyed, parameters={"url": "A", "number": 7}).value == (1, 2)
    assert bench.run(keyed, parameters={"url": "b"}).value == (3, 4)
    assert set(whys(bench, 3).values()) == {"argument changed: key"}
    assert bench.run(keyed).value == (1, 2)


def ignoring(probe):
    """Leave an argument and a global out of the comparison."""
    global setting
    setting = probe.parameters.get("setting", 1)

    @step(ignore=("client", "setting"))
    def fetch(url, client):
        return url, setting, probe.effect("fetch")

    return fetch(probe.parameters.get("url", "a"), probe.parameters.get("client", "one"))


def test_what_is_ignored_is_not_compared(bench):
    """``ignore=`` leaves arguments and globals out; the others still count."""
    assert bench.run(ignoring).value == ("a", 1, 1)
    assert bench.run(ignoring, parameters={"client": "two"}).value == ("a", 1, 1)
    assert bench.run(ignoring, parameters={"setting": 2}).value == ("a", 1, 1)
    assert bench.run(ignoring, parameters={"url": "b", "setting": 2}).value == ("b", 2, 2)
    assert whys(bench, 4) == {"fetch('b', 'one')": "argument changed: url"}


def reading_a_global(probe):
    """Read a global, in a step and in a function that it calls."""
    global setting
    setting = probe.parameters.get("setting", 1)

    def helper():
        return setting

    def one():
        return helper(), probe.effect("one")

    return go(one).result()


def test_a_global_that_is_read_is_an_input(bench):
    """Another value of a global that the code reads, at any depth, is another version."""
    assert bench.run(reading_a_global).value == (1, 1)
    assert bench.run(reading_a_global, parameters={"setting": 2}).value == (2, 2)
    assert whys(bench, 2) == {"one()": "value changed: setting"}
    assert bench.run(reading_a_global).value == (1, 1)


def writing_globals(probe):
    """Count in a global, and keep answers in another."""
    global calls
    calls = probe.parameters.get("calls", 0)

    def one(number):
        global calls
        calls += 1
        if number not in known:
            known[number] = probe.effect(f"one {number}")
        return known[number]

    found = [step(one)(number) for number in (1, 2, 1)]
    return found, probe.parameters.get("calls", 0)


def test_a_global_that_a_step_writes_is_no_input(bench):
    """A counter or a memo that the step itself changes re-runs nothing, and is named once."""
    report = bench.run(writing_globals)
    assert report.value == ([1, 1, 1], 0)
    told = [note for note in report.notes if "on replay that change won't happen" in note]
    assert sorted(told) == [
        f"one: writes global `program.{name}`: on replay that change won't happen"
        for name in ("calls", "known")
    ]
    assert bench.check()[1] == ["one(1)", "one(2)", "one(1)"]
    assert bench.run(writing_globals, parameters={"calls": 5}).value == ([1, 1, 1], 5)
    assert bench.effects() == {"one 1": 1, "one 2": 1}


def with_a_default(probe):
    """Leave an argument at a default that a parameter edits."""
    if probe.parameters.get("edited"):

        def one(number, scale=3):
            return number * scale, probe.effect("one")

    else:

        def one(number, scale=2):
            return number * scale, probe.effect("one")

    given = probe.parameters.get("given")
    return go(one, 5).result() if given is None else go(one, 5, given).result()


def test_a_default_is_an_argument(bench):
    """An edited default is another argument; the old value, now spelled out, is the old call's."""
    assert bench.run(with_a_default).value == (10, 1)
    assert bench.run(with_a_default, parameters={"given": 2}).value == (10, 1)
    assert bench.run(with_a_default, parameters={"edited": True}).value == (15, 2)
    assert whys(bench, 3)["one(5)"].startswith("argument changed: scale")
    assert bench.run(with_a_default).value == (10, 1)
    assert bench.effects() == {"one": 2}


def with_a_method(probe):
    """Call a method in a step; a parameter sets its object's state, another edits its class."""
    if probe.parameters.get("edited"):

        class Model:
            def __init__(self, factor):
                self.factor = factor

            def predict(self, x):
                return self.factor * x + 1, probe.effect("predict")

    else:

        class Model:
            def __init__(self, factor):
                self.factor = factor

            def predict(self, x):
                return self.factor * x, probe.effect("predict")

    model = Model(probe.parameters.get("factor", 2))
    return go(model.predict, 5).result(), step(model.predict)(6)


def test_a_methods_object_is_an_argument(bench):
    """A method's ``self`` counts by its state and its class's code, not by where it lies."""
    first = ((10, 1), (12, 2))
    assert bench.run(with_a_method).value == first
    assert bench.run(with_a_method).value == first
    assert bench.run(with_a_method, parameters={"factor": 3}).value == ((15, 3), (18, 4))
    assert set(whys(bench, 3).values()) == {"argument changed: self"}
    assert bench.run(with_a_method, parameters={"edited": True}).value == ((11, 5), (13, 6))
    assert bench.run(with_a_method).value == first
    assert bench.effects() == {"predict": 6}


# --- why ------------------------------------------------------------------------------------


def failing_first(probe):
    """End with an error the first time."""

    def fails():
        if probe.effect("fails") == 1:
            raise OSError("for now")
        return "fine"

    return go(len, "abc").result(), go(fails).result()


def test_why_an_error_is_tried_again(bench):
    """An error that ended the run is tried again as such; what is replayed keeps its reason."""
    assert bench.run(failing_first).error == "OSError: for now"
    assert bench.run(failing_first).value == (3, "fine")
    assert whys(bench, 1) == {"len('abc')": "new"}
    assert whys(bench, 2) == {"fails()": "error retried"}


def many_edited(probe):
    """Run a step for many arguments; a parameter edits it."""
    if probe.parameters.get("edited"):

        def reply(number):
            return "new", number

    else:

        def reply(number):
            return "old", number

    reply = step(reply, name="reply")
    return len(gather(reply.go(number) for number in range(30)).result())


def test_what_will_run_again_is_said_before_it_starts(execute, probe):
    """How many outcomes an edit touches, and what was edited, is said before the first runs."""
    assert execute(lambda: many_edited(probe)).value == 30
    probe.parameters["edited"] = True
    told = execute(lambda: many_edited(probe))
    assert told.value == 30
    told = [
        one.text if isinstance(one, Noticed) else "started"
        for one in told.events
        if isinstance(one, Noticed | AttemptStarted)
    ]
    assert told == [
        f"30 saved outcomes of reply no longer match: {__name__}.many_edited.reply() changed",
        *["started"] * 30,
    ]


def not_saved(probe):
    """Return what can't be saved."""

    def one():
        probe.effect("one")
        return threading.Lock()

    return type(go(one).result()).__name__


def test_why_what_was_not_saved_runs_again(execute, probe):
    """A step whose outcome could not be saved runs again because of that."""
    assert execute(lambda: not_saved(probe)).whys == [("new", "")]
    assert execute(lambda: not_saved(probe)).whys == [("not saved", "")]


def not_saved_for_long(probe):
    """Return what can't be saved, after another step's commit has put the start on disk."""

    def one():
        probe.event("inside").set()
        probe.event("on disk").wait(10)
        return threading.Lock()

    handle = go(one)
    probe.event("inside").wait(10)
    step(len)("the start goes along with this commit")
    probe.event("on disk").set()
    handle.result()


def test_what_was_not_saved_is_not_unfinished(bench):
    """A step that ended with what could not be saved is not shown as if it had never ended."""
    assert bench.run(not_saved_for_long).error is None
    assert bench.rows("SELECT label FROM nbdurable.steps WHERE status = 'unfinished'") == []
    assert bench.rows("SELECT label FROM nbdurable.attempts WHERE ending = 'stopped'") == []


def secrets(probe):
    """Pass secrets by place and by name, alone and with a key."""

    def login(user, password):
        return probe.effect("login")

    handles = [
        go(login, "ann", "hunter2"),
        go(login, "bob", password="hunter2"),
        step(login, key=lambda user, password: user).go("cat", "hunter2"),
    ]
    gather(handles).result()
    return [handle.label for handle in handles]


def test_labels_mask_secrets_by_their_parameters_names(always_replay, bench):
    """An argument called password is not shown, however it was given; its neighbour is."""
    assert always_replay(secrets).value == [
        "login('ann', ***)",
        "login('bob', password=***)",
        "login('cat', ***)",
    ]
    assert bench.rows("SELECT label FROM nbdurable.steps WHERE label LIKE '%hunter2%'") == []


# --- inputs that move -----------------------------------------------------------------------


class Model:
    """An object with a state."""

    def __init__(self):
        self.rates = [1]

    def fit(self, probe):
        """Run a body that reads the state."""
        probe.effect("moved")
        return sum(self.rates)

    def fitted(self, probe):
        """Change the state and return the object."""
        probe.effect("fitted")
        self.rates.append(len(self.rates) + 1)
        return self

    def unfit(self, probe):
        """Change the state and return nothing."""
        probe.effect("unfit")
        self.rates.append(len(self.rates) + 1)


rates = [1]


def moved_before_it_ran(probe):
    """Change an input after `go`, while the only thread is taken; which one is a parameter."""
    which = probe.parameters["which"]
    config, model, inside, opened = [1], Model(), probe.event("inside"), probe.event("open")

    def first():
        probe.event("inside").set()
        probe.event("open").wait(10)
        return threading.Lock()  # not saved: it takes the thread on every run

    def argument(config):
        probe.effect("moved")
        return sum(config)

    def nested(config):
        probe.effect("moved")
        return sum(config["rates"])

    def closure():
        probe.effect("moved")
        return sum(config)

    def reads_global():
        probe.effect("moved")
        return sum(rates)

    taken = go(first)
    inside.wait(10)
    handle = {
        "config": lambda: step(argument, retries=2).go(config),
        "nested": lambda: step(nested, name="nested").go({"rates": config}),
        "closure": lambda: go(closure),
        "self": lambda: go(model.fit, probe),
        "rates": lambda: go(reads_global),
    }[which]()
    for changed in (config, model.rates, rates):
        changed.append(2)
    opened.set()
    taken.result()
    try:
        return handle.result()
    except InputMovedError as error:
        return str(error)


@pytest.mark.parametrize(
    ("which", "named"),
    [
        ("config", "`config`"),
        ("nested", "`config`"),
        ("closure", "`config`"),
        ("self", "`self`"),
        ("rates", "`program.rates`"),
    ],
)
def test_an_input_that_moves_before_the_start_fails_the_step(bench, which, named):
    """The step names what changed under it, its body never runs, and nothing is saved."""
    for _ in range(2):
        report = bench.run(moved_before_it_ran, parameters={"which": which}, limit=1)
        assert report.error is None, report.traceback
        assert named in report.value
        assert "changed after the step was started and before its body ran" in report.value
        assert bench.check() == ([], [])
    assert bench.effects() == {}


async def moved_before_it_was_awaited(probe):
    """Change the argument of an async step before the loop could start it."""
    config = [1]

    async def one(config):
        probe.effect("one")
        return sum(config)

    handle = go(one, config)
    config.append(2)
    try:
        return await handle
    except InputMovedError as error:
        return "`config`" in str(error)


def test_an_input_of_an_async_step_that_moves_before_the_start(bench):
    """An async step starts at the next await: what changes before that has moved."""
    for _ in range(2):
        assert bench.run(moved_before_it_was_awaited).value is True
    assert bench.effects() == {}
    assert bench.check() == ([], [])


def loop_that_reuses_its_argument(probe):
    """Pass one dict, changed for each turn, to steps that run later."""

    def train(config):
        probe.effect(f"train {config['rate']}")
        return config["rate"]

    config, found = {}, []
    for rate in (1, 2, 3):
        config["rate"] = rate
        found.append(go(train, dict(config)) if probe.parameters.get("copy") else go(train, config))
        if not probe.parameters.get("copy"):
            found[-1].outcome()  # wait, and the dict may change
    return [handle.result() for handle in found]


def test_a_dict_reused_in_a_loop(bench):
    """Each turn is a call of its own; a copy for each, or waiting for each, is the way out."""
    assert bench.run(loop_that_reuses_its_argument).value == [1, 2, 3]
    assert bench.run(loop_that_reuses_its_argument, parameters={"copy": True}).value == [1, 2, 3]
    assert set(bench.effects().values()) == {1}


def moved_by_its_body(probe):
    """Change an input in the body; which, and what is returned, are parameters."""
    which, box, model = probe.parameters["which"], [1], Model()

    def returns_nothing(box):
        probe.effect("unfit")
        box.append(2)

    def returns_a_copy(box):
        probe.effect("unfit")
        box.append(2)
        return list(box)

    def returns_it(box):
        probe.effect("fitted")
        box.append(2)
        return box

    def returns_it_inside(box):
        probe.effect("fitted")
        box.append(2)
        return {"made": ([0], box)}

    found = {
        "nothing": lambda: (go(returns_nothing, box).result(), box),
        "copy": lambda: (step(returns_a_copy)(box), box),
        "unfit": lambda: (go(model.unfit, probe).result(), model.rates),
        "it": lambda: step(returns_it)(box),
        "inside": lambda: go(returns_it_inside, box).result()["made"][1],
        "fitted": lambda: go(model.fitted, probe).result().rates,
    }[which]
    return found()


@pytest.mark.parametrize(
    ("which", "value", "named"),
    [
        ("nothing", (None, [1, 2]), "`box`"),
        ("copy", ([1, 2], [1, 2]), "`box`"),
        ("unfit", (None, [1, 2]), "`self`"),
    ],
)
def test_an_input_that_the_body_changes_for_others_is_not_saved(
    always_replay, bench, which, value, named
):
    """What a replay could not do again is not saved: the body runs, and changes it, every time."""
    report = always_replay(moved_by_its_body, runs_again={"unfit"}, parameters={"which": which})
    assert report.value == value
    (note,) = [one for one in report.notes if "not saved" in one]
    assert f"its body changed {named}, which is no part of its result" in note
    assert bench.check() == ([], [])
    assert bench.effects() == {"unfit": 3}


@pytest.mark.parametrize(
    ("which", "named"), [("it", "`box`"), ("inside", "`box`"), ("fitted", "`self`")]
)
def test_an_input_that_the_body_changes_and_returns_is_saved(always_replay, bench, which, named):
    """What the body changed is part of its result, so it is saved; the line says to use it."""
    report = always_replay(moved_by_its_body, parameters={"which": which})
    assert report.value == [1, 2]
    (note,) = [one for one in report.notes if "in place" in one]
    assert f"changed {named} in place: use what it returned" in note
    assert bench.effects() == {"fitted": 1}


def not_retried(probe):
    """Change an input, then fail, with retries left."""

    @step(retries=3, backoff=0.001)
    def fails(box):
        box.append(probe.effect("fails"))
        raise OSError("no")

    box = []
    return str(fails.go(box).outcome().error), box


def test_a_failed_attempt_that_changed_its_input_is_not_retried(bench):
    """A second attempt would have other inputs than the first: there is none, and that is said."""
    report = bench.run(not_retried)
    assert report.value == ("no", [1])
    assert any("not retried, since its body had changed `box`" in note for note in report.notes)
    assert bench.effects() == {"fails": 1}


# --- handles as arguments -----------------------------------------------------------------------


def handles_everywhere(probe):
    """Pass handles alone, and in lists, tuples and dicts, one inside the other."""

    def load(name):
        probe.effect(f"load {name}")
        return [name]

    def take(value, **named):
        probe.effect("take")
        return value, named

    a, b = go(load, "a"), go(load, "b")
    taken = [
        go(take, a),
        go(take, [a, b]),
        go(take, (b, a)),
        go(take, {"k": a, "l": [b]}),
        go(take, [({"deep": (a,)}, 1), "x"]),
        go(take, 0, named=b, more=[a]),
        go(take, gather(a, b)),
    ]
    return gather(taken).result(), [handle.result() is not a.result() for handle in taken]


def test_handles_are_waited_for_inside_containers(always_replay, bench):
    """A step gets values where handles stood, however deep in lists, tuples and dicts."""
    found, _ = always_replay(handles_everywhere).value
    assert found == [
        (["a"], {}),
        ([["a"], ["b"]], {}),
        ((["b"], ["a"]), {}),
        ({"k": ["a"], "l": [["b"]]}, {}),
        ([({"deep": (["a"],)}, 1), "x"], {}),
        (0, {"named": ["b"], "more": [["a"]]}),
        ([["a"], ["b"]], {}),
    ]
    assert bench.effects() == {"load a": 1, "load b": 1, "take": 7}


@dataclass
class Box:
    """Something that is no list, tuple or dict."""

    content: object


def handles_elsewhere(probe):
    """Pass handles inside other objects, then go on."""
    handle, found = go(len, "abc"), []
    for inside in (Box(handle), {handle}, frozenset([handle]), [Box((handle,))]):
        try:
            go(str, inside)
        except UsageError as error:
            found.append(str(error))
    return found, go(str, [handle]).result()


def test_handles_elsewhere_are_refused(always_replay, bench):
    """A handle inside any other object is refused before the step is recorded."""
    found, value = always_replay(handles_elsewhere).value
    assert len(found) == 4
    assert all("pass the handle" in text for text in found)
    assert value == "[3]"
    assert bench.check()[1] == ["len('abc')", "str(<list of 1>)"]


def upstream_of_several(probe):
    """Receive two upstream values; parameters choose what one of them is, and their order."""
    second = probe.parameters.get("second", 2)

    def one(number):
        probe.effect(f"one {number}")
        return number

    def given():
        probe.effect("given")
        return second

    def join(parts, extra):
        probe.effect("join")
        return parts, extra

    a, b = go(one, 1), step(given, name="given").go()
    parts = [b, a] if probe.parameters.get("turned") else [a, b]
    return go(join, parts, 0).result()


def test_what_an_upstream_gave_is_part_of_the_version(bench):
    """Another value from any upstream runs the downstream; the old value finds the old outcome."""
    assert bench.run(upstream_of_several).value == ([1, 2], 0)
    assert bench.run(upstream_of_several, parameters={"second": 5}).value == ([1, 5], 0)
    assert set(whys(bench, 2).values()) == {"value changed: second", "upstream changed"}
    assert bench.run(upstream_of_several).value == ([1, 2], 0)
    assert bench.run(upstream_of_several, parameters={"turned": True}).value == ([2, 1], 0)
    assert bench.effects() == {"one 1": 1, "given": 2, "join": 3}


def failed_upstream(probe):
    """Pass an error on through two steps; beside them goes one that receives something else."""

    def fails():
        probe.effect("fails")
        raise KeyError("gone")

    @step(retries=5, backoff=0.001)
    def downstream(value, other):
        probe.effect("downstream")
        return value

    fine = go(len, "abc")
    failed = go(fails)
    first = downstream.go(failed, fine)
    last = go(downstream, [fine, {"deep": first}], None)
    found = [repr(handle.outcome().error) for handle in (first, last)]
    try:
        last.result()
    except KeyError as error:
        found.append(error is failed.outcome().error)
    return found, downstream.go(fine, 0).result()


def test_a_failed_upstream_gives_its_downstream_no_attempt(always_replay, bench):
    """The upstream's very error is passed on; the downstream has no attempt and no record."""
    report = always_replay(failed_upstream)
    assert report.value == (["KeyError('gone')", "KeyError('gone')", True], 3)
    assert bench.effects() == {"fails": 1, "downstream": 1}
    rows = bench.rows("SELECT label, ending FROM nbdurable.attempts ORDER BY label")
    assert rows == [("downstream(len, 0)", "value"), ("fails()", "error"), ("len('abc')", "value")]
    assert bench.rows("SELECT count(*) FROM nbdurable.steps") == [(3,)]
