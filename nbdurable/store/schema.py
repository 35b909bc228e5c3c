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

VERSION = 3  # the first that is kept; 1 and 2 were never released

# Tables in the order of their columns: the appender fills them by position.
TABLES: dict[str, str] = {
    "meta": "key VARCHAR NOT NULL, value BLOB NOT NULL",
    "run_log": """
        id VARCHAR NOT NULL, name VARCHAR NOT NULL, created DOUBLE NOT NULL,
        signature BLOB NOT NULL""",
    "execution_log": """
        id BIGINT NOT NULL, run VARCHAR NOT NULL, started DOUBLE NOT NULL, pid BIGINT NOT NULL,
        host VARCHAR NOT NULL, python VARCHAR NOT NULL, packages VARCHAR NOT NULL,
        signature BLOB NOT NULL""",
    "execution_ends": """
        execution BIGINT NOT NULL, status VARCHAR NOT NULL, ended DOUBLE NOT NULL,
        error VARCHAR NOT NULL, listed BLOB NOT NULL, reused BLOB NOT NULL,
        told VARCHAR NOT NULL, signature BLOB NOT NULL""",
    "checkpoints": """
        call BLOB NOT NULL, version BLOB NOT NULL, code BLOB NOT NULL, namespace BLOB NOT NULL,
        number BIGINT NOT NULL, cause BIGINT NOT NULL, execution BIGINT NOT NULL,
        kind VARCHAR NOT NULL, name VARCHAR NOT NULL, label VARCHAR NOT NULL,
        arguments VARCHAR NOT NULL, why VARCHAR NOT NULL, attempt INTEGER NOT NULL,
        started DOUBLE NOT NULL, seconds DOUBLE NOT NULL, payload BLOB NOT NULL,
        pieces BLOB NOT NULL, output VARCHAR NOT NULL, base BLOB NOT NULL,
        code_evidence BLOB NOT NULL, file_evidence BLOB NOT NULL, signature BLOB NOT NULL""",
    "starts": """
        call BLOB NOT NULL, version BLOB NOT NULL, attempt INTEGER NOT NULL,
        execution BIGINT NOT NULL, name VARCHAR NOT NULL, label VARCHAR NOT NULL,
        started DOUBLE NOT NULL, signature BLOB NOT NULL""",
    "attempt_ends": """
        call BLOB NOT NULL, version BLOB NOT NULL, attempt INTEGER NOT NULL,
        execution BIGINT NOT NULL, name VARCHAR NOT NULL, label VARCHAR NOT NULL,
        started DOUBLE NOT NULL, seconds DOUBLE NOT NULL, ending VARCHAR NOT NULL,
        error VARCHAR NOT NULL, concluded BOOLEAN NOT NULL, signature BLOB NOT NULL""",
    "decision_log": """
        key BLOB NOT NULL, branches BLOB NOT NULL, winner BLOB NOT NULL, losers BLOB NOT NULL,
        number BIGINT NOT NULL, execution BIGINT NOT NULL, label VARCHAR NOT NULL,
        winner_label VARCHAR NOT NULL, decided DOUBLE NOT NULL, signature BLOB NOT NULL,
        seconds DOUBLE NOT NULL, place BIGINT NOT NULL""",
    "seen_errors": """
        call BLOB NOT NULL, version BLOB NOT NULL, execution BIGINT NOT NULL,
        signature BLOB NOT NULL""",
    "used_attributes": """
        code BLOB NOT NULL, generation BIGINT NOT NULL, root VARCHAR NOT NULL,
        holder VARCHAR NOT NULL, class VARCHAR NOT NULL, attribute VARCHAR NOT NULL,
        text BLOB NOT NULL, signature BLOB NOT NULL""",
    "former_calls": """
        call BLOB NOT NULL, code BLOB NOT NULL, saved_call BLOB NOT NULL,
        saved_code BLOB NOT NULL, execution BIGINT NOT NULL, signature BLOB NOT NULL""",
    "draws": """
        call BLOB NOT NULL, version BLOB NOT NULL, execution BIGINT NOT NULL,
        states BLOB NOT NULL, signature BLOB NOT NULL""",
    "contents": """
        name VARCHAR NOT NULL, content BLOB NOT NULL, base BLOB NOT NULL,
        execution BIGINT NOT NULL, signature BLOB NOT NULL""",
    "codes": """
        code BLOB NOT NULL, part VARCHAR NOT NULL, digest BLOB NOT NULL, signature BLOB NOT NULL""",
    # Heads of runs that no row of their last transaction could take along; see `heads`.
    "heads": "run VARCHAR NOT NULL, signature BLOB NOT NULL",
    # What `current_step().save` keeps until its step has a value: one row a call.
    "saves": """
        call BLOB NOT NULL, state BLOB NOT NULL, code BLOB NOT NULL, execution BIGINT NOT NULL,
        attempt INTEGER NOT NULL, name VARCHAR NOT NULL, label VARCHAR NOT NULL,
        saved DOUBLE NOT NULL, payload BLOB NOT NULL, pieces BLOB NOT NULL,
        signature BLOB NOT NULL""",
    # How far an attempt said that it is: one row a call, and a total of 0 where it gave none.
    "progress": """
        call BLOB NOT NULL, version BLOB NOT NULL, execution BIGINT NOT NULL,
        attempt INTEGER NOT NULL, label VARCHAR NOT NULL, done DOUBLE NOT NULL,
        total DOUBLE NOT NULL, told DOUBLE NOT NULL""",
    # How attempts failed that ended with an outcome, in one line: to be read, by people alone.
    "failures": """
        call BLOB NOT NULL, version BLOB NOT NULL, attempt INTEGER NOT NULL,
        execution BIGINT NOT NULL, error VARCHAR NOT NULL""",
    # Calls whose outcome was taken out to be made again; `execution` was the last before that.
    "redos": """
        run VARCHAR NOT NULL, call BLOB NOT NULL, ordinal INTEGER NOT NULL,
        execution BIGINT NOT NULL, asked DOUBLE NOT NULL, signature BLOB NOT NULL""",
    # What `--keep` accepted: outcomes made with `before` count as made with `after`. `settled`
    # is the execution that ended the telling of it, 0 while it is told.
    "acceptances": """
        run VARCHAR NOT NULL, kind VARCHAR NOT NULL, name VARCHAR NOT NULL, before BLOB NOT NULL,
        after BLOB NOT NULL, what VARCHAR NOT NULL, outcomes BIGINT NOT NULL,
        execution BIGINT NOT NULL, settled BIGINT NOT NULL, signature BLOB NOT NULL""",
    # Steps that have another name now: calls of `new` are found under `old`.
    "renames": """
        run VARCHAR NOT NULL, old VARCHAR NOT NULL, new VARCHAR NOT NULL,
        renamed DOUBLE NOT NULL, signature BLOB NOT NULL""",
    # Which of several equal calls is that of which work, of what runs beside each other.
    "placements": """
        run VARCHAR NOT NULL, call BLOB NOT NULL, path BLOB NOT NULL, position INTEGER NOT NULL,
        execution BIGINT NOT NULL, signature BLOB NOT NULL""",
    "evidence": """
        evidence BLOB NOT NULL, kind VARCHAR NOT NULL, part VARCHAR NOT NULL,
        state BLOB NOT NULL""",
}

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
