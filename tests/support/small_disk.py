"""A small real disk for a program: one that can be filled, freed, and made read-only.

A tmpfs in a mount namespace of the program's own, which ends with it: as root, or as
root of a user namespace. Where neither may be had the kernel limits the size of each file
of the process instead, which is as real an error of every write. Permissions bind the
program, root or not.
"""

import functools
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = 4096  # bytes: a tmpfs counts in pages

_MOUNTED = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'
_BOUND = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
_CALL = """
import importlib, json, sys
from pathlib import Path
from support.small_disk import Disk
module, name, folder, mounted, arguments = sys.argv[1:]
disk = Disk(Path(folder), mounted == "mounted")
told = getattr(importlib.import_module(module), name)(disk, *json.loads(arguments))
print("\\n" + json.dumps(told))
"""


class Disk:
    """The disk that a program runs on; made by `run`."""

    def __init__(self, folder, mounted):
        self.folder = folder
        self.mounted = mounted

    def fill(self, leaving=0, *, longest=None):
        """Leave so many bytes; or let no file be longer than so many, or than they are by now."""
        if not self.mounted:
            now = max([0, *(one.stat().st_size for one in self.folder.rglob("*"))])
            self._limit(now + leaving if longest is None else longest)
            return
        with self._filler.open("wb") as filler:
            while (room := self.room() - leaving) >= PAGE:
                filler.write(bytes(min(room, 1 << 20) // PAGE * PAGE))
                filler.flush()

    def free(self):
        """Free the room again."""
        if self.mounted:
            self._filler.unlink()
        else:
            self._limit(resource.RLIM_INFINITY)

    def room(self):
        """Return how many bytes are free."""
        return shutil.disk_usage(self.folder).free

    def files(self):
        """Return the names of what the programs have put there, folders aside."""
        found = [one for one in self.folder.rglob("*") if one.is_file() and one != self._filler]
        return sorted(str(one.relative_to(self.folder)) for one in found)

    def anew(self, function, *arguments):
        """Call a function of a test module in a new process on this disk; give its result."""
        told = subprocess.run(
            _call(function, self.folder, self.mounted, arguments),
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env=_environment(),
        )
        assert told.returncode == 0, f"{told.stdout}\n{told.stderr}"
        return json.loads(told.stdout.splitlines()[-1])

    def read_only(self, folder):
        """Let nothing be written any more: neither to the disk, if it is one, nor to `folder`."""
        for place in [*folder.rglob("*"), folder]:
            place.chmod(place.stat().st_mode & ~0o222)
        if self.mounted:
            self._remount("ro")

    def writable(self, folder):
        """Undo `read_only`."""
        if self.mounted:
            self._remount("rw")
        for place in [folder, *folder.rglob("*")]:
            place.chmod(place.stat().st_mode | 0o200)

    def _remount(self, how):
        subprocess.run(["mount", "-o", f"remount,{how}", self.folder], check=True, timeout=20)

    @property
    def _filler(self):
        return self.folder / "filler"

    @staticmethod
    def _limit(most):
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))


def run(function, folder, *arguments, size="64m", mounted=True):
    """Call ``function(disk, *arguments)`` in a process with a small disk at `folder`.

    Args:
        function: One of a test module.
        folder: Where the disk is; made here.
        arguments: What JSON can hold.
        size: The disk's, as mount has it.
        mounted: A disk of its own, where one may be had; else a limit on files only.
    """
    folder.mkdir()
    way = _way() if mounted else None
    command = [] if way is None else [*way, size, str(folder)]
    if way is not None or os.geteuid() == 0:
        command += _BOUND
    told = subprocess.run(
        [*command, *_call(function, folder, way is not None, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        env=_environment(),
    )
    assert told.returncode == 0, f"{told.stdout}\n{told.stderr}"
    return json.loads(told.stdout.splitlines()[-1])


@functools.cache
def _way():
    """Return the words that mount a disk for what comes after them; None if nobody may."""
    for how in ("-m", "-rm"):
        way = ["unshare", how, "sh", "-c", _MOUNTED, "sh"]
        try:
            tried = subprocess.run(
                [*way, "1m", "/tmp", *_BOUND, "true"],
                check=False,
                capture_output=True,
                timeout=20,
            )
        except FileNotFoundError:
            return None  # no Linux
        if tried.returncode == 0:
            return way
    return None


def _call(function, folder, mounted, arguments):
    place = "mounted" if mounted else "limited"
    words = [function.__module__, function.__name__, str(folder), place, json.dumps(arguments)]
    return [sys.executable, "-c", _CALL, *words]


def _environment():
    paths = [str(TESTS), str(TESTS / "store"), str(TESTS.parent)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
