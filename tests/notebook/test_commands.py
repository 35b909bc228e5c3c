"""``%durable`` and its subcommands, in a real kernel and in terminal IPython."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kernel_harness import kernel
from support.emulated import Terminal

import nbdurable
from nbdurable import cli
from nbdurable.api import configuration
from nbdurable.errors import UsageError
from nbdurable.inspection import settings
from nbdurable.notebook.commands import listed
from nbdurable.view.tables import Table

REPOSITORY = Path(__file__).parents[2]
COMMANDS = [str(row["command"]).split()[1] for row in listed()]

# The kernel's client closes its sockets when the garbage collector finds them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One kernel, with two runs in its store."""
    with kernel(tmp_path_factory.mktemp("shared")) as running:
        assert running.run("%load_ext nbdurable").status == "ok"
        running.run("from nbdurable import go, select, step")
        running.run(
            "%%durable prices --quiet\n@step\ndef fetch(n):\n    return n\n"
            "@step\ndef clean(n):\n    return n\nclean(fetch(1)), fetch(2);"
        )
        running.run("%%durable quotes --quiet\n@step\ndef ask():\n    return 1\nask();")
        yield running


def completions(running, line):
    """Press Tab at the end of a line."""
    running.client.complete(line, len(line))
    reply = running.client.get_shell_msg(timeout=30)
    while reply["msg_type"] != "complete_reply":
        reply = running.client.get_shell_msg(timeout=30)
    return reply["content"]["matches"]


# --- Tables ---------------------------------------------------------------------------

ROWS = [
    {"name": "<b>", "seconds": 1.5, "n": 1000, "x": None, "id": b"ab"},
    {"name": "c", "seconds": None, "n": 2, "x": None, "id": b"cd"},
]


def test_a_table_is_rows(monkeypatch):
    """It has a length, gives dicts, and reads as text that is the same in every window."""
    table = Table(ROWS, title="two of them")
    assert (len(table), table[0]["seconds"], list(table)) == (2, 1.5, ROWS)
    plain = repr(table)
    title, head, _, first, second = plain.splitlines()
    assert title == "two of them"
    assert head.split() == ["name", "seconds", "n", "x", "id"]
    assert first.split() == ["<b>", "1.500", "1000", "6162"]
    assert first.index("1000") + 4 == second.index("2 ") + 1  # numbers end in one column
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert repr(table) == plain
    assert table._repr_mimebundle_()["text/plain"] == plain


def test_a_table_as_html():
    """What it shows is escaped, numbers stand to the right, an empty one says so."""
    html = Table(ROWS, title="<two>")._repr_mimebundle_(include=None, exclude=None)["text/html"]
    assert html.startswith("<p>&lt;two&gt;</p><table><thead>")
    assert '<td style="text-align:left">&lt;b&gt;</td>' in html
    assert '<td style="text-align:right">1.500</td>' in html
    assert "<b>" not in html
    empty = Table([], "none yet")._repr_mimebundle_()
    assert empty == {"text/plain": "none yet", "text/html": "<p>none yet</p>"}


def test_a_table_on_a_terminal(monkeypatch):
    """There it is as wide as the window, and statuses have colours, unless those are unwanted."""

    class Tty(io.StringIO):
        def isatty(self):
            """It is."""
            return True

    monkeypatch.setattr(sys, "stdout", Tty())
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)
    table = Table([{"name": "quotes " * 10, "status": "failed"}])
    text = table._repr_mimebundle_()["text/plain"]
    assert "\x1b[31mfailed" in text
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in text.splitlines()) <= 40
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in table._repr_mimebundle_()["text/plain"]


def test_times_are_local():
    """A time that names its zone is shown in that of who reads it."""
    at = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
    assert f"{at.astimezone():%Y-%m-%d %H:%M:%S}" in repr(Table([{"at": at}]))


# --- Subcommands ----------------------------------------------------------------------


def test_line_magic_alone_lists_its_commands(shared):
    """%durable alone says what it can do, as text and as HTML."""
    result = shared.run("%durable")
    assert "%durable restart NAME" in result.value
    (shown,) = [o["data"] for o in result.outputs if o["type"] == "execute_result"]
    assert shown["text/html"].startswith("<table>")


def test_line_magic_answers(shared):
    """Each subcommand answers after a run, with a table or a sentence."""
    shared.run("%%durable asked --quiet\n@step\ndef f():\n    return 1\nf();")
    for line in ("status", "runs", "steps", "steps asked", "why asked", "restart asked"):
        result = shared.run(f"%durable {line}")
        assert result.status == "ok", result.text
        assert result.text
    result = shared.run("answer = %durable sql SELECT 1 AS one\nlen(answer)")
    assert (result.status, result.value) == ("ok", "1"), result.text


def test_a_table_is_the_only_output(shared):
    """The table is the value, and nothing is displayed beside it."""
    shared.run("%%durable tabled --quiet\n@step\ndef f():\n    return 1\nf();")
    for line in ("runs", "status", "steps", "why", "config", ""):
        (shown,) = shared.run(f"%durable {line}").outputs
        assert shown["type"] == "execute_result"


def told_by_status(running, name):
    """Return what ``%durable status NAME`` gives of a run that has ended: HTML and text."""
    result = running.run(f"%durable status {name}")
    assert result.status == "ok", result.text
    (shown,) = result.outputs
    assert shown["type"] == "execute_result"
    assert set(shown["data"]) == {"text/plain", "text/html"}  # it can be saved: no widget
    assert "<table" in shown["data"]["text/html"]
    return shown["data"]


def test_status_of_a_run_that_has_ended(shared):
    """Its view comes from the store, whoever executed it last, with or without a view."""
    shared.run("%%durable ended\n@step\ndef f(n):\n    print('n is', n)\n    return n\nf(1);")
    shown = told_by_status(shared, "ended")
    assert shown["text/plain"].startswith("ended: 1 ran, ")
    assert "as its store tells it: execution " in shown["text/plain"]
    assert ">n is 1\n</pre>" in shown["text/html"]
    shared.run("%%durable ended --quiet\nf(1), f(2);")
    assert told_by_status(shared, "ended")["text/plain"].startswith("ended: 1 replayed, 1 ran, ")


def test_status_of_a_run_that_goes_on_shows_its_view_once_more(shared):
    """As a widget, which goes on with it."""
    shared.run("import nbdurable.view.notebook.widget as widget\n@step\ndef f():\n    return 1")
    result = shared.run(
        "%%durable going_on\nimport asyncio\nf()\n"
        "while not widget.show_again('going_on'):\n"
        "    await asyncio.sleep(0.05)\n"
        "get_ipython().run_line_magic('durable', 'status going_on')",
    )
    assert result.status == "ok", result.text
    # The cell's own display is emptied at the end; the loop's and the magic's hold the summary.
    shown = [one for one in result.displays if one]
    assert [set(one) for one in shown] == [{"text/html", "text/plain"}] * 3
    assert len({one["text/html"] for one in shown}) == 1
    # After the end nobody would take a live view away again.
    assert shared.run("widget.show_again('going_on')").value == "False"


def test_status_of_a_run_that_goes_on_without_a_view(shared):
    """It is told as it stands; no widget is left to wait for news that nobody sends."""
    shared.run("from nbdurable import workflow, step")
    result = shared.run(
        "@step\ndef f(n):\n    return n\n"
        "with workflow('going', progress=False):\n"
        "    f(1)\n"
        "    said = get_ipython().run_line_magic('durable', 'status going')\n"
        "said"
    )
    assert result.value.startswith("going: 1 ran, ")


def test_status_of_a_run_that_is_too_large_has_a_line(shared):
    """What would take long to recall is told in the table."""
    shared.run("%%durable large --quiet\n@step\ndef f():\n    return 1\nf();")
    shared.run(
        "from nbdurable.inspection import history as recall\nmost, recall.MOST = recall.MOST, 0"
    )
    result = shared.run("%durable status large")
    shared.run("recall.MOST = most")
    assert re.search("large +finished", result.value)
    assert not result.displays


def test_trust(shared):
    """``%durable trust`` shows the steps; only ``--yes`` signs."""
    shared.run("%%durable trusted --quiet\n@step\ndef g():\n    return 1\ng();")
    shown = shared.run("%durable trust")
    assert "g()" in shown.text
    assert "nothing was signed: %durable trust --yes " in shown.text
    signed = shared.run("found = %durable trust --yes\nany(row['step'] == 'g()' for row in found)")
    assert (signed.status, signed.value) == ("ok", "True"), signed.text
    assert "signed with your key" in signed.text


def test_gc(shared):
    """``%durable gc`` shows what is no longer needed; only ``--yes`` takes it out."""
    for _ in range(2):
        shared.run("%%durable replaced --quiet --new\n@step\ndef g():\n    return 1\ng();")
    shown = shared.run("%durable gc")
    assert "replaced" in shown.text
    assert "`%durable gc --yes` takes them out" in shown.stdout
    assert "nothing that is no longer needed" in shared.run("%durable gc --older-than 7d").stdout
    assert "taken out: " in shared.run("%durable gc --yes").stdout
    assert "nothing that is no longer needed" in shared.run("%durable gc").stdout


def test_redo_and_rename(shared):
    """What is redone runs again, and says so first; the run answers to its new name."""
    body = (
        "%%durable {} --quiet\n@step(version=1)\ndef g(n):\n    print('ran', n)\n    return n\n"
        "g(1), g(2)"
    )
    shared.run(body.format("redone"))
    said = shared.run("%durable redo redone g(2)").stdout.splitlines()
    assert said[0].startswith("redo redone takes out 1 outcome of g, which took ")
    assert said[1] == "redone: run its cell again to make them anew"
    shared.run(body.format("redone"))
    whys = shared.run("[(r['step'], r['why']) for r in get_ipython().run_line_magic("
                      "'durable', 'why redone')]").value  # fmt: skip
    assert whys == "[('g(1)', 'new'), ('g(2)', 'redo')]"
    assert "called again now" in shared.run("%durable rename redone again").stdout
    assert shared.run("rows = %durable steps again\nlen(rows)").value == "2"


def test_keep_in_a_cell(shared):
    """``--keep`` reaches the session: an edited step's value is used, and that is recorded."""
    body = "%%durable kept{} --quiet\n@step\ndef h():\n    return {}\nh()"
    assert shared.run(body.format("", 1)).value == "1"
    assert shared.run(body.format(" --keep", 2)).value == "1"
    assert shared.run(body.format("", 2)).value == "1"
    asked = "rows = %durable sql SELECT name, what FROM nbdurable.acceptances\nrows"
    assert re.search(r"0 +h +h\(\)", shared.run(asked).value)


def test_confirm_is_one_line(shared):
    """A run that is suspended has no traceback, and nothing has run."""
    body = "%%durable asked-first --quiet\n@step\ndef h():\n    return {}\nh()"
    shared.run(body.format(1))
    shared.run("%durable config confirm=0")
    try:
        found = shared.run(body.format(2))
    finally:
        shared.run("%durable config confirm=default")
    assert found.status == "error"
    assert len(found.traceback) == 1
    assert "suspended before 1 saved outcome" in found.traceback[0]
    assert "`%%durable asked-first --keep`" in found.traceback[0]
    assert shared.run(body.format(2)).value == "2"


def test_steps_of_one_name(shared):
    """A step's name or label picks its rows; expressions in a run's name are filled in."""
    shared.run("what = 'prices'")
    assert shared.run("rows = %durable steps prices\nlen(rows)").value == "3"
    assert shared.run("rows = %durable steps {what} fetch\nlen(rows)").value == "2"
    assert shared.run("rows = %durable why prices 'fetch(2)'\nrows[0]['why']").value == "'new'"


def test_config_shows_where_values_come_from(shared):
    """Each setting with its value and its origin; what is set is set, and can be set back."""
    shown = shared.run("%durable config").value
    assert re.search(r"store +\S+ +this folder", shown), shown
    assert re.search(r"limit +\d+ +default", shown)
    assert re.search(r"key +\S+", shown)
    set_here = shared.run("%durable config limit=3 strict=on").value
    assert re.search(r"limit +3 +configure", set_here)
    assert re.search(r"strict +on +configure", set_here)
    assert (
        shared.run("from nbdurable.api import configuration\nconfiguration.default_limit()").value
        == "3"
    )
    back = shared.run("%durable config limit=default strict=default").value
    assert re.search(r"limit +\d+ +default", back)
    assert re.search(r"strict +off +default", back)


def test_no_view_where_none_is_wanted(shared):
    """``%durable config progress=off`` is --quiet for every cell; set back, views return."""
    body = "%%durable seen\n@step\ndef f():\n    return 1\nf();"
    shared.run("%durable config progress=off")
    assert shared.run(body).outputs == []
    shared.run("%durable config progress=default")
    assert "seen: 1 step" in shared.run(body).text


def test_origins(monkeypatch, tmp_path):
    """What `configure` sets comes before the environment, and that before the notebook."""

    def found(name):
        return next(
            (row["value"], row["from"]) for row in settings.shown() if row["setting"] == name
        )

    monkeypatch.delenv("NBDURABLE_STORE", raising=False)
    monkeypatch.delenv("NBDURABLE_PROGRESS", raising=False)
    configuration.set_notebook(tmp_path / "n.ipynb")
    try:
        assert found("store") == (str(tmp_path / ".nbdurable" / "n.duckdb"), "this notebook")
        assert found("progress") == ("in notebooks, on terminals", "default")
        monkeypatch.setenv("NBDURABLE_STORE", "s.duckdb")
        monkeypatch.setenv("NBDURABLE_PROGRESS", "0")
        assert found("store") == (str(Path("s.duckdb").resolve()), "NBDURABLE_STORE")
        assert found("progress") == ("off", "NBDURABLE_PROGRESS")
        nbdurable.configure(**settings.read(["store=t.duckdb", "progress=on"]))
        assert found("store") == (str(Path("t.duckdb").resolve()), "configure")
        assert found("progress") == ("on", "configure")
        assert found("key")[1] == "NBDURABLE_KEY_FILE"
    finally:
        nbdurable.configure(store=None, progress=None)
        configuration.set_notebook(None)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("limt=3", "did you mean limit?"),
        ("colour=3", "there are store, strict"),
        ("limit", "give a value, as in limit=8"),
        ("limit=", "give a value"),
        ("limit=many", "a whole number"),
        ("strict=perhaps", "on, off, or default"),
    ],
)
def test_words_that_set_nothing(word, says):
    """A word that can't be meant is told with what can."""
    with pytest.raises(UsageError, match=re.escape(says)):
        settings.read([word])


# --- Help, mistakes, completion -------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("how", [" --help", "?", " ?"])
def test_each_has_help(shared, command, how):
    """``--help`` and ``?`` show the same: usage, what it does, its options."""
    result = shared.run(f"%durable {command}{how}")
    assert result.status == "ok", result.text
    assert result.stdout.startswith(f"Usage: %durable {command}")
    assert "--help" in result.stdout
    assert result.payload == []


def test_help_tells_options(shared):
    """An option is named with its value and what it is for."""
    shown = shared.run("%durable gc --help").stdout
    assert re.search(r"--older-than AGE +Only what is older", shown)
    assert "for good" in shown


def test_doctor_and_export(shared):
    """The store examined, a run written to a file, as from the shell."""
    shown = shared.run("%durable doctor").value
    assert "wrong" not in shown
    assert "key" in shown
    said = shared.run("%durable export prices prices.json").stdout
    assert said == "3 steps are in prices.json\n"
    written = (shared.folder / "prices.json").read_text()
    assert "fetch(1)" in written
    assert "clean(" in written


def test_the_list_is_whole():
    """Every subcommand is listed in a line that is not cut, with what it takes."""
    looks, changes = {"status", "runs", "steps", "why", "sql"}, {"restart", "adopt", "gc", "trust"}
    looks, changes = looks | {"doctor", "export"}, changes | {"redo", "rename", "untrust"}
    assert set(COMMANDS) == looks | changes | {"config", "auto"}
    # The shell has these too, but for what acts in a kernel, and what runs or watches one.
    assert set(cli.main.commands) == set(COMMANDS) - {"auto"} | {"run", "watch", "demo"}
    for row in listed():
        assert len(str(row[""])) > 10
        assert not str(row[""]).endswith("...")
    usages = [row["command"] for row in listed()]
    assert "%durable gc [--older-than AGE] [--yes]" in usages
    assert "%durable steps [NAME] [STEP]" in usages
    assert "%durable redo NAME [LABEL]... [--errors]" in usages


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("%durable stats", "did you mean %durable status?"),
        ("%durable restart", "which run?"),
        ("%durable redo", "which run?"),
        ("%durable redo fetch", "no run is called fetch"),
        ("%durable redo prices fetsh", "no saved outcome of fetsh: did you mean fetch?"),
        ("%durable redo prices --errors", "no saved error"),
        ("%durable rename prices", "%durable rename OLD NEW"),
        ("%durable rename prices quotes", "another run is called quotes"),
        ("%durable rename nothing new", "no run or step is called nothing"),
        ("%durable sql", "SELECT"),
        ("%durable trust yes", "--yes"),
        ("%durable adopt", "%durable adopt NOTEBOOK"),
        ("%durable export prices", "%durable export NAME FILE"),
        ("%durable export prices prices.txt", ".parquet"),
        (
            "%durable gc now",
            "unexpected extra argument (now); usage: %durable gc [--older-than AGE]",
        ),
        ("%durable gc --older-than soon", "--older-than soon: not an age"),
        ("%durable gc --yess", "did you mean"),
        ("%durable gc --older-than", "--older-than"),
        ("%durable steps qoutes", "no run is called qoutes: did you mean quotes?"),
        ("%durable steps zzz", "prices, quotes"),
        ("%durable why prices fetsh", "prices has no step fetsh: did you mean fetch?"),
        ("%durable restart price", "did you mean prices?"),
        ("%durable steps {nothing}", "nothing"),
        ("%durable steps 'prices", "is never closed"),
        ("%durable config limt=3", "did you mean limit?"),
        ("%durable config limit=0", "1 or more"),
    ],
)
def test_mistakes_are_one_line(shared, code, says):
    """A mistake is one line without a traceback that says what is meant."""
    result = shared.run(code)
    assert result.status == "error"
    assert (result.ename, len(result.traceback)) == ("UsageError", 1)
    assert "\n" not in result.traceback[0]
    assert says.lower() in result.traceback[0].lower()


@pytest.mark.parametrize(
    ("line", "offered", "not_offered"),
    [
        ("%durable ", set(COMMANDS), {"--help", "prices"}),
        ("%durable st", {"status", "steps"}, {"why"}),
        ("%durable steps ", {"prices", "quotes"}, {"status"}),
        ("%durable steps pr", {"prices"}, {"quotes"}),
        ("%durable why prices ", {"fetch", "clean"}, {"ask", "prices"}),
        ("%durable why prices f", {"fetch"}, {"clean"}),
        ("%durable restart q", {"quotes"}, {"prices"}),
        ("%durable redo prices ", {"fetch", "clean"}, {"ask", "prices"}),
        ("%durable redo prices --", {"--errors"}, {"--yes"}),
        ("%durable gc ", {"--older-than", "--yes"}, {"prices"}),
        ("%durable gc --o", {"--older-than"}, {"--yes"}),
        ("%durable steps --", {"--help"}, {"prices"}),
        ("%durable config ", {"limit=", "strict="}, {"prices"}),
        ("%durable config str", {"strict="}, {"limit="}),
        ("%durable config strict=", {"on", "off", "default"}, {"limit="}),
        ("%durable sql SELECT * FROM st", {"steps"}, {"runs"}),
        ("%durable nothing ", set(), {"prices", "status"}),
    ],
)
def test_completion(shared, line, offered, not_offered):
    """Tab offers what may stand there, and nothing that may not."""
    found = set(completions(shared, line))
    assert offered <= found
    assert not found & not_offered


def test_completion_does_not_wait_for_a_store(tmp_path):
    """A store that can't be read offers no names, and says nothing."""
    with kernel(tmp_path) as running:
        running.run("%load_ext nbdurable")
        (tmp_path / ".nbdurable").mkdir()
        (tmp_path / ".nbdurable" / "default.duckdb").write_bytes(b"something else" * 500)
        assert completions(running, "%durable steps zz") == []


def test_in_ipython(tmp_path, monkeypatch):
    """In a terminal tables have colours and Tab completes."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    options = ["--no-banner", "--colors=nocolor", "--no-confirm-exit"]
    options += ["--TerminalInteractiveShell.autosuggestions_provider=None"]
    terminal = Terminal(["-m", "IPython", *options], tmp_path)
    with contextlib.closing(terminal):
        terminal.wait("In [1]:")
        terminal.child.send("%load_ext nbdurable\r")
        terminal.wait("In [2]:")
        terminal.child.send(
            "%%durable quotes --quiet\rfrom nbdurable import go\rgo(abs, -7).result()\x1b\r"
        )
        terminal.wait("Out[2]: 7", "In [3]:")
        terminal.child.send("%durable runs\r")
        terminal.wait("quotes", "executions", "In [4]:")
        assert "\x1b[32mfinished" in terminal.written
        terminal.child.send("%durable status quotes\r")
        terminal.wait("quotes: 1 ran, ", "as its store tells it: execution 1", "In [5]:")
        terminal.child.send("%durable steps qu\t")
        terminal.wait("In [5]: %durable steps quotes")
