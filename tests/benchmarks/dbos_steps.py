"""A program: the same steps in DBOS Python, its system database in SQLite.

``python -m tests.benchmarks.dbos_steps FOLDER COUNT`` gathers COUNT async steps in one
async workflow with `asyncio.gather`, and prints the seconds that took. Starting and
stopping DBOS, and a small workflow before, are outside the time. Settings are DBOS's
own defaults, its log apart.
"""

import asyncio
import json
import sys
from pathlib import Path
from time import perf_counter

from dbos import DBOS, SetWorkflowID

from .measure import expect


@DBOS.step()
async def double(number):
    """Do next to nothing."""
    return 2 * number


@DBOS.workflow()
async def fan_out(count):
    """Gather steps; give their results and the seconds they took."""
    started = perf_counter()
    results = await asyncio.gather(*[double(number) for number in range(count)])
    return results, perf_counter() - started


async def measure(count):
    """Run the workflow and compare its results, and what it saved."""
    await fan_out(20)
    with SetWorkflowID("measured"):
        results, seconds = await fan_out(count)
    expect(results, [2 * number for number in range(count)], "results of DBOS")
    saved = await DBOS.list_workflow_steps_async("measured")
    expect(sorted(one["output"] for one in saved), results, "steps that DBOS saved")
    return seconds


def main(folder, count):
    """Launch DBOS on a new database, measure, stop it."""
    DBOS(
        config={
            "name": "benchmark",
            "system_database_url": f"sqlite:///{folder / 'system.sqlite'}",
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    try:
        seconds = asyncio.run(measure(count))
    finally:
        DBOS.destroy()
    print(json.dumps({"gather": seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
