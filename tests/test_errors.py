"""The exception tree, its sentences, and what the package exports and loads."""

import copy
import json
import pickle  # noqa: TID251 - an error may be pickled by whoever catches it
import subprocess
import sys

import pytest

import nbdurable
from nbdurable import errors
from nbdurable.codec.outcomes import decode_error, encode_error

# CONTRACT section 9, as child: parent.
TREE = {
    "DurableError": "Exception",
    "UsageError": "DurableError",
    "NotInRunError": "UsageError",
    "StepError": "DurableError",
    "StepTimeoutError": "StepError",
    "StepCancelledError": "StepError",
    "InputMovedError": "StepError",
    "RetriesExhaustedError": "StepError",
    "WaitTimeoutError": "DurableError",
    "CodecError": "DurableError",
    "EncodeError": "CodecError",
    "DecodeError": "CodecError",
    "UntrustedCheckpointError": "CodecError",
    "FingerprintError": "DurableError",
    "StoreError": "DurableError",
    "StoreLockedError": "StoreError",
    "StoreVersionError": "StoreError",
    "StoreCorruptError": "StoreError",
    "StoreFullError": "StoreError",
}

# One of each, made as the package makes it, with words of its sentence.
EXAMPLES = [
    (errors.DurableError("a sentence"), ["a sentence"]),
    (errors.UsageError("what, where, what to do"), ["what, where, what to do"]),
    (errors.NotInRunError("go()"), ["go()", "outside a run", "%%durable NAME", "workflow(NAME)"]),
    (errors.NotInRunError("go()", "the run has ended"), ["go(): the run has ended", "%%durable"]),
    (errors.StepError("s"), ["s"]),
    (errors.StepTimeoutError("quote('a')", 2.5), ["quote('a')", "timeout of 2.5 s"]),
    (errors.StepCancelledError("quote('a')"), ["quote('a'): it was cancelled"]),
    (errors.StepCancelledError("quote('a')", "it lost a race"), ["quote('a'): it lost a race"]),
    (
        errors.InputMovedError("fit()", ("`model`", "`rows`")),
        ["fit(): `model`, `rows` changed", "pass a copy"],
    ),
    (errors.RetriesExhaustedError("s()", 3, "it died"), ["s(): gave up after 3", "it died"]),
    (errors.WaitTimeoutError("s()", 0.5), ["s(): not finished", "0.5 s", "goes on"]),
    (errors.CodecError("c"), ["c"]),
    (errors.EncodeError("e"), ["e"]),
    (errors.DecodeError("d"), ["d"]),
    (errors.UntrustedCheckpointError("u"), ["u"]),
    (errors.FingerprintError("f"), ["f"]),
    (errors.StoreError("st"), ["st"]),
    (errors.StoreLockedError("lo"), ["lo"]),
    (errors.StoreVersionError("ve"), ["ve"]),
    (errors.StoreCorruptError("co"), ["co"]),
    (errors.StoreFullError("fu"), ["fu"]),
]
IDS = [type(error).__name__ for error, _ in EXAMPLES]


def test_the_tree_is_the_contracts():
    """Each class has the parent that the contract gives it, and there are no others."""
    found = {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert {name: kind.__bases__[0].__name__ for name, kind in found.items()} == TREE
    assert all(kind.__doc__ for kind in found.values())


def test_timeouts_are_timeouts():
    """Python's own TimeoutError catches both of ours."""
    for error in (errors.StepTimeoutError("s", 1), errors.WaitTimeoutError("s", 1)):
        assert isinstance(error, TimeoutError)
        assert isinstance(error, errors.DurableError)


@pytest.mark.parametrize(("error", "words"), EXAMPLES, ids=IDS)
def test_sentences(error, words):
    """Each error says what, where, and what to do next, in one line."""
    for word in words:
        assert word in str(error)
    assert "\n" not in str(error)


def test_every_error_has_an_example():
    """The examples leave no class out."""
    assert {type(error).__name__ for error, _ in EXAMPLES} == set(TREE)


@pytest.mark.parametrize(("error", "words"), EXAMPLES, ids=IDS)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_survives_a_pickle(error, words, protocol):
    """Type, fields, sentence, notes and attributes survive."""
    error = pickle.loads(pickle.dumps(error))  # where Dask is loaded, copies share attributes
    error.add_note("a note")
    found = pickle.loads(pickle.dumps(error, protocol))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert found.args == error.args
    assert found.__notes__ == ["a note"]


@pytest.mark.parametrize(("error", "words"), EXAMPLES, ids=IDS)
def test_survives_the_store(error, words):
    """An error of ours can be an outcome: the codec gives it back."""
    found = decode_error(encode_error(error).data)
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert found.args == error.args


@pytest.mark.parametrize(("error", "words"), EXAMPLES, ids=IDS)
def test_survives_a_copy(error, words):
    """A copy is equal in type, fields and sentence."""
    for found in (copy.copy(error), copy.deepcopy(error)):
        assert (type(found), found.args, str(found)) == (type(error), error.args, str(error))


def test_an_error_without_fields_has_a_sentence():
    """A class raised bare says its own name."""
    assert str(errors.StoreError()) == "StoreError"


# --- the package ---------------------------------------------------------------------


def test_all_is_sorted_and_there():
    """`__all__` is sorted, without doubles; every name is there, every error among them."""
    names = nbdurable.__all__
    assert names == sorted(set(names))
    for name in names:
        assert getattr(nbdurable, name) is not None
    assert set(TREE) <= set(names)


def test_star_import():
    """``from nbdurable import *`` gives these names and nothing else."""
    namespace = {}
    exec("from nbdurable import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(nbdurable.__all__)


def test_public_names_have_a_public_home():
    """What the package exports says that it is the package's, or a module's of it."""
    for name in nbdurable.__all__:
        assert getattr(nbdurable, name).__module__.partition(".")[0] == "nbdurable"


def loaded_by(code):
    """Return the names of the modules that are loaded after `code` has run in a new process."""
    told = f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-W", "error", "-c", told]
    return set(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))


HEAVY = {
    "IPython", "ipykernel", "ipywidgets", "anywidget", "traitlets", "duckdb", "_duckdb", "click",
    "nbclient", "nbformat", "jupyter_client", "numpy", "pandas", "pyarrow", "polars", "torch",
    "matplotlib", "dask", "rich",
}  # fmt: skip


def test_importing_loads_little():
    """``import nbdurable`` loads no front end, no DuckDB, no array library."""
    assert loaded_by("import nbdurable") & HEAVY == set()


def test_errors_load_nothing():
    """The exception tree is standard library only."""
    code = (
        "import __future__, importlib.util as u, sys\n"
        f"spec = u.spec_from_file_location('alone', {errors.__file__!r})\n"
        "module = u.module_from_spec(spec)\n"
        "before = set(sys.modules)\n"
        "spec.loader.exec_module(module)\n"
        "assert set(sys.modules) == before, set(sys.modules) - before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_duckdb_is_loaded_by_the_first_run():
    """The first run loads DuckDB, and still no front end."""
    code = "import nbdurable\nwith nbdurable.workflow('w', store=':memory:'): pass"
    loaded = loaded_by(code)
    assert "duckdb" in loaded
    assert loaded & {"IPython", "ipykernel", "ipywidgets", "anywidget", "click"} == set()


def test_what_has_no_cure_ends_with_its_reason():
    """An empty cure leaves nothing behind the reason."""
    assert str(errors.EncodeError("a lock can't be pickled", "")) == "a lock can't be pickled"
    assert str(errors.EncodeError("it is open", "close it")) == "it is open; close it"
    assert (
        errors.EncodeError("it is open", "close it").cure,
        errors.EncodeError("no", "").cure,
    ) == ("close it", "")
