"""The store: files refused untouched, the lock, the key, signatures, group commit, `check`.

A store is tampered with by SQL, on a connection of the test's own, after it has been
closed: what an attacker, a damaged disk or a careless user can do to it.
"""

import contextlib
import contextvars
import errno
import hashlib
import inspect
import json
import os
import pickle  # noqa: TID251 - armed, so that unpickling fails a test
import re
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import duckdb  # noqa: TID251 - tampers with stores
import pytest

from nbdurable import (
    DurableError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreVersionError,
    UntrustedCheckpointError,
    UsageError,
    after,
    gather,
    go,
    select,
    step,
    workflow,
)
from nbdurable.api import open_stores
from nbdurable.events import AttemptStarted, StepCreated
from nbdurable.inspection import maintenance
from nbdurable.inspection import queries as questions
from nbdurable.records import Kind, RunStatus
from nbdurable.store import (
    MEMORY,
    Store,
    begin_execution,
    check,
    database,
    disk,
    journal,
    keys,
    load_index,
    lock,
    restart,
    schema,
    summaries,
    verify,
)
from nbdurable.store import connection as connecting
from nbdurable.store.index import ReplayIndex
from nbdurable.store.signed import REMEMBERED
from nbdurable.testing import counted_commits

pytestmark = pytest.mark.timeout(60)


# --- programs ------------------------------------------------------------------------


def double(number):
    """Say so, and double."""
    print("doubling", number)
    return 2 * number


def triple(number):
    """Say nothing, and triple."""
    return 3 * number


def refuse(number):
    """Fail."""
    raise ValueError(f"refused {number}")


def three_steps():
    """Run steps in one order, a select over two of them included."""
    first = go(double, 1)
    values = [first.result()]
    second = go(double, 2)
    values.append(second.result())
    chosen = select(second, first)
    return [*values, chosen.result(), chosen.index, double_in_place(3)]


double_in_place = step(double, name="in place")
VALUES = [2, 4, 2, 1, 6]


def execute(path, program=three_steps, *, name="w", **options):
    """Run `program` as one execution, close the store, give its value and what bodies ran."""
    events = []
    try:
        with workflow(name, store=path, observers=[events.append], **options):
            value = program()
    finally:
        open_stores.close_stores()
    return value, bodies(events)


def bodies(events):
    """Return the labels of the bodies that ran, by the events of an execution."""
    labels = {one.step: one.label for one in events if isinstance(one, StepCreated)}
    return [labels[one.step] for one in events if isinstance(one, AttemptStarted)]


def tamper(path, *statements):
    """Change a closed store by SQL."""
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)


def digest(path):
    """Return the digests of a store's files: the database and its write-ahead log."""
    files = [Path(path), Path(f"{path}.wal")]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.exists()]


def problems(path):
    """Return what `check` finds."""
    with pytest.MonkeyPatch.context() as patch:
        # As for a process that has the store open: to any other it isn't what was signed.
        patch.setattr(database, "is_known", lambda _: True)
        with contextlib.closing(Store.open(path)) as store:
            return check(store)


@pytest.fixture
def path(tmp_path):
    """Return the path of a store that is not there yet."""
    return tmp_path / "store.duckdb"


@pytest.fixture(autouse=True)
def closed():
    """Leave no store open behind a test."""
    yield
    open_stores.close_stores()


@pytest.fixture
def armed(monkeypatch):
    """Return a list of what was unpickled, each of which would have run code."""
    loaded = []
    loads = pickle.loads

    def recorded(data, **options):
        loaded.append(data)
        return loads(data, **options)

    monkeypatch.setattr(pickle, "loads", recorded)
    return loaded


def python(code, *arguments, **options):
    """Start another Python process with pipes to its standard streams."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


@contextlib.contextmanager
def ended(process):
    """End another process with the block."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


# --- creation ------------------------------------------------------------------------


def test_created_with_schema_version_and_gitignore(tmp_path):
    """A new store holds the schema, its version, its id; its folder is kept out of git."""
    path = tmp_path / ".nbdurable" / "notebook.duckdb"
    with contextlib.closing(Store.open(path)) as store:
        tables = {row[0] for row in store.rows("SELECT table_name FROM duckdb_tables()")}
        views = {row[0] for row in store.rows("SELECT view_name FROM duckdb_views()")}
        meta = dict(store.rows("SELECT key, value FROM nbdurable.meta"))
        assert tables == set(schema.TABLES)
        assert set(schema.VIEWS) <= views
        assert meta["version"] == b"%d" % schema.VERSION
        assert meta["store"].decode() == store.id
        assert len(store.id) == 32
    assert (tmp_path / ".nbdurable" / ".gitignore").read_text() == "*\n"


def test_opened_again_is_the_same_store(path):
    """A second opening creates nothing and finds the same store."""
    with contextlib.closing(Store.open(path)) as store:
        identity = store.id
        begin_execution(store, "w", now=1.0)
    with contextlib.closing(Store.open(path)) as store:
        assert store.id == identity
        assert [one.name for one in summaries(store)] == ["w"]


def test_gitignore_only_in_our_folder_and_never_changed(tmp_path):
    """A user's folder gets no .gitignore, and one that is there stays as it is."""
    Store.open(tmp_path / "mine" / "warehouse.duckdb").close()
    assert not (tmp_path / "mine" / ".gitignore").exists()
    ours = tmp_path / ".nbdurable"
    ours.mkdir()
    (ours / ".gitignore").write_text("!keep\n")
    Store.open(ours / "n.duckdb").close()
    assert (ours / ".gitignore").read_text() == "!keep\n"


@pytest.mark.parametrize(
    "name",
    ["with spaces.duckdb", "größe 𝄞.duckdb", "a.b.c.duckdb", "noext", "main.duckdb", "memory.db",
     "it's \"so\";--.duckdb", "md:x.duckdb", "100%#.duckdb", "system.duckdb", "temp.duckdb"],
)  # fmt: skip
def test_any_file_name(tmp_path, name):
    """A store works under any name that the file system takes."""
    path = tmp_path / name
    assert execute(path)[0] == VALUES
    connecting.forget(str(path))  # as in a new kernel, which has to look whose it is
    assert execute(path) == (VALUES, [])
    assert path.is_file()
    assert questions.steps(store=path)
    assert problems(path) == []


def test_home_folder_and_links(tmp_path, monkeypatch):
    """``~`` is the home folder; a link and its target are one store."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    execute("~/stores/s.duckdb")
    assert (tmp_path / "home" / "stores" / "s.duckdb").is_file()
    (tmp_path / "link").symlink_to(tmp_path / "home" / "stores")
    assert execute(tmp_path / "link" / "s.duckdb") == (VALUES, [])


def test_in_memory():
    """``:memory:`` keeps runs as long as the process uses it, and makes no file."""
    with contextlib.closing(Store.open(MEMORY)) as store:
        begin_execution(store, "w", now=1.0)
        assert store.path == MEMORY
        assert [one.name for one in summaries(store)] == ["w"]
        assert check(store) == []
    assert not Path(MEMORY).exists()


@pytest.mark.parametrize("path", ["~nobody-of-this-name/s.duckdb", "a\0b.duckdb", "\ud800.duckdb"])
def test_no_path(path):
    """What can't be a file's path is a StoreError that shows it."""
    with pytest.raises(StoreError, match="can't be the path of a store"):
        Store.open(path)


@pytest.mark.parametrize("name", ["nbdurable.duckdb", "NBDurable.db", "nbdurable.copy.duckdb"])
def test_named_like_the_schema(tmp_path, name):
    """A file that DuckDB would confuse with the schema in it is refused before it is made."""
    with pytest.raises(StoreError, match="can't be a store: it is called `nbdurable`"):
        Store.open(tmp_path / "new" / name)
    assert not (tmp_path / "new").exists()


# --- files that are refused, and stay as they are ------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"hello world " * 2000, b"SQLite format 3\0" + bytes(5000), bytes(9000)],
    ids=["empty", "short", "text", "sqlite", "zeros"],
)
def test_not_a_database(path, content):
    """A file that is no DuckDB database is refused and not touched."""
    path.write_bytes(content)
    with pytest.raises(StoreCorruptError, match=r"is not a DuckDB database.*move it away"):
        Store.open(path)
    assert path.read_bytes() == content
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("size", [100, 4096, 12288, 20000, 0.5, 0.999])
def test_cut_short(path, size):
    """A database that was cut short is called damaged, wherever the reading fails."""
    execute(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: size if size > 1 else int(len(whole) * size)])
    before = digest(path)
    with pytest.raises(StoreCorruptError, match=r"is damaged.*restore it from a copy"):
        execute(path)
    assert digest(path) == before


def test_flipped_bytes(path):
    """A block whose bytes have changed is called damaged, never read as data."""
    execute(path)
    whole = path.read_bytes()
    refused = 0
    for at in range(13_000, len(whole), len(whole) // 12):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        try:
            value, ran = execute(path)
        except StoreCorruptError:
            refused += 1
        else:
            assert (value, ran) == (VALUES, [])
    assert refused >= 4


NEWER = """
import os, sys
from nbdurable.store import Store, begin_execution
store = Store.open(sys.argv[1])
begin_execution(store, "w", now=1.0)
update = "UPDATE nbdurable.meta SET value = '99' WHERE key = 'version'"
store._connection.execute(update)
if sys.argv[2] == "True":
    os._exit(0)
store.close()
"""


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
def test_newer_schema_refused_untouched(path, killed):
    """A newer version's store is refused and stays as it is, a log that a kill left included."""
    process = python(NEWER, path, killed)
    process.communicate()
    assert process.returncode == 0
    assert Path(f"{path}.wal").exists() == killed
    before = digest(path)
    with pytest.raises(StoreVersionError, match=r"newer nbdurable \(schema 99.*upgrade"):
        Store.open(path)
    assert digest(path) == before


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM nbdurable.meta WHERE key = 'version'",
        "UPDATE nbdurable.meta SET value = 'one' WHERE key = 'version'",
        "DELETE FROM nbdurable.meta WHERE key = 'store'",
        "UPDATE nbdurable.meta SET value = '\\xFF' WHERE key = 'store'",
        "DELETE FROM nbdurable.meta WHERE key = 'signature'",
    ],
)
def test_meta_that_says_nothing(path, statement):
    """A store whose own description is damaged is refused untouched."""
    Store.open(path).close()
    tamper(path, statement)
    before = digest(path)
    with pytest.raises(StoreCorruptError, match="schema `nbdurable`"):
        Store.open(path)
    assert digest(path) == before


@pytest.mark.parametrize(
    "statement",
    ["DROP TABLE nbdurable.checkpoints CASCADE", "ALTER TABLE nbdurable.checkpoints DROP payload"],
)
def test_a_part_of_ours_is_gone(path, statement):
    """A store that lost a table or a column is refused untouched, before a row is read."""
    execute(path)
    tamper(path, statement)
    before = digest(path)
    with pytest.raises(StoreCorruptError, match=r"checkpoints.*restore it from a copy"):
        execute(path)
    assert digest(path) == before


def test_a_part_of_ours_that_goes_while_it_is_open(store):
    """A table that somebody drops meanwhile is missed by name."""
    store._connection.cursor().execute("DROP TABLE nbdurable.codes CASCADE")
    with pytest.raises(StoreCorruptError, match=r"is damaged: .*codes.*restore it from a copy"):
        load_index(store, "any")


# --- places that can't be written ----------------------------------------------------


@pytest.mark.parametrize("below", ["x.duckdb", "deeper/x.duckdb"])
def test_folder_that_is_a_file(tmp_path, below):
    """A folder that can't be made is named, with what to do."""
    (tmp_path / "file").write_text("content")
    with pytest.raises(StoreError, match=r"folder .*file.* can't be made.*make it writable"):
        Store.open(tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "content"


def test_folder_that_nobody_can_make():
    """Not even root makes a folder in /proc."""
    with pytest.raises(StoreError, match="NBDURABLE_STORE"):
        Store.open("/proc/nbdurable-store/x.duckdb")


def test_path_that_is_a_folder(tmp_path):
    """A folder in the file's place is named, with what to do."""
    with pytest.raises(StoreError, match=r"is a folder.*name another store"):
        Store.open(tmp_path)


AS_NOBODY = """
import os, sys
from nbdurable.store import Store, begin_execution
Store.open(":memory:").close()  # everything is imported
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    store = Store.open(sys.argv[1])
    begin_execution(store, "w", now=1.0)
except Exception as error:
    print(type(error).__name__, error)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("protected", "expected"),
    [("folder", "can't be made or written"), ("file", "can't be opened")],
)
def test_read_only(protected, expected):
    """A read-only folder or file, to a user who is not root, is a StoreError with a cure."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        store = home / ".nbdurable" / "s.duckdb"
        os.environ["NBDURABLE_KEY_FILE"], before = (
            str(Path(folder) / "key"),
            os.environ["NBDURABLE_KEY_FILE"],
        )
        try:
            if protected == "file":
                Store.open(store).close()
                store.chmod(0o444)
                store.parent.chmod(0o755)
            else:
                keys.load_key()
            Path(folder, "key").chmod(0o444)
            Path(folder).chmod(0o755)
            home.chmod(0o555 if protected == "folder" else 0o777)
            process = python(AS_NOBODY, store)
            said, _ = process.communicate()
        finally:
            os.environ["NBDURABLE_KEY_FILE"] = before
    assert said.startswith("StoreError")
    assert expected in said
    assert "make it writable" in said
    assert "NBDURABLE_STORE" in said


# --- the lock ------------------------------------------------------------------------

HOLD = """
import sys
from nbdurable.store import Store
store = Store.open(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
store.close()
"""


def test_held_by_another_process(path):
    """A store that another process holds is waited for, then its holder is named."""
    with ended(python(HOLD, path)) as holder:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(StoreLockedError) as caught:
            Store.open(path, wait=0.2)
    said = str(caught.value)
    assert f"process {holder.pid} (python" in said
    assert "which has had it since 20" in said
    assert "shut that kernel down" in said


def test_let_go_within_the_wait(path, monkeypatch):
    """A holder that lets go within the wait is no error."""
    attempts = []
    connect, look = connecting._connect_once, connecting._connect_to_look

    def look_and_tell(*arguments):
        return connect_and_tell(*arguments, connect=look)

    def connect_and_tell(*arguments, connect=connect):
        try:
            connection = connect(*arguments)
        except StoreLockedError:
            attempts.append("locked")
            if len(attempts) == 1:
                holder.communicate("let go\n")
            raise
        attempts.append("open")
        return connection

    monkeypatch.setattr(connecting, "_connect_once", connect_and_tell)
    monkeypatch.setattr(connecting, "_connect_to_look", look_and_tell)
    with ended(python(HOLD, path)) as holder:
        assert holder.stdout.readline() == "open\n"
        Store.open(path).close()
    assert attempts == ["locked", "open", "open"], "once alone, to look at it, then to use it"


def test_the_wait_is_ten_seconds():
    """A lock held elsewhere is waited for 10 s, unless it is said otherwise."""
    assert inspect.signature(Store.open).parameters["wait"].default == 10.0


@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks(path, monkeypatch, reason):
    """A network folder that has no locks is told of at once, and that nobody holds it."""
    attempts = []

    def lockf(*arguments):
        attempts.append(arguments)
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(lock.fcntl, "lockf", lockf)
    with pytest.raises(StoreError, match="keeps no locks") as caught:
        Store.open(path)
    assert not isinstance(caught.value, StoreLockedError)
    assert "NBDURABLE_STORE" in str(caught.value)
    assert len(attempts) == 1
    assert list(path.parent.iterdir()) == [], "nothing half-made stays behind"


def test_what_is_no_lock_is_not_waited_for(tmp_path):
    """An error that no wait could mend is raised at once."""
    (tmp_path / "x.duckdb").write_text("no database")
    opened = threading.Event()

    def open_it():
        with contextlib.suppress(StoreCorruptError):
            Store.open(tmp_path / "x.duckdb", wait=3600)
        opened.set()

    threading.Thread(target=open_it, daemon=True).start()
    assert opened.wait(30)


# --- a user's own database -----------------------------------------------------------


def test_a_users_database_keeps_its_tables(path):
    """Bookkeeping in a user's database is one schema; tables, views and schemas stay."""
    tamper(
        path,
        "CREATE TABLE steps AS SELECT 42 AS answer",
        "CREATE TABLE runs AS SELECT 'mine' AS workflow, 'no' AS run",
        "CREATE VIEW checkpoints AS SELECT * FROM steps",
        "CREATE SCHEMA other",
        "CREATE TABLE other.meta AS SELECT 1 AS one",
    )
    assert execute(path)[0] == VALUES
    assert execute(path) == (VALUES, [])
    assert problems(path) == []
    with duckdb.connect(str(path)) as connection:
        assert connection.sql("FROM main.steps").fetchall() == [(42,)]
        assert connection.sql("FROM main.checkpoints").fetchall() == [(42,)]
        assert connection.sql("FROM main.runs").fetchall() == [("mine", "no")]
        assert connection.sql("FROM other.meta").fetchall() == [(1,)]
        names = connection.sql(
            "SELECT table_name FROM duckdb_tables() WHERE schema_name != 'nbdurable' ORDER BY 1"
        ).fetchall()
    assert names == [("meta",), ("runs",), ("steps",)]


def test_questions_are_not_answered_by_a_users_tables(path):
    """A user's table called as one of our views does not answer for it."""
    tamper(
        path,
        "CREATE TABLE steps AS SELECT 42 AS answer",
        "CREATE TABLE runs AS SELECT 43 AS answer",
    )
    execute(path)
    assert [row["step"] for row in questions.steps(store=path)] == [
        "double(1)",
        "double(2)",
        "in place(3)",
    ]
    assert [row["workflow"] for row in questions.status(store=path)] == ["w"]
    assert [row["why"] for row in questions.why("w", store=path)] == ["new"] * 3


def test_opened_by_the_user_in_the_same_process(path):
    """A database that the user holds open in this process is shared, whoever comes first."""
    with duckdb.connect(str(path)) as mine:
        mine.execute("CREATE TABLE t AS SELECT 1 AS a")
        assert execute(path)[0] == VALUES
        assert mine.execute("SELECT count(*) FROM nbdurable.checkpoints").fetchone() == (3,)
        mine.execute("INSERT INTO t VALUES (2)")
        assert execute(path) == (VALUES, [])
        assert mine.execute("SELECT a FROM t ORDER BY a").fetchall() == [(1,), (2,)]


def test_opened_by_the_user_in_a_way_that_cant_be_shared(path):
    """A read-only or attached database of this process is named as such, with the cure."""
    tamper(path, "CREATE TABLE t AS SELECT 1 AS a")
    with (
        duckdb.connect(str(path), read_only=True),
        pytest.raises(StoreError, match=r"open in this process already.*close that connection"),
    ):
        Store.open(path)
    with duckdb.connect() as other:
        other.execute(f"ATTACH '{path}' AS mine")
        with pytest.raises(StoreError, match="open in this process already"):
            Store.open(path)


# --- the key -------------------------------------------------------------------------


@pytest.fixture
def key_file(tmp_path, monkeypatch):
    """Point NBDURABLE_KEY_FILE at a place of the test's own."""
    place = tmp_path / "keys" / "signing.key"
    monkeypatch.setenv("NBDURABLE_KEY_FILE", str(place))
    return place


def test_key_is_made_once_for_its_user_alone(key_file):
    """The key has 32 random bytes, mode 0600 in a folder of mode 0700, and stays."""
    before = os.umask(0)
    try:
        key = keys.load_key()
    finally:
        os.umask(before)
    assert len(key) == 32
    assert keys.load_key() == key == key_file.read_bytes()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700
    assert [one.name for one in key_file.parent.iterdir()] == ["signing.key"], "a draft was left"


def test_key_lies_outside_the_project(monkeypatch, tmp_path):
    """Without NBDURABLE_KEY_FILE the key lies in the user's data folder, not beside the store."""
    monkeypatch.delenv("NBDURABLE_KEY_FILE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    found = keys.key_path()
    assert found.name == "signing.key"
    assert "nbdurable" in found.parts
    if sys.platform == "linux":
        assert found == tmp_path / "data" / "nbdurable" / "signing.key"


RACE = """
import secrets, sys
from nbdurable.store import keys
original = secrets.token_bytes

def wait_for_the_other(size):
    if size == 32:
        print("ready", flush=True)
        sys.stdin.readline()
    return original(size)

secrets.token_bytes = wait_for_the_other
print(keys.load_key().hex(), flush=True)
"""


def test_processes_that_race_make_one_key(key_file):
    """Processes that all find no key agree on one."""
    racers = [python(RACE) for _ in range(3)]
    try:
        assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 3
        found = {racer.communicate("go\n")[0].strip() for racer in racers}
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    assert found == {key_file.read_bytes().hex()}
    assert len(list(key_file.parent.iterdir())) == 1


@pytest.mark.parametrize("size", [0, 31, 33])
def test_key_of_a_wrong_length(key_file, path, size):
    """A key that is cut short or longer is refused, and not replaced."""
    key_file.parent.mkdir()
    key_file.write_bytes(bytes(size))
    with pytest.raises(StoreError, match=f"has {size} bytes instead of 32.*restore it"):
        Store.open(path)
    assert key_file.read_bytes() == bytes(size)
    assert not path.exists()


def test_key_that_cant_be_read_or_made(key_file, path):
    """A key that can't be read, or has no place, is a StoreError that names the variable."""
    key_file.mkdir(parents=True)
    with pytest.raises(StoreError, match=r"signing key .* can't be used.*NBDURABLE_KEY_FILE"):
        Store.open(path)
    key_file.rmdir()
    key_file.parent.rmdir()
    key_file.parent.write_text("a file")
    with pytest.raises(StoreError, match="NBDURABLE_KEY_FILE"):
        Store.open(path)
    assert not path.exists()


# --- trust ---------------------------------------------------------------------------


def test_a_store_that_another_key_signed(path, tmp_path, monkeypatch, armed):
    """Another user's store replays nothing: it is refused untouched, nothing is unpickled."""
    execute(path)
    before = digest(path)
    monkeypatch.setenv("NBDURABLE_KEY_FILE", str(tmp_path / "other.key"))
    armed.clear()
    with pytest.raises(
        UntrustedCheckpointError,
        match=r"not written with your key.*other.key.*nbdurable trust PATH",
    ):
        Store.open(path)
    with pytest.raises(UntrustedCheckpointError):
        execute(path)
    assert armed == []
    assert digest(path) == before


def test_a_signature_of_another_store(path, tmp_path):
    """A store's own signature covers its id: another id with it is refused."""
    execute(path)
    tamper(path, "UPDATE nbdurable.meta SET value = '0123456789abcdef' WHERE key = 'store'")
    with pytest.raises(UntrustedCheckpointError):
        Store.open(path)


ONE = "WHERE label = 'double(1)'"


def evil(value):
    """Return the SQL literal of a pickle that would print when loaded."""
    data = pickle.dumps(Evil(value))
    return "'" + "".join(f"\\x{byte:02X}" for byte in data) + "'::BLOB"


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, text):
        self.text = text

    def __reduce__(self):
        return print, (self.text,)


CHECKPOINT_FIELDS = {
    "payload": f"payload = {evil('gotcha')}",
    "payload cut": "payload = payload[1:2]",
    "pieces": "pieces = 'x'::BLOB",
    "kind: error": "kind = 'error'",
    "kind: cancelled": "kind = 'cancelled'",
    "kind: unknown": "kind = 'größer'",
    "name": "name = 'other'",
    "number": "number = 77",
    "cause": "cause = 1",
    "namespace": "namespace = namespace || 'x'::BLOB",
    "code": "code = code || 'x'::BLOB",
    "code replaced": "code = version",
    "output": """output = '[["stdout", "forged"]]'""",
    "signature": "signature = 'x'::BLOB || signature",
    "no signature": "signature = ''::BLOB",
}


@pytest.mark.parametrize("change", CHECKPOINT_FIELDS.values(), ids=CHECKPOINT_FIELDS)
def test_a_checkpoint_that_was_changed(path, armed, capsys, change):
    """A changed field of a checkpoint fails by name; nothing of it is unpickled or shown."""
    execute(path, lambda: go(double, 1).result())
    tamper(path, f"UPDATE nbdurable.checkpoints SET {change} {ONE}")
    capsys.readouterr()
    armed.clear()
    with pytest.raises(UntrustedCheckpointError, match=r"is not .*your key"):
        execute(path, lambda: go(double, 1).result())
    assert armed == []
    assert capsys.readouterr().out == ""
    assert any("wrong signature" in one for one in problems(path))


@pytest.mark.parametrize("column", ["call", "version"])
@pytest.mark.parametrize("value", ["'0123456789abcdef'::BLOB", "{0} || 'x'::BLOB", "{0}[1:15]"])
def test_a_checkpoint_of_another_identity(path, armed, column, value):
    """A checkpoint moved to an identity that nobody asks for is not used, and `check` finds it."""
    execute(path, lambda: go(double, 1).result())
    change = value.format(column)
    tamper(path, f"UPDATE nbdurable.checkpoints SET {column} = {change} {ONE}")
    armed.clear()
    assert execute(path, lambda: go(double, 1).result()) == (2, ["double(1)"])
    assert armed == []
    assert any("wrong signature: double(1)" in one for one in problems(path))


def two():
    """Run two steps."""
    return [go(double, 1).result(), go(double, 2).result()]


def test_a_checkpoint_copied_to_another_call(path, armed):
    """A signed checkpoint put in another call's place fails by name."""
    execute(path, two)
    tamper(
        path,
        "UPDATE nbdurable.checkpoints AS t SET payload = s.payload, kind = s.kind, code = s.code, "
        "signature = s.signature, output = s.output, number = s.number, name = s.name, "
        "namespace = s.namespace FROM nbdurable.checkpoints AS s "
        "WHERE t.label = 'double(1)' AND s.label = 'double(2)'",
        "UPDATE nbdurable.checkpoints SET number = 3 WHERE label = 'double(2)'",
    )
    armed.clear()
    with pytest.raises(UntrustedCheckpointError, match=r"what is saved (of w|in .*) is not"):
        execute(path, two)
    assert armed == []


def test_rows_copied_to_another_store(path, tmp_path, armed):
    """Rows of one store of this user's are not believed in another: the store's id is signed."""
    execute(path, two)
    other = tmp_path / "other.duckdb"
    Store.open(other).close()
    with duckdb.connect(str(other)) as connection:
        connection.execute(f"ATTACH '{path}' AS source (READ_ONLY)")
        for table in ("run_log", "execution_log", "execution_ends", "checkpoints"):
            connection.execute(f"INSERT INTO nbdurable.{table} FROM source.nbdurable.{table}")
    armed.clear()
    with pytest.raises(UntrustedCheckpointError, match="is not what your key signed"):
        execute(other, two)
    assert armed == []


def test_an_error_that_was_changed_is_not_retried(path, armed):
    """An unsigned error is not taken out and tried again: nothing is deleted on its word."""

    def program():
        with contextlib.suppress(ValueError):
            go(refuse, 1).result()
        return go(double, 1).result()

    execute(path, program)
    tamper(
        path,
        "UPDATE nbdurable.checkpoints SET payload = 'x'::BLOB WHERE kind = 'error'",
        "DELETE FROM nbdurable.seen_errors",
    )
    armed.clear()
    with pytest.raises(UntrustedCheckpointError, match=r"what is saved (of w|in .*) is not"):
        execute(path, program)
    assert armed == []
    with duckdb.connect(str(path), read_only=True) as connection:
        count = connection.execute("SELECT count(*) FROM nbdurable.checkpoints").fetchone()
    assert count == (2,)


DECISION_FIELDS = {
    "key": "key = '0123456789abcdef'::BLOB",
    "winner": "winner = losers[1:16]",
    "winner longer": "winner = winner || 'x'::BLOB",
    "number": "number = number + 1",
    "branches": "branches = ''::BLOB",
    "branches longer": "branches = branches || 'x'::BLOB",
    "losers": "losers = ''::BLOB",
    "losers: the winner": "losers = winner || winner",
    "losers longer": "losers = losers || 'x'::BLOB",
    "execution": "seconds = 7.0",
    "label": "label = 'race'",
    "winner's label": "winner_label = 'double(2)'",
}


@pytest.mark.parametrize("change", DECISION_FIELDS.values(), ids=DECISION_FIELDS)
def test_a_decision_that_was_changed(path, change):
    """A changed field of a decision costs that decision: it is told, and decided anew."""

    def program():
        first = go(double, 1)
        first.result()
        return select(go(double, 2), first).result()

    def told():
        with workflow("w", store=path) as running:
            assert program() == saved
        open_stores.close_stores()
        return [one for one in running.notes if "is not signed by your key" in one]

    saved = execute(path, program)[0]
    tamper(path, f"UPDATE nbdurable.decision_log SET {change}")
    assert any("a decision with a wrong signature" in one for one in problems(path))
    assert ["it is decided anew" in one for one in told()] == [True]
    assert problems(path) == []
    assert told() == []
    assert execute(path, program) == (saved, [])


def test_a_run_that_was_changed_can_be_left(path):
    """`restart` is the way out of a run that is not believed, and works."""
    execute(path)
    tamper(
        path,
        "UPDATE nbdurable.checkpoints SET number = 99",
        "UPDATE nbdurable.decision_log SET number = 99",
    )
    with pytest.raises(UntrustedCheckpointError):
        execute(path)
    maintenance.restart("w", path)
    value, ran = execute(path)
    assert value == VALUES
    assert len(ran) == 3


# --- check ---------------------------------------------------------------------------

OF_ONE = f"FROM nbdurable.checkpoints {ONE}"
ATTEMPT = "call, version, attempt, execution, name, label, started, seconds"
SAVE = "call, ''::BLOB, code, execution, 1, name, label, 0, ''::BLOB, ''::BLOB, ''::BLOB"
VIOLATIONS = {
    "two checkpoints for one call and version": [
        f"INSERT INTO nbdurable.checkpoints SELECT * REPLACE (number + 10 AS number) {OF_ONE}"
    ],
    "a checkpoint of no execution": [f"UPDATE nbdurable.checkpoints SET execution = 99 {ONE}"],
    "an execution of no run": ["DELETE FROM nbdurable.run_log"],
    "an execution with two ends": [
        "INSERT INTO nbdurable.execution_ends FROM nbdurable.execution_ends"
    ],
    "one number for two outcomes of a run": [
        "UPDATE nbdurable.checkpoints SET number = 2 WHERE number = 1"
    ],
    "two decisions over one set of branches": [
        "INSERT INTO nbdurable.decision_log FROM nbdurable.decision_log"
    ],
    "an outcome of an unknown kind": [f"UPDATE nbdurable.checkpoints SET kind = 'no kind' {ONE}"],
    "a checkpoint and a concluded attempt with one number": [
        f"INSERT INTO nbdurable.attempt_ends SELECT {ATTEMPT}, 'error', '', true, ''::BLOB {OF_ONE}"
    ],
    "two saves for one call": [f"INSERT INTO nbdurable.saves SELECT {SAVE} {OF_ONE}"] * 2,
    "a save of no execution": [
        f"INSERT INTO nbdurable.saves SELECT {SAVE} {OF_ONE}",
        "UPDATE nbdurable.saves SET execution = 99",
    ],
    "an outcome whose evidence is not there": [
        f"UPDATE nbdurable.checkpoints SET code_evidence = 'x'::BLOB {ONE}"
    ],
    "evidence that is not what was signed": [
        "INSERT INTO nbdurable.evidence VALUES ('x'::BLOB, 'kind', 'part', 'state'::BLOB)"
    ],
    "an error seen that is not there": [
        f"INSERT INTO nbdurable.seen_errors SELECT call, version, 1, ''::BLOB {OF_ONE}"
    ],
    "an execution ended in an unknown state": [
        "UPDATE nbdurable.execution_ends SET status = 'vanished'"
    ],
    "a checkpoint with a wrong signature": [
        f"UPDATE nbdurable.checkpoints SET payload = 'x'::BLOB {ONE}"
    ],
    "a decision with a wrong signature": ["UPDATE nbdurable.decision_log SET number = 50"],
    "a decision with another number than its winner's": [
        f"UPDATE nbdurable.checkpoints SET number = 50 {ONE}"
    ],
    "a decision against the order": [
        "UPDATE nbdurable.checkpoints SET number = 0 WHERE label = 'double(2)'"
    ],
}


@pytest.mark.parametrize("sentence", VIOLATIONS)
def test_check_finds(path, sentence, monkeypatch):
    """`check` gives the sentence of each invariant that was broken, and what breaks it."""
    execute(path)
    assert problems(path) == []
    tamper(path, *VIOLATIONS[sentence])
    # As for a process that has the store open: to any other it isn't what was signed.
    monkeypatch.setattr(database, "is_known", lambda _: True)
    found = problems(path)
    assert any(one.startswith(f"{sentence}: ") for one in found), found


def test_check_is_tried_on_every_sentence():
    """Each sentence that `check` can give has its violation in the table above."""
    others = re.findall(r'f"([^:{"]+): ', inspect.getsource(verify))
    assert len(others) >= 5
    with_files = {"a value that can't be restored"}  # tried where values are large
    assert {*verify._QUERIES, *others} - with_files == set(VIOLATIONS)


def test_check_is_silent_on_a_sound_store(path):
    """A store with values, errors, retries, selects, timers, sub-workflows is sound."""

    def inner(number):
        return go(double, number).result() + 1

    def program():
        tries = iter(range(2))

        def flaky(_):
            if next(tries, None) is not None:
                raise OSError("not yet")
            return "at last"

        found = [step(flaky, retries=2, backoff=0.0, version=1).go(0).result()]
        with contextlib.suppress(ValueError):
            go(refuse, 1).result()
        found.append(go(inner, 4).result())
        slow = go(double, 9)
        found.append(select(gather(slow, go(double, 8)), after(60)).result())
        with contextlib.suppress(ExceptionGroup):
            select(go(refuse, 2), go(refuse, 3), success=True).result()
        return found

    expected = ["at last", 9, [18, 16]]
    assert execute(path, program)[0] == expected
    assert problems(path) == []
    assert execute(path, program)[0] == expected
    with pytest.raises(ValueError, match="refused 7"):
        execute(path, lambda: go(refuse, 7).result())
    execute(path, program, new=True)
    assert problems(path) == []


# --- commits that fail ---------------------------------------------------------------


class Faulty:
    """A DuckDB connection on which one method fails from now on."""

    def __init__(self, connection, method, error):
        self._connection = connection
        self._method = method
        self._error = error

    def __getattr__(self, name):
        if name == self._method:
            return self._fail
        return getattr(self._connection, name)

    def _fail(self, *arguments, **options):
        raise self._error


NO_SPACE = duckdb.IOException("IO Error: Could not write file s.wal: No space left on device")
BROKEN = duckdb.IOException("IO Error: the disk has caught fire")


def break_commits(path, method, error):
    """Let the journal's connections fail from now on, in the open store at `path`."""
    journal = open_stores._state.opens[str(path.resolve())].store.journal
    for name, value in list(vars(journal).items()):
        if isinstance(value, duckdb.DuckDBPyConnection):
            setattr(journal, name, Faulty(value, method, error))


@pytest.mark.parametrize("method", ["begin", "commit", "execute"])
@pytest.mark.parametrize(
    ("error", "named", "cure"),
    [(NO_SPACE, StoreFullError, "free some space"), (BROKEN, StoreError, "caught fire")],
    ids=["full", "broken"],
)
def test_a_commit_that_fails(path, method, error, named, cure):
    """What was acknowledged is kept; what fails is raised where it is waited for, and after."""

    def cell():
        assert go(double, 1).result() == 2
        break_commits(path, method, error)
        # A new function is a row, too: each method is used. Two steps at once may share a commit.
        for number in (2, 3):
            with pytest.raises(named, match=cure):
                go(triple, number).result()
        with pytest.raises(named, match=cure):
            double_in_place(5)

    with pytest.raises(named, match=cure), workflow("w", store=path):
        cell()
    open_stores.close_stores()
    assert problems(path) == []
    value, ran = execute(path, lambda: [go(double, 1).result(), go(triple, 2).result()])
    assert value == [2, 6]
    assert ran == ["triple(2)"]


def test_a_store_that_broke_is_left_as_it_is(path):
    """What could not be written is not begun once more when the store is let go."""

    def cell():
        go(double, 1).result()
        break_commits(path, "execute", BROKEN)
        go(double, 2).result()

    with pytest.raises(StoreError), workflow("w", store=path):
        cell()
    log = path.with_name(f"{path.name}.wal")
    before = path.read_bytes(), log.read_bytes()
    open_stores.close_stores()
    assert (path.read_bytes(), log.read_bytes()) == before
    assert execute(path, two) == ([2, 4], ["double(2)"])


def test_a_commit_of_one_row_that_fails(path):
    """A single row, which is its own transaction, fails alike."""

    def cell():
        go(double, 1).result()
        break_commits(path, "execute", NO_SPACE)
        go(double, 2).result()

    with pytest.raises(StoreFullError), workflow("w", store=path):
        cell()
    open_stores.close_stores()
    assert execute(path, two) == ([2, 4], ["double(2)"])


def test_a_disk_that_is_full_at_the_first_opening(path, monkeypatch):
    """A file that could not even be begun is told of as the full disk that it is."""

    def connect(place, **_):
        Path(place).touch()
        raise NO_SPACE

    monkeypatch.setattr(duckdb, "connect", connect)
    with pytest.raises(StoreFullError, match="free some space"):
        Store.open(path)


BEGUN = """
import resource, signal, sys
from nbdurable.store import Store

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
most, path = int(sys.argv[2]), sys.argv[1]
Store.open(path + ".other").close()  # the key is written
resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
try:
    Store.open(path)
except Exception as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit there")
@pytest.mark.parametrize("most", [0, 1, 4096, 12288])
def test_a_disk_that_was_full_at_the_first_opening(path, most):
    """What could only be begun is not in the way when there is room again."""
    process = python(BEGUN, path, most)
    said, _ = process.communicate(timeout=50)
    assert said.split() == ["StoreFullError"]
    assert execute(path, lambda: go(double, 1).result()) == (2, ["double(1)"])


def test_a_full_disk_removes_nothing_that_was_there(path, monkeypatch):
    """A file that this opening did not begin stays, whatever is in it."""
    path.write_bytes(b"something")

    def connect(place, **_):
        raise NO_SPACE

    monkeypatch.setattr(duckdb, "connect", connect)
    with pytest.raises(StoreFullError):
        Store.open(path)
    assert path.read_bytes() == b"something"


def test_the_next_execution_opens_the_store_anew(path):
    """After a failed commit the next execution in this process works, with the lock let go."""

    def cell():
        go(double, 1).result()
        break_commits(path, "commit", BROKEN)
        go(triple, 2).result()

    with pytest.raises(StoreError, match="caught fire"), workflow("w", store=path):
        cell()
    with workflow("w", store=path) as run:
        assert [go(double, 1).result(), go(triple, 2).result()] == [2, 6]
        assert run._state.opened.previous is RunStatus.DIED
    open_stores.close_stores()
    with ended(python(HOLD, path)) as other:
        assert other.stdout.readline() == "open\n"


def test_a_broken_store_is_not_closed_under_another_run(path):
    """Two runs share a store, one of them breaks it: the other's new connection stays its own."""
    began, left, values, broken = threading.Event(), threading.Event(), [], []

    def second():
        with workflow("second", store=path):
            began.set()
            left.wait(20)
            return go(double, 2).result()

    def cell():
        broken.append(open_stores._state.opens[str(path)].store)
        break_commits(path, "execute", BROKEN)
        with pytest.raises(StoreError, match="caught fire"):
            go(double, 1).result()
        # In a context of its own: else it would belong to the run.
        values.append(contextvars.Context().run(in_thread, second))
        assert began.wait(20)

    with pytest.raises(StoreError, match="caught fire"), workflow("first", store=path):
        cell()
    with pytest.raises(duckdb.ConnectionException, match="closed"):
        broken[0]._connection.execute("SELECT 1")
    open_stores.close_stores()
    left.set()
    assert values[0]() == 4


def in_thread(function):
    """Start `function` on a thread; give what waits for its value."""
    found, done = {}, threading.Event()

    def run():
        try:
            found["value"] = function()
        except BaseException as error:
            found["error"] = error
        done.set()

    threading.Thread(target=run, daemon=True).start()

    def result():
        assert done.wait(30)
        if "error" in found:
            raise found["error"]
        return found["value"]

    return result


LIMITED = """
import os, resource, sys
from nbdurable import go, workflow

def text(size):
    return "x" * size

try:
    with workflow("w", store=sys.argv[1]):
        print(len(go(text, 1).result()), flush=True)
        most = os.path.getsize(sys.argv[1] + ".wal") + 5000
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
        for size in (100_000, 2):
            try:
                go(text, size).result()
            except Exception as error:
                print(type(error).__name__, flush=True)
except Exception as error:
    print(type(error).__name__, flush=True)
os._exit(0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit there")
def test_a_file_that_can_grow_no_more(path):
    """A real write error of the operating system: named, nothing hangs, nothing is lost."""
    process = python(LIMITED, path)
    said, _ = process.communicate(timeout=50)
    assert process.returncode == 0
    assert said.split() == ["1", "StoreFullError", "StoreFullError", "StoreFullError"]
    assert problems(path) == []
    with contextlib.closing(Store.open(path)) as store:
        assert store.rows("SELECT label, number FROM nbdurable.checkpoints") == [("text(1)", 1)]


# --- group commit --------------------------------------------------------------------


class Note:
    """An entry that adds one row and records what becomes of it."""

    def __init__(self, text, told, *, during=None, value=b"x"):
        self.text = text
        self.told = told
        self.during = during
        self.value = value
        self.done = threading.Event()

    def write(self, batch):
        """Add the row."""
        self.told.append(("write", self.text))
        batch.lay("meta", (self.text, self.value))

    def committed(self):
        """Record it."""
        self.told.append(("committed", self.text))
        self.done.set()

    def failed(self, error):
        """Record it."""
        self.told.append(("failed", self.text, type(error)))
        self.done.set()


@pytest.fixture
def store(path):
    """Yield an open store."""
    with contextlib.closing(Store.open(path)) as opened:
        yield opened


def saved_notes(store):
    """Return the notes on disk, in their order."""
    return [
        row[0]
        for row in store.rows("SELECT key FROM nbdurable.meta ORDER BY rowid")
        if row[0] not in {"version", "store", "signature"}
    ]


def test_entries_are_committed_in_their_order_at_once(store):
    """What is enqueued is one transaction: written in order, told in order, after it."""
    told = []
    names = [f"note {number}" for number in range(5)]
    for name in names:
        store.journal.enqueue(Note(name, told), kick=False)
    assert told == []
    with counted_commits() as commits:
        store.journal.flush()
    assert len(commits) == 1
    assert told == [("write", name) for name in names] + [("committed", name) for name in names]
    assert saved_notes(store) == names


def test_nothing_of_a_batch_is_there_when_one_entry_fails(store):
    """A batch is one transaction: a row that can't be written takes the others along."""
    told = []
    store.journal.enqueue(Note("kept", told))
    store.journal.flush()
    store.journal.enqueue(Note("good", told), kick=False)
    store.journal.enqueue(Note("bad", told, value=None), kick=False)
    store.journal.enqueue(Note("behind", told), kick=False)
    store.journal.flush()
    assert saved_notes(store) == ["kept"]
    assert [one[:2] for one in told[-3:]] == [
        ("failed", "good"),
        ("failed", "bad"),
        ("failed", "behind"),
    ]
    assert issubclass(told[-1][2], StoreError)
    later = Note("later", told)
    store.journal.enqueue(later)
    assert later.done.wait(20)
    assert told[-1][:2] == ("failed", "later")
    assert store.broken
    with pytest.raises(StoreError):
        store.commit(lambda batch: batch.lay("meta", ("more", b"x")))


def test_what_comes_during_a_commit_goes_into_the_next(store, monkeypatch):
    """An entry enqueued while a transaction is being written is in the one after it."""
    told, moments = [], []

    def hook(moment, number):
        moments.append((moment, number))
        if len(moments) == 1:
            store.journal.enqueue(Note("second", told), kick=False)

    monkeypatch.setattr(journal, "commit_hook", hook)
    store.journal.enqueue(Note("first", told), kick=False)
    store.journal.flush()
    assert [moment for moment, _ in moments] == ["before", "after", "before", "after"]
    assert told == [
        ("write", "first"),
        ("committed", "first"),
        ("write", "second"),
        ("committed", "second"),
    ]


def test_nobody_is_told_before_the_commit(store, monkeypatch):
    """`committed` comes after the row is on disk, `failed` never with it."""
    told = []
    monkeypatch.setattr(journal, "commit_hook", lambda *_: told.append("hook"))
    store.journal.enqueue(Note("one", told), kick=False)
    store.journal.flush()
    assert told == [("write", "one"), "hook", "hook", ("committed", "one")]


def test_the_journals_thread_commits_what_nobody_waits_for(store):
    """An entry that is only enqueued is committed soon, with what was enqueued without a kick."""
    told = []
    first, second = Note("along", told), Note("kicked", told)
    store.journal.enqueue(first, kick=False)
    assert store.journal._thread is None
    store.journal.enqueue(second)
    assert first.done.wait(20)
    assert second.done.wait(20)
    assert saved_notes(store) == ["along", "kicked"]


def test_closing_commits_what_is_left(path):
    """What is enqueued when the store is closed is on disk."""
    told = []
    store = Store.open(path)
    store.journal.enqueue(Note("last", told), kick=False)
    store.close()
    with contextlib.closing(Store.open(path)) as again:
        assert saved_notes(again) == ["last"]


def test_many_threads_one_order(store):
    """Entries from many threads are told in the order in which they were written."""
    told = []
    gate = threading.Barrier(8)

    def enqueue(thread):
        gate.wait(20)
        notes = [Note(f"{thread}.{number}", told) for number in range(20)]
        for note in notes:
            store.journal.enqueue(note)
        return all(note.done.wait(20) for note in notes)

    waits = [in_thread(lambda thread=thread: enqueue(thread)) for thread in range(8)]
    assert all(wait() for wait in waits)
    written = [one[1] for one in told if one[0] == "write"]
    assert [one[1] for one in told if one[0] == "committed"] == written == saved_notes(store)
    assert len(written) == 160


# --- executions ----------------------------------------------------------------------


EMPTY = {"BLOB": b"", "VARCHAR": "", "BIGINT": 0, "INTEGER": 0, "DOUBLE": 0.0, "BOOLEAN": False}


def add(store, table, **given):
    """Write a row: what is not given is empty (nothing here is unpickled, so nothing signed)."""
    columns = [column.split()[:2] for column in schema.TABLES[table].split(",")]
    if table in REMEMBERED:
        columns.remove(["signature", "BLOB"])  # it is signed on its way
    nothing = {"signature": bytes(32)}
    row = tuple(given.pop(name, nothing.get(name, EMPTY[kind])) for name, kind in columns)
    assert given == {}
    store.commit(lambda batch: batch.lay(table, row))


def end(store, execution, status, ended=50.0):
    """Write the end of an execution."""
    add(store, "execution_ends", execution=execution, status=status, ended=ended)


def save(store, opened, *, started, seconds=1.0, number=1):
    """Write a checkpoint."""
    call = os.urandom(16)
    add(store, "checkpoints", call=call, version=call, number=number, execution=opened.execution,
        kind="value", started=started, seconds=seconds)  # fmt: skip


def start(store, opened, started):
    """Write the start of an attempt that has no end."""
    add(store, "starts", call=b"c" * 16, version=b"v" * 16, attempt=1, name="late", label="late()",
        execution=opened.execution, started=started)  # fmt: skip


def test_rows_that_lie_in_another_order(path):
    """Commit order is that of the numbers, wherever in the table a row has come to lie."""
    execute(path)
    with contextlib.closing(Store.open(path)) as store:
        before = load_index(store, summaries(store)[0].id)
    tamper(
        path,
        "CREATE TEMP TABLE moved AS FROM nbdurable.checkpoints WHERE number = 1; "
        "DELETE FROM nbdurable.checkpoints WHERE number = 1; "
        "INSERT INTO nbdurable.checkpoints FROM moved",
    )
    with contextlib.closing(Store.open(path)) as store:
        numbers = store.rows("SELECT number FROM nbdurable.checkpoints ORDER BY rowid")
        assert numbers != sorted(numbers), "it has moved"
        after = load_index(store, summaries(store)[0].id)
    assert list(after.checkpoints) == list(before.checkpoints)
    assert after.next_number == before.next_number > len(numbers)


def test_attempts_of_what_has_its_value(store):
    """The start and the failures of a step that has its value since take no memory."""
    opened = begin_execution(store, "w", now=1.0)
    kinds = {b"v": "value", b"e": "error", b"c": "cancelled"}
    for number, (letter, kind) in enumerate(kinds.items(), 1):
        add(store, "checkpoints", call=letter * 16, version=b"1" * 16, number=number,
            execution=opened.execution, kind=kind)  # fmt: skip
    for letter, version in [(b"v", b"1"), (b"v", b"2"), (b"e", b"1"), (b"c", b"1"), (b"f", b"1")]:
        identity = {"call": letter * 16, "version": version * 16, "execution": opened.execution}
        add(store, "attempt_ends", **identity, attempt=1, ending="error")
        add(store, "starts", **identity, attempt=2)
    attempts = load_index(store, opened.run).attempts
    held = [(b"v", b"2"), (b"e", b"1"), (b"c", b"1"), (b"f", b"1")]
    assert set(attempts) == {(call * 16, version * 16) for call, version in held}
    assert {(past.last, past.failed) for past in attempts.values()} == {(2, 1)}


def test_first_execution_begins_a_run(store):
    """Where no run has the name, one begins."""
    opened = begin_execution(store, "w", now=7.0)
    assert (opened.execution, opened.resumed, opened.previous) == (1, False, None)
    assert opened.created == 7.0
    assert not opened.index.checkpoints
    assert begin_execution(store, "other", now=8.0).run != opened.run


@pytest.mark.parametrize("status", ["finished", "failed", "interrupted", None])
def test_next_execution_goes_on_with_the_run(store, status):
    """The newest run of the name goes on, whatever became of its last execution."""
    first = begin_execution(store, "w", now=7.0)
    if status is not None:
        end(store, first.execution, status)
    again = begin_execution(store, "w", now=9.0)
    assert (again.run, again.execution, again.created) == (first.run, 2, 7.0)
    assert again.resumed
    assert again.previous == (status or "died")


@pytest.mark.parametrize(
    ("status", "new_run"),
    [("finished", True), ("failed", False), ("interrupted", False), (None, False)],
)
def test_new_leaves_only_a_finished_run(store, status, new_run):
    """`new` never replays a finished run, and resumes an unfinished one."""
    first = begin_execution(store, "w", now=7.0)
    if status is not None:
        end(store, first.execution, status)
    again = begin_execution(store, "w", now=9.0, new=True)
    assert (again.run != first.run) == new_run
    assert again.resumed == (not new_run)
    assert {one.id for one in summaries(store, "w")} == {first.run, again.run}


@pytest.mark.parametrize(("now", "new_run"), [(108.0, False), (108.5, False), (109.1, True)])
def test_max_age_counts_from_the_last_checkpoint(store, now, new_run, monkeypatch):
    """A run whose last checkpoint ended longer ago than `max_age` is left."""
    monkeypatch.setattr(ReplayIndex, "verify", lambda *_: None)  # the rows below are not signed
    first = begin_execution(store, "w", now=1.0)
    save(store, first, started=90.0, seconds=2.0)
    save(store, first, started=91.0, seconds=8.0, number=2)
    again = begin_execution(store, "w", now=now, max_age=10.0)
    assert (again.run != first.run) == new_run


def test_max_age_of_a_run_without_checkpoints(store):
    """A run that has saved nothing has no age."""
    first = begin_execution(store, "w", now=1.0)
    assert begin_execution(store, "w", now=1e9, max_age=0).run == first.run


def test_restart_leaves_the_run(store):
    """After `restart` the next execution begins anew, `new` or not; the old run stays."""
    first = begin_execution(store, "w", now=1.0)
    assert restart(store, "w", now=2.0)
    again = begin_execution(store, "w", now=3.0)
    assert again.run != first.run
    assert not again.resumed
    assert again.created == 2.0
    assert begin_execution(store, "w", now=4.0).run == again.run
    assert not restart(store, "unknown", now=5.0)
    assert [one.name for one in summaries(store)] == ["w", "w"]


def test_executions_that_begin_together_get_their_own_numbers(store, monkeypatch):
    """Two runs that begin at the same moment on one store have two executions."""
    meet = threading.Barrier(2)
    rows = store.rows

    def rows_together(query, parameters=()):
        found = rows(query, parameters)
        if "max(id)" in query:
            with contextlib.suppress(threading.BrokenBarrierError):
                meet.wait(0.3)
        return found

    monkeypatch.setattr(store, "rows", rows_together)
    waits = [
        in_thread(lambda name=name: begin_execution(store, name, now=1.0)) for name in ("a", "b")
    ]
    assert sorted(wait().execution for wait in waits) == [1, 2]


def test_summaries(store):
    """A line a run, newest first, with its last execution's times, counts and state."""
    finished = begin_execution(store, "w", now=10.0)
    save(store, finished, started=10.0)
    end(store, finished.execution, "finished", ended=12.0)
    died = begin_execution(store, "w", now=20.0)
    save(store, died, started=20.0, number=2)
    start(store, died, 21.0)
    other = begin_execution(store, "other", now=30.0)
    end(store, other.execution, "failed", ended=31.0)
    restart(store, "waiting", now=0.0)
    first, second = summaries(store)
    assert (first.name, first.status, first.last_ended) == ("other", RunStatus.FAILED, 31.0)
    assert (second.name, second.status, second.created) == ("w", RunStatus.DIED, 10.0)
    assert (second.executions, second.saved, second.in_flight) == (2, 2, 1)
    assert second.last_started == 20.0
    assert second.last_ended is None, "the last execution has no end, whatever came before"
    assert [one.name for one in summaries(store, "w")] == ["w"]
    restart(store, "w", now=40.0)
    newest = summaries(store, "w")[0]
    assert (newest.executions, newest.status) == (0, RunStatus.INTERRUPTED)


# --- views ---------------------------------------------------------------------------

COLUMNS = {
    "runs": ["workflow", "run", "created", "status", "executions", "saved"],
    "executions": ["execution", "workflow", "run", "started", "ended", "status", "error", "pid",
                   "host", "python", "packages"],
    "steps": ["workflow", "run", "number", "name", "label", "status", "seconds", "attempts", "why",
              "started", "execution", "bytes", "call", "version"],
    "attempts": ["workflow", "run", "name", "label", "attempt", "started", "seconds", "ending",
                 "error", "execution", "call", "version"],
    "decisions": ["workflow", "run", "number", "label", "winner", "decided", "execution"],
}  # fmt: skip


@pytest.mark.parametrize("view", COLUMNS)
def test_columns_of_views(store, view):
    """Each view has the columns that people and notebooks ask for."""
    columns, rows = store.table(f"SELECT * FROM {view}")
    assert columns == COLUMNS[view]
    assert rows == []


def test_views_tell_what_happened(path):
    """The views show a run with values, a retried attempt, an error, a decision, a death."""

    def program():
        tries = iter(range(1))

        def flaky():
            if next(tries, None) is not None:
                raise OSError("not yet")
            return 1

        found = [step(flaky, retries=1, backoff=0.0, version=1).go().result()]
        with contextlib.suppress(ValueError):
            go(refuse, 1).result()
        first = go(double, 1)
        first.result()
        found.append(select(go(double, 2), first, after(60)).result())
        return found

    execute(path, program)
    with contextlib.closing(Store.open(path)) as store:
        died = begin_execution(store, "w", now=20.0)
        start(store, died, 21.0)
        steps = store.table("SELECT label, status, attempts, why FROM steps ORDER BY number")[1]
        assert [row for row in steps if row[0] not in {"double(2)", "after(60)"}] == [
            ("flaky()", "finished", 2, "new"),
            ("refuse(1)", "failed", 1, "new"),
            ("double(1)", "finished", 1, "new"),
            ("late()", "in flight", 1, None),
        ]
        attempts = store.table("SELECT label, attempt, ending, error FROM attempts")[1]
        assert ("flaky()", 1, "error", "OSError: not yet") in attempts
        assert ("flaky()", 2, "value", "") in attempts
        assert ("late()", 1, "died", "") in attempts
        [(label, winner)] = store.table("SELECT label, winner FROM decisions")[1]
        assert label == "select(double(2), double(1), after(60))"
        assert winner == "double(1)"
        states = store.table("SELECT status, pid, python FROM executions ORDER BY execution")[1]
        assert states == [
            ("finished", os.getpid(), sys.version.split()[0]),
            ("died", os.getpid(), sys.version.split()[0]),
        ]
        assert store.table("SELECT workflow, status, executions FROM runs")[1] == [("w", "died", 2)]
        [(started, year)] = store.table("SELECT started, year(started) FROM steps LIMIT 1")[1]
        assert started.year == year


def test_a_timer_without_end_leaves_the_views_readable(path):
    """A branch that is never due has no timestamp; the views go on answering."""
    execute(path, lambda: select(go(double, 1), after(float("inf"))).result())
    assert {row["step"] for row in questions.steps(store=path)} == {"double(1)", "after(inf)"}
    assert questions.query("SELECT count(*) AS n FROM attempts", path) is not None


# --- SQL -----------------------------------------------------------------------------


def test_sql_of_a_user(store):
    """A user's SQL reaches the views by their names, makes tables in main, and may give nothing."""
    begin_execution(store, "w", now=1.0)
    assert store.table("SELECT workflow, status FROM runs") == (
        ["workflow", "status"],
        [("w", "died")],
    )
    store.table("CREATE TABLE mine AS SELECT 1 AS a")
    assert store.table("SELECT a FROM main.mine") == (["a"], [(1,)])
    assert store.table("") == ([], [])
    assert store.frame("") is None
    assert store.frame("SELECT 42 AS answer")["answer"].tolist() == [42]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nowhere", "nowhere does not exist"),
        ("SELECT CAST('x' AS INTEGER)", "Could not convert"),
        ("SELECT error('late') FROM range(3)", "late"),
        ("SELECT '\ud800'", "surrogate"),
    ],
)
def test_sql_errors_are_duckdbs_own(store, query, said):
    """A mistake in SQL is a StoreError with DuckDB's sentence; the store goes on."""
    for ask in (store.table, store.frame):
        with pytest.raises(StoreError, match=said):
            ask(query)
    assert store.table("SELECT 1 AS one") == (["one"], [(1,)])
    assert not store.broken


def test_a_frame_without_pandas(store, monkeypatch):
    """Without pandas a query gives a list of dicts."""
    monkeypatch.setattr(database.importlib.util, "find_spec", lambda name: None)
    assert store.frame("SELECT 1 AS a, 'x' AS b") == [{"a": 1, "b": "x"}]
    with pytest.raises(StoreError, match="late"):
        store.frame("SELECT error('late') FROM range(3)")


# --- texts that UTF-8 or C can't hold ------------------------------------------------

BAD = "a\ud800b\0c\nd"


def prints():
    """Print it."""

    def printed():
        print(BAD)
        return 1

    return go(printed).result()


def fails():
    """Fail with it, and be tried again."""

    def failed():
        raise OSError(BAD)

    with contextlib.suppress(OSError):
        step(failed, retries=1, backoff=0.0).go().result()
    return str(error_of(go(failed)))


def error_of(handle):
    """Return the error of a handle."""
    return handle.outcome().error


def is_given_it():
    """Take it as an argument, and as the name of one."""

    def given(*texts, **named):
        return [*texts, *named]

    return go(given, BAD, **{BAD: BAD}).result()


def returns_it():
    """Return it, alone and inside."""

    def returned():
        return BAD

    def inside():
        return {BAD: [BAD]}

    return go(returned).result(), go(inside).result()


def takes_what_is_named_so():
    """Take a function and an instance whose names hold it."""

    def called():
        return 1

    def named(function):
        return function()

    called.__name__ = called.__qualname__ = BAD
    return go(named, called).result()


@pytest.mark.parametrize(
    "program", [prints, fails, is_given_it, returns_it, takes_what_is_named_so]
)
def test_texts_that_utf8_cant_hold(path, program, capsys):
    """A lone surrogate, a NUL, a line end: saved, replayed, shown; no thread dies of them."""
    value, ran = execute(path, program)
    assert ran
    shown = capsys.readouterr()
    assert execute(path, program) == (value, [])
    assert capsys.readouterr() == shown
    assert problems(path) == []
    labels = [row["step"] for row in questions.steps(store=path)]
    assert all(label.isprintable() for label in labels)


@pytest.mark.parametrize("name", [BAD, "a\0b", "\ud800", "two\nlines", " "])
def test_names_that_cant_be_shown_are_refused(path, name):
    """A step or run with a name that can't be shown is a usage error, at once."""
    with pytest.raises(UsageError, match="name"):
        step(double, name=name)
    with pytest.raises(UsageError, match="name"):
        workflow(name, store=path)


def test_what_a_run_escapes_with(path):
    """A run that ends with an error of such a text has its end recorded."""
    with pytest.raises(ValueError, match="\0"):
        execute(path, lambda: (_ for _ in ()).throw(ValueError(BAD)))
    [(status, error)] = questions.query(
        "SELECT status, error FROM executions", path
    ).values.tolist()
    assert status == "failed"
    assert "\ud800" not in error
    assert json.dumps(error)


# --- the records of a store ----------------------------------------------------------


def test_kinds_and_states_are_those_of_the_records():
    """What the schema writes about kinds and states is what the records name."""
    text = " ".join([*schema.VIEWS.values(), *verify._QUERIES.values()])
    assert all(f"'{kind}'" in text for kind in Kind)
    assert "'died'" in text


def test_store_errors_are_one_family():
    """Whoever catches StoreError catches each way in which a store fails."""
    for kind in (StoreLockedError, StoreVersionError, StoreCorruptError, StoreFullError):
        assert issubclass(kind, StoreError)
        assert issubclass(kind, DurableError)


def test_no_space_by_its_number(store):
    """What the operating system calls ENOSPC is a StoreFullError."""
    told = disk.as_store_error(duckdb.IOException(f"write: {os.strerror(errno.ENOSPC)}"))
    assert isinstance(told, StoreFullError)
