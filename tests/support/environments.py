"""Python environments made by a test: venv, pip, and programs that run in them.

Nothing of the user's own is touched: `sealed` gives the variables with which every
program keeps its Jupyter and IPython folders below one of the test's.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FOREIGN = ("JPY_", "JUPYTER", "IPYTHON", "PYTHON", "VIRTUAL_ENV", "NBDURABLE_STORE", "COLUMNS")


def sealed(folder, **more):
    """Return this process's environment without what would lead a program out of `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    return kept | {place: str(folder / place.lower()) for place in places} | more


@contextlib.contextmanager
def environment(folder, python=sys.executable):
    """Make a fresh environment in `folder` with `python`, give its own; it is gone afterwards."""
    try:
        run([python, "-m", "venv", folder], cwd=ROOT, env=sealed(folder))
        yield folder / "bin" / "python"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def pip(python, *words):
    """Run an environment's pip, in the repository's root."""
    environ = sealed(python.parents[1], PIP_DISABLE_PIP_VERSION_CHECK="1")
    run([python, "-m", "pip", "--quiet", *words], cwd=ROOT, env=environ)


def interpreter(version):
    """Return a Python of `version` (as ``3.12``): this one, one on the path, or else this one."""
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = shutil.which(f"python{version}")
    if running == version or found is None:
        return sys.executable
    answer = subprocess.run(
        [found, "-c", "import ensurepip, sys; print(*sys.version_info[:2], sep='.')"],
        check=False,
        capture_output=True,
        text=True,
    )
    return found if answer.stdout.strip() == version else sys.executable


def run(command, *, cwd, env, code=0, timeout=600):
    """Run a program to its end and give what it said.

    Raises:
        AssertionError: Its exit code is not `code`; all that it said is in the message.
    """
    ended = subprocess.run(
        [str(word) for word in command],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=env,
        timeout=timeout,
    )
    assert ended.returncode == code, (
        f"{command} ended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}"
    )
    return ended
