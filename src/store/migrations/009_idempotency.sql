-- What was answered to deployments that came with a key, so that the same one coming again is told the same.
CREATE TABLE idempotency_keys (
    -- Keys of one client are nothing to another.
    actor      TEXT NOT NULL,
    key        TEXT NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    -- SHA-256 of the request.
    digest     BLOB NOT NULL CHECK (length(digest) = 32),
    answer     TEXT NOT NULL CHECK (json_valid(answer)),
    created_at INTEGER NOT NULL,
    PRIMARY KEY (actor, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
