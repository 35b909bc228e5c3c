"""All that a commit needs, in one command: ``python -m tests [--quick] [PYTEST ARGUMENTS]``.

Format, lint, types, then every test, some at a time. Each check is run whatever
became of those before it; the exit code is 1 if one failed. With ``--quick`` only the
tests that need no kernel, no browser and no crash: under two minutes.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORES = os.cpu_count() or 1

CHECKS = (
    ("ruff", "format", "--check"),
    ("ruff", "check"),
    ("mypy",),
    # Files in the order of conftest.py: the long ones come first, not those of many tests.
    # One process more than there are cores: many tests wait for a disk, a kernel or a page.
    ("pytest", f"--numprocesses={CORES + 1}", "--dist=loadfile", "--no-loadscope-reorder"),
)

QUICK = (
    "tests/codec",
    "tests/executors",
    "tests/fingerprint",
    "tests/inspection/test_reports.py",
    "tests/output/test_output.py",
    "tests/output/test_pieces.py",
    "tests/output/test_streams.py",
    "tests/store/test_golden.py",
    "tests/store/test_named.py",
    "tests/store/test_saved.py",
    "tests/test_architecture.py",
    "tests/test_errors.py",
    "tests/test_label.py",
    "tests/test_records.py",
    "tests/test_testing.py",
    "tests/view/test_progress.py",
    "tests/view/test_summary.py",
    "tests/view/test_timeline.py",
    "tests/view/test_words.py",
)
"""What runs without kernels and browser, in the order of the folders."""


def main():
    """Run the checks and give the exit code."""
    given = sys.argv[1:]
    if quick := "--quick" in given:
        given.remove("--quick")
        given += QUICK
    failed = []
    for check in CHECKS:
        line = [*check, *given] if check == CHECKS[-1] else [*check]
        print(f"$ {' '.join(line if not quick else check)}", flush=True)
        done = subprocess.run([sys.executable, "-m", *line], cwd=ROOT, check=False)
        if done.returncode:
            failed.append(check[0])
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
