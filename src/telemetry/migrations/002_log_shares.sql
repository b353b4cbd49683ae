-- How many lines of each function are kept and what their text takes, changed together with the lines, so that the
-- largest share is found without reading them.
CREATE TABLE log_shares (
    function_id BLOB PRIMARY KEY NOT NULL,
    lines       INTEGER NOT NULL,
    -- Bytes of UTF-8.
    text_bytes  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO log_shares (function_id, lines, text_bytes)
    SELECT function_id, count(*), sum(octet_length(message)) FROM logs GROUP BY function_id;
