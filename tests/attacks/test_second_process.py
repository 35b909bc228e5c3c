"""A second process that writes at the worst moment: between a look and what is done after it.

Threat: a folder that somebody else can write, or a program of theirs that runs beside us. The
process is told when the moment has come, and has done its part before we go on; that is the
worst that any timing can do. At each of these moments the same was done to the code of
commit aea71c6: what came of it there stands beside each test.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb  # noqa: TID251 - tampers with stores
import numpy as np
import pytest

from nbdurable import DurableError, StoreError, UntrustedCheckpointError, go, workflow
from nbdurable.api import open_stores
from nbdurable.events import AttemptStarted
from nbdurable.inspection import maintenance
from nbdurable.store import Store, collect, files, objects
from nbdurable.store import connection as connecting

pytestmark = pytest.mark.timeout(60)

INTRUDER = """
import json, os, shutil, sys

def overwrite(path, text):
    with open(path, "r+b") as file:
        file.write(bytes.fromhex(text))

def away_and_link(folder, target):
    os.rename(folder, folder + ".away")
    os.symlink(target, folder)

def hard_link(path, target):
    if os.path.lexists(path):
        os.unlink(path)
    os.link(target, path)

for line in sys.stdin:
    what, *words = json.loads(line)
    {**vars(os), **globals()}[what](*words)
    print("done", flush=True)
"""

ATTACK = b"cos\nmkdir\n(Vproof\ntR."
"""Makes a folder when it is unpickled."""


@pytest.fixture
def intrude():
    """Give a function by which a process of its own does something."""
    with subprocess.Popen(
        [sys.executable, "-c", INTRUDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def do(what, *words):
            process.stdin.write(json.dumps([what, *map(str, words)]) + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"

        yield do
        process.stdin.close()
        assert process.wait() == 0


@pytest.fixture
def at(monkeypatch):
    """Give a function that has something done once, before or after a function of ours."""

    def arrange(owner, name, act, *, after=False):
        found = vars(owner)[name]
        function = getattr(owner, name)
        done = []

        def instead(*args, **kwargs):
            if not after and not done:
                done.append(1)
                act()
            given = function(*args, **kwargs)
            if after and not done:
                done.append(1)
                act()
            return given

        wrapped = staticmethod(instead) if isinstance(found, classmethod) else instead
        monkeypatch.setattr(owner, name, wrapped)
        return done

    return arrange


def texts():
    """Return what is a large pickle."""
    return [f"{number:06}" for number in range(60_000)]


def numbers():
    """Return what is a large raw buffer."""
    return np.arange(100_000.0)


def run(store, body=texts):
    """Run a step; return its value, and whether its body ran."""
    events = []
    connecting.known.clear()
    try:
        with workflow("w", store=store, observers=[events.append]):
            value = go(body).result()
    finally:
        open_stores.close_stores()
    return value, any(isinstance(one, AttemptStarted) for one in events)


def told(act):
    """Return what something gives, or the line by which it fails."""
    try:
        return act()
    except DurableError as error:
        return str(error)


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
    """Return a folder of the user's elsewhere, with a file."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "precious").write_text("precious")
    return folder


def unharmed(victim):
    """Tell whether nothing has come of an attack."""
    here = [one.name for one in victim.iterdir()]
    return here == ["precious"] and (victim / "precious").read_text() == "precious"


# --- object files ------------------------------------------------------------------------


def test_an_object_file_is_written_between_its_check_and_its_use(project, intrude, at):
    """What is unpickled is what was checked; the next pass sees the change, and runs again.

    At aea71c6: the same, for it read the file once. The commit before 9ca86f6 unpickled the attack.
    """
    run(project / "s.duckdb")
    (file,) = (project / "s.duckdb.objects").glob("[0-9a-f]" * 64)
    at(objects, "_refuse_other", lambda: intrude("overwrite", file, ATTACK.hex()), after=True)
    assert run(project / "s.duckdb") == (texts(), False)
    assert file.read_bytes().startswith(ATTACK)
    assert run(project / "s.duckdb") == (texts(), True)
    assert not Path("proof").exists()


def test_an_object_file_is_exchanged_between_the_look_at_it_and_its_reading(project, intrude, at):
    """Whether it is lost is asked first; what is then read is compared with its digest by itself.

    At aea71c6: the same.
    """
    run(project / "s.duckdb")
    (file,) = (project / "s.duckdb.objects").glob("[0-9a-f]" * 64)
    evil = project / "evil"
    evil.write_bytes(ATTACK + file.read_bytes()[len(ATTACK) :])
    at(objects.Objects, "fault", lambda: intrude("replace", evil, file), after=True)
    found = told(lambda: run(project / "s.duckdb"))
    assert found == (texts(), True) or "has another content" in found
    assert not evil.exists()
    assert not Path("proof").exists()


# --- the store ---------------------------------------------------------------------------


@pytest.fixture
def evil(project, tmp_path, monkeypatch):
    """Return a store made by somebody else, under the id and the signature of this user's."""
    run(project / "s.duckdb", lambda: 1)
    with monkeypatch.context() as patch:
        patch.setenv("NBDURABLE_KEY_FILE", str(tmp_path / "theirs.key"))
        place = tmp_path / "theirs" / "s.duckdb"
        place.parent.mkdir()
        run(place, lambda: 666)
    with duckdb.connect(str(place)) as connection:
        connection.execute(f"ATTACH '{project / 's.duckdb'}' AS mine (READ_ONLY)")
        connection.execute(
            "UPDATE nbdurable.meta SET value = m.value FROM mine.nbdurable.meta AS m "
            "WHERE meta.key = m.key"
        )
        connection.execute("CREATE MACRO main.octet_length(x) AS 1")
    return place


def test_a_store_is_exchanged_between_the_look_at_it_and_its_opening(project, evil, intrude, at):
    """Another file than the one that was looked at is looked at itself; it stays as it was.

    At aea71c6: it was opened, for its id and signature are this user's.
    """
    before = evil.read_bytes()
    done = at(Store, "_looked_at", lambda: intrude("replace", evil, "s.duckdb"), after=True)
    with pytest.raises(UntrustedCheckpointError, match="its id was copied"):
        Store.open("s.duckdb")
    assert done
    assert Path("s.duckdb").read_bytes() == before


def test_its_folder_is_exchanged_while_it_is_opened_and_put_back(project, evil, intrude, at):
    """What stands under the path again is not what DuckDB has open: that is looked at.

    At aea71c6: it was opened.
    """
    home = project / "home"
    home.mkdir()
    shutil.move("s.duckdb", home / "s.duckdb")
    away, theirs = project / "away", evil.parent

    def exchange():
        intrude("rename", home, away)
        intrude("rename", theirs, home)

    def put_back():
        intrude("rename", home, theirs)
        intrude("rename", away, home)

    exchanged = at(Store, "_looked_at", exchange, after=True)
    put = at(connecting, "_connect", put_back, after=True)
    looked = []
    at(Store, "_fault", lambda: looked.append(1))
    connecting.known.clear()
    with pytest.raises(UntrustedCheckpointError, match="its id was copied"):
        Store.open(home / "s.duckdb")
    assert exchanged
    assert put
    assert looked
    assert run(home / "s.duckdb", lambda: 1)[0] == 1


# --- links -------------------------------------------------------------------------------


def test_a_link_comes_in_the_place_of_the_object_folder_before_files_are_removed(
    project, victim, intrude, at
):
    """Collecting removes what it has found in the folder where it has found it, or nothing.

    At aea71c6: the file of that name in the other folder was removed.
    """
    run(project / "s.duckdb")
    folder = project / "s.duckdb.objects"
    spare = folder / ("0" * 64)
    spare.write_text("nobody's")
    (victim / spare.name).write_text("precious")
    done = at(collect, "remove_file", lambda: intrude("away_and_link", folder, victim))
    with pytest.raises(StoreError, match="has come into the path"):
        maintenance.collect(project / "s.duckdb", remove=True)
    assert done
    assert (victim / spare.name).read_text() == "precious"


def test_a_link_comes_in_the_place_of_the_object_folder_before_a_value_is_written(
    project, victim, intrude, at
):
    """The value is written nowhere else; the cell says what has happened.

    At aea71c6: it was written into the other folder.
    """
    (project / "s.duckdb.objects").mkdir()
    folder = project / "s.duckdb.objects"
    done = at(
        objects.Objects, "draft", lambda: intrude("away_and_link", folder, victim), after=True
    )
    with pytest.raises(StoreError, match="has come into the path"):
        run(project / "s.duckdb", numbers)
    assert done
    assert unharmed(victim)


def test_a_link_comes_in_the_place_of_the_object_folder_while_a_value_is_written(
    project, victim, intrude, monkeypatch
):
    """What was begun in one folder ends there: the draft is not renamed in another.

    At aea71c6: the draft stayed where it had been begun, for it was looked for elsewhere.
    """
    folder, done, sync = project / "s.duckdb.objects", [], os.fsync

    def fsync(descriptor):
        if not done and Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".draft":
            done.append(1)
            intrude("away_and_link", folder, victim)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    found = told(lambda: run(project / "s.duckdb", numbers))
    assert isinstance(found, str) or found[1]
    assert done
    assert unharmed(victim)
    away = project / "s.duckdb.objects.away"
    assert not away.exists() or [one for one in away.iterdir() if one.suffix == ".draft"] == []


@pytest.mark.parametrize("there", [True, False])
def test_a_second_name_of_a_file_comes_in_the_place_of_the_ignore_file(
    project, victim, intrude, at, there
):
    """Nothing is written into what a person has under another name.

    At aea71c6: its first letters were overwritten.
    """
    folder = project / ".nbdurable"
    folder.mkdir()
    ignored, precious = folder / ".gitignore", victim / "precious"
    if there:
        ignored.touch()
    name = "remove" if there else "_written"
    done = at(files, name, lambda: intrude("hard_link", ignored, precious))
    found = told(lambda: run(folder / "nb.duckdb", lambda: 1))
    assert found == (1, True) or "\n" not in found
    assert done
    assert unharmed(victim)
