"""Real projects, copied into a project's folder under another name, and edited there.

Nothing of their source is kept: the copy is made of what is installed, for one test,
and begins with other imports of itself only.
"""

from __future__ import annotations

import collections
import compileall
import importlib.util
import json
import os
import random
import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fingerprint_kit.mutation import Mutant, compiles, mutants_of

if TYPE_CHECKING:
    from support.always_replay import Zygote

RICH = """
from copied._ratio import ratio_distribute, ratio_reduce
from copied._wrap import divide_line
from copied.cells import cell_len, chop_cells, set_cell_size
from copied.filesize import decimal

@step
def wrapped(text, width):
    return divide_line(text, width), chop_cells(text, width), set_cell_size(text, width)

@step
def shared(total, ratios):
    return ratio_distribute(total, ratios), ratio_reduce(total, ratios, [5, 5, 5], [9, 9, 9])

@step
def sizes(numbers):
    return [decimal(one, precision=1) for one in numbers], cell_len("一二 words")
---
wrapped("a long line of words that has to be broken, and unbreakableness", 12)
shared(17, [1, 2, 4])
sizes([1, 1_000, 1_500_000])
"""

MARKDOWN = r"""
from copied import MarkdownIt

@step
def plain(text):
    return MarkdownIt("commonmark").render(text)

@step
def tables(text):
    return MarkdownIt("commonmark").enable("table").render(text)
---
plain("# Title\n\nSome *text* with `code`, a [link](http://a.b 'c') & more.\n\n- one\n- two\n\n> said\n")
tables("| a | b |\n|---|:-:|\n| 1 | 2 |\n\n    indented\n\n1. first\n\n<b>raw</b>\n")
"""

CLICK = """
from copied.core import Argument, Command, Option
from copied.formatting import HelpFormatter
from copied.types import Choice, IntRange

@step
def helped(width):
    out = HelpFormatter(width=width)
    out.write_usage("prog", "[OPTIONS] FILE")
    with out.section("Options"):
        out.write_dl([("--count N", "How many of them there are to be."), ("--help", "Say this.")])
    return out.getvalue()

@step
def parsed(words):
    params = [
        Option(["--count"], type=IntRange(0, 5), default=1),
        Option(["--color"], type=Choice(["red", "blue"])),
        Option(["--quiet"], is_flag=True),
        Argument(["file"]),
    ]
    context = Command("prog", params=params).make_context("prog", list(words))
    return sorted(context.params.items())
---
helped(40)
parsed(["--count", "3", "--color=red", "a.txt"])
"""

PACKAGING = """
from copied.requirements import Requirement
from copied.specifiers import SpecifierSet
from copied.utils import canonicalize_name
from copied.version import Version

@step
def ordered(versions):
    return [str(one) for one in sorted(map(Version, versions))]

@step
def allowed(specifiers, versions):
    return [str(one) for one in SpecifierSet(specifiers).filter(versions)]

@step
def required(text):
    one = Requirement(text)
    return canonicalize_name(one.name), sorted(one.extras), str(one.specifier), str(one.marker)
---
ordered(["1.0", "1.0.post1", "1.0rc1", "0.9.dev3", "1!0.1", "1.0+local.7"])
allowed(">=1.0,!=1.5,<2", ["0.9", "1.0", "1.5", "1.7.2", "2.0"])
required("Some_Thing[extra,more]>=1.2,<3; python_version >= '3.9' and os_name == 'posix'")
"""


_LOADED = """
import sys
load = getattr(sys.modules["import" + "lib"], "import_" + "module")
def pick(module, name): return getattr(sys.modules["cop" + module], name)
"""


def _by_name(steps: str) -> str:
    """Return steps that reach all they use by names that they make up when they run."""
    imported = re.findall(r"^from cop(\S+) import (.+)$", steps, re.MULTILINE)
    names = [(module, name) for module, found in imported for name in found.split(", ")]
    bound = ", ".join(name for _, name in names)
    picked = ", ".join(f"pick({module!r}, {name!r})" for module, name in names)
    head = _LOADED + "".join(f"load('cop' + {module!r})\n" for module, _ in imported)
    rest = re.sub(r"^from copied.*\n", "", steps, flags=re.MULTILINE)
    return head + re.sub(r"^(def .*:\n)", rf"\1    {bound} = {picked}\n", rest, flags=re.MULTILINE)


@dataclass(frozen=True)
class Project:
    """A project and what is called of it, ``by_name`` in a way that no reading follows."""

    package: str
    program: str
    by_name: bool = False

    def script(self) -> str:
        """Return the program: steps, and a workflow that calls them."""
        steps, _, calls = self.program.partition("---\n")
        if self.by_name:
            steps = _by_name(steps)
        shown = "".join(f"    stage.show({line})\n" for line in calls.splitlines())
        return f"import stage\nfrom nbdurable import step\n{steps}with stage.workflow():\n{shown}"

    def copy(self, folder: Path) -> None:
        """Copy the package into a folder, as `copied`, with the program beside it."""
        spec = importlib.util.find_spec(self.package)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).parent
        own = re.compile(rf"^(\s*(?:from|import)\s+){self.package}\b", re.MULTILINE)
        for path in source.rglob("*.py"):
            where = folder / "copied" / path.relative_to(source)
            where.parent.mkdir(parents=True, exist_ok=True)
            where.write_text(own.sub(r"\1copied", path.read_text()))
        (folder / "prog.py").write_text(self.script())
        compileall.compile_dir(folder / "copied", quiet=1)


PROJECTS = [
    Project("rich", RICH),
    Project("click", CLICK),
    Project("packaging", PACKAGING),
    Project("markdown_it", MARKDOWN),
]


BY_NAME = [replace(project, by_name=True) for project in PROJECTS]
"""The same, with dynamic dispatch: which code runs is seen when it runs."""


@dataclass
class Trace:
    """Which lines of a project each step's body executed."""

    lines: dict[str, set[tuple[str, int]]]
    functions: dict[str, set[tuple[str, int]]]

    def steps_at(self, mutant: Mutant) -> set[str]:
        """Return the steps whose bodies executed what the mutant edits."""
        seen = self.functions if mutant.kind == "default" else self.lines
        return {name for name, at in seen.items() if (mutant.file, mutant.seen_at) in at}


@dataclass
class Finding:
    """A mutant that was replayed without a word."""

    project: str
    mutant: Mutant
    line: str
    replayed: list[str]

    def __str__(self) -> str:
        """Say where it is."""
        edit = f"{self.mutant.kind} to {self.mutant.text!r}"
        where = f"{self.project}/{self.mutant.file}:{self.mutant.line}"
        return f"{where}: {edit} in `{self.line.strip()}`: {', '.join(self.replayed)}"


@dataclass
class Result:
    """What became of the mutants of one project."""

    tried: collections.Counter[str] = field(default_factory=collections.Counter)
    silent: list[Finding] = field(default_factory=list)


class Hunt:
    """Mutants of one project, each run against the store of the unedited program."""

    BATCH = 20
    PATIENCE = 10
    """Seconds after which an edited program counts as hung: it ran, then."""

    def __init__(self, project: Project, folder: Path, pair: list[Zygote]) -> None:
        self._project = project
        self._folder = folder
        self._base = folder / "base"
        self._store = folder / "store.duckdb"
        self._pair = pair
        self._asked = 0

    def run(self, count: int, draw: int = 1) -> Result:
        """Run `count` mutants, drawn by `draw`, and return what was replayed in silence."""
        self._project.copy(self._base)
        trace = self._trace()
        base = self._passed(0, [self._base])[0]
        again = self._passed(1, [self._base])[0]
        assert base["error"] is None, base["error"]
        assert base["unsaved"] == [], base["notes"]
        assert again["ran"] == [], f"an unedited program ran again: {again['ran']}"
        drawn = self._drawn(trace, count, draw)
        result = Result()
        for at in range(0, len(drawn), self.BATCH):
            batch = drawn[at : at + self.BATCH]
            folders = [self._edited(f"m{at + n}", mutant) for n, mutant in enumerate(batch)]
            seed = 1 - at // self.BATCH % 2
            reports = self._passed(seed, folders, patience=self.PATIENCE)
            for mutant, report in zip(batch, reports, strict=True):
                result.tried[mutant.kind] += 1
                self._judge(mutant, trace, report, again, result)
            for folder in folders:
                shutil.rmtree(folder)
        return result

    def _judge(
        self,
        mutant: Mutant,
        trace: Trace,
        report: dict[str, Any],
        unedited: dict[str, Any],
        result: Result,
    ) -> None:
        if report["error"] is not None and not report["shown"]:
            return  # it fails before or in its first step: nobody takes it for the old result
        ran = {label.partition("(")[0] for label, _ in report["ran"]}
        replayed = sorted(trace.steps_at(mutant) - ran) if report["error"] is None else []
        said = [note for note in report["notes"] if not _is_usual(note, unedited["notes"])]
        if replayed and not said:
            line = self._source(mutant).decode().splitlines()[mutant.line - 1]
            result.silent.append(Finding(self._project.package, mutant, line, replayed))

    def _drawn(self, trace: Trace, count: int, seed: int) -> list[Mutant]:
        lines, functions = collections.defaultdict(set), collections.defaultdict(set)
        for at in trace.lines.values():
            for file, line in at:
                lines[file].add(line)
        for at in trace.functions.values():
            for file, line in at:
                functions[file].add(line)
        found: dict[str, list[Mutant]] = collections.defaultdict(list)
        for file in sorted(set(lines) | set(functions)):
            source = (self._base / file).read_bytes()
            for mutant in mutants_of(file, source, lines[file], functions[file]):
                found[mutant.kind].append(mutant)
        # Each kind has its turn, so that the rare ones are not drowned by constants.
        drawing = random.Random(seed)
        for kind in found.values():
            drawing.shuffle(kind)
        drawn: list[Mutant] = []
        while len(drawn) < count and any(found.values()):
            turn = [kind.pop() for kind in found.values() if kind]
            drawn += [one for one in turn if compiles(one.applied(self._source(one)))]
        return drawn[:count]

    def _source(self, mutant: Mutant) -> bytes:
        return (self._base / mutant.file).read_bytes()

    def _edited(self, name: str, mutant: Mutant) -> Path:
        """Make a folder like the base, but for one edit; what is equal is the same file."""
        folder = self._folder / name
        shutil.copytree(self._base, folder, copy_function=os.link)
        path = folder / mutant.file
        source = path.read_bytes()
        path.unlink()
        path.write_bytes(mutant.applied(source))
        compiled = importlib.util.cache_from_source(str(path))
        Path(compiled).unlink(missing_ok=True)
        return folder

    def _trace(self) -> Trace:
        (report,) = self._passed(0, [self._base], trace=True)
        assert report["error"] is None, report["error"]
        kinds = {
            kind: {name: {(file, line) for file, line in at} for name, at in report[kind].items()}
            for kind in ("lines", "functions")
        }
        return Trace(**kinds)

    def _passed(self, seed: int, folders: list[Path], **more: Any) -> list[dict[str, Any]]:
        self._asked += 1
        report = self._folder / f"report{self._asked}.json"
        rows = [
            {"name": folder.name, "run": "w", "folder": str(folder), "notebook": False, **more}
            for folder in folders
        ]
        request = {"rows": rows, "store": str(self._store), "report": str(report)}
        code = self._pair[seed].run(request)
        assert code == 0, f"the process ended with {code}"
        found = json.loads(report.read_text())
        return [found[folder.name] for folder in folders]


def _is_usual(note: str, known: list[str]) -> bool:
    """Tell whether a line is told of an unedited program too, whatever its figures."""
    return re.sub(r"\d+", "", note) in {re.sub(r"\d+", "", one) for one in known}
