#![allow(clippy::unwrap_used)]

use super::*;
use crate::limits::{CountedBody, InFlight};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use proptest::prelude::*;
use std::convert::Infallible;
use tokio::sync::mpsc;
use tokio::time::{advance, sleep};
use tokio_stream::wrappers::ReceiverStream;

const TIMEOUT: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

type Sender = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;
type Body = CountedBody<StreamBody<ReceiverStream<Result<Frame<Bytes>, Infallible>>>>;

/// A body whose frames the sender gives, the budget that it is counted in, and what counts the slow ones.
fn body(timeout: Option<Duration>, due: Due) -> (Sender, Body, InFlight, EarlyRefusals) {
    let (sender, frames) = mpsc::channel(16);
    let (budget, refusals) = (InFlight::new(1 << 20), EarlyRefusals::new().unwrap());
    let progress = Progress::new(timeout, due, refusals.clone());
    let frames = StreamBody::new(ReceiverStream::new(frames));
    let body = CountedBody::new(frames, budget.permit(), 0, progress, |error, _rest| error.into());
    (sender, body, budget, refusals)
}

async fn send(sender: &Sender, bytes: usize) {
    // Nobody reads it any more when the body has ended.
    let _ = sender.send(Ok(Frame::data(Bytes::from(vec![0; bytes])))).await;
}

/// Sends so many bytes each time the clock has gone on by so much, until nobody reads them.
fn trickle(sender: Sender, bytes: usize, every: Duration) {
    tokio::spawn(async move {
        while !sender.is_closed() {
            send(&sender, bytes).await;
            sleep(every).await;
        }
    });
}

/// The bytes that came, until the body ended or was too slow.
async fn read(body: &mut Body) -> (usize, Option<ServingError>) {
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes += frame.data_ref().unwrap().len(),
            Err(error) => return (bytes, Some(*error.downcast().unwrap())),
        }
    }
    (bytes, None)
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_coming_ends_and_gives_back_what_it_held() {
    let (sender, mut body, budget, refusals) = body(Some(TIMEOUT), Due::Body);
    send(&sender, 300_000).await;
    let began = Instant::now();
    let (bytes, error) = read(&mut body).await;
    assert_eq!((bytes, budget.used()), (300_000, 300_000));
    assert!(
        matches!(&error, Some(ServingError::BodyTooSlow(sentence)) if sentence.contains("10s")),
        "{error:?}"
    );
    assert!((TIMEOUT..TIMEOUT + SECOND).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert!(sender.is_closed() && body.frame().await.is_none(), "nothing more is read of it");
    drop(body);
    assert_eq!(budget.used(), 0);
    let text = prometheus::TextEncoder::new().encode_to_string(&refusals.collector().collect()).unwrap();
    assert!(text.contains("{reason=\"slow_body\"} 1"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_begins_ends_as_well() {
    let (_sender, mut body, ..) = body(Some(TIMEOUT), Due::Body);
    assert!(read(&mut body).await.1.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_byte_now_and_then_is_no_progress_however_much_came_before() {
    let (sender, mut body, ..) = body(Some(TIMEOUT), Due::Body);
    send(&sender, 1_000_000).await;
    trickle(sender, 1, SECOND);
    let began = Instant::now();
    let (bytes, error) = read(&mut body).await;
    assert!(error.is_some());
    assert!(bytes <= 1_000_011 && began.elapsed() < TIMEOUT + 2 * SECOND, "{bytes} in {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_body_at_the_least_speed_is_read_to_its_end() {
    let (sender, mut body, ..) = body(Some(TIMEOUT), Due::Body);
    tokio::spawn(async move {
        for _ in 0..500 {
            sleep(SECOND).await;
            send(&sender, STEP_BYTES.div_ceil(9)).await;
        }
    });
    let (bytes, error) = read(&mut body).await;
    assert_eq!((bytes, error), (500 * STEP_BYTES.div_ceil(9), None));
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_a_body_is_waited_for() {
    let (sender, mut body, ..) = body(None, Due::Body);
    tokio::spawn(async move {
        sleep(1000 * TIMEOUT).await;
        send(&sender, 1).await;
    });
    assert_eq!(read(&mut body).await, (1, None));
}

/// While we do not read, the client's window is used up: it cannot send, and that is not its fault.
#[tokio::test(start_paused = true)]
async fn time_in_which_we_do_not_read_is_not_the_clients() {
    let (sender, mut body, ..) = body(Some(TIMEOUT), Due::Body);
    for _ in 0..20 {
        send(&sender, 100).await;
        body.frame().await.unwrap().unwrap();
        // It has sent all that it may. What it sends next needs a round trip after we have read.
        advance(100 * TIMEOUT).await;
        let sender = sender.clone();
        tokio::spawn(async move {
            sleep(TIMEOUT / 50).await;
            send(&sender, 100).await;
        });
        body.frame().await.unwrap().unwrap();
    }
}

/// Other streams of its connection, which we do not read, may have used up the connection's window.
#[tokio::test(start_paused = true)]
async fn who_cannot_send_because_of_streams_that_we_do_not_read_is_waited_for() {
    let held = HeldBack::new(2);
    let (here, elsewhere) = (SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], 2)));
    let begin = |connection| {
        let (sender, frames) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(16);
        let progress = Progress::new(Some(TIMEOUT), Due::Body, EarlyRefusals::new().unwrap());
        let (frames, progress) =
            (StreamBody::new(ReceiverStream::new(frames)), progress.beside(connection, &held));
        let permit = InFlight::new(1 << 20).permit();
        (sender, CountedBody::new(frames, permit, 0, progress, |error, _rest| error.into()))
    };
    let first = held.hold(here);
    let second = held.hold(here);
    let (_sender, mut body) = begin(Some(elsewhere));
    assert!(read(&mut body).await.1.is_some(), "another connection");
    let (_sender, mut body) = begin(Some(here));
    let began = Instant::now();
    tokio::spawn(async move {
        sleep(100 * TIMEOUT).await;
        drop(first);
    });
    assert!(read(&mut body).await.1.is_some());
    let after = began.elapsed().checked_sub(100 * TIMEOUT).expect("it was blamed");
    assert!(after <= TIMEOUT + SECOND, "{after:?} after it could send again");
    drop(second);
    assert!(lock(&held.streams).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stream_may_be_silent_between_messages_and_not_within_one() {
    let message = |bytes: u32| [&[0][..], &bytes.to_be_bytes(), &vec![7; bytes as usize]].concat();
    let (sender, mut body, ..) = body(Some(TIMEOUT), Due::Messages);
    let later = sender.clone();
    tokio::spawn(async move {
        for pieces in [vec![message(0)], vec![message(3), message(100_000)], vec![message(1)[..4].to_vec()]] {
            sleep(1000 * TIMEOUT).await;
            for piece in pieces {
                let _ = later.send(Ok(Frame::data(Bytes::from(piece)))).await;
            }
        }
    });
    let began = Instant::now();
    let (bytes, error) = read(&mut body).await;
    assert_eq!(bytes, 5 + 8 + 100_005 + 4);
    assert!(matches!(error, Some(ServingError::BodyTooSlow(_))), "{error:?}");
    let after = began.elapsed().checked_sub(3000 * TIMEOUT).unwrap();
    assert!((TIMEOUT..TIMEOUT + SECOND).contains(&after), "{after:?} after the message began");
    drop(sender);
}

proptest! {
    /// However a stream is cut into pieces, it is known where its messages end.
    #[test]
    fn messages_are_found_in_pieces_of_any_size(
        lengths in prop::collection::vec(0u32..40, 1..8),
        cuts in prop::collection::vec(1usize..9, 1..60),
    ) {
        let mut sent = Vec::new();
        let mut ends = vec![0];
        for length in lengths {
            sent.extend_from_slice(&[&[1][..], &length.to_be_bytes(), &vec![9; length as usize]].concat());
            ends.push(sent.len());
        }
        let (mut messages, mut at) = (Messages::default(), 0);
        for cut in cuts.into_iter().cycle() {
            let next = sent.len().min(at + cut);
            let another = messages.read(&sent[at..next]);
            let begins_or_ends = ends.iter().any(|end| (at..=next).contains(end) && (*end != next || *end > at));
            prop_assert_eq!(another, begins_or_ends, "{}..{} of {:?}", at, next, ends);
            prop_assert_eq!(messages.is_within_one(), !ends.contains(&next));
            at = next;
            if at == sent.len() {
                break;
            }
        }
    }
}
