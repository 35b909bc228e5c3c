"""Trust: hostile stores are refused before anything of them is read or run, and `trust`.

What somebody else could have put into a store lies in wait in each of these tests: a
view, a trigger, a macro, a type, a pickle that runs code.
"""

import contextlib
import hashlib
import pickle  # noqa: TID251 - armed, so that unpickling fails a test
from pathlib import Path

import duckdb  # noqa: TID251 - tampers with stores
import pytest

from nbdurable import (
    StoreCorruptError,
    StoreError,
    UntrustedCheckpointError,
    current_step,
    gather,
    go,
    select,
    step,
    workflow,
)
from nbdurable.api import open_stores
from nbdurable.events import AttemptStarted
from nbdurable.inspection import queries as questions
from nbdurable.inspection.amending import redo
from nbdurable.records import Accepted, Placed, Renamed, Save
from nbdurable.store import (
    Store,
    add_amendment,
    check,
    database,
    load_index,
    schema,
    structure,
    survey,
    trust_store,
)
from nbdurable.store import connection as connecting

pytestmark = pytest.mark.timeout(60)


def double(number):
    """Double."""
    return 2 * number


def program():
    """Run three steps and a select."""
    first = go(double, 1)
    first.result()
    chosen = select(go(double, 2), first)
    return [*gather(first, go(double, 3)).result(), chosen.result()]


def execute(path):
    """Run the program as an execution; give its value and how many bodies ran."""
    events = []
    try:
        with workflow("w", store=path, observers=[events.append]):
            value = program()
    finally:
        open_stores.close_stores()
    return value, sum(isinstance(one, AttemptStarted) for one in events)


def tamper(path, *statements):
    """Change a closed store by SQL."""
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)


def digest(path):
    """Return the digests of a store's files."""
    files = [Path(path), Path(f"{path}.wal")]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.exists()]


@pytest.fixture
def path(tmp_path):
    """Return the path of a store in which the program has run, and that nobody knows."""
    path = tmp_path / "store.duckdb"
    execute(path)
    connecting.known.clear()
    return path


@pytest.fixture(autouse=True)
def closed():
    """Leave no store open behind a test."""
    yield
    open_stores.close_stores()


@pytest.fixture
def other_user(tmp_path, monkeypatch):
    """Be another user from here on: another key."""
    monkeypatch.setenv("NBDURABLE_KEY_FILE", str(tmp_path / "other.key"))


@pytest.fixture
def armed(monkeypatch):
    """Return a list of what was unpickled."""
    loaded = []
    loads = pickle.loads

    def recorded(data, **options):
        loaded.append(data)
        return loads(data, **options)

    monkeypatch.setattr(pickle, "loads", recorded)
    return loaded


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.write_text, (self.target, "boom")


# --- what is foreign in the schema -------------------------------------------------------

SECRET = "system.main.read_text('{secret}')"
FOREIGN = {
    "view for a table": (
        "view checkpoints",
        "ALTER TABLE nbdurable.checkpoints RENAME TO hidden",
        "CREATE VIEW nbdurable.checkpoints AS SELECT * FROM nbdurable.hidden",
    ),
    "view for meta": (
        "view meta",
        "CREATE TABLE main.m AS FROM nbdurable.meta",
        "DROP TABLE nbdurable.meta",
        "CREATE VIEW nbdurable.meta AS SELECT key, value FROM main.m, " + SECRET,
    ),
    "another view": ("view extra", "CREATE VIEW nbdurable.extra AS FROM " + SECRET),
    "changed view": (
        "view decisions",
        "CREATE OR REPLACE VIEW nbdurable.decisions AS FROM " + SECRET,
    ),
    "table for a view": (
        "table decisions",
        "DROP VIEW nbdurable.decisions",
        "CREATE TABLE nbdurable.decisions (a INTEGER)",
    ),
    "another table": ("table extra", "CREATE TABLE nbdurable.extra (a INTEGER)"),
    "macro": ("macro count", "CREATE MACRO nbdurable.count(x) AS 42"),
    "table macro": ("macro steps_of", "CREATE MACRO nbdurable.steps_of() AS TABLE SELECT 1"),
    "type": ("type mood", "CREATE TYPE nbdurable.mood AS ENUM ('fine')"),
    "sequence": ("sequence s", "CREATE SEQUENCE nbdurable.s"),
    "index": ("index i", "CREATE INDEX i ON nbdurable.codes(upper(part))"),
    "trigger": (
        "trigger t",
        "CREATE TABLE main.victim (a INTEGER)",
        "CREATE TRIGGER t AFTER INSERT ON nbdurable.run_log INSERT INTO main.victim SELECT 1",
    ),
    "generated column": (
        "table codes",
        "DROP TABLE nbdurable.codes",
        "CREATE TABLE nbdurable.codes (code BLOB, part VARCHAR, digest BLOB AS (error('read')))",
    ),
    "check": (
        "table codes",
        "DROP TABLE nbdurable.codes",
        "CREATE TABLE nbdurable.codes (code BLOB, part VARCHAR, digest BLOB, CHECK (code > '1'))",
    ),
    "generated column of meta": (
        "table meta",
        "DROP TABLE nbdurable.meta",
        "CREATE TABLE nbdurable.meta (key VARCHAR NOT NULL, value BLOB AS (error('read')))",
    ),
}


@pytest.mark.parametrize("named", FOREIGN)
@pytest.mark.parametrize("opening", [Store.open, survey, trust_store])
def test_what_is_foreign_in_the_schema(path, tmp_path, armed, named, opening):
    """A schema that holds anything but ours is refused by name, untouched, unread."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    what, *statements = FOREIGN[named]
    tamper(path, *(statement.format(secret=secret) for statement in statements))
    before = digest(path)
    armed.clear()
    with pytest.raises(StoreCorruptError, match=what) as caught:
        opening(path)
    assert "left as it is" in str(caught.value)
    assert "another store" in str(caught.value)
    assert digest(path) == before
    assert armed == []


def test_a_schema_without_a_store_in_it(tmp_path):
    """A schema of that name in a user's database, in whatever case, is not built upon."""
    path = tmp_path / "mine.duckdb"
    tamper(path, "CREATE SCHEMA NBDurable", "CREATE TABLE NBDurable.mine AS SELECT 42 AS answer")
    before = digest(path)
    with pytest.raises(StoreCorruptError, match="table mine"):
        Store.open(path)
    assert digest(path) == before


SHADOWS = [
    f"CREATE MACRO main.{name}{arguments} AS error('a macro of the file ran')"
    for name, arguments in {
        "count": "(x)", "count_star": "()", "max": "(x)", "min": "(x)", "last": "(x)",
        "arg_max": "(x, y)", "octet_length": "(x)", "make_timestamp": "(x)", "multiply": "(x, y)",
        "hex": "(x)", "row_number": "()", "round": "(x, y)", "current_database": "()",
        '"+"': "(x, y)", '"*"': "(x, y)", '"||"': "(x, y)", "lower": "(x)", "concat": "(x, y)",
    }.items()
] + [
    f"CREATE MACRO main.duckdb_{kind}() AS TABLE SELECT error('a macro of the file ran')"
    for kind in ("tables", "views", "indexes", "triggers", "sequences", "types", "functions")
] + ["CREATE SCHEMA system", "CREATE SCHEMA other"]  # fmt: skip


def test_macros_that_take_the_names_of_functions(path):
    """Macros in `main` called as DuckDB's functions and operators never run for us."""
    tamper(path, *SHADOWS)
    with duckdb.connect(str(path)) as connection, pytest.raises(duckdb.Error, match="macro of"):
        connection.execute("SELECT 1 + 1")
    assert execute(path) == ([2, 6, 2], 0)
    assert [row["step"] for row in questions.steps(store=path)][:1] == ["double(1)"]
    assert [row["saved"] for row in questions.status(path)] == [3]
    assert len(questions.why(store=path)) == 3
    assert [one.saved for one in questions.runs(path)] == [3]
    with contextlib.closing(Store.open(path)) as store:
        assert check(store) == []
        for view in ("runs", "executions", "steps", "attempts", "decisions"):
            assert store.table(f"SELECT * FROM nbdurable.{view}")[1]
    open_stores.close_stores()
    assert [one.label for one in survey(path).steps] == ["double(1)", "double(2)", "double(3)"]


# --- external access -----------------------------------------------------------------------


def test_a_stranger_is_opened_with_external_access_off(path, monkeypatch):
    """Until a file is known to be this user's, nothing in it could reach another file."""
    access = []
    look = structure.catalogue_of

    def told(connection, *, macros):
        setting = "SELECT current_setting('enable_external_access')"
        access.append((connection.execute(setting).fetchone()[0], macros))
        return look(connection, macros=macros)

    monkeypatch.setattr(database, "catalogue_of", told)
    Store.open(path).close()
    assert access == [(False, True), (True, False)]
    access.clear()
    Store.open(path).close()
    assert access == [(True, False)], "known by now"
    access.clear()
    survey(path)
    assert access == [(False, True)]
    replaced = path.with_name("copy.duckdb")
    replaced.write_bytes(path.read_bytes())
    replaced.replace(path)
    access.clear()
    Store.open(path).close()
    assert access == [(False, True), (True, False)], "another file in the place of the known one"


def test_a_store_of_ones_own_reaches_other_files(path, tmp_path):
    """A user's SQL on the user's own store reads files, as DuckDB does."""
    (tmp_path / "numbers.csv").write_text("n\n1\n2\n")
    found = questions.query(f"SELECT sum(n) AS s FROM '{tmp_path / 'numbers.csv'}'", path)
    assert found["s"].tolist() == [3]


def test_a_refused_store_is_let_go(path, other_user):
    """While the error is still held, the file is nobody's."""
    with pytest.raises(UntrustedCheckpointError) as caught:
        Store.open(path)
    tamper(path, "CREATE TABLE main.mine AS SELECT 1")
    assert caught.value is not None


# --- trust -----------------------------------------------------------------------------------


def test_survey_of_a_foreign_store(path, other_user, armed):
    """A survey names runs and steps, sizes and times, and changes and unpickles nothing."""
    before = digest(path)
    found = survey(path)
    assert not found.ours
    assert found.unsigned >= 10, "a run, its execution and end, a code of 3 parts, 4 outcomes"
    assert [(one.name, one.status, one.saved) for one in found.runs] == [("w", "finished", 3)]
    assert [(one.workflow, one.label, one.kind) for one in found.steps] == [
        ("w", f"double({number})", "value") for number in (1, 2, 3)
    ]
    assert all(one.bytes > 0 and one.started > 0 and one.seconds >= 0 for one in found.steps)
    assert found.problems == ()
    assert digest(path) == before
    assert armed == []


def test_trust_makes_a_store_ones_own(path, other_user, armed):
    """A trusted store replays for its new user; nothing is unpickled while it is signed."""
    with pytest.raises(UntrustedCheckpointError, match="nbdurable trust PATH"):
        execute(path)
    assert trust_store(path).unsigned >= 10
    assert armed == []
    assert execute(path) == ([2, 6, 2], 0)
    assert armed
    again = survey(path)
    assert (again.ours, again.unsigned) == (True, 0)
    with contextlib.closing(Store.open(path)) as store:
        assert check(store) == []


def test_to_trust_ones_own_store_changes_nothing(path):
    """A store that was one's own before stays so, however often it is trusted."""
    for _ in range(2):
        trust_store(path)
        with contextlib.closing(Store.open(path)) as store:
            assert check(store) == []
        assert execute(path) == ([2, 6, 2], 0)
        open_stores.close_stores()


def test_trust_signs_what_stands_beside_outcomes(path, monkeypatch, tmp_path):
    """Saves, redone calls, acceptances and new names: not one's own before, and after it is."""

    def saves():
        current_step().save("work")
        raise OSError("not yet")

    with contextlib.suppress(OSError), workflow("w", store=path):
        step(saves, version=1)()
    redo("w", store=path, errors=True)
    open_stores.close_stores()
    store = Store.open(path)
    index = load_index(store, store.rows("SELECT id FROM nbdurable.run_log LIMIT 1")[0][0])
    accepted = Accepted("run", "code", "work", b"a", b"b", "clean()", 1, 1, 0, b"")
    renamed = Renamed("run", "__main__.work", "work2", 1.0, b"")
    saved = Save(b"call", b"state", b"code", 1, 1, "work", "work()", 1.0, b"", b"", b"")
    placed = Placed("run", b"call", b"path", 1, 1, b"")
    for one in (accepted, renamed, saved, placed):
        store.commit(lambda batch, one=one: add_amendment(batch, index, one))
    store.close()
    monkeypatch.setenv("NBDURABLE_KEY_FILE", str(tmp_path / "other.key"))
    before = survey(path)
    trust_store(path)
    assert survey(path).unsigned == 0
    with contextlib.closing(Store.open(path)) as store:
        assert check(store) == []
        rows = sum(store.rows(f"SELECT count(*) FROM nbdurable.{table}")[0][0]
                   for table, columns in schema.TABLES.items()
                   if "signature" in columns and table != "heads")  # fmt: skip
    assert before.unsigned == rows


def test_trust_signs_in_pieces(path, other_user, monkeypatch):
    """However few rows are read at a time, each is signed."""
    monkeypatch.setattr("nbdurable.store.trust._ROWS_AT_A_TIME", 1)
    trust_store(path)
    assert execute(path) == ([2, 6, 2], 0)


def test_trust_accepts_what_was_changed_in_ones_own_store(path):
    """A changed row of one's own store is counted, and believed from then on."""
    tamper(path, "UPDATE nbdurable.checkpoints SET name = 'double', number = number + 10")
    found = survey(path)
    assert (found.ours, found.unsigned) == (True, 3)


def test_trust_refuses_what_contradicts_itself(path, other_user):
    """A store whose rows contradict each other is not signed, and says why."""
    tamper(path, "INSERT INTO nbdurable.checkpoints FROM nbdurable.checkpoints LIMIT 1")
    before = digest(path)
    assert survey(path).problems
    with pytest.raises(StoreCorruptError, match=r"contradicts itself.*two checkpoints"):
        trust_store(path)
    assert digest(path) == before


@pytest.mark.parametrize("opening", [survey, trust_store])
def test_no_store(tmp_path, opening):
    """A file that is missing, or holds no store, is named; none is made."""
    with pytest.raises(StoreError, match="there is no store at"):
        opening(tmp_path / "none.duckdb")
    assert not list(tmp_path.iterdir())
    tamper(tmp_path / "mine.duckdb", "CREATE TABLE t AS SELECT 1")
    with pytest.raises(StoreError, match="holds no store"):
        opening(tmp_path / "mine.duckdb")


def test_a_bomb_goes_off_only_when_it_is_trusted(path, tmp_path, other_user):
    """What a signature is for: whoever trusts a store runs what is in it, nobody else."""
    target = tmp_path / "boom"
    literal = "".join(f"\\x{byte:02X}" for byte in pickle.dumps(Bomb(target)))
    tamper(path, f"UPDATE nbdurable.checkpoints SET payload = '{literal}'::BLOB")
    for ask in (execute, survey, questions.runs, lambda path: questions.steps(store=path)):
        with contextlib.suppress(UntrustedCheckpointError):
            ask(path)
    assert not target.exists()
    trust_store(path)
    assert not target.exists()
    with contextlib.suppress(TypeError):
        execute(path)
    assert target.exists()
