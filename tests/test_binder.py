"""What Binder makes of the folder `binder`: repo2docker's own reading of it, and its result.

The container itself is left out, for it needs a Docker daemon; what goes into it is
not: repo2docker's build packs are asked, and then the same pip command runs in a
fresh environment, the same script after it, and the same JupyterLab. Its Python is
the one asked for where this machine has it, else the one that runs the tests.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import secrets
import shutil
import socket
import subprocess
import tomllib

import pytest
from support import notebooks
from support.environments import ROOT, environment, interpreter, pip, run, sealed

pytestmark = pytest.mark.timeout(900)

BINDER = ROOT / "binder"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIRST = "notebooks/quickstart.ipynb"
BASE = "/user/somebody/"


@pytest.fixture(scope="module")
def verdict(tmp_path_factory):
    """Ask repo2docker, in an environment of its own, what it makes of the repository."""
    home = tmp_path_factory.mktemp("repo2docker")
    with environment(home / "env") as python:
        pip(python, "install", "jupyter-repo2docker>=2026.4")
        script = ROOT / "tests" / "support" / "repo2docker_says.py"
        said = run([python, script], cwd=ROOT, env=sealed(home))
    return json.loads(said.stdout)


@pytest.fixture(scope="module")
def binder(tmp_path_factory):
    """Install what Binder installs, as it does: by pip, in the repository's root, from one file."""
    asked = (BINDER / "runtime.txt").read_text().strip().removeprefix("python-")
    with environment(tmp_path_factory.mktemp("binder") / "env", interpreter(asked)) as python:
        pip(python, "install", "-r", BINDER / "requirements.txt")
        yield python


def test_repo2docker_accepts_the_folder(verdict):
    """It is a Python repository to repo2docker, which finds the folder and supports the version."""
    assert (verdict["pack"], verdict["folder"]) == ("PythonBuildPack", "binder")
    assert (BINDER / "runtime.txt").read_text() == f"python-{verdict['python']}\n"


def test_repo2docker_knows_every_file(verdict):
    """No file in the folder is one that repo2docker would pass over."""
    names = {path.relative_to(BINDER).as_posix() for path in BINDER.rglob("*")}
    assert names
    assert names <= set(verdict["asked"])


def test_the_image_is_built_in_order(verdict):
    """The checkout is there before pip installs from it, and the script runs after that."""
    lines = verdict["dockerfile"].splitlines()
    source = next(n for n, line in enumerate(lines) if re.match(r"COPY \S+ src/ ", line))
    (install,) = [n for n, line in enumerate(lines) if '-r "binder/requirements.txt"' in line]
    script = lines.index("RUN ./binder/postBuild")
    assert source < install < script


def test_the_python_is_a_supported_one():
    """Binder's Python is one that the project says it supports."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = (BINDER / "runtime.txt").read_text().strip().removeprefix("python-")
    assert f"Programming Language :: Python :: {version}" in project["classifiers"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_in_what_binder_installs(binder, tmp_path, path):
    """A notebook shows in that environment's own kernel what it shows where it was made."""
    copy = shutil.copy(path, tmp_path)
    jupyter = [binder.with_name("jupyter"), "execute", "--inplace", "--timeout=60"]
    run([*jupyter, copy], cwd=tmp_path, env=sealed(tmp_path, PATH=path_of(binder)))
    assert notebooks.shown(notebooks.read(copy)) == notebooks.shown(notebooks.read(path))


def test_the_package_is_installed_not_linked(binder, tmp_path):
    """The notebooks there import what pip built, not whatever lies in the working folder."""
    found = run(
        [binder, "-c", "import nbdurable; print(nbdurable.__file__)"],
        cwd=tmp_path,
        env=sealed(tmp_path),
    )
    assert found.stdout.startswith(str(binder.parents[1]))


def test_the_live_view_has_its_front_end(binder, tmp_path):
    """JupyterLab there has the two extensions that draw the live view."""
    listed = run(
        [binder.with_name("jupyter"), "labextension", "list"],
        cwd=tmp_path,
        env=sealed(tmp_path, PATH=path_of(binder)),
    )
    said = re.sub(r"\x1b\[\d*m", "", listed.stdout + listed.stderr)
    for extension in ("anywidget", "@jupyter-widgets/jupyterlab-manager"):
        assert re.search(rf"{extension} v\S+ enabled OK", said), said


def test_jupyterlab_opens_the_quickstart(binder, tmp_path):
    """After the script, the server's front page is the quickstart, and the others are beside it."""
    variables = sealed(tmp_path, PATH=path_of(binder), NB_PYTHON_PREFIX=str(binder.parents[1]))
    run([BINDER / "postBuild"], cwd=ROOT, env=variables)
    with lab(binder, variables, tmp_path / "lab.log") as get:
        status, headers, _ = get("")
        assert status == http.client.FOUND
        assert headers["Location"].removesuffix("?") == f"{BASE}lab/tree/{FIRST}"
        assert get(f"lab/tree/{FIRST}")[0] == http.client.OK
        listing = json.loads(get("api/contents/notebooks")[2])
        served = {entry["path"] for entry in listing["content"]}
        assert served >= {f"notebooks/{path.name}" for path in NOTEBOOKS}


def path_of(python):
    """Return the search path of an activated environment, which is what Binder's images have."""
    return f"{python.parent}:/usr/bin:/bin"


@contextlib.contextmanager
def lab(python, variables, log):
    """Start JupyterLab as BinderHub does, below `BASE`; give a function that gets a page of it."""
    token = secrets.token_hex(8)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(python.with_name("jupyter-lab"), "--no-browser", "--allow-root", "--ip=127.0.0.1"),
        *(f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.base_url={BASE}"),
        f"--IdentityProvider.token={token}",
    ]

    def get(path):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", BASE + path, headers={"Authorization": f"token {token}"})
            reply = connection.getresponse()
            return reply.status, reply.headers, reply.read()

    with log.open("wb") as said:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=said, stderr=said)
    try:
        while not answers(get):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
                pytest.fail(f"JupyterLab ended:\n{log.read_text()}")
        yield get
    finally:
        process.terminate()
        process.wait(60)


def answers(get):
    """Say whether there is somebody to answer."""
    try:
        return get("api")[0] == http.client.OK
    except ConnectionRefusedError:
        return False
