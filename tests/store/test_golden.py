"""Golden stores: a file of each schema version is opened and replayed, without running a body.

A user's store outlives upgrades: of the schema, of the digests that identify calls and
code, of the signature. Run this file to make the store of the present version anew;
that is right only where a version has never been released.
"""

import contextlib
import os
import shutil
import sys
from pathlib import Path

import duckdb  # noqa: TID251 - makes the file of small blocks
import pytest

from nbdurable import StoreVersionError, after, gather, go, select, sleep, step, workflow
from nbdurable.api import open_stores
from nbdurable.events import AttemptStarted
from nbdurable.inspection import queries as questions
from nbdurable.records import RunStatus
from nbdurable.store import Store, check, schema

GOLDEN = Path(__file__).parent.parent / "golden"
KEY = GOLDEN / "signing.key"
FIRST = 3  # those before were never released
VERSIONS = range(FIRST, schema.VERSION + 1)
VALUES = {
    "numbers": [0, 1, 4, 9],
    "text": "größer \ud800",
    "winner": ("square", 2),
    "flaky": "at last",
    "error": ("KeyError", ("gone", 42), ["attempt 1 failed: KeyError: ('gone', 42)"]),
    "inner": 25,
    "large": (b"bb", 300_000),
}
SHOWN = "squaring 2\nsquaring 3\nsquaring 4\nthe end\n"


# --- what was run --------------------------------------------------------------------

_tries = iter(range(1))


def square(number):
    """Square a number."""
    if number > 1:
        print("squaring", number)
    return number * number


def text():
    """Return a text that UTF-8 can't hold."""
    return "größer \ud800"


def flaky():
    """Fail the first time that this process runs it."""
    if next(_tries, None) is not None:
        raise OSError("not yet")
    return "at last"


def gone():
    """Fail."""
    raise KeyError("gone", 42)


def inner(number):
    """Start a step of its own."""
    sleep(0.001)
    return go(square, number).result() + 9


def refuse():
    """Fail, and end the run."""
    raise ValueError("refused")


def large():
    """Return what lies in an object file: a buffer, and a pickle."""
    return {"buffer": memoryview(b"b" * 300_000), "text": "x" * 300_000}


def finished():
    """Run a little of everything; it ends well."""
    found = {"numbers": gather(go(square, number) for number in range(4)).result()}
    found["text"] = step(text, version=1)()
    first = go(square, 1)
    first.result()
    chosen = select(after(3_600), gather(first, after(7_200)), first)
    found["winner"] = chosen.winner.name, chosen.index
    found["flaky"] = step(flaky, retries=1, backoff=0.0, version=1).go().result()
    try:
        step(gone, retries=1, backoff=0.0).go().result()
    except KeyError as error:
        notes = [note for note in error.__notes__ if note.startswith("attempt")]
        found["error"] = type(error).__name__, error.args, notes
    found["inner"] = go(inner, 4).result()
    value = go(large).result()
    found["large"] = bytes(value["buffer"][-2:]), len(value["text"])
    print("the end")
    return found


def unfinished():
    """Save a value, then fail for good."""
    assert go(square, 0).result() == 0
    go(refuse).result()


def make(path):
    """Make the golden store of the present version at `path`."""
    path.unlink(missing_ok=True)
    shutil.rmtree(f"{path}.objects", ignore_errors=True)
    duckdb.connect(str(path), config={"default_block_size": 16_384}).close()
    with workflow("finished", store=path):
        assert finished() == VALUES
    with contextlib.suppress(ValueError), workflow("unfinished", store=path):
        unfinished()
    open_stores.close_stores()


# --- the tests -----------------------------------------------------------------------


@pytest.fixture(params=VERSIONS, ids=lambda version: f"v{version}")
def golden(request, tmp_path, monkeypatch):
    """Yield a copy of each golden store, with the key that signed it."""
    path = tmp_path / "golden.duckdb"
    shutil.copy(GOLDEN / f"v{request.param}.store", path)
    shutil.copytree(GOLDEN / f"v{request.param}.store.objects", f"{path}.objects")
    shutil.copy(KEY, tmp_path / "signing.key")
    monkeypatch.setenv("NBDURABLE_KEY_FILE", str(tmp_path / "signing.key"))
    yield path
    open_stores.close_stores()


def execute(path, name, program):
    """Run `program` as an execution of a golden run; give its value and how many bodies ran."""
    events = []
    value = None
    with contextlib.suppress(ValueError), workflow(name, store=path, observers=[events.append]):
        value = program()
    open_stores.close_stores()
    return value, sum(isinstance(one, AttemptStarted) for one in events)


def test_a_golden_run_is_replayed(golden, capsys):
    """A finished run of every version gives what it gave, and no body runs."""
    assert execute(golden, "finished", finished) == (VALUES, 0)
    assert capsys.readouterr().out == SHOWN
    assert execute(golden, "finished", finished) == (VALUES, 0)


def test_a_golden_run_goes_on(golden):
    """An unfinished run keeps what it saved; what ended it is tried again."""
    [summary] = questions.unfinished(golden)
    assert (summary.name, summary.status, summary.saved) == ("unfinished", RunStatus.FAILED, 2)
    assert execute(golden, "unfinished", unfinished) == (None, 1)


def test_a_golden_store_is_sound(golden):
    """`check` finds nothing, before and after an execution; the views answer."""
    for _ in range(2):
        with contextlib.closing(Store.open(golden)) as store:
            assert check(store) == []
            for view in schema.VIEWS:
                assert store.table(f"SELECT * FROM nbdurable.{view}")[1]
        execute(golden, "finished", finished)


def test_every_version_has_its_golden_store():
    """A schema change comes with a golden file, and none is ever dropped."""
    assert {one.name for one in GOLDEN.glob("*.store")} == {f"v{n}.store" for n in VERSIONS}


@pytest.mark.parametrize("version", range(1, FIRST))
def test_what_was_never_released_is_refused(golden, version):
    """A store of an earlier schema is refused by name, and left as it is."""
    with duckdb.connect(str(golden)) as connection:
        connection.execute(
            "UPDATE nbdurable.meta SET value = ? WHERE key = 'version'", [b"%d" % version]
        )
    content = golden.read_bytes()
    with pytest.raises(StoreVersionError, match=rf"before the first release .*\(schema {version},"):
        Store.open(golden)
    assert golden.read_bytes() == content


def test_the_golden_store_can_be_made_again(tmp_path, monkeypatch):
    """What made the golden store still runs, and makes a store that replays."""
    path = tmp_path / "new.duckdb"
    monkeypatch.setattr(sys.modules[__name__], "_tries", iter(range(1)))
    make(path)
    assert execute(path, "finished", finished) == (VALUES, 0)


def make_golden():
    """Make the golden store of the present version, in this module's own folder."""
    GOLDEN.mkdir(exist_ok=True)
    os.environ["NBDURABLE_KEY_FILE"] = str(KEY)
    make(GOLDEN / f"v{schema.VERSION}.store")


if __name__ == "__main__":
    import test_golden  # a module's functions are named by it, and __main__ is another module

    test_golden.make_golden()
