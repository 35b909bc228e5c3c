"""What a store says, shown: no terminal obeys it, no markup is read in it, nothing is evaluated.

Threat: names and labels made of untrusted text; a stranger's store given to any command.
"""

import os
import re
import time
import types
from pathlib import Path

import duckdb  # noqa: TID251 - tampers with stores
import pytest
from click.testing import CliRunner  # noqa: TID251 - the runner of what click made

from nbdurable import cli, configure, go, step, workflow
from nbdurable.api import configuration, open_stores
from nbdurable.errors import StoreError, UsageError
from nbdurable.inspection import history as recall
from nbdurable.inspection import queries as questions
from nbdurable.inspection import reports
from nbdurable.labels import harmless
from nbdurable.notebook import commands, finding
from nbdurable.notebook.tracebacks import one_line
from nbdurable.store import connection as connecting
from nbdurable.view import summary
from nbdurable.view.notice import Notice
from nbdurable.view.tables import Table

COMMANDING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj.exe [/red][bold] \r"
PROOF = "{__import__('os').mkdir('proof')}"


def value():
    """Return something."""
    return 1


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Return the only store: with a run whose name obeys, and one whose name evaluates."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "s.duckdb"
    for name in ("fine", PROOF):
        with workflow(name, store=path):
            step(value, name="[/red]load").go().result()
            go(value).result()
    with workflow("broken", store=path) as running:
        assert running is not None
        go(value).result()
    open_stores.close_stores()
    monkeypatch.setattr(finding, "notebook", lambda _: None)
    configure(store=path)
    yield path
    configure(store=None)
    open_stores.close_stores()


def forge(path, *statements):
    """Say in a store's columns what no nbdurable has written there."""
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement, [f"evil {EVIL}"] if "?" in statement else [])
    connecting.known.clear()


FORGED = (
    "UPDATE nbdurable.checkpoints SET label = ?",
    "UPDATE nbdurable.checkpoints SET name = ?",
    "UPDATE nbdurable.checkpoints SET why = ?",
    "UPDATE nbdurable.execution_ends SET error = ?",
    "UPDATE nbdurable.run_log SET name = ? WHERE name = 'broken'",
)
ASKED = {
    "runs": ["runs", "--store", "{}"],
    "runs as JSON": ["runs", "--json", "--store", "{}"],
    "steps": ["steps", "--store", "{}"],
    "steps as JSON": ["steps", "--json", "--store", "{}"],
    "steps of no run": ["steps", "nobody", "--store", "{}"],
    "why": ["why", "--store", "{}"],
    "sql": ["sql", "SELECT * FROM steps", "--store", "{}"],
    "sql as JSON": ["sql", "--json", "SELECT * FROM steps", "--store", "{}"],
    "gc": ["gc", "--store", "{}"],
    "doctor": ["doctor", "--store", "{}"],
    "trust": ["trust", "{}"],
    "redo": ["redo", "nobody", "--store", "{}"],
    "rename": ["rename", "nobody", "somebody", "--store", "{}"],
    "export": ["export", "nobody", "--to", "out.json", "--store", "{}"],
}


@pytest.mark.parametrize("asked", ASKED)
def test_a_command(path, asked):
    """What it prints, and its error, has nothing that a terminal obeys."""
    forge(path, *FORGED)
    words = [word.format(path) for word in ASKED[asked]]
    found = CliRunner().invoke(cli.main, words, catch_exceptions=False)
    assert not COMMANDING.search(found.output), found.output
    assert found.output


def test_names_of_columns(path):
    """A view's columns are named by whoever made it."""
    query = f'SELECT 1 AS "{EVIL}"'
    found = CliRunner().invoke(cli.main, ["sql", query, "--store", str(path)])
    assert found.exit_code == 0, found.exception
    assert not COMMANDING.search(found.output)
    assert "[/red]" in found.output


@pytest.mark.parametrize("text", [EVIL, "[/red]", "[bold]x[/bold]", "<script>x()</script>"])
def test_a_table(text):
    """Cells, columns and titles are text, in each of its forms."""
    table = Table([{text: text}], title=text)
    assert not COMMANDING.search(repr(table))
    assert not COMMANDING.search(table._repr_html_())
    assert "<script>" not in table._repr_html_()
    if "\x1b" not in text:
        assert text in repr(table)


def test_the_notice_at_load(path):
    """The names of unfinished runs are shown as they are stored, and no terminal obeys them."""
    forge(path, FORGED[-1])
    runs = questions.runs(path)
    notice = Notice([one for one in runs if EVIL in one.name], time.time())
    assert not COMMANDING.search(str(notice))
    assert not COMMANDING.search(notice.bundle["text/html"])


def test_an_error():
    """One line of an error in a notebook is escaped, whatever it quotes."""
    (line,) = one_line(StoreError(f"a store says {EVIL}"))
    assert not COMMANDING.search(line)


def test_a_recalled_run(path):
    """A past run's view, made of columns, is escaped."""
    forge(path, *FORGED[:2])
    found = recall.recall("fine", path)
    assert found is not None
    assert not COMMANDING.search(summary.html(found.view, facts=found.facts))
    assert not COMMANDING.search(repr(summary.Summary(found.view, found.facts)))


@pytest.mark.parametrize("text", ["größer ✓ 漢字 é\u00a0€", "👩\u200d🔬", "a\tb\nc"])
def test_what_stays(text):
    """Letters of every script, and ends of lines, are nobody's orders."""
    assert harmless(text) == text


@pytest.mark.parametrize("code", [0x1B, 0x7F, 0x9B, 0x202E, 0x2066, 0x2028, 0x61C, 0xD800, 0x0D])
def test_what_is_escaped(code):
    """Control characters, C1, those that turn letters round, half of a letter."""
    assert harmless(f"a{chr(code)}b").isascii()


SHELL = types.SimpleNamespace(user_ns={}, display_pub=None)


def pressed(line):
    """Press Tab at the end of a line."""
    *_, last = line.split(" ")
    event = types.SimpleNamespace(text_until_cursor=line, symbol=last, line=line)
    return commands.complete(SHELL, event)


@pytest.mark.parametrize("command", ["steps", "why", "redo", "restart", "rename"])
def test_completion_offers_no_expression(path, command):
    """A run's name that would be evaluated, or obeyed, is not offered; nothing is evaluated."""
    forge(path, FORGED[-1])
    found = pressed(f"%durable {command} ")
    assert "fine" in found
    assert not any("{" in one or COMMANDING.search(one) for one in found)
    assert not Path("proof").exists()


@pytest.mark.parametrize("command", ["steps", "why"])
def test_a_name_that_is_typed_as_it_is_stored(path, command, monkeypatch):
    """It is that run's: its braces are letters."""
    assert path.is_file()
    monkeypatch.setattr(commands.kernel, "in_kernel", lambda _: False)
    shown = commands.run(SHELL, f'{command} "{PROOF}"')
    assert "load" in repr(shown)
    assert not Path("proof").exists()


def test_an_expression_of_ones_own(path, monkeypatch):
    """What the user types is the user's to evaluate."""
    assert path.is_file()
    monkeypatch.setattr(commands.kernel, "in_kernel", lambda _: False)
    shell = types.SimpleNamespace(user_ns={"which": "fine"})
    assert "load" in repr(commands.run(shell, "steps {which}"))


def test_json_is_read_back(path):
    """What is escaped in JSON is there for whoever reads it."""
    assert path.is_file()
    assert reports.as_json({"a": EVIL}).isascii()
    with pytest.raises(UsageError):
        commands.run(SHELL, "steps nobody")
    assert configuration.known_store() == str(path)
    assert os.path.exists(path)  # noqa: PTH110
