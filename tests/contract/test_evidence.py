"""CONTRACT section 3, Evidence: code that only a body's run shows, from Python 3.12 on.

A project of one package lies in a folder; each pass loads it anew, as a kernel that was
started again does, and runs a workflow in one store.
"""

import contextlib
import importlib
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from nbdurable import after, gather, go, race, select, step, workflow
from nbdurable.api import open_stores
from nbdurable.events import AttemptStarted, StepCreated
from nbdurable.evidence import starts
from nbdurable.inspection import queries as questions
from nbdurable.store import Store, check, garbage, remove

new = pytest.mark.monitoring
USERS = int(os.environ.get("NBDURABLE_STARTS", "200"))
"""How many steps there are in the stress of many threads; 4,000 take some minutes."""

RULES = """
REGISTRY = {}
def register(cls):
    REGISTRY[cls.__name__] = cls
    return cls
@register
class Strip:
    def apply(self, text): return text.strip() + END
@register
class Upper:
    def apply(self, text): return text.upper()
END = "!"
"""


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Yield a function that runs a program over the project as it is now."""
    project = tmp_path / "work" / "shop"
    project.mkdir(parents=True)
    (project / "__init__.py").touch()
    (project / "rules.py").write_text(RULES)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.syspath_prepend(str(tmp_path / "work"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def run(program, *, load=True, **options):
        labels, ran, whys = {}, [], {}

        def observe(event):
            if isinstance(event, StepCreated):
                labels[event.step] = event.label
            elif isinstance(event, AttemptStarted):
                ran.append(labels[event.step].partition("(")[0])
                whys[labels[event.step]] = f"{event.why}: {event.reason}"

        if load:
            for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
                del sys.modules[name]
            importlib.invalidate_caches()
            importlib.import_module("shop.rules")
        flow = workflow("w", store="s.duckdb", observers=(observe,), **options)
        with flow:
            value = program()
        return SimpleNamespace(value=value, ran=ran, whys=whys, notes=flow.notes)

    yield run
    open_stores.close_stores()
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]
    if Path("s.duckdb").exists():
        with contextlib.closing(Store.open("s.duckdb")) as store:
            assert check(store) == []


def edit(old, text, name="rules"):
    """Change the text of a module of the project."""
    path = Path("shop", f"{name}.py")
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, text))


def registered(name):
    """Return what is registered, in a way that no text shows."""
    return getattr(sys.modules["shop." + "rules"], "REG" + "ISTRY")[name]


@step
def clean(text, name):
    """Use a rule by its name."""
    return registered(name)().apply(text)


@new
def test_an_edit_of_what_ran_runs_the_step_again_and_is_named(execute):
    """Before the first of them starts it is said how many no longer match, and why says what."""

    def program():
        return clean(" a ", "Strip"), clean(" b ", "Strip"), clean("c", "Upper")

    assert execute(program).value == ("a!", "b!", "C")
    assert execute(program).ran == []
    edit("text.strip()", "text.lstrip()")
    edited = execute(program)
    assert edited.value == ("a !", "b !", "C")
    assert edited.ran == ["clean", "clean"]
    assert (
        "2 saved outcomes of clean no longer match: Strip.apply in rules.py changed" in edited.notes
    )
    whys = [row["why"] for row in questions.why("w", "s.duckdb")]
    assert whys.count("code changed: Strip.apply in rules.py") == 2


@new
def test_an_edit_back_finds_the_first_outcome(execute):
    """Several outcomes of one call and version stay."""
    execute(lambda: clean(" a ", "Strip"))
    edit('END = "!"', 'END = "?"')
    assert execute(lambda: clean(" a ", "Strip")).value == "a?"
    edit('END = "?"', 'END = "!"')
    back = execute(lambda: clean(" a ", "Strip"))
    assert (back.value, back.ran) == ("a!", [])
    edit('END = "!"', 'END = "?"')
    again = execute(lambda: clean(" a ", "Strip"))
    assert (again.value, again.ran) == ("a?", [])


@new
def test_a_decision_over_what_changed_is_opened_and_found_again(execute):
    """As over an edited step; nothing is deleted."""

    def program():
        return select(clean.go(" a ", "Strip"), after(60)).result()

    assert execute(program).value == "a!"
    edit('END = "!"', 'END = "?"')
    assert execute(program).value == "a?"
    edit('END = "?"', 'END = "!"')
    back = execute(program)
    assert (back.value, back.ran) == ("a!", [])
    with contextlib.closing(Store.open("s.duckdb")) as store:
        assert store.rows("SELECT count(*) FROM nbdurable.decisions") == [(2,)]


@new
def test_a_race_over_what_changed_lets_its_loser_run(execute):
    """The cancellation that it caused counts no longer; edited back, it does again."""
    gate = threading.Event()

    def slow():
        gate.wait(10)
        return "slow"

    def program():
        first, second = clean.go(" a ", "Strip"), go(slow)
        won = race(first, second).result()
        return won, second.outcome().kind.value

    assert execute(program).value == ("a!", "cancelled")
    gate.set()
    assert execute(program).value == ("a!", "cancelled")
    edit('END = "!"', 'END = "?"')
    edited = execute(program)
    assert edited.value[0] in {"a?", "slow"}
    with contextlib.closing(Store.open("s.duckdb")) as store:
        assert store.rows("SELECT count(*) FROM nbdurable.decisions") == [(2,)]
    edit('END = "?"', 'END = "!"')
    back = execute(program)
    assert back.value[0] == "a!"
    assert "clean" not in back.ran


@new
def test_a_loser_that_finishes_later_changes_nothing(execute):
    """The decision's set is that of the moment when it was made."""
    gate = threading.Event()

    def late(name):
        gate.wait(10)
        return registered(name)().apply("x")

    def program():
        first, second = go(len, "abc"), go(late, "Upper")
        won = select(first, second).result()
        gate.set()
        return won, second.result()

    assert execute(program).value == (3, "X")
    again = execute(program)
    assert (again.value, again.ran) == ((3, "X"), [])


@new
def test_a_parent_holds_only_while_its_children_do(execute):
    """Run or replayed, and also by the code of a child that only a name leads to."""

    def parent(names):
        return [clean(" a ", name) for name in names]

    def program():
        return go(parent, ["Strip", "Upper"]).result()

    assert execute(program).value == ["a!", " A "]
    edit("text.upper()", "text.lower()")
    edited = execute(program)
    assert edited.value == ["a!", " a "]
    assert edited.ran == ["parent", "clean"]
    edit('END = "!"', 'END = "?"')
    assert execute(program).value == ["a?", " a "], "the first child had replayed"


@new
def test_what_did_not_run_does_not_count(execute):
    """Another rule of the same registry."""
    execute(lambda: clean(" a ", "Strip"))
    edit("text.upper()", "text.lower()")
    assert execute(lambda: clean(" a ", "Strip")).ran == []


@new
def test_with_a_version_the_code_part_is_not_kept(execute):
    """The version stands in its place."""
    versioned = clean.with_options(version="1")
    execute(lambda: versioned(" a ", "Strip"))
    edit('END = "!"', 'END = "?"')
    assert execute(lambda: versioned(" a ", "Strip")).ran == []


@new
@pytest.mark.parametrize("text", ["def broken(:", None], ids=["no longer parses", "gone"])
def test_evidence_that_cannot_be_compared_runs_the_step_again(execute, text):
    """The why says which; the module in memory is what runs."""
    execute(lambda: clean(" a ", "Strip"))
    path = Path("shop/rules.py")
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    again = execute(lambda: clean(" a ", "Strip"), load=False)
    assert again.ran == ["clean"]
    assert "rules" in "".join(again.whys.values())


@new
def test_evidence_is_signed(execute):
    """A digest that somebody changed in the file is refused, its parts don't hold."""
    execute(lambda: clean(" a ", "Strip"))
    open_stores.close_stores()
    with contextlib.closing(Store.open("s.duckdb")) as store:
        statement = "UPDATE nbdurable.evidence SET state = 'x'::BLOB WHERE kind = 'text'"
        store.commit(lambda batch: batch.execute(statement, []))
        assert any("evidence" in one for one in check(store))
        again = execute(lambda: clean(" a ", "Strip"))
        assert again.ran == ["clean"]
    open_stores.close_stores()
    Path("s.duckdb").unlink()


@new
def test_collecting_takes_evidence_along(execute):
    """What no outcome has any more goes."""
    execute(lambda: clean(" a ", "Strip"))
    edit('END = "!"', 'END = "?"')
    execute(lambda: clean(" a ", "Strip"))
    open_stores.close_stores()
    with contextlib.closing(Store.open("s.duckdb")) as store:
        count = "SELECT count(DISTINCT evidence) FROM nbdurable.evidence"
        assert store.rows(count) == [(2,)]
        remove(store, garbage(store))
        assert store.rows(count) == [(1,)]
    assert execute(lambda: clean(" a ", "Strip")).ran == []


@new
def test_a_module_that_was_edited_and_not_loaded_anew_runs_what_it_was(execute):
    """What ran is recorded by its instructions; after a restart the text decides."""
    execute(lambda: clean(" a ", "Strip"))
    edit("text.strip()", "text.lstrip()")
    execute(lambda: clean(" a ", "Strip"), load=False)
    assert execute(lambda: clean(" a ", "Strip"), load=False).ran == []
    assert execute(lambda: clean(" a ", "Strip")).value == "a !"


def test_it_is_said_once_a_run_where_code_cannot_be_seen(execute, monkeypatch):
    """By Python 3.11, and where no tool id is free; static reading goes on."""
    monkeypatch.setitem(starts._state, "why", "code that ran is not seen here")
    first = execute(lambda: clean(" a ", "Strip"))
    assert "code that ran is not seen here" in first.notes
    assert "code that ran is not seen here" not in execute(lambda: clean(" a ", "Strip")).notes


@new
def test_a_tool_id_that_is_not_free(monkeypatch):
    """All are taken: nothing is done, and it is said why."""
    monitoring = sys.monitoring
    taken = [tool for tool in range(6) if monitoring.get_tool(tool) is None]
    for tool in taken:
        monitoring.use_tool_id(tool, "somebody")
    try:
        assert "have all tool ids of sys.monitoring" in starts._install()
    finally:
        for tool in taken:
            monitoring.free_tool_id(tool)


@new
def test_code_that_is_kept_holds_from_then_on(execute):
    """As a file: until it changes again; each pass says so until the next with --keep."""
    execute(lambda: clean(" a ", "Strip"))
    edit('END = "!"', 'END = "?"')
    kept = execute(lambda: clean(" a ", "Strip"), keep=True)
    assert kept.ran == []
    assert any(note.startswith("--keep: ") and "clean" in note for note in kept.notes)
    later = execute(lambda: clean(" a ", "Strip"))
    assert later.ran == []
    assert any("another pass with --keep ends this line" in note for note in later.notes)
    edit('END = "?"', 'END = "."')
    assert execute(lambda: clean(" a ", "Strip")).value == "a."


# --- many threads ----------------------------------------------------------------------


@new
@pytest.mark.timeout(60 + USERS)
@pytest.mark.parametrize(("most", "share"), [(500, None), (starts.MOST, 0.01)])
def test_no_start_is_missed_on_many_threads(execute, monkeypatch, most, share):
    """Each of many steps on 32 threads uses four of 40 functions, some of them often.

    Of what a step did not run, a hundredth at most is booked to it, unless it is soon left alone.
    """
    monkeypatch.setattr(starts, "MOST", most)
    lines = [f"def f{n}(x): return x + {n}" for n in range(40)]
    Path("shop/many.py").write_text("\n".join(lines))
    importlib.invalidate_caches()

    def use(number):
        module = importlib.import_module("shop." + "many")
        total = 0
        for at in range(4):
            function = getattr(module, f"f{(number * 7 + at * 11) % 40}")
            for _ in range(400 if (number + at) % 5 == 0 else 3):
                total = function(total)
        return total

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        execute(lambda: gather([go(use, number) for number in range(USERS)]).result(), limit=32)
    finally:
        sys.setswitchinterval(interval)
    open_stores.close_stores()
    with contextlib.closing(Store.open("s.duckdb")) as store:
        rows = store.rows(
            "SELECT c.label, list(e.part) FROM nbdurable.checkpoints c "
            "JOIN nbdurable.evidence e ON e.evidence = c.code_evidence "
            "WHERE e.kind = 'ran' GROUP BY c.label"
        )
    seen = {label: {part.rpartition("|")[2] for part in parts} for label, parts in rows}
    used = {
        f"use({number})": {f"f{(number * 7 + at * 11) % 40}" for at in range(4)}
        for number in range(USERS)
    }
    missed = [(one, names - seen.get(one, set())) for one, names in used.items()]
    assert [one for one in missed if one[1]] == []
    functions = set().union(*used.values())  # observers of this file's run, too, for everybody
    extra = sum(len((seen[one] - names) & functions) for one, names in used.items())
    assert share is None or extra <= share * 4 * USERS


@new
def test_threads_that_nobody_claims_count_for_every_body_that_runs(execute):
    """A pool of the cell's, whose threads began before the steps."""
    with ThreadPoolExecutor(2) as pool:
        pool.submit(time.time).result()

        def use(name):
            return pool.submit(lambda: registered(name)().apply("x ")).result()

        def program():
            return step(use, ignore=("pool",), key=lambda name: name, version=None)("Strip")

        assert execute(program).value == "x!"
        edit('END = "!"', 'END = "?"')
        assert execute(program).value == "x?"
