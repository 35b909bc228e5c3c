"""What the header of a durable cell says, and what the cell becomes.

The second half runs each cell twice in one IPython shell, once plain and once
under ``%%durable``, with a door that records and does nothing else: whatever
differs is a defect.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import io
import re
import sys
import textwrap
import types
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell  # noqa: TID251 - runs the cells
from traitlets.config import Config

import nbdurable
from nbdurable.codec.pruned import prune
from nbdurable.errors import UsageError
from nbdurable.notebook import header
from nbdurable.notebook import source as cell

# --- The header -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("quotes", {}),
        ("quotes --new", {"new": True}),
        ("--new quotes", {"new": True}),
        (
            "quotes --keep --tee --quiet --strict",
            dict.fromkeys(("keep", "tee", "quiet", "strict"), True),
        ),
        ("quotes --max-age 12h", {"max_age": 43200.0}),
        ("quotes --max-age=90", {"max_age": 90.0}),
        ("quotes --max-age 1h --limit 4", {"max_age": 3600.0, "limit": 4}),
        ("  quotes   --limit=4  # four is enough", {"limit": 4}),
        ('"quotes"', {}),
    ],
)
def test_header_gives_options(line, expected):
    """Flags, values after a space or an equals sign, quotes and comments are read."""
    assert header.parse_header(line) == header.CellOptions("quotes", **expected)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("etl-{day}", "etl-{day}"),
        ("etl-{ a + b }", "etl-{ a + b }"),
        ("etl-{d['x y']}", "etl-{d['x y']}"),
        ('"my etl"', "my etl"),
        ("a/b.c:d_e-1", "a/b.c:d_e-1"),
        ("données", "données"),
    ],
)
def test_header_gives_name(line, name):
    """Braces and quotes hold a name together; a name has any letters and five signs."""
    assert header.parse_header(line).name == name


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "try `%%durable fetch`"),
        ("--new", "try `%%durable fetch`"),
        ("my etl", "try `%%durable my-etl`"),
        ("quotes --nwe", "did you mean --new?"),
        ("quotes --maxage 3", "did you mean --max-age?"),
        ("quotes --zzz", "it has --executor --keep --limit"),
        ("quotes --executor", "--executor needs a value"),
        ("quotes --new=1", "--new takes no value"),
        ("quotes --limit", "--limit needs a value"),
        ("quotes --limit --new", "--limit needs a value"),
        ("quotes --limit none", "1 or more"),
        ("quotes --limit 0", "1 or more"),
        ("quotes --max-age soon", "not an age"),
        ("quotes --max-age 1h soon", "takes one name"),
        ("-x", "a name starts with a letter or a digit"),
        ("what?", "a name starts with a letter or a digit"),
        ("x" * 121, "120 characters at most"),
        ("'quotes", "never closed"),
        ("etl-{day", "never closed"),
    ],
)
def test_header_errors_are_one_line(line, says):
    """Each mistake is one line that says what to write."""
    with pytest.raises(UsageError) as caught:
        header.parse_header(line, "fetch")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0.5", 0.5),
        ("90s", 90),
        ("30m", 1800),
        ("12h", 43200),
        ("7d", 604800),
        ("2w", 1209600),
        ("1h30m", 5400),
        ("1.5h", 5400),
    ],
)
def test_age(text, seconds):
    """An age is seconds, or numbers with units."""
    assert header.parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "1x", "1h30", "-5", "1 h", "soon"])
def test_no_age(text):
    """Anything else is refused."""
    with pytest.raises(UsageError):
        header.parse_age(text)


def test_name_expressions():
    """A NAME is evaluated as an f-string over the namespace."""
    names = {"day": "2024-05-01", "d": {"x": 1}, "n": 3}
    assert header.expand_name("etl-{day}", names) == "etl-2024-05-01"
    assert header.expand_name("etl-{d['x']}-{n:03d}", names) == "etl-1-003"
    assert header.expand_name('etl-{d["x"]}', names) == "etl-1"
    assert header.expand_name("quotes", names) == "quotes"
    assert "__builtins__" not in names


@pytest.mark.parametrize(
    "template", ["etl-{missing}", "etl-{1/0}", "etl-{", "etl-}", "{''}", "{'%'}"]
)
def test_name_expressions_fail_in_one_line(template):
    """An expression that fails, or gives no name, is a usage error."""
    with pytest.raises(UsageError) as caught:
        header.expand_name(template, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("@step\ndef fetch_all(): ...\ndef other(): ...", "fetch-all"),
        ("def plain(): ...\n@step(retries=3)\ndef quote(): ...", "quote"),
        ("def plain(): ...", "plain"),
        ("total = 3", "total"),
        ("print(1)\nmain()", "main"),
        ("1 + 1", "my-workflow"),
        ("", "my-workflow"),
    ],
)
def test_suggested_name(source, name):
    """A name is suggested from the first step, function, variable or call."""
    assert header.suggest_name(ast.parse(source).body) == name


# --- The text -------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "x = 1\n",
        "%%time\nx\n",
        "%%durable?\n",
        "%%durable??\n",
        "%%durables x\n",
        "%durable runs\n",
        "# c\n",
        "",
    ],
)
def test_other_cells_are_left_alone(source):
    """Only a cell that starts with the header is touched; help is help."""
    lines = source.splitlines(keepends=True)
    assert cell.mark(lines) == lines


def test_mark_keeps_the_lines():
    """The literal takes the header's line, wherever comments put it."""
    marked = cell.mark(["# why\n", "\n", "%%durable quotes  --new \n", "x = 1\n"])
    assert marked == ["# why\n", "\n", "u'%%durable quotes  --new'\n", "x = 1\n"]


def test_mark_passes_the_rest_to_a_cell_magic():
    """A cell magic below the header gets the rest of the cell, as text."""
    marked = cell.mark(["%%durable q\n", "\n", "%%bash -e\n", "echo 'a'\n", "echo b\n"])
    assert marked == [
        "u'%%durable q'\n",
        "\n",
        "get_ipython().run_cell_magic('bash', '-e', \"echo 'a'\\necho b\\n\")\n",
    ]


@pytest.mark.parametrize(
    ("source", "awaits"),
    [
        ("await f()", True),
        ("async for x in y: pass", True),
        ("async with a: pass", True),
        ("[x async for x in y]", True),
        ("[await f(x) for x in y]", True),
        ("def f(a=await g()): pass", True),
        ("async def f():\n    await g()", False),
        ("f = lambda: (await g())", False),
        ("class A:\n    async def f(self):\n        await g()", False),
        ("x = 1", False),
        ("return", False),
    ],
)
def test_awaits_at_top(source, awaits):
    """Only what the cell itself awaits makes it a coroutine."""
    assert cell.awaits_at_top(ast.parse(source).body) is awaits


def test_wrap_leaves_a_docstring_alone():
    """A string that merely says %%durable is no header."""
    tree = ast.parse("'%%durable quotes'\nx = 1")
    assert cell.wrap(tree) is tree


def test_header_of_source():
    """The header is found in a cell's source, for a saved notebook."""
    assert cell.header_of("# c\n%%durable a --new\nx") == "a --new"
    assert cell.header_of("%%durable") == ""
    assert cell.header_of("x = 1\n%%durable a") is None
    assert cell.header_of("") is None


# --- The cell, run ----------------------------------------------------------------


@dataclass
class Door:
    """Stands for `nbdurable.notebook.durable_cell`: records how cells come in and go out."""

    seen: list = field(default_factory=list)
    value: object = None

    def enter(self, header, suggestion):
        """Note the header; stands for the run, too."""
        self.seen.append(("header", header))
        return self

    def keep(self, value):
        """Hold the value."""
        self.value = value

    def kept(self):
        """Return it back."""
        self.seen.append("kept")
        value, self.value = self.value, None
        return value

    def show(self, value):
        """Show it at once."""
        sys.displayhook(value)

    def __enter__(self):
        self.seen.append("sync")

    def __exit__(self, kind, error, trace):
        self.seen.append(kind and kind.__name__)

    async def __aenter__(self):
        self.seen.append("async")

    async def __aexit__(self, kind, error, trace):
        self.seen.append(kind and kind.__name__)


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """One IPython shell that knows durable cells, without `nbdurable.notebook.durable_cell`."""
    config = Config()
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.colors = "nocolor"
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance(
        config=config, ipython_dir=str(tmp_path_factory.mktemp("ipython"))
    )

    class Wrapper(ast.NodeTransformer):
        def visit(self, node):
            return cell.wrap(
                node,
                autoawait=made.autoawait,
                interactivity=made.ast_node_interactivity,
            )

    made.input_transformers_cleanup.append(cell.mark)
    made.ast_transformers.append(Wrapper())
    yield made
    made.history_manager.end_session()
    atexit.unregister(made.atexit_operations)
    InteractiveShell.clear_instance()


@pytest.fixture
def door(monkeypatch):
    """The recording door, in the place of `nbdurable.notebook.durable_cell`."""
    standing = Door()
    module = types.ModuleType("nbdurable.notebook.durable_cell")
    for name in ("enter", "keep", "kept", "show"):
        setattr(module, name, getattr(standing, name))
    monkeypatch.setitem(sys.modules, "nbdurable.notebook.durable_cell", module)
    return standing


HEADER = "%%durable t"
_ADDRESS = re.compile(r" at 0x[0-9a-f]+|<ipython-input-[^>]*>|ipython-input-\S+")


def text_of(value):
    """Write a value without what differs from run to run."""
    try:
        return _ADDRESS.sub("", repr(value))
    except ZeroDivisionError:
        return "no repr"


def told(shell, source):
    """Run a cell and tell everything that a person could see of it."""
    shell.reset()
    shell.execution_count = 1
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        result = shell.run_cell(source, store_history=True)
    error = result.error_in_exec or result.error_before_exec
    names = {
        key: type(value).__name__ if callable(value) else text_of(value)
        for key, value in shell.user_ns.items()
        if key not in shell.user_ns_hidden and not key.startswith("_i")
    }
    names.pop("In", None)
    screen = out.getvalue().replace(f"u'{HEADER}'", "# header")
    return {
        "names": names,
        "hidden": sorted(k for k in shell.user_ns if not re.fullmatch(r"_i+\d*|_\d+", k)),
        "value": text_of(result.result),
        "error": type(error).__name__,
        "message": _ADDRESS.sub("", str(error)),
        "before": result.error_before_exec is not None,
        "line": line_of(error),
        "screen": _ADDRESS.sub("", screen),
        "stderr": err.getvalue(),
    }


def line_of(error):
    """Return the cell's line at which an error came up."""
    if error is None:
        return None
    if isinstance(error, SyntaxError):
        return error.lineno
    found, entry = None, error.__traceback__
    while entry is not None:
        if entry.tb_frame.f_globals.get("__name__") == "__main__" and found is None:
            found = entry.tb_lineno
        entry = entry.tb_next
    return found


CELLS = {
    "assignments": "x = 1\ny: int = 2\nx += y",
    "last value": "x = 1\nx + 1",
    "last value is None": "x = None\nx",
    "semicolon": "x = 1\nx + 1;",
    "semicolon and comment": "x = 1\nx + 1;  # done",
    "last is a statement": "for i in range(3):\n    i",
    "last is a string": "'hello'",
    "underscore": "3\n4",
    "print": "print('a')\nprint('b')",
    "only comments": "# nothing\n\n# here",
    "empty": "",
    "blank lines": "\n\nx = 1\n\n\nx\n\n",
    "import star": "from math import *\npi",
    "function": "def f(a):\n    return a + 1\nf(2)",
    "recursion over globals": "def f(n):\n    return 1 if n == 0 else n * f(n - 1)\nf(5)",
    "class": "class A:\n    x = 1\n    def f(self):\n        return self.x\nA().f()",
    "global statement": "def f():\n    global g\n    g = 7\nf()\ng",
    "walrus": "(n := 3) + 1",
    "del": "x = 1\ny = 2\ndel x",
    "comprehension": "n = 2\n[i * n for i in range(3)]",
    "match": "match 3:\n    case int(v):\n        w = v\nw",
    "try": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    x = str(e)\nx",
    "with": "import contextlib\nwith contextlib.suppress(ValueError):\n    int('x')\n'after'",
    "multiline string": "x = '''a\n  b\n%%durable c\n'''\nx",
    "indented": "    x = 1\n    x",
    "future": "from __future__ import annotations\ndef f(a: Missing): pass\nf.__annotations__",
    "future after docstring": "'doc'\nfrom __future__ import annotations\ny: Missing = 1\ny",
    "future later": "x = 1\nfrom __future__ import annotations\ndef f(a: Missing): pass\nx",
    "future unknown": "from __future__ import braces\n1",
    "await": "import asyncio\nawait asyncio.sleep(0, 'v')",
    "await with semicolon": "import asyncio\nx = await asyncio.sleep(0, 'v')\nx;",
    "await in expression": "import asyncio\n[await asyncio.sleep(0, i) for i in range(3)]",
    "async for": (
        "async def g():\n    yield 1\n    yield 2\nxs = []\n"
        "async for x in g():\n    xs.append(x)\nxs"
    ),
    "async with": (
        "from contextlib import asynccontextmanager\n@asynccontextmanager\nasync def c():\n"
        "    yield 5\nasync with c() as v:\n    w = v + 1\nw"
    ),
    "async comprehension": "async def g():\n    yield 1\n[x async for x in g()]",
    "await in nested only": "async def f():\n    return 1\nc = f()\nc.close()",
    "future and await": (
        "from __future__ import annotations\nimport asyncio\n"
        "y: Missing = await asyncio.sleep(0, 3)\ny"
    ),
    "error": "x = 1\n\n1 / 0\ny = 2",
    "error in last expression": "x = 0\n(1 +\n 1 / x)",
    "error in function": "def f():\n    raise ValueError('no')\n\nx = 1\nf()",
    "error chained": "try:\n    1 / 0\nexcept KeyError as e:\n    pass\nfinally:\n    int('x')",
    "error in await": (
        "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    raise ValueError('no')\n\n"
        "await f()"
    ),
    "error after await": "import asyncio\nawait asyncio.sleep(0)\nx = 1\n1 / 0\n",
    "error in repr": "class A:\n    def __repr__(self):\n        1 / 0\nA()",
    "name error": "x = missing",
    "system exit": "raise SystemExit(3)",
    "keyboard interrupt": "x = 1\nraise KeyboardInterrupt",
    "syntax error": "x = 1\ny = = 2",
    "syntax error in line 2": "def",
    "indentation error": "def f():\nx = 1",
    "await in sync function": "x = 1\ndef f():\n    await g()",
    "nonlocal": "y = 1\nnonlocal x",
    "return": "y = 1\nreturn 3",
    "break": "y = 1\nbreak",
    "yield": "yield 3",
    "line magic": "%precision 3\nx = %pwd\ntype(x)",
    "line magic last": "%env HOME",
    "shell": "out = !echo a b\nlist(out)",
    "shell alone": "!true\nx = 1",
    "missing magic": "%no_such_magic",
    "timeit": "x = %timeit -n1 -r1 -q -o pass\ntype(x)",
    "cell magic below": "%%capture out\nprint('a')\nx = 1",
    "prompts": ">>> x = 1\n>>> x + 1",
    "who": "x = 1\n%who",
    "dir": "x = 1\nsorted(n for n in dir() if 'durable' in n)",
}


@pytest.mark.filterwarnings("ignore:To exit. use:UserWarning")
@pytest.mark.parametrize("source", CELLS.values(), ids=CELLS)
def test_as_a_plain_cell(shell, door, source):
    """Names, value, screen, error and line are those of the same cell without the header."""
    source = textwrap.dedent(source) if source.startswith("    ") else source
    magic_below, doctest = source.startswith("%%"), source.startswith(">>>")
    plain = told(shell, source if magic_below else f"{'>>> ' * doctest}# header\n{source}")
    durable = told(shell, f"{'>>> ' * doctest}{HEADER}\n{source}")
    if not plain["before"]:
        assert ("header", "t") in door.seen
    if plain["before"] and durable["before"]:
        # A body that doesn't compile never runs; IPython runs what came before it.
        plain["names"] = durable["names"]
        plain["hidden"] = durable["hidden"]
    assert durable == plain


@pytest.mark.parametrize("mode", ["all", "last_expr", "last_expr_or_assign", "none"])
@pytest.mark.parametrize("source", ["1\nx = 2\nx + 1", "1\nx = 2", "x = 1\nx += 1", "y: int = 3"])
def test_each_interactivity(shell, door, monkeypatch, mode, source):
    """What the shell shows of a cell's expressions is the shell's setting."""
    monkeypatch.setattr(shell, "ast_node_interactivity", mode)
    plain = told(shell, f"# header\n{source}")
    durable = told(shell, f"{HEADER}\n{source}")
    if mode == "all":
        # Its value is shown after the run, so it comes last; it is the same set.
        assert sorted(durable["screen"].split()) == sorted(plain["screen"].split())
    else:
        assert durable == plain


@pytest.mark.parametrize("source", ["x = 1\nx", "import asyncio\nawait asyncio.sleep(0)"])
def test_without_autoawait(shell, door, monkeypatch, source):
    """Where the shell doesn't await, a cell that does is the same syntax error."""
    monkeypatch.setattr(shell, "autoawait", False)
    plain = told(shell, f"# header\n{source}")
    durable = told(shell, f"{HEADER}\n{source}")
    if plain["before"]:
        plain["names"], plain["hidden"] = durable["names"], durable["hidden"]
    assert durable == plain


@pytest.mark.parametrize(
    ("source", "way"),
    [("x = 1", "sync"), ("import asyncio\nawait asyncio.sleep(0)", "async")],
)
def test_the_run_is_awaited_where_the_cell_awaits(shell, door, source, way):
    """Only a body that awaits is run by the loop; the others stay ordinary cells."""
    told(shell, f"{HEADER}\n{source}")
    assert door.seen[:2] == [("header", "t"), way]


def test_value_is_shown_after_the_run(shell, door):
    """The last expression is computed inside the run and shown after its end."""
    told(shell, f"{HEADER}\n41 + 1")
    assert door.seen == [("header", "t"), "sync", None, "kept"]


def test_error_ends_the_run(shell, door):
    """The run hears of the error, and nothing is shown."""
    told(shell, f"{HEADER}\n1 / 0\n3")
    assert door.seen == [("header", "t"), "sync", "ZeroDivisionError"]


def test_header_alone(shell, door):
    """A cell that has nothing below its header is a run with nothing in it."""
    for source in (HEADER, f"{HEADER}\n", f"{HEADER}\n# nothing\n"):
        door.seen.clear()
        assert told(shell, source)["error"] == "NoneType"
        assert door.seen == [("header", "t"), "sync", None]


def test_timed_from_above(shell, door):
    """``%%time`` above the header times the whole run, its value included."""
    result = told(shell, f"%%time\n{HEADER}\nx = 1\nx + 1")
    assert result["value"] == "2"
    assert result["names"]["x"] == "1"
    assert "Wall time" in result["screen"]
    assert door.seen == [("header", "t"), "sync", None, "kept"]


def test_terminal_waits_for_the_body(shell):
    """A header alone is incomplete input, for the transform stands aside there."""
    assert shell.check_complete("x = 1\n")[0] == "complete"
    cell.mark.has_side_effects = True
    try:
        assert shell.check_complete(HEADER)[0] == "incomplete"
    finally:
        del cell.mark.has_side_effects


# --- Errors -----------------------------------------------------------------------


def raised(source, filename):
    """Return an error whose traceback runs through code of that file."""
    space = {"__name__": "m"}
    exec(compile(source, filename, "exec"), space)
    return space


def frames(error):
    """Name the functions of an error's traceback."""
    names, entry = [], error.__traceback__
    while entry is not None:
        names.append(entry.tb_frame.f_code.co_name)
        entry = entry.tb_next
    return names


OURS = str(Path(nbdurable.__file__).parent / "engine" / "run.py")


def test_prune_takes_our_frames_out():
    """Between the cell and the user's function there is nothing."""
    engine = raised("def engine(f):\n    return f()", OURS)["engine"]

    def body():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        engine(lambda: engine(body))
    prune(caught.value)
    assert frames(caught.value)[-2:] == ["<lambda>", "body"]
    assert "engine" not in frames(caught.value)


def test_prune_keeps_a_defect_visible():
    """An error that comes up in our own code is shown where it came up."""
    engine = raised("def engine():\n    return 1 / 0", OURS)["engine"]
    with pytest.raises(ZeroDivisionError) as caught:
        engine()
    prune(caught.value)
    assert frames(caught.value)[-1] == "engine"


def test_prune_hides_where_asked_and_durable_errors():
    """A frame that asks for it, and the end of an error of ours, are taken out."""
    space = raised(
        "from nbdurable.errors import StepError\n"
        "def redeliver(e):\n    __tracebackhide__ = True\n    raise e\n"
        "def fail():\n    raise StepError('x')\n",
        OURS,
    )
    for call in (lambda: space["redeliver"](ValueError("old")), space["fail"]):
        error = None
        try:
            call()
        except Exception as caught:
            error = caught
        prune(error)
        assert not {"redeliver", "fail"} & set(frames(error))


def test_prune_follows_causes_groups_and_loops():
    """Causes, contexts and group members are pruned, each once."""
    engine = raised("def engine(f):\n    return f()", OURS)["engine"]

    def body():
        raise KeyError("inner")

    inner = None
    try:
        engine(body)
    except KeyError as caught:
        inner = caught
    group = ExceptionGroup("many", [inner])
    outer = ValueError("outer")
    outer.__cause__ = group
    inner.__context__ = outer
    prune(outer)
    assert "engine" not in frames(inner)
