#![allow(clippy::unwrap_used)]

use super::super::{HeldBody, InFlight};
use super::*;
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use tokio::time::advance;

const TIMEOUT: Duration = Duration::from_secs(60);

fn answer(unread: &Unread, budget: &InFlight, bytes: usize) -> HeldBody<Full<Bytes>> {
    let permit = budget.permit();
    permit.answered(bytes);
    HeldBody::new(Full::new(vec![7; bytes].into()), permit, false, unread, None)
}

async fn data(body: &mut HeldBody<Full<Bytes>>) -> Bytes {
    body.frame().await.unwrap().unwrap().into_data().unwrap()
}

#[tokio::test(start_paused = true)]
async fn who_reads_slowly_gets_all_of_it_and_who_stops_is_given_up() {
    let (unread, budget) = (Unread::new(Some(TIMEOUT)).unwrap(), InFlight::new(1 << 30));
    let bytes = 2 * PIECE_BYTES + 100_000;
    let mut slow = answer(&unread, &budget, bytes);
    let (start, mut read) = (Instant::now(), 0);
    for expected in [PIECE_BYTES, PIECE_BYTES, 100_000] {
        let piece = data(&mut slow).await;
        assert_eq!(piece.len(), expected);
        read += piece.len();
        assert!(!slow.is_end_stream(), "its end waits for it");
        // It is on its way shortly before it is too late; what comes next has been asked for since.
        tokio::spawn(async move {
            tokio::time::sleep(TIMEOUT - Duration::from_secs(1)).await;
            drop(piece);
        });
    }
    assert!(slow.frame().await.is_none());
    assert_eq!((read, start.elapsed()), (bytes, 3 * (TIMEOUT - Duration::from_secs(1))));
    drop(slow);

    let mut stopped = answer(&unread, &budget, bytes);
    let piece = data(&mut stopped).await;
    let begun = Instant::now();
    let error = stopped.frame().await.unwrap().unwrap_err();
    assert_eq!(begun.elapsed(), TIMEOUT);
    assert!(error.to_string().contains("60s"), "{error}");
    drop((stopped, piece));
    assert_eq!((budget.used(), unread.shared.given_up.get()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_small_answer_ends_at_once_and_without_a_limit_a_large_one_does() {
    let (unread, budget) = (Unread::new(Some(TIMEOUT)).unwrap(), InFlight::new(1 << 30));
    let mut small = answer(&unread, &budget, SMALL_BYTES);
    let piece = data(&mut small).await;
    assert!(small.is_end_stream() && small.frame().await.is_none());
    drop(piece);
    let endless = Unread::new(None).unwrap();
    let mut large = answer(&endless, &budget, 3 * PIECE_BYTES);
    assert_eq!(data(&mut large).await.len(), 3 * PIECE_BYTES);
    assert!(large.is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn what_hyper_does_not_ask_for_is_ended_with_its_connection() {
    let unread = Unread::new(Some(TIMEOUT)).unwrap();
    let handle = |port| ConnectionHandle::of_peer(([127, 0, 0, 1], port).into());
    let (reading, idle) = (handle(1), handle(2));
    let (of_reading, of_idle) = (
        unread.sending(Some(reading.clone()), false).unwrap(),
        unread.sending(Some(idle.clone()), false).unwrap(),
    );
    let small = Bytes::from_static(b"small");
    let _stays = [of_idle.piece(&small), of_idle.piece(&small)];
    let patience = TIMEOUT + TIMEOUT / 4;
    let start = Instant::now();
    let read = of_reading.piece(&small);
    advance(patience - Duration::from_secs(1)).await;
    drop(read);
    let _later = of_reading.piece(&small);
    assert_eq!(unread.end_late(Instant::now(), patience), start + patience);
    assert_eq!(unread.shared.given_up.get(), 0);
    advance(Duration::from_secs(1)).await;
    assert_eq!(unread.end_late(Instant::now(), patience), Instant::now() + patience - Duration::from_secs(1));
    assert!(!idle.reset(), "it has been reset");
    assert!(reading.reset(), "it had not");
    assert_eq!(unread.shared.given_up.get(), 1, "once for its two answers");
}
