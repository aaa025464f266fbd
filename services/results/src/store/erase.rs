//! Erasing a user: the rows, and then the pages as they were before, which the write-ahead log still holds.

use rusqlite::{Connection, TransactionBehavior};

/// Deletes all predictions of `user_id` in a transaction of their own, and returns how many there were. SQLite
/// overwrites them with zeros, since the writer's connection has `secure_delete` on.
pub(super) fn delete_user(connection: &mut Connection, user_id: &str) -> rusqlite::Result<u64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let count =
        transaction.prepare_cached("DELETE FROM predictions WHERE user_id = ?1")?.execute([user_id])?;
    transaction.commit()?;
    Ok(count as u64)
}

/// Copies the write-ahead log into the database and cuts it to no bytes. Returns whether that was possible: readers
/// may keep it.
pub(super) fn truncate_log(connection: &Connection) -> rusqlite::Result<bool> {
    // A checkpoint that is blocked says so in its row (1, …), not as an error.
    let is_blocked: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(!is_blocked)
}
