-- Times are milliseconds since the Unix epoch, UTC. Ids are text with a prefix that tells the kind.

CREATE TABLE environments (
    name       TEXT PRIMARY KEY NOT NULL,
    parent     TEXT REFERENCES environments (name),
    protected  INTEGER NOT NULL DEFAULT 0 CHECK (protected IN (0, 1)),
    created_at INTEGER NOT NULL
) STRICT;

INSERT INTO environments (name, created_at)
SELECT value, CAST(unixepoch('subsec') * 1000 AS INTEGER)
FROM json_each('["production", "staging", "dev", "preview"]');

CREATE TABLE functions (
    id                        TEXT PRIMARY KEY NOT NULL,
    name                      TEXT NOT NULL,
    runtime                   TEXT NOT NULL,
    handler                   TEXT NOT NULL,
    status                    TEXT NOT NULL CHECK (status IN ('registered', 'built', 'deployed', 'deleted')),
    -- The target of the alias LIVE.
    active_version_id         TEXT,
    -- Numbers are not used again, even when the version with the highest one is deleted.
    last_version_number       INTEGER NOT NULL DEFAULT 0 CHECK (last_version_number BETWEEN 0 AND 4294967295),
    memory_mb                 INTEGER NOT NULL CHECK (memory_mb > 0),
    timeout_seconds           INTEGER NOT NULL CHECK (timeout_seconds > 0),
    max_concurrent_executions INTEGER NOT NULL CHECK (max_concurrent_executions > 0),
    warm_workers              INTEGER NOT NULL CHECK (warm_workers >= 0),
    idle_timeout_seconds      INTEGER NOT NULL CHECK (idle_timeout_seconds > 0),
    queue_max                 INTEGER NOT NULL CHECK (queue_max >= 0),
    created_at                INTEGER NOT NULL,
    updated_at                INTEGER NOT NULL,
    CHECK ((status = 'deployed') = (active_version_id IS NOT NULL)),
    FOREIGN KEY (id, active_version_id) REFERENCES function_versions (function_id, id)
) STRICT;

CREATE UNIQUE INDEX functions_name ON functions (name) WHERE status <> 'deleted';

CREATE TRIGGER functions_stay BEFORE DELETE ON functions
BEGIN
    SELECT RAISE(ABORT, 'the row of a function is kept for audit');
END;

CREATE TRIGGER functions_deleted_is_final BEFORE UPDATE ON functions WHEN old.status = 'deleted'
BEGIN
    SELECT RAISE(ABORT, 'a deleted function does not change');
END;

CREATE TABLE function_versions (
    id          TEXT PRIMARY KEY NOT NULL,
    function_id TEXT NOT NULL REFERENCES functions (id),
    version     TEXT NOT NULL,
    number      INTEGER NOT NULL CHECK (number BETWEEN 1 AND 4294967295),
    digest      TEXT NOT NULL CHECK (length(digest) = 64),
    size        INTEGER NOT NULL CHECK (size >= 0),
    entry       TEXT NOT NULL,
    source      TEXT NOT NULL CHECK (source IN ('upload', 'path', 'archive', 'git', 'build', 'container')),
    git_commit  TEXT,
    git_branch  TEXT,
    description TEXT,
    tags        TEXT NOT NULL CHECK (json_type(tags) = 'array'),
    bun_version TEXT NOT NULL,
    settings    TEXT NOT NULL CHECK (json_type(settings) = 'object'),
    created_at  INTEGER NOT NULL,
    UNIQUE (function_id, version),
    UNIQUE (function_id, number),
    -- What aliases refer to, so that an alias cannot point at another function's version.
    UNIQUE (function_id, id)
) STRICT;

CREATE TRIGGER function_versions_are_immutable BEFORE UPDATE ON function_versions
BEGIN
    SELECT RAISE(ABORT, 'a version does not change');
END;

CREATE TABLE aliases (
    function_id TEXT NOT NULL REFERENCES functions (id),
    name        TEXT NOT NULL,
    environment TEXT NOT NULL REFERENCES environments (name),
    version_id  TEXT NOT NULL,
    updated_at  INTEGER NOT NULL,
    PRIMARY KEY (function_id, name),
    FOREIGN KEY (function_id, version_id) REFERENCES function_versions (function_id, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX aliases_version ON aliases (function_id, version_id);

CREATE TABLE function_deployments (
    -- The order in which deployments ended, whatever the clock did.
    sequence         INTEGER PRIMARY KEY,
    id               TEXT NOT NULL UNIQUE,
    function_id      TEXT NOT NULL REFERENCES functions (id),
    -- Absent where the version was never published, and once it is deleted; its label and number stay.
    version_id       TEXT REFERENCES function_versions (id) ON DELETE SET NULL,
    version          TEXT NOT NULL,
    number           INTEGER,
    alias            TEXT NOT NULL,
    environment      TEXT NOT NULL,
    kind             TEXT NOT NULL CHECK (kind IN ('deploy', 'rollback', 'promote', 'auto_rollback')),
    status           TEXT NOT NULL CHECK (status IN
                     ('building', 'pending_approval', 'built', 'active', 'superseded', 'failed', 'rejected')),
    is_active        INTEGER GENERATED ALWAYS AS (status = 'active') VIRTUAL,
    previous_version TEXT,
    actor            TEXT NOT NULL,
    reason           TEXT,
    build_log        TEXT,
    created_at       INTEGER NOT NULL,
    finished_at      INTEGER,
    CHECK (finished_at IS NOT NULL OR status IN ('building', 'pending_approval'))
) STRICT;

CREATE INDEX function_deployments_function ON function_deployments (function_id);
CREATE INDEX function_deployments_alias ON function_deployments (function_id, alias);
CREATE INDEX function_deployments_version ON function_deployments (version_id);
CREATE UNIQUE INDEX function_deployments_active ON function_deployments (function_id, alias) WHERE status = 'active';

CREATE TRIGGER function_deployments_stay BEFORE DELETE ON function_deployments
BEGIN
    SELECT RAISE(ABORT, 'a deployment is kept for audit');
END;

CREATE TRIGGER function_deployments_keep_their_facts BEFORE UPDATE OF
    id, function_id, version, number, alias, environment, kind, previous_version, actor, created_at
ON function_deployments
BEGIN
    SELECT RAISE(ABORT, 'only the outcome of a deployment changes');
END;
