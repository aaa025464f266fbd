//! Counting what is stored, for an operator: in many short transactions, as a listing is read, so that counting a
//! million rows keeps nobody waiting and holds no snapshot. What changes meanwhile may be counted or not.

use super::classes::for_each_class;
use super::{PredictionStore, StoreError, files, reader};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Rows that one transaction looks at.
const ROWS_A_STEP: u32 = 4096;
/// Users that one transaction finds; each costs a search in the index.
const USERS_A_STEP: usize = 1024;
/// Most names that are counted one by one, and the longest in bytes: what clients send must not fill the memory.
const MAX_NAMES: usize = 10_000;
const MAX_NAME_BYTES: usize = 256;
/// Under this are the names beyond these bounds counted together.
const OTHER: &str = "(other)";

/// Numbers about the store, for an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Stats {
    /// Stored predictions.
    pub predictions: u64,
    /// Users who have at least one.
    pub users: u64,
    /// Predictions by the name of their model; those without one are not among them.
    pub models: BTreeMap<String, u64>,
    /// Elements of predictions by their class.
    pub classes: BTreeMap<String, u64>,
    /// Predictions by the day in UTC on which they were stored: `2026-11-23`.
    pub days: BTreeMap<String, u64>,
    /// Size of the database file, in bytes.
    pub database_bytes: u64,
    /// Size of the write-ahead log beside it, in bytes.
    pub wal_bytes: u64,
    /// Transactions since the start; many predictions may share one.
    pub commits: u64,
}

impl PredictionStore {
    /// Counts what is stored. It reads everything, in many short transactions: some seconds for a million rows.
    ///
    /// # Errors
    /// As [`PredictionStore::get`].
    pub async fn stats(&self) -> Result<Stats, StoreError> {
        let shared = &self.shared;
        let mut progress = Progress::default();
        let counted = loop {
            match reader::read(&shared.reads, move |connection| progress.step(connection)).await? {
                Step::More(more) => progress = more,
                Step::Done(counted) => break counted,
            }
        };
        Ok(Stats {
            database_bytes: files::size(&shared.path),
            wal_bytes: files::size(&files::beside(&shared.path, "-wal")),
            commits: shared.metrics.commit_size.get_sample_count(),
            ..counted
        })
    }
}

/// How far the counting has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    counted: Stats,
    last_id: Option<i64>,
    rows_are_counted: bool,
    last_user: String,
}

/// What a step of counting leaves.
pub(super) enum Step {
    More(Progress),
    Done(Stats),
}

impl Progress {
    /// Counts some more.
    pub(super) fn step(mut self, connection: &Connection) -> rusqlite::Result<Step> {
        if !self.rows_are_counted {
            self.count_rows(connection)?;
            return Ok(Step::More(self));
        }
        let all = self.count_users(connection)?;
        Ok(if all { Step::Done(self.counted) } else { Step::More(self) })
    }

    fn count_rows(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "SELECT id, created_at, model_name, predictions FROM predictions WHERE id > ?1 ORDER BY id LIMIT ?2";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query((self.last_id.unwrap_or(i64::MIN), ROWS_A_STEP))?;
        let mut seen: u32 = 0;
        while let Some(row) = rows.next()? {
            seen += 1;
            self.last_id = Some(row.get(0)?);
            self.counted.predictions += 1;
            add(&mut self.counted.days, &day(row.get(1)?));
            if let Some(model) = row.get_ref(2)?.as_str_or_null()? {
                add(&mut self.counted.models, model);
            }
            for_each_class(row.get_ref(3)?.as_str()?, |class| add(&mut self.counted.classes, class));
        }
        self.rows_are_counted = seen < ROWS_A_STEP;
        Ok(())
    }

    /// Whether no user is left.
    fn count_users(&mut self, connection: &Connection) -> rusqlite::Result<bool> {
        // From user to user through the index, past the rows of each; no id is empty.
        let sql = "SELECT user_id FROM predictions WHERE user_id > ?1 ORDER BY user_id LIMIT 1";
        let mut statement = connection.prepare_cached(sql)?;
        for _ in 0..USERS_A_STEP {
            match statement.query_row([&self.last_user], |row| row.get(0)).optional()? {
                Some(user) => self.last_user = user,
                None => return Ok(true),
            }
            self.counted.users += 1;
        }
        Ok(false)
    }
}

fn add(counts: &mut BTreeMap<String, u64>, name: &str) {
    if let Some(count) = counts.get_mut(name) {
        *count += 1;
    } else {
        let fits = name.len() <= MAX_NAME_BYTES && counts.len() < MAX_NAMES;
        *counts.entry(if fits { name } else { OTHER }.to_owned()).or_default() += 1;
    }
}

fn day(created_at: i64) -> String {
    // The column holds what `Timestamp` gave.
    Timestamp::from_microsecond(created_at)
        .map_or_else(|_| OTHER.to_owned(), |at| format!("{at:.0}")[..10].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_counted_within_bounds() {
        let mut counts = BTreeMap::new();
        for number in 0..MAX_NAMES + 5 {
            add(&mut counts, &number.to_string());
        }
        add(&mut counts, "7");
        add(&mut counts, &"x".repeat(MAX_NAME_BYTES + 1));
        assert_eq!((counts["7"], counts[OTHER]), (2, 6));
        assert_eq!(counts.len(), MAX_NAMES + 1);
    }

    #[test]
    fn a_day_is_utcs() {
        assert_eq!(day(1_700_000_000_000_000), "2023-11-14");
        assert_eq!(day(-1), "1969-12-31");
        assert_eq!(day(i64::MIN), OTHER);
    }
}
