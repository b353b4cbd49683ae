-- An alias may send a share of its calls to a second version, keep callers with the version they got, and carry the
-- policy by which it goes back by itself.
CREATE TABLE new_aliases (
    function_id       TEXT NOT NULL REFERENCES functions (id),
    name              TEXT NOT NULL,
    environment       TEXT NOT NULL REFERENCES environments (name),
    version_id        TEXT NOT NULL,
    -- The second version, and its share of the calls in percent.
    second_version_id TEXT,
    second_weight     INTEGER CHECK (second_weight BETWEEN 0 AND 100),
    -- `header:<name>` or `cookie:<name>`.
    sticky            TEXT,
    policy            TEXT CHECK (json_type(policy) = 'object'),
    description       TEXT,
    updated_at        INTEGER NOT NULL,
    PRIMARY KEY (function_id, name),
    CHECK ((second_version_id IS NULL) = (second_weight IS NULL)),
    CHECK (second_version_id <> version_id),
    FOREIGN KEY (function_id, version_id) REFERENCES function_versions (function_id, id),
    FOREIGN KEY (function_id, second_version_id) REFERENCES function_versions (function_id, id)
) STRICT, WITHOUT ROWID;

INSERT INTO new_aliases (function_id, name, environment, version_id, description, updated_at)
SELECT function_id, name, environment, version_id, description, updated_at FROM aliases;
DROP TABLE aliases;
ALTER TABLE new_aliases RENAME TO aliases;

CREATE INDEX aliases_version ON aliases (function_id, version_id);
CREATE INDEX aliases_second_version ON aliases (function_id, second_version_id);

-- New words for what a deployment is and how it ended; the share it gave its version; who approved or rejected it.
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
    kind             TEXT NOT NULL CHECK (kind IN ('deploy', 'rollback', 'promote', 'traffic', 'auto_rollback')),
    status           TEXT NOT NULL CHECK (status IN ('building', 'pending_approval', 'built', 'active', 'applied',
                     'superseded', 'failed', 'rejected')),
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
    CHECK (finished_at IS NOT NULL OR status IN ('building', 'pending_approval')),
    CHECK ((decided_by IS NULL) = (decided_at IS NULL)),
    CHECK (status <> 'applied' OR weight IS NOT NULL)
) STRICT;

INSERT INTO new_deployments (sequence, id, function_id, version_id, version, number, alias, environment, kind, status,
    previous_version, actor, reason, build_log, created_at, finished_at)
SELECT sequence, id, function_id, version_id, version, number, alias, environment, kind, status,
    previous_version, actor, reason, build_log, created_at, finished_at FROM function_deployments;
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

-- Plans that give a version more and more of an alias's calls. The version is the alias's second one meanwhile.
CREATE TABLE rollouts (
    id          TEXT PRIMARY KEY NOT NULL,
    function_id TEXT NOT NULL REFERENCES functions (id),
    alias       TEXT NOT NULL,
    version     TEXT NOT NULL,
    number      INTEGER NOT NULL,
    -- [{"percent": 10, "hold_seconds": 300}, …]
    steps       TEXT NOT NULL CHECK (json_type(steps) = 'array'),
    -- The step that goes on, from 0.
    step        INTEGER NOT NULL CHECK (step >= 0),
    status      TEXT NOT NULL CHECK (status IN ('running', 'paused', 'done', 'aborted')),
    actor       TEXT NOT NULL,
    reason      TEXT,
    -- Why it was paused or aborted.
    outcome     TEXT,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    finished_at INTEGER,
    CHECK ((finished_at IS NULL) = (status IN ('running', 'paused')))
) STRICT;

CREATE INDEX rollouts_function ON rollouts (function_id);
CREATE UNIQUE INDEX rollouts_going_on ON rollouts (function_id, alias) WHERE status IN ('running', 'paused');

-- A version's code and origin never change; what people say of it may.
DROP TRIGGER function_versions_are_immutable;
CREATE TRIGGER function_versions_are_immutable BEFORE UPDATE OF
    id, function_id, version, number, digest, size, entry, source, git_commit, git_branch, bun_version, settings, created_at
ON function_versions
BEGIN
    SELECT RAISE(ABORT, 'a version does not change');
END;
