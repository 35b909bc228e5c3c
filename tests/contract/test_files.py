"""CONTRACT section 3, Files: what a body read and wrote, and what becomes of it when that changes.

Each test runs a workflow, changes files as a person or another program would, and runs it
again in the same store; ``ran`` has the bodies that ran, ``told`` the line that is told.
"""

import contextlib
import importlib.metadata
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.csv as pa_csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from nbdurable import UsageError, configure, gather, go, select, step, workflow
from nbdurable.api import open_stores
from nbdurable.events import AttemptStarted, StepCreated
from nbdurable.inspection import queries as questions
from nbdurable.store import Store, check


@pytest.fixture
def execute(tmp_path, monkeypatch):
    """Yield a function that runs a program in a folder of its own, and what was seen of it."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(program, **options):
        labels, ran, whys = {}, [], []

        def observe(event):
            if isinstance(event, StepCreated):
                labels[event.step] = event.label
            elif isinstance(event, AttemptStarted):
                ran.append(labels[event.step].partition("(")[0])
                whys.append(f"{event.why}: {event.reason}")

        flow = workflow("w", store="s.duckdb", observers=(observe,), **options)
        with flow:
            value = program()
        told = [note for note in flow.notes if note.startswith("told")]
        assert len(told) <= 1, "one line per cell"
        return SimpleNamespace(
            value=value, ran=ran, whys=whys, notes=flow.notes, told="".join(told)
        )

    yield run
    open_stores.close_stores()
    configure(reads=None)
    if Path("s.duckdb").exists():
        with contextlib.closing(Store.open("s.duckdb")) as store:
            assert check(store) == []


def evidence():
    """Return the names of all files that are kept as evidence."""
    kinds = "('named file', 'watched file', 'written file')"
    with contextlib.closing(Store.open("s.duckdb")) as store:
        return store.rows(f"SELECT part FROM nbdurable.evidence WHERE kind IN {kinds}")


DOT = "."


def run_python(program):
    """Run a program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


def write(name, text):
    """Write a file as a person does."""
    Path(name).write_text(str(text))


@step
def load(path):
    """Read a file that is named."""
    return Path(path).read_text()


@step
def load_constant():
    """Read a file that a constant names."""
    return Path("constant.csv").read_text()


@step
def load_seen():
    """Read a file that nothing names."""
    return Path("seen" + DOT + "csv").read_text()


@step
def append(path, number):
    """Write a line more into a file that is named."""
    with Path(path).open("a") as file:
        file.write(f"{number}\n")
    return number


@step
def save(text):
    """Write a file that a constant names."""
    Path("report.txt").write_text(text)
    return len(text)


NAMED = {"folder": Path("in/data.csv")}


@step
def load_global():
    """Read a file that global data names."""
    return Path(NAMED["folder"]).read_text()


# --- named files ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "name"),
    [
        (lambda: load("data.csv"), "data.csv"),
        (lambda: load(Path("data.csv")), "data.csv"),
        (lambda: load.go(path="data.csv").result(), "data.csv"),
        (lambda: load(str(Path("data.csv").resolve())), "data.csv"),
        (load_constant, "constant.csv"),
        (load_global, "in/data.csv"),
    ],
    ids=["argument", "path", "keyword", "absolute", "constant", "global"],
)
def test_a_named_file_that_changed_makes_the_step_of_a_finished_run_run_again(
    execute, program, name
):
    """Its content counts, and an edit back finds the first outcome."""
    Path("in").mkdir()
    write(name, "one")
    assert execute(program).value == "one"
    assert execute(program).ran == []
    write(name, "two")
    edited = execute(program)
    assert edited.value == "two"
    assert edited.whys[0].startswith("file changed: ")
    assert name in edited.whys[0]
    assert any("1 saved outcome of load" in note and name in note for note in edited.notes)
    again = execute(program)
    assert (again.value, again.ran, again.told) == ("two", [], "")
    write(name, "one")
    back = execute(program)
    assert (back.value, back.ran, back.told) == ("one", [], "")


def test_a_file_that_was_only_touched_or_written_anew_with_equal_content_has_not_changed(execute):
    """Size and time are looked at first, then content."""
    write("data.csv", "one")
    execute(lambda: load("data.csv"))
    os.utime("data.csv", ns=(1, 1))
    assert execute(lambda: load("data.csv")).ran == []
    write("data.csv", "one")
    again = execute(lambda: load("data.csv"))
    assert (again.ran, again.told) == ([], "")


def test_a_change_that_keeps_size_and_time_of_a_fresh_file_is_seen(execute):
    """What was written just before it was read may be written again within one tick."""
    write("data.csv", "one")
    execute(lambda: load("data.csv"))
    times = Path("data.csv").stat()
    write("data.csv", "two")
    os.utime("data.csv", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert execute(lambda: load("data.csv")).value == "two"


def test_a_named_file_that_is_gone_makes_the_step_run_again(execute):
    """The why says that it is gone; the error is the step's own."""
    write("data.csv", "one")
    execute(lambda: load("data.csv"))
    Path("data.csv").unlink()
    with pytest.raises(FileNotFoundError):
        execute(lambda: load("data.csv"))
    rows = questions.why("w", "s.duckdb")
    assert rows[-1]["why"] == "file changed: data.csv is gone"


def test_files_of_libraries_that_no_hook_sees_are_known_by_name(execute):
    """Parquet is read in C++."""

    def total(path):
        return int(pq.read_table(path)["a"].to_numpy().sum())

    pd.DataFrame({"a": [1, 2]}).to_parquet("t.parquet")
    assert execute(lambda: go(total, "t.parquet").result()).value == 3
    assert execute(lambda: go(total, "t.parquet").result()).ran == []
    pd.DataFrame({"a": [1, 5]}).to_parquet("t.parquet")
    assert execute(lambda: go(total, "t.parquet").result()).value == 6


def asked(query):
    """Ask DuckDB."""
    return sys.modules["duckdb"].sql(query).fetchall()


def asked_by_name():
    """Ask DuckDB of a file by its name in a query of several lines."""
    return (
        sys.modules["duckdb"]
        .sql("""
        SELECT sum(a)
        FROM 'data/t.parquet'
    """)
        .fetchall()
    )


def asked_by_pattern():
    """Ask DuckDB of all files that match."""
    return sys.modules["duckdb"].sql("SELECT sum(a) FROM read_parquet('data/*.parquet')").fetchall()


@pytest.mark.parametrize(
    "call",
    [
        lambda: asked("SELECT sum(a) FROM read_parquet('data/t.parquet')"),
        lambda: asked(query="FROM 'data/t.parquet' SELECT sum(a)"),
        asked_by_name,
        asked_by_pattern,
    ],
    ids=["argument", "keyword", "constant", "pattern"],
)
def test_files_named_in_a_query_are_named_files(execute, call):
    """What stands in quotes in SQL is a name of a file as any other text."""
    Path("data").mkdir()
    pd.DataFrame({"a": [1, 2]}).to_parquet("data/t.parquet")
    assert execute(lambda: go(call).result()).value == [(3,)]
    assert execute(lambda: go(call).result()).ran == []
    pd.DataFrame({"a": [1, 5]}).to_parquet("data/t.parquet")
    assert execute(lambda: go(call).result()).value == [(6,)]
    assert execute(lambda: go(call).result()).ran == []


def test_a_file_that_comes_to_a_pattern_is_told(execute):
    """The folder of a pattern is evidence as a listing is."""
    Path("data").mkdir()
    pd.DataFrame({"a": [1, 2]}).to_parquet("data/t.parquet")
    assert execute(lambda: go(asked_by_pattern).result()).value == [(3,)]
    assert execute(lambda: go(asked_by_pattern).result()).told == ""
    pd.DataFrame({"a": [1]}).to_parquet("data/u.parquet")
    for _ in range(2):
        report = execute(lambda: go(asked_by_pattern).result())
        assert report.ran == []
        assert "data" in report.told


def test_what_a_prompt_has_in_quotes_names_no_file(execute):
    """Only where something is read by its name: prose that mentions a file is prose."""
    write("notes.txt", "old")

    def length(prompt):
        return len(prompt)

    prompt = "Explain to me what 'notes.txt' is for, and \"why\" it's there."
    assert execute(lambda: go(length, prompt).result()).ran == ["length"]
    write("notes.txt", "other and longer")
    assert execute(lambda: go(length, prompt).result()).ran == []


def read_lazily(folder, name):
    """Read a table by polars' lazy reader."""
    return pl.scan_parquet(f"{folder}/{name}.parquet").collect()["a"].sum()


def read_eagerly(folder, name):
    """Read a table by polars."""
    return pl.read_parquet(f"{folder}/./{name}.parquet")["a"].sum()


def read_csv(folder, name):
    """Read text by polars."""
    return pl.read_csv(Path(folder) / f"{name}.csv")["a"].sum()


def read_table(folder, name):
    """Read a table by pyarrow."""
    return pq.read_table(f"{folder}/{name}.parquet")["a"].to_pandas().sum()


def read_piecewise(folder, name):
    """Read a table by pyarrow, group by group."""
    with pq.ParquetFile(f"{folder}/{name}.parquet") as file:
        return sum(file.read_row_group(0)["a"].to_pylist())


def read_pattern(folder, name):
    """Read all that match a pattern."""
    return pl.read_parquet(f"{folder}/{name[:1]}*.parquet")["a"].sum()


def read_dataset(folder, name):
    """Read a folder as a data set."""
    found = ds.dataset(f"{folder}/", format="parquet").to_table()["a"]
    return sum(found.to_pylist()) + len(name)


def read_arrow_csv(folder, name):
    """Read text by pyarrow."""
    return sum(pa_csv.read_csv(f"{folder}/{name}.csv")["a"].to_pylist())


def read_by_a_computed_reader(folder, name):
    """Read text by pyarrow, by a function whose name is made up, too."""
    return sum(getattr(pa_csv, "open_" + "csv")(f"{folder}/{name}.csv").read_all()["a"].to_pylist())


def duckdb():
    """Return DuckDB."""
    return sys.modules["duckdb"]


def read_by_sql(folder, name):
    """Let DuckDB read text."""
    return duckdb().sql(f"SELECT sum(a) FROM '{folder}/{name}.csv'").fetchall()[0][0]


def read_by_a_function_of_duckdb(folder, name):
    """Let DuckDB read text, by a function whose name is made up."""
    return getattr(duckdb(), "read_" + "csv")(f"{folder}/{name}.csv").sum("a").fetchall()[0][0]


def read_by_a_connection(folder, name):
    """Let a connection of DuckDB read text, by a query that no variable holds."""
    with duckdb().connect() as connection:
        return connection.execute(f"SELECT sum(a) FROM '{folder}/{name}.csv'").fetchall()[0][0]


def read_by_a_parameter(folder, name):
    """Let a connection of DuckDB read text, whose name is a parameter."""
    path = f"{folder}/{name}.csv"
    with duckdb().connect() as connection:
        asked = connection.execute("SELECT sum(a) FROM read_csv(?)", [path])
        return asked.fetchall()[0][0]


TEXT_READERS = {
    read_csv,
    read_arrow_csv,
    read_by_a_computed_reader,
    read_by_sql,
    read_by_a_function_of_duckdb,
    read_by_a_connection,
    read_by_a_parameter,
}


@pytest.mark.monitoring
@pytest.mark.parametrize(
    "read",
    [
        *sorted(TEXT_READERS, key=lambda one: one.__name__),
        read_lazily,
        read_eagerly,
        read_table,
        read_piecewise,
        read_pattern,
        read_dataset,
    ],
)
def test_a_file_whose_name_a_body_makes_up_is_watched_in_libraries_too(execute, read):
    """Readers that no audit event tells of are seen by what their functions are given."""
    Path("data").mkdir()

    def put(*values):
        frame = pd.DataFrame({"a": values})
        if read in TEXT_READERS:
            frame.to_csv("data/table.csv")
        else:
            frame.to_parquet("data/table.parquet")

    def program():
        return int(go(read, "data", "table").result())

    put(1, 2)
    first = execute(program)
    for _ in range(2):
        again = execute(program)
        assert (again.ran, again.told, again.value) == ([], "", first.value)
    put(1, 2, 3)
    for _ in range(2):
        told = execute(program)
        assert told.ran == []
        assert "data/table" in told.told.replace("/./", "/")
    configure(reads="rerun")
    assert execute(program).value == first.value + 3


@pytest.mark.monitoring
def test_a_query_is_no_name_of_files(execute):
    """The star of SQL matches no file: one that comes into the folder is nobody's."""

    def program():
        return go(lambda: duckdb().sql("SELECT count(*) AS n FROM range(3)").fetchall()).result()

    assert execute(program).value == [(3,)]
    write("new.csv", "a")
    again = execute(program)
    assert (again.ran, again.told) == ([], "")


@pytest.mark.parametrize("version", ["", "1"])
def test_files_count_with_a_version_too(execute, version):
    """Only the code part of the evidence is left out."""
    told = load.with_options(version=version) if version else load
    write("data.csv", "one")
    execute(lambda: told("data.csv"))
    write("data.csv", "two")
    assert execute(lambda: told("data.csv")).value == "two"


def test_one_of_many(execute):
    """Only the step whose file changed runs again."""
    for number in range(6):
        write(f"{number}.csv", number)

    def program():
        return load.map([f"{number}.csv" for number in range(6)]).result()

    execute(program)
    write("3.csv", "three")
    again = execute(program)
    assert again.value == ["0", "1", "2", "three", "4", "5"]
    assert again.ran == ["load"]


# --- an unfinished run ---------------------------------------------------------------


def test_within_an_unfinished_run_a_named_file_is_told_only(execute):
    """A resume never runs a finished step again because a file was written since."""
    write("data.csv", "one")

    def program(*, fails):
        value = load("data.csv")
        if fails:
            raise OSError("no disk")
        return value

    with pytest.raises(OSError, match="no disk"):
        execute(lambda: program(fails=True))
    write("data.csv", "two")
    resumed = execute(lambda: program(fails=False))
    assert (resumed.value, resumed.ran) == ("one", [])
    assert "data.csv, which load('data.csv') read, has changed since" in resumed.told
    finished = execute(lambda: program(fails=False))
    assert finished.value == "two", "the run has finished: now the file counts"


def test_a_killed_run_resumes_without_running_what_had_finished(execute):
    """The step that died wrote the file that the first one had read."""
    write("data.csv", "one")
    program = """
import os, signal, sys
from pathlib import Path
from nbdurable import step, workflow
@step
def load(path): return Path(path).read_text()
@step
def spoil(path, die):
    Path(path).write_text("spoiled")
    if die: os.kill(os.getpid(), signal.SIGKILL)
    return 1
with workflow("k", store="k.duckdb") as run:
    print(load("data.csv"))
    spoil("data.csv", not Path("died").exists() and not Path("died").touch())
    print(*run.said())
"""
    died = run_python(program)
    assert died.returncode == -9
    resumed = run_python(program)
    assert resumed.stdout.startswith("one\n"), resumed.stderr


def test_a_file_as_the_run_itself_last_left_it_is_quiet(execute):
    """Read by one step and written by a later one: nothing runs again, nothing is told."""
    write("report.txt", "before")

    def program():
        return load("report.txt"), save("after")

    assert execute(program).value == ("before", 5)
    again = execute(program)
    assert (again.value, again.ran, again.told) == (("before", 5), [], "")
    write("report.txt", "somebody")
    edited = execute(program)
    assert edited.ran == ["load"]
    assert "report.txt, which save('after') wrote, has changed since" in edited.told


def test_a_file_that_steps_append_to_beside_each_other_is_quiet(execute):
    """Who ended last saw what all had written, whichever outcome is committed last."""

    def program():
        return gather(append.go("log.txt", number) for number in range(40)).result()

    program_again = execute(program)
    assert sorted(program_again.ran) == ["append"] * 40
    for _ in range(2):
        again = execute(program)
        assert (again.ran, again.told) == ([], "")
    write("log.txt", "somebody")
    assert "log.txt" in execute(program).told


# --- told ----------------------------------------------------------------------------


def test_a_file_that_was_only_watched_is_told_on_every_pass(execute):
    """In the notes and in why, on each pass, until it is as it was."""
    write("seen.csv", "one")
    assert execute(load_seen).value == "one"
    write("seen.csv", "two")
    for _ in range(2):
        again = execute(load_seen)
        assert (again.value, again.ran) == ("one", [])
        assert "seen.csv, which load_seen() read, has changed since" in again.told
    (row,) = questions.why("w", "s.duckdb")
    assert row["told"] == "seen.csv, which it read, has changed since"
    write("seen.csv", "one")
    assert execute(load_seen).told == ""
    assert "told" not in questions.why("w", "s.duckdb")[0]


def test_an_output_that_changed_is_told_and_never_runs_its_step_again(execute):
    """A named file that was only written; gone is changed, too."""
    execute(lambda: save("abc"))
    assert execute(lambda: save("abc")).told == ""
    write("report.txt", "xyz")
    again = execute(lambda: save("abc"))
    assert (again.ran, again.value) == ([], 3)
    assert "report.txt, which save('abc') wrote, has changed since" in again.told
    Path("report.txt").unlink()
    assert "report.txt, which save('abc') wrote, is gone" in execute(lambda: save("abc")).told


def test_one_line_for_all(execute):
    """Many steps, one line, cut after six files."""

    def out(number):
        name = "-".join(["out", str(number)])
        Path(name).write_text("x")

    def program():
        return gather([go(out, number) for number in range(9)]).result()

    execute(program)
    for number in range(9):
        Path(f"out-{number}").unlink()
    told = execute(program).told
    assert "out-0, which out(0) wrote, is gone" in told
    assert "and 3 more" in told


@pytest.mark.parametrize("how", ["listdir", "scandir", "glob", "iterdir", "walk"])
def test_a_listing_is_evidence(execute, how):
    """A file that came into a folder that a body listed is told."""
    Path("d").mkdir()
    write("d/a", 1)

    def count(how):
        folder = "d" + DOT[1:]
        if how == "listdir":
            return len(os.listdir(folder))  # noqa: PTH208 - one of the ways
        if how == "scandir":
            return len(list(os.scandir(folder)))
        if how == "glob":
            return len(list(Path(folder).glob("*")))
        if how == "iterdir":
            return len(list(Path(folder).iterdir()))
        return sum(len(files) for _, _, files in os.walk(folder))

    def program():
        return go(count, how).result()

    assert execute(program).value == 1
    assert execute(program).told == ""
    write("d/b", 2)
    again = execute(program)
    assert again.value == 1
    assert "d, which count(" in again.told


def test_a_named_folder_that_was_listed_counts_as_a_named_file(execute):
    """What is in it decides."""
    Path("d").mkdir()

    def program():
        return go(os.listdir, "d").result()

    assert execute(program).value == []
    write("d/b", 2)
    assert execute(program).value == ["b"]


# --- what never counts ---------------------------------------------------------------


def test_a_look_for_installed_packages_never_counts(execute, monkeypatch):
    """It lists every folder of `sys.path`, the working one too: no file in there was asked for."""
    Path("d").mkdir()
    monkeypatch.syspath_prepend(str(Path("d").resolve()))

    def looks():
        return len([one for one in importlib.metadata.distributions() if one is None])

    def program():
        return go(looks).result()

    assert execute(program).value == 0
    write("d/b", 2)
    assert execute(program).told == ""


def test_what_nbdurable_writes_never_counts(execute):
    """The store, its lock, its objects: large values are written there while a body runs."""

    def large(seed):
        return np.full(200_000, seed, dtype="i8")

    def program():
        return [go(large, seed).result().sum() for seed in range(3)]

    execute(program)
    assert Path("s.duckdb.objects").is_dir()
    again = execute(program)
    assert (again.ran, again.told) == ([], "")
    assert evidence() == []


def test_temporary_files_and_imports_never_count(execute):
    """What a body makes and removes, and what Python reads to import."""
    write("lazy_module.py", "X = 1")
    sys.path.insert(0, "")

    def body():
        import lazy_module  # noqa: PLC0415 - it is about this

        with tempfile.NamedTemporaryFile(dir=".") as file:
            file.write(b"x")
        return lazy_module.X

    try:
        execute(
            lambda: go(
                body,
            ).result()
        )
        assert execute(lambda: go(body).result()).told == ""
        assert evidence() == []
    finally:
        sys.path.remove("")
        sys.modules.pop("lazy_module", None)


# --- reads= --------------------------------------------------------------------------


def test_reads_tell(execute):
    """A named file is told only."""
    write("data.csv", "one")
    telling = load.with_options(reads="tell")
    execute(lambda: telling("data.csv"))
    write("data.csv", "two")
    again = execute(lambda: telling("data.csv"))
    assert (again.value, again.ran) == ("one", [])
    assert "data.csv, which load('data.csv') read, has changed since" in again.told


def test_reads_ignore(execute):
    """Nothing is kept of files, nothing is told."""
    write("data.csv", "one")
    ignoring = load.with_options(reads="ignore")
    execute(lambda: ignoring("data.csv"))
    write("data.csv", "two")
    again = execute(lambda: ignoring("data.csv"))
    assert (again.value, again.ran, again.told) == ("one", [], "")


def test_reads_rerun_counts_what_was_watched(execute):
    """A file that nothing names makes the step run again, too."""
    write("seen.csv", "one")
    execute(load_seen.with_options(reads="rerun"))
    write("seen.csv", "two")
    assert execute(load_seen.with_options(reads="rerun")).value == "two"


def test_reads_is_configured(execute):
    """A step's own word comes before what is configured."""
    write("data.csv", "one")
    execute(lambda: load("data.csv"))
    configure(reads="tell")
    write("data.csv", "two")
    assert execute(lambda: load("data.csv")).value == "one"
    assert execute(lambda: load.with_options(reads="rerun")("data.csv")).value == "two"


def test_reads_takes_three_words():
    """Anything else is refused at once."""
    with pytest.raises(UsageError, match='give "rerun"'):
        step(load.__wrapped__, reads="never")
    with pytest.raises(UsageError, match='give "rerun"'):
        configure(reads=True)


# --- whose file it is ----------------------------------------------------------------


def test_a_thread_that_a_body_starts_reads_for_it(execute):
    """Its context is empty: it counts for whoever runs then."""
    write("seen.csv", "one")

    def body():
        found = []
        thread = threading.Thread(target=lambda: found.append(load_seen.__wrapped__()))
        thread.start()
        thread.join()
        return found[0]

    execute(lambda: go(body).result())
    write("seen.csv", "two")
    assert "seen.csv, which body() read" in execute(lambda: go(body).result()).told


def test_what_the_cell_reads_outside_steps_is_nobodys(execute):
    """It runs on every pass anyhow."""
    write("seen.csv", "one")

    def program():
        load_seen.__wrapped__()
        return go(len, "abc").result()

    execute(program)
    write("seen.csv", "two")
    assert execute(program).told == ""


def test_a_parents_evidence_has_its_childrens(execute):
    """A file that a child read makes parent and child run again."""
    write("data.csv", "one")

    def parent(names):
        return [load(".".join(name)) for name in names]

    def program():
        return go(parent, [("data", "csv")]).result()

    assert execute(program).value == ["one"]
    write("data.csv", "two")
    again = execute(program)
    assert again.value == ["two"]
    assert again.ran == ["parent", "load"]
    assert execute(program).ran == []


def test_a_child_that_replays_gives_its_evidence_to_a_parent_that_runs(execute):
    """The parent's other child changed; then the file of the first counts still."""
    write("data.csv", "one")
    write("other.csv", "one")

    def parent(names):
        return [load(".".join(name)) for name in names]

    def program():
        return go(parent, [("data", "csv"), ("other", "csv")]).result()

    execute(program)
    write("other.csv", "two")
    assert execute(program).ran == ["parent", "load"]
    write("data.csv", "two")
    again = execute(program)
    assert (again.value, again.ran) == (["two", "two"], ["parent", "load"])


def test_a_database_that_was_asked(execute):
    """SQLite opens its file by itself, and tells."""
    with sqlite3.connect("d.sqlite") as made:
        made.execute("CREATE TABLE t AS SELECT 1 AS a")
    made.close()

    def ask(path):
        connection = sqlite3.connect(path)
        try:
            return connection.execute("SELECT a FROM t").fetchall()[0][0]
        finally:
            connection.close()

    def program():
        return go(ask, "d.sqlite").result()

    assert execute(program).value == 1
    assert execute(program).ran == []
    with sqlite3.connect("d.sqlite") as made:
        made.execute("UPDATE t SET a = 2")
    made.close()
    assert execute(program).value == 2


def test_a_decision_over_a_changed_file_is_opened_again(execute):
    """And found again when the file is as it was."""
    write("data.csv", "b")

    def program():
        return select(load.go("data.csv"), go(len, "abc")).result()

    first = execute(program).value
    again = execute(program)
    assert (again.value, again.ran) == (first, [])
    write("data.csv", "changed")
    edited = execute(program)
    assert edited.ran == ["load"]
    write("data.csv", "b")
    back = execute(program)
    assert (back.value, back.ran) == (first, [])


def test_what_is_kept_is_quiet_once_a_second_keep_has_said_so(execute):
    """--keep takes files as they are: said by every pass until the next with --keep."""
    write("data.csv", "one")
    write("seen.csv", "one")

    def program():
        return load("data.csv"), load_seen()

    execute(program)
    write("data.csv", "two")
    write("seen.csv", "two")
    kept = execute(program, keep=True)
    assert (kept.value, kept.ran) == (("one", "one"), [])
    said = [note for note in kept.notes if note.startswith("--keep: ")]
    assert len(said) == 2
    assert any("data.csv, which load used, changed" in note for note in said)
    assert any("seen.csv" in note for note in said)
    for _ in range(2):
        later = execute(program)
        assert (later.value, later.ran, later.told) == (("one", "one"), [], "")
        assert any("data.csv" in n and "another pass with --keep ends" in n for n in later.notes)
    assert execute(program, keep=True).value == ("one", "one")
    last = execute(program)
    assert (last.value, last.ran) == (("one", "one"), [])
    assert not any("--keep" in note for note in last.notes)
    write("data.csv", "three")
    assert execute(program).value == ("three", "one"), "another state was not accepted"


def test_confirm_counts_what_a_changed_file_runs_again(execute):
    """The run is suspended before the first of them, and says how to go on."""
    write("data.csv", "one")
    assert execute(lambda: load("data.csv")).value == "one"
    write("data.csv", "two")
    configure(confirm=0)
    with pytest.raises(UsageError, match=r"1 saved outcome.*--keep"):
        execute(lambda: load("data.csv"))
    configure(confirm=None)
    assert execute(lambda: load("data.csv"), keep=True).value == "one"
