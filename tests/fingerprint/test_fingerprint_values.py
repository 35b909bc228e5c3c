"""Values: equal ones give equal digests in every process, unequal ones never do."""

from __future__ import annotations

import copy
import json
import os
import pathlib
import pickle
import subprocess
import sys

import pytest
from fingerprint_kit.table import TABLE, digests

from nbdurable.fingerprint import Fingerprinter

HERE = pathlib.Path(__file__).parent.parent
CODE = {"function", "function 3", "closure 1", "closure 2", "lambda set", "method", "module"}


@pytest.fixture(scope="module")
def found():
    """Digests of the whole table."""
    return digests()


@pytest.mark.parametrize("name", TABLE)
def test_equal_values_have_equal_digests(found, name):
    """All values in one line of the table are one."""
    assert len(set(found[name])) == 1


def test_unequal_values_have_unequal_digests(found):
    """No two lines of the table share a digest."""
    seen = {}
    for name, (digest, *_) in found.items():
        assert seen.setdefault(digest, name) == name


def test_nothing_in_the_table_is_left_out():
    """No value of the table needs a note."""
    fp = Fingerprinter(strict=True)
    assert [n for n, vs in TABLE.items() if fp.value(vs[0]).notes] == []


@pytest.mark.parametrize(
    "name", [n for n in TABLE if n not in CODE | {"proxy", "proxy reordered", "memoryview"}]
)
def test_a_copy_and_a_pickle_round_trip_change_nothing(found, name):
    """What comes back from a checkpoint is the same argument."""
    fp = Fingerprinter()
    value = TABLE[name][0]
    assert fp.value(copy.deepcopy(value)).digest.hex() == found[name][0]
    assert fp.value(pickle.loads(pickle.dumps(value, protocol=5))).digest.hex() == found[name][0]


def test_digests_are_the_same_in_every_process():
    """Two processes with other hash seeds agree on every line."""
    results = []
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(HERE / "fingerprint_kit" / "table.py")],
            env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout))
    assert results[0] == results[1]
