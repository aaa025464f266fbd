//! The statements of an erasure; `upkeep` says when they run.

use super::key::{ErasureKey, UserHash};
use rusqlite::{Connection, OptionalExtension as _, params};

/// Deletes at most `limit` predictions of `user_id` that were stored up to `at`, and returns how many. SQLite overwrites
/// them with zeros, since the writer's connection has `secure_delete` on.
pub(super) fn delete_user(
    connection: &Connection,
    user_id: &str,
    at: i64,
    limit: usize,
) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM predictions WHERE id IN \
               (SELECT id FROM predictions WHERE user_id = ?1 AND created_at <= ?2 LIMIT ?3)";
    connection.prepare_cached(sql)?.execute(params![user_id, at, limit as i64])
}

/// The same for all users, oldest first.
pub(super) fn delete_older(connection: &Connection, at: i64, limit: usize) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM predictions WHERE id IN \
               (SELECT id FROM predictions WHERE created_at < ?1 ORDER BY created_at, id LIMIT ?2)";
    connection.prepare_cached(sql)?.execute(params![at, limit as i64])
}

/// How many predictions of `user_id` were stored up to `at`.
pub(super) fn count(connection: &Connection, user_id: &str, at: i64) -> rusqlite::Result<u64> {
    let sql = "SELECT COUNT(*) FROM predictions WHERE user_id = ?1 AND created_at <= ?2";
    connection.prepare_cached(sql)?.query_row(params![user_id, at], |row| row.get(0).map(i64::unsigned_abs))
}

/// The user whose hash is `user`, if they have a prediction: all users are gone through, microseconds each.
pub(super) fn find_user(
    connection: &Connection,
    key: &ErasureKey,
    user: &UserHash,
) -> rusqlite::Result<Option<String>> {
    let mut found = None;
    each_user(connection, |user_id| {
        let is_it = key.hash(user_id) == *user;
        if is_it {
            found = Some(user_id.to_owned());
        }
        Ok(!is_it)
    })?;
    Ok(found)
}

/// Goes through the users by the index, from one to the next without reading their rows, until `visit` returns false.
pub(super) fn each_user(
    connection: &Connection,
    mut visit: impl FnMut(&str) -> rusqlite::Result<bool>,
) -> rusqlite::Result<()> {
    let mut next =
        connection.prepare("SELECT user_id FROM predictions WHERE user_id > ?1 ORDER BY user_id LIMIT 1")?;
    // No id is empty.
    let mut last = String::new();
    while let Some(user_id) = next.query_row([&last], |row| row.get::<_, String>(0)).optional()? {
        if !visit(&user_id)? {
            return Ok(());
        }
        last = user_id;
    }
    Ok(())
}

/// The time of the newest prediction, in microseconds since 1970.
pub(super) fn newest(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection.query_row("SELECT MAX(created_at) FROM predictions", [], |row| row.get(0))
}

/// Copies the write-ahead log into the database and cuts it to no bytes. Returns whether that was possible: readers
/// may keep it.
pub(super) fn truncate_log(connection: &Connection) -> rusqlite::Result<bool> {
    // A checkpoint that is blocked says so in its row (1, …), not as an error.
    let is_blocked: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(!is_blocked)
}
