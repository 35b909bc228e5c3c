"""Links, pipes and folders in the places where a store has its files.

Threat: a project folder that somebody else has laid out, or can write to. Nothing is followed
out of it, nothing waits for ever, nothing is removed that is not the store's own.
"""

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from nbdurable import StoreError, UsageError, go, workflow
from nbdurable.api import configuration, open_stores
from nbdurable.inspection import export, maintenance
from nbdurable.store import Store, hand_over, place_of
from nbdurable.store import connection as connecting

pytestmark = pytest.mark.timeout(60)


def numbers():
    """Return what lies in an object file."""
    return np.arange(100_000.0)


def run(path, body=numbers):
    """Run a step."""
    connecting.known.clear()
    try:
        with workflow("w", store=path):
            return go(body).result()
    finally:
        open_stores.close_stores()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a project's folder, in which a cell works."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    open_stores.close_stores()


@pytest.fixture
def victim(tmp_path):
    """Return a file of the user's elsewhere."""
    victim = tmp_path / "elsewhere" / "victim"
    victim.parent.mkdir()
    victim.write_text("precious")
    return victim


def unharmed(victim):
    """Tell whether nothing has come of an attack."""
    return victim.read_text() == "precious" and [*victim.parent.iterdir()] == [victim]


def store_in(project):
    """Return the place of the store of a notebook in the project."""
    return project / ".nbdurable" / "nb.duckdb"


def test_the_folder_is_a_link(project, victim):
    """A `.nbdurable` that leads elsewhere is refused: nothing is made there."""
    (project / ".nbdurable").symlink_to(victim.parent)
    with pytest.raises(StoreError, match="is a link"):
        run(store_in(project))
    assert unharmed(victim)


@pytest.mark.parametrize("target", ["victim", "none"])
def test_the_store_is_a_link(project, victim, target):
    """So is a store that leads elsewhere, to a file or to none yet."""
    (project / ".nbdurable").mkdir()
    store_in(project).symlink_to(victim.with_name(target))
    with pytest.raises(StoreError, match="is a link"):
        run(store_in(project))
    assert unharmed(victim)


def test_the_ignore_file_is_a_link(project, victim, capsys):
    """The target is not written, and that git is not kept off is said."""
    victim.write_text("")
    (project / ".nbdurable").mkdir()
    (project / ".nbdurable" / ".gitignore").symlink_to(victim)
    run(store_in(project))
    assert victim.read_text() == ""
    assert "does not keep git from this folder" in capsys.readouterr().err


def test_an_ignore_file_that_ignores_nothing(project, capsys):
    """One that lets values into git is said to be wrong, once."""
    (project / ".nbdurable").mkdir()
    (project / ".nbdurable" / ".gitignore").write_text("!*.duckdb\n")
    run(store_in(project))
    run(store_in(project))
    assert capsys.readouterr().err.count("does not keep git from this folder") == 1


@pytest.mark.parametrize("ending", [".wal", ".lock"])
def test_a_link_beside_the_store(project, victim, ending):
    """The write-ahead log and the lock file lead nowhere."""
    run(project / "s.duckdb")
    beside = project / f"s.duckdb{ending}"
    beside.unlink(missing_ok=True)
    beside.symlink_to(victim)
    with pytest.raises(StoreError):
        run(project / "s.duckdb")
    assert unharmed(victim)


@pytest.mark.parametrize("ending", ["", ".wal", ".lock"])
def test_a_pipe(project, ending):
    """It is an error at once, in one line: opening it would wait for ever."""
    os.mkfifo(project / f"s.duckdb{ending}")
    with pytest.raises(StoreError, match="ordinary file") as caught:
        run(project / "s.duckdb")
    assert "\n" not in str(caught.value)


def test_a_folder_in_the_place_of_the_store(project):
    """It is named for what it is."""
    (project / "s.duckdb").mkdir()
    with pytest.raises(StoreError, match="is a folder"):
        run(project / "s.duckdb")


def test_the_folder_of_large_values_is_a_link(project, victim):
    """No value is written elsewhere."""
    (project / "s.duckdb.objects").symlink_to(victim.parent)
    with pytest.raises(StoreError, match="is a link"):
        run(project / "s.duckdb")
    assert unharmed(victim)


def test_gc_in_a_linked_folder(project, victim):
    """Collecting removes nothing elsewhere, whatever the files are called there."""
    run(project / "s.duckdb")
    named = victim.with_name("0" * 64)
    named.write_text("precious")
    objects = project / "s.duckdb.objects"
    objects.rename(project / "away")
    objects.symlink_to(victim.parent)
    with pytest.raises(StoreError, match="is a link"):
        maintenance.collect(project / "s.duckdb", remove=True)
    assert named.exists()
    assert victim.exists()


def test_gc_removes_what_is_called_as_ours_are(project):
    """A person's file among the object files stays."""
    run(project / "s.duckdb")
    mine = project / "s.duckdb.objects" / "thesis.txt"
    mine.write_text("precious")
    spare = mine.with_name("0" * 64)
    spare.write_text("nobody's")
    maintenance.collect(project / "s.duckdb", remove=True)
    assert mine.exists()
    assert not spare.exists()


def test_drafts_are_called_as_ours_are(project):
    """Of what looks like a draft only what nbdurable writes is removed."""
    objects = project / "s.duckdb.objects"
    objects.mkdir()
    mine, ours = objects / "my.draft", objects / f"1-{'0' * 16}.draft"
    mine.write_text("precious")
    ours.write_text("left by a death")
    run(project / "s.duckdb")
    assert mine.exists()
    assert not ours.exists()


def test_compacting_removes_what_is_called_as_ours_are(project):
    """A person's file beside the store stays."""
    run(project / "s.duckdb", lambda: "x" * 10)
    mine = project / "s.duckdb.notes.compacting-plan"
    mine.write_text("precious")
    maintenance.collect(project / "s.duckdb", remove=True)
    assert mine.exists()


def test_links_among_object_files(project, victim):
    """Taking over a store copies its object files, and no file that a link leads to."""
    run(project / "s.duckdb")
    (project / "s.duckdb.objects" / "key").symlink_to(victim)
    (project / "s.duckdb.objects" / ("1" * 64)).symlink_to(victim)
    hand_over(project / "s.duckdb", project / "t.duckdb", keep=True)
    copied = [one.name for one in (project / "t.duckdb.objects").iterdir()]
    assert "key" not in copied
    assert "1" * 64 not in copied
    assert len(copied) == 1


@pytest.mark.parametrize("ending", [".json", ".parquet"])
def test_an_export_over_a_link(project, victim, ending):
    """The export takes the link's place, and that of a draft's; what they lead to stays."""
    run(project / "s.duckdb", lambda: 1)
    target = project / f"out{ending}"
    target.symlink_to(victim)
    (project / f".out{ending}.partial").symlink_to(victim)
    export.export(str(project / "s.duckdb"), "w", target)
    assert unharmed(victim)
    assert not target.is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("change", ["owner", "mode"])
def test_a_named_link_that_others_can_write(project, victim, change):
    """A link that the user named is followed only where nobody else can have put its target."""
    place = victim.with_name("real.duckdb")
    run(place)
    link = project / "link.duckdb"
    link.symlink_to(place)
    assert place_of(link) == str(place)
    if change == "owner":
        os.chown(place, 12345, 12345)
    else:
        place.chmod(0o666)
    with pytest.raises(StoreError, match="others can write"):
        Store.open(link)


def test_a_named_link(project, victim):
    """To a file of the user's own it is followed: a store on scratch."""
    place = victim.with_name("real.duckdb")
    run(place)
    link = project / "link.duckdb"
    link.symlink_to(place)
    assert (run(link) == numbers()).all()
    assert link.is_symlink()


def test_two_users_of_a_working_folder(project, victim):
    """Asking for the folder's stores looks at no link in it."""
    (project / ".nbdurable").mkdir()
    store_in(project).symlink_to(victim)
    with pytest.raises((StoreError, UsageError)):
        open_stores.acquire(configuration.stores_at_hand()[0])
    assert unharmed(victim)


def test_the_key_is_a_pipe(project, monkeypatch):
    """It is an error at once."""
    os.mkfifo(project / "key")
    monkeypatch.setenv("NBDURABLE_KEY_FILE", str(project / "key"))
    with pytest.raises(StoreError, match="no ordinary file"):
        run(project / "s.duckdb")


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_key_that_others_can_write(project, monkeypatch, mode):
    """Whoever wrote it could sign: it is not used."""
    key = project / "key"
    key.write_bytes(bytes(32))
    key.chmod(mode)
    monkeypatch.setenv("NBDURABLE_KEY_FILE", str(key))
    with pytest.raises(StoreError, match="can be written by others"):
        run(project / "s.duckdb")


def test_a_key_beside_the_store(project, monkeypatch):
    """Who brings the one brings the other: it is not used."""
    (project / ".nbdurable").mkdir()
    key = project / ".nbdurable" / "key"
    key.write_bytes(bytes(32))
    key.chmod(0o600)
    monkeypatch.setenv("NBDURABLE_KEY_FILE", str(key))
    with pytest.raises(StoreError, match="with which it would be copied"):
        run(store_in(project))


def test_a_key_that_is_a_link(project, victim, monkeypatch):
    """The user's own secret, as Kubernetes lays it, is followed."""
    victim.write_bytes(bytes(32))
    victim.chmod(0o400)
    (project / "key").symlink_to(victim)
    monkeypatch.setenv("NBDURABLE_KEY_FILE", str(project / "key"))
    run(project / "s.duckdb")


def test_a_key_of_great_length(project, monkeypatch):
    """No more of it is read than a key has."""
    key = project / "key"
    with key.open("wb") as file:
        file.truncate(1 << 33)
    key.chmod(0o600)
    monkeypatch.setenv("NBDURABLE_KEY_FILE", str(key))
    with pytest.raises(StoreError, match="8589934592 bytes instead of 32"):
        run(project / "s.duckdb")


def test_no_home_that_is_a_place(project, monkeypatch):
    """A data folder that is not absolute is no place for a key: it would lie in the project."""
    monkeypatch.delenv("NBDURABLE_KEY_FILE")
    monkeypatch.setattr("platformdirs.user_data_path", lambda *_, **__: Path("~/.local/share"))
    with pytest.raises(StoreError, match="NBDURABLE_KEY_FILE"):
        run(project / "s.duckdb")
    assert not (project / "~").exists()


# --- modes -------------------------------------------------------------------------------


def test_modes_of_what_is_made(project):
    """Store, write-ahead log and lock are their user's alone, whatever the umask says."""
    before = os.umask(0)
    place = project / "s.duckdb"
    modes = {}
    try:
        with workflow("w", store=place):
            go(numbers).result()
            for ending in ("", ".wal", ".lock"):
                modes[ending] = stat.S_IMODE(Path(f"{place}{ending}").stat().st_mode)
    finally:
        os.umask(before)
        open_stores.close_stores()
    assert modes == {"": 0o600, ".wal": 0o600, ".lock": 0o600}


def test_a_compacted_store_keeps_its_mode(project, monkeypatch):
    """Its copy can be read by nobody who could not read the store."""
    place = project / "s.duckdb"
    for _ in range(2):
        with workflow("w", store=place, new=True):
            go(lambda: "x" * 200_000).result()
    open_stores.close_stores()
    place.chmod(0o640)
    monkeypatch.setattr("nbdurable.store.collect._WORTH_BYTES", -(1 << 30))
    before = place.stat().st_ino
    maintenance.collect(place, remove=True)
    open_stores.close_stores()
    assert place.stat().st_ino != before, "it was compacted"
    assert stat.S_IMODE(place.stat().st_mode) == 0o640


def test_a_users_own_database_keeps_its_mode(project):
    """What the user has made is the user's to show."""
    import duckdb  # noqa: PLC0415, TID251 - a person's own

    place = project / "warehouse.duckdb"
    duckdb.connect(str(place)).close()
    place.chmod(0o664)
    run(place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o664
