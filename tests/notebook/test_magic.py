"""The notebook's door, in real kernels and in a terminal.

Each test speaks to a kernel as a front end does; times are never asserted, only
what came of it. An interrupted cell that was not interrupted would run into the
harness's timeout.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import nbformat
import pexpect
import pytest
from kernel_harness import ROOT, kernel
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from nbdurable.notebook import shell as surroundings

# The kernel's client closes its sockets when the garbage collector finds them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One kernel for the tests that leave nothing behind but names."""
    folder = tmp_path_factory.mktemp("shared")
    with kernel(folder) as running:
        assert running.run("%load_ext nbdurable").status == "ok"
        running.run("import asyncio, threading, time\nfrom nbdurable import go, select, step")
        yield running


@pytest.fixture
def own(tmp_path):
    """Make kernels of a test's own."""
    with contextlib.ExitStack() as made:
        yield lambda **options: made.enter_context(kernel(tmp_path, **options))


def plain_text(result):
    """Return the error as it reads, without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(result.traceback))


# --- A cell ----------------------------------------------------------------------


def test_value_names_and_out(shared):
    """A cell's value is Out[n], and its names stay."""
    result = shared.run("%%durable plain --quiet\n@step\ndef f():\n    return 2\nx = f()\nx + 1")
    assert (result.status, result.value, result.stderr) == ("ok", "3", "")
    assert shared.run(f"x, Out[{result.count}]").value == "(2, 3)"


def test_awaiting_cell(shared):
    """A cell that awaits runs on the kernel's loop and keeps its value."""
    result = shared.run(
        "%%durable awaiting --quiet\n@step\nasync def f():\n    await asyncio.sleep(0)\n"
        "    return 2\ny = await f()\ny + 1"
    )
    assert (result.status, result.value) == ("ok", "3"), result.text
    assert shared.run("y").value == "2"


def test_semicolon_shows_nothing(shared):
    """A trailing semicolon hides the value, in both kinds of cells."""
    for body in ("1 + 1;", "await asyncio.sleep(0, 3);"):
        result = shared.run(f"%%durable semi --quiet\n{body}")
        assert (result.status, result.value) == ("ok", None)


def test_no_name_is_left_behind(shared):
    """The machinery leaves nothing in the namespace."""
    before = set(shared.run("sorted(globals())").value.split("\n"))
    shared.run("%%durable clean --quiet\n1")
    after = set(shared.run("sorted(globals())").value.split("\n"))
    left = " ".join(after - before)
    assert "durable" not in left
    assert "keep" not in left


def test_error_reads_as_in_a_plain_cell(shared):
    """One error, at the user's line, without a frame of ours."""
    body = "\n\ndef f(n):\n    return 1 / n\n\nf(0)"
    plain = plain_text(shared.run(f"# header{body}"))
    for extra in ("", "\nawait asyncio.sleep(0)"):
        result = shared.run(f"%%durable wrong --quiet{body}{extra}")
        assert len(result.errors) == 1
        shown = plain_text(result)
        assert "nbdurable" not in shown.replace("'%%durable wrong --quiet'", "")
        if not extra:
            shown = shown.replace("'%%durable wrong --quiet'", "# header")
            assert re.sub(r"In\[\d+\]", "In", shown) == re.sub(r"In\[\d+\]", "In", plain)


def test_error_of_a_step_shows_its_line(shared):
    """A step's error goes from the cell's line to the step's, with nothing between."""
    result = shared.run(
        "%%durable wrongstep --quiet\n@step\ndef f():\n    raise ValueError('no')\nf()"
    )
    shown = plain_text(result)
    assert (result.ename, len(result.errors)) == ("ValueError", 1)
    assert "----> 5 f()" in shown
    assert "----> 4     raise ValueError('no')" in shown
    assert "nbdurable/" not in shown


def test_header_reaches_the_session(shared):
    """A NAME's expressions see the notebook's variables; options go to the session."""
    shared.run(
        "day = '2024-05-01'\nimport nbdurable.api.workflow as door\nseen = []\n"
        "real = door.workflow\n"
        "def workflow(name, *, new=0, max_age=None, keep=0, strict=None, limit=None,\n"
        "             tee=0, progress=None, observers=(), store=None):\n"
        "    seen.append((name, new, max_age, keep, strict, limit, tee))\n"
        "    return real(name)\n"
        "door.workflow = workflow"
    )
    try:
        shared.run("%%durable etl-{day} --quiet\n1")
        shared.run("%%durable o --quiet --new --keep --tee --strict --max-age 1h --limit 3\n1")
        shared.run("%%durable p --quiet --max-age 0\n1")
        assert shared.run("seen[0]").value == "('etl-2024-05-01', 0, None, 0, None, None, 0)"
        assert shared.run("seen[1]").value == "('o', True, 3600.0, True, True, 3, True)"
        assert shared.run("seen[2]").value == "('p', 0, 0.0, 0, None, None, 0)"
    finally:
        shared.run("door.workflow = real")


def test_cell_without_steps_says_so(shared):
    """A cell that ran no step says so in one line; one that did doesn't."""
    idle = shared.run("%%durable idle --quiet\nx = 1")
    assert [d["text/plain"] for d in idle.displays if "ran no step" in d["text/plain"]]
    busy = shared.run("%%durable busy --quiet\n@step\ndef f():\n    return 1\nf();")
    assert "ran no step" not in busy.text


def test_view_is_shown_unless_quiet(shared):
    """The status view leaves a summary; --quiet leaves nothing and imports no widget."""
    body = "@step\ndef f():\n    return 1\nf();"
    assert "viewed" in shared.run(f"%%durable viewed\n{body}").text
    assert shared.run(f"%%durable unseen --quiet\n{body}").outputs == []


def test_magics_in_the_cell(shared):
    """Line magics, shell commands and a cell magic below the header work."""
    result = shared.run(
        "%%durable inner --quiet\nout = !echo a b\nk = %env HOME\nout[0], len(k) > 0"
    )
    assert result.value == "('a b', True)"
    result = shared.run("%%durable inner --quiet\n%%time\nz = 1\nz + 1")
    assert (result.value, "Wall time" in result.stdout) == ("2", True)
    result = shared.run("%%time\n%%durable inner --quiet\nz = 3\nz + 1")
    assert (result.value, "Wall time" in result.stdout) == ("4", True)


def test_called_as_a_magic(shared):
    """`run_cell_magic` runs a cell too, and refuses one that awaits."""
    result = shared.run("get_ipython().run_cell_magic('durable', 'm --quiet', 'q = 5\\nq + 1')")
    assert (result.status, result.value) == ("ok", "6"), result.text
    assert shared.run("q").value == "5"
    result = shared.run("get_ipython().run_cell_magic('durable', 'm', 'await asyncio.sleep(0)')")
    assert result.ename == "UsageError"


def test_capturing_a_durable_cell(shared):
    """``%%capture`` above takes the run's output with the rest."""
    result = shared.run("%%capture out\n%%durable caught --quiet\nprint('in here')")
    assert "in here" not in result.stdout
    assert "in here" in shared.run("print(out.stdout)").stdout


def test_a_replay_shows_the_same(own):
    """Where nobody looks, a new kernel's replay shows what the first run showed, to the letter."""
    body = (
        "%%durable same\n@step\ndef f(n):\n    print('f', n)\n    return n\n"
        "first = select(f.go(1), f.go(2))\nprint(first.result())\nfirst.result()"
    )
    shown = []
    for _ in range(2):
        running = own()
        running.run("%load_ext nbdurable\nfrom nbdurable import select, step")
        result = running.run(body)
        assert result.status == "ok", result.text
        shown.append([{k: o.get(k) for k in ("text", "data")} for o in result.outputs])
        running.close()
    assert shown[0] == shown[1]
    assert "1 step" in str(shown) or "2 steps" in str(shown)


def test_a_warning_is_shown_where_there_is_no_view(own):
    """--quiet hides the status, never that something was not saved."""
    running = own()
    running.run("%load_ext nbdurable\nimport threading\nfrom nbdurable import step")
    body = "@step\ndef f():\n    return threading.Lock()\nf();"
    for _ in range(2):
        quiet = running.run(f"%%durable unsaved --quiet\n{body}", "one")
        assert "f(): not saved: " in quiet.text
        assert "replayed" not in quiet.text
    fine = running.run("%%durable saved --quiet\n@step\ndef g():\n    return 1\ng();", "two")
    assert fine.outputs == []


@pytest.mark.parametrize(
    "source",
    [
        "import time\n\ndef f():\n    return time.time()",
        "%%durable within --quiet\nimport time\n\ndef f():\n    return time.time()",
        (
            "%%durable within --quiet\nimport asyncio\nawait asyncio.sleep(0)\n\n"
            "async def f():\n    await asyncio.sleep(0)"
        ),
        (
            "from __future__ import annotations\nimport math\n\n@step(retries=1)\n"
            "def f(n: int) -> int:\n    return math.floor(n)"
        ),
        "import math\nf = lambda n: math.floor(n)",
        "import math\n\nclass C:\n    def m(self):\n        return math.pi\n\nf = C.m",
        (
            "%timeit -n1 -r1 1\nimport os.path\nx = !echo a\n\n"
            "def f():\n    return os.path.join('a', 'b')"
        ),
    ],
)
def test_the_source_of_a_cells_functions_is_found(shared, source):
    """IPython compiles a cell its own way; the syntax counts, not the instructions."""
    assert shared.run(source).status == "ok"
    asked = shared.run(
        "from nbdurable.fingerprint import Fingerprinter\n"
        "[str(note) for note in Fingerprinter().code(f, ignore=frozenset()).notes]"
    )
    assert asked.value == "[]", asked.text


# --- Mistakes ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("%%durable\ndef fetch(): pass", "try `%%durable fetch`"),
        ("%%durable a --nwe\n1", "did you mean --new?"),
        ("%%durable a b\n1", "takes one name"),
        ("%%durable etl-{nowhere}\n1", "nowhere"),
        ("x = 1\nselect(1)", "(line 2)"),
        ("go(print)", "%%durable NAME"),
    ],
)
def test_mistakes_are_one_line(shared, code, says):
    """A mistake is one line without a traceback, and the cell counts as failed."""
    result = shared.run(code)
    assert result.status == "error"
    assert len(result.traceback) == 1
    assert "\n" not in result.traceback[0]
    assert says in result.traceback[0]
    assert result.ename in {"UsageError", "NotInRunError"}
    assert len(result.errors) == 1


def test_nothing_ran_of_a_refused_cell(shared):
    """A header that can't be read stops the cell before its first line."""
    shared.run("refused = True")
    shared.run("%%durable a --nwe\nrefused = False")
    assert shared.run("refused").value == "True"


def test_run_all_stops_at_a_mistake(tmp_path, monkeypatch):
    """nbclient, and so Run All, stops at a usage error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell(c)
            for c in ("%load_ext nbdurable", "%%durable\nx = 1", "y = 2")
        ]
    )
    client = NotebookClient(notebook, kernel_name="python3")
    with pytest.raises(CellExecutionError, match="try `%%durable x`"):
        client.execute()
    assert notebook.cells[1].outputs[0].ename == "UsageError"
    assert notebook.cells[2].execution_count is None


def test_two_cells_one_name(own):
    """A second cell under the same name is refused; the same cell, or a freed name, is not."""
    running = own()
    running.run("%load_ext nbdurable")
    assert running.run("%%durable a --quiet\n1", "one").status == "ok"
    assert running.run("%%durable a --quiet\n2", "one").status == "ok"
    second = running.run("%%durable a --quiet\n3", "two")
    assert second.status == "error"
    assert "In [" in second.traceback[0]
    assert running.run("%%durable b --quiet\n1", "one").status == "ok"
    assert running.run("%%durable a --quiet\n3", "two").status == "ok"
    assert running.run("%%durable a --quiet\n3").status == "ok"


def test_a_removed_cell_frees_its_name(own, tmp_path):
    """A saved notebook that has lost the first cell, or its name, lets the second run."""
    path = tmp_path / "n.ipynb"

    def save(**cells):
        body = [{"id": k, "cell_type": "code", "source": v} for k, v in cells.items()]
        path.write_text(json.dumps({"cells": body}))

    running = own(notebook=path)
    running.run("%load_ext nbdurable")
    save(one="%%durable a\n1", two="%%durable a\n2")
    assert running.run("%%durable a --quiet\n1", "one").status == "ok"
    refused = running.run("%%durable a --quiet\n2", "two")
    assert "save the notebook" in refused.traceback[0]
    save(one="%%durable a\n1")
    assert running.run("%%durable a --quiet\n2", "two").status == "error"
    save(two="%%durable a\n2")
    assert running.run("%%durable a --quiet\n2", "two").status == "ok"
    save(two="%%durable c\n2", three="%%durable a\n2")
    assert running.run("%%durable a --quiet\n2", "three").status == "ok"


# --- Interrupts -------------------------------------------------------------------

STUCK = {
    "sleep in a plain cell": "print('on')\ntime.sleep(600)",
    "wait in a plain cell": "print('on')\nthreading.Event().wait()",
    "loop in a plain cell": "print('on')\nwhile True: pass",
    "sleep in an awaiting cell": "await asyncio.sleep(0)\nprint('on')\ntime.sleep(600)",
    "wait in an awaiting cell": "await asyncio.sleep(0)\nprint('on')\nthreading.Event().wait()",
    "idle await": "print('on')\nawait asyncio.sleep(600)",
    "await of a thread": "print('on')\nawait asyncio.to_thread(stop.wait)",
    "await of others": "print('on')\nawait asyncio.gather(*(asyncio.sleep(600) for _ in '12'))",
}


@pytest.mark.parametrize("body", STUCK.values(), ids=STUCK)
def test_interrupt(shared, body):
    """The stop button ends each kind of cell as KeyboardInterrupt, and the kernel goes on."""
    shared.run("stop = threading.Event()")
    shared.begin(f"%%durable stuck --quiet\n{body}")
    shared.wait_for("on")
    shared.interrupt()
    result = shared.finish()
    assert (result.status, result.ename, len(result.errors)) == ("error", "KeyboardInterrupt", 1)
    assert "nbdurable/" not in plain_text(result)
    last = len(body.split("\n")) + 1
    # IPython 7 names the line by an arrow alone.
    assert re.search(rf"(line|---->) ({last - 1}|{last})\b", plain_text(result))
    assert shared.run("stop.set()\n1 + 1").value == "2"
    assert shared.run("await asyncio.sleep(0, 5)").value == "5"


def test_interrupt_that_the_cell_catches(shared):
    """A cell may catch its interrupt and go on; the next one works again."""
    body = (
        "for word in ('on', 'again'):\n    print(word)\n    try:\n"
        "        await asyncio.sleep(600)\n    except asyncio.CancelledError:\n        pass\n'done'"
    )
    shared.begin(f"%%durable stubborn --quiet\n{body}")
    shared.wait_for("on")
    shared.interrupt()
    shared.wait_for("again")
    shared.interrupt()
    assert shared.finish().value == "'done'"


def test_cancellation_of_the_cells_own(shared):
    """A CancelledError that no signal caused stays one."""
    result = shared.run(
        "%%durable own --quiet\nother = asyncio.ensure_future(asyncio.sleep(600))\n"
        "await asyncio.sleep(0)\nother.cancel()\nawait other"
    )
    assert (result.status, result.ename) == ("error", "CancelledError")


@pytest.mark.parametrize("awaiting", ["", "await asyncio.sleep(0)\n"], ids=["plain", "awaiting"])
def test_interrupt_while_the_cell_waits_at_its_end(shared, awaiting):
    """A cell whose code is done waits for its steps, and that wait is interrupted too."""
    body = f"{awaiting}h = go(asyncio.sleep, 600)\nprint('on')"
    shared.begin(f"%%durable ending{len(awaiting)} --quiet\n{body}")
    shared.wait_for("on")
    shared.interrupt()
    result = shared.finish()
    assert (result.status, result.ename) == ("error", "KeyboardInterrupt"), result.text
    assert result.evalue == "the cell waited for its steps"
    assert "nbdurable/" not in plain_text(result)
    assert shared.run("await asyncio.sleep(0, 5)").value == "5"


# --- Loading -----------------------------------------------------------------------


def test_loading_twice_is_loading_once(shared):
    """Neither a second load nor a reload doubles anything; unloading takes all away."""
    count = (
        "ip = get_ipython()\n"
        "[sum('durable' in str(getattr(t, '__module__', type(t).__module__)) for t in ts)\n"
        " for ts in (ip.input_transformers_cleanup, ip.ast_transformers)]"
    )
    assert shared.run(count).value == "[1, 1]"
    shared.run("%load_ext nbdurable")
    shared.run("%reload_ext nbdurable")
    shared.run("import nbdurable\nnbdurable.load_ipython_extension(get_ipython())")
    assert shared.run(count).value == "[1, 1]"
    assert shared.run("%%durable again --quiet\nprint('once')").stdout == "once\n"
    shared.run("%unload_ext nbdurable")
    assert shared.run(count).value == "[0, 0]"
    assert shared.run("%%durable again\n1").status == "error"
    assert shared.run("hasattr(ip.display_pub.publish, 'original')").value == "False"
    shared.run("%load_ext nbdurable")
    assert shared.run(count).value == "[1, 1]"


def test_import_is_light(tmp_path):
    """Importing loads no IPython, widget library or DuckDB; nor does loading, IPython apart."""
    heavy = ("IPython", "ipywidgets", "anywidget", "duckdb", "pandas", "dask")
    script = textwrap.dedent(f"""
        import json, sys
        import nbdurable
        first = [m for m in {heavy} if m in sys.modules]
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell.instance()
        shell.run_line_magic("load_ext", "nbdurable")
        second = [m for m in {heavy} if m in sys.modules]
        print(json.dumps([first, second]))
    """)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = json.loads(done.stdout.splitlines()[-1])
    assert (first, second) == ([], ["IPython"])
    assert not (tmp_path / ".nbdurable").exists()


UNFINISHED = """
import time, pathlib
from nbdurable.api import configuration as c
from nbdurable.inspection import queries as q
from nbdurable.records import RunStatus, RunSummary
q.unfinished = lambda **_: [RunSummary('r', 'quotes', RunStatus.DIED,
    time.time() - 999, 1, time.time() - 130, None, 3, 2)]
"""
TOLD = "quotes: 3 of 5 steps saved, died 2 min ago; run its cell to resume"


def test_unfinished_runs_are_told_at_load(own):
    """Loading tells which runs are unfinished and how to go on, where a store exists."""
    running = own()
    told = running.run(f"{UNFINISHED}\n%load_ext nbdurable")
    assert told.outputs == []
    running.run(
        "store = pathlib.Path(c.default_store())\nstore.parent.mkdir(exist_ok=True)\n"
        "store.touch()\n"
        "from nbdurable.store import listed\nlisted.note(str(store.resolve()))"
    )
    assert running.run("%reload_ext nbdurable").outputs == [], "nobody looks: no output differs"
    (panel,) = running.run("%reload_ext nbdurable", "one").displays
    assert panel["text/plain"] == TOLD
    assert "<strong>quotes</strong>: 3 of 5 steps saved" in panel["text/html"]


def test_store_lies_beside_the_notebook(own, tmp_path):
    """The notebook's path decides the store; without one that is said once."""
    (tmp_path / "deep").mkdir()
    running = own(notebook=tmp_path / "deep" / "my notes.ipynb")
    running.run("%load_ext nbdurable")
    running.run("import nbdurable.api.configuration as c")
    shown = running.run("print(c.default_store())").stdout.strip()
    assert shown == str(tmp_path / "deep" / ".nbdurable" / "my notes.duckdb")
    assert "a.run.duckdb" not in running.run("%%durable a\n1", "one").text


def test_unknown_notebook_is_said_once(own):
    """Where a person looks and no notebook is known, the store's place is said once."""
    running = own()
    running.run("%load_ext nbdurable")
    assert "a.run.duckdb" not in running.run("%%durable a --quiet\n1").text
    running.restart()
    running.run("%load_ext nbdurable")
    assert "a.run.duckdb" in running.run("%%durable a --quiet\n1", "one").text
    assert "a.run.duckdb" not in running.run("%%durable a --quiet\n1", "one").text


def shell_with(names, kernel=None):
    """Stand for a shell with these names."""
    return types.SimpleNamespace(user_ns=names, kernel=kernel)


def test_notebook_path(tmp_path, monkeypatch):
    """The path is VS Code's, the session's, or a kernel's environment's, if it is a notebook's."""
    path = str(tmp_path / "n.ipynb")
    monkeypatch.setenv("JPY_SESSION_NAME", path)
    assert surroundings.notebook(shell_with({})) is None
    assert surroundings.notebook(shell_with({}, kernel=object())) == tmp_path / "n.ipynb"
    code = {"__vsc_ipynb_file__": str(tmp_path / "c.ipynb"), "__session__": path}
    assert surroundings.notebook(shell_with(code)) == tmp_path / "c.ipynb"
    for unknown in ("console-1-ab", str(tmp_path / "gone" / "n.ipynb"), 3):
        assert surroundings.notebook(shell_with({"__session__": unknown})) is None


def test_saved_cells(tmp_path):
    """A notebook's cells are read by id, their source as text; anything else gives none."""
    path = tmp_path / "n.ipynb"
    assert surroundings.saved_cells(path) == {}
    path.write_text(json.dumps({"cells": [{"id": "a", "source": ["x\n", "y"]}]}))
    assert surroundings.saved_cells(path) == {"a": "x\ny"}
    for text in ("{}", "not json", '{"cells": [{"source": "old format"}]}', "[]"):
        path.write_text(text)
        assert surroundings.saved_cells(path) == {}


def test_a_store_that_cannot_be_read(tmp_path):
    """Loading goes on without it; cells and lines say in one line what is wrong."""
    (tmp_path / ".nbdurable").mkdir()
    store = tmp_path / ".nbdurable" / "n.duckdb"
    store.write_bytes(b"something else" * 500)
    (tmp_path / "n.ipynb").write_text("{}")
    with kernel(tmp_path, notebook=tmp_path / "n.ipynb") as running:
        loaded = running.run("%load_ext nbdurable", "cell")
        assert loaded.status == "ok"
        assert loaded.stdout.startswith(f"nothing was opened of {store}: ")
        running.run(f"from nbdurable.store import listed\nlisted.note({str(store)!r})")
        loaded = running.run("%reload_ext nbdurable", "cell")
        assert "what was saved can't be read" in loaded.stdout
        for code in ("%durable runs", "%%durable x\n1"):
            refused = running.run(code)
            assert refused.ename == "StoreCorruptError"
            assert len(refused.traceback) == 1
            assert "is not a DuckDB database; it was left as it is" in refused.traceback[0]
        assert store.read_bytes() == b"something else" * 500


def test_a_store_held_elsewhere_does_not_hold_up_loading(tmp_path):
    """Loading says who has the store; when it is free, cells run."""
    (tmp_path / ".nbdurable").mkdir()
    store = tmp_path / ".nbdurable" / "n.duckdb"
    (tmp_path / "n.ipynb").write_text("{}")
    hold = f"import duckdb; c = duckdb.connect({str(store)!r}); print('held', flush=True); input()"
    with (
        subprocess.Popen(
            [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder,
        kernel(tmp_path, notebook=tmp_path / "n.ipynb") as running,
    ):
        holder.stdout.readline()
        running.run(f"from nbdurable.store import listed\nlisted.note({str(store)!r})")
        loaded = running.run("%load_ext nbdurable", "cell")
        assert loaded.status == "ok"
        assert f"is held by process {holder.pid} " in loaded.stdout
        holder.communicate(b"\n")
        assert running.run("%%durable x --quiet\n1 + 1").value == "2"


def run_in_header(option, shared):
    """Return the options that there are, as the cell that has a wrong one names them."""
    said = shared.run(f"%%durable x {option}\n1").text
    return re.findall(r"--[a-z-]+", said.partition("it has")[2])


def test_help(shared):
    """``%%durable?`` shows the options, ``%durable?`` the other magic."""
    (page,) = shared.run("%%durable?").payload
    options = run_in_header("--nothing", shared)
    assert len(options) == 8
    for option in options:
        assert page["data"]["text/plain"].count(option) >= 2, option
    (page,) = shared.run("%durable?").payload
    assert "alone lists how" in page["data"]["text/plain"]


def test_displays_are_captured(shared):
    """A display within a capture goes there, from any thread, and can be shown later."""
    result = shared.run(
        "from nbdurable.output import capture as output\n"
        "from IPython.display import display, HTML\n"
        "import contextvars\nbox = output.Capture()\nwith output.Capturing(box):\n"
        "    thread = threading.Thread(target=contextvars.copy_context().run,\n"
        "        args=(display, HTML('<i>x</i>')))\n    thread.start()\n    thread.join()\n"
        "[m.kind for m in box.messages]"
    )
    assert (result.value, result.displays) == ("['display']", [])
    result = shared.run("output.deliver(box.messages)")
    assert [d["text/html"] for d in result.displays] == ["<i>x</i>"]


# --- A terminal ---------------------------------------------------------------------


@pytest.fixture
def terminal(tmp_path):
    """Terminal IPython with the extension loaded."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "TERM": "dumb",
    }
    arguments = ["-m", "IPython", "--simple-prompt", "--no-banner", "--colors=nocolor"]
    child = pexpect.spawn(
        sys.executable, arguments, env=environment, cwd=str(tmp_path), encoding="utf-8", timeout=60
    )
    child.expect(r"In \[1\]: ")
    child.sendline("%load_ext nbdurable")
    child.expect(r"In \[2\]: ")
    yield child
    child.close(force=True)


def end(terminal):
    """End a cell as any cell magic's: the simple prompt wants two empty lines."""
    for _ in range(2):
        terminal.expect(r"\.\.\.: ")
        terminal.sendline("")


def test_terminal_cell(terminal):
    """A terminal waits for the body, runs it, shows its value and one line about the run."""
    terminal.sendline("%%durable quotes")
    terminal.expect(r"\.\.\.: ")
    terminal.sendline("x = 1")
    terminal.expect(r"\.\.\.: ")
    terminal.sendline("x + 41")
    end(terminal)
    terminal.expect("quotes: no steps")
    terminal.expect("quotes.run.duckdb")
    terminal.expect(r"Out\[2\]: 42")
    terminal.expect(r"In \[3\]: ")


def test_terminal_mistake(terminal):
    """A mistake is one line here too."""
    terminal.sendline("%%durable quotes --nwe")
    terminal.expect(r"\.\.\.: ")
    terminal.sendline("1")
    end(terminal)
    terminal.expect(r"UsageError: .*did you mean --new\?")
    assert "Traceback" not in terminal.before
    terminal.expect(r"In \[3\]: ")


@pytest.mark.parametrize(
    "body",
    [
        "import time; print('o' + 'n', flush=True); time.sleep(600)",
        "import asyncio; print('o' + 'n', flush=True); await asyncio.sleep(600)",
    ],
    ids=["plain", "awaiting"],
)
def test_terminal_interrupt(terminal, body):
    """Ctrl-C ends the cell, and the terminal goes on."""
    terminal.sendline("%%durable stuck")
    terminal.expect(r"\.\.\.: ")
    terminal.sendline(body)
    end(terminal)
    terminal.expect("\non\r")
    terminal.sendintr()
    terminal.expect("KeyboardInterrupt")
    terminal.expect(r"In \[3\]: ")
    terminal.sendline("import asyncio; await asyncio.sleep(0, 40 + 2)")
    terminal.expect(r"Out\[3\]: 42")


def test_the_first_cell_of_the_readme(shared):
    """It runs as it is pasted, and says which source answered first."""
    readme = Path(__file__).parents[2] / "README.md"
    _, cell = re.findall(r"```python\n(%.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    assert "time.sleep(seconds)\n" in cell
    result = shared.run(cell.replace("time.sleep(seconds)", "time.sleep(seconds / 20)"))
    assert result.status == "ok", result.text
    assert "first: quote('alpha', 0.8) says 9420" in result.text
    assert shared.run("sorted(a['source'] for a in answers)").value.count(",") == 3
