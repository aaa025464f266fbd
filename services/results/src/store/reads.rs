//! Reading many predictions: pages by key, so that each is a short transaction of its own and none visits what an
//! earlier one has.
//!
//! A page is bounded in what it visits, not only in what it finds: a filter that nothing matches costs many short
//! transactions, and never a long one. No snapshot outlives a page, so a client that reads slowly stops neither a
//! checkpoint nor an erasure.

use super::classes::has_class;
use super::record::{Prediction, read, select};
use super::{PredictionStore, StoreError, reader};
use jiff::Timestamp;
use rusqlite::{Connection, Row, params};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Which predictions a listing has: those that match all that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this user; of all users without it.
    pub user_id: Option<String>,
    /// Stored at this instant or later.
    pub since: Option<Timestamp>,
    /// Stored before this instant.
    pub until: Option<Timestamp>,
    /// Made by the model of this name.
    pub model: Option<String>,
    /// With an element of this class (`class_name`, else `class`).
    pub class: Option<String>,
}

/// A place in the order of a listing; it goes on behind the prediction that is there. It says nothing about what is
/// there, and outlives it. As text: 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    created_at: i64,
    id: i64,
}

impl Cursor {
    /// Before every prediction of a listing that runs from the newest to the oldest.
    pub const NEWEST: Self = Self { created_at: i64::MAX, id: i64::MAX };

    /// Before every prediction that is older than `instant`.
    fn before(instant: Timestamp) -> Self {
        Self { created_at: instant.as_microsecond(), id: i64::MIN }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.created_at, self.id)
    }
}

/// A text that no cursor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no cursor is written so")]
pub struct CursorError;

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let digits = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if text.len() != 32 || !text.bytes().all(digits) {
            return Err(CursorError);
        }
        let half = |text: &str| u64::from_str_radix(text, 16).map(u64::cast_signed).map_err(|_| CursorError);
        Ok(Self { created_at: half(&text[..16])?, id: half(&text[16..])? })
    }
}

/// A piece of a listing.
#[derive(Clone, Debug)]
pub struct Page {
    /// Newest first; it may have none although the listing goes on.
    pub predictions: Vec<Prediction>,
    /// Where the listing goes on; none at its end.
    pub next: Option<Cursor>,
}

/// Bounds of a [`Page`]: it ends behind the row that reaches one of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageSize {
    /// Predictions that are found.
    pub(super) rows: usize,
    /// Bytes of their `predictions`.
    pub(super) bytes: usize,
    /// Rows that are looked at.
    pub(super) visits: usize,
}

/// Most of each in one page: some milliseconds of a reader's time, and half a megabyte of memory.
const LARGEST: PageSize = PageSize { rows: 256, bytes: 256 << 10, visits: 4096 };

impl PredictionStore {
    /// A piece of the predictions that match `filter`, newest first: what lies behind `from`, at most `rows`. No
    /// snapshot is held between pieces.
    ///
    /// # Errors
    /// As [`PredictionStore::get`].
    pub async fn page(&self, filter: Arc<Filter>, from: Cursor, rows: usize) -> Result<Page, StoreError> {
        let size = PageSize { rows: rows.min(LARGEST.rows), ..LARGEST };
        reader::read(&self.shared.reads, move |connection| page(connection, &filter, from, size)).await
    }
}

/// Pages of one user: nothing is sorted.
pub(super) const PAGE_OF_USER: &str =
    select!("WHERE user_id = ?1 AND (created_at, id) < (?2, ?3) ORDER BY created_at DESC, id DESC");

/// Pages of all users: nothing is sorted.
pub(super) const PAGE_OF_ALL: &str =
    select!("WHERE (created_at, id) < (?1, ?2) ORDER BY created_at DESC, id DESC");

/// The predictions that match `filter` behind `from`, newest first.
pub(super) fn page(
    connection: &Connection,
    filter: &Filter,
    from: Cursor,
    size: PageSize,
) -> rusqlite::Result<Page> {
    let from = filter.until.map_or(from, |until| from.min(Cursor::before(until)));
    let sql = if filter.user_id.is_some() { PAGE_OF_USER } else { PAGE_OF_ALL };
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = match &filter.user_id {
        Some(user_id) => statement.query(params![user_id, from.created_at, from.id])?,
        None => statement.query(params![from.created_at, from.id])?,
    };
    let since = filter.since.map_or(i64::MIN, Timestamp::as_microsecond);
    let mut page = Page { predictions: Vec::new(), next: None };
    let (mut bytes, mut visits, mut last) = (0, 0, from);
    while let Some(row) = rows.next()? {
        let here = Cursor { created_at: row.get(7)?, id: row.get(8)? };
        if here.created_at < since {
            break;
        }
        if page.predictions.len() >= size.rows || bytes >= size.bytes || visits >= size.visits {
            page.next = Some(last);
            break;
        }
        visits += 1;
        last = here;
        if matches(row, filter)? {
            let prediction = read(row)?;
            bytes += prediction.predictions.get().len();
            page.predictions.push(prediction);
        }
    }
    Ok(page)
}

/// Whether `row` matches what the index does not tell.
fn matches(row: &Row<'_>, filter: &Filter) -> rusqlite::Result<bool> {
    if let Some(model) = &filter.model
        && row.get_ref(2)?.as_str_or_null()? != Some(model)
    {
        return Ok(false);
    }
    match &filter.class {
        Some(class) => Ok(has_class(row.get_ref(5)?.as_str()?, class)),
        None => Ok(true),
    }
}
