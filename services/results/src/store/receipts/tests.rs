#![allow(clippy::unwrap_used)]

use super::*;
use std::path::PathBuf;
use tempfile::TempDir;

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("erasures.log")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("erasure.key")
    }

    fn open(&self) -> Result<(ErasureLog, ErasureKey), OpenError> {
        ErasureLog::open(&self.log(), &self.key(), Duration::ZERO)
    }

    /// With one erasure done and one pending.
    fn used() -> (Self, Uuid, Uuid) {
        let place = Self::new();
        let (mut log, key) = place.open().unwrap();
        let (done, pending) = (Uuid::new_v4(), Uuid::new_v4());
        log.begin(done, key.hash("u1"), 7, 1_000).unwrap();
        log.begin(pending, key.hash("u2"), 7, 2_000).unwrap();
        let receipts = log.finish(&[(done, 7)], 3_000).unwrap();
        assert_eq!((receipts[0].deleted_count, receipts[0].state), (7, ErasureState::Done));
        assert_eq!(receipts[0].requested_at, "1970-01-01T00:00:00.001000Z");
        (place, done, pending)
    }
}

#[test]
fn what_was_noted_is_there_after_a_restart() {
    let (place, done, pending) = Place::used();
    let (log, key) = place.open().unwrap();
    let ledger = log.ledger();
    let ledger = ledger.read().unwrap();
    assert_eq!(ledger.erased_at(&key.hash("u1")), Some(1_000));
    assert_eq!(ledger.erased_at(&key.hash("u3")), None);
    assert_eq!(ledger.last(), Some(2_000));
    let open: Vec<_> = ledger.pending().iter().map(|p| (p.id, p.user, p.rows, p.at)).collect();
    assert_eq!(open, [(pending, key.hash("u2"), 7, 2_000)]);
    let (newest, total) = ledger.newest(1);
    assert_eq!((newest[0].receipt_id.as_str(), total), (pending.to_string().as_str(), 2));
    assert_eq!(ledger.newest(9).0[1].receipt_id, done.to_string());
    let text = std::fs::read_to_string(place.log()).unwrap();
    assert!(!text.contains("u1\"") && text.contains(&key.hash("u1").to_string()), "{text}");
}

#[test]
fn a_receipt_may_be_begun_again() {
    let (place, done, _) = Place::used();
    let (mut log, key) = place.open().unwrap();
    log.begin(done, key.hash("u1"), 7, 5_000).unwrap();
    assert_eq!(log.finish(&[(done, 9)], 6_000).unwrap()[0].deleted_count, 9);
    drop(log);
    let (log, key) = place.open().unwrap();
    let ledger = log.ledger.read().unwrap();
    assert_eq!(ledger.newest(9).1, 2, "it is one receipt");
    assert_eq!(ledger.erased_at(&key.hash("u1")), Some(5_000));
}

#[test]
fn a_line_that_a_crash_cut_off_is_written_over_wherever_it_was_cut() {
    let (place, _, _) = Place::used();
    let whole = std::fs::read(place.log()).unwrap();
    let second_last = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    for length in second_last..whole.len() {
        std::fs::write(place.log(), &whole[..length]).unwrap();
        let (mut log, key) = place.open().unwrap();
        assert_eq!(log.ledger.read().unwrap().pending().len(), 2, "the `done` did not happen");
        log.begin(Uuid::new_v4(), key.hash("u3"), 7, 9_000).unwrap();
        drop(log);
        assert_eq!(place.open().unwrap().0.ledger.read().unwrap().pending().len(), 3);
    }
}

#[test]
fn a_line_that_was_changed_is_named_and_nothing_is_opened() {
    let (place, _, _) = Place::used();
    let text = std::fs::read_to_string(place.log()).unwrap();
    for (wrong, line) in [(text.replacen("pending", "pend", 1), 2), (format!("{text}{{}}\n"), 5)] {
        std::fs::write(place.log(), wrong).unwrap();
        let error = place.open().unwrap_err();
        assert!(matches!(error, OpenError::ReceiptsDamaged { line: found, .. } if found == line), "{error}");
    }
}

#[test]
fn receipts_are_never_used_without_their_key() {
    let (place, _, _) = Place::used();
    std::fs::rename(place.key(), place.folder.path().join("kept.key")).unwrap();
    assert!(matches!(place.open().unwrap_err(), OpenError::KeyMissing { .. }));
    ErasureKey::open(&place.key(), true).unwrap();
    assert!(matches!(place.open().unwrap_err(), OpenError::WrongKey { .. }));
}

#[test]
fn one_process_writes_at_a_time_and_anyone_may_read() {
    let (place, _, _) = Place::used();
    let held = place.open().unwrap();
    let error = place.open().unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    let (ledger, key) = ErasureLog::load(&place.log(), &place.key()).unwrap();
    assert_eq!(ledger.erased_at(&key.hash("u2")), Some(2_000));
    drop(held);
    place.open().unwrap();
}
