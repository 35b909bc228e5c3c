"""All that a commit needs, in one command: ``python -m tests [PYTEST ARGUMENTS]``.

Format, lint, types, then every test, a core each at a time. Each check is run whatever
became of those before it; the exit code is 1 if one failed.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

CHECKS = (
    ("ruff", "format", "--check"),
    ("ruff", "check"),
    ("mypy",),
    # Files in the order of their names: the long ones come first, not those of many tests.
    ("pytest", "--numprocesses=auto", "--dist=loadfile", "--no-loadscope-reorder"),
)


def main():
    """Run the checks and give the exit code."""
    failed = []
    for check in CHECKS:
        given = sys.argv[1:] if check == CHECKS[-1] else []
        print(f"$ {' '.join([*check, *given])}", flush=True)
        done = subprocess.run([sys.executable, "-m", *check, *given], cwd=ROOT, check=False)
        if done.returncode:
            failed.append(check[0])
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
