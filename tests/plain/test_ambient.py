"""What is the process's: read, compared, set again; the entropy of the first kernel."""

import json
import subprocess
import sys

import pytest

from nbdurable.codec import values
from nbdurable.plain import ambient, table
from nbdurable.plain.table import edit_of, edited

CELLS = {
    "environment": (
        "import os; os.environ['SET_BY_CELL'] = 'x'; os.environ.pop('TO_GO', None)",
        "(os.environ.get('SET_BY_CELL'), 'TO_GO' in os.environ, os.environ['STAYS'])",
        ["os.environ"],
    ),
    "folder": ("import os; os.chdir('/')", "os.getcwd()", ["working folder"]),
    "path": (
        "import sys; sys.path.insert(0, '/front'); sys.path.append('/end')",
        "(sys.path[0], sys.path[-1])",
        ["sys.path"],
    ),
    "warnings": (
        "import warnings; warnings.filterwarnings('ignore', 'of the cell', DeprecationWarning)",
        "[warnings.filters[0][0], warnings.filters[0][1].pattern, str(warnings.filters[0][2])]",
        ["warnings"],
    ),
    "logging": (
        "import logging; logging.basicConfig(level=10, format='%(message)s!')\n"
        "logging.getLogger('lib').setLevel(logging.ERROR); logging.disable(5)",
        "(logging.root.level, logging.getLogger('lib').level, logging.root.manager.disable,\n"
        " [(h.formatter._fmt, h.stream is sys.stderr) for h in logging.root.handlers])",
        ["logging"],
    ),
    "decimals": (
        "import decimal; decimal.getcontext().prec = 7",
        "decimal.getcontext().prec",
        ["decimal"],
    ),
    "recursion": (
        "import sys; sys.setrecursionlimit(4321)",
        "sys.getrecursionlimit()",
        ["recursion limit"],
    ),
    "random": ("import random; random.seed(5); random.random()", "random.random()", ["random"]),
    "numpy": (
        "import numpy as np; np.random.seed(3); np.random.rand(); np.random.randn(); "
        "np.set_printoptions(precision=3); np.seterr(all='ignore')",
        "(np.random.rand(), np.random.randn(), repr(np.array([1 / 3])), np.geterr())",
        ["numpy errors", "numpy print options", "numpy.random"],
    ),
    "pandas": (
        "import pandas as pd; pd.set_option('display.max_rows', 7)",
        "pd.get_option('display.max_rows')",
        ["pandas options"],
    ),
    "matplotlib": (
        "import matplotlib; matplotlib.rcParams['lines.linewidth'] = 3.5\n"
        "matplotlib.rcParams['font.family'] = ['serif']",
        "(matplotlib.rcParams['lines.linewidth'], matplotlib.rcParams['font.family'])",
        ["rcParams"],
    ),
}
"""By name: a cell, what shows its effect, the parts that changed."""

FIRST = """
import json, sys
from nbdurable.codec import values
from nbdurable.plain import ambient
kept = ambient.entropy()
out = {"entropy": values.encode(kept).data.hex()}
for name, cell, shown in json.load(sys.stdin):
    space = {}
    before = ambient.seen()
    exec(cell, space)
    changes = ambient.changed(before, ambient.seen())
    exec("import os, sys, logging, random", space)
    out[name] = [values.encode(changes).data.hex(), sorted(changes.parts), dict(changes.refused)]
    out[name].append(repr(eval(shown, space)))
print(json.dumps(out))
"""

SECOND = """
import json, sys, os
from nbdurable.codec import values
from nbdurable.plain import ambient
out = {}
for name, data, imports, shown in json.load(sys.stdin):
    ambient.restore(values.decode(bytes.fromhex(data)))
    space = {}
    exec(imports, space)
    exec("import os, sys, logging, random, warnings, decimal", space)
    out[name] = repr(eval(shown, space))
print(json.dumps(out))
"""


def python(text, given, **environment):
    """Run a program in a new process with JSON in and out."""
    done = subprocess.run(
        [sys.executable, "-c", text],
        input=json.dumps(given),
        env={"STAYS": "1", "PATH": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def kernels():
    """Run all cells in one process, restore what they changed in another."""
    first = python(
        FIRST, [(name, cell, shown) for name, (cell, shown, _) in CELLS.items()], TO_GO="1"
    )
    lines = {
        name: "\n".join(part for part in cell.split("; ")[0].split("\n"))
        for name, (cell, _, _) in CELLS.items()
    }
    given = [(name, first[name][0], lines[name], CELLS[name][1]) for name in CELLS]
    return first, python(SECOND, given, TO_GO="1")


@pytest.mark.parametrize("name", CELLS)
def test_a_part_is_noticed_and_set_again(kernels, name):
    """What changed is recorded by part, and restored in another process."""
    first, second = kernels
    changed = [part for part in first[name][1] if part != "warnings" or name == "warnings"]
    assert changed == CELLS[name][2]  # numpy's import adds filters
    assert first[name][2] == {}
    assert second[name] == first[name][3]


def test_only_what_changed_is_recorded(monkeypatch):
    """Of the environment by key, of paths the edit; what is as before is nothing."""
    before = ambient.seen()
    assert not ambient.changed(before, ambient.seen())
    monkeypatch.setenv("SET_BY_TEST", "1")
    monkeypatch.setattr(sys, "path", [*sys.path, "/last"])
    changes = ambient.changed(before, ambient.seen())
    assert changes.parts["os.environ"] == ({"SET_BY_TEST": ambient.MISSING}, {"SET_BY_TEST": "1"})
    assert changes.parts["sys.path"][1] == ambient.Edit((), (), ("/last",))
    assert changes.draws == frozenset()


def test_secrets_are_not_stored(monkeypatch):
    """What looks like a secret is refused by name, without its value."""
    before = ambient.seen()
    monkeypatch.setenv("SERVICE_API_KEY", "swordfish")
    changes = ambient.changed(before, ambient.seen())
    assert changes.refused == {
        "os.environ: SERVICE_API_KEY": "what looks like a secret is not stored"
    }
    assert b"swordfish" not in values.encode(changes).data


def test_handlers_that_cannot_be_made_again_are_refused(tmp_path):
    """A log file is open: its cell runs again."""
    import logging  # noqa: PLC0415 - a logger of this test's own

    log = logging.getLogger("nbdurable.test.handlers")
    before = ambient.seen()
    handler = logging.FileHandler(tmp_path / "log", delay=True)
    log.addHandler(handler)
    try:
        changes = ambient.changed(before, ambient.seen())
    finally:
        log.removeHandler(handler)
    assert changes.refused == {
        "logging: nbdurable.test.handlers": "a handler (logging.FileHandler) can't be made again"
    }


def test_a_packages_own_handler_is_its_imports():
    """What a package puts on its own logger is there again when it is imported again."""
    import logging  # noqa: PLC0415 - a logger of this test's own

    kind = type("OwnHandler", (logging.Handler,), {"__module__": "somepackage.logs"})
    log = logging.getLogger("somepackage")
    before = ambient.seen()
    log.setLevel(logging.ERROR)
    log.addHandler(kind())
    changes = ambient.changed(before, ambient.seen())
    log.handlers.clear()
    log.setLevel(logging.NOTSET)
    assert changes.refused == {}
    assert changes.parts["logging"][1] == {"somepackage": (logging.ERROR, False, True, ())}


def test_generators_that_moved_are_dependencies():
    """A draw is a change of its generator, which has a digest before and after."""
    import random  # noqa: PLC0415 - its state is the subject

    before = ambient.seen()
    random.random()
    after = ambient.seen()
    changes = ambient.changed(before, after)
    assert changes.draws == {"random"}
    assert before.digest("random") != after.digest("random")
    assert before.digest("sys.path") == after.digest("sys.path")
    ambient.restore(changes)
    assert ambient.seen().digest("random") == after.digest("random")


def test_others_register_a_part(monkeypatch):
    """A part of somebody else's is read, compared and set again; without its library, left out."""
    monkeypatch.setattr(table, "_TABLE", dict(table._TABLE))
    state = {"level": 1}
    ambient.register(
        "somebody's", lambda: dict(state), lambda _, new: state.update(new), keyed=True
    )
    ambient.register("absent", lambda: 1 / 0, print, library="no_such_library")
    before = ambient.seen()
    state["level"] = 2
    changes = ambient.changed(before, ambient.seen())
    state["level"] = 1
    ambient.restore(changes)
    assert changes.parts["somebody's"] == ({"level": 1}, {"level": 2})
    assert state == {"level": 2}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("abc", "xabc"),
        ("abc", "abcx"),
        ("abc", "xabcy"),
        ("abc", "ac"),
        ("abc", "xcy"),
        ("aba", "xaba"),
        ("abc", "cba"),
        ("abc", "axbc"),
        ("", "a"),
    ],
)
def test_an_edit_gives_the_list_that_it_was_made_of(old, new):
    """Made to the old list it gives the new one; to another list, what it says."""
    edit = edit_of(old, new)
    assert edited(old, edit) == list(new)


def test_an_edit_keeps_what_another_process_has():
    """A path of the other process stays; what is put in is there once."""
    edit = edit_of(["a", "b"], ["new", "a"])
    assert edited(["a", "b", "own"], edit) == ["new", "a", "own"]
    assert edited(["new", "own"], edit) == ["new", "own"]


DRAWS = """
import json, sys
from nbdurable.codec import values
from nbdurable.plain import ambient
given = json.load(sys.stdin)
if given:
    ambient.set_entropy(values.decode(bytes.fromhex(given)))
kept = ambient.entropy()
import random
import numpy as np
drawn = [random.random(), np.random.rand(), np.random.default_rng().random()]
drawn += [np.random.default_rng().random(), np.random.RandomState().rand()]
drawn += [np.random.Generator(np.random.PCG64()).random()]
np.random.seed()
drawn.append(np.random.rand())
moved = ambient.seen().values["numpy seeds"]
import os
read, write = os.pipe()
if not os.fork():
    os.write(write, repr(np.random.default_rng().random()).encode())
    os._exit(0)
os.wait()
last = np.random.default_rng().random()
out = [values.encode(kept).data.hex(), drawn, moved, last, float(os.read(read, 100))]
print(json.dumps(out))
"""


def test_a_later_kernel_draws_what_the_first_drew():
    """Without a seed, the same numbers again; each draw another; another notebook, others."""
    kept, drawn, moved, last, forked = python(DRAWS, "")
    *again, forked_again = python(DRAWS, kept)
    assert again[1:] == [drawn, moved, last]
    assert len({last, forked, forked_again}) == 3, "a forked process draws its own"
    assert len(set(drawn)) == len(drawn)
    assert moved == 5
    assert python(DRAWS, "")[1] != drawn


ROW = """
import json, sys
from nbdurable.codec import values
from nbdurable.plain import ambient
given = json.load(sys.stdin)
if given:
    ambient.set_entropy(values.decode(bytes.fromhex(given[0])))
    ambient.restore(values.decode(bytes.fromhex(given[1])))
    changes = None
else:
    kept = ambient.entropy()
    before = ambient.seen()
    import numpy as np
    np.random.default_rng()
    changes = ambient.changed(before, ambient.seen())
    given = values.encode(kept).data.hex(), values.encode(changes).data.hex()
digest = ambient.seen().digest("numpy.random").hex()
digest += ambient.digest_of([json.dumps, len, json.JSONDecoder]).hex()
import numpy as np
print(json.dumps([given, digest, np.random.default_rng().random(), np.random.rand()]))
"""


def test_a_restored_cell_leaves_the_row_where_it_was():
    """A generator made later is not that of a restored cell; what waits for numpy counts."""
    pytest.importorskip("numpy")
    given, *first = python(ROW, "")
    _, *second = python(ROW, given)
    assert first == second
