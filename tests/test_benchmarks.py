"""The benchmarks: that the long ones run, on a small scale; what they find is not looked at."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by Linux's /proc")
def test_million(tmp_path):
    """Of 2,000 checkpoints instead of a million, every figure is there."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "million", "--rounds=1",
         f"--folder={tmp_path}", f"--json={tmp_path / 'figures.json'}"],
        cwd=ROOT, env={**os.environ, "NBDURABLE_CHECKPOINTS": "2000"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())["figures"]
    found = {one["what"]: (one["median"], one["target"]) for one in figures}
    assert found["opening, loading the index"][1] == {"at_most": 10}
    assert found["peak memory of that process"][1] == {"at_most": 1024}
    assert found["their ratio"][1] == {"at_most": 1.3}
    size, _ = found["2,000 checkpoints: file, for each"]
    assert 100 < size < 4000
    beyond, _ = found.pop("beyond one that opens an empty store")
    assert beyond < found["peak memory of that process"][0]
    assert all(value > 0 for value, _ in found.values())
