"""Object files that somebody else can write: what was checked is what is used, or nothing is.

Threat: a shared folder, or a project from somebody else, whose object files are changed,
replaced by links and pipes, or exchanged at the worst moment.
"""

import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from nbdurable import go, workflow
from nbdurable.api import open_stores
from nbdurable.events import AttemptStarted
from nbdurable.store import objects

PROOF = "proof"


ATTACK = b"cos\nmkdir\n(Vproof\ntR."
"""Makes a folder when it is unpickled."""


def texts():
    """Return what is a large pickle."""
    return [f"{number:06}" for number in range(60_000)]


def numbers():
    """Return what is a large raw buffer."""
    return np.arange(100_000.0)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Work in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "s.duckdb"
    open_stores.close_stores()


def run(store, body):
    """Run a step; return its value as it came back, and whether its body ran."""
    ran = []
    observers = (lambda event: ran.append(event) if isinstance(event, AttemptStarted) else None,)
    with workflow("w", store=store, observers=observers):
        value = go(body).result()
    open_stores.close_stores()
    return value, bool(ran)


def only_file(store):
    """Return the store's one object file."""
    (file,) = Path(f"{store}.objects").glob("[0-9a-f]" * 64)
    return file


def evil_copy(file):
    """Return a file's bytes with an attack in the place of what is unpickled."""
    return ATTACK + file.read_bytes()[len(ATTACK) :]


def test_the_attack_itself(store):
    """What it does where it is unpickled."""
    assert store.parent == Path.cwd()
    sys.modules["cloudpickle"].loads(ATTACK + b"and what was behind it")
    assert Path(PROOF).is_dir()


def test_a_pickle_that_was_changed(store):
    """It is not unpickled; the step runs again."""
    run(store, texts)
    file = only_file(store)
    file.write_bytes(evil_copy(file))
    assert run(store, texts) == (texts(), True)
    assert not Path(PROOF).exists()


def test_a_pickle_that_changes_right_after_it_was_checked(store, monkeypatch):
    """It was read once: what is unpickled is what was checked."""
    run(store, texts)
    file = only_file(store)
    evil = evil_copy(file)
    check = objects._refuse_other

    def then_exchange(piece, content):
        check(piece, content)
        with file.open("r+b") as opened:  # in place: a map of it would see that
            opened.write(evil)

    monkeypatch.setattr(objects, "_refuse_other", then_exchange)
    assert run(store, texts) == (texts(), False)
    assert file.read_bytes() == evil, "it was exchanged"
    assert not Path(PROOF).exists()


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_buffer_that_others_can_write(store, mode):
    """It is compared with what was saved, and used from memory of this process's own."""
    run(store, numbers)
    file = only_file(store)
    file.chmod(mode)
    again, ran = run(store, numbers)
    assert not ran
    with file.open("r+b") as opened:
        opened.seek(800)
        opened.write(b"\1\2\3\4")
    assert (again == numbers()).all(), "what was given does not hang on the file any more"
    given, ran = run(store, numbers)
    assert ran
    assert (given == numbers()).all()


@pytest.mark.parametrize("body", [texts, numbers])
def test_a_link_in_the_place_of_a_file(store, body):
    """It is not followed, whatever it leads to."""
    run(store, body)
    file = only_file(store)
    elsewhere = store.parent / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    assert run(store, body)[1]
    assert not file.is_symlink()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("body", [texts, numbers])
def test_a_pipe_in_the_place_of_a_file(store, body):
    """It is an error at once: opening it would wait for ever."""
    run(store, body)
    file = only_file(store)
    file.unlink()
    os.mkfifo(file)
    assert run(store, body)[1]


def test_modes(store):
    """Values are their user's alone, whatever the umask says."""
    before = os.umask(0)
    try:
        run(store, numbers)
    finally:
        os.umask(before)
    file = only_file(store)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
