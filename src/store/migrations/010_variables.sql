-- Variables of functions. A row without a function is for all functions, one without an environment for all
-- environments.
CREATE TABLE variables (
    id          INTEGER PRIMARY KEY,
    function_id TEXT REFERENCES functions (id),
    environment TEXT REFERENCES environments (name) ON DELETE CASCADE,
    key         TEXT NOT NULL,
    -- Absent where it is a secret: that is in secret_generations, sealed.
    value       TEXT,
    -- The generation of a secret that counts; absent where it is none.
    generation  INTEGER CHECK (generation >= 1),
    -- Number of the change that made it what it is.
    revision    INTEGER NOT NULL UNIQUE,
    actor       TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    CHECK ((value IS NULL) = (generation IS NOT NULL))
) STRICT;

CREATE UNIQUE INDEX variables_place ON variables (IFNULL(function_id, ''), IFNULL(environment, ''), key);

-- What secrets are and were, the last few generations of each.
CREATE TABLE secret_generations (
    variable_id INTEGER NOT NULL REFERENCES variables (id) ON DELETE CASCADE,
    generation  INTEGER NOT NULL CHECK (generation >= 1),
    -- Number of the change that sealed it; with function, environment, key and generation it is bound to both blobs.
    sealed_at   INTEGER NOT NULL UNIQUE,
    value       BLOB NOT NULL,
    wrapped_key BLOB NOT NULL,
    actor       TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (variable_id, generation)
) STRICT;

-- The number of the last change, which is never used again, and which master key data keys are sealed with.
CREATE TABLE secret_state (
    only_row      INTEGER PRIMARY KEY CHECK (only_row = 1),
    revision      INTEGER NOT NULL,
    master_key_id TEXT
) STRICT;

INSERT INTO secret_state (only_row, revision) VALUES (1, 0);

-- Who did what with secrets; never a value. The oldest rows go when there are too many.
CREATE TABLE secret_audit (
    sequence    INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    action      TEXT NOT NULL,
    actor       TEXT NOT NULL,
    function_id TEXT,
    environment TEXT,
    key         TEXT,
    generation  INTEGER,
    detail      TEXT,
    -- A row about injections stands for so many that followed each other and were the same, the last at last_at.
    count       INTEGER NOT NULL DEFAULT 1,
    last_at     INTEGER NOT NULL
) STRICT;

CREATE INDEX secret_audit_injections ON secret_audit (function_id, environment, detail) WHERE action = 'inject';
