"""A notebook that was renamed or copied finds its checkpoints, and is asked about them."""

import duckdb  # noqa: TID251 - the file, as another program sees it
import pytest
from kernel_harness import kernel

from nbdurable import StoreError, StoreLockedError, UsageError, go, workflow
from nbdurable.api import configuration, open_stores
from nbdurable.inspection import maintenance
from nbdurable.inspection import queries as questions
from nbdurable.store import Store, adopt


@pytest.fixture
def folder(tmp_path):
    """A folder of notebooks; afterwards none is known."""
    yield tmp_path
    configuration.set_notebook(None)
    open_stores.close_stores()


def opened(folder, name, *, there=True):
    """Open a notebook, as its kernel does."""
    open_stores.close_stores()
    if there:
        (folder / f"{name}.ipynb").touch()
    configuration.set_notebook(folder / f"{name}.ipynb")


def cell():
    """Run a durable cell of one step; tell whether its body ran."""
    ran = []

    def compute():
        ran.append(1)

    with workflow("w"):
        go(compute).outcome()
    return bool(ran)


def cell_of(folder, name):
    """Run the cell in a new notebook."""
    opened(folder, name)
    assert cell()


def stores(folder):
    """Return the files beside the notebooks."""
    open_stores.close_stores()
    return sorted(one.name for one in (folder / ".nbdurable").iterdir() if one.suffix != ".lock")


def objects_of(folder, name):
    """Put an object file into a store, as a large value has one."""
    made = folder / ".nbdurable" / f"{name}.duckdb{adopt.OBJECTS}"
    made.mkdir()
    (made / ("0" * 64)).write_bytes(b"large")
    return made


def test_a_renamed_notebook_takes_what_is_its_own(folder):
    """The old notebook is gone: its store takes the new name, with its object files."""
    cell_of(folder, "analysis")
    objects = objects_of(folder, "analysis")
    (folder / "analysis.ipynb").rename(folder / "report.ipynb")
    opened(folder, "report")
    assert maintenance.earlier_names() == ["analysis"]
    assert maintenance.adopt("analysis.ipynb") == (
        "report.ipynb has the checkpoints of analysis now; they were its own"
    )
    assert not cell()
    assert not objects.exists()
    assert stores(folder) == [".gitignore", "report.duckdb", "report.duckdb.objects"]
    assert maintenance.earlier_names() == []


def test_a_copy_takes_a_copy(folder):
    """The old notebook is still there: each has its own from then on."""
    cell_of(folder, "analysis")
    objects = objects_of(folder, "analysis")
    opened(folder, "analysis-Copy1")
    assert maintenance.earlier_names() == ["analysis"]
    assert maintenance.adopt("analysis").endswith("analysis.ipynb keeps its own")
    assert not cell()
    opened(folder, "analysis")
    assert not cell()
    assert (objects / ("0" * 64)).read_bytes() == b"large"
    copied = folder / ".nbdurable" / "analysis-Copy1.duckdb.objects" / ("0" * 64)
    assert copied.read_bytes() == b"large"


def test_other_notebooks_are_not_offered(folder):
    """Neighbours have stores of their own; nor is what belongs to no notebook."""
    cell_of(folder, "other")
    cell_of(folder, "an")  # no copy of it is called analysis
    (folder / ".nbdurable" / "default.duckdb").touch()
    opened(folder, "analysis")
    assert maintenance.earlier_names() == []


def test_not_over_checkpoints_of_its_own(folder):
    """Nothing is lost by it: who has a store keeps it."""
    cell_of(folder, "old")
    cell_of(folder, "new")
    before = stores(folder)
    with pytest.raises(UsageError, match="has checkpoints of its own"):
        maintenance.adopt("old")
    assert stores(folder) == before


def test_nothing_to_adopt(folder):
    """A wrong name: those that there are are named."""
    cell_of(folder, "gone")
    (folder / "gone.ipynb").unlink()
    opened(folder, "new")
    with pytest.raises(UsageError, match="there are those of gone"):
        maintenance.adopt("wrong")
    for path in ("../gone", "a/gone", ""):
        with pytest.raises(UsageError, match="no path"):
            maintenance.adopt(path)
    configuration.set_notebook(None)
    with pytest.raises(UsageError, match="no notebook is known"):
        maintenance.adopt("gone")


def test_a_configured_store_is_nobodys(folder, monkeypatch):
    """Who names the store is not asked."""
    cell_of(folder, "gone")
    (folder / "gone.ipynb").unlink()
    opened(folder, "new")
    monkeypatch.setenv("NBDURABLE_STORE", str(folder / "mine.duckdb"))
    assert maintenance.earlier_names() == []


def test_a_store_in_use_is_not_taken(folder, monkeypatch):
    """Another kernel runs a cell on it: it is left there."""
    cell_of(folder, "gone")
    (folder / "gone.ipynb").unlink()
    opened(folder, "new")
    before = stores(folder)

    def held(*_, **__):
        raise StoreLockedError("held")

    monkeypatch.setattr(Store, "open", held)
    with pytest.raises(StoreLockedError):
        maintenance.adopt("gone")
    assert stores(folder) == before


def test_a_copy_that_fails_is_none(folder, monkeypatch):
    """A full disk leaves the old store, and no half of a new one."""
    cell_of(folder, "analysis")
    opened(folder, "analysis-Copy1")
    before = stores(folder)

    def full(_, to, **__):
        to.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(adopt.shutil, "copy2", full)
    with pytest.raises(StoreError, match="No space left"):
        maintenance.adopt("analysis")
    assert stores(folder) == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the kernel's client closes late
def test_told_when_the_extension_loads(folder):
    """A kernel in a renamed notebook says what there is, and takes it when told to."""
    cell_of(folder, "analysis")
    (folder / "analysis.ipynb").rename(folder / "report.ipynb")
    open_stores.close_stores()
    with kernel(folder, notebook=folder / "report.ipynb") as running:
        told = running.run("%load_ext nbdurable", "cell")
        assert "there are checkpoints of analysis" in told.stdout
        assert "%durable adopt analysis" in told.stdout
        assert "were its own" in running.run("%durable adopt analysis").stdout
        assert "w" in running.run("%durable runs").text
        assert "has checkpoints of its own" in running.run("%durable adopt analysis").text


def test_what_is_in_the_log_is_taken_along(folder):
    """A kernel that died has left a write-ahead log: it is folded in first."""
    cell_of(folder, "gone")
    open_stores.close_stores()
    path = folder / ".nbdurable" / "gone.duckdb"
    connection = duckdb.connect(str(path))
    connection.execute("PRAGMA disable_checkpoint_on_shutdown")
    connection.execute("INSERT INTO nbdurable.run_log VALUES ('late', 'late', 1, '')")
    connection.close()
    assert path.with_name("gone.duckdb.wal").exists()
    (folder / "gone.ipynb").unlink()
    opened(folder, "new")
    maintenance.adopt("gone")
    assert [one.name for one in questions.runs()] == ["w", "late"]
