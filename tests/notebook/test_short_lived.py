"""Machines that are thrown away: known ones are named at load, with the line for elsewhere."""

import pytest
from kernel_harness import kernel

from nbdurable.notebook.short_lived import told

PLAIN = {"HOME": "/home/me", "TMPDIR": "/fast/7"}


@pytest.mark.parametrize(
    ("store", "variables", "words"),
    [
        ("/content/.nbdurable", {"COLAB_GPU": ""}, "MyDrive/checkpoints.duckdb')"),
        ("/content/.nbdurable/a.duckdb", {"COLAB_RELEASE_TAG": "x"}, "MyDrive/a.duckdb')"),
        ("/kaggle/working/.nbdurable", {"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, "Persistence"),
        ("/home/jovyan/.nbdurable/a.duckdb", {"BINDER_LAUNCH_HOST": "x"}, "folder .nbdurable"),
        ("/scratch/me/.nbdurable/a.duckdb", {"JUPYTERHUB_USER": "me"}, "store='~/a.duckdb')"),
        ("/fast/7/a.duckdb", {"JUPYTERHUB_USER": "me"}, "is in /fast/7, which hubs empty"),
        ("/home/me/.nbdurable/a.duckdb", {"JUPYTERHUB_USER": "me"}, ""),
        ("/content/drive/MyDrive/a.duckdb", {"COLAB_GPU": ""}, ""),
        ("/tmp/.nbdurable/a.duckdb", {}, ""),
        (":memory:", {"JUPYTERHUB_USER": "me"}, ""),
    ],
)
def test_what_is_told(store, variables, words):
    """Each known place is told with what keeps the store, and no other place is."""
    said = told(store, PLAIN | variables)
    assert words in said
    assert bool(words) == bool(said)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the kernel's client closes late
def test_told_once_at_load(tmp_path):
    """It is one line where a person looks."""
    with kernel(tmp_path, {"BINDER_LAUNCH_HOST": "https://hub"}) as running:
        said = running.run("%load_ext nbdurable", "cell").stdout
        assert said.startswith(f"Binder throws {tmp_path / '.nbdurable'} away")
        assert said.count("\n") == 1
        assert running.run("%%durable a --quiet\n1").text.count("Binder") == 0
