"""CONTRACT section 3, Evidence, of bodies outside the kernel: code that only ran in a worker.

From Python 3.12 on. The project lies in a folder, and the kernel never imports it.
"""

import contextlib
import importlib
import itertools
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nbdurable import gather, step, workflow
from nbdurable.api import open_stores
from nbdurable.events import AttemptStarted, StepCreated
from nbdurable.inspection import queries as questions

pytestmark = [
    pytest.mark.monitoring,
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

numbers = itertools.count()

RULES = """
REGISTRY = {}
def register(cls):
    REGISTRY[cls.__name__] = cls
    return cls
@register
class Strip:
    def apply(self, text): return text.strip() + END
@register
class Upper:
    def apply(self, text): return text.upper()
END = "!"
"""


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    """Give a function that returns one client of Dask for all tests, started when it is asked."""
    with contextlib.ExitStack() as stack:
        made = []

        def client():
            if not made:
                distributed = importlib.import_module("distributed")
                cluster = distributed.LocalCluster(
                    n_workers=2,
                    threads_per_worker=1,
                    dashboard_address="127.0.0.1:0",
                    local_directory=str(tmp_path_factory.mktemp("dask")),
                )
                stack.callback(cluster.close)
                made.append(distributed.Client(cluster, set_as_default=False))
                stack.callback(made[0].close)
            return made[0]

        yield client


def surround(folder):
    """Let a worker of Dask find the project, as one that is started in its folder does."""
    os.chdir(folder)
    if folder not in sys.path:
        sys.path.insert(0, folder)


@pytest.fixture(params=["process", "dask"])
def execute(request, dask, tmp_path, monkeypatch):
    """Give a function that runs a program whose steps are outside the kernel."""
    work = tmp_path / "work"
    package = f"shop_{next(numbers)}"  # a worker knows those of other tests by their names
    (work / package).mkdir(parents=True)
    (work / package / "__init__.py").touch()
    (work / package / "rules.py").write_text(RULES)
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(work))
    executor = "process"
    if request.param == "dask":
        executor = dask()
        executor.run(surround, str(work))

    def run(program, **options):
        labels, ran, whys = {}, [], []

        def observe(event):
            if isinstance(event, StepCreated):
                labels[event.step] = event.label
            elif isinstance(event, AttemptStarted):
                ran.append(labels[event.step].partition("(")[0])
                whys.append(f"{event.why}: {event.reason}")

        flow = workflow("w", store="s.duckdb", observers=(observe,), executor=executor, **options)
        with flow:
            value = program(package)
        assert package not in sys.modules, "the kernel has not imported it"
        return SimpleNamespace(value=value, ran=ran, whys=whys, notes=flow.notes)

    yield run
    open_stores.close_stores()


def edit(old, text):
    """Change the text of the project's module, and its length, by which Python knows it anew."""
    (path,) = Path().glob("shop_*/rules.py")
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, text))


@step
def clean(text, name, package):
    """Use a rule by its name, in a way that no reading of the source follows."""
    load = getattr(sys.modules["import" + "lib"], "import_" + "module")
    return getattr(load(package + ".ru" + "les"), "REG" + "ISTRY")[name]().apply(text)


def test_code_that_only_ran_in_a_worker_and_changed_runs_the_step_again(execute):
    """It is named; what did not run there does not count; an edit back finds the first outcome."""

    def program(package):
        rules = ("Strip", "Strip", "Upper")
        return gather(
            [clean.go(text, rule, package) for text, rule in zip(" ab", rules, strict=True)]
        ).result()

    first = execute(program)
    assert first.value == ["!", "a!", "B"]
    assert execute(program).ran == []
    edit("text.upper()", "text.strip().lower()")
    upper = execute(program)
    assert (upper.value, upper.ran) == (["!", "a!", "b"], ["clean"])
    edit('END = "!"', 'END = "??"')
    edited = execute(program)
    assert edited.value == ["??", "a??", "b"]
    assert edited.ran == ["clean", "clean"]
    whys = [row["why"] for row in questions.why("w", "s.duckdb")]
    assert sum("END" in why or "Strip.apply" in why for why in whys) == 2, whys
    open_stores.close_stores()
    edit('END = "??"', 'END = "!"')
    back = execute(program)
    assert (back.value, back.ran) == (["!", "a!", "b"], [])


def test_code_that_the_same_worker_has_run_before_counts_for_the_next_step_too(execute):
    """Many short steps of one worker, of which the later ones find the code known."""

    def program(package):
        return gather([clean.go(f"{at} ", "Strip", package) for at in range(400)]).result()

    assert execute(program).value == [f"{at}!" for at in range(400)]
    edit("text.strip()", "text.rstrip(' ')")
    assert len(execute(program).ran) == 400
    again = execute(program)
    assert (again.ran, again.whys) == ([], []), again.notes
