#![allow(clippy::unwrap_used)]

use super::*;

fn row(rows: usize) -> BatchRow {
    let images_per_s = rows as f64;
    BatchRow { rows, p50_ms: 1.0, p99_ms: 1.0, images_per_s, beyond_server: false, copies: None }
}

#[test]
fn a_size_that_fails_is_told_with_its_reason_and_ends_the_list() {
    let fails_from = |most: usize, kind| {
        time_sizes(&[1, 2, 4, 8], 8, |rows| match rows <= most {
            true => Ok(row(rows)),
            false => Err(BackendError::of_kind(kind, format!("no memory for {rows} rows"))),
        })
    };
    let (batches, untimed) = fails_from(2, FailureKind::OutOfMemory).unwrap();
    assert_eq!(batches.iter().map(|batch| batch.rows).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(untimed, Some(Untimed { rows: 4, reason: "no memory for 4 rows".to_owned() }));
    assert_eq!(fails_from(8, FailureKind::Other).unwrap().1, None);
    // Nothing is worth a report of a model that never runs, or of a device that is gone.
    assert!(fails_from(0, FailureKind::Other).is_err() && fails_from(2, FailureKind::DeviceLost).is_err());
}

#[test]
fn the_server_is_measured_by_batches_that_it_may_make() {
    let (batches, _) = time_sizes(&[1, 4, 8, 16, 32], 8, |rows| Ok(row(rows))).unwrap();
    let beyond = batches.iter().filter(|batch| batch.beyond_server).map(|batch| batch.rows);
    assert!(beyond.eq([16, 32]), "they are timed, and marked");
    assert_eq!(best_within_reach(&batches), 8.0);
    let (batches, _) = time_sizes(&[16, 32], 8, |rows| Ok(row(rows))).unwrap();
    assert_eq!(best_within_reach(&batches), 0.0, "sessions side by side with 8 rows are measured besides");
}
