-- Version 2. Run inside a transaction that also sets PRAGMA user_version = 2.

-- Newest first over all users, for the operator; oldest first for the retention period.
CREATE INDEX predictions_by_time ON predictions (created_at, id);
