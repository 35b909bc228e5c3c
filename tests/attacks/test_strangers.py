"""Somebody else's store: what is in it tells whose it is; what is signed is what was shown.

Threat: a project folder from elsewhere, with a store made for it.
"""

import contextlib
import os
import pickle  # noqa: TID251 - what is planted
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import duckdb  # noqa: TID251 - tampers with stores
import pytest

from nbdurable import StoreCorruptError, UntrustedCheckpointError, go, workflow
from nbdurable.api import open_stores
from nbdurable.codec.globals_in import COMPUTED, UNREADABLE, globals_in
from nbdurable.events import AttemptStarted
from nbdurable.inspection import maintenance, reports
from nbdurable.inspection import queries as questions
from nbdurable.store import Store, survey, trust_store, untrust_store
from nbdurable.store import connection as connecting


def double(number):
    """Double."""
    return 2 * number


class Bomb:
    """Makes a folder where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("proof",)


def execute(path, number=1):
    """Run a step; return its value, and whether its body ran."""
    events = []
    connecting.known.clear()
    try:
        with workflow("w", store=path, observers=[events.append]):
            value = go(double, number).result()
    finally:
        open_stores.close_stores()
    return value, any(isinstance(one, AttemptStarted) for one in events)


def tamper(path, *statements):
    """Change a closed store by SQL."""
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Return a store of this user's."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "s.duckdb"
    execute(path)
    yield path
    open_stores.close_stores()


@pytest.fixture
def theirs(tmp_path, monkeypatch, path):
    """Return a store of somebody else's."""
    mine = os.environ["NBDURABLE_KEY_FILE"]
    monkeypatch.setenv("NBDURABLE_KEY_FILE", str(tmp_path / "theirs.key"))
    place = tmp_path / "theirs.duckdb"
    execute(place, 21)
    monkeypatch.setenv("NBDURABLE_KEY_FILE", mine)
    assert path.is_file()
    return place


def literal(data):
    """Return the SQL literal of bytes."""
    return "'" + "".join(f"\\x{byte:02X}" for byte in data) + "'::BLOB"


def believe(path, theirs):
    """Put the id and the signature of one's own store into another's."""
    tamper(
        theirs,
        f"ATTACH '{path}' AS mine (READ_ONLY)",
        "UPDATE nbdurable.meta SET value = m.value FROM mine.nbdurable.meta AS m "
        "WHERE meta.key = m.key",
    )


def test_copied_ids_and_signatures(path, theirs):
    """They make nothing one's own: the store is refused whole, what it says is not listed."""
    believe(path, theirs)
    with pytest.raises(UntrustedCheckpointError, match="its id was copied"):
        execute(theirs, 21)
    with pytest.raises(UntrustedCheckpointError):
        questions.runs(theirs)


def test_a_copied_id_over_a_planted_pickle(path, theirs):
    """What was planted under a copied id is nowhere unpickled."""
    believe(path, theirs)
    tamper(theirs, f"UPDATE nbdurable.checkpoints SET payload = {literal(pickle.dumps(Bomb()))}")
    for ask in (lambda: execute(theirs, 21), lambda: questions.steps(store=theirs)):
        with pytest.raises(UntrustedCheckpointError):
            ask()
    assert not Path("proof").exists()


@pytest.mark.parametrize("way", ["moved", "copied", "from a zip", "put back"])
def test_a_store_of_ones_own(path, tmp_path, way):
    """Wherever it comes from, it opens and replays, and nothing is asked or told."""
    place = tmp_path / "elsewhere" / "s.duckdb"
    place.parent.mkdir()
    if way == "moved":
        path.rename(place)
    elif way == "copied":
        shutil.copy(path, place)
    elif way == "from a zip":
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
            made.write(path, "s.duckdb")
        with zipfile.ZipFile(tmp_path / "a.zip") as made:
            made.extractall(place.parent)
    else:
        shutil.copy(path, place)
        execute(path, 2)
        shutil.copy(place, path)
        place = path
    assert execute(place) == (2, False)


def test_trust_gives_another_id(theirs):
    """Nothing that was signed for another store fits into one that was trusted."""
    with duckdb.connect(str(theirs)) as connection:
        meta = "SELECT value FROM nbdurable.meta WHERE key = 'store'"
        before = connection.execute(meta).fetchall()
    trust_store(theirs)
    with duckdb.connect(str(theirs)) as connection:
        assert connection.execute(meta).fetchall() != before
    assert execute(theirs, 21) == (42, False)


def test_an_older_copy_of_a_store_that_was_trusted(theirs, tmp_path):
    """What its maker puts in its place afterwards is not trusted with it."""
    copy = tmp_path / "copy.duckdb"
    shutil.copy(theirs, copy)
    trust_store(theirs)
    assert execute(theirs, 21) == (42, False)
    shutil.copy(copy, theirs)
    with pytest.raises(UntrustedCheckpointError):
        execute(theirs, 21)


def test_a_store_that_changes_after_it_was_shown(theirs):
    """What is signed is what was shown, or nothing."""
    shown = survey(theirs).digest
    tamper(theirs, f"UPDATE nbdurable.checkpoints SET payload = {literal(pickle.dumps(Bomb()))}")
    before = theirs.read_bytes()
    with pytest.raises(StoreCorruptError, match="something else than what was shown"):
        trust_store(theirs, digest=shown)
    assert theirs.read_bytes() == before
    with pytest.raises(UntrustedCheckpointError):
        execute(theirs, 21)
    assert not Path("proof").exists()


@pytest.mark.parametrize("table", ["checkpoints", "run_log", "execution_ends", "codes"])
def test_the_digest_stands_for_each_row(theirs, table):
    """A row less is another digest."""
    shown = survey(theirs).digest
    tamper(theirs, f"DELETE FROM nbdurable.{table}")
    assert survey(theirs).digest != shown


def test_the_digest_stands_for_what_lies_beside(theirs):
    """A view more is another digest."""
    shown = survey(theirs).digest
    tamper(theirs, "CREATE VIEW main.prices AS SELECT 1 AS p")
    assert survey(theirs).digest != shown


def test_the_code_that_pickles_name(theirs):
    """It is shown by its name, and not run."""
    tamper(theirs, f"UPDATE nbdurable.checkpoints SET payload = {literal(pickle.dumps(Bomb()))}")
    found = survey(theirs)
    assert found.globals == ("posix.mkdir",)
    assert "its pickles look up posix.mkdir" in reports.told(found)
    assert not Path("proof").exists()


NAMED = {
    "protocol 0": (pickle.dumps(Bomb(), 0), {"posix.mkdir"}),
    "protocol 5": (pickle.dumps(Bomb(), 5), {"posix.mkdir"}),
    "a pickle in a pickle": (pickle.dumps(pickle.dumps(Bomb())), {"posix.mkdir"}),
    "by memory": (b"\x80\x04\x8c\x02os\x94\x8c\x05mkdir\x940h\x00h\x01\x93.", {"os.mkdir"}),
    "made while it runs": (b"\x80\x04Nh\x00N\x93.", {UNREADABLE}),
    "of no text": (b"\x80\x04\x8c\x02os\x94N\x93.", {COMPUTED}),
    "cut": (pickle.dumps(Bomb())[:-3], {"posix.mkdir", UNREADABLE}),
    "no pickle": (b"\xff\xfe", {UNREADABLE}),
    "nothing": (b"", {UNREADABLE}),
}


@pytest.mark.parametrize("named", NAMED)
def test_names_in_pickles(named, tmp_path, monkeypatch):
    """Each way of looking a name up is seen, or said to be one that can't be seen."""
    monkeypatch.chdir(tmp_path)
    data, expected = NAMED[named]
    assert globals_in(data) == expected
    assert not Path("proof").exists()


def test_what_lies_beside_the_store(theirs):
    """Tables, views and macros in the file are named before they are trusted."""
    tamper(
        theirs,
        "CREATE TABLE main.victims AS SELECT 1 AS a",
        "CREATE VIEW main.harmless AS SELECT 1 AS a",
        "CREATE MACRO main.now() AS 1",
    )
    found = survey(theirs).others
    assert found == ("macro main.now", "table main.victims", "view main.harmless")


def test_untrust(theirs):
    """What was trusted by mistake is nobody's again."""
    trust_store(theirs)
    assert execute(theirs, 21) == (42, False)
    maintenance.untrust(theirs)
    with pytest.raises(UntrustedCheckpointError, match="was not written with your key"):
        execute(theirs, 21)
    trust_store(theirs)
    assert execute(theirs, 21) == (42, False)


def test_the_signature_from_before_untrust(theirs, path):
    """Put back, it makes nothing one's own: the id is another."""
    trust_store(theirs)
    copy = theirs.with_name("copy.duckdb")
    shutil.copy(theirs, copy)
    untrust_store(theirs)
    tamper(
        theirs,
        f"ATTACH '{copy}' AS was (READ_ONLY)",
        "UPDATE nbdurable.meta SET value = m.value FROM was.nbdurable.meta AS m "
        "WHERE meta.key = 'signature' AND m.key = 'signature'",
    )
    with pytest.raises(UntrustedCheckpointError):
        execute(theirs, 21)
    assert path.is_file()


# --- what is done before that ----------------------------------------------------------


def state(folder):
    """Return names, bytes, modes and times of what is in a folder."""
    return {
        one.name: (one.lstat().st_mode, one.lstat().st_mtime_ns, one.read_bytes())
        for one in sorted(folder.iterdir())
        if one.is_file()
    }


ASKED = {
    "a durable cell": lambda path: execute(path, 21),
    "its runs": questions.runs,
    "its steps": lambda path: questions.steps(store=path),
    "sql": lambda path: questions.query("SELECT 1", path),
    "gc": lambda path: maintenance.collect(path, remove=True),
    "a look": survey,
    "an opening": Store.open,
}


@pytest.mark.parametrize("asked", ASKED)
def test_the_files_stay_as_they_were(theirs, tmp_path, asked):
    """Bytes, times, modes, the write-ahead log, and nothing beside them."""
    folder = tmp_path / "project"
    folder.mkdir()
    place = folder / "s.duckdb"
    shutil.copy(theirs, place)
    connection = duckdb.connect(str(place))
    connection.execute("PRAGMA disable_checkpoint_on_shutdown")
    connection.execute("CREATE TABLE main.late AS SELECT 1 AS a")
    connection.close()
    assert (folder / "s.duckdb.wal").exists()
    before, folder_before = state(folder), folder.stat().st_mtime_ns
    connecting.known.clear()
    with contextlib.suppress(UntrustedCheckpointError):
        ASKED[asked](place)
    open_stores.close_stores()
    assert state(folder) == before
    assert folder.stat().st_mtime_ns == folder_before


def test_nothing_is_made_in_a_strangers_folder(theirs, tmp_path):
    """No .gitignore and no lock file, before the store is known to be one's own."""
    folder = tmp_path / "project" / ".nbdurable"
    folder.mkdir(parents=True)
    shutil.copy(theirs, folder / "s.duckdb")
    with pytest.raises(UntrustedCheckpointError):
        execute(folder / "s.duckdb", 21)
    assert [one.name for one in folder.iterdir()] == ["s.duckdb"]


def test_a_meta_table_of_millions_of_rows(theirs):
    """It costs no more than the refusal: no row of it is made an object of Python's."""
    tamper(
        theirs,
        "INSERT INTO nbdurable.meta SELECT 'store', 'x'::BLOB FROM range(2_000_000)",
        "CHECKPOINT",
    )
    tracemalloc.start()
    try:
        with pytest.raises(StoreCorruptError, match="not made by nbdurable"):
            execute(theirs, 21)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_view_that_reads_a_file(path, theirs, tmp_path):
    """SQL over a store that is not one's own reaches no other file."""
    (tmp_path / "secret.csv").write_text("n\n1\n")
    tamper(theirs, f"CREATE VIEW main.v AS FROM '{tmp_path / 'secret.csv'}'")
    believe(path, theirs)
    with pytest.raises(UntrustedCheckpointError):
        questions.query("FROM v", theirs)


def test_how_much_memory_a_stranger_gets(theirs, monkeypatch):
    """A file that is not known to be one's own is opened with a bound, and spills nowhere."""
    seen = []
    inspect = Store._inspect

    def told(store, **options):
        seen.append(store._connection.execute(
            "SELECT current_setting('memory_limit'), current_setting('temp_directory'), "
            "current_setting('enable_external_access')").fetchone())  # fmt: skip
        return inspect(store, **options)

    monkeypatch.setattr(Store, "_inspect", told)
    with pytest.raises(UntrustedCheckpointError):
        execute(theirs, 21)
    assert seen == [("953.6 MiB", "", False)]
