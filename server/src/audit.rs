//! The audit log: one line per prediction, target `audit`, so that it can be kept apart from the rest of the log.
//!
//! What a hashed user id protects: someone who reads the log can follow one user's predictions but cannot tell who
//! it is. A plain SHA-256 would not do: ids are often e-mail addresses or small numbers, and all of those can be
//! hashed and compared. So the hash is keyed (HMAC-SHA-256, RFC 2104), and only who holds the key can go from an id
//! to its hash; the 128 bits that are kept make two users with one hash practically impossible. It does not hide
//! how often or when a user comes back, and the request id, which the caller chooses, is written as it is.

use crate::config::{AuditUserId, Config};
use hmac::{Hmac, Mac as _};
use service_kit::hexadecimal;
use sha2::Sha256;
use std::borrow::Cow;
use std::time::Duration;

/// Bytes of the HMAC that are written: 32 hexadecimal digits.
const KEPT_BYTES: usize = 16;

/// Writes the audit lines.
#[derive(Clone)]
pub(crate) struct AuditLog {
    /// Absent: user ids are written as they are.
    hash: Option<Hmac<Sha256>>,
}

/// What one prediction was.
pub(crate) struct Prediction<'a> {
    pub(crate) request_id: &'a str,
    /// Empty: the caller named none.
    pub(crate) user_id: &'a str,
    pub(crate) model: &'a str,
    pub(crate) version: &'a str,
    /// How many objects were found; absent when the caller asked for raw outputs.
    pub(crate) detections: Option<usize>,
    pub(crate) queue: Duration,
    pub(crate) inference: Duration,
    pub(crate) traceparent: Option<&'a str>,
}

impl AuditLog {
    /// An audit log as `config` describes it.
    pub(crate) fn new(config: &Config) -> Self {
        let hash = match config.audit_user_id {
            AuditUserId::Plain => None,
            AuditUserId::Hashed => Some(match &config.audit_key {
                Some(key) => keyed(key.as_bytes()),
                None => {
                    tracing::info!(
                        "The audit log's user ids are hashed with a random key of this start; set AUDIT_KEY to \
                         keep one user's hashes equal across restarts."
                    );
                    // Two version 4 UUIDs: 244 random bits from the operating system.
                    let random =
                        [*uuid::Uuid::new_v4().as_bytes(), *uuid::Uuid::new_v4().as_bytes()].concat();
                    keyed(&random)
                }
            }),
        };
        Self { hash }
    }

    /// Writes the line of `prediction`.
    pub(crate) fn write(&self, prediction: &Prediction<'_>) {
        let user_id = self.user_id(prediction.user_id);
        tracing::info!(
            target: "audit",
            request_id = prediction.request_id,
            user_id = user_id.as_deref(),
            model = prediction.model,
            version = prediction.version,
            detections = prediction.detections,
            queue_ms = milliseconds(prediction.queue),
            inference_ms = milliseconds(prediction.inference),
            traceparent = prediction.traceparent,
            "Prediction answered."
        );
    }

    fn user_id<'a>(&self, user_id: &'a str) -> Option<Cow<'a, str>> {
        match &self.hash {
            _ if user_id.is_empty() => None,
            None => Some(Cow::Borrowed(user_id)),
            Some(hash) => {
                let mut hash = hash.clone();
                hash.update(user_id.as_bytes());
                Some(Cow::Owned(hexadecimal(&hash.finalize().into_bytes()[..KEPT_BYTES])))
            }
        }
    }
}

/// `duration` in milliseconds, to the microsecond.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_hmac_sha256() {
        // RFC 4231, test case 2.
        let log = AuditLog { hash: Some(keyed(b"Jefe")) };
        let id = log.user_id("what do ya want for nothing?");
        assert_eq!(id.as_deref(), Some("5bdcc146bf60754e6a042426089575c7"));
    }

    #[test]
    fn one_user_has_one_hash_under_one_key() {
        let log = AuditLog { hash: Some(keyed(b"a key")) };
        let other = AuditLog { hash: Some(keyed(b"another key")) };
        assert_eq!(log.user_id("alice"), log.user_id("alice"));
        assert_ne!(log.user_id("alice"), log.user_id("bob"));
        assert_ne!(log.user_id("alice"), other.user_id("alice"));
    }

    #[test]
    fn plain_is_plain_and_none_is_none() {
        let log = AuditLog { hash: None };
        assert_eq!(log.user_id("alice").as_deref(), Some("alice"));
        assert_eq!(log.user_id(""), None);
    }
}
