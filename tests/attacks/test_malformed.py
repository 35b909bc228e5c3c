"""A malformed store given to any command: one line, never a traceback of ours.

Threat: a store whose columns say what no nbdurable writes: cut digests, times that are no
numbers, texts of any length, markup, lists of odd length.
"""

import shutil

import duckdb  # noqa: TID251 - tampers with stores
import pytest
from click.testing import CliRunner  # noqa: TID251 - the runner of what click made

from nbdurable import DurableError, after, current_step, go, select, workflow
from nbdurable.api import open_stores
from nbdurable.cli import main
from nbdurable.inspection import history as recall
from nbdurable.store import connection as connecting
from nbdurable.view import summary


def value():
    """Save some work, and return something."""
    current_step().save([1])
    return 1


def refuse():
    """Save some work, and fail."""
    current_step().save([1])
    current_step().progress(1, 2)
    raise ValueError("refused")


def program():
    """Run a step, a select, a step that fails with its work saved."""
    first = go(value)
    select(first, after(0.01)).result()
    return go(refuse).result()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a store in which two runs have failed."""
    path = tmp_path_factory.mktemp("malformed") / "s.duckdb"
    for name in ("w", "v"):
        with pytest.raises(ValueError, match="refused"), workflow(name, store=path):
            program()
    open_stores.close_stores()
    return path


MALFORMED = {
    "odd pieces": "UPDATE nbdurable.checkpoints SET pieces = 'x'::BLOB",
    "long pieces": "UPDATE nbdurable.checkpoints SET pieces = repeat('x'::BLOB, 800)",
    "odd digests": "UPDATE nbdurable.checkpoints SET call = 'x'::BLOB, version = ''::BLOB",
    "no times": "UPDATE nbdurable.checkpoints SET started = 'nan', seconds = 'nan'",
    "endless times": "UPDATE nbdurable.checkpoints SET started = 'inf', seconds = '-inf'",
    "no time of a run": "UPDATE nbdurable.run_log SET created = 'nan'",
    "endless time of a run": "UPDATE nbdurable.run_log SET created = 'inf'",
    "early time of a run": "UPDATE nbdurable.run_log SET created = -1e300",
    "no time of an execution": "UPDATE nbdurable.execution_log SET started = 'nan'",
    "endless end": "UPDATE nbdurable.execution_ends SET ended = 'inf'",
    "odd lists": "UPDATE nbdurable.execution_ends SET listed = 'x'::BLOB, reused = 'y'::BLOB",
    "no JSON": "UPDATE nbdurable.execution_ends SET told = '[1'",
    "other JSON": "UPDATE nbdurable.execution_ends SET told = '[[]]'",
    "another state": "UPDATE nbdurable.execution_ends SET status = '[/red]'",
    "another kind": "UPDATE nbdurable.checkpoints SET kind = '[/red]'",
    "markup": "UPDATE nbdurable.checkpoints SET label = '[/red]', name = '[/red]'",
    "a name of markup": "UPDATE nbdurable.run_log SET name = '[/red]'",
    "a long name": "UPDATE nbdurable.run_log SET name = repeat('x', 1000000)",
    "a name of another script": "UPDATE nbdurable.run_log SET id = 'größer'",
    "numbers out of range": "UPDATE nbdurable.execution_log SET id = 9223372036854775807",
    "odd branches": "UPDATE nbdurable.decision_log SET branches = 'x'::BLOB, losers = 'y'::BLOB",
    "no progress": "UPDATE nbdurable.progress SET done = 'nan', total = 'inf'",
    "odd saves": "UPDATE nbdurable.saves SET pieces = 'x'::BLOB, payload = 'x'::BLOB",
    "odd evidence": "UPDATE nbdurable.checkpoints SET code_evidence = 'x'::BLOB",
    "a short signature": "UPDATE nbdurable.checkpoints SET signature = 'x'::BLOB",
    "no id": "UPDATE nbdurable.meta SET value = '\\xFF'::BLOB WHERE key = 'store'",
    "no version": "UPDATE nbdurable.meta SET value = 'x'::BLOB WHERE key = 'version'",
    "an endless version": "UPDATE nbdurable.meta SET value = repeat('9'::BLOB, 9999)"
    " WHERE key = 'version'",
}
COMMANDS = (
    ["runs", "--store"],
    ["steps", "--store"],
    ["why", "--json", "--store"],
    ["sql", "SELECT * FROM steps, runs", "--store"],
    ["gc", "--yes", "--store"],
    ["doctor", "--store"],
    ["trust"],
    ["redo", "w", "--store"],
    ["rename", "w", "x", "--store"],
    ["export", "w", "--to", "out.json", "--store"],
)


@pytest.mark.parametrize("named", MALFORMED)
def test_no_traceback(saved, tmp_path, monkeypatch, named):
    """A command answers, or says in one line what is wrong; and so does a run."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "s.duckdb"
    shutil.copy(saved, path)
    with duckdb.connect(str(path)) as connection:
        connection.execute(MALFORMED[named])
    at = list(MALFORMED).index(named)
    for words in COMMANDS[at % 4 :: 4]:  # each command meets every fourth of them
        connecting.known.clear()
        found = CliRunner().invoke(main, [*words, str(path)])
        assert found.exception is None or isinstance(found.exception, SystemExit), words
        assert "Traceback" not in found.output
    connecting.known.clear()
    try:
        if (past := recall.recall("w", path)) is not None:
            summary.html(past.view, facts=past.facts)
        with workflow("w", store=path):
            program()
    except DurableError as error:
        assert "\n" not in str(error)  # noqa: PT017 - a value error of the program is as good
    except ValueError as error:
        assert str(error) == "refused"  # noqa: PT017 - likewise
    finally:
        open_stores.close_stores()


@pytest.mark.parametrize("length", [300, 5_000, 100_000])
@pytest.mark.parametrize("words", COMMANDS[:3])
def test_a_very_long_path(tmp_path, length, words):
    """It is refused in a line."""
    found = CliRunner().invoke(main, [*words, str(tmp_path / ("x" * length))])
    assert isinstance(found.exception, SystemExit)
    assert found.exit_code == 1


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 8192, b"12345678DUCK" + b"\0" * 20_000])
def test_no_database(tmp_path, content):
    """A file of any content is named for what it is not, and stays."""
    path = tmp_path / "s.duckdb"
    path.write_bytes(content)
    for words in (COMMANDS[0], COMMANDS[6]):
        found = CliRunner().invoke(main, [*words, str(path)])
        assert found.exception is None or isinstance(found.exception, SystemExit), words
        open_stores.close_stores()
        if content:
            assert path.read_bytes() == content
