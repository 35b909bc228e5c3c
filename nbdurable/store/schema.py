"""Schema `nbdurable`: its tables, its views, its version.

Invariant: only this schema is ever created, checked or migrated; a user's own
tables in `main` are never touched. Tables carry no primary keys: one process
holds the file, the replay index keeps identities unique, `check` proves it, and
a key index would make each commit dearer as the store grows. Digests are BLOBs,
times are seconds since the epoch (UTC); the views turn them into timestamps.

The views are for everybody's SQL, and stay when tables change:

========== ===========================================================================
view       a row for each
========== ===========================================================================
runs       run: ``workflow`` (its name), ``run`` (its id), ``created``, ``status`` (that
           of its last execution), ``executions``, ``saved`` (outcomes)
executions pass of a cell over a run: ``execution``, ``workflow``, ``run``, ``started``,
           ``ended``, ``status`` (finished, failed, interrupted; died, where it has no end
           yet), ``error``, ``pid``, ``host``, ``python``, ``packages``
steps      step: ``workflow``, ``run``, ``number`` (its place in commit order, NULL while
           there is no outcome), ``name``, ``label`` (with its arguments), ``status``
           (finished, failed, cancelled, not saved, in flight, unfinished), ``seconds``,
           ``attempts``, ``why`` it ran, ``started``, ``execution``, ``bytes``, ``call``,
           ``version``
attempts   try of a step: ``workflow``, ``run``, ``name``, ``label``, ``attempt``,
           ``started``, ``seconds``, ``ending``, ``error``, ``execution``, ``call``,
           ``version``
decisions  select that was decided: ``workflow``, ``run``, ``number`` (its winner's),
           ``label``, ``winner``, ``decided``, ``execution``
========== ===========================================================================

Times are timestamps in UTC, durations seconds. A view calls functions by their full
names: a macro in a user's `main`, called `count`, would come before DuckDB's own.
"""

from __future__ import annotations

from .rows import KINDS, columns_of

VERSION = 3  # the first that is kept; 1 and 2 were never released

TABLES: dict[str, str] = {
    table: ", ".join(f"{name} {kind} NOT NULL" for name, kind in columns_of(table).items())
    for table in KINDS
}
"""The columns of each table, in SQL; see `rows`."""

# A timer may be due at the end of time: no timestamp then.
_AT = "TRY(system.main.make_timestamp(CAST(system.main.multiply({}, 1e6) AS BIGINT)))"

# Of each piece, which takes 80 bytes, the length is a big-endian number at byte 41.
BYTES = """CAST(system.main.add(system.main.octet_length(c.payload), COALESCE(
               system.main.list_sum(system.main.list_transform(
                   system.main.range(0, system.main.octet_length(c.pieces), 80),
                   lambda i: CAST(system.main.concat('0x', system.main.hex(
                       system.main.array_slice(c.pieces, system.main.add(i, 41),
                                               system.main.add(i, 48)))) AS BIGINT))), 0))
               AS BIGINT)"""

_FAILED = """COALESCE((SELECT system.main.max(f.error) FROM nbdurable.failures f
                         WHERE f.call = {0}.call AND f.version = {0}.version
                         AND f.attempt = {0}.attempt AND f.execution = {0}.execution), {1})"""

VIEWS: dict[str, str] = {
    "executions": f"""
        SELECT e.id AS execution, r.name AS workflow, e.run,
               {_AT.format("e.started")} AS started, {_AT.format("x.ended")} AS ended,
               COALESCE(x.status, 'died') AS status, x.error, e.pid, e.host, e.python, e.packages
        FROM nbdurable.execution_log e
        JOIN nbdurable.run_log r ON r.id = e.run
        LEFT JOIN nbdurable.execution_ends x ON x.execution = e.id""",
    "runs": f"""
        SELECT r.name AS workflow, r.id AS run, {_AT.format("r.created")} AS created,
               COALESCE(system.main.last(e.status ORDER BY e.execution), 'new') AS status,
               system.main.count(e.execution) AS executions,
               (SELECT system.main.count_star() FROM nbdurable.checkpoints c
                JOIN nbdurable.execution_log o ON o.id = c.execution
                WHERE o.run = r.id) AS saved
        FROM nbdurable.run_log r LEFT JOIN nbdurable.executions e ON e.run = r.id
        GROUP BY r.name, r.id, r.created""",
    "steps": f"""
        SELECT o.workflow, o.run, c.number, c.name, c.label,
               CASE c.kind WHEN 'value' THEN 'finished' WHEN 'error' THEN 'failed'
                    ELSE c.kind END AS status,
               c.seconds, c.attempt AS attempts, c.why, {_AT.format("c.started")} AS started,
               c.execution, {BYTES} AS bytes, c.call, c.version
        FROM nbdurable.checkpoints c JOIN nbdurable.executions o USING (execution)
        UNION ALL
        SELECT o.workflow, o.run, NULL, a.name, a.label, a.ending, a.seconds, a.attempt, NULL,
               {_AT.format("a.started")}, a.execution, NULL, a.call, a.version
        FROM nbdurable.attempt_ends a JOIN nbdurable.executions o USING (execution)
        WHERE a.ending = 'not saved'
          AND NOT EXISTS (FROM nbdurable.checkpoints c
                          WHERE c.call = a.call AND c.version = a.version)
          AND NOT EXISTS (FROM nbdurable.attempt_ends t WHERE t.call = a.call
                          AND t.version = a.version AND t.attempt > a.attempt)
        UNION ALL
        SELECT o.workflow, o.run, NULL, s.name, s.label,
               CASE o.status WHEN 'died' THEN 'in flight' ELSE 'unfinished' END,
               NULL, s.attempt, NULL, {_AT.format("s.started")}, s.execution, NULL,
               s.call, s.version
        FROM nbdurable.starts s JOIN nbdurable.executions o USING (execution)
        WHERE NOT EXISTS (FROM nbdurable.checkpoints c
                          WHERE c.call = s.call AND c.version = s.version)
          AND NOT EXISTS (FROM nbdurable.starts t WHERE t.call = s.call AND t.version = s.version
                          AND (t.execution, t.attempt) > (s.execution, s.attempt))
          AND NOT EXISTS (FROM nbdurable.attempt_ends a WHERE a.call = s.call
                          AND a.version = s.version AND a.ending = 'not saved'
                          AND a.attempt >= s.attempt)""",
    "attempts": f"""
        SELECT o.workflow, o.run, c.name, c.label, c.attempt, {_AT.format("c.started")} AS started,
               c.seconds, c.kind AS ending, {_FAILED.format("c", "''")} AS error, c.execution,
               c.call, c.version
        FROM nbdurable.checkpoints c JOIN nbdurable.executions o USING (execution)
        UNION ALL
        SELECT o.workflow, o.run, a.name, a.label, a.attempt, {_AT.format("a.started")},
               a.seconds, a.ending, {_FAILED.format("a", "a.error")}, a.execution, a.call,
               a.version
        FROM nbdurable.attempt_ends a JOIN nbdurable.executions o USING (execution)
        UNION ALL
        SELECT o.workflow, o.run, s.name, s.label, s.attempt, {_AT.format("s.started")},
               NULL, CASE o.status WHEN 'died' THEN 'died' ELSE 'stopped' END, '', s.execution,
               s.call, s.version
        FROM nbdurable.starts s JOIN nbdurable.executions o USING (execution)
        WHERE NOT EXISTS (FROM nbdurable.attempt_ends a WHERE a.call = s.call
                          AND a.version = s.version AND a.attempt = s.attempt)
          AND NOT EXISTS (FROM nbdurable.checkpoints c WHERE c.call = s.call
                          AND c.version = s.version AND c.attempt = s.attempt)""",
    "decisions": f"""
        SELECT o.workflow, o.run, d.number, d.label, d.winner_label AS winner,
               {_AT.format("d.decided")} AS decided, d.execution
        FROM nbdurable.decision_log d JOIN nbdurable.executions o USING (execution)""",
}
