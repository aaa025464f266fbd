//! Listings, written page by page as they are read, so that a user with a million predictions takes no more memory than
//! one with a few hundred, and a client that reads slowly holds nothing but its page.
//!
//! | answer | form |
//! |---|---|
//! | `GET /predictions/user/{user_id}` | `{"user_id": …, "predictions": […], "count": …}` |
//! | `GET /predictions` (operator) | `{"predictions": […], "count": …}` |
//! | `GET /predictions/user/{user_id}/export` | one prediction a line |
//!
//! The count stands last because it is known last: it is always the number of predictions in this very answer. Where a
//! limit left some out, `next_cursor` stands behind it.

use super::query::ListQuery;
use crate::error::RequestError;
use crate::store::{Cursor, Filter, Page, Prediction, PredictionStore, StoreError};
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderName, header};
use std::sync::Arc;
use std::time::Duration;

/// Between two attempts to read the next page while the readers' queue is full.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A JSON object that names the user, if it is of one.
    Json,
    /// Newline-delimited JSON, to be saved as a file.
    Export,
}

impl Form {
    fn headers(self) -> Vec<(HeaderName, &'static str)> {
        match self {
            Self::Json => vec![(header::CONTENT_TYPE, "application/json")],
            // Whose they are is no part of the name: names of files end up in logs and histories.
            Self::Export => vec![
                (header::CONTENT_TYPE, "application/x-ndjson"),
                (header::CONTENT_DISPOSITION, "attachment; filename=\"predictions.ndjson\""),
                (header::CACHE_CONTROL, "no-store"),
            ],
        }
    }
}

struct Listing {
    store: PredictionStore,
    filter: Arc<Filter>,
    form: Form,
    /// How many may still be written.
    left: u64,
    /// The page to write next; none when all is written.
    page: Option<Page>,
    written: u64,
    is_begun: bool,
}

/// The answer to `query`. A failure of the first page is an error; a later one breaks the connection off, so that no
/// client takes a part for the whole.
pub(super) async fn answer(
    store: PredictionStore,
    query: ListQuery,
    form: Form,
) -> Result<Response, RequestError> {
    let ListQuery { filter, from, limit } = query;
    let (filter, left) = (Arc::new(filter), limit.unwrap_or(u64::MAX));
    let page = Some(store.page(Arc::clone(&filter), from, rows(left)).await?);
    let listing = Listing { store, filter, form, left, page, written: 0, is_begun: false };
    let pieces = stream::try_unfold(listing, |mut listing| async move {
        match listing.next_piece().await {
            Ok(piece) => Ok(piece.map(|piece| (piece, listing))),
            Err(error) => {
                tracing::warn!(%error, written = listing.written, "a listing was broken off");
                Err(error)
            }
        }
    });
    let mut response = Body::from_stream(pieces).into_response();
    response.headers_mut().extend(
        form.headers().into_iter().map(|(name, value)| (name, http::HeaderValue::from_static(value))),
    );
    Ok(response)
}

fn rows(left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX)
}

impl Listing {
    /// The next bytes of the answer; none at its end.
    async fn next_piece(&mut self) -> Result<Option<Bytes>, ListingError> {
        // Pages without a match become no pieces: an empty one would look like the end.
        while let Some(page) = self.page.take() {
            let mut text = Vec::new();
            self.begin(&mut text)?;
            for prediction in &page.predictions {
                self.write(prediction, &mut text)?;
            }
            self.left -= page.predictions.len() as u64;
            match page.next {
                Some(cursor) if self.left > 0 => self.page = Some(self.read(cursor, self.left).await?),
                Some(cursor) => {
                    let next = if self.has_more(cursor).await? { Some(cursor) } else { None };
                    self.end(next, &mut text);
                }
                None => self.end(None, &mut text),
            }
            if !text.is_empty() {
                return Ok(Some(text.into()));
            }
        }
        Ok(None)
    }

    fn begin(&mut self, text: &mut Vec<u8>) -> Result<(), ListingError> {
        if std::mem::replace(&mut self.is_begun, true) || self.form == Form::Export {
            return Ok(());
        }
        text.push(b'{');
        if let Some(user_id) = &self.filter.user_id {
            text.extend_from_slice(b"\"user_id\":");
            serde_json::to_writer(&mut *text, user_id)?;
            text.push(b',');
        }
        text.extend_from_slice(b"\"predictions\":[");
        Ok(())
    }

    fn write(&mut self, prediction: &Prediction, text: &mut Vec<u8>) -> Result<(), ListingError> {
        match self.form {
            Form::Json => {
                if self.written > 0 {
                    text.push(b',');
                }
                serde_json::to_writer(text, prediction)?;
            }
            Form::Export => {
                let start = text.len();
                serde_json::to_writer(&mut *text, prediction)?;
                // In JSON a line break can stand between tokens only, where a space means the same.
                for byte in text[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
                    *byte = b' ';
                }
                text.push(b'\n');
            }
        }
        self.written += 1;
        Ok(())
    }

    fn end(&self, next: Option<Cursor>, text: &mut Vec<u8>) {
        match self.form {
            Form::Json => {
                text.extend_from_slice(format!("],\"count\":{}", self.written).as_bytes());
                if let Some(cursor) = next {
                    text.extend_from_slice(format!(",\"next_cursor\":\"{cursor}\"").as_bytes());
                }
                text.push(b'}');
            }
            // The audit line: that it was done, and not for whom.
            Form::Export => tracing::info!(predictions = self.written, "a user's predictions were exported"),
        }
    }

    /// Whether anything behind `cursor` matches.
    async fn has_more(&self, mut cursor: Cursor) -> Result<bool, StoreError> {
        loop {
            let page = self.read(cursor, 1).await?;
            match page.next {
                _ if !page.predictions.is_empty() => return Ok(true),
                Some(next) => cursor = next,
                None => return Ok(false),
            }
        }
    }

    /// An answer that has begun waits for its turn; it is the client's choice to hang up.
    async fn read(&self, cursor: Cursor, left: u64) -> Result<Page, StoreError> {
        loop {
            match self.store.page(Arc::clone(&self.filter), cursor, rows(left)).await {
                Err(StoreError::Overloaded) => tokio::time::sleep(BUSY_PAUSE).await,
                page => return page,
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ListingError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a prediction is no JSON: {0}")]
    Json(#[from] serde_json::Error),
}
