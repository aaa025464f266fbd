#![allow(clippy::unwrap_used)]

use super::*;

fn row(rows: usize) -> BatchRow {
    BatchRow { rows, p50_ms: 1.0, p99_ms: 1.0, images_per_s: 1.0, copies: None }
}

#[test]
fn a_size_that_fails_is_told_with_its_reason_and_ends_the_list() {
    let fails_from = |most: usize, kind| {
        time_sizes(&[1, 2, 4, 8], |rows| match rows <= most {
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
