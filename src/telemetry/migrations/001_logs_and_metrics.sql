-- Times are milliseconds since the Unix epoch, UTC. Ids are the 16 bytes of a UUID.

CREATE TABLE logs (
    -- The order of the lines; never given twice while the daemon runs.
    id          INTEGER PRIMARY KEY,
    at          INTEGER NOT NULL,
    function_id BLOB NOT NULL,
    version     TEXT NOT NULL,
    invocation  BLOB,
    worker      INTEGER NOT NULL,
    -- console, stdout, stderr, system: from 0.
    stream      INTEGER NOT NULL,
    -- debug, info, warn, error: from 0.
    level       INTEGER NOT NULL,
    message     TEXT NOT NULL
) STRICT;

-- Every index ends with the row id, so these two also give the order.
CREATE INDEX logs_by_function ON logs (function_id);
CREATE INDEX logs_by_invocation ON logs (invocation) WHERE invocation IS NOT NULL;

-- What one version did in one minute. A restart within a minute gives it a second row; rows add up.
CREATE TABLE metrics_minutes (
    id                  INTEGER PRIMARY KEY,
    function_id         BLOB NOT NULL,
    version_id          BLOB NOT NULL,
    version             TEXT NOT NULL,
    -- Minutes since the Unix epoch.
    minute              INTEGER NOT NULL,
    invocations         INTEGER NOT NULL,
    -- JSON objects from code or kind to count.
    errors_by_code      TEXT NOT NULL,
    cold_starts_by_kind TEXT NOT NULL,
    -- Microseconds.
    queue_us_sum        INTEGER NOT NULL,
    start_us_sum        INTEGER NOT NULL,
    run_us_sum          INTEGER NOT NULL,
    run_us_max          INTEGER NOT NULL,
    -- Pairs of numbers in LEB128: the step to the next recorded duration, and its count.
    run_histogram       BLOB NOT NULL,
    last_at             INTEGER NOT NULL
) STRICT;

CREATE INDEX metrics_minutes_by_function ON metrics_minutes (function_id, minute);
