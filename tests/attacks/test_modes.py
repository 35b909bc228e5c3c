"""What other accounts of a machine can read: a folder of ours is its user's alone."""

import os
import stat

from nbdurable import workflow
from nbdurable.api import open_stores


def test_the_folder_of_stores(tmp_path, monkeypatch):
    """It is made for its user alone, whatever the umask says; the user's own folders stay."""
    monkeypatch.chdir(tmp_path)
    before = os.umask(0)
    try:
        with workflow("w"):
            pass
        with workflow("w", store="mine/s.duckdb"):
            pass
    finally:
        os.umask(before)
        open_stores.close_stores()
    assert stat.S_IMODE((tmp_path / ".nbdurable").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o777
