"""Edits as rows of a table: a program with marks in it, run before and after.

A row's text is a script. ``«old|new»`` marks what is edited: the program before has
all the left sides, the program after all the right ones. Lines that begin with
``>>>`` are the workflow's body; what they give is shown, and compared. A line
``--- path`` begins a further file of the project's folder. In a row of a notebook,
``# %%`` separates cells, and the lines with ``>>>`` are the durable cell.
"""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.always_replay import Zygote

if TYPE_CHECKING:
    from collections.abc import Callable

STAGE = Path(__file__).with_name("stage.py")
GROUP = 40
"""How many rows share a process, one after the other, and a store."""

_MARK = re.compile("«([^«»]*?)¦([^«»]*?)»|«([^«»|]*?)\\|([^«»]*?)»")
_HEAD = "import stage\nfrom nbdurable import gather, go, select, step\n"


@dataclass(frozen=True)
class Row:
    """One edit.

    Args:
        name: What the edit is.
        text: The program, with its marks.
        runs: How many bodies must run after the edit; None for "at least one".
        told: Whether a line on every pass is as good as running again.
        refused: Whether an error that names ``list(...)`` is as good.
        alone: Whether it needs a process of its own, for it changes a library.
        notebook: Whether it is run as cells of a shell.
    """

    name: str
    text: str
    runs: int | None = None
    told: bool = False
    refused: bool = False
    alone: bool = False
    notebook: bool = False

    def files(self, side: int) -> dict[str, str]:
        """Return the project's files before (0) and after (1) the edit."""
        text = _MARK.sub(lambda found: _side(found, side), self.text.strip("\n") + "\n")
        first, *others = re.split(r"^--- (?=\S)", text, flags=re.MULTILINE)
        files = {"prog.py": self._program(first)}
        for other in others:
            path, _, content = other.partition("\n")
            files[path.strip()] = content
        return files

    def _program(self, text: str) -> str:
        lines = text.splitlines()
        body = [line[4:] for line in lines if line.startswith(">>>")]
        rest = "\n".join(line for line in lines if not line.startswith(">>>"))
        shown = [_shown(line, "show" if self.notebook else "stage.show") for line in body]
        if self.notebook:
            return f"{_HEAD}\n{rest}\n# %%\n" + "\n".join(shown) + "\n"
        # Indented by a tab for each line: a body's line may be a block's head.
        inside = "\n".join(f"    {line}" for line in shown)
        return f"{_HEAD}\n{rest}\nwith stage.workflow() as flow:\n{inside}\n"


def _side(found: re.Match[str], side: int) -> str:
    parts = [part for part in found.groups() if part is not None]
    return parts[side]


def _shown(line: str, show: str) -> str:
    try:
        ast.parse(line.strip(), mode="eval")
    except SyntaxError:
        return line
    indent = line[: len(line) - len(line.lstrip())]
    return f"{indent}{show}({line.strip()})"


@dataclass
class Seen:
    """What one pass of a row did."""

    shown: list[str] = field(default_factory=list)
    ran: list[list[str]] = field(default_factory=list)
    unsaved: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: str | None = None


@dataclass
class Story:
    """The passes of one row."""

    row: Row
    passes: dict[str, Seen] = field(default_factory=dict)

    def sound(self) -> str:
        """Return what is wrong before anything was edited, or nothing."""
        first, again = self.passes["first"], self.passes["unchanged"]
        if self.row.refused and "list(" in (first.error or ""):
            return ""
        if first.error or again.error:
            return f"the program fails: {first.error or again.error}"
        if first.unsaved:
            return f"not saved: {first.unsaved}, {first.notes}"
        if not first.ran:
            return "no body ran"
        if again.ran:
            return f"an unchanged program ran again: {again.ran}"
        if again.shown != first.shown:
            return f"an unchanged program gave {again.shown}, not {first.shown}"
        return ""

    def noticed(self) -> str:
        """Return what is wrong with how an edit that matters was taken, or nothing."""
        if wrong := self.sound():
            return wrong
        edited, fresh = self.passes["edited"], self.passes["fresh"]
        if self.row.refused and "list(" in (edited.error or ""):
            return ""
        if edited.error or fresh.error:
            return f"the edited program fails: {edited.error or fresh.error}"
        if self.row.told and not edited.ran:
            later = self.passes["later"]
            if _new_notes(self, edited) and _new_notes(self, later):
                return ""
        if not edited.ran:
            return f"replayed in silence: {edited.shown}, want {fresh.shown}; {edited.notes}"
        if self.row.runs is not None and len(edited.ran) != self.row.runs:
            return f"ran {edited.ran}, want {self.row.runs} bodies to run"
        if edited.shown != fresh.shown:
            return f"ran in part: {edited.shown}, want {fresh.shown}; ran {edited.ran}"
        return ""

    def harmless(self) -> str:
        """Return what is wrong with how an edit that can't matter was taken, or nothing."""
        if wrong := self.sound():
            return wrong
        edited, fresh = self.passes["edited"], self.passes["fresh"]
        if edited.error or fresh.error:
            return f"the edited program fails: {edited.error or fresh.error}"
        if edited.ran:
            return f"ran again: {edited.ran}"
        if edited.shown != fresh.shown:
            return f"the edit matters: {edited.shown}, fresh {fresh.shown}"
        return ""


def _new_notes(story: Story, seen: Seen) -> list[str]:
    return [note for note in seen.notes if note not in story.passes["unchanged"].notes]


class Stages:
    """Two processes with different hash seeds, which fork for each pass."""

    def __init__(self) -> None:
        self._pair = [Zygote(seed, STAGE) for seed in (1, 2)]
        self._requests = itertools.count()

    def close(self) -> None:
        """End the processes."""
        for zygote in self._pair:
            zygote.close()

    def tell(self, rows: list[Row], folder: Path) -> list[Story]:
        """Run a group of rows through all passes and return their stories."""
        stories = [Story(row) for row in rows]
        store, other = folder / "store.duckdb", folder / "fresh.duckdb"
        for name, seed, side, where in (
            ("first", 0, 0, store),
            ("unchanged", 1, 0, store),
            ("edited", 1, 1, store),
            ("later", 0, 1, store),
            ("fresh", 0, 1, other),
        ):
            if name == "later" and not any(row.told for row in rows):
                continue
            self._pass(stories, name, seed, side, where)
        return stories

    def _pass(self, stories: list[Story], name: str, seed: int, side: int, store: Path) -> None:
        requested = []
        for number, story in enumerate(stories):
            folder = store.parent / f"row{number}"
            _write(folder, story.row.files(side), anew=name in {"first", "edited"})
            requested.append(
                {"name": f"w{number}", "folder": str(folder), "notebook": story.row.notebook}
            )
        report = store.parent / f"report{next(self._requests)}.json"
        code = self._pair[seed].run({"rows": requested, "store": str(store), "report": str(report)})
        found: dict[str, Any] = json.loads(report.read_text()) if code == 0 else {}
        for number, story in enumerate(stories):
            died = {"error": f"the process ended with {code}"}
            seen = found.get(f"w{number}", died)
            story.passes[name] = Seen(**{k: seen[k] for k in seen if k in Seen.__annotations__})


def _write(folder: Path, files: dict[str, str], *, anew: bool) -> None:
    if not anew:
        return
    for path, content in files.items():
        where = folder / path
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(content)


def chosen(rows: list[Row]) -> list[Row]:
    """Return the rows that a test run looks at: every eighth one, unless all are asked for."""
    return rows if os.environ.get("NBDURABLE_EDITS") == "all" else rows[::8]


class Library:
    """The stories of a test run's rows: a group of rows is run when the first is asked for."""

    def __init__(self, rows: list[Row], make_folder: Callable[[], Path]) -> None:
        self._groups = {id(row): group for group in grouped(rows) for row in group}
        self._make_folder = make_folder
        self._stories: dict[int, Story] = {}
        self._stages = Stages()

    def close(self) -> None:
        """End the processes."""
        self._stages.close()

    def story(self, row: Row) -> Story:
        """Return what became of a row."""
        if id(row) not in self._stories:
            group = self._groups[id(row)]
            for story in self._stages.tell(group, self._make_folder()):
                self._stories[id(story.row)] = story
        return self._stories[id(row)]


def grouped(rows: list[Row]) -> list[list[Row]]:
    """Return rows in groups that may share a process."""
    shared = [row for row in rows if not row.alone and not row.notebook]
    cells = [row for row in rows if row.notebook and not row.alone]
    groups = [
        kind[at : at + GROUP] for kind in (shared, cells) for at in range(0, len(kind), GROUP)
    ]
    return groups + [[row] for row in rows if row.alone]
