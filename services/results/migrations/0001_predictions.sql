-- One row per prediction. Run inside a transaction that also sets PRAGMA user_version = 1.

-- "Conv": tells a database of Convoy from those of other programs.
PRAGMA application_id = 1131376246;

CREATE TABLE predictions (
    -- A rowid with a name of its own keeps its value over VACUUM, so that cursors and ties in time stay in order.
    id                INTEGER PRIMARY KEY,
    request_id        TEXT    NOT NULL UNIQUE,
    user_id           TEXT    NOT NULL,
    model_name        TEXT,
    model_version     TEXT    NOT NULL,
    inference_time_ms REAL    NOT NULL,
    -- JSON as it was sent, byte for byte; never parsed into columns or JSONB, which lose key order and long numbers.
    predictions       TEXT    NOT NULL,
    -- What the client computed over the request's content, in lower-case hex: tells a repeated request from another
    -- with the same id.
    content_sha256    TEXT,
    -- Microseconds since 1970-01-01T00:00:00Z.
    created_at        INTEGER NOT NULL
) STRICT;

-- Newest first per user, without a sort.
CREATE INDEX predictions_by_user ON predictions (user_id, created_at, id);
