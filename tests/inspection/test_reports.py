"""A store asked from the command line: rows and JSON, what is named, doctor, export, trust."""

import contextlib
import json
import math
import os
import re
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import duckdb  # noqa: TID251 - reads a Parquet file, tampers with a store
import pandas as pd
import pytest
from click.testing import CliRunner  # noqa: TID251 - the runner of what click made

import nbdurable
from nbdurable import cli, current_step, go, step, workflow
from nbdurable.api import configuration, open_stores
from nbdurable.demo import story
from nbdurable.inspection import amending, maintenance, reports
from nbdurable.inspection import queries as questions
from nbdurable.store import Store
from nbdurable.store import connection as connecting

pytestmark = pytest.mark.timeout(60)


def load(number):
    """Return a table."""
    return pd.DataFrame({"n": [number, number + 1]})


def refuse():
    """Fail."""
    raise ValueError("refused")


def program():
    """Run a step that gives a table, one that gives plain data, one that fails."""
    go(load, 1).result()
    go(step(lambda: {"a": [1, None, "ü"]}, name="plain", version=1)).result()
    with contextlib.suppress(ValueError):
        go(refuse).result()


def make(path, name="w"):
    """Make a store in which the program has run."""
    with workflow(name, store=path):
        program()
    open_stores.close_stores()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Yield a working folder with a notebook's store in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NBDURABLE_STORE", raising=False)
    make(tmp_path / ".nbdurable" / "analysis.duckdb")
    yield tmp_path
    open_stores.close_stores()


NOTEBOOK = ("--store", "analysis.ipynb")


def call(*words, **options):
    """Run the command line in this process."""
    return CliRunner().invoke(cli.main, list(words), prog_name="nbdurable", **options)


def asked(*words):
    """Return what a command prints as JSON."""
    result = call(*words, "--json", *NOTEBOOK)
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def check_one_line(result, *words):
    """See that all that was said is one line about what went wrong."""
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


# --- which store -----------------------------------------------------------------------------


def test_a_store_is_named_in_each_way(place, monkeypatch):
    """A store is named by its path, its notebook's, the variable; the only one needs no name."""
    store = place / ".nbdurable" / "analysis.duckdb"
    for words in (["--store", str(store)], ["--store", ".nbdurable/analysis.duckdb"], NOTEBOOK):
        assert "finished" in call("runs", *words).stdout
    assert "finished" in call("runs").stdout
    monkeypatch.setenv("NBDURABLE_STORE", str(store))
    assert "finished" in call("runs").stdout
    monkeypatch.delenv("NBDURABLE_STORE")
    make(place / ".nbdurable" / "quotes.run.duckdb")
    said = "there are 2 stores in", "--store and one of .nbdurable/analysis.duckdb, .nbdurable/quo"
    check_one_line(call("runs"), *said)
    (place / "analysis.ipynb").touch()
    check_one_line(call("steps", "w"), "--store and one of analysis.ipynb, .nbdurable/quotes.run.")


COMMANDS = [
    ("runs", *NOTEBOOK), ("steps", *NOTEBOOK), ("why", *NOTEBOOK), ("sql", "FROM runs", *NOTEBOOK),
    ("trust", "analysis.ipynb"), ("doctor", *NOTEBOOK),
    ("export", "w", "--to", "x.json", *NOTEBOOK), ("gc", *NOTEBOOK),
]  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_missing_store(tmp_path, monkeypatch, words):
    """A store that is not there is one line, and is not made."""
    monkeypatch.chdir(tmp_path)
    check_one_line(call(*words), "there is no store at", "analysis.duckdb", "--store")
    assert not list(tmp_path.iterdir())


HOLD = """
import sys
from nbdurable.store import Store
store = Store.open(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_held_store(place, monkeypatch, words):
    """A store that another process holds names the holder."""
    stop = connecting.tenacity.stop_after_delay
    monkeypatch.setattr(connecting.tenacity, "stop_after_delay", lambda _: stop(0.1))
    store = place / ".nbdurable" / "analysis.duckdb"
    command = [sys.executable, "-c", HOLD, str(store)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout.readline() == "open\n"
        result = call(*words)
        holder.communicate("go\n")
    assert result.exit_code == 1
    assert f"process {holder.pid} (python" in result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    if words[0] != "doctor":
        check_one_line(result)


@pytest.mark.parametrize("words", COMMANDS[:4], ids=lambda words: words[0])
def test_a_foreign_store(place, monkeypatch, words):
    """A store that another key signed says how it is looked at."""
    monkeypatch.setenv("NBDURABLE_KEY_FILE", str(place / "other.key"))
    check_one_line(call(*words), "not written with your key", "nbdurable trust PATH")


# --- rows ------------------------------------------------------------------------------------


def test_runs_steps_and_why_as_json(place):
    """A program gets one array, with aware ISO times."""
    [run] = asked("runs")
    assert (run["name"], run["status"], run["saved"]) == ("w", "finished", 3)
    assert datetime.fromisoformat(run["created"]).utcoffset() == timedelta(0)
    steps = asked("steps", "w")
    assert [one["step"] for one in steps] == ["load(1)", "plain()", "refuse()"]
    assert [one["status"] for one in steps] == ["finished", "finished", "failed"]
    assert [one["error"] for one in steps] == ["", "", "ValueError: refused"]
    started = datetime.fromisoformat(steps[0]["started"])
    assert abs(datetime.now(UTC) - started) < timedelta(minutes=5)
    assert asked("steps") == steps
    assert {one["why"] for one in asked("why")} == {"new"}


def test_tables(place):
    """A person gets a table whose texts are whole, whatever brackets they have."""
    for name, column in (("runs", "finished"), ("steps", "load(1)"), ("why", "new")):
        result = call(name, *NOTEBOOK)
        assert result.exit_code == 0
        assert column in result.stdout
    result = call("sql", "SELECT '[red]' AS a, NULL AS b, 1.5::DOUBLE AS c", *NOTEBOOK)
    assert "[red]" in result.stdout
    assert "1.500" in result.stdout


def test_status_of_each_name(place):
    """How far the newest run of each name is; of one that is named alone; a mistake is one line."""
    make(place / ".nbdurable" / "analysis.duckdb", "other")
    make(place / ".nbdurable" / "analysis.duckdb", "other")
    assert [(one["name"], one["saved"], one["executions"]) for one in asked("status")] == [
        ("other", 3, 2),
        ("w", 3, 1),
    ]
    assert [one["name"] for one in asked("status", "w")] == ["w"]
    check_one_line(call("status", "wm", *NOTEBOOK), "no run is called wm: did you mean w?")


def test_a_superseded_outcome_is_marked(place):
    """Of a call's outcomes the newest counts: the others say so, whatever they were."""
    scale = 1
    store = str(place / "e.duckdb")

    def run():
        def scaled():
            return scale

        with workflow("edited", store=store):
            step(scaled, name="scaled").go().result()
            go(load, 1).result()
        open_stores.close_stores()

    run()
    scale = 2
    run()
    found = [(one["step"], one["status"]) for one in reports.steps(store, "edited").rows]
    assert sorted(found) == [
        ("load(1)", "finished"),
        ("scaled()", "finished"),
        ("scaled()", "superseded"),
    ]
    assert "value changed: scale" in {one["why"] for one in questions.why("edited", store)}


def test_each_attempt_tells_its_error_and_a_step_the_time_of_all(place):
    """The last attempt, too, which ended with the outcome; also when that was taken out."""

    @step(retries=2, backoff=0.001)
    def refuses():
        time.sleep(0.02)
        raise ValueError(f"refused {current_step().attempt}")

    store = str(place / "r.duckdb")
    with contextlib.suppress(ValueError), workflow("r", store=store):
        refuses.go().result()
    asked_for = "SELECT attempt, error FROM attempts ORDER BY attempt"
    errors = [(n, f"ValueError: refused {n}") for n in (1, 2, 3)]
    rows = questions.answer(asked_for, store)
    assert [(one["attempt"], one["error"]) for one in rows] == errors
    seconds = questions.answer("SELECT sum(seconds) AS all FROM attempts", store)[0]["all"]
    [row] = reports.steps(store, "r").rows
    assert row["seconds"] == round(seconds, 3) > 0.06
    amending.redo("r", store=store)
    rows = questions.answer(asked_for, store)
    assert [(one["attempt"], one["error"]) for one in rows] == errors
    maintenance.restart("r", store)
    maintenance.collect(store, remove=True)
    assert questions.answer("SELECT count(*) AS n FROM nbdurable.failures", store) == [{"n": 0}]


def test_adopt_and_config_in_the_shell(place, monkeypatch):
    """A renamed notebook gets its checkpoints; each setting says where it comes from."""
    (place / "renamed.ipynb").write_text("{}")
    said = call("adopt", "analysis", "renamed.ipynb").stdout
    assert said == "renamed.ipynb has the checkpoints of analysis now; they were its own\n"
    assert call("runs", "--store", "renamed.ipynb").stdout.count("finished") == 1
    monkeypatch.setenv("NBDURABLE_STORE", "elsewhere.duckdb")
    assert "NBDURABLE_STORE" in call("config").stdout
    configuration.set_notebook(None)


def test_why_a_step_failed(place):
    """With a step's name or label come its rows alone, and its error where it was raised."""
    result = call("why", "w", "refuse", *NOTEBOOK)
    assert "load(1)" not in result.stdout
    assert result.stdout.rstrip().endswith("ValueError: refused")
    assert 'raise ValueError("refused")' in result.stdout
    assert f"{nbdurable.__path__[0]}/" not in result.stdout, "a frame of ours"
    assert [row["step"] for row in asked("why", "w", "refuse()")] == ["refuse()"]
    assert [row["step"] for row in asked("steps", "w", "load")] == ["load(1)"]
    assert "Error" not in call("why", "w", "load", *NOTEBOOK).stdout
    check_one_line(call("why", "w", "lod", *NOTEBOOK), "w has no step lod: did you mean load?")


def test_restart(place):
    """A run of that name starts from nothing; the old one stays."""
    assert "starts from nothing" in call("restart", "w", *NOTEBOOK).stdout
    make(place / ".nbdurable" / "analysis.duckdb")
    assert [one["executions"] for one in asked("runs")] == [1, 1]
    check_one_line(call("restart", "v", *NOTEBOOK), "no run has that name; there are w")


@pytest.mark.parametrize(("typed", "meant"), [("stepz", "steps"), ("whatch", "watch")])
def test_a_command_that_is_not_there(typed, meant):
    """The one that is meant is named."""
    result = call(typed)
    assert result.exit_code == 2
    assert f"no such command '{typed}': did you mean {meant}?" in result.stderr


@pytest.mark.parametrize("name", ["steps", "why"])
def test_a_run_that_is_not_there(place, name):
    """A name that no run has is named, with those that there are."""
    check_one_line(call(name, "nothing", *NOTEBOOK), "no run is called nothing; there are w")


def test_sql(place):
    """SQL gets the views and the tables of steps, from the line or from stdin."""
    assert asked("sql", "SELECT name FROM steps ORDER BY number LIMIT 1") == [{"name": "load"}]
    assert asked("sql", "SELECT sum(n) AS s FROM step('load')") == [{"s": 3}]
    result = call("sql", "-", "--json", *NOTEBOOK, input="SELECT 1 AS one")
    assert json.loads(result.stdout) == [{"one": 1}]
    wrong = call("sql", "FROM nowhere", *NOTEBOOK)
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert "Table with name nowhere does not exist" in wrong.stderr
    check_one_line(call("sql", "FROM step('no')", *NOTEBOOK), "no step of that name")
    empty = call("sql", "SELECT 1 WHERE false", *NOTEBOOK)
    assert (empty.exit_code, empty.stdout, empty.stderr) == (0, "", "no rows\n")
    assert call("sql", "SELECT 1 WHERE false", "--json", *NOTEBOOK).stdout == "[]\n"


def test_values_of_sql_as_json():
    """What SQL has and JSON has not is written so that every reader reads it."""
    value = {
        "nan": math.nan,
        "inf": [math.inf, 1.5],
        "bytes": b"\x01\xff",
        "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "span": timedelta(seconds=90),
        "decimal": Decimal("1.10"),
        "surrogate": "\ud800",
    }
    text = reports.as_json(value)
    text.encode("utf-8")
    assert json.loads(text) == {
        "nan": None,
        "inf": [None, 1.5],
        "bytes": "01ff",
        "time": "2026-01-02T03:04:05+00:00",
        "span": 90.0,
        "decimal": "1.10",
        "surrogate": "\ud800",
    }
    assert reports.as_json("ü") == '"ü"'


# --- trust -----------------------------------------------------------------------------------


def test_trust_shows_then_signs(place, monkeypatch):
    """Without --yes a foreign store is shown and stays foreign; with it, it is this user's."""
    monkeypatch.setenv("NBDURABLE_KEY_FILE", str(place / "other.key"))
    shown = call("trust", "analysis.ipynb")
    assert shown.exit_code == 0
    assert "another key signed this store" in shown.stdout
    assert "1 runs, 3 saved steps" in shown.stdout
    assert "load(1)" in shown.stdout
    assert re.search(
        r"nothing was signed; nbdurable trust \S+ --yes [0-9a-f]{32} signs it\n\Z", shown.stdout
    )
    check_one_line(call("runs", *NOTEBOOK))
    assert call("trust", "analysis.ipynb", "--yes").stdout.endswith("signed with your key\n")
    assert asked("runs")
    assert "your key signed this store" in call("trust", "analysis.ipynb").stdout


def test_trust_while_a_cell_uses_the_store(place):
    """A store that a run of this process uses is not signed under it."""
    store = place / ".nbdurable" / "analysis.duckdb"
    with workflow("w", store=store), pytest.raises(nbdurable.UsageError, match="in use"):
        maintenance.trust(store)


# --- doctor ----------------------------------------------------------------------------------


def test_gc_shows_then_takes_out(place):
    """A run that another has replaced is shown, then gone; the other stays."""
    store = place / ".nbdurable" / "analysis.duckdb"
    with workflow("w", store=store, new=True):
        program()
    open_stores.close_stores()
    shown = call("gc", "--json", *NOTEBOOK)
    assert [row["outcomes"] for row in json.loads(shown.stdout)] == [3]
    assert "`nbdurable gc --yes` takes them out" in shown.stderr
    assert "nothing that is no longer needed" in call("gc", "--older-than", "1h", *NOTEBOOK).stdout
    assert len(asked("runs")) == 2
    assert "taken out: 3 outcomes" in call("gc", "--yes", *NOTEBOOK).stdout
    assert [row["saved"] for row in asked("runs")] == [3]
    assert "nothing that is no longer needed" in call("gc", *NOTEBOOK).stdout
    wrong = call("gc", "--older-than", "soon", *NOTEBOOK)
    check_one_line(wrong, "--older-than soon: not an age")


def test_doctor_of_a_sound_store(place):
    """A sound store: files, versions, key, lock, invariants; nothing is wrong."""
    found = {one["what"]: one for one in asked("doctor")}
    assert {"store", "versions", "signing key", "lock", "invariants"} <= set(found)
    assert f"nbdurable {nbdurable.__version__}" in found["versions"]["found"]
    assert f"duckdb {duckdb.__version__}" in found["versions"]["found"]
    assert "MiB" in found["store"]["found"]
    assert [one["sound"] for one in found.values() if one["sound"] is not None] == [True] * 3


def test_doctor_of_a_sick_store(place):
    """Violations are listed, and the exit code is 1."""
    store = place / ".nbdurable" / "analysis.duckdb"
    with duckdb.connect(str(store)) as connection:
        connection.execute("UPDATE nbdurable.checkpoints SET number = 77 WHERE name = 'load'")
    result = call("doctor", *NOTEBOOK)
    assert result.exit_code == 1
    assert "a checkpoint with a wrong signature: load(1)" in result.stdout
    assert "1 invariants do not hold" in result.stdout


def test_doctor_of_an_unfinished_run(place):
    """An unfinished run is told, and is no fault."""
    with pytest.raises(RuntimeError), workflow("late", store=place / ".nbdurable/analysis.duckdb"):
        raise RuntimeError
    found = asked("doctor")
    [run] = [one for one in found if one["what"] == "unfinished run"]
    assert run["found"].startswith("late: failed, 0 saved")
    assert run["sound"] is None


def test_doctor_of_a_key_that_others_read(place, monkeypatch):
    """A key that others can read is wrong; one that is not there yet is not."""
    key = place / "a.key"
    monkeypatch.setenv("NBDURABLE_KEY_FILE", str(key))
    assert "is not there yet" in call("doctor", *NOTEBOOK).stdout
    key.chmod(0o644)
    result = call("doctor", *NOTEBOOK)
    assert "chmod 600" in result.stdout
    assert result.exit_code == 1
    assert stat.S_IMODE(key.stat().st_mode) == 0o644


def test_doctor_counts_large_values(place):
    """What lies beside the store is counted."""
    folder = place / ".nbdurable" / "analysis.duckdb.objects"
    folder.mkdir()
    (folder / "aa").write_bytes(bytes(2048))
    (folder.parent / "analysis.duckdb.wal").write_bytes(b"")
    found = {one["what"]: one["found"] for one in asked("doctor")}
    assert found["large values"] == "1 files, 2.0 KiB"
    assert found["write-ahead log"].startswith("0 bytes")


# --- export ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["parquet", "json"])
@pytest.mark.parametrize("values", [False, True])
def test_export(place, ending, values):
    """A run's steps, with their values or not, by either way of naming the run."""
    [run] = asked("runs")
    flags = ["--values"] if values else []
    for name in ("w", run["run"], run["run"][:8]):
        result = call("export", name, "--to", f"it's.{ending}", *flags, *NOTEBOOK)
        assert (result.exit_code, result.stdout) == (0, "")
        assert "3 steps" in result.stderr
    target = place / f"it's.{ending}"
    assert not list(place.glob(".*partial"))
    if ending == "json":
        rows = json.loads(target.read_text(encoding="utf-8"))
    else:
        with duckdb.connect() as connection:
            found = connection.execute("FROM read_parquet(?)", [str(target)])
            names = [column[0] for column in found.description]
            rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        assert isinstance(rows[0]["started"], datetime)
    assert [row["label"] for row in rows] == ["load(1)", "plain()", "refuse()"]
    assert [row["number"] for row in rows] == [1, 2, 3]
    assert ("value" in rows[0]) == values
    if values:
        told = [row["value"] for row in rows]
        if ending == "parquet":
            told = [json.loads(value) for value in told]
        assert told[1:] == [{"a": [1, None, "ü"]}, "ValueError: refused"]
        assert "n" in told[0]


def test_export_that_cant_be(place):
    """A wrong ending, an unknown run, a place that can't be written, an unsigned value."""
    check_one_line(call("export", "w", "--to", "x.csv", *NOTEBOOK), ".parquet or .json")
    check_one_line(call("export", "v", "--to", "x.json", *NOTEBOOK), "no run is called v")
    for ending in ("json", "parquet"):
        result = call("export", "w", "--to", f"none/x.{ending}", *NOTEBOOK)
        check_one_line(result, "can't be written")
    with duckdb.connect(str(place / ".nbdurable" / "analysis.duckdb")) as connection:
        connection.execute("UPDATE nbdurable.checkpoints SET number = number + 10")
    check_one_line(call("export", "w", "--to", "x.json", "--values", *NOTEBOOK), "not signed")
    assert not (place / "x.json").exists()


# --- what the command line costs -----------------------------------------------------------

COST = """
import sys
from nbdurable.cli import main
main(["runs", "--store", sys.argv[1]], standalone_mode=False)
print(*(name for name in ("IPython", "ipykernel", "nbclient", "pandas") if name in sys.modules))
"""


def test_no_ipython(place):
    """Asking a store loads neither IPython nor a notebook's client, nor pandas."""
    make(place / "plain.duckdb")
    command = [sys.executable, "-c", COST, str(place / "plain.duckdb")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert done.stdout.splitlines()[-1] == ""


def test_the_demo_folder_in_the_help_is_the_demos():
    """The help names the folder that the demonstration makes."""
    assert f"./{story.FOLDER}]" in call("demo", "--help").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell):
    """What the help says of completion is so."""
    assert f"{shell}_source" in call("--help").stdout
    result = call(env={"_NBDURABLE_COMPLETE": f"{shell}_source"})
    assert "_NBDURABLE_COMPLETE" in result.stdout


def test_stores_are_let_go(place):
    """After a command the file is nobody's."""
    assert call("runs", *NOTEBOOK).exit_code == 0
    assert open_stores._state.opens == {}
    Store.open(place / ".nbdurable" / "analysis.duckdb").close()
