//! `GET /predictions/user/{user_id}`: `{"user_id": …, "predictions": […], "count": …}`, written page by page, so that a
//! user with a million predictions takes no more memory than one with a few hundred.
//!
//! The count stands last because it is known last: it is always the number of predictions in this very answer.

use crate::error::RequestError;
use crate::store::{Page, PredictionStore, StoreError};
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use http::header;
use std::time::Duration;

/// Between two attempts to read the next page while the readers' queue is full.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

struct Listing {
    store: PredictionStore,
    user_id: String,
    /// The page to write next; none when all is written.
    page: Option<Page>,
    written: u64,
}

/// The answer for `user_id`. A failure of the first page is an error; a later one breaks the connection off, so that no
/// client takes a part for the whole.
pub(super) async fn answer(store: PredictionStore, user_id: String) -> Result<Response, RequestError> {
    let page = Some(store.page(user_id.clone(), None).await?);
    let listing = Listing { store, user_id, page, written: 0 };
    let pieces = stream::try_unfold(listing, |mut listing| async move {
        match listing.next_piece().await {
            Ok(piece) => Ok(piece.map(|piece| (piece, listing))),
            Err(error) => {
                tracing::warn!(%error, written = listing.written, "a user's listing was broken off");
                Err(error)
            }
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(pieces)).into_response())
}

impl Listing {
    /// The next bytes of the answer; none at its end.
    async fn next_piece(&mut self) -> Result<Option<Bytes>, ListingError> {
        let Some(page) = self.page.take() else { return Ok(None) };
        let mut json = Vec::new();
        if self.written == 0 {
            json.extend_from_slice(b"{\"user_id\":");
            serde_json::to_writer(&mut json, &self.user_id)?;
            json.extend_from_slice(b",\"predictions\":[");
        }
        for prediction in &page.predictions {
            if self.written > 0 {
                json.push(b',');
            }
            serde_json::to_writer(&mut json, prediction)?;
            self.written += 1;
        }
        match page.next {
            Some(cursor) => self.page = Some(self.read(cursor).await?),
            None => json.extend_from_slice(format!("],\"count\":{}}}", self.written).as_bytes()),
        }
        Ok(Some(json.into()))
    }

    /// An answer that has begun waits for its turn; it is the client's choice to hang up.
    async fn read(&self, cursor: crate::store::Cursor) -> Result<Page, StoreError> {
        loop {
            match self.store.page(self.user_id.clone(), Some(cursor)).await {
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
