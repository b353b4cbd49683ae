-- New words: an alias was given a policy, or has none any more, by whom.
CREATE TABLE new_deployments (
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
    kind             TEXT NOT NULL CHECK (kind IN ('deploy', 'rollback', 'promote', 'traffic', 'auto_rollback',
                     'remove', 'policy')),
    status           TEXT NOT NULL CHECK (status IN ('building', 'pending_approval', 'built', 'active', 'applied',
                     'superseded', 'failed', 'rejected', 'removed', 'changed')),
    is_active        INTEGER GENERATED ALWAYS AS (status = 'active') VIRTUAL,
    -- The share of the alias's calls that the version got as the second one; absent where it got all.
    weight           INTEGER CHECK (weight BETWEEN 0 AND 100),
    previous_version TEXT,
    actor            TEXT NOT NULL,
    reason           TEXT,
    build_log        TEXT,
    -- Who approved or rejected it, why and when, where that was asked for.
    decided_by       TEXT,
    decision         TEXT,
    decided_at       INTEGER,
    created_at       INTEGER NOT NULL,
    finished_at      INTEGER,
    -- What else changes about the alias when it is approved, if it waits for that.
    alias_change     TEXT CHECK (json_type(alias_change) = 'object'),
    CHECK (finished_at IS NOT NULL OR status IN ('building', 'pending_approval')),
    CHECK ((decided_by IS NULL) = (decided_at IS NULL)),
    CHECK (status <> 'applied' OR weight IS NOT NULL),
    CHECK ((kind = 'remove') = (status = 'removed')),
    CHECK ((kind = 'policy') = (status = 'changed'))
) STRICT;

INSERT INTO new_deployments (sequence, id, function_id, version_id, version, number, alias, environment, kind, status,
    weight, previous_version, actor, reason, build_log, decided_by, decision, decided_at, created_at, finished_at,
    alias_change)
SELECT sequence, id, function_id, version_id, version, number, alias, environment, kind, status,
    weight, previous_version, actor, reason, build_log, decided_by, decision, decided_at, created_at, finished_at,
    alias_change FROM function_deployments;
DROP TABLE function_deployments;
ALTER TABLE new_deployments RENAME TO function_deployments;

CREATE INDEX function_deployments_function ON function_deployments (function_id);
CREATE INDEX function_deployments_alias ON function_deployments (function_id, alias);
CREATE INDEX function_deployments_version ON function_deployments (version_id);
CREATE INDEX function_deployments_pending ON function_deployments (status) WHERE status = 'pending_approval';
CREATE UNIQUE INDEX function_deployments_active ON function_deployments (function_id, alias) WHERE status = 'active';

CREATE TRIGGER function_deployments_stay BEFORE DELETE ON function_deployments
BEGIN
    SELECT RAISE(ABORT, 'a deployment is kept for audit');
END;

CREATE TRIGGER function_deployments_keep_their_facts BEFORE UPDATE OF
    id, function_id, version, number, alias, environment, kind, weight, actor, reason, build_log, created_at
ON function_deployments
BEGIN
    SELECT RAISE(ABORT, 'only the outcome of a deployment changes');
END;

-- What the alias pointed at before is known when the deployment takes effect.
CREATE TRIGGER function_deployments_keep_their_outcome BEFORE UPDATE OF
    sequence, previous_version, decided_by, decision, decided_at, finished_at
ON function_deployments WHEN old.status <> 'pending_approval'
BEGIN
    SELECT RAISE(ABORT, 'only the outcome of a deployment changes');
END;
