"""A changed Python or package that can't read a saved outcome: its step runs again, and says why.

Two versions of a tiny package, installed as pip does it (with a .dist-info), are used by
processes one after the other.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nbdurable.api import open_stores
from nbdurable.inspection import queries as questions
from nbdurable.store import Store, check

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).parents[2]

FIRST = """
class Point:
    def __init__(self, number):
        self.number = number

class Wrong(ValueError):
    pass
"""
MOVED = """
class Spot:
    def __init__(self, number):
        self.number = number

class Wrong(ValueError):
    pass
"""
NO_ERROR = FIRST.replace("Wrong", "Refused")

PROGRAM = """
import json, sys
import tiny
from nbdurable import after, go, select, step, workflow
from nbdurable.api import open_stores as holding
from nbdurable.inspection import queries as questions

RAN = []
KIND = getattr(tiny, "Point", None) or tiny.Spot
FAILURE = getattr(tiny, "Wrong", None) or tiny.Refused

@step(version="1")
def point(number):
    RAN.append(number)
    print("making", number)
    return KIND(number)

@step(version="1")
def refuse():
    RAN.append("refuse")
    raise FAILURE("no")

@step(version="1")
def plain():
    RAN.append("plain")
    return 7

def cell():
    values = [plain()]
    if "select" in sys.argv:
        first = select(after(3_600), point.go(1))
        values += [first.index, first.result().number]
    elif "error" in sys.argv:
        try:
            refuse()
        except ValueError as error:
            values.append(type(error).__name__)
    else:
        values += [point.go(number).result().number for number in (1, 2, 3)]
    return values

said = []
with workflow("w", store=sys.argv[1], observers=[lambda event: said.append(event)]) as run:
    values = cell()
    notes = run.notes
holding.close_stores()
order = [type(one).__name__ + ":" + str(getattr(one, "text", "")) for one in said]
print(json.dumps({"values": values, "ran": RAN, "notes": notes, "order": order}))
"""


class Machine:
    """A store, and processes that use it with what is installed at the time."""

    def __init__(self, folder):
        self.store = folder / "store.duckdb"
        self.site = folder / "site"

    def install(self, version, source, name="tiny"):
        """Install a version of the package in place of what was there."""
        for old in self.site.glob("tiny*"):
            subprocess.run(["rm", "-r", old], check=True)
        (self.site / "tiny").mkdir(parents=True)
        (self.site / "tiny" / "__init__.py").write_text(source, encoding="utf-8")
        info = self.site / f"{name}-{version}.dist-info"
        info.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(text, encoding="utf-8")

    def run(self, *words, code=0):
        """Run the cell in a new process."""
        paths = os.pathsep.join([str(self.site), str(ROOT)])
        ended = subprocess.run(
            [sys.executable, "-B", "-c", PROGRAM, str(self.store), *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=50,
            env=os.environ | {"PYTHONPATH": paths},
        )
        assert ended.returncode == code, ended.stderr
        return json.loads(ended.stdout.splitlines()[-1]) if not code else None

    def rows(self, query):
        """Ask the store."""
        found = questions.answer(query, self.store)
        open_stores.close_stores()
        return found

    def problems(self):
        """Return what `check` finds."""
        with open_stores.reading(self.store) as opened:
            found = check(opened)
        open_stores.close_stores()
        return found

    def forge(self, statement):
        """Change the store by hand."""
        store = Store.open(self.store)
        store.commit(lambda batch: batch.execute(statement, []))
        store.close()


@pytest.fixture
def machine(tmp_path):
    """Return a machine with the first version installed."""
    made = Machine(tmp_path)
    made.install("1.0", FIRST)
    return made


REASON = "it was saved with tiny 1.0 and can't be read with tiny 2.0"


def test_a_class_that_moved(machine):
    """What needs it runs again, with the versions as the reason, said before the first starts."""
    first = machine.run()
    assert first["values"] == [7, 1, 2, 3]
    (recorded,) = machine.rows("SELECT packages FROM executions")
    assert "tiny 1.0" in recorded["packages"].split(", ")
    machine.install("2.0", MOVED)
    again = machine.run()
    assert again["values"] == [7, 1, 2, 3]
    assert again["ran"] == [1, 2, 3], "plain needs nothing of it"
    note = (
        f"3 saved outcomes of point can't be restored, the first for {REASON}: "
        "what is asked for of them runs again"
    )
    assert note in again["notes"]
    order = again["order"]
    assert order.index(f"Noticed:{note}") < order.index("AttemptStarted:")
    assert {row["why"] for row in machine.rows("SELECT why FROM steps WHERE name = 'point'")} == {
        f"value unreadable: {REASON}"
    }
    assert machine.problems() == []
    assert machine.run()["ran"] == []


def test_another_version_that_reads_it(machine):
    """A changed version alone runs nothing again."""
    machine.run()
    machine.install("1.1", FIRST)
    again = machine.run()
    assert (again["values"], again["ran"]) == ([7, 1, 2, 3], [])
    assert not any("can't be restored" in note for note in again["notes"])


def test_the_old_checkpoint_stays_until_there_is_another(machine):
    """A death before the new outcome: who goes back to the old version has the old one still."""
    machine.run()
    saved = machine.rows("SELECT number, label FROM steps WHERE name = 'point' ORDER BY number")
    # A version that neither reads the value nor makes another.
    machine.install("2.0", MOVED.replace("self.number = number", "import os; os._exit(5)"))
    machine.run(code=5)
    now = machine.rows("SELECT number, label FROM steps WHERE name = 'point' ORDER BY number")
    assert now[: len(saved)] == saved
    assert machine.problems() == []
    machine.install("1.0", FIRST)
    again = machine.run()
    assert (again["values"], again["ran"]) == ([7, 1, 2, 3], [])


def test_a_package_that_is_gone_by_its_name(machine):
    """One that is not installed any more is named as such."""
    machine.run()
    machine.install("2.0", MOVED, name="tiny_next")
    assert machine.run()["ran"] == [1, 2, 3]
    (row,) = machine.rows("SELECT DISTINCT why FROM steps WHERE name = 'point'")
    assert row["why"].endswith("it was saved with tiny 1.0 and can't be read with no tiny")


def test_its_decision_is_made_anew(machine):
    """A decision that it won goes with it, as with a redo, and is made by the new outcome."""
    assert machine.run("select")["values"] == [7, 1, 1]
    machine.install("2.0", MOVED)
    again = machine.run("select")
    assert (again["values"], again["ran"]) == ([7, 1, 1], [1])
    assert machine.problems() == []
    assert machine.run("select")["ran"] == []


def test_an_error_of_a_class_that_is_gone(machine):
    """A saved error is no other: its step runs again."""
    assert machine.run("error")["values"] == [7, "Wrong"]
    assert machine.run("error")["ran"] == []
    machine.install("2.0", NO_ERROR)
    again = machine.run("error")
    assert (again["values"], again["ran"]) == ([7, "Refused"], ["refuse"])
    (row,) = machine.rows("SELECT why FROM steps WHERE name = 'refuse'")
    assert row["why"] == f"value unreadable: {REASON}"
    assert machine.problems() == []


def test_another_python(machine):
    """A Python that was another counts as a package does."""
    machine.run()
    machine.forge("UPDATE nbdurable.execution_log SET python = '3.7.1'")
    assert machine.run()["ran"] == [], "it can be read"
    machine.install("1.0", MOVED)
    machine.forge("UPDATE nbdurable.execution_log SET python = '3.7.1'")
    assert machine.run()["ran"] == [1, 2, 3]
    (row,) = machine.rows("SELECT DISTINCT why FROM steps WHERE name = 'point'")
    now = ".".join(map(str, sys.version_info[:3]))
    assert row["why"].endswith(
        f"it was saved with Python 3.7.1 and can't be read with Python {now}"
    )


def test_nothing_has_changed(machine):
    """With the same versions a class that is gone is an error: nothing runs again unasked."""
    machine.run()
    machine.install("1.0", MOVED)
    machine.run(code=1)
    (counted,) = machine.rows("SELECT count(*) AS n FROM steps WHERE name = 'point'")
    assert counted["n"] == 3


def test_a_notebook_class_that_is_missing(machine):
    """It is no matter of versions: the cell that defines it is to be run, whatever else changed."""
    program = PROGRAM.replace("import tiny", "import tiny\nclass Here:\n    pass\n", 1)
    program = program.replace("return KIND(number)", "return [KIND(number), Here()]")
    program = program.replace(".result().number", ".result()[0].number")
    words = [sys.executable, "-B", "-c"]
    paths = os.pathsep.join([str(machine.site), str(ROOT)])
    options = {"env": os.environ | {"PYTHONPATH": paths}, "capture_output": True, "text": True}
    subprocess.run([*words, program, str(machine.store)], check=True, timeout=50, **options)
    machine.install("1.1", FIRST)
    missing = program.replace("class Here:\n    pass\n", "Here = None\n", 1)
    ended = subprocess.run(
        [*words, missing, str(machine.store)], check=False, timeout=50, **options
    )
    assert ended.returncode == 1
    assert "class `Here` is not defined in this notebook: run the cell" in ended.stderr
