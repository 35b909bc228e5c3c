"""Mutated stores: whatever is changed in a store, replay is right, or an error that has a name.

A store with two runs is changed at random, one place at a time: bits flipped, values
swapped between rows and runs, payloads replaced, rows copied and lost, a pickle that
runs code in each column; object files flipped, cut, exchanged, replaced, lost. Then the
program runs again, and questions are asked.
`NBDURABLE_MUTATIONS=10000` says how many stores are mutated (half an hour);
`NBDURABLE_MUTATIONS_SEED` which.
"""

import contextlib
import os
import pickle  # noqa: TID251 - armed, and what is planted
import random
import shutil

import numpy as np
import pytest

from nbdurable import DurableError, after, gather, go, select, step, workflow
from nbdurable.api import configuration, open_stores
from nbdurable.codec import outcomes, values
from nbdurable.inspection import history as recall
from nbdurable.inspection import queries as questions
from nbdurable.store import MEMORY, check, schema
from nbdurable.store import connection as connecting
from nbdurable.view import summary

MUTATIONS = int(os.environ.get("NBDURABLE_MUTATIONS", "200"))  # each column has its turn
SEED = int(os.environ.get("NBDURABLE_MUTATIONS_SEED", "1"))
STORES_OF = 100  # mutations of one store: what is put back makes its tables longer

pytestmark = pytest.mark.timeout(max(300, MUTATIONS))

# --- the program -----------------------------------------------------------------------


def square(number):
    """Square, with a print."""
    print("squaring", number)
    return [number * number]


def refuse(number):
    """Fail."""
    raise ValueError(f"refused {number}")


def inner(number):
    """Start a step of its own."""
    return go(square, number).result() + go(square, number + 1).result()


def program(base):
    """Run a little of everything that is replayed."""
    first = go(square, base)
    first.result()
    won = select(after(3_600), first)
    values = [first.result(), won.result(), won.index]
    try:
        step(refuse, retries=1, backoff=0.0)(base)
    except ValueError as error:
        values.append(str(error))
    values.append(gather(go(inner, base), go(square, base + 5)).result())
    return values


BASES = {"one": 2, "two": 20}
VALUES = {name: [[n * n], [n * n], 1, f"refused {n}", [[n * n, (n + 1) ** 2], [(n + 5) ** 2]]]
          for name, n in BASES.items()}  # fmt: skip


def execute(path, name):
    """Run one of the two runs."""
    with workflow(name, store=path):
        return program(BASES[name])


# --- what must never happen ------------------------------------------------------------


EXPLODED = []


class Bomb:
    """Tells when it is unpickled."""

    def __reduce__(self):
        return EXPLODED.append, ("boom",)


BOMB = pickle.dumps(Bomb())


@pytest.fixture
def armed(monkeypatch):
    """Return a list of what was unpickled that this process had not encoded itself, and signed."""
    believed, unsigned = set(), []
    loads = pickle.loads

    def noting(encode):
        def encoded(value, objects=None, *shared):
            payload = encode(value, objects, *shared)
            data = payload.data
            if payload.pieces and not data:  # the pickle lies in an object file
                data = bytes(objects.restore(payload.pieces)[0])
            believed.add(data)
            return payload

        return encoded

    def loaded(data, **options):
        if bytes(data) not in believed:
            unsigned.append(data)
        return loads(data, **options)

    encode = noting(values.encode)
    for module in (values, outcomes):
        monkeypatch.setattr(module, "encode", encode)
        monkeypatch.setattr(module, "pickled", noting(module.pickled))
    monkeypatch.setattr(pickle, "loads", loaded)
    EXPLODED.clear()
    return unsigned


# --- mutations -------------------------------------------------------------------------

COLUMNS = [
    (table, *column.split()[:2])
    for table, columns in schema.TABLES.items()
    for column in columns.split(",")
]
EXTREMES = {
    "BLOB": [b"", BOMB, bytes(16), bytes(32), b"\xff" * 48],
    "VARCHAR": ["", "größer \N{PILE OF POO}", "x" * 5_000, BOMB.decode("latin-1"),
                "running", "value", "error", "not saved", '[["stdout", "forged"]]', "{", "[1]"],
    "BIGINT": [-(2**63), -1, 0, 1, 2, 2**31, 2**63 - 1],
    "INTEGER": [-(2**31), -1, 0, 1, 2, 2**31 - 1],
    "DOUBLE": [float("nan"), float("inf"), float("-inf"), -1.0, 0.0, 1e308, 5e-324],
    "BOOLEAN": [True, False],
}  # fmt: skip


def flipped(draw, value):
    """Change one bit, letter or digit of a value."""
    match value:
        case bool():
            return not value
        case bytes() if value:
            at = draw.randrange(len(value))
            return value[:at] + bytes([value[at] ^ (1 << draw.randrange(8))]) + value[at + 1 :]
        case str() if value:
            at = draw.randrange(len(value))
            return value[:at] + draw.choice("aZ0 \"'{[") + value[at + 1 :]
        case int():
            return value ^ (1 << draw.randrange(20))
        case float():
            return value + draw.choice([-1e9, -1.0, 1e-6, 1.0, 1e9])
    return value


def mutate(draw, connection, column=None):
    """Change one thing of a store; give what, for the message."""
    table, name, kind = column or draw.choice(COLUMNS)
    place = f"nbdurable.{table}"
    rows = [row for (row,) in connection.execute(f"SELECT rowid FROM {place}").fetchall()]
    if not rows:
        return make_up(draw, connection, table)
    row, other = draw.choice(rows), draw.choice(rows)
    way = draw.choice(["flip", "flip", "extreme", "extreme", "copy", "swap", "row twice", "no row"])
    if way in {"flip", "extreme"}:
        ((value,),) = connection.execute(
            f"SELECT {name} FROM {place} WHERE rowid = ?", [row]
        ).fetchall()
        new = flipped(draw, value) if way == "flip" else draw.choice(EXTREMES[kind])
        connection.execute(f"UPDATE {place} SET {name} = ? WHERE rowid = ?", [new, row])
        return f"{table}.{name} of row {row}: {new!r:.80}"
    if way == "copy":
        connection.execute(
            f"UPDATE {place} SET {name} = (SELECT {name} FROM {place} WHERE rowid = ?) "
            f"WHERE rowid = ?",
            [other, row],
        )
    elif way == "swap":
        connection.execute(
            f"UPDATE {place} AS t SET {name} = s.{name} FROM {place} AS s "
            f"WHERE (t.rowid = $1 AND s.rowid = $2) OR (t.rowid = $2 AND s.rowid = $1)",
            {"1": row, "2": other},
        )
    elif way == "row twice":
        connection.execute(f"INSERT INTO {place} FROM {place} WHERE rowid = ?", [row])
    else:
        connection.execute(f"DELETE FROM {place} WHERE rowid = ?", [row])
    return f"{way} of {table}.{name}, rows {row} and {other}"


def make_up(draw, connection, table):
    """Put a row that nobody wrote into an empty table, of the first run; give what."""
    ((run, execution),) = connection.execute(
        "SELECT run, id FROM nbdurable.execution_log LIMIT 1"
    ).fetchall()
    known = {"run": run, "execution": execution}
    kinds = {name: kind for other, name, kind in COLUMNS if other == table}
    values = [known.get(name, draw.choice(EXTREMES[kind])) for name, kind in kinds.items()]
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO nbdurable.{table} VALUES ({marks})", values)
    return f"a row of {table}: {values!r:.200}"


# --- what becomes of them ----------------------------------------------------------------


def checked(path):
    """Check a store."""
    with open_stores.reading(path) as store:
        return check(store)


def recalled(name, path):
    """Show a past run, and each of its steps."""
    found = recall.recall(name, path)
    if found is not None:
        summary.html(found.view, facts=found.facts)


QUESTIONS = [
    questions.runs,
    questions.status,
    questions.unfinished,
    lambda path: questions.steps(store=path),
    lambda path: questions.why(store=path),
    lambda path: recalled("one", path),
    lambda path: recalled("two", path),
    *(
        lambda path, view=view: questions.query(f"FROM nbdurable.{view}", path)
        for view in schema.VIEWS
    ),
    checked,
]


def look(path, draw, seen):
    """Run both runs and ask two questions; each answers, or fails by a name."""
    for name in BASES:
        with told(seen):
            assert execute(path, name) == VALUES[name]
    for question in draw.sample(QUESTIONS, 2):
        with told(seen):
            question(path)
    assert EXPLODED == []


@contextlib.contextmanager
def told(seen):
    """Accept an error that has a name, and count it."""
    try:
        yield
    except DurableError as error:
        seen[type(error).__name__] = seen.get(type(error).__name__, 0) + 1


@contextlib.contextmanager
def fresh_store():
    """Yield a connection to a store in memory in which both runs have finished."""
    for name in BASES:
        assert execute(MEMORY, name) == VALUES[name]
    with open_stores.reading(MEMORY) as store, store._connection.cursor() as connection:
        connection.execute("SET search_path = 'memory.main'")
        for table in schema.TABLES:
            connection.execute(f"CREATE TABLE main.{table} AS FROM nbdurable.{table}")
        yield store, connection
    open_stores.close_stores()


def restore(connection):
    """Put every table back as it was."""
    connection.begin()
    for table in schema.TABLES:
        connection.execute(f"DELETE FROM nbdurable.{table}")
        connection.execute(f"INSERT INTO nbdurable.{table} FROM main.{table}")
    connection.commit()


def inspect(store):
    """Look at a store as an opening does."""
    store._inspect(macros=False)
    store._believe()


def test_mutated_rows(armed, capsys):
    """A store whose rows were changed replays what it saved, or says what is wrong."""
    draw = random.Random(SEED)
    seen, touched = {}, set()
    for first in range(0, MUTATIONS, STORES_OF):
        with fresh_store() as (store, connection):
            identity = store.id
            for count in range(first, min(first + STORES_OF, MUTATIONS)):
                column = COLUMNS[count % len(COLUMNS)]
                what = mutate(draw, connection, column)
                touched.add(column)
                try:
                    with told(seen):
                        inspect(store)
                        look(MEMORY, draw, seen)
                    assert armed == []
                except Exception as error:
                    raise AssertionError(f"seed {SEED}, mutation {count}: {what}") from error
                store.id = identity
                restore(connection)
                capsys.readouterr()
    with capsys.disabled():
        print(f"\n{MUTATIONS} stores mutated: {seen}")
    assert seen["UntrustedCheckpointError"] > MUTATIONS // 20
    assert touched == set(COLUMNS), "of each table, whatever comes to the schema"


def test_a_bomb_in_every_column(armed, capsys):
    """A pickle that runs code never runs, whatever column of whatever row it is put into."""
    draw = random.Random(SEED)
    seen = {}
    with fresh_store() as (store, connection):
        identity = store.id
        for table, name, kind in COLUMNS:
            if kind not in {"BLOB", "VARCHAR"}:
                continue
            value = BOMB if kind == "BLOB" else BOMB.decode("latin-1")
            connection.execute(f"UPDATE nbdurable.{table} SET {name} = ?", [value])
            with told(seen):
                inspect(store)
                look(MEMORY, draw, seen)
            assert armed == [], (table, name)
            store.id = identity
            restore(connection)
    assert set(seen) >= {"UntrustedCheckpointError", "StoreCorruptError"}


def test_mutated_bytes(tmp_path, armed, capsys):
    """A file with any byte changed replays what it saved, or is called damaged."""
    path = tmp_path / "store.duckdb"
    for name in BASES:
        assert execute(path, name) == VALUES[name]
    open_stores.close_stores()
    whole = path.read_bytes()
    draw = random.Random(SEED)
    seen = {}
    for count in range(max(10, MUTATIONS // 10)):
        at = draw.randrange(len(whole))
        path.write_bytes(
            whole[:at] + bytes([whole[at] ^ (1 << draw.randrange(8))]) + whole[at + 1 :]
        )
        connecting.known.clear()
        try:
            look(path, draw, seen)
            assert armed == []
        except Exception as error:
            raise AssertionError(f"seed {SEED}, file {count}: byte {at}") from error
        finally:
            open_stores.close_stores()
    with capsys.disabled():
        print(f"\n{count + 1} files mutated: {seen}")
    assert seen["StoreCorruptError"] > 0


# --- object files --------------------------------------------------------------------------

SIZE = 40_000  # numbers of 8 bytes: more than what stays in a row


def array(number):
    """Return an array that lies in an object file, mapped when it comes back."""
    return np.arange(SIZE, dtype="int64") * number


def words(number):
    """Return a value whose whole pickle lies in an object file."""
    return [f"word {number * at}" for at in range(SIZE)]


def mixed(number):
    """Return arrays and words: a pickle and two buffers, of which one is another step's, too."""
    return {"array": array(number), "more": array(number + 1), "words": words(number)}


LARGE = {"array": array, "words": words, "mixed": mixed}


def execute_large(path):
    """Run three steps with large values."""
    with workflow("large", store=path):
        return gather({name: go(function, 3) for name, function in LARGE.items()}).result()


def same(found, wanted, *, content):
    """Compare values; arrays by their content only where that has been verified."""
    match wanted:
        case np.ndarray():
            whole = found.shape == wanted.shape and found.dtype == wanted.dtype
            return whole and (not content or bool((found == wanted).all()))
        case dict():
            return found.keys() == wanted.keys() and all(
                same(found[key], wanted[key], content=content) for key in wanted
            )
    return found == wanted


def mutate_file(draw, files):
    """Change one object file; give what, for the message."""
    file, other = draw.choice(files), draw.choice(files)
    whole = file.read_bytes()
    ways = "flip flip flip cut longer bomb padded-bomb empty gone exchanged another folder"
    way = draw.choice(ways.split())
    at = draw.choice([0, len(whole) - 1, draw.randrange(len(whole))])
    if way == "gone":
        file.unlink()
    elif way == "folder":
        file.unlink()
        file.mkdir()
    elif way == "exchanged":
        file.write_bytes(other.read_bytes())
        other.write_bytes(whole)
    else:
        file.write_bytes({
            "flip": whole[:at] + bytes([whole[at] ^ (1 << draw.randrange(8))]) + whole[at + 1 :],
            "cut": whole[:at],
            "longer": whole + BOMB,
            "bomb": BOMB,
            "padded-bomb": BOMB + whole[len(BOMB) :],
            "empty": b"",
            "another": other.read_bytes(),
        }[way])  # fmt: skip
    return f"{way} at {at} of {len(whole)}: {file.name[:8]}, {other.name[:8]}"


def mutate_pieces(draw, path):
    """Let a row name other pieces: another row's, or some that nobody wrote."""
    with open_stores.reading(path) as store, store._connection.cursor() as connection:
        rows = connection.execute(
            "SELECT rowid, pieces FROM nbdurable.checkpoints WHERE octet_length(pieces) > 0"
        ).fetchall()
        (row, pieces), (_, other) = draw.choice(rows), draw.choice(rows)
        new = draw.choice([other, other + pieces, pieces[:-8], flipped(draw, pieces), b"\xff" * 72])
        connection.execute(
            "UPDATE nbdurable.checkpoints SET pieces = ? WHERE rowid = ?", [new, row]
        )
    open_stores.close_stores()
    return f"pieces of row {row}: {new.hex():.80}"


@pytest.mark.parametrize("verify", [True, False], ids=["verify", "default"])
def test_mutated_object_files(tmp_path, armed, capsys, monkeypatch, verify):
    """A value whose file was changed is computed again, named as damaged, or, as data, mapped.

    What is mapped is data, and of the right length: what it holds is compared where that
    is asked for. A pickle is compared always, before it is loaded.
    """
    monkeypatch.setattr(configuration._state, "settings", configuration._state.settings)
    configuration.configure(verify=verify)
    wanted = {name: function(3) for name, function in LARGE.items()}
    kept, path = tmp_path / "kept", tmp_path / "now" / "store.duckdb"
    path.parent.mkdir()
    assert same(execute_large(path), wanted, content=True)
    open_stores.close_stores()
    shutil.copytree(path.parent, kept)
    draw = random.Random(SEED)
    seen = {}
    for count in range(max(20, MUTATIONS // 10)):
        shutil.rmtree(path.parent)
        shutil.copytree(kept, path.parent)
        connecting.known.clear()
        files = [one for one in path.parent.rglob("*") if one.is_file() and one.suffix == ""]
        files = [one for one in files if ".objects" in str(one)]
        assert len(files) >= 3
        what = mutate_pieces(draw, path) if count % 4 == 3 else mutate_file(draw, files)
        try:
            for _ in range(2):
                with told(seen):
                    assert same(execute_large(path), wanted, content=verify)
                open_stores.close_stores()
            with told(seen):
                checked(path)
            assert armed == []
            assert EXPLODED == []
        except Exception as error:
            raise AssertionError(f"seed {SEED}, mutation {count}: {what}") from error
        finally:
            open_stores.close_stores()
            capsys.readouterr()
    with capsys.disabled():
        print(f"\n{count + 1} stores with mutated object files: {seen}")
