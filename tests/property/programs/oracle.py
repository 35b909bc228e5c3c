"""Plain Python that knows what must happen: the contract, played in one thread.

`play` takes a program, what the store holds and a schedule, and gives the events in
the order in which the gates must be opened, and what must be seen, said, saved and
run. It is written from the contract (sections 2 to 6), not from the engine: every
combinator is a function of its branches' numbers, asked whenever something happened.

What is saved is a set of *facts* about identities. An identity is a tuple: the fiber
in whose body the call stands, the name, and how many of that name came before it
there; a combinator's is its kind and those of its branches. Each fact belongs to an
*epoch*: the number of events before it. Facts of one epoch have no order between
them but that of their fiber; a process that dies in an epoch may have saved any of
that epoch's, and all of those before.
"""

import contextlib
import itertools
from collections import Counter
from dataclasses import dataclass, field, replace

from programs import interpreter
from programs.syntax import BEGINNING, CELL, steps_of, walk

VALUE, ERROR, CANCELLED = "value", "error", "cancelled"


class Stuck(BaseException):
    """The oracle can't go on: a program that can't end, or a defect of the oracle."""


class WaitTimeoutError(Exception):
    """What ``result(timeout=)`` raises; told by its name alone."""


class StepCancelledError(Exception):
    """What a cancelled step raises; told by its name alone."""


@dataclass(frozen=True)
class Schedule:
    """When things happen, where the program leaves it open.

    ``ranks``: the lower an event's, the earlier its gate is opened. ``lazy``: a loser's
    is opened only when it is asked for. ``calm``: a gate is opened only when everything
    has come to rest; otherwise as soon as somebody stands at it. ``live``: who waits is
    shown at once what is waited for, not only when it has ended.
    """

    ranks: tuple[int, ...] = ()
    lazy: bool = True
    calm: bool = True
    live: bool = False

    def rank(self, identity):
        """Return the rank of a step's or timer's event."""
        return (self.ranks[identity % len(self.ranks)] if self.ranks else 0, identity)


@dataclass(frozen=True)
class Saved:
    """An outcome; ``cause`` is the number of the decision that cancelled it.

    ``unseen`` are the errors that it takes back from having been seen, ``taken`` counts how
    often an outcome of its step had been taken out before it.
    """

    kind: str
    number: int
    value: object = None
    error: Exception | None = None
    output: str = ""
    cause: int = 0
    unseen: frozenset = frozenset()
    taken: int = 0


@dataclass(frozen=True)
class Stumble:
    """An attempt that failed, the ``count``-th since an outcome of its step was taken out.

    ``taken`` counts how often that had been; ``concludes`` is set where it was an outcome
    itself, taken out at once.
    """

    count: int
    unseen: frozenset = frozenset()
    taken: int = 0
    concludes: bool = False


@dataclass(frozen=True)
class Choice:
    """A decision: the winner's identity, and those of the steps and timers that lost.

    ``where`` is the fiber's identity; ``by`` the step or timer that closed it, and how
    often an outcome of that had been taken out before.
    """

    winner: tuple
    number: int
    losers: frozenset
    where: tuple
    by: tuple


@dataclass
class Memory:
    """What a store holds of one run."""

    outcomes: dict = field(default_factory=dict)
    choices: dict = field(default_factory=dict)
    seen: set = field(default_factory=set)
    kept: set = field(default_factory=set)
    taken: Counter = field(default_factory=Counter)
    stumbles: dict = field(default_factory=dict)
    armed: dict = field(default_factory=dict)
    listed: frozenset = frozenset()
    ended: str = "new"
    number: int = 0
    time: float = BEGINNING

    def copy(self):
        """Return one that can be changed."""
        return replace(
            self,
            outcomes=dict(self.outcomes),
            choices=dict(self.choices),
            seen=set(self.seen),
            kept=set(self.kept),
            taken=Counter(self.taken),
            stumbles=dict(self.stumbles),
            armed=dict(self.armed),
        )

    def begin(self):
        """Take out the errors that are tried again, and what they had decided."""
        again = {key for key, saved in self.outcomes.items() if self._is_unseen(key, saved)}
        # What is below an outcome that stays is not asked for.
        self.kept = {key for key in again if key[:-1] in self.outcomes and key not in self.listed}
        again -= self.kept
        grown = set(again)
        while grown:
            grown = {key for key in self.kept if key[:-1] in grown}
            self.kept -= grown
            again |= grown
        lost = self._lost(again)
        self.kept |= lost
        again -= lost
        numbers = self.take_out(again)
        self.listed = frozenset()
        self.ended = "died"
        return bool(numbers)

    def _is_unseen(self, key, saved):
        return saved.kind == ERROR and (key not in self.seen or key in self.listed)

    def _lost(self, again):
        """Return the errors that nobody asks for, since they lost, and that decided nothing."""
        numbers = {choice.number for choice in self.choices.values()}
        left = max((one.number for one in self.choices.values() if not one.winner), default=0)
        losing = {
            key
            for key in again - self.listed
            if left < self.outcomes[key].number not in numbers and key in self.losers()
        }
        while losing:
            rest = self.consequences(again - losing)
            undone = {self.outcomes[key].number for key in rest}
            standing = [one for one in self.choices.values() if one.number not in undone]
            stays = {key for key in losing if any(key in one.losers for one in standing)}
            if stays == losing:
                break
            losing = stays
        return losing

    def consequences(self, keys):
        """Return `keys` and every cancellation that hangs on a decision that one of them won."""
        found = set(keys)
        while True:
            numbers = {self.outcomes[key].number for key in found}
            more = {key for key, saved in self.outcomes.items() if saved.cause in numbers}
            if more <= found:
                return found
            found |= more

    def take_out(self, keys, where=None):
        """Take outcomes out, and what they had decided; give the numbers that are gone.

        Of what a loop has left, with `where`, only in that fiber.
        """
        found = self.consequences(keys)
        numbers = {self.outcomes[key].number for key in found}
        for key in found:
            del self.outcomes[key]
            self.stumbles.pop(key, None)
            self.taken[key] += 1
        self.seen -= found
        self.kept -= found
        self.choices = {
            key: choice
            for key, choice in self.choices.items()
            if choice.number not in numbers
            and not (
                numbers
                and not choice.winner
                and choice.number >= min(numbers)
                and where in {None, choice.where}
            )
        }
        return numbers

    def add(self, fact):
        """Take in a fact."""
        if fact.what == "outcome":
            self.taken[fact.key] = fact.value.taken
            self.seen -= fact.value.unseen
            self.outcomes[fact.key] = fact.value
            self.number = max(self.number, fact.value.number)
        elif fact.what == "choice":
            self.choices[fact.key] = fact.value
        elif fact.what == "seen":
            self.seen.add(fact.key)
        elif fact.what == "stumble":
            self.seen -= fact.value.unseen
            self.stumbles[fact.key] = fact.value.count
            self.taken[fact.key] += fact.value.concludes
        elif fact.what == "gone":
            self.take_out(fact.value.keys(), fact.key)
        elif fact.what == "armed":
            self.armed[fact.key] = fact.value
        elif fact.what == "end":
            self.ended, self.listed = fact.value

    def losers(self):
        """Return all that lost."""
        return {key for choice in self.choices.values() for key in choice.losers}


@dataclass(frozen=True)
class Fact:
    """Something to be saved; what has one ``batch`` is saved together."""

    what: str
    key: tuple
    epoch: int
    batch: int
    with_event: bool
    ghost: bool
    value: object = None


@dataclass(frozen=True)
class Event:
    """A gate to be opened or a timer to be fired, and what must be at rest before."""

    node: int
    timer: str = ""
    fails: bool = False
    again: bool = False
    time: float = 0.0
    calm: bool = True
    gates: frozenset = frozenset()
    timers: frozenset = frozenset()
    begun: tuple = ()
    selects: int = 0


@dataclass
class Play:
    """What must happen."""

    events: list = field(default_factory=list)
    facts: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    bodies: list = field(default_factory=list)
    halted: set = field(default_factory=set)
    ghosts: set = field(default_factory=set)
    output: str = ""
    ended: str = ""
    error: str = ""
    rearmed: bool = False
    redone: bool = False
    unsure: bool = False
    early: bool = False
    keys: dict = field(default_factory=dict)
    undone: dict = field(default_factory=dict)

    def trail(self):
        """Return what each fiber must have noted."""
        found = {}
        for _, fiber, note, _ in self.notes:
            found.setdefault(fiber, []).append(note)
        return found


# --- handles ---------------------------------------------------------------------


class Handle:
    """What a fiber holds; ``end`` is (number, kind), or None."""

    def __init__(self, world, fiber, node, key):
        self.world = world
        self.node = node
        self.key = key
        self.order = len(world.handles)
        world.handles.append(self)

        self.waiters = 0

    @property
    def fine(self):
        """Whether it ended with a value."""
        return self.end is not None and self.end[1] == VALUE

    def below(self):
        """Return what this waits for, directly."""
        return ()


class Leaf(Handle):
    """A step or timer."""

    def __init__(self, world, fiber, node, key, *, step=None, seconds=0, label=""):
        super().__init__(world, fiber, node, key)
        self.parent = fiber
        self.step = step
        self.seconds = seconds
        self.label = label
        self.end = None
        self.value = self.error = self.source = None
        self.output = ""
        self.upstream = ()
        self.received = ()
        self.waiting = self.replayed = self.retracted = False
        self.started = self.demanded = self.lost = self.halted = False
        self.at_gate = False
        self.fiber = None
        self.until = None
        self.verdict = None
        self.due = None

    @property
    def passed_over(self):
        """Whether it lost, or who started it did."""
        return self.lost or (self.parent.leaf is not None and self.parent.leaf.passed_over)

    @property
    def awaited(self):
        """Whether the cell does not end without it."""
        return self.end is None and not self.passed_over

    def below(self):
        """Return the upstream."""
        return self.upstream if self.waiting else ()

    def leaves(self):
        """Return itself."""
        return [self]

    def demand(self, *, rearm=False):
        """Start it, wherever it stands."""
        self.demanded = True
        if self.end is not None:
            return
        if self.step is None:
            self.world.arm(self, rearm=rearm)
        elif self.waiting:
            for upstream in self.upstream:
                upstream.demand()
        elif not self.started:
            self.world.start(self)

    def receive(self, fiber):
        """Return the value or raise the error; the output comes with the first time."""
        self.deliver(fiber)
        if self.end[1] == VALUE:
            return self.value
        self.see()
        raise self.error

    def deliver(self, fiber):
        """Show the output, once."""
        if self not in fiber.delivered:
            fiber.delivered.add(self)
            fiber.out.append(self.output)

    def see(self):
        """The error is known."""
        if self.source is not None:
            self.source.see()
        elif self.end[1] == ERROR:
            self.world.saw(self)

    def fresh(self):
        """Return what a step receives."""
        return self.value if self.end[1] == VALUE else self.error


class Gather(Handle):
    """All of its branches, or the lowest-numbered failure."""

    def __init__(self, world, fiber, operation, branches):
        self.branches = branches
        self.exceptions = operation["exceptions"]
        self.keyed = operation["keyed"]
        self.where = fiber.key
        self.decided = False
        key = ("gather", self.exceptions, tuple(one.key for one in branches))
        super().__init__(world, fiber, operation["id"], key)
        world.play.keys[self.node, "gather"] = key

    @property
    def failed(self):
        """The failure that it ends with."""
        if self.exceptions:
            return None
        failed = [one for one in self.branches if one.end is not None and not one.fine]
        return min(failed, key=lambda one: (one.end[0], one.order), default=None)

    @property
    def end(self):
        """The number and kind."""
        if self.failed is not None:
            return self.failed.end
        if all(one.end is not None for one in self.branches):
            return max((one.end[0] for one in self.branches), default=1), VALUE
        return None

    def below(self):
        """Return the branches."""
        return self.branches

    def leaves(self):
        """Return the steps and timers below."""
        return _leaves(self.branches)

    def demand(self, *, rearm=False):
        """Start all."""
        if self.end is None:
            for one in self.branches:
                one.demand(rearm=rearm)

    def receive(self, fiber):
        """Return all results in order; before a failure, show what had come in that order."""
        if self.failed is not None:
            for leaf in _leading(self):
                if leaf.end is None or leaf.end[0] >= self.end[0]:
                    self.world.shown_early(leaf, fiber)
                    break
                leaf.deliver(fiber)
            self.failed.receive(fiber)
        return self._form([self._settled(one, fiber) for one in self.branches])

    def _settled(self, one, fiber):
        if not self.exceptions or one.fine:
            return one.receive(fiber)
        try:
            return one.receive(fiber)
        except Exception as error:
            return error

    def _form(self, values):
        if not self.keyed:
            return values
        return {f"k{at}": value for at, value in enumerate(values)}

    @property
    def error(self):
        """The failure's."""
        return None if self.failed is None else self.failed.error

    def see(self):
        """The failure is known."""
        if self.failed is not None:
            self.failed.see()

    def fresh(self):
        """Return what a step receives; the errors among it are seen by that."""
        for one in self.branches:
            if not one.fine:
                one.see()
        return self._form([one.fresh() for one in self.branches])


class Select(Handle):
    """The branch with the lowest number."""

    def __init__(self, world, fiber, operation, branches):
        self.branches = branches
        self.where = fiber.key
        self.kind = operation["do"]
        self.success = operation["success"]
        self.chosen = None
        self.group = None
        key = (self.kind, self.success, frozenset(one.key for one in branches))
        super().__init__(world, fiber, operation["id"], key)

    @property
    def end(self):
        """The number and kind."""
        if self.chosen is not None:
            return self.chosen.end
        ended = [one for one in self.branches if one.end is not None]
        if self.best is None and len(ended) == len(self.branches):
            return max(one.end[0] for one in ended), ERROR
        return None

    @property
    def best(self):
        """The branch that wins now."""
        ended = [
            (one.end[0], one.order, one)
            for one in self.branches
            if one.end is not None and (one.fine or not self.success)
        ]
        return min(ended)[2] if ended else None

    def below(self):
        """Return the branches."""
        return self.branches

    def leaves(self):
        """Return the steps and timers below."""
        return _leaves(self.branches)

    def losing(self):
        """Return what is below the branches that lost, and not below the winner."""
        kept = self.chosen.leaves()
        return [leaf for leaf in self.leaves() if leaf not in kept]

    def demand(self, *, rearm=False):
        """Start the winner; all branches while there is none, timers anew."""
        if self.chosen is not None:
            self.chosen.demand()
        elif self.end is None:
            for one in self.branches:
                one.demand(rearm=True)

    def receive(self, fiber):
        """Return the winner's value or raise its error."""
        if self.chosen is not None:
            return self.chosen.receive(fiber)
        self.see()
        raise self.error

    @property
    def error(self):
        """The winner's error, or the group of all."""
        if self.chosen is not None:
            return self.chosen.error
        if self.group is None:
            errors = [one.error for one in self.branches]
            message = f"{self.kind}: all {len(errors)} branches failed"
            self.group = BaseExceptionGroup(message, errors)
        return self.group

    def see(self):
        """The winner's error is known; of a select without winner, all are."""
        for one in self.branches if self.chosen is None else (self.chosen,):
            one.see()

    def fresh(self):
        """Return what a step receives."""
        return self.error if self.chosen is None else self.chosen.fresh()


def _leading(handle):
    """Yield the steps that a handle gives, in order, as far as that can be known."""
    if isinstance(handle, Leaf):
        if handle.step is not None:
            yield handle
        return handle.end is not None
    if isinstance(handle, Gather):
        for branch in handle.branches:
            known = yield from _leading(branch)
            if not known or not (branch.fine or handle.exceptions):
                return False
        return True
    if handle.chosen is None:
        return False
    return (yield from _leading(handle.chosen))


def _origins(handle):
    """Return the identities of the steps whose failures a handle passes on."""
    if isinstance(handle, Leaf):
        return {handle.key} if handle.source is None else _origins(handle.source)
    chosen = handle.failed if isinstance(handle, Gather) else handle.chosen
    if chosen is None:  # the group of all errors of a select
        return set().union(*map(_origins, handle.branches))
    return _origins(chosen)


def _leaves(branches):
    return list(dict.fromkeys(itertools.chain.from_iterable(one.leaves() for one in branches)))


# --- fibers ----------------------------------------------------------------------


@contextlib.contextmanager
def _waiting(*handles):
    for one in handles:
        one.waiters += 1
    yield
    for one in handles:
        one.waiters -= 1


class _Pause:
    """What a fiber suspends itself with."""

    def __await__(self):
        yield


class Fiber:
    """The cell, or one attempt of a step's body."""

    def __init__(self, world, node, key, asynchronous, leaf=None):
        self.world = world
        self.node = node
        self.key = key
        self.asynchronous = asynchronous
        self.leaf = leaf
        self.handles = {}
        self.out = []
        self.delivered = set()
        self._count = Counter()

    # What the operations ask.

    def begin(self, operation):
        """An operation begins."""
        self.world.begun[self.node] += 1

    def note(self, operation, seen):
        """Something was seen."""
        note = f"{operation.get('id', operation.get('of'))}: {seen}"
        self.world.play.notes.append((self.world.epoch, self.node, note, self.world.over))

    def still_runs(self, error):
        """The oracle's fibers do nothing after the end."""

    def print(self, text):
        """Write a line."""
        self.out.append(text + "\n")

    def redirected(self, text):
        """Return what a line is where it is redirected to."""
        return text + "\n"

    def effect(self):
        """The body has begun."""
        self.world.play.bodies.append((self.world.epoch, self.node, self.world.over))

    async def gate(self):
        """Wait until the schedule opens the gate; tell whether this attempt is to fail."""
        leaf = self.leaf
        leaf.at_gate = True
        while leaf.verdict is None:
            await _Pause()
        leaf.at_gate = False
        verdict, leaf.verdict = leaf.verdict, None
        return verdict

    def go(self, operation):
        """Start a step."""
        leaf = self._claim(operation)
        self.world.launch(leaf)
        return leaf

    async def call(self, operation):
        """Run a step in place."""
        leaf = self._claim(operation)
        if self.asynchronous or leaf.waiting or leaf.started:
            leaf.demand()
        elif leaf.end is None:
            await self.world.perform(leaf, here=True)
        await self._until(leaf)
        return leaf.receive(self)

    def map(self, operation):
        """Start a step for each item, and gather."""
        step = operation["step"]
        leaves = []
        for item in operation["items"]:
            leaves.append(self._leaf(item, self._key(f"{step['name']}({item})"), step))
            self.world.launch(leaves[-1])
        gather = Gather(self.world, self, {**operation, "keyed": False}, leaves)
        self.world.settle()
        return gather

    def after(self, operation):
        """Make a timer."""
        return self._timer(operation, "after")

    async def sleep(self, operation):
        """Wait for a timer."""
        until = BEGINNING + operation["seconds"] if operation["until"] else None
        timer = self._timer(operation, "sleep", until)
        await self._until(timer)
        timer.receive(self)

    def combine(self, operation, branches):
        """Make a combinator."""
        if operation["do"] == "gather":
            gather = Gather(self.world, self, operation, branches)
            self.world.settle()
            return gather
        return self._select(operation, branches)

    async def ask(self, operation, handle):
        """Ask a handle."""
        how = operation["how"]
        if operation["seconds"]:
            timer = self._timer(operation, "result timeout")
            chosen = self._select({**operation, "do": "select", "success": False}, [handle, timer])
            await self._decided(chosen)
            if chosen.chosen is timer:
                raise WaitTimeoutError
        if how == "result" or self.asynchronous:
            await self._until(handle)
            try:
                value = handle.receive(self)
            except Exception:
                if how == "result":
                    raise
            else:
                if how == "result":
                    return value
        if how == "outcome":
            return self._outcome(await self._until(handle))
        winner = await self._decided(handle)
        return (
            f"winner {winner.node}" if how == "winner" else f"index {handle.branches.index(winner)}"
        )

    async def fine(self, handle):
        """Wait, and tell whether it ended with a value."""
        await self._until(handle)
        try:
            handle.receive(self)
        except Exception:
            return False
        return True

    async def each(self, operation, handles):
        """Yield the nodes of `handles` in the order in which they end."""
        left = list(handles)
        key = "each", frozenset(one.key for one in handles)
        self.world.play.keys[operation["id"], "each"] = key
        stored = self.world.memory.choices.get(key)
        lost = frozenset() if stored is None else stored.losers
        try:
            while left:
                if not any(one.end is not None for one in left):
                    keys = {one: {leaf.key for leaf in one.leaves()} for one in left}
                    others = [one for one in left if not keys[one] <= lost]
                    for one in others or left:
                        one.demand(rearm=True)
                self.world.settle()
                with _waiting(*left):
                    while not any(one.end is not None for one in left):
                        await _Pause()
                ended = [one for one in left if one.end is not None]
                come = min(ended, key=lambda one: (one.end[0], one.order))
                left.remove(come)
                yield come.node
        finally:
            if left:
                given = [one for one in handles if one not in left]
                self.world.leave(key, left, given, self)

    def cancel(self, operation, handle):
        """Cancel a handle."""
        with self.world.together():
            self.world.cancel([one for one in handle.leaves() if one.end is None], cause=0)
            self.world.settle()

    # How it is done.

    async def _until(self, handle):
        handle.demand()
        self.world.settle()
        with _waiting(handle):
            while handle.end is None:
                await _Pause()
        return handle

    async def _decided(self, select):
        await self._until(select)
        if select.chosen is None:
            select.receive(self)
        select.see()
        return select.chosen

    def _outcome(self, handle):
        try:
            return f"value {interpreter.text_of_value(handle.receive(self))}"
        except Exception as error:
            return f"{handle.end[1]} {interpreter.text_of_error(error)}"

    def _key(self, name):
        self._count[name] += 1
        return (*self.key, (name, self._count[name]))

    def _claim(self, operation):
        step = operation["step"]
        return self._leaf(operation["id"], self._key(step["name"]), step)

    def _leaf(self, node, key, step):
        found = self.world.live.get(key)
        if found is not None and not found.retracted:
            return found  # an earlier attempt of the same body has started it
        leaf = Leaf(self.world, self, node, key, step=step)
        if found is not None:
            leaf.order = found.order  # it takes the place of what was taken out
        leaf.upstream = tuple(self.handles[handle] for handle in step["takes"])
        self.world.claim(leaf)
        return leaf

    def _timer(self, operation, name, until=None):
        seconds = operation["seconds"]
        label = f"{name}({seconds})" if until is None else f"{name}(until={until:g})"
        key = self._key(label)
        found = self.world.live.get(key)
        if found is not None and not found.retracted:
            return found
        timer = Leaf(self.world, self, operation["id"], key, seconds=seconds, label=label)
        if found is not None:
            timer.order = found.order
        timer.until = until
        self.world.claim(timer)
        if timer.end is None:
            if timer.key not in self.world.memory.armed:
                self.world.arm(timer, rearm=True)
            else:
                self.world.play.rearmed = until is None  # or it will never be
        return timer

    def _select(self, operation, branches):
        select = Select(self.world, self, operation, branches)
        self.world.selects += 1
        self.world.play.keys[operation["id"], select.kind] = select.key
        stored = self.world.memory.choices.get(select.key)
        if stored is not None:
            select.chosen = next(one for one in branches if one.key == stored.winner)
            self.world.lose(select)
        self.world.settle()
        return select


# --- the world -------------------------------------------------------------------


class World:
    """One execution."""

    def __init__(self, program, memory, schedule, *, asynchronous):
        self.memory = memory
        self.schedule = schedule
        self.play = Play(redone=memory.begin())
        self.epoch = 0
        self.time = memory.time
        self.handles = []
        self.live = {}
        self.begun = Counter()
        self.selects = 0
        self.over = self.closing = False
        self.cell = Fiber(self, CELL, (), asynchronous)
        self._stored = dict(memory.choices)
        self._losers = memory.losers()
        self._errors = {}
        self._firing = False
        self._batch = 0
        self._together = False
        self._flows = [(None, self._whole(program))]

    def run(self):
        """Play it to its end."""
        self._rest_comes()
        while not self.over:
            self._fire(self._next())
            self._rest_comes()
        self._rest_comes()  # what others may still do meanwhile
        self.closing = True
        for _, flow in self._flows:
            flow.close()
        return self.play

    async def _whole(self, program):
        try:
            await interpreter.run_cell(program, self.cell)
            await self._wait_for_the_rest()
        except Exception as error:
            self._end(error)
        else:
            self._end(None)

    async def _wait_for_the_rest(self):
        while left := [one for one in self._all_leaves() if one.step and one.awaited]:
            for leaf in left:
                leaf.demand()
            self.settle()
            await _Pause()

    def _end(self, error):
        listed = frozenset(one.key for one in self._in(error) if one.parent is self.cell)
        ended = "finished" if error is None else "failed"
        if error is None:
            for leaf in self.handles:
                if not isinstance(leaf, Leaf) or leaf.parent is not self.cell or leaf.end is None:
                    continue
                if leaf not in self.cell.delivered and not leaf.passed_over:
                    self.cell.out.append(leaf.output)
        self.fact("end", (), (ended, listed))
        self.over = True
        self.play.ended = ended
        self.play.error = "" if error is None else interpreter.text_of_error(error)
        self.play.output = "".join(self.cell.out)
        if error is not None and self.play.events:
            # Who is only being started when the cell's error shows may or may not be.
            self.play.events[-1] = replace(self.play.events[-1], calm=True)

    def _in(self, error):
        """Yield the steps whose errors are in an exception's causes, contexts and groups."""
        stack, visited = [error], set()
        while stack:
            one = stack.pop()
            if one is None or id(one) in visited:
                continue
            visited.add(id(one))
            yield from self._errors.get(id(one), (one, ()))[1]
            stack += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]

    def _passed_on(self, leaf, error):
        """Return the steps whose errors the body of `leaf` let escape."""
        return [one for one in self._in(error) if one.key[:-1] == leaf.key]

    def _take_out_below(self, leaf):
        """Take out what nobody has seen below a step before it is attempted again."""
        below, stack = [], [leaf.key]
        while stack:
            above = stack.pop()
            for one in self.handles:
                if isinstance(one, Leaf) and one.key[:-1] == above and not one.retracted:
                    below.append(one)
                    if self._is_unseen(one):
                        stack.append(one.key)
        taken = {one.key for one in below if self._is_unseen(one)}
        if not taken:
            return
        gone = self.memory.consequences(taken)
        for one in below:
            one.lost = False
            one.retracted = one.key in gone or bool(_origins(one) & gone)
        self._gone(taken, where=leaf.key)

    def _is_unseen(self, leaf):
        saved = self.memory.outcomes.get(leaf.key)
        unseen = saved is not None and saved.kind == ERROR and leaf.key not in self.memory.seen
        return unseen and leaf.end is not None and leaf.source is None

    def _gone(self, keys, where):
        """Save that outcomes were taken out, with all that hangs on them."""
        after = {key: self.memory.taken[key] + 1 for key in self.memory.consequences(keys)}
        numbers = {self.memory.outcomes[key].number for key in after}
        self.fact("gone", where, after)
        gone = self.play.facts[-1]
        for fact in self.play.facts[:-1]:
            undone = fact.key in after and fact.what in {"outcome", "stumble", "seen"}
            undone = undone or (
                fact.what == "choice" and self.memory.choices.get(fact.key) is not fact.value
            )
            if undone and id(fact) not in self.play.undone:
                self.play.undone[id(fact)] = gone
        self._stored = {
            key: choice for key, choice in self._stored.items() if key in self.memory.choices
        }
        self._losers = {key for choice in self._stored.values() for key in choice.losers}
        assert numbers

    # Time and order.

    def _rest_comes(self):
        """Let every flow go on as far as it can."""
        moved, over = True, self.over
        while moved and self.over == over:
            before = self._state()
            for leaf, flow in tuple(self._flows):
                if self.over != over or (leaf and (leaf.halted or leaf.end is not None)):
                    continue
                try:
                    flow.send(None)
                except StopIteration:
                    self._flows.remove((leaf, flow))
            self.settle()
            moved = before != self._state()

    def _state(self):
        return (
            len(self._flows),
            self.begun.total(),
            len(self.handles),
            len(self.play.facts),
            sum(leaf.at_gate for leaf in self._all_leaves()),
        )

    def _all_leaves(self):
        return [
            one
            for one in self.handles
            if isinstance(one, Leaf) and not one.halted and not one.retracted
        ]

    def _next(self):
        gates = [leaf for leaf in self._all_leaves() if leaf.at_gate]
        timers = [leaf for leaf in self._all_leaves() if leaf.due is not None and leaf.end is None]
        if self.schedule.lazy:
            gates = [leaf for leaf in gates if self._needed(leaf)]
            timers = [leaf for leaf in timers if self._needed(leaf)]
        timers.sort(key=lambda timer: (timer.due, self.schedule.rank(timer.node)))
        found = sorted(gates + timers[:1], key=lambda leaf: self.schedule.rank(leaf.node))
        if not found:
            raise Stuck("nothing can happen any more")
        return found[0]

    def _needed(self, leaf):
        """Tell whether somebody waits for it, or will."""
        if leaf.parent.leaf is not None and not self._needed(leaf.parent.leaf):
            return False
        return not leaf.lost or self._waited_for(leaf)

    def _waited_for(self, handle):
        """Tell whether somebody waits for a handle, directly or for what waits for it."""
        return bool(handle.waiters) or any(
            one.end is None
            and handle in one.below()
            and (self._needed(one) if isinstance(one, Leaf) else self._waited_for(one))
            for one in self.handles
        )

    def _fire(self, leaf):
        event = Event(
            leaf.node,
            time=self.time,
            calm=self.schedule.calm or leaf.step is None,
            gates=frozenset(one.node for one in self._all_leaves() if one.at_gate),
            timers=frozenset(
                one.label for one in self._all_leaves() if one.due is not None and one.end is None
            ),
            begun=tuple(sorted(self.begun.items())),
            selects=self.selects,
        )
        self.epoch += 1
        self._batch += 1
        self._firing = self._together = True
        if leaf.step is None:
            self.time = max(self.time, leaf.due)
            self.play.events.append(replace(event, timer=leaf.label, time=self.time))
            self._outcome(leaf, VALUE)
        else:
            stumbles = self.memory.stumbles.get(leaf.key, 0) < leaf.step["stumbles"]
            down = self.memory.taken[leaf.key] < leaf.step["outage"]
            leaf.verdict = bool(leaf.step["fails"] or stumbles or down)
            self.play.events.append(replace(event, fails=leaf.verdict))

    # Claims and starts.

    def claim(self, leaf):
        """Let a new step or timer have what is saved of it."""
        self.live[leaf.key] = leaf
        self.play.keys[leaf.node, "timer" if leaf.step is None else "step"] = leaf.key
        saved = self.memory.outcomes.get(leaf.key)
        if saved is not None and leaf.key in self.memory.kept:
            saved = None
            if leaf.key not in self._losers:
                self.play.redone = True
                self._gone({leaf.key}, where=leaf.key[:-1])
        if saved is not None:
            leaf.started = leaf.replayed = True
            leaf.end = saved.number, saved.kind
            leaf.value, leaf.output = saved.value, saved.output
            leaf.error = None if saved.error is None else _again(saved.error)
            return
        leaf.waiting = any(not one.fine for one in leaf.upstream)
        self.settle()
        if leaf.waiting and leaf.key not in self._losers:
            for upstream in leaf.upstream:
                upstream.demand()
            self.settle()

    def launch(self, leaf):
        """Start a step, unless it has lost and nobody has asked for it."""
        wanted = leaf.demanded or leaf.key not in self._losers
        if wanted and leaf.end is None and not leaf.waiting and not leaf.started:
            self.start(leaf)

    def start(self, leaf):
        """Start a step beside all others."""
        if not leaf.started:
            leaf.started = True
            self._flows.append((leaf, self.perform(leaf)))

    def arm(self, timer, *, rearm):
        """Let a timer count from now, or to the time that was recorded for it."""
        if timer.started:
            return
        timer.started = True
        recorded = self.memory.armed.get(timer.key)
        since = self.time if rearm or recorded is None else recorded
        timer.due = since + timer.seconds if timer.until is None else timer.until
        self.fact("armed", timer.key, since)

    async def perform(self, leaf, *, here=False):
        """Make attempts until one ends the step."""
        leaf.started = True
        if leaf.key in self.memory.kept:
            self.play.redone = True
            self._gone({leaf.key}, where=("lost",))  # it has decided nothing
        step = leaf.step
        received = interpreter.shaped(step, [one.fresh() for one in leaf.upstream])
        while True:
            fiber = leaf.fiber = Fiber(self, leaf.node, leaf.key, step["asynchronous"], leaf)
            value = error = None
            try:
                value = await interpreter.act(leaf.node, step, received, fiber)
            except Exception as raised:
                error = raised
            passed = self._passed_on(leaf, error)
            unseen = frozenset(one.key for one in passed)
            stumbled = self.memory.stumbles.get(leaf.key, 0)
            before = any(one.replayed for one in passed)
            if error is None or (stumbled >= step["retries"] and not before):
                break
            self.play.redone = self.play.redone or before
            count, taken = 0 if before else stumbled + 1, self.memory.taken[leaf.key]
            stumble = Stumble(count, unseen, taken, before)
            self.fact("stumble", leaf.key, stumble)
            self._unsee(unseen)
            self._firing = self._together = False
            self.play.events[-1] = replace(self.play.events[-1], again=True)
            self._take_out_below(leaf)
        output = "".join(fiber.out)
        kind = VALUE if error is None else ERROR
        here = here and leaf.parent is self.cell
        self._outcome(leaf, kind, value, error, output, seen=here, unseen=unseen)

    def _unsee(self, keys):
        """Note that the last fact took back that errors were seen."""
        last = self.play.facts[-1]
        for fact in self.play.facts[:-1]:
            stumbled = fact.what == "stumble" and fact.key == last.key and last.what == "stumble"
            if (fact.what == "seen" and fact.key in keys) or (stumbled and last.value.concludes):
                self.play.undone.setdefault(id(fact), last)

    def _outcome(
        self,
        leaf,
        kind,
        value=None,
        error=None,
        output="",
        *,
        seen=False,
        cause=0,
        unseen=frozenset(),
    ):
        number = self.memory.number + 1
        leaf.end = number, kind
        leaf.value, leaf.error, leaf.output = value, error, output
        leaf.at_gate = False
        taken = self.memory.taken[leaf.key]
        saved = Saved(kind, number, value, error, output, cause, unseen, taken)
        self.fact("outcome", leaf.key, saved)
        self._unsee(unseen)
        if kind == ERROR and seen:
            self.fact("seen", leaf.key, taken)
        if kind != CANCELLED:
            self.settle()
            self._firing = self._together = False

    # What follows from what ended.

    def settle(self):
        """Pass failures on, start what has its values, decide what can be decided."""
        moved = True
        while moved:
            moved = False
            for one in tuple(self.handles):
                if isinstance(one, Leaf) and one.waiting and not one.halted and one.end is None:
                    moved = self._received(one) or moved
                elif isinstance(one, Select) and one.chosen is None and one.best is not None:
                    self._decide(one)
                    moved = True
                elif isinstance(one, Gather) and one.failed is not None and not one.decided:
                    one.decided = moved = True
                    self._save_failure(one)

    def _received(self, leaf):
        failed = [one for one in leaf.upstream if one.end is not None and not one.fine]
        if failed:
            leaf.source = min(failed, key=lambda one: (one.end[0], one.order))
            leaf.end, leaf.error = leaf.source.end, leaf.source.error
            leaf.started = True
        elif any(one.end is None for one in leaf.upstream):
            return False
        leaf.waiting = False
        self.launch(leaf)
        return True

    def _save_failure(self, gather):
        if gather.key not in self.memory.choices:
            number = gather.end[0]
            by = self._by(number)
            choice = Choice(gather.failed.key, number, frozenset(), gather.where, by)
            with self.together():
                self.fact("choice", gather.key, choice)

    def _decide(self, select):
        select.chosen = select.best
        stored = self.memory.choices.get(select.key)
        if stored is not None:  # the same set again
            select.chosen = next(one for one in select.branches if one.key == stored.winner)
            self.lose(select)
            return
        number = select.end[0]
        losing = select.losing()
        losers = frozenset(leaf.key for leaf in losing)
        with self.together():
            choice = Choice(select.chosen.key, number, losers, select.where, self._by(number))
            self.fact("choice", select.key, choice)
            self.lose(select)
            if select.kind == "race":
                self.cancel([leaf for leaf in losing if leaf.end is None], cause=number)
                self.settle()

    def lose(self, select):
        """Mark what lost."""
        for leaf in select.losing():
            leaf.lost = True

    def _by(self, number):
        """Tell by which outcome something was decided, and how many had been taken out before."""
        by = next(key for key, saved in self.memory.outcomes.items() if saved.number == number)
        return by, self.memory.taken[by]

    def leave(self, key, left, given, fiber):
        """Make losers of what an early exit leaves behind."""
        if self.closing:
            return
        kept = _leaves(given)
        losing = [leaf for leaf in _leaves(left) if leaf not in kept]
        for leaf in losing:
            leaf.lost = True
        if key not in self.memory.choices:
            number = max(one.end[0] for one in given)
            losers = frozenset(leaf.key for leaf in losing)
            self.fact("choice", key, Choice((), number, losers, fiber.key, self._by(number)))

    def cancel(self, leaves, *, cause):
        """End steps and timers as cancelled, and stop what they have started."""
        for leaf in leaves:
            self._outcome(leaf, CANCELLED, error=StepCancelledError(), cause=cause)
            self._halt(leaf)
            leaf.started = True

    def shown_early(self, leaf, fiber):
        """Note that what was shown live when a gather failed has come before its place."""
        under_way = leaf.fiber is not None and bool(leaf.fiber.out)
        if self.schedule.live and (under_way or leaf.output) and leaf not in fiber.delivered:
            self.play.early = True
            self.play.unsure = self.play.unsure or fiber is not self.cell

    def _halt(self, leaf):
        self.play.halted.add(leaf.node)
        if leaf.started and leaf.step is not None:
            # How much it has written by now depends on how far it came.
            self.play.unsure = self.play.unsure or _prints(leaf.step)
        if leaf.started and leaf.step is not None and leaf.fiber is None:
            # Its body may have begun already, or not.
            below = steps_of(leaf.step["body"])
            self.play.bodies += [(self.epoch, node, True) for node in (leaf.node, *below)]
            self.play.ghosts |= {
                leaf.node,
                *(one["id"] for one in walk(leaf.step["body"]) if "id" in one),
            }
        for child in self._all_leaves():
            if child.parent.leaf is leaf and child.end is None:
                child.halted = True
                self._halt(child)

    def saw(self, leaf):
        """An error is about to be seen."""
        self._errors.setdefault(id(leaf.error), (leaf.error, []))[1].append(leaf)
        if leaf.key not in self.memory.seen:
            self.fact("seen", leaf.key, self.memory.taken[leaf.key])

    @contextlib.contextmanager
    def together(self):
        """Save all facts of this block in one transaction, that of the event if it is one's."""
        outer = self._together
        self._batch += not outer
        self._together = True
        yield
        self._together = outer

    def fact(self, what, key, value=None):
        """Save something."""
        self._batch += not self._together
        fact = Fact(what, key, self.epoch, self._batch, self._firing, self.over, value)
        self.play.facts.append(fact)
        self.memory.add(fact)


def _prints(step):
    return step["prints"] or any(
        one["do"] == "print" or (one.get("step") or {}).get("prints") for one in walk(step["body"])
    )


def _again(error):
    if isinstance(error, BaseExceptionGroup):
        return BaseExceptionGroup(error.message, [_again(one) for one in error.exceptions])
    return type(error)(*error.args)


def play(program, memory, schedule, *, asynchronous=False):
    """Return what must happen in an execution of `program` that begins with `memory`.

    `memory` is changed to what is saved in the end.
    """
    return World(program, memory, schedule, asynchronous=asynchronous).run()
