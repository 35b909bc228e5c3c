"""The process that runs a program with nbdurable, gates opened in the schedule's order.

A script for `support.always_replay.Zygote`: it forks itself for each execution. What
is seen, and which bodies run, goes into a log line by line, so that it outlives a
kill. One thread, the conductor, goes through the events that the oracle foresaw: it
waits for what must be at rest, opens the gate or fires the timer, and waits until the
outcome has been told, which is after its commit.
"""

import asyncio
import collections
import contextlib
import contextvars
import functools
import io
import json
import os
import queue
import sys
import threading
import traceback
from pathlib import Path

if __name__ == "__main__":
    sys.path[:1] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from support import zygote

import nbdurable
from nbdurable import testing
from nbdurable.api import open_stores
from nbdurable.engine import delivery
from nbdurable.events import AttemptFailed, StepCreated, StepFinished
from nbdurable.store import index
from programs import interpreter, mutants
from programs.syntax import BEGINNING, CELL, steps_of

_operation = contextvars.ContextVar("operation", default=CELL)
"""What is being done, by which the observer tells handles apart."""

_items = contextvars.ContextVar("items", default=())
"""The items of a map that have no handle yet."""

_called = contextvars.ContextVar("called", default=CELL)
"""Whose body it is: so a body learns for which of several equal calls it stands."""


class StageClock:
    """A clock that stands still; the conductor fires one timer at a time."""

    def __init__(self, now, changed):
        self._now = now
        self._changed = changed
        self.pending = {}

    def time(self):
        """Return the time in seconds."""
        return self._now

    def call_later(self, seconds, callback):
        """Keep a timer's callback until it is fired; a retry's wait is over at once."""
        handle = next(iter(getattr(callback, "args", ())), None)
        if getattr(handle, "kind", "") != "timer":
            if seconds < 0.01:
                callback()
            return lambda: None
        label = handle.label
        with self._changed:
            self.pending[label] = self._now + seconds, callback
            self._changed.notify_all()
        return functools.partial(self.pending.pop, label, None)

    def fire(self, label):
        """Let the timer called `label` fall due, and give the time at which it did."""
        due, callback = self.pending.pop(label)
        self._now = max(self._now, due)
        callback()
        return self._now


class Stage:
    """What the program, the bodies and the conductor know of each other."""

    def __init__(self, request):
        self.steps = steps_of(request["program"])
        self.changed = threading.Condition()
        self.clock = StageClock(request["time"], self.changed)
        self.gates = {}
        self.begun = collections.Counter()
        self.told = collections.Counter()
        self.selects = 0
        self.run = None
        self.over = threading.Event()
        self.stuck = None
        self._events = request["events"]
        self._nodes = {}
        self._log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._done = 0
        self._kill = request["kill"]
        self._patience = request["patience"]

    def log(self, *line):
        """Keep a line for good."""
        os.write(self._log, (json.dumps(line) + "\n").encode())

    def begin(self, node):
        """A fiber begins another operation."""
        with self.changed:
            self.begun[node] += 1
            self.changed.notify_all()

    def arrive(self, node, opens):
        """A body stands at its gate; ``opens(verdict)`` lets it go on."""
        with self.changed:
            self.gates[node] = opens
            self.changed.notify_all()

    def observe(self, event):
        """Take note of what the run tells."""
        if isinstance(event, StepCreated):
            left = _items.get()
            node = left.pop(0) if left else _operation.get()
            self.log("made", node, event.kind, self.run.handles[event.step].call_id.hex())
            with self.changed:
                self._nodes[event.step] = node
                self.selects += event.kind in {"select", "race"}
                self.changed.notify_all()
        elif isinstance(event, StepFinished | AttemptFailed):
            with self.changed:
                self.told[self._nodes[event.step]] += 1
                self.changed.notify_all()

    def kill_at(self, event):
        """Kill this process at a commit soon, if that is to be when `event` is about to come."""
        if self._kill and self._kill["event"] == event:
            testing.kill_at(self._kill["moment"], self._kill["commit"])

    def conduct(self):
        """Open the gates in their order; then wait for the end."""
        expected = collections.Counter()
        for event in self._events:
            node = event["node"]
            self._wait(lambda event=event: self._missing(event), f"event {self._done} at {node}")
            expected[node] += 1
            self.kill_at(self._done)
            if event["timer"]:
                due = self.clock.fire(event["timer"])
                if due != event["time"]:
                    self._give_up(f"{event['timer']} at {event['time']}", [f"it came at {due}"])
            else:
                self.gates.pop(node)(event["fails"])
            count = expected[node]
            self._wait(
                lambda node=node, count=count: [] if self.told[node] >= count else ["its outcome"],
                f"the outcome of event {self._done} at {node}",
            )
            self._done += 1
        self.kill_at(self._done)
        if not self.over.wait(self._patience):
            self._give_up("the end of the cell", ["it did not come"])

    def _missing(self, event):
        """Return what is not there yet of what an event needs."""
        gates, timers = [], []
        if event["timer"]:
            timers = [event["timer"]]
        else:
            gates = [event["node"]]
        missing = []
        if event["calm"]:
            gates, timers = event["gates"], event["timers"]
            missing += [
                f"operation {count} of fiber {node}"
                for node, count in event["begun"]
                if self.begun[node] < count
            ]
            missing += ["a select"] * (event["selects"] - self.selects)
        missing += [f"the body of {node}" for node in gates if node not in self.gates]
        missing += [label for label in timers if label not in self.clock.pending]
        return missing

    def _wait(self, missing, what):
        with self.changed:
            if not self.changed.wait_for(lambda: not missing(), self._patience):
                self._give_up(what, missing())

    def _give_up(self, what, missing):
        self.log("stuck", f"waiting for {what}, missing: {', '.join(missing)}")
        os._exit(3)

    def done(self):
        """Return how many events have happened."""
        return self._done


class Fiber:
    """The cell, or one attempt of a step's body, in terms of nbdurable."""

    def __init__(self, stage, node, *, asynchronous):
        self._stage = stage
        self._node = node
        self._asynchronous = asynchronous
        self.handles = {}

    def begin(self, operation):
        """An operation begins."""
        _operation.set(operation.get("id", self._node))
        self._stage.begin(self._node)

    def note(self, operation, seen):
        """Something was seen."""
        self._stage.log("note", self._node, f"{operation.get('id', operation.get('of'))}: {seen}")

    def still_runs(self, error):
        """Leave a body whose run has ended meanwhile: nobody foresees what it would do.

        Raises:
            SystemExit: It has.
        """
        if self._node != CELL and isinstance(error, nbdurable.NotInRunError):
            raise SystemExit

    def print(self, text):
        """Write a line."""
        with _printing:
            print(text)

    def redirected(self, text):
        """Return what a line is where it is redirected to."""
        with _printing, contextlib.redirect_stdout(io.StringIO()) as seen:
            print(text)
        return seen.getvalue()

    def effect(self):
        """The body has begun."""
        self._stage.log("body", self._node)

    async def gate(self):
        """Wait until the conductor opens the gate; tell whether this attempt is to fail."""
        if not self._asynchronous:
            box = queue.SimpleQueue()
            self._stage.arrive(self._node, box.put)
            return box.get()
        loop = asyncio.get_running_loop()
        verdict = loop.create_future()
        opens = functools.partial(loop.call_soon_threadsafe, verdict.set_result)
        self._stage.arrive(self._node, opens)
        return await verdict

    def go(self, operation):
        """Start a step."""
        with _calling(operation):
            return self._step(operation).go(*self._arguments(operation))

    async def call(self, operation):
        """Run a step in place."""
        with _calling(operation):
            found = self._step(operation)(*self._arguments(operation))
        return await found if self._asynchronous else found

    def map(self, operation):
        """Start a step for each item, and gather."""
        function = _item_async if operation["step"]["asynchronous"] else _item
        token = _items.set(list(operation["items"]))
        try:
            return self._step(operation, function).map(
                operation["items"], return_exceptions=operation["exceptions"]
            )
        finally:
            _items.reset(token)

    def after(self, operation):
        """Make a timer."""
        return nbdurable.after(operation["seconds"])

    async def sleep(self, operation):
        """Wait for a timer."""
        seconds = operation["seconds"]
        found = (
            nbdurable.sleep(until=BEGINNING + seconds)
            if operation["until"]
            else nbdurable.sleep(seconds)
        )
        if self._asynchronous:
            await found

    def combine(self, operation, branches):
        """Make a combinator."""
        if operation["do"] == "gather":
            if operation["keyed"]:
                branches = {f"k{at}": one for at, one in enumerate(branches)}
            return nbdurable.gather(branches, return_exceptions=operation["exceptions"])
        combinator = getattr(nbdurable, operation["do"])
        return combinator(branches, success=operation["success"])

    async def ask(self, operation, handle):
        """Ask a handle."""
        how = operation["how"]
        if how == "result":
            if self._asynchronous:
                return await handle
            return handle.result(operation["seconds"] or None)
        if self._asynchronous:
            await _ended(handle)
        if how == "outcome":
            outcome = handle.outcome()
            seen = outcome.value if outcome.ok else outcome.error
            say = interpreter.text_of_value if outcome.ok else interpreter.text_of_error
            return f"{outcome.kind.value} {say(seen)}"
        if how == "winner":
            return f"winner {self._node_of(handle.winner)}"
        return f"index {handle.index}"

    async def fine(self, handle):
        """Wait, and tell whether it ended with a value."""
        if self._asynchronous:
            await _ended(handle)
        return handle.outcome().ok

    async def each(self, operation, handles):
        """Yield the nodes of `handles` in the order in which they end."""
        completion = nbdurable.as_completed(handles)
        self._stage.log("made", operation["id"], "each", completion.key.hex())
        try:
            if self._asynchronous:
                async for handle in completion:
                    yield self._node_of(handle)
            else:
                for handle in completion:
                    yield self._node_of(handle)
        finally:
            del completion  # who lets go of it early makes losers of the rest

    def cancel(self, operation, handle):
        """Cancel a handle."""
        handle.cancel()

    def _step(self, operation, function=None):
        step = operation["step"]
        return nbdurable.step(
            function or (_body_async if step["asynchronous"] else _body),
            name=step["name"],
            retries=step["retries"],
            backoff=0.001,
            version="1",
        )

    def _arguments(self, operation):
        step = operation["step"]
        return interpreter.shaped(step, [self.handles[handle] for handle in step["takes"]])

    def _node_of(self, handle):
        return next(node for node, known in self.handles.items() if known is handle)


@contextlib.contextmanager
def _calling(operation):
    token = _called.set(operation["id"])
    try:
        yield
    finally:
        _called.reset(token)


async def _ended(handle):
    with contextlib.suppress(Exception):
        await handle


def _drive(coroutine):
    """Run a fiber whose waits block, and so never suspend it."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a sync fiber was suspended")


_stage = None
_printing = threading.Lock()  # redirect_stdout is for all threads


def _body(*received):
    node = _called.get()
    fiber = Fiber(_stage, node, asynchronous=False)
    return _drive(interpreter.act(node, _stage.steps[node], received, fiber))


async def _body_async(*received):
    node = _called.get()
    fiber = Fiber(_stage, node, asynchronous=True)
    return await interpreter.act(node, _stage.steps[node], received, fiber)


def _item(node):
    fiber = Fiber(_stage, node, asynchronous=False)
    return _drive(interpreter.act(node, _stage.steps[node], (), fiber))


async def _item_async(node):
    fiber = Fiber(_stage, node, asynchronous=True)
    return await interpreter.act(node, _stage.steps[node], (), fiber)


async def _inside(workflow, program):
    async with workflow as _stage.run:
        await interpreter.run_cell(program, Fiber(_stage, CELL, asynchronous=True))


def perform(request):
    """Run the program as one execution and give what can be compared."""
    global _stage
    _stage = Stage(request)
    if request["mutant"]:
        getattr(mutants, request["mutant"])()
    # A step in flight at two deaths would be run alone: here any step is, and none is to blame.
    index._SUSPICIOUS = len(_stage.steps) + 99
    # Not when a slow machine has taken long enough: at once, or not while anything is awaited.
    delivery.LIVE_SECONDS = 0 if request["live"] else 3600
    _stage.kill_at(-1)
    workflow = nbdurable.workflow(
        "program", store=request["store"], observers=(_stage.observe,), limit=64
    )
    conductor = threading.Thread(target=_stage.conduct, daemon=True)
    conductor.start()
    report = {"error": "", "traceback": ""}
    stdout = io.StringIO()
    program = request["program"]
    with contextlib.redirect_stdout(stdout), testing.clock_of_runs(_stage.clock):
        try:
            if request["asynchronous"]:
                asyncio.run(_inside(workflow, program))
            else:
                with workflow as _stage.run:
                    _drive(interpreter.run_cell(program, Fiber(_stage, CELL, asynchronous=False)))
        except Exception as error:
            report["error"] = interpreter.text_of_error(error)
            report["traceback"] = traceback.format_exc()
    _stage.over.set()
    # What has been committed may just be being told; what is never to come is no matter.
    conductor.join(1)
    report["stdout"] = stdout.getvalue()
    report["notes"] = list(workflow.notes)
    report["events"] = _stage.done()
    open_stores.close_stores()
    return report


if __name__ == "__main__":
    zygote.serve(perform)
