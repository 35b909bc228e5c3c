"""The demonstration: the quickstart's kernel is killed in mid-cell, and the notebook run again.

Nothing is staged. A real kernel runs the shipped notebook and is killed when what
it publishes, like to any front end, says that enough has finished and enough is in
flight; a second kernel runs the same notebook; what happened is read from the store
and from the file in which each body leaves a line.

Invariant: a `Story` is given only if it is true. What is not as promised raises
`DemoError`, which says what was seen.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from nbdurable.api import open_stores
from nbdurable.errors import DurableError
from nbdurable.headless.kernels import OwnKernels, process_of
from nbdurable.inspection import queries as questions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NOTEBOOK: Final = "quickstart.ipynb"
FOLDER: Final = "nbdurable-demo"

FINISHED: Final = 2
"""How many steps have finished when the kernel is killed."""

IN_FLIGHT: Final = 2
"""How many are in flight then."""

_CALLS: Final = "calls.log"
_KERNEL_LOG: Final = "kernel.log"
_CELL_TIMEOUT: Final = 120

_STEPS: Final = """
    SELECT label, status, COALESCE(seconds, 0.0) AS seconds, execution
    FROM steps WHERE workflow = 'quotes' ORDER BY number NULLS LAST, label"""
_DECISIONS: Final = "SELECT DISTINCT label, winner FROM decisions WHERE workflow = 'quotes'"

# A kernel that dies is no news here.
_SILENT: Final = logging.getLogger("nbdurable.demo")
_SILENT.disabled = True


class DemoError(Exception):
    """The demonstration could not run, or did not show what it promises."""


@dataclass(frozen=True, slots=True)
class StepStory:
    """One step over both kernels.

    ``before`` is where the death found it: ``finished``, ``in flight`` or ``not
    started``. ``seconds`` is how long the body took whose result counts, and
    ``bodies`` how often one was started over all.
    """

    label: str
    before: str
    replayed: bool
    seconds: float
    bodies: int


@dataclass(frozen=True, slots=True)
class Story:
    """What happened: the steps, the select's winner, the seconds of the two passes."""

    notebook: Path
    steps: tuple[StepStory, ...]
    winner: str
    first_seconds: float
    second_seconds: float

    @property
    def replayed(self) -> tuple[StepStory, ...]:
        """The steps whose bodies did not run again."""
        return tuple(step for step in self.steps if step.replayed)

    @property
    def ran(self) -> tuple[StepStory, ...]:
        """The steps that the second kernel ran."""
        return tuple(step for step in self.steps if not step.replayed)

    @property
    def seconds_spared(self) -> float:
        """How many seconds of work were replayed instead of done again."""
        return sum(step.seconds for step in self.replayed)


def prepare(folder: Path | None = None, name: str = NOTEBOOK) -> Path:
    """Copy a shipped notebook into a fresh folder and give the copy's path.

    Args:
        folder: Where to; it may exist if it is empty. By default `FOLDER` in the
            working directory, with a number where that exists.
        name: Which notebook.

    Raises:
        DemoError: The folder holds something, or can't be written.
    """
    chosen = folder or Path(FOLDER)
    try:
        chosen = chosen.absolute() if folder else _free(chosen.absolute())
        chosen.mkdir(parents=True, exist_ok=True)
        if any(chosen.iterdir()):
            raise DemoError(f"{chosen} is not empty: name a fresh folder with --folder")
        shutil.copyfile(_shipped(name), chosen / name)
        (chosen / ".gitignore").write_text("*\n", encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise DemoError(
            f"{chosen} can't be written ({reason}): name another folder with --folder"
        ) from error
    return chosen / name


def play(notebook: Path, tell: Callable[[str], None]) -> Story:
    """Run the notebook, kill its kernel in mid-cell, run it again, and give what happened.

    Args:
        notebook: A copy made by `prepare`.
        tell: Called with a line for each thing as it happens.

    Raises:
        DemoError: A kernel did not start or end as it should, or what was seen is
            not what nbdurable promises.
    """
    store = notebook.parent / ".nbdurable" / f"{notebook.stem}.duckdb"
    first = _Pass(notebook, tell, kill=True)
    first.run()
    try:
        steps, decisions = _rows(_STEPS, store), _rows(_DECISIONS, store)
        open_stores.close_stores()
        second = _Pass(notebook, tell, kill=False)
        second.run()
        story = Story(
            notebook=notebook,
            steps=_compare(steps, _rows(_STEPS, store), _calls(notebook.parent)),
            winner=_winner(decisions, _rows(_DECISIONS, store)),
            first_seconds=first.seconds,
            second_seconds=second.seconds,
        )
    except DurableError as error:
        raise DemoError(f"the store does not answer: {error}") from error
    finally:
        open_stores.close_stores()
    _check_bodies(story)
    _check_output(notebook, second.outputs)
    return story


# --- One pass of the notebook ----------------------------------------------------------


class _Client(NotebookClient):
    """An nbclient that lets its owner see each message as it comes."""

    def __init__(
        self, notebook: nbformat.NotebookNode, watch: Callable[[Mapping[str, Any]], None]
    ) -> None:
        super().__init__(
            notebook,
            kernel_manager_class=OwnKernels,
            kernel_name="python3",
            timeout=_CELL_TIMEOUT,
            store_widget_state=False,
            log=_SILENT,
        )
        self._watch = watch

    @property
    def pid(self) -> int:
        """The kernel's process."""
        return int(process_of(self.km).pid)

    def process_message(
        self, msg: dict[str, Any], cell: nbformat.NotebookNode, cell_index: int
    ) -> nbformat.NotebookNode | None:
        """Take a message in as any nbclient does, then show it."""
        made = super().process_message(msg, cell, cell_index)
        self._watch(msg)
        return made

    async def async_start_new_kernel(self, **kwargs: Any) -> None:
        """Start the kernel as any nbclient does, but take its signal handlers back before.

        They would end a Ctrl-C in an error from inside nbclient. Without them it is a
        KeyboardInterrupt at once, and the kernel is shut down at the interpreter's end;
        should this process be killed, the kernel notices and ends.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        await super().async_start_new_kernel(**kwargs)


class _Pass:
    """One kernel's pass over the notebook, told step by step, killed where asked for."""

    def __init__(self, notebook: Path, tell: Callable[[str], None], *, kill: bool) -> None:
        self.seconds = 0.0
        self.outputs: list[list[str]] = []
        self._path = notebook
        self._tell = tell
        self._kill = kill
        self._killed = False
        self._states: dict[str, str] = {}
        self._client = _Client(_read(notebook), self._see)

    def run(self) -> None:
        """Execute every cell, to the end or to the kernel's death.

        Raises:
            DemoError: The kernel or a cell ended otherwise.
        """
        begun = time.perf_counter()
        log = self._path.parent / _KERNEL_LOG
        client = self._client
        client.on_notebook_start = self._started
        try:
            with log.open("ab") as stderr:
                client.execute(cwd=str(self._path.parent), env=self._environment(), stderr=stderr)
        except KeyboardInterrupt:
            # The kernel ends, too. What nbclient leaves behind may see that, and asyncio would
            # say at the interpreter's end that nobody has asked for it.
            logging.getLogger("asyncio").disabled = True
            raise
        except DeadKernelError:
            if not self._killed:
                raise DemoError(f"the kernel died by itself; its log is {log}") from None
        except CellExecutionError as error:
            raise DemoError(f"a cell failed with {error.ename}: {error.evalue}") from None
        except (OSError, RuntimeError) as error:
            raise DemoError(f"no kernel could be run ({error}); its log is {log}") from error
        self.seconds = time.perf_counter() - begun
        if self._kill and not self._killed:
            raise DemoError(
                f"the notebook ended before {FINISHED} steps had finished with {IN_FLIGHT} in "
                f"flight: is this machine very busy? Run the demo again"
            )
        self.outputs = _outputs(client.nb)

    def _started(self, **_: object) -> None:
        again = "" if self._kill else " again, from the top"
        self._tell(f"kernel {self._client.pid} runs {NOTEBOOK}{again}")

    def _environment(self) -> dict[str, str]:
        """Return the kernel the environment that JupyterLab would give it for this notebook."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name != "NBDURABLE_STORE" and not name.startswith("JPY_")
        }
        return kept | {"JPY_SESSION_NAME": str(self._path)}

    def _see(self, message: Mapping[str, Any]) -> None:
        """Tell what the live view's state says is new, and kill when it is time.

        A step is "done" there only after its checkpoint is committed.
        """
        for row in _view_rows(message):
            label, state = row.get("label", ""), row.get("state", "")
            if row.get("kind") == "step" and self._states.get(label) != state:
                self._states[label] = state
                self._tell(f"  {label} {_TOLD.get(state, state)}")
        if not self._kill or self._killed:
            return
        states = list(self._states.values())
        if states.count("done") >= FINISHED and states.count("running") >= IN_FLIGHT:
            self._killed = True
            os.kill(self._client.pid, signal.SIGKILL)
            self._tell(f"kill -9 {self._client.pid}, in the middle of the cell")


_TOLD: Final = {
    "running": "is running",
    "done": "has finished, and is saved",
    "replayed": "is replayed",
    "not started": "need not start",
}


def _view_rows(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the live view that a message brings; none from any other message."""
    if message["msg_type"] not in {"comm_open", "comm_msg"}:
        return []
    data = message["content"].get("data", {})
    told = data.get("state", {}).get("state") or data.get("content", {}).get("news") or {}
    rows: dict[str, dict[str, Any]] = told.get("rows", {})
    return [rows[key] for key in told.get("order", rows) if key in rows]


def _read(path: Path) -> nbformat.NotebookNode:
    untyped: Any = nbformat.read
    notebook: nbformat.NotebookNode = untyped(path, as_version=4)
    return notebook


def _outputs(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """Return what each code cell shows but the first, which loads the extension.

    All that a cell printed counts as one text: where the live view stood between
    two lines differs from pass to pass, and a saved notebook has none.
    """
    return [
        [
            "".join(output.get("text", "") for output in cell.outputs),
            *(
                output.data["text/plain"]
                for output in cell.outputs
                if "text/plain" in output.get("data", ())
            ),
        ]
        for cell in [cell for cell in notebook.cells if cell.cell_type == "code"][1:]
    ]


# --- What was seen ---------------------------------------------------------------------


def _compare(
    before: list[dict[str, Any]], after: list[dict[str, Any]], calls: Mapping[str, int]
) -> tuple[StepStory, ...]:
    """Put what the store said after the death beside what it says at the end.

    Raises:
        DemoError: The death found too little, or the second pass left something open.
    """
    found = {row["label"]: row for row in before}
    stories = []
    for row in after:
        label = row["label"]
        if row["status"] != "finished":
            raise DemoError(f"{label} is {row['status']} after the second pass")
        earlier = found.get(label)
        stories.append(
            StepStory(
                label=label,
                before=earlier["status"] if earlier else "not started",
                replayed=earlier is not None and earlier["execution"] == row["execution"],
                seconds=row["seconds"],
                bodies=sum(count for source, count in calls.items() if repr(source) in label),
            )
        )
    for word, least in (("finished", FINISHED), ("in flight", IN_FLIGHT)):
        if sum(story.before == word for story in stories) < least:
            raise DemoError(f"fewer than {least} steps were {word} at the kill; run the demo again")
    return tuple(stories)


def _check_bodies(story: Story) -> None:
    """Hold the promise: what had finished is replayed, its body ran once; else at most twice."""
    for step in story.steps:
        finished = step.before == "finished"
        if step.replayed != finished:
            then = "was replayed" if step.replayed else "ran again"
            raise DemoError(f"{step.label} was {step.before} at the kill and yet {then}")
        most = 1 if finished else 2
        if not 1 <= step.bodies <= most:
            raise DemoError(f"the body of {step.label} ran {step.bodies} times, not {most}")


def _winner(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str:
    """Return the select's winner, the same before the death and after.

    Raises:
        DemoError: It was not decided, or is another now.
    """
    if not before:
        raise DemoError("the select was not decided before the kill")
    winners = [str(row["winner"]) for row in before]
    if any(row not in after for row in before):
        now = ", ".join(str(row["winner"]) for row in after)
        raise DemoError(f"the select was won by {winners[0]} before the kill, and by {now} after")
    return winners[0]


def _check_output(notebook: Path, outputs: list[list[str]]) -> None:
    """Hold the promise: the output is that of an uninterrupted run, which the notebook ships."""
    for seen, saved in zip(outputs, _outputs(_read(notebook)), strict=True):
        if seen != saved:
            raise DemoError(f"a cell shows {seen} where an uninterrupted run shows {saved}")


def _calls(folder: Path) -> dict[str, int]:
    """Count the lines that the bodies left, by source."""
    lines = (folder / _CALLS).read_text(encoding="utf-8").split()
    return {line: lines.count(line) for line in lines}


def _rows(sql: str, store: Path) -> list[dict[str, Any]]:
    try:
        found = questions.query(sql, store)
    except RuntimeError as error:
        if "interrupted" in str(error):  # how DuckDB passes on a Ctrl-C
            raise KeyboardInterrupt from error
        raise
    rows: list[dict[str, Any]] = found if isinstance(found, list) else found.to_dict("records")
    return rows


# --- Places ----------------------------------------------------------------------------


def _shipped(name: str) -> Path:
    """Return a notebook that ships with the package, or lies beside it in a checkout."""
    package = Path(__file__).parents[1]
    found = [package / "notebooks" / name]
    found += [package.parent / "notebooks" / name, package.parent / "notebooks" / "demo" / name]
    return next((path for path in found if path.is_file()), found[0])


def _free(folder: Path) -> Path:
    """Return `folder`, or the first of its name with a number that doesn't exist."""
    chosen, number = folder, 1
    while chosen.exists():
        number += 1
        chosen = folder.with_name(f"{folder.name}-{number}")
    return chosen
