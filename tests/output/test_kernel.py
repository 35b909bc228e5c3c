"""What steps show in a notebook: live, in order, in their last state, and the same on replay.

Each test speaks to a real kernel as a front end does. That something is shown live is
told by the step, which waits for a file that the test makes when it has seen it.
"""

from __future__ import annotations

import contextlib
import re

import nbformat
import pytest
from kernel_harness import ROOT, kernel
from nbclient import NotebookClient

# The kernel's client closes its sockets when the garbage collector finds them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

WIDGET = "application/vnd.jupyter.widget-view+json"
SETUP = (
    "%load_ext nbdurable\nimport asyncio, logging, pathlib, threading, time\n"
    "from IPython.display import HTML, clear_output, display, update_display\n"
    "from nbdurable import gather, go, select, step\n"
    "def wait_for(name):\n"
    "    while not pathlib.Path(name).exists():\n        threading.Event().wait(0.005)"
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One kernel for the tests that leave nothing behind but runs of names of their own."""
    folder = tmp_path_factory.mktemp("shared")
    with kernel(folder, notebook=folder / "n.ipynb") as running:
        assert running.run(SETUP).status == "ok"
        yield running


@pytest.fixture
def fresh(tmp_path):
    """Make kernels of a test's own, which serve one notebook one after the other."""
    with contextlib.ExitStack() as made:

        def start():
            running = made.enter_context(kernel(tmp_path, notebook=tmp_path / "n.ipynb"))
            assert running.run(SETUP).status == "ok"
            return running

        yield start


@pytest.fixture
def cell(request, tmp_path):
    """Return a cell's id, and its first line: a run of the test's own."""
    name = re.sub(r"\W+", "-", request.node.name).strip("-")[:100]

    class Cell:
        id = name

        @staticmethod
        def source(body, options=" --quiet"):
            """Return the cell's text; `HERE` in it is the test's folder."""
            return f"%%durable {name}{options}\n{body}".replace("HERE", str(tmp_path))

    return Cell


def screen(result):
    """Return what a front end shows in the end: streams joined, carriage returns carried out."""
    shown = []
    for one in result.outputs:
        if one["type"] == "stream":
            if shown and shown[-1][0] == one["name"]:
                shown[-1][1] += one["text"]
            else:
                shown.append([one["name"], one["text"]])
        elif one["type"] != "error" and one["data"]:
            shown.append([one["type"], one["data"]])
    return [
        [kind, overwritten(what) if isinstance(what, str) else what] for kind, what in shown if what
    ]


def overwritten(text):
    """Carry carriage returns out."""
    lines = []
    for line in text.split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown)
    return "\n".join(lines)


def live_and_replayed(running, cell, body):
    """Run a cell twice; give what it showed, both times the same, to the letter."""
    screens = []
    for _ in range(2):
        result = running.run(cell.source(body), cell.id)
        assert result.status == "ok", result.text
        screens.append(screen(result))
    assert screens[0] == screens[1]
    return screens[0]


# --- Live ---------------------------------------------------------------------------

TALK = (
    "def talk(n):\n    print('one', n)\n    wait_for(f'HERE/seen{n}')\n    print('two', n)\n"
    "async def talk_async(n):\n    print('one', n)\n"
    "    await asyncio.to_thread(wait_for, f'HERE/seen{n}')\n    print('two', n)\n"
)

WAITS = {
    "result": "go(talk, 1).result()",
    "call": "step(talk)(1)",
    "gather": "gather(go(talk, 1), go(print, 'third')).result()",
    "await": "await go(talk, 1)",
    "await async": "await go(talk_async, 1)",
    "call async": "await step(talk_async)(1)",
    "async in a sync cell": "go(talk_async, 1).result()",
    "the cell's end": "go(talk, 1);",
    "the end of an awaiting cell": "await asyncio.sleep(0); go(talk_async, 1);",
    "tee": "go(talk, 1).result()",
}


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "alone"])
@pytest.mark.parametrize("how", WAITS)
def test_the_step_that_the_cell_waits_for_is_shown_live(shared, cell, tmp_path, how, watched):
    """It goes on when the front end has seen, under the cell's own header, what it has printed."""
    options = " --quiet" + " --tee" * (how == "tee")
    shared.begin(cell.source(TALK + WAITS[how], options), cell.id if watched else None)
    shared.wait_for("one 1\n")
    (tmp_path / "seen1").touch()
    result = shared.finish()
    assert result.status == "ok", result.text
    assert result.stdout == "one 1\ntwo 1\n" + "third\n" * (how == "gather")
    assert result.stderr == ""


def test_a_display_is_shown_live(shared, cell, tmp_path):
    """A display, an update and what is printed before and after, from a thread, in their order."""
    body = (
        "def f():\n    for n in range(3):\n        print('text', n)\n"
        "        h = display(HTML(f'<b>{n}</b>'), display_id=True)\n        print('more', n)\n"
        "        wait_for(f'HERE/seen{n}')\n        h.update(HTML(f'<i>{n}</i>'))\n"
        "go(f).result()"
    )
    shared.begin(cell.source(body), cell.id)
    for number in range(3):
        shared.wait_for(f"more {number}\n")
        (tmp_path / f"seen{number}").touch()
    live = screen(shared.finish())
    assert [what if isinstance(what, str) else what["text/html"] for _, what in live] == [
        "text 0\n", "<i>0</i>", "more 0\ntext 1\n", "<i>1</i>", "more 1\ntext 2\n", "<i>2</i>",
        "more 2\n",
    ]  # fmt: skip
    assert screen(shared.run(cell.source(body), cell.id)) == live


def test_nbclient_gets_it_live(tmp_path, monkeypatch):
    """An executing client has a step's text before the step goes on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    body = f"%%durable live --quiet\n{TALK}go(talk, 1).result()".replace("HERE", str(tmp_path))
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in (SETUP, body)]
    )

    class Client(NotebookClient):
        def process_message(self, msg, cell, cell_index):
            if "one 1\n" in msg["content"].get("text", ""):
                (tmp_path / "seen1").touch()
            return super().process_message(msg, cell, cell_index)

    Client(notebook, kernel_name="python3", timeout=60).execute()
    # nbclient keeps what came apart as outputs of their own.
    assert "".join(output.text for output in notebook.cells[1].outputs) == "one 1\ntwo 1\n"


def test_an_adopted_body_is_shown_from_its_beginning(fresh, tmp_path):
    """A cell that was interrupted and runs again shows all that its step has printed, once."""
    running = fresh()
    body = (
        "%%durable adopted --quiet\ndef f():\n    print('one')\n    wait_for('go on')\n"
        "    print('two')\n    wait_for('seen')\n    print('three')\ngo(f).result()"
    )
    running.begin(body, "a cell")
    running.wait_for("one\n")
    running.interrupt()
    assert running.finish().stdout == "one\n"
    (tmp_path / "go on").touch()
    running.run("time.sleep(0.1)\nprint('another cell')")
    running.begin(body, "a cell")
    running.wait_for("two\n")
    (tmp_path / "seen").touch()
    result = running.finish()
    assert result.stdout == "one\ntwo\nthree\n"
    running.close()
    assert fresh().run(body, "a cell").stdout == "one\ntwo\nthree\n"


def test_tee(shared, cell, tmp_path):
    """Everything is live; a step that nobody waits for goes on when it has been seen."""
    body = (
        f"{TALK}handles = [go(talk, n) for n in (1, 2)]\n"
        "handles[0].result()\nprint('cell')\nhandles[1].result()"
    )
    shared.begin(cell.source(body, " --quiet --tee"), cell.id)
    shared.wait_for("one 2\n")
    (tmp_path / "seen1").touch()
    shared.wait_for("cell\n")
    (tmp_path / "seen2").touch()
    result = shared.finish()
    assert sorted(result.stdout.splitlines()) == ["cell", "one 1", "one 2", "two 1", "two 2"]
    again = shared.run(cell.source(body, " --quiet --tee"), cell.id)
    assert again.stdout == "one 1\ntwo 1\none 2\ntwo 2\ncell\n"


def test_logging_that_was_set_up_in_an_earlier_cell(shared, cell):
    """A handler that took hold of the stream earlier writes into the step's output."""
    shared.run("logging.basicConfig(format='%(message)s', force=True)")
    body = "def f():\n    logging.warning('in f')\nh = go(f)\nlogging.warning('cell')\nh.result()"
    assert live_and_replayed(shared, cell, body) == [["stderr", "cell\nin f\n"]]


def test_a_captured_cell(shared, cell):
    """``%%capture`` above takes what steps show, and what is replayed; each display once."""
    body = (
        "def f():\n    print('old')\n    display(HTML('old'))\n    clear_output()\n"
        "    print('text')\n    display(HTML('shown'))\ngo(f).result()"
    )
    for _ in range(2):
        result = shared.run(f"%%capture caught\n{cell.source(body)}", cell.id)
        assert (result.status, result.outputs) == ("ok", []), result.text
        found = shared.run("print([o.data['text/html'] for o in caught.outputs], caught.stdout)")
        assert found.stdout == "['shown'] text\n\n"


def as_async(body):
    """Make a body's functions async, so that they take turns at their pauses."""
    return re.sub(r"(?m)^def ", "async def ", body).replace("time.sleep", "await asyncio.sleep")


# --- Figures ------------------------------------------------------------------------

PLOT = (
    "import matplotlib.pyplot as plt\n"
    "def plot(n):\n"
    "    for i in range(3):\n"
    "        plt.plot([0, 1], [i, n])\n"
    "        time.sleep(0.01)\n"
    "    print('figures', plt.get_fignums(), 'lines', len(plt.gca().lines))\n"
)


@pytest.mark.parametrize(
    "end",
    ["plt.show()", "display(plt.gcf())\n    plt.close()", ""],
    ids=["show", "display", "open"],
)
@pytest.mark.parametrize("way", ["blocked", "awaited", "async"])
def test_figures_of_concurrent_steps(shared, cell, end, way):
    """Each step draws its own figure, which is its output, however it is shown; and no other's."""
    wait = {"blocked": "gather(handles).result()"}.get(way, "await gather(handles)")
    body = f"{PLOT}    {end}\nhandles = [go(plot, n) for n in range(4)]\n{wait}\nplt.get_fignums()"
    shown = live_and_replayed(shared, cell, as_async(body) if way == "async" else body)
    text, image, *_ = shown
    assert text == ["stdout", "figures [1] lines 3\n"]
    assert set(image[1]) == {"image/png", "text/plain"}
    assert [kind for kind, _ in shown] == ["stdout", "display_data"] * 4 + ["execute_result"]
    assert len({what["image/png"] for kind, what in shown if kind == "display_data"}) == 4
    assert shown[-1][1] == {"text/plain": "[]"}


def test_the_cells_own_figure_is_not_a_steps(shared, cell):
    """A called step's figure is its own; the cell's goes on afterwards, and shows at the end."""
    body = (
        f"{PLOT}step(plot)(1)\nplt.plot([5, 6])\nstep(plot)(2)\n"
        "print('cell', plt.get_fignums(), len(plt.gca().lines))"
    )
    shown = live_and_replayed(shared, cell, body)
    assert [what if kind == "stdout" else "figure" for kind, what in shown] == [
        "figures [1] lines 3\n", "figure", "figures [1] lines 3\n", "figure",
        "cell [1] 1\n", "figure",
    ]  # fmt: skip


def test_a_figure_that_is_restored_in_a_new_kernel(fresh, cell):
    """It is drawn from what was saved; pyplot neither holds it nor shows it at the cell's end."""
    body = (
        "import matplotlib.pyplot as plt\ndef make():\n    plt.plot([1, 2])\n"
        "    figure = plt.gcf()\n    print('made', plt.get_fignums())\n    return figure\n"
        "figure = go(make).result()\nprint(plt.get_fignums(), len(figure.axes[0].lines))"
    )
    screens = []
    for _ in range(2):
        running = fresh()
        result = running.run(cell.source(body), cell.id)
        assert result.status == "ok", result.text
        screens.append(screen(result))
        drawn = running.run("figure.axes[0].plot([3, 4]); display(figure); plt.get_fignums()")
        assert ["image/png" in one for one in drawn.displays] == [True]
        assert drawn.value == "[]"
    assert screens[0] == screens[1]
    assert [kind for kind, _ in screens[0]] == ["stdout", "display_data", "stdout"]
    assert [screens[0][0][1], screens[0][2][1]] == ["made [1]\n", "[] 1\n"]


def test_a_restored_figure_does_not_pop_up(shared, cell):
    """A figure that a step returns is a value: pyplot does not show it at the cell's end."""
    body = (
        "import matplotlib.pyplot as plt\ndef make():\n    fig, ax = plt.subplots()\n"
        "    ax.plot([1, 2])\n    plt.close()\n    return fig\n"
        "figure = go(make).result()\nprint(plt.get_fignums(), len(figure.axes[0].lines))"
    )
    assert live_and_replayed(shared, cell, body) == [["stdout", "[] 1\n"]]


def test_a_figure_that_is_open_when_it_is_saved(shared, cell):
    """A figure that pyplot holds and a step returns comes back once, and not as pyplot's."""
    body = (
        "import matplotlib.pyplot as plt\nmine, ax = plt.subplots()\nax.plot([1, 2])\n"
        "def same(figure):\n    return figure\n"
        "figure = step(same, key=lambda f: 1)(mine)\n"
        "print(plt.get_fignums(), figure is mine)\nplt.close('all')"
    )
    assert live_and_replayed(shared, cell, body) == [["stdout", "[1] False\n"]]


# --- Progress bars, widgets, rich ------------------------------------------------------


def bars(module):
    """Return a step that draws two of tqdm's bars, and the pattern of what is left of it."""
    body = (
        f"from {module} import tqdm\n"
        "def f(n):\n    print('begin', n)\n"
        "    for _ in tqdm(range(5), desc=f'bar {n}'):\n        time.sleep(0.03)\n"
        "    for _ in tqdm(range(5), desc='gone', leave=False):\n        time.sleep(0.01)\n"
        "    print('end', n)\n"
    )
    return body, r"begin {n}\n ?bar {n}: 100%\|\S+\| 5/5 \[.*\]\n?\s*end {n}\n"


RICH = {
    "track": (
        (
            "from rich.progress import track\ndef f(n):\n    print('begin', n)\n"
            "    for _ in track(range(5), description=f'bar {n}'):\n        time.sleep(0.03)\n"
            "    print('end', n)\n"
        ),
        r"begin {n}\n(bar {n} ━+ 100% 0:00:00\s*)+end {n}\n",
    ),
    "Progress": (
        (
            "from rich.progress import Progress\ndef f(n):\n    print('begin', n)\n"
            "    with Progress() as progress:\n"
            "        bars = [progress.add_task(f'{name} {n}', total=3) for name in 'ab']\n"
            "        for _ in range(3):\n            time.sleep(0.03)\n"
            "            progress.advance(bars[0])\n            progress.advance(bars[1])\n"
            "        progress.console.print('above', n)\n"
            "    print('end', n)\n"
        ),
        r"begin {n}\nabove {n}\n(a {n} ━+ 100% 0:00:00\s*b {n} ━+ 100% 0:00:00\s*)+end {n}\n",
    ),
    "Live": (
        (
            "from rich.live import Live\nfrom rich.table import Table\ndef f(n):\n"
            "    print('begin', n)\n    with Live(f'state 0 of {n}') as live:\n"
            "        for at in (1, 2):\n            time.sleep(0.03)\n"
            "            live.update(f'state {at} of {n}')\n            print('printed', at)\n"
            "    print('end', n)\n"
        ),
        r"begin {n}\nprinted 1\nprinted 2\nstate 2 of {n}\s*end {n}\n",
    ),
    "print": (
        (
            "import rich\nfrom rich.console import Console\ndef f(n):\n    print('begin', n)\n"
            "    rich.print(f'[bold]rich[/] {n}')\n    time.sleep(0.03)\n"
            "    Console().print('console', n)\n    print('end', n)\n"
        ),
        r"begin {n}\nrich {n}\nconsole {n}\nend {n}\n",
    ),
}
DRAWN = {"tqdm": bars("tqdm"), "tqdm.auto": bars("tqdm.auto"), **RICH}
WAYS = {
    "gathered": "gather(go(f, n) for n in (1, 2)).result();",
    "called": "step(f)(1);",
    "awaited": "await gather(go(f, n) for n in (1, 2));",
    "async": "await gather(go(f, n) for n in (1, 2));",
    "async call": "await step(f)(1);",
    "async in a sync cell": "gather(go(f, n) for n in (1, 2)).result();",
}


def text_of(shown):
    """Return all that is on the screen as text, without rich's colours."""
    texts = [what if isinstance(what, str) else what["text/plain"] for _, what in shown]
    return re.sub(r"\x1b\[[0-9;]*m", "", "".join(texts))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("drawn", DRAWN)
def test_what_draws_itself_anew(shared, cell, drawn, way):
    """Bars and live displays are recorded in their last state, in place; they divert nothing."""
    body, pattern = DRAWN[drawn]
    body = as_async(body) if "async" in way else body
    body = f"import sys\n{body}before = sys.stdout\n{WAYS[way]}\nprint(sys.stdout is before)"
    shown = live_and_replayed(shared, cell, body)
    text = text_of(shown)
    numbers = (1,) if "call" in way else (1, 2)
    assert re.fullmatch("".join(pattern.replace("{n}", str(n)) for n in numbers) + "True\n", text)
    assert not any("widget" in kind for _, what in shown if isinstance(what, dict) for kind in what)


@pytest.mark.parametrize("way", ["gathered", "async"])
@pytest.mark.parametrize("drawn", [*DRAWN, "figures"])
def test_what_draws_itself_anew_with_tee(shared, cell, drawn, way):
    """All at once, it breaks no cell; what is recorded, and so replayed, is each step's own."""
    figures = (
        f"{PLOT}    print('end', n)\nf = plot\n",
        r"figures \[1\] lines 3\nend {n}\n<Figure.*?>",
    )
    body, pattern = figures if drawn == "figures" else DRAWN[drawn]
    body = as_async(body) if way == "async" else body
    screens = []
    for options in (" --quiet --tee", " --quiet --tee", " --quiet"):
        result = shared.run(cell.source(f"{body}{WAYS[way]}\nprint('the end')", options), cell.id)
        assert result.status == "ok", result.text
        assert "Traceback" not in result.text
        screens.append(screen(result))
    live, replayed, without = screens
    assert replayed == without
    wanted = "".join(pattern.replace("{n}", str(n)) for n in (1, 2))
    assert re.fullmatch(wanted + "the end\n", text_of(replayed))
    for number in (1, 2):
        assert f"end {number}\n" in text_of(live)
    assert text_of(live).endswith("the end\n")
    assert len([1 for kind, _ in live if kind == "display_data"]) == len(
        [1 for kind, _ in replayed if kind == "display_data"]
    )


def test_a_bar_moves_while_the_cell_waits(shared, cell, tmp_path):
    """A widget of tqdm is shown live in a place of its own; its text follows when it has ended."""
    body = (
        "from tqdm.auto import tqdm\ndef f():\n    for n in tqdm(range(2)):\n"
        "        print('at', n)\n        wait_for(f'HERE/seen{n}')\ngo(f).result()"
    )
    shared.begin(cell.source(body), cell.id)
    shared.wait_for("at 0\n")
    assert WIDGET in shared.outputs[0]["data"]
    for number in range(2):
        (tmp_path / f"seen{number}").touch()
    ended = shared.finish()
    assert ended.outputs[0]["data"] == {}
    assert re.fullmatch(r"at 0\nat 1\n100%\|\S+\| 2/2 \[.*\]\n", ended.stdout)


def test_a_bar_of_text_moves_while_the_cell_waits(shared, cell, tmp_path):
    """One that is drawn on stderr, too; where it is drawn below another, both are there."""
    body = (
        "import sys\nfrom tqdm.auto import tqdm\ndef f():\n"
        "    print('\\r 10%', end='', file=sys.stderr)\n    for n in tqdm(range(1)):\n"
        "        print('at', n)\n        wait_for(f'HERE/seen{n}')\n"
        "    print('\\r100%', file=sys.stderr)\ngo(f).result()"
    )
    shared.begin(cell.source(body), cell.id)
    shared.wait_for("at 0\n")
    assert WIDGET in shared.outputs[0]["data"]
    assert shared.outputs[0]["data"]["text/plain"].startswith(" 10%\n")
    (tmp_path / "seen0").touch()
    ended = shared.finish()
    assert ended.stderr == ""
    assert ended.stdout.startswith("at 0\n")
    assert ended.stdout.endswith("\n100%\n")


MANY = (
    "import sys, warnings\nfrom tqdm import tqdm as plain\nfrom tqdm.auto import tqdm\n"
    "def many(n):\n    print('begin', n)\n"
    "    for _ in tqdm(range(2), desc=f'widget {n}'):\n        time.sleep(0.01)\n"
    "    for _ in plain(range(2), desc=f'text {n}'):\n        print('inside', n)\n"
    "    print('end', n)\n"
    "for n in range(20):\n    go(many, n).result()\n"
    "gather(go(many, n) for n in range(20, 40)).result()\n'the value'"
)


def saved(outputs):
    """Return what a notebook holds of a cell's outputs, the empty ones too."""
    found = []
    for one in outputs:
        kind = one.get("output_type") or one["type"]
        if kind == "stream" and found and found[-1][0] == one["name"]:
            found[-1] = (one["name"], found[-1][1] + one["text"])
        else:
            found.append((one["name"], one["text"]) if kind == "stream" else (kind, one["data"]))
    return found


def told(outputs):
    """Return them without what a summary says of times and of what was replayed."""
    html = "text/html"
    return [
        (kind, what if isinstance(what, str) else {key: what[key] for key in what if key != html})
        for kind, what in outputs
    ]


def test_many_steps_with_texts_and_bars_are_few_outputs(shared, cell):
    """Above 50 outputs JupyterLab hides the summary and the value; replayed, they are the same."""
    passes = []
    for _ in range(2):
        result = shared.run(cell.source(MANY, ""), cell.id)
        assert result.status == "ok", result.text
        passes.append(told(saved(result.outputs)))
    assert passes[0] == passes[1]
    assert len(passes[0]) < 10, [kind for kind, _ in passes[0]]
    text = "".join(what for kind, what in passes[0] if kind == "stdout")
    assert [text.count(word) for word in ("widget ", "text ", "inside ")] == [40, 40, 80]
    assert passes[0][-1] == ("execute_result", {"text/plain": "'the value'"})
    assert not [kind for kind, _ in passes[0] if kind == "stderr"]


def test_a_notebook_that_is_executed_saves_the_same_list(tmp_path):
    """Where nobody looks, too: a first pass that lasts, and a replay that is over at once."""
    cells = [SETUP, f"%%durable many\n{MANY}"]
    passes = []
    for _ in range(2):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in cells])
        client = NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}})
        passes.append(told(saved(client.execute().cells[1].outputs)))
    assert passes[0] == passes[1]
    assert len(passes[0]) < 10, [kind for kind, _ in passes[0]]


def test_widgets_are_shown_as_their_text(shared, cell):
    """A bar leaves a line when it ends, here with its step; one that was closed leaves nothing."""
    body = (
        "import ipywidgets as w\ndef f():\n    print('begin')\n    out = w.Output()\n"
        "    box = w.HBox([w.Label('load'), w.IntProgress(value=5, max=10), w.HTML('<b>5</b>')])\n"
        "    gone = w.Button()\n    display(box, gone, out)\n    gone.close()\n"
        "    with out:\n        print('in the output widget')\n    print('end')\n"
        "go(f).result()"
    )
    assert live_and_replayed(shared, cell, body) == [
        ["stdout", "begin\nin the output widget\nend\nload|█████     |5\n"]
    ]


# --- Updates, clearing, the cut -----------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    ["go(f).result()", "step(f)()", "handle = go(f)\nselect(handle)"],
    ids=["go", "call", "end"],
)
@pytest.mark.parametrize("quiet", [" --quiet", ""], ids=["quiet", "view"])
def test_updates_and_clearing(shared, cell, how, quiet):
    """The last state counts, of the step's own output: the cell's stays, and the status view."""
    body = (
        "print('cell begins')\n"
        "def f():\n    print('old text')\n    display(HTML('old'))\n    time.sleep(0.4)\n"
        "    for n in range(3):\n        clear_output(wait=True)\n        print('round', n)\n"
        "        h = display(HTML(f'first {n}'), display_id='mine')\n"
        "        update_display(HTML(f'then {n}'), display_id='mine')\n        time.sleep(0.03)\n"
        "    print('last')\n"
        f"{how}\nprint('cell ends')"
    )
    screens = []
    for _ in range(2):
        result = shared.run(cell.source(body, quiet), cell.id)
        assert result.status == "ok", result.text
        shown = screen(result)
        summaries = [one for one in shown if cell.id in str(one)]
        assert len(summaries) == (quiet == "")
        texts = [
            what if isinstance(what, str) else what["text/html"]
            for kind, what in shown
            if [kind, what] not in summaries
        ]
        screens.append("|".join(texts))
    assert screens[0] == screens[1]
    if "select" in how:
        assert screens[0] == "cell begins\ncell ends\nround 2\n|then 2|last\n"
    else:
        assert screens[0] == "cell begins\nround 2\n|then 2|last\ncell ends\n"


def test_the_cell_updates_what_a_step_has_displayed(shared, cell):
    """A display keeps the id that the step gave it, on replay too."""
    body = (
        "def f():\n    display(HTML('the step'), display_id='shared')\n"
        "go(f).result()\nupdate_display(HTML('the cell'), display_id='shared')"
    )
    ((_, what),) = live_and_replayed(shared, cell, body)
    assert what["text/html"] == "the cell"


def test_displays_are_cut(shared, cell):
    """A step that displays too much is cut, with a mark, live as on replay."""
    body = (
        "def f():\n    for n in range(30):\n        display(HTML('x' * 100_000))\n"
        "go(f).result()\nprint('end')"
    )
    shown = live_and_replayed(shared, cell, body)
    assert [kind for kind, _ in shown] == ["display_data"] * 9 + ["stderr", "stdout"]
    assert shown[-2][1] == "\n... output cut at 1,000,000 characters\n"


# --- Loops ------------------------------------------------------------------------------


def test_a_lock_of_another_cells_loop(shared, cell):
    """A sync cell's traceback says why it fails, live and replayed; an awaiting cell can use it."""
    made = shared.run(
        "lock = asyncio.Lock()\nawait lock.acquire()\n"
        "waiting = asyncio.ensure_future(lock.acquire())\nawait asyncio.sleep(0)\n"
        "lock.release()\nawait waiting\nlock.release()\n"
        "@step(version=1)\nasync def use():\n    await lock.acquire()\n    lock.release()\n"
    )
    assert made.status == "ok", made.text
    shared.run("await lock.acquire()")
    caught = (
        "import traceback\ntry:\n    go(use).result()\n"
        "except RuntimeError as error:\n    print(traceback.format_exception(error)[-1])"
    )
    shown = live_and_replayed(shared, cell, caught)
    assert "ran on nbdurable's background event loop" in shown[0][1]
    shared.run("lock.release()")
    awaited = shared.run(cell.source("await use()", " --quiet --new"), cell.id)
    assert awaited.status == "ok", awaited.text


BLOCKS = """
import pathlib, time
from nbdurable import go

async def fine():
    return "fine"

async def blocks():
    pathlib.Path("begun").open("a").write("x")
    print("inside", flush=True)
    while not pathlib.Path("open").exists():
        time.sleep(0.01)
    return "second"
"""


def test_ctrl_c_in_an_async_step_that_blocks_the_loop(fresh, tmp_path):
    """It is interrupted where it blocks, nothing of it is saved, and the kernel goes on."""
    running = fresh()
    running.run(BLOCKS)
    running.begin("%%durable w --tee\nprint(await go(fine))\nprint(await go(blocks))")
    running.wait_for("inside")
    running.interrupt()
    result = running.finish()
    assert (result.status, result.ename) == ("error", "KeyboardInterrupt")
    assert running.run("1 + 1").value == "2"
    running.run("pathlib.Path('open').touch()")
    again = running.run("%%durable w\nprint(await go(fine))\nprint(await go(blocks))")
    assert again.stdout == "fine\ninside\nsecond\n"
    assert running.run("pathlib.Path('begun').read_text()").value == "'xx'"
