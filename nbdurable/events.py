"""What is told of an execution as it happens: one record for each kind of event.

``step`` is the index of a handle in `go` order within one execution, from 0: it names a row
of the view and nothing else. Combinators and timers are counted in the same sequence.

Invariant: an outcome is told after it is on disk (how far a body says that it is may come
before), and nobody answers an event or changes one. They are not frozen dataclasses, which
take three times as long to make: an execution makes three for each step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .records import Kind, RunStatus, Why

Fact = tuple[str, str, bool]
"""What a person is told of a step: a term, what there is to say, whether in a block of lines."""


@dataclass(slots=True)
class RunStarted:
    """An execution began; ``saved`` outcomes of the run are at hand."""

    name: str
    run: str
    execution: int
    saved: int
    at: float


@dataclass(slots=True)
class StepCreated:
    """A step, timer or combinator has a handle.

    ``kind`` is ``step``, ``timer``, or the combinator's name; ``branches`` are
    the places of a combinator's branches (empty for a step); ``parent`` is the
    place of the step whose body started this one; ``inputs`` are the places of the
    handles among a step's arguments.
    """

    step: int
    kind: str
    name: str
    label: str
    at: float
    parent: int | None = None
    branches: tuple[int, ...] = ()
    inputs: tuple[int, ...] = ()


@dataclass(slots=True)
class StepReplayed:
    """The outcome came from the store; ``seconds`` is what it took when it ran.

    ``error`` and ``where`` are those of an error, as in `StepFinished`.
    """

    step: int
    kind: Kind
    number: int
    seconds: float
    attempts: int
    at: float
    error: str = ""
    where: str = ""


@dataclass(slots=True)
class StepDeferred:
    """A decided select's loser without a checkpoint: not started until asked for."""

    step: int
    at: float


@dataclass(slots=True)
class AttemptStarted:
    """A body is about to run; ``reason`` adds the detail to ``why``.

    ``deaths`` counts the kernel's deaths that the step was in flight at.
    """

    step: int
    attempt: int
    why: Why
    reason: str
    at: float
    deaths: int = 0


@dataclass(slots=True)
class StepProgressed:
    """A body said how far it is: ``done`` of ``total``, which is 0 where it said none."""

    step: int
    done: float
    total: float
    at: float


@dataclass(slots=True)
class AttemptFailed:
    """An attempt raised and the policy grants another after ``wait`` seconds."""

    step: int
    attempt: int
    error: str
    wait: float
    at: float


@dataclass(slots=True)
class StepFinished:
    """The outcome is committed (or, with ``saved`` false, handed over unsaved).

    ``error`` is an error in one line, ``where`` the user's line that it happened at.
    """

    step: int
    kind: Kind
    number: int
    seconds: float
    saved: bool
    error: str
    at: float
    where: str = ""


@dataclass(slots=True)
class Decided:
    """A combinator's outcome is committed; ``winner`` is the place of the winning branch.

    ``winner`` is None for a gather. ``replayed`` marks a decision from the store.
    """

    step: int
    winner: int | None
    kind: Kind
    number: int
    replayed: bool
    at: float


class LetGo(StrEnum):
    """What became of a step that had not ended when its execution did."""

    LET_GO = "let go"
    CANCELLED = "cancelled"
    STILL_RUNNING = "still running"


@dataclass(slots=True)
class StepLetGo:
    """The execution ended before this step did; ``reason`` says what became of it."""

    step: int
    reason: str
    at: float


@dataclass(slots=True)
class Noticed:
    """A line for the person at the screen, said while the run goes on."""

    text: str
    at: float


@dataclass(slots=True)
class RunFinished:
    """The execution ended; ``notes`` are lines for the person at the screen."""

    status: RunStatus
    at: float
    notes: tuple[str, ...] = field(default=())


Event = (
    RunStarted
    | StepCreated
    | StepReplayed
    | StepDeferred
    | AttemptStarted
    | StepProgressed
    | AttemptFailed
    | StepFinished
    | Decided
    | StepLetGo
    | Noticed
    | RunFinished
)
