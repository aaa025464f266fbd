//! What is predicted: a request with all its ids, and the hash by which it is known again.

use crate::predict_request::{Ids, PredictRequest};
use bytes::Bytes;
use jiff::Timestamp;
use service_kit::hexadecimal;
use service_kit::timestamp::to_rfc3339;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Namespace of the user ids that are derived from request ids.
const ANONYMOUS_USERS: Uuid = Uuid::from_u128(0x6f0b_54c1_93d2_4c4e_8a57_20d1_7e1c_9b3a);

/// A request with all its ids.
#[derive(Debug)]
pub(crate) struct Job {
    pub(super) image: Bytes,
    pub(crate) request_id: String,
    pub(super) user_id: String,
    /// As the client wrote it: empty is the default model.
    pub(super) model: String,
    /// Whether an earlier request can have had this id.
    pub(super) chosen_by_client: bool,
    pub(super) content_sha256: String,
    /// When the request came in: RFC 3339, UTC, microseconds.
    pub(super) received_at: String,
}

impl Job {
    /// Completes the ids of a request that came in at `received_at`, and hashes the content. Takes time: run it through [`Offload`](crate::offload::Offload).
    ///
    /// A missing user is derived from the request's id: another one for each request, yet the same when the request
    /// is repeated, so that the repetition is known as such.
    pub(crate) fn new(request: PredictRequest, received_at: Timestamp) -> Self {
        let PredictRequest { image, ids: Ids { request_id, user_id, model } } = request;
        let chosen_by_client = request_id.is_some();
        let request_id = request_id.unwrap_or_else(|| Uuid::new_v4().to_string());
        let user_id =
            user_id.unwrap_or_else(|| Uuid::new_v5(&ANONYMOUS_USERS, request_id.as_bytes()).to_string());
        let model = model.unwrap_or_default();
        let content_sha256 = content_sha256(&image, &user_id, &model);
        let received_at = to_rfc3339(received_at);
        Self { image, request_id, user_id, model, chosen_by_client, content_sha256, received_at }
    }
}

/// SHA-256 over image, user and model in lower-case hex. Each part follows its length, so that no two different
/// requests have the same bytes. The model is the name that the client wrote: what the empty name stands for may
/// change between a request and its repetition.
fn content_sha256(image: &[u8], user_id: &str, model: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"convoy/predict/1");
    for part in [user_id.as_bytes(), model.as_bytes(), image] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hexadecimal(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(request_id: Option<&str>, user_id: Option<&str>) -> Job {
        let own = |id: Option<&str>| id.map(str::to_owned);
        let ids = Ids { request_id: own(request_id), user_id: own(user_id), model: None };
        Job::new(PredictRequest { image: Bytes::from_static(b"image"), ids }, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_repeated_request_without_a_user_is_the_same_request() {
        let (first, again, other) = (job(Some("r1"), None), job(Some("r1"), None), job(Some("r2"), None));
        assert_eq!((&first.user_id, &first.content_sha256), (&again.user_id, &again.content_sha256));
        assert_ne!(first.user_id, other.user_id);
        assert!(first.chosen_by_client);
    }

    #[test]
    fn made_ids_are_new_and_not_looked_up() {
        let (one, two) = (job(None, Some("u")), job(None, Some("u")));
        assert_ne!(one.request_id, two.request_id);
        assert_eq!(one.content_sha256, two.content_sha256);
        assert!(!one.chosen_by_client);
    }

    #[test]
    fn the_hash_keeps_its_parts_apart() {
        let hashes = [
            content_sha256(b"image", "user", "model"),
            content_sha256(b"image", "userm", "odel"),
            content_sha256(b"image", "use", "rmodel"),
            content_sha256(b"limage", "user", "mode"),
            content_sha256(b"image", "user", ""),
            content_sha256(b"", "user", "model"),
        ];
        for (i, one) in hashes.iter().enumerate() {
            assert!(hashes[..i].iter().all(|other| other != one));
            assert!(one.len() == 64 && one.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        }
    }
}
