"""What a window shows of a run: rows in a tree, large families as one row, bars on a time axis.

Invariant: JSON, and never more than `ROWS` rows of it, however large the run is; all
words are made here, so that the front end only lays them out. What is told as news
on top of what was told before gives the same as what is told anew.

A row's times are seconds since the execution began.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from nbdurable.labels import duration, left

from .progress import CHOOSERS, GLYPHS, MOVING, State, StepView
from .tree import FOLDED, Family
from .words import (
    COUNTED,
    capped,
    clipped,
    failure,
    heading,
    reached,
    reason,
    remark,
    standing,
    tally,
    title,
    took,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .progress import RunView

ROWS: Final = 300
"""How many rows are shown; what is beyond is counted."""

PICKED: Final = 8
"""How many rows of a folded family are shown: those that a person would look for."""

LOOSE: Final = 8
"""Of more rows side by side, those that a person would not look for are folded, too."""

PAGE: Final = 100
"""How many rows of a family are shown when it is opened, and how many more each time."""

_OPEN: Final = 60
"""In a run of at most so many rows, what ended steps have started is shown unasked."""

_LOOKED_FOR: Final = (State.FAILED, State.RUNNING, State.RETRYING, State.NOT_SAVED)
"""In this order they come first."""

_RANKS: Final = {state: rank for rank, state in enumerate(_LOOKED_FOR)}

_FOLDABLE: Final = frozenset(
    {State.WAITING, State.DONE, State.REPLAYED, State.CANCELLED, State.NOT_STARTED}
)


class Timeline:
    """The rows that one window shows of one run, and what it was told of them.

    ``deaf`` tells the window that the kernel answers nothing while the cell runs.
    ``whole`` is for what nobody can open: up to so many rows of a family are shown one by
    one, and all rows stay in the order in which they were started.
    """

    def __init__(self, view: RunView, *, deaf: bool = False, whole: int = 0) -> None:
        self.view = view
        self.cut = 0
        self._deaf = deaf
        self._folded = whole or FOLDED
        self._whole = bool(whole)
        self._opened: dict[str, int] = {}
        self._closed: set[str] = set()
        self._told: dict[str, dict[str, Any]] = {}
        self._head: dict[str, Any] = {}
        self._seq = 0
        self._items: dict[str, dict[str, Any]] = {}
        self._left = 0.0
        self._now = 0.0

    def open(self, key: str) -> None:
        """Show what is below a row, or more of a family."""
        self._closed.discard(key)
        self._opened[key] = self._opened.get(key, 0) + PAGE

    def close(self, key: str) -> None:
        """Show no longer what is below a row, nor the whole of a family."""
        self._opened.pop(key, None)
        self._closed.add(key)

    def news(self, now: float) -> dict[str, Any]:
        """Return what changed since this was last asked; the first time, everything.

        ``now`` is the time by the clock that stamped the events. ``rows`` are the new
        and the changed ones by their keys; ``order`` are all keys, where they changed;
        ``head`` is given each time; ``seq`` counts the news.
        """
        items = self.items(now)
        rows = {key: item for key, item in items.items() if self._told.get(key) != item}
        order = list(items)
        self._head, self._seq = self._new_head(now), self._seq + 1
        said = {"seq": self._seq, "head": self._head, "rows": rows}
        if order != list(self._told):
            said["order"] = order
        self._told = items
        return said

    def told(self) -> dict[str, Any]:
        """Return all that was told so far, in the form of the first news."""
        return {
            "seq": self._seq,
            "head": self._head,
            "rows": self._told,
            "order": list(self._told),
        }

    def items(self, now: float) -> dict[str, dict[str, Any]]:
        """Return the rows that are shown, in order, by their keys."""
        self._items, self.cut, self._left, self._now = {}, 0, 0.0, now
        self._below(None, 0)
        return self._items

    # --- which rows -------------------------------------------------------------------

    def _below(self, home: int | None, depth: int) -> None:
        units: list[StepView | Family[StepView]] = []
        for family in self.view.tree.families(home):
            self._left = max(self._left, self._seconds_left(family))
            units += [family] if self._is_folded(family) else family.rows.values()
        units.sort(key=lambda unit: unit.first)
        folded: list[StepView] = []
        if len(units) > LOOSE and not self._whole:
            folded = [unit for unit in units if isinstance(unit, StepView) and self._rests(unit)]
            unfolded = set(map(id, units)) - set(map(id, folded))
            units = sorted((unit for unit in units if id(unit) in unfolded), key=_rank)
        for unit in units:
            if isinstance(unit, Family):
                self._put(unit.key, self._of_family(unit, depth))
                self._members(unit, depth + 1)
            else:
                self._of_row(unit, depth)
        if folded:
            self._of_folded(folded, home, depth)

    def _is_folded(self, family: Family[StepView]) -> bool:
        return len(family.rows) >= self._folded

    def _rests(self, row: StepView) -> bool:
        """Tell whether a row waits or has ended, and nothing stands below it."""
        return row.state in _FOLDABLE and row.won is None and not self.view.tree.families(row.place)

    def _of_folded(self, rows: list[StepView], home: int | None, depth: int) -> None:
        """Put rows that nobody looks for behind one that counts them."""
        key = f"{'' if home is None else home}:"
        shown = self._opened.get(key, 0)
        counts = Counter(row.state for row in rows)
        self._put(
            key,
            {
                "kind": "rest",
                "label": _listed(counts),
                "depth": depth,
                "key": key,
                "open": bool(shown),
            },
        )
        for row in rows[:shown]:
            self._of_row(row, depth + 1)
        if shown and (rest := rows[shown:]):
            self._put_more(key, Counter(row.state for row in rest), depth + 1)

    def _put_more(self, key: str, counts: Mapping[State, int], depth: int) -> None:
        said = {"kind": "more", "label": _listed(counts), "depth": depth, "key": key}
        self._put(f"{key}+", said)

    def _of_row(self, row: StepView, depth: int) -> None:
        families = self.view.tree.families(row.place)
        if row.branches and len(families) == 1 and self._is_folded(families[0]):
            # The combinator stands for them all: no second row for the family.
            self._left = max(self._left, self._seconds_left(families[0]))
            item = self._item(row, depth) | self._counts(families[0])
            item["label"] = _times(families[0])
            if not _is_map_of(row, families[0]):
                item["label"] = f"{heading(row)}: {item['label']}"
            self._put(str(row.place), item)
            self._members(families[0], depth + 1)
            return
        item = self._item(row, depth)
        if families:
            if len(families) == 1 and _is_map_of(row, families[0]):
                item["label"] = _times(families[0])
            item["key"], item["open"] = str(row.place), self._is_open(row)
        self._put(str(row.place), item)
        if families and item["open"]:
            self._below(row.place, depth + 1)

    def _members(self, family: Family[StepView], depth: int) -> None:
        count = self._opened.get(family.key, 0)
        rows = list(islice(family.rows.values(), count)) if count else self._picked(family)
        for row in rows:
            self._of_row(row, depth)
        if rows and len(family.rows) > len(rows):
            counts = Counter({state: family.count(state) for state in State})
            counts.subtract(row.state for row in rows)
            self._put_more(family.key, counts, depth)

    def _picked(self, family: Family[StepView]) -> list[StepView]:
        """Choose what a person would look for: what won, what failed, what moves."""
        picked: dict[int, StepView] = {}
        if family.home is not None:
            for place in self.view.steps[family.home].winners[:PICKED]:
                if place in family.rows and self.view.steps[family.home].kind in CHOOSERS:
                    picked[place] = family.rows[place]
        failed = reversed(family.by_state.get(State.FAILED, {}).values())
        picked.update((row.place, row) for row in islice(failed, PICKED // 2))
        for state in (*_LOOKED_FOR[1:], State.FAILED):
            rows = family.by_state.get(state, {}).values()
            for row in islice(rows, max(0, PICKED - len(picked))):
                picked[row.place] = row
        ranked = sorted(picked.values(), key=lambda row: row.place)
        return ranked if self._whole else sorted(ranked, key=_rank)

    def _is_open(self, row: StepView) -> bool:
        key = str(row.place)
        if key in self._opened or key in self._closed:
            return key in self._opened
        return bool(row.branches) or row.state in MOVING or len(self.view.steps) <= _OPEN

    def _put(self, key: str, item: dict[str, Any]) -> None:
        if len(self._items) < ROWS:
            self._items[key] = item
        else:
            self.cut += 1

    # --- what of each -----------------------------------------------------------------

    def _new_head(self, now: float) -> dict[str, Any]:
        view = self.view
        return {
            "name": view.name,
            "execution": view.execution,
            "status": str(view.status or "not started"),
            "live": view.live,
            "said": tally(view),
            "counts": [
                [str(state), number, COUNTED[state]]
                for state in COUNTED
                if (number := view.counts[state])
            ],
            # Where nothing ran, what was saved is all that there is to see.
            "span": 0.0 if view.ran else round(view.longest_saved, 3),
            "spared": duration(view.seconds_saved) if view.seconds_saved else "",
            "left": left(self._left) if self._left else "",
            "now": now,
            "started": view.started,
            "elapsed": view.elapsed(now),
            "notes": capped([clipped(note) for note in view.notes], "notes"),
            "total": len(view.steps),
            "cut": self.cut,
        } | ({"deaf": True} if self._deaf else {})

    def _of_family(self, family: Family[StepView], depth: int) -> dict[str, Any]:
        return {
            "kind": "family",
            "label": _times(family),
            "depth": depth,
        } | self._counts(family)

    def _counts(self, family: Family[StepView]) -> dict[str, Any]:
        """Return what there is to say of many rows at once, and how long they may still take."""
        counts = [(state, family.count(state)) for state in COUNTED]
        said: dict[str, Any] = {
            "key": family.key,
            "open": family.key in self._opened,
            "counts": [[str(state), number] for state, number in counts if number],
            "remark": ", ".join(
                f"{number:,} {COUNTED[state]}" for state, number in counts if number
            ),
        }
        if seconds := self._seconds_left(family):
            said["left"] = left(seconds)
        if family.began is not None and self.view.started is not None:
            moving = any(family.count(state) for state in MOVING) and self.view.live
            end = None if moving else self._since_start(family.ended)
            said["bars"] = [[self._since_start(family.began), end, "family"]]
        return said

    def _seconds_left(self, family: Family[StepView]) -> float:
        """Judge by those that ran: how long they took, all together, and how many are to come."""
        to_come = sum(family.count(state) for state in (*MOVING, State.WAITING))
        if not self.view.live or family.began is None or family.ran < 3 or not to_come:  # noqa: PLR2004
            return 0.0
        took_so_far = self._now - family.began
        return took_so_far / family.ran * to_come if took_so_far > 2 else 0.0  # noqa: PLR2004

    def _item(self, row: StepView, depth: int) -> dict[str, Any]:
        view = self.view
        said: dict[str, Any] = {
            "place": row.place,
            "kind": row.kind,
            "label": heading(row),
            "state": str(row.state),
            "word": standing(row),
            "glyph": GLYPHS[row.state],
            "depth": depth,
            "attempts": row.attempts if row.attempts > 1 else 0,
            "remark": remark(row),
            "error": failure(row),
            "reached": reached(row),
            "why": reason(row),
            "won": row.won is not None,
            "lost": row.won is None and row.lost is not None,
            "deaths": row.deaths if row.deaths > 1 else 0,
            "chosen": self._chosen(row),
            "inputs": list(row.inputs),
            "bars": self._bars(row),
        }
        if row.state in MOVING and view.live:
            # A clock that counts all attempts, and stands still between two.
            said["since"] = (row.began or view.started or 0.0) - row.spent
            said["again"] = row.again
            if row.state is State.RETRYING:
                said["time"] = duration(row.spent)
            if seconds := self._own_left(row):
                self._left = max(self._left, seconds)
                said["left"] = left(seconds)
                said["part"] = round(row.part, 3)
        else:
            said["time"] = took(row)
        if said["word"] == said["state"]:
            del said["word"]
        told = {key: value for key, value in said.items() if value}
        return told | {"place": row.place, "depth": depth}

    def _own_left(self, row: StepView) -> float:
        """Judge by how far the row said that it is."""
        if row.state is not State.RUNNING or not 0 < row.part < 1 or row.began is None:
            return 0.0
        ran = self._now - row.began
        return ran / row.part - ran if ran > 2 else 0.0  # noqa: PLR2004

    def _chosen(self, row: StepView) -> str:
        """Say whom a combinator chose, where it chose."""
        if row.kind not in CHOOSERS or not row.winners:
            return ""
        winner = self.view.steps.get(row.winners[-1])
        return "" if winner is None else clipped(title(winner))

    def _bars(self, row: StepView) -> list[list[Any]]:
        """Return the attempts; what a combinator or a timer took is one."""
        if row.replayed and row.began is None and row.kind == "step":
            # What was saved is seen: as long as it was, from where it came back.
            begin = self._since_start(row.ended or row.created)
            seconds = round(row.seconds or 0.0, 3) if row.attempts else 0.0
            return [[begin, round(begin + seconds, 3), "replayed"]] if seconds else []
        spans = row.spans
        if row.combinator and not row.replayed:
            spans = ((row.created, row.ended or 0.0),)
        bars: list[list[Any]] = []
        for begin, end in spans:
            last = begin == spans[-1][0]
            how = str(row.state) if last and row.state is not State.RETRYING else "failed"
            if not end and not self.view.live:
                end = self.view.ended or begin  # noqa: PLW2901 - nothing goes on after the end
            bars.append([self._since_start(begin), self._since_start(end) if end else None, how])
        return bars

    def _since_start(self, at: float) -> float:
        return round(at - (self.view.started or 0.0), 3)


def _rank(unit: StepView | Family[StepView]) -> int:
    """Return where a row or family stands among others: what failed and what moves is first."""
    if isinstance(unit, Family):
        ranks = [_RANKS[state] for state in _LOOKED_FOR if unit.count(state)]
        return min(ranks, default=len(_RANKS))
    return _RANKS.get(unit.state, len(_RANKS))


def _is_map_of(row: StepView, family: Family[StepView]) -> bool:
    """Tell whether a row only stands for a family: a gather of all of it, without a name."""
    return row.name == row.kind == "gather" and len(row.branches) == len(family.rows)


def _listed(counts: Mapping[State, int]) -> str:
    """Count rows by their states: ``14 done, 3 waiting``."""
    return ", ".join(f"{counts[state]:,} {state}" for state in COUNTED if counts.get(state))


def _times(family: Family[StepView]) -> str:
    return f"{family.name} \N{MULTIPLICATION SIGN} {len(family.rows):,}"
