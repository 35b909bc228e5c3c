"""Who owns a store: the lock file, DuckDB's own lock, forked children, odd surroundings."""

import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import duckdb  # noqa: TID251 - the user's own connections
import psutil
import pytest

import nbdurable
from nbdurable import (
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreVersionError,
    configure,
    step,
    workflow,
)
from nbdurable.api import configuration, open_stores
from nbdurable.inspection import maintenance
from nbdurable.inspection import queries as questions
from nbdurable.store import Store, check, guard, lock, paths
from nbdurable.store import connection as connecting

pytestmark = pytest.mark.timeout(60)
PYTHON = sys.executable
RAN = []


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Yield where a store is to be; it stays open until the test closes it."""
    monkeypatch.setattr(open_stores, "LINGER_SECONDS", 600)
    yield tmp_path / "project" / "s.duckdb"
    open_stores.close_stores()
    configure(store=None)


@step(name="double")
def double(number):
    """Say that it ran, and double."""
    RAN.append(number)
    return 2 * number


def cell(path, act=None, steps=4):
    """Run a cell; `act` is done after two steps. Return the values and which bodies ran."""
    RAN.clear()
    values = []
    with workflow("w", store=path):
        for number in range(steps):
            if number == 2 and act is not None:
                act()
            values.append(double(number))
    return values, list(RAN)


def problems(path):
    """Return what `check` finds in a store that is opened anew."""
    open_stores.close_stores()
    with open_stores.reading(path) as opened:
        return check(opened)


def record_of(path):
    """Read the record in a store's lock file."""
    return json.loads(lock.lock_path(str(path)).read_bytes())


def write_record(path, **changed):
    """Write a record as the owner of another moment would have left it."""
    own = {
        "generation": 7,
        "pid": os.getpid(),
        "host": platform.node(),
        "namespace": lock._namespace(),
        "start": psutil.Process().create_time(),
        "since": 1_700_000_000.0,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    lock.lock_path(str(path)).write_text(json.dumps(own | changed))


def python(code, *arguments, **options):
    """Run a program to its end."""
    return subprocess.run(
        [PYTHON, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        **options,
    )


@pytest.fixture
def sleeper():
    """Yield a process that lives until the test ends."""
    with subprocess.Popen([PYTHON, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield psutil.Process(process.pid)
        process.kill()


# --- the lock file ------------------------------------------------------------------------


def test_the_record(path):
    """It names the owner while the store is open, and nobody after; the generation counts."""
    Store.open(path).close()
    first = record_of(path)
    assert "pid" not in first
    store = Store.open(path)
    held = record_of(path)
    assert held["pid"] == os.getpid()
    assert held["host"] == platform.node()
    assert abs(held["start"] - psutil.Process().create_time()) < 1
    assert held["generation"] == first["generation"] + 1
    store.close()
    assert record_of(path) == {"generation": held["generation"]}


def test_a_dropped_lock_lets_nobody_in(path, sleeper):
    """The process that the record names lives, though the system holds no lock for it."""
    write_record(path, pid=sleeper.pid, start=sleeper.create_time())
    with pytest.raises(StoreLockedError, match=rf"process {sleeper.pid} \(.*since 2023-11-1"):
        Store.open(path, wait=0.1)
    with pytest.raises(StoreLockedError) as caught:
        Store.open(path, wait=0.0)
    assert type(caught.value) is (StoreLockedError)
    assert not path.exists()


def dead_pid():
    """Return the id of a process that has ended."""
    process = subprocess.Popen([PYTHON, "-c", ""])
    process.wait()
    return process.pid


DEAD = {
    "ended": lambda: {"pid": dead_pid()},
    "its id was given again": lambda: {"start": 1.0},
    "on another host": lambda: {"host": "elsewhere"},
    "in another container": lambda: {"namespace": "pid:[1]"},
    "no process": lambda: {"pid": None},
    "a word": lambda: {"pid": "me"},
    "beyond any process": lambda: {"pid": 1 << 70},
}


@pytest.mark.parametrize("how", DEAD)
def test_a_dead_owner_keeps_nobody_out(path, how):
    """Without a lock of the system's only a living process of this host owns a store."""
    write_record(path, **DEAD[how]())
    Store.open(path, wait=0.0).close()
    assert record_of(path)["generation"] == 8


def test_a_zombie_is_dead(path):
    """A killed process that its parent has not waited for yet has ended."""
    with subprocess.Popen([PYTHON, "-c", "input()"], stdin=subprocess.PIPE) as process:
        start = psutil.Process(process.pid).create_time()
        write_record(path, pid=process.pid, start=start)
        process.kill()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            threading.Event().wait(0.01)
        Store.open(path, wait=0.0).close()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"7", b'{"generation": "x"}'])
def test_a_record_that_cant_be_read(path, content):
    """A cut or foreign record names nobody; it is written anew."""
    path.parent.mkdir()
    lock.lock_path(str(path)).write_bytes(content)
    assert cell(path)[0] == [0, 2, 4, 6]
    open_stores.close_stores()
    assert record_of(path) == {"generation": 1}


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_what_is_no_lock_file(path, kind, tmp_path):
    """A folder, a pipe or a link in the lock file's place is refused, and left as it is."""
    place = lock.lock_path(str(path))
    place.parent.mkdir()
    (tmp_path / "aim").write_text("mine")
    {
        "folder": place.mkdir,
        "pipe": lambda: os.mkfifo(place),
        "link": lambda: place.symlink_to(tmp_path / "aim"),
    }[kind]()
    with pytest.raises(StoreError, match=re.escape(str(place))):
        Store.open(path, wait=0.0)
    assert not path.exists()
    assert (tmp_path / "aim").read_text() == "mine"


def test_a_full_disk_while_it_is_written(path, monkeypatch):
    """The disk is named; nothing half-made stays behind, and later it works."""
    with monkeypatch.context() as patch:
        patch.setattr(lock.os, "pwrite", no_space)
        with pytest.raises(StoreFullError, match="disk is full"):
            Store.open(path)
    assert list(path.parent.iterdir()) == []
    assert cell(path)[0] == [0, 2, 4, 6]


def no_space(*_):
    """Fail as a full disk does."""
    raise OSError(28, "No space left on device")


def test_a_full_disk_as_it_is_freed(path, monkeypatch):
    """The record stays, which this process may take over; its end frees it for others."""
    store = Store.open(path)
    monkeypatch.setattr(lock.os, "pwrite", no_space)
    store.close()
    monkeypatch.undo()
    assert record_of(path)["pid"] == os.getpid()
    Store.open(path, wait=0.0).close()


def test_opened_twice_in_one_process(path):
    """Two openings share the lock; it is freed with the last."""
    first, second = Store.open(path), Store.open(path)
    second.close()
    assert record_of(path)["pid"] == os.getpid()
    first.commit(lambda batch: batch.lay("codes", (b"1", "part", b"2")))
    first.close()
    assert "pid" not in record_of(path)


LOCK_TROUBLES = {
    "deleted": lambda place: place.unlink(),
    "replaced": lambda place: place.with_suffix(".new").rename(
        place.with_suffix(".new") if place.with_suffix(".new").write_text("{}") is None else place
    ),
    "closed": lambda place: place.open("rb").close(),
}


@pytest.mark.parametrize("trouble", LOCK_TROUBLES)
def test_the_lock_file_is_kept_up(path, trouble):
    """A lock file that is deleted, replaced or closed in mid-run is this process's again."""
    place = lock.lock_path(str(path))

    def act():
        LOCK_TROUBLES[trouble](place)

    assert cell(path, act)[0] == [0, 2, 4, 6]
    assert record_of(path)["pid"] == os.getpid()
    looked = python(
        "import sys; from nbdurable.store import Store; Store.open(sys.argv[1], wait=0.0)", path
    )
    assert "StoreLockedError" in looked.stderr


def test_taken_over(path):
    """An owner whose store another took, as over a network, writes nothing more and says so."""

    def take_over():
        write_record(path, pid=4321, host="elsewhere")

    with pytest.raises(StoreLockedError, match=r"taken over by process 4321 \(on elsewhere\)"):
        cell(path, take_over)
    open_stores.close_stores()
    assert record_of(path)["pid"] == 4321, "it is the other's"
    assert cell(path) == ([0, 2, 4, 6], [2, 3])
    assert problems(path) == []


def test_a_lock_file_that_is_looked_at_in_mid_commit(path):
    """Who only looks whether the owner lives lets go soon: the commit waits for that."""
    look = """
        import fcntl, os, sys
        descriptor = os.open(sys.argv[1], os.O_RDWR)
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        print("looking", flush=True)
        sys.stdin.readline()
    """
    place = lock.lock_path(str(path))

    def act():
        place.open("rb").close()
        looker = subprocess.Popen(
            [PYTHON, "-c", textwrap.dedent(look), place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert looker.stdout.readline() == "looking\n"
        threading.Timer(0.3, looker.communicate, ("let go\n",)).start()

    assert cell(path, act)[0] == [0, 2, 4, 6]


# --- a second process -----------------------------------------------------------------


def test_the_wait_is_said(path, capsys, sleeper, monkeypatch):
    """After half a second a line on stderr says who holds the store, once."""
    monkeypatch.setattr(connecting, "SAY_SECONDS", 0.1)
    write_record(path, pid=sleeper.pid, start=sleeper.create_time())
    with pytest.raises(StoreLockedError):
        Store.open(path, wait=0.4)
    said = capsys.readouterr().err.strip()
    assert re.fullmatch(
        rf".*s\.duckdb is held by process {sleeper.pid} \(.*\), which has had it since "
        r"2023-11-1.*; waiting up to 0\.4 s for it",
        said,
    )


def test_a_wait_without_stderr(path, sleeper, monkeypatch):
    """A process without stderr waits without a word."""
    monkeypatch.setattr(connecting, "SAY_SECONDS", 0.0)
    monkeypatch.setattr(sys, "stderr", None)
    write_record(path, pid=sleeper.pid, start=sleeper.create_time())
    with pytest.raises(StoreLockedError):
        Store.open(path, wait=0.2)


def test_a_reader_of_a_living_owners_store(path, sleeper):
    """Who may not write is kept out by a living owner, too."""
    Store.open(path).close()
    write_record(path, pid=sleeper.pid, start=sleeper.create_time())
    with pytest.raises(StoreLockedError):
        Store.open_to_read(path, wait=0.0)


def test_who_may_not_write_can_ask(path, monkeypatch):
    """Questions are answered from a store that can't be written, and nothing is."""
    cell(path)
    open_stores.close_stores()
    before = {one.name: one.read_bytes() for one in path.parent.iterdir()}
    monkeypatch.setattr(open_stores.os, "access", lambda *_: False)
    assert [one["step"] for one in questions.steps("w", path)] == [
        f"double({number})" for number in range(4)
    ]
    with pytest.raises(StoreError, match=r"can't be written: make it writable"):
        maintenance.restart("w", path)
    assert {one.name: one.read_bytes() for one in path.parent.iterdir()} == before


# --- DuckDB's own lock, and its log ----------------------------------------------------------


def drop_lock(path):
    """Close the files once, as a zip or a checksum of the folder does."""
    for file in path.parent.glob("s.duckdb*"):
        file.open("rb").close()


WRITER = """
    import duckdb, sys
    connection = duckdb.connect(sys.argv[1])
    connection.execute("CREATE TABLE theirs AS SELECT 1 AS x")
    print("written", flush=True)
    if sys.argv[2] == "stays":
        sys.stdin.readline()
"""


def test_duckdbs_lock_is_set_again(path):
    """After a commit plain DuckDB is shut out again, whatever the process has closed."""

    def act():
        drop_lock(path)
        double(9)
        assert "Conflicting lock" in python(WRITER, path, "leaves").stderr

    assert cell(path, act)[0] == [0, 2, 4, 6]
    assert problems(path) == []


@pytest.mark.parametrize("stays", [True, False])
def test_a_plain_writer_is_noticed(path, stays):
    """Whoever wrote while the lock was dropped is noticed at the next commit; nothing is lost."""
    writers = []

    def act():
        drop_lock(path)
        writer = subprocess.Popen(
            [PYTHON, "-c", textwrap.dedent(WRITER), path, "stays" if stays else "leaves"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        writers.append(writer)
        assert writer.stdout.readline() == "written\n"
        if not stays:
            writer.communicate()

    with pytest.raises(StoreError, match="What was acknowledged is kept") as caught:
        cell(path, act)
    if stays:
        assert f"process {writers[0].pid} (python" in str(caught.value)
        writers[0].communicate("go\n")
    open_stores.close_stores()
    assert cell(path) == ([0, 2, 4, 6], [2, 3])
    assert problems(path) == []
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("SELECT x FROM theirs").fetchall() == [(1,)]


def test_a_plain_reader_is_waited_for(path):
    """Who only reads, while the lock was dropped, holds a commit up until he has left."""
    reader = """
        import duckdb, sys
        connection = duckdb.connect(sys.argv[1], read_only=True)
        print("reading", flush=True)
        sys.stdin.readline()
    """

    def act():
        drop_lock(path)
        process = subprocess.Popen(
            [PYTHON, "-c", textwrap.dedent(reader), path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "reading\n"
        threading.Timer(0.5, process.communicate, ("go\n",)).start()

    assert cell(path, act)[0] == [0, 2, 4, 6]
    assert problems(path) == []


def test_only_the_log_is_deleted(path):
    """DuckDB has all of it in memory: it is put into the file, and nothing is lost."""
    log = Path(guard.log_path(str(path)))
    assert cell(path, log.unlink)[0] == [0, 2, 4, 6]
    open_stores.close_stores()
    assert cell(path) == ([0, 2, 4, 6], [])
    assert problems(path) == []


def test_the_log_is_deleted_and_cant_be_saved(path):
    """Where the file can't take it either the cell says so, and what is lost runs again."""
    log = Path(guard.log_path(str(path)))
    mine = []

    def act():
        connection = duckdb.connect(str(path))
        connection.begin()
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")  # in its way
        mine.append(connection)
        log.unlink()

    with pytest.raises(StoreError, match=r"s\.duckdb\.wal was deleted while"):
        cell(path, act)
    mine.pop().close()
    open_stores.close_stores()
    assert cell(path)[0] == [0, 2, 4, 6]
    assert problems(path) == []


def test_a_checkpoint_is_no_deleted_log(path):
    """A checkpoint of the user's own, or of DuckDB, removes the log as well."""

    def act():
        with duckdb.connect(str(path)) as connection:
            connection.execute("CHECKPOINT")
        drop_lock(path)
        double(9)
        with duckdb.connect(str(path)) as connection:
            connection.execute("CREATE TABLE big AS SELECT range AS x FROM range(3_000_000)")

    assert cell(path, act)[0] == [0, 2, 4, 6]
    assert problems(path) == []


# --- forks ---------------------------------------------------------------------------


def forked(function, *arguments, method="fork"):
    """Call `function` in a forked child and give what came of it, as text."""
    context = multiprocessing.get_context(method)
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_tell, args=(sending, function, arguments))
    child.start()
    sending.close()
    assert receiving.poll(40), "the child hangs"
    said = receiving.recv()
    child.join(20)
    assert child.exitcode == 0
    return said


def _tell(sending, function, arguments):
    try:
        said = repr(function(*arguments))
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    sending.send(said)


def test_a_forked_child_is_refused(path):
    """It is told the parent's id at once, though the parent only lingers on the store."""
    cell(path)
    said = forked(cell, path)
    assert said.startswith("StoreLockedError")
    assert f"process {os.getpid()}" in said
    assert "spawn or forkserver" in said
    assert cell(path) == ([0, 2, 4, 6], [])


@pytest.mark.parametrize("asked", [questions.runs, questions.steps, maintenance.collect])
def test_a_forked_childs_questions(path, asked):
    """A question of the child's is refused as well, instead of hanging."""
    cell(path)
    argument = {"store": path}
    assert forked(lambda: asked(**argument)).startswith("StoreLockedError")


def test_a_store_of_its_own_in_a_forked_child(path, tmp_path):
    """Another store works in the child, with concurrent steps and timers, also in mid-run."""
    said = []

    def act():
        said.append(forked(concurrent_cell, tmp_path / "other.duckdb"))

    assert cell(path, act)[0] == [0, 2, 4, 6]
    assert said == ["[0, 2, 4]"]
    assert problems(path) == []


def concurrent_cell(path):
    """Run a cell with concurrent steps and a timer."""
    with workflow("inner", store=path):
        values = nbdurable.gather(double.go(0), double.go(1), double.go(2)).result()
        nbdurable.select(nbdurable.after(0.01)).result()
    return values


def test_a_step_in_a_forked_child_of_the_run(path):
    """A child that would commit through its parent's instance is refused: it would lose that."""
    said = []

    def act():
        said.append(forked(double, 100))
        said.append(forked(lambda: double.go(101).result()))

    assert cell(path, act)[0] == [0, 2, 4, 6]
    assert all(one.startswith("StoreLockedError") for one in said), said
    assert all(f"process {os.getpid()}" in one for one in said)
    open_stores.close_stores()
    assert len(questions.steps("w", path)) == 4


def test_a_store_in_memory_in_a_forked_child():
    """A child has a memory of its own: its store there is another one."""
    assert cell(":memory:") == ([0, 2, 4, 6], [0, 1, 2, 3])
    assert forked(cell, ":memory:") == "([0, 2, 4, 6], [0, 1, 2, 3])"


def test_a_system_that_cant_be_asked(path, monkeypatch):
    """Without Linux's question the lock is set at each commit all the same."""
    monkeypatch.setattr(guard, "_answers", lambda _: False)

    def act():
        drop_lock(path)
        double(9)
        assert "Conflicting lock" in python(WRITER, path, "leaves").stderr

    assert cell(path, act)[0] == [0, 2, 4, 6]


def test_after_the_parent_has_let_go(path):
    """A child that is forked when the store is closed opens it as any process."""
    cell(path)
    open_stores.close_stores()
    assert forked(cell, path) == "([0, 2, 4, 6], [])"


def test_a_child_that_ends_as_programs_do(path):
    """A forked child that runs into its end, exit handlers and all, spoils nothing."""
    program = """
        import os, sys
        from nbdurable import step, workflow
        @step
        def f(x): return x
        with workflow("w", store=sys.argv[1]):
            f(1)
            child = os.fork()
            if child == 0:
                sys.exit(0)
            print(os.waitpid(child, 0)[1], f(2))
    """
    done = python(program, path)
    assert "0 2" in done.stdout or "256 2" in done.stdout, done.stdout + done.stderr
    assert len(questions.steps("w", path)) == 2
    assert problems(path) == []


def test_spawned_children_are_untouched(path):
    """A spawned child is a process of its own: it waits, and is told who holds the store."""
    program = """
        import multiprocessing, sys
        from nbdurable import StoreLockedError, step, workflow
        from nbdurable.api import open_stores as holding
        from nbdurable.store import Store
        def look(path):
            try: Store.open(path, wait=0.0)
            except StoreLockedError as error: return str(error)
        @step
        def f(x): return x
        if __name__ == "__main__":
            with workflow("w", store=sys.argv[1]):
                f(1)
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    print(pool.apply(look, sys.argv[1:]))
    """
    file = path.parent.parent / "program.py"
    file.write_text(textwrap.dedent(program))
    done = subprocess.run(
        [PYTHON, file, path], capture_output=True, text=True, timeout=50, check=True
    )
    assert "is held by process" in done.stdout
    assert "which has had it since" in done.stdout


# --- the user's own database -------------------------------------------------------------


def test_a_plain_connection_shares_the_store(path):
    """Before, during and after a cell; the user's own settings and tables stay."""
    path.parent.mkdir()
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS x FROM range(5)")
    counts = []

    def count():
        with duckdb.connect(str(path)) as connection:
            counts.append(connection.execute("SELECT count(*) FROM t").fetchone())
            counts.append(connection.execute("SELECT current_setting('threads')").fetchone())

    with duckdb.connect() as unrelated:
        threads = unrelated.execute("SELECT current_setting('threads')").fetchone()
    count()
    assert cell(path, count)[0] == [0, 2, 4, 6]
    count()
    assert counts == [(5,), threads] * 3
    with duckdb.connect(str(path)) as held:
        assert cell(path) == ([0, 2, 4, 6], [])
        open_stores.close_stores()
        assert held.execute("SELECT count(*) FROM t").fetchone() == (5,)
        assert "Conflicting lock" in python(WRITER, path, "leaves").stderr, "still the user's"
    assert problems(path) == []


def test_settings_are_given_back(path):
    """A connection that outlives the store has DuckDB's own settings."""
    mine = []

    def act():
        mine.append(duckdb.connect(str(path)))

    cell(path, act)
    open_stores.close_stores()
    with duckdb.connect() as unrelated:
        asked = "SELECT current_setting('threads'), current_setting('autoload_known_extensions')"
        assert mine[0].execute(asked).fetchone() == unrelated.execute(asked).fetchone()
    mine.pop().close()


@pytest.mark.parametrize("settings", [{"read_only": True}, {"config": {"threads": 4}}])
@pytest.mark.parametrize("where", ["step", "cell"])
def test_a_connection_with_settings(path, settings, where):
    """DuckDB refuses it; one line more says why, and what works."""

    def connect():
        duckdb.connect(str(path), **settings)

    call = step(connect, name="connect") if where == "step" else connect
    with pytest.raises(duckdb.ConnectionException) as caught, workflow("w", store=path):
        call()
    (note,) = caught.value.__notes__
    assert "duckdb.connect(path) without read_only= and config= shares it" in note


# --- odd surroundings ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["configure", "variable", "argument", "working folder"])
def test_a_path_is_resolved_once(tmp_path, monkeypatch, how):
    """After ``os.chdir`` the same store is used; no second one is made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    relative = None if how != "argument" else "s.duckdb"
    if how == "configure":
        configure(store="s.duckdb")
    if how == "variable":
        monkeypatch.setenv("NBDURABLE_STORE", "s.duckdb")
    made = workflow("w", store=relative)

    @made
    def job():
        return double(1)

    RAN.clear()
    try:
        job()
        os.chdir("other")
        job()
    finally:
        configure(store=None)
        open_stores.close_stores()
    assert RAN == [1]
    assert len(list(tmp_path.rglob("*.duckdb"))) == 1


ODD = ["What now?", "a\\b", "x?y/deeper", "Bob's data", "50% #1; x", "été κ", "a*b", "[q]", "x:y"]


@pytest.mark.parametrize("name", ODD)
def test_odd_folders(tmp_path, monkeypatch, name):
    """A notebook or program works in a folder of any name, and finds its store again."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    folder = tmp_path / name
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    for ran in ([1], []):
        RAN.clear()
        with workflow("w"):
            double(1)
        open_stores.close_stores()
        assert ran == RAN
    misread = "?" in name or "\\" in name
    assert (folder / ".nbdurable").exists() != misread
    assert not list(tmp_path.glob("**/*.duckdb.wal*"))


@pytest.mark.parametrize("name", ["x?y/s.duckdb", "x?.duckdb", "a\\b/s.duckdb", "a\\b.duckdb"])
def test_a_named_store_that_duckdb_misreads(tmp_path, name):
    """It is refused in one line before anything is made."""
    for door in (Store.open, Store.open_foreign, Store.open_to_read):
        with pytest.raises(StoreError, match=r"can't be a store: DuckDB takes the .*; name anoth"):
            door(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stem", ["What now?", "a\\b", "nbdurable", "100%"])
def test_odd_notebooks(tmp_path, stem):
    """A notebook of any name has a store beside it."""
    store = Path(configuration.store_of(tmp_path / f"{stem}.ipynb"))
    assert store.parent == tmp_path / ".nbdurable"
    assert cell(store)[1] == [0, 1, 2, 3]
    open_stores.close_stores()
    connecting.forget(str(store))  # as in a new kernel, which has to look whose it is
    assert cell(store)[1] == []
    open_stores.close_stores()


def test_a_copy_restored_beside_a_later_log(path, tmp_path):
    """A dead kernel's log is not of the copy: the line names both, and what to do works."""
    cell(path, steps=2)
    open_stores.close_stores()
    copy = path.read_bytes()
    killed = f"""
    import os, signal
    from nbdurable import step, workflow
    @step(name="double")
    def double(number):
        return 2 * number
    for _ in range(2):
        with workflow("w", store={str(path)!r}):
            double(2)
            double(3)
        __import__("duckdb").connect({str(path)!r}).execute("FORCE CHECKPOINT")
    with workflow("other", store={str(path)!r}):
        double(4)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([PYTHON, "-c", textwrap.dedent(killed)], check=False)
    path.write_bytes(copy)
    log = Path(guard.log_path(str(path)))
    with pytest.raises(StoreCorruptError, match=r"are not of one time.*move .*\.wal away"):
        cell(path)
    log.rename(tmp_path / "moved")
    assert cell(path) == ([0, 2, 4, 6], [2, 3])
    assert problems(path) == []


def test_two_folders_that_duckdb_misreads(tmp_path, monkeypatch):
    """Each has stores of its own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    places = {paths.folder_for(tmp_path / name) for name in ("a?", "a\\", "a?/a?")}
    assert len(places) == 3


def test_no_home(monkeypatch):
    """A user without a home folder is told which variables help."""

    def fails(*_, **__):
        raise RuntimeError("no home")

    monkeypatch.setattr(paths.platformdirs, "user_data_path", fails)
    monkeypatch.delenv("NBDURABLE_KEY_FILE")
    with pytest.raises(StoreError, match=r"no home folder.*NBDURABLE_KEY_FILE.*NBDURABLE_STORE"):
        Store.open(":memory:")


def test_a_key_in_a_home_that_is_not_known(monkeypatch):
    """The variable is named, and what to give it."""
    monkeypatch.setenv("NBDURABLE_KEY_FILE", "~nobody-of-this-name/key")
    with pytest.raises(StoreError, match=r"NBDURABLE_KEY_FILE=~nobody.*give the whole path"):
        Store.open(":memory:")


@pytest.mark.parametrize("missing", [("stdout",), ("stderr",), ("stdout", "stderr")])
def test_without_streams(path, monkeypatch, missing):
    """A service has no streams: steps run, what they print is saved, the streams stay None."""

    def hello():
        print("hello")
        print("oh", file=sys.stderr)
        return 1

    for kind in missing:
        monkeypatch.setattr(sys, kind, None)
    with workflow("w", store=path):
        step(hello)()
    assert all(getattr(sys, kind) is None for kind in missing)
    monkeypatch.undo()
    open_stores.close_stores()
    with open_stores.reading(path) as opened:
        ((output,),) = opened.rows("SELECT output FROM nbdurable.checkpoints")
    assert ("hello" in output) or "stdout" not in missing
    assert "oh" in output or "stderr" in missing


def test_an_old_duckdb_is_told_by_its_version(path, monkeypatch):
    """It is named with its version, and what to do; nothing is made."""
    monkeypatch.setattr(connecting.duckdb, "__version__", "1.4.5")
    with pytest.raises(StoreVersionError, match=r"needs DuckDB 2 or newer, and DuckDB 1\.4\.5 is"):
        Store.open(path)
    assert not path.exists()


def test_a_file_of_a_newer_duckdb(path, monkeypatch):
    """It is told by its version, not as damage, and left as it is."""
    Store.open(path).close()
    content = path.read_bytes()

    def connect(*_, **__):
        raise duckdb.IOException(NEWER)

    monkeypatch.setattr(connecting.duckdb, "connect", connect)
    with pytest.raises(StoreVersionError, match=r"version number 5000.*pip install -U duckdb"):
        Store.open(path)
    assert path.read_bytes() == content


NEWER = (
    "IO Error: Trying to read a database file with version number 5000, but we can only read "
    "versions between 64 and 999.\nThe database file was created with an newer version of DuckDB."
)
"""What DuckDB 1.4 says of a file that DuckDB 2 made, with other numbers."""
