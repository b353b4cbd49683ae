-- Who may ask over HTTP. A row stays for ever: what somebody did with a token must be traceable to it.
CREATE TABLE tokens (
    id           TEXT PRIMARY KEY NOT NULL,
    name         TEXT NOT NULL,
    -- SHA-256 of the secret, which itself is nowhere. The secret is 256 random bits: nobody can try them all, however
    -- fast the hash is, so the slow hashes and salts that passwords need would only cost time.
    secret_hash  BLOB NOT NULL UNIQUE CHECK (length(secret_hash) = 32),
    -- ["admin", "deploy", "invoke", "read"] or some of them.
    scopes       TEXT NOT NULL CHECK (json_type(scopes) = 'array' AND json_array_length(scopes) > 0),
    -- The one function that it is for; absent where it is for all.
    function_id  TEXT REFERENCES functions (id),
    actor        TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    -- Up to a minute behind.
    last_used_at INTEGER,
    revoked_at   INTEGER,
    revoked_by   TEXT,
    CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
) STRICT;

CREATE UNIQUE INDEX tokens_name ON tokens (name) WHERE revoked_at IS NULL;

CREATE TRIGGER tokens_stay BEFORE DELETE ON tokens
BEGIN
    SELECT RAISE(ABORT, 'a token is kept for audit');
END;

CREATE TRIGGER tokens_keep_their_facts BEFORE UPDATE OF
    id, name, secret_hash, scopes, function_id, actor, created_at, expires_at
ON tokens
BEGIN
    SELECT RAISE(ABORT, 'a token can be used and revoked, and nothing else about it changes');
END;

CREATE TRIGGER tokens_revoked_is_final BEFORE UPDATE OF revoked_at, revoked_by ON tokens WHEN old.revoked_at IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'a revoked token stays revoked');
END;

-- Whether a call over HTTP needs one.
ALTER TABLE functions ADD COLUMN auth TEXT NOT NULL DEFAULT 'public';
