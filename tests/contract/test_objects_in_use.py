"""CONTRACT section 3, inputs that move: objects that change by being used, and who moved what."""

import random
import threading
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from nbdurable import InputMovedError, gather, go, step, workflow
from nbdurable.api import open_stores
from nbdurable.events import AttemptStarted


class Client:
    """Counts what it is asked."""

    def __init__(self, model="a"):
        self.calls, self.model, self.token = 0, model, None

    def ask(self, n):
        """Count and answer."""
        self.calls += 1
        return f"{self.model}{n}"

    def login(self):
        """Make a token the first time."""
        if self.token is None:
            self.token = "t"
        return self.token

    def fit(self, n):
        """Change on purpose."""
        self.model = str(n)
        return self.model


@pytest.fixture
def execute(tmp_path):
    """Yield a function that runs a program in this process, and what it was seen to do."""

    def run(program):
        events = []
        flow = workflow("w", store=tmp_path / "store.duckdb", observers=(events.append,))
        with flow:
            value = program()
        ran = sum(isinstance(one, AttemptStarted) for one in events)
        return SimpleNamespace(value=value, notes=flow.notes, ran=ran)

    yield run
    open_stores.close_stores()


def unsaved(seen):
    """Return the notes that say that something was not saved."""
    return [note for note in seen.notes if "not saved" in note]


# --- found again in the same kernel ----------------------------------------------------------


def test_a_cell_run_again_in_one_kernel_finds_what_it_saved(execute):
    """The client has counted meanwhile: without its count every call is found."""
    client = Client()

    @step
    def ask(n, client):
        return client.ask(n)

    def program():
        return [ask(n, client) for n in range(3)], ask.map(range(5, 9), client=client).result()

    first, again = execute(program), execute(program)
    assert (first.ran, again.ran) == (7, 0)
    assert again.value == first.value
    assert client.calls == 7
    assert (
        len([note for note in first.notes if "`client.calls` changes by being used" in note]) == 1
    )
    assert not unsaved(first)


def test_an_attribute_that_moves_later_costs_no_earlier_outcome(execute):
    """What was saved when less was known to move is found without that, too."""
    client = Client()

    @step
    def ask(n):
        return client.login() if n == 2 else client.ask(n)

    def program():
        return [ask(n) for n in range(4)]

    first, again = execute(program), execute(program)
    assert (first.ran, again.ran) == (4, 0)
    assert again.value == first.value


def test_an_attribute_that_did_not_move_counts(execute):
    """Only what was seen to move is left out."""
    client = Client()

    @step
    def ask(n):
        return client.ask(n)

    def program():
        return ask(1)

    assert execute(program).value == "a1"
    client.model = "b"
    seen = execute(program)
    assert (seen.value, seen.ran) == ("b1", 1)
    client.model = "a"
    assert execute(program).ran == 0


def test_a_decision_over_calls_that_move_one_client_stays_decided(execute):
    """The set of branches is found under the names that they had when it was decided."""
    client = Client()

    @step
    def ask(n):
        return client.ask(n)

    def program():
        found = [ask.go(n) for n in range(3)]
        gather(found).result()
        return found[0].result()

    first, again = execute(program), execute(program)
    assert (first.value, again.value, again.ran) == ("a0", "a0", 0)


# --- two steps on one object -------------------------------------------------------------------


def test_two_steps_that_use_one_object_at_once_never_fail_each_other(execute):
    """Both are on the client at one moment; both are saved, and found in the next pass."""
    client, both = Client(), threading.Barrier(2)
    met = []

    @step(ignore=("both", "met"))
    def first(n):
        both.wait(10)
        met.append(n)
        return client.ask(n)

    @step(ignore=("both", "met"))
    def second(n):
        both.wait(10)
        met.append(n)
        return client.ask(n) + "!"

    def program():
        return gather(first.go(1), second.go(2)).result()

    seen = execute(program)
    assert seen.value == ["a1", "a2!"]
    assert not unsaved(seen)
    assert execute(program).ran == 0


def test_what_another_step_changes_on_purpose_is_not_left_out(execute):
    """A body beside it fits the model: what that moved is no use of this one's."""
    model, started, fitted = Client(), threading.Event(), threading.Event()

    @step(ignore=("started", "fitted"))
    def use(n):
        started.set()
        fitted.wait(10)
        return model.model

    @step(ignore=("started", "fitted"))
    def fit(n):
        started.wait(10)
        model.fit(n)
        fitted.set()

    def program():
        return gather(use.go(1), fit.go(7)).result()

    seen = execute(program)
    assert len(unsaved(seen)) == 2
    assert not any("changes by being used" in note for note in seen.notes)


# --- on purpose ----------------------------------------------------------------------------


def fits_bare(model):
    """Call the method and use nothing of what it gives."""
    model.fit(3)
    return 1


async def fits_bare_async(model):
    """Do so in an async body."""
    model.fit(3)
    return 1


def stores(model):
    """Store into the object."""
    model.model = "z"
    return 1


@pytest.mark.parametrize("body", [fits_bare, fits_bare_async, stores])
def test_a_body_that_changes_an_object_on_purpose_is_not_saved(execute, body):
    """It is handed over, and the line names `ignore=` as the cure."""
    seen = execute(lambda: go(body, Client()).result())
    (note,) = unsaved(seen)
    assert seen.value == 1
    assert "its body changed `model`" in note
    assert 'ignore=("model",)' in note


def test_a_body_that_is_the_mutating_method_is_not_saved(execute):
    """`go(model.fit, ...)`: on replay the model would not be fitted."""
    seen = execute(lambda: go(Client().fit, 3).result())
    assert "its body changed `self`" in unsaved(seen)[0]


def test_plain_data_that_a_body_changes_is_not_saved(execute):
    """A list is no object that changes by being used; beside a client it counts as ever."""
    client = Client()

    @step
    def ask(state, n):
        state["done"] += [n]
        return state["client"].ask(n)

    seen = execute(lambda: ask({"client": client, "done": []}, 1))
    assert "its body changed `state`" in unsaved(seen)[0]
    assert "ignore=" not in unsaved(seen)[0]


# --- who moved it ---------------------------------------------------------------------------

K = 1


def test_a_global_that_the_cell_binds_anew_is_not_its_bodys_doing(execute):
    """It is said that somebody else did, and what ran with either value is not saved."""
    started, changed = threading.Event(), threading.Event()

    @step(ignore=("started", "changed"))
    def scaled(n):
        started.set()
        changed.wait(10)
        return n * K

    def program():
        global K
        K = 1
        handle = scaled.go(5)
        started.wait(10)
        K = 2
        changed.set()
        return handle.result()

    seen = execute(program)
    (note,) = unsaved(seen)
    assert "`test_objects_in_use.K` was bound to something else while it ran" in note
    assert "not by its body" in note
    assert "its body changed" not in note


def test_a_global_that_is_bound_anew_before_the_body_runs(execute, tmp_path):
    """The step fails, and says that the name stands for something else."""
    inside, opened = threading.Event(), threading.Event()

    @step(ignore=("inside", "opened"))
    def first():
        inside.set()
        opened.wait(10)

    def scaled(n):
        return n * K

    def program():
        global K
        K = 1
        taken = first.go()
        inside.wait(10)
        handle = step(limit=None)(scaled).go(taken)
        K = 2
        opened.set()
        return str(handle.outcome().error)

    assert "was bound to something else" in execute(program).value


def test_an_attribute_that_the_cell_sets_meanwhile_is_not_left_out(execute):
    """The cell's own code says that it stores it: that is no use, and nothing is saved."""
    client, started, changed = Client(), threading.Event(), threading.Event()

    @step(ignore=("started", "changed"))
    def ask(n, client):
        started.set()
        changed.wait(10)
        return client.ask(n)

    def program():
        handle = ask.go(1, client)
        started.wait(10)
        client.model = "b"
        changed.set()
        return handle.result()

    seen = execute(program)
    assert seen.value == "b1"
    assert unsaved(seen)
    assert not any("client.model" in note for note in seen.notes)


def test_an_attribute_that_the_cell_sets_before_the_body_runs_fails_the_step(execute):
    """Nobody uses the object meanwhile, so it was the cell; `ignore=` is offered."""
    client, inside, opened = Client(), threading.Event(), threading.Event()

    @step(ignore=("inside", "opened"))
    def first():
        inside.set()
        opened.wait(10)

    @step
    def ask(client, _):
        return client.ask(1)

    def program():
        taken = first.go()
        inside.wait(10)
        handle = ask.go(client, taken)
        client.model = "b"
        opened.set()
        return handle.outcome().error

    error = execute(program).value
    assert isinstance(error, InputMovedError)
    assert "`client` changed after the step was started" in str(error)
    assert "ignore=('client',)" in str(error)


# --- attempts --------------------------------------------------------------------------------


def test_a_failed_attempt_that_only_used_an_object_is_retried(execute):
    """A client that counts its failures is tried again, and its outcome is saved."""
    client = Client()

    @step(retries=3, backoff=0.001)
    def ask(client):
        if client.ask(1) and client.calls < 3:
            raise OSError("no")
        return "yes"

    def program():
        return ask(client)

    assert execute(program).value == "yes"
    assert client.calls == 3
    assert execute(program).ran == 0


# --- generators --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [lambda: np.random.default_rng(1), lambda: random.Random(1), lambda: np.random.RandomState(1)],
    ids=["Generator", "Random", "RandomState"],
)
def test_a_generator_stands_where_its_step_left_it(execute, make):
    """The next draw in the cell is the same on replay, inline and from a handle."""

    @step
    def draw(rng):
        return float(rng.random() if hasattr(rng, "random") else rng.rand())

    @step
    def draw_after(rng, _):
        return float(rng.random() if hasattr(rng, "random") else rng.rand())

    def program():
        rng, other = make(), make()
        found = [draw(rng), draw(rng), draw.go(rng).result()]
        later = draw_after.go(other, draw.go(make())).result()
        return [*found, draw(rng), later, draw(other)]

    first, again = execute(program), execute(program)
    assert (first.ran, again.ran) == (7, 0)
    assert again.value == first.value
    assert len(set(first.value[:4])) == 4


def test_a_generator_that_moves_before_the_body_runs_is_data(execute):
    """Its state is an input: a step that would draw from another state fails."""
    rng, inside, opened = np.random.default_rng(1), threading.Event(), threading.Event()

    @step(ignore=("inside", "opened"))
    def first():
        inside.set()
        opened.wait(10)

    @step
    def draw(rng, _):
        return float(rng.normal())

    def program():
        taken = first.go()
        inside.wait(10)
        handle = draw.go(rng, taken)
        rng.normal()
        opened.set()
        return handle.outcome().error

    assert isinstance(execute(program).value, InputMovedError)


# --- globals that steps write --------------------------------------------------------------

df = pd.DataFrame()
log = []


@step
def enrich():
    """Write a column of a global frame, from another."""
    df["b"] = df["a"] * 2
    return df["b"].tolist()


@step
def only_writes():
    """Write a column, and read none."""
    df["z"] = 1
    return "written"


@step
def collects(n):
    """Append to a global list."""
    log.append(n)
    return n


def test_a_written_frame_replays_in_its_kernel_and_runs_again_when_it_is_corrected(execute):
    """What the run left is known; what is neither that nor what was there is a correction."""
    global df
    df = pd.DataFrame({"a": [1, 2]})
    assert execute(enrich).value == [2, 4]
    assert execute(enrich).ran == 0  # the frame is as the run left it
    df = pd.DataFrame({"a": [1, 2]})
    assert execute(enrich).ran == 0  # the frame is as it was before
    df = pd.DataFrame({"a": [1, 9]})
    seen = execute(enrich)
    assert (seen.value, seen.ran) == ([2, 18], 1)
    assert any("df (written) changed" in note for note in seen.notes)
    df = pd.DataFrame({"a": [1, 2]})
    seen = execute(enrich)
    assert (seen.value, seen.ran) == ([2, 4], 0)  # corrected back


def test_a_frame_that_is_only_written_is_told(execute):
    """Its step is replayed, for it reads nothing of it; the line comes on every pass."""
    global df
    df = pd.DataFrame({"a": [1, 2]})
    execute(only_writes)
    df = pd.DataFrame({"a": [1, 9]})
    for _ in range(2):
        seen = execute(only_writes)
        assert seen.ran == 0
        assert any("only_writes writes `test_objects_in_use.df`" in note for note in seen.notes)


def test_what_is_only_appended_to_is_never_compared(execute):
    """A log may hold anything."""
    log[:] = []
    assert execute(lambda: collects(1)).ran == 1
    log[:] = ["something else"]
    seen = execute(lambda: collects(1))
    assert seen.ran == 0
    assert not any("neither" in note for note in seen.notes)
