#![allow(clippy::unwrap_used)]

use super::*;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use proptest::prelude::*;
use service_kit::ErrorCode;
use std::thread;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

fn refuse<B>(error: ServingError, _rest: B) -> Box<dyn std::error::Error + Send + Sync> {
    error.into()
}

/// Waits for a body without end.
fn endless() -> Progress {
    Progress::new(None, Due::Body, EarlyRefusals::new().unwrap())
}

/// Waits for readers without end.
fn patient() -> Unread {
    Unread::new(None).unwrap()
}

/// What may happen to a call.
#[derive(Clone, Copy, Debug)]
enum Step {
    Grow(usize),
    Count(usize),
    GiveBack(usize),
    Answered(usize),
    /// To the first of the calls.
    HandOver(usize),
    Clone,
    Drop,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let step = prop_oneof![
        (0usize..80).prop_map(Step::Grow),
        (0usize..40).prop_map(Step::Count),
        (0usize..120).prop_map(Step::GiveBack),
        (0usize..60).prop_map(Step::Answered),
        (0usize..60).prop_map(Step::HandOver),
        Just(Step::Clone),
        Just(Step::Drop),
    ];
    (0usize..4, step)
}

proptest! {
    /// Whatever happens to calls in whatever order, the budget is the sum of what they hold, and all of it comes back.
    #[test]
    fn the_budget_is_what_the_calls_hold(steps in prop::collection::vec(step(), 0..200)) {
        let budget = InFlight::new(100);
        // Each call: its permits, and what it is to hold.
        let mut calls: Vec<(Vec<Permit>, usize)> = (0..4).map(|_| (vec![budget.permit()], 0)).collect();
        for (call, step) in steps {
            let used = budget.used();
            if let Step::HandOver(bytes) = step {
                let handed = calls[call].0[0].hand_over(&calls[0].0[0], bytes);
                prop_assert_eq!(handed, bytes.min(calls[call].1));
                calls[call].1 -= handed;
                calls[0].1 += handed;
                prop_assert_eq!(budget.used(), used);
                continue;
            }
            let (permits, held) = &mut calls[call];
            let permit = permits.last().unwrap().clone();
            match step {
                Step::Grow(bytes) => match permit.grow(bytes) {
                    Ok(()) => {
                        prop_assert!(used + bytes <= 100);
                        *held += bytes;
                    }
                    Err(error) => {
                        prop_assert!(used + bytes > 100);
                        let hopeless = *held + bytes > 100;
                        prop_assert_eq!(error.code() == ErrorCode::TooLarge, hopeless);
                        prop_assert!(permit.was_refused());
                    }
                },
                Step::Count(bytes) => {
                    permit.count(bytes);
                    *held += bytes;
                }
                Step::GiveBack(bytes) => {
                    permit.give_back(bytes);
                    *held = held.saturating_sub(bytes);
                }
                Step::Answered(bytes) => {
                    permit.answered(bytes);
                    *held = bytes;
                }
                Step::HandOver(_) => unreachable!("it is done"),
                Step::Clone => permits.push(permit),
                Step::Drop => {
                    drop(permit);
                    permits.pop();
                    if permits.is_empty() {
                        *permits = vec![budget.permit()];
                        *held = 0;
                    }
                }
            }
            prop_assert_eq!(budget.used(), calls.iter().map(|(_, held)| held).sum::<usize>());
        }
        drop(calls);
        prop_assert_eq!(budget.used(), 0);
    }
}

#[test]
fn threads_never_take_more_than_there_is_and_leave_nothing() {
    let budget = InFlight::new(1000);
    thread::scope(|scope| {
        for seed in 0..8 {
            let budget = &budget;
            scope.spawn(move || {
                for round in 0..2_000 {
                    let permit = budget.permit();
                    let other = permit.clone();
                    let mut granted = 0;
                    for part in 1..=4 {
                        let bytes = (seed * 31 + round * 17 + part * 7) % 200;
                        if permit.grow(bytes).is_ok() {
                            granted += bytes;
                        }
                        assert!(budget.used() <= 1000);
                    }
                    assert_eq!(permit.bytes(), granted);
                    other.give_back(round % 50);
                    drop(permit);
                }
            });
        }
    });
    assert_eq!(budget.used(), 0);
}

#[test]
fn new_calls_are_refused_before_those_that_have_begun() {
    let budget = InFlight::new(80);
    let permit = budget.permit();
    permit.grow(69).unwrap();
    assert!(!budget.is_crowded());
    permit.grow(1).unwrap();
    assert!(budget.is_crowded(), "an eighth is kept");
    permit.grow(10).unwrap();
    let refused = budget.permit().grow(1).unwrap_err();
    assert_eq!(refused, budget.refusal());
    assert_eq!((refused.code(), refused.retry_after().is_some()), (ErrorCode::Overloaded, true));
    let hopeless = permit.grow(1).unwrap_err();
    assert_eq!(hopeless.code(), ErrorCode::TooLarge, "trying again would not help");
}

#[tokio::test]
async fn a_body_is_counted_frame_by_frame_and_ends_when_there_is_no_room() {
    let budget = InFlight::new(100);
    let permit = budget.permit();
    let (sender, frames) = mpsc::channel::<Result<_, std::io::Error>>(4);
    let mut body =
        CountedBody::new(StreamBody::new(ReceiverStream::new(frames)), permit.clone(), 10, endless(), refuse);
    for (size, used) in [(6, 0), (6, 2), (90, 92)] {
        sender.send(Ok(Frame::data(Bytes::from(vec![0; size])))).await.unwrap();
        body.frame().await.unwrap().unwrap();
        assert_eq!(budget.used(), used, "the first ten bytes are free");
    }
    sender.send(Ok(Frame::data(Bytes::from(vec![0; 9])))).await.unwrap();
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(error.downcast_ref::<ServingError>().unwrap().code(), ErrorCode::TooLarge);
    assert!(sender.is_closed(), "what the client still sends is not read");
    assert!(body.frame().await.is_none());
    drop((body, permit));
    assert_eq!(budget.used(), 0);
}

/// Many calls that together want far more than there is, all of them slow: some are refused, some end, none waits.
#[tokio::test]
async fn slow_bodies_neither_exceed_the_budget_nor_wait_for_each_other() {
    const CALLERS: usize = 100;
    const FRAMES: usize = 64;
    const FRAME: usize = 64 << 10;
    let budget = InFlight::new(64 << 20);
    let mut calls: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (sender, frames) = mpsc::channel::<Result<_, std::io::Error>>(1);
            let permit = budget.permit();
            let body =
                CountedBody::new(StreamBody::new(ReceiverStream::new(frames)), permit, 0, endless(), refuse);
            Some((sender, body))
        })
        .collect();
    let frame = Bytes::from(vec![0; FRAME]);
    let (mut ended, mut refused, mut highest) = (0, 0, 0);
    // Each sends one frame a round, as callers do that trickle.
    for round in 0..FRAMES {
        for call in &mut calls {
            let Some((sender, body)) = call else { continue };
            sender.try_send(Ok(Frame::data(frame.clone()))).unwrap();
            if body.frame().await.unwrap().is_err() {
                refused += 1;
                *call = None;
            } else if round + 1 == FRAMES {
                ended += 1;
            }
            highest = highest.max(budget.used());
        }
    }
    assert!(highest <= 64 << 20, "{highest}");
    assert_eq!((ended, refused), (16, 84), "as many as fit come to their end");
    drop(calls);
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn an_answer_is_held_until_its_last_frame_is_sent() {
    let budget = InFlight::new(100);
    let permit = budget.permit();
    permit.grow(60).unwrap();
    permit.answered(4);
    let body = http_body_util::Full::new(Bytes::from_static(b"done"));
    let mut body = HeldBody::new(body, permit, false, &patient(), None);
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(frame, "done");
    drop(body);
    assert_eq!(budget.used(), 4, "the transport still has the frame");
    drop(frame);
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn an_answer_of_unknown_length_is_counted_frame_by_frame() {
    let budget = InFlight::new(100);
    let body = http_body_util::Full::new(Bytes::from_static(b"done"));
    let mut body = HeldBody::new(body, budget.permit(), true, &patient(), None);
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(budget.used(), 4);
    drop(frame);
    assert_eq!(budget.used(), 0);
}

#[test]
fn images_that_may_take_long_leave_half_of_the_budget_to_others() {
    use sandbox::MemoryMeter;
    let budget = InFlight::new(1_000);
    let (one, other) = (budget.permit(), budget.permit());
    assert!(one.grow_slow(300) && other.grow_slow(200));
    assert!(!other.grow_slow(1), "together they have half of it");
    assert!(MemoryMeter::grow(&other, 400), "for other images there is room");
    one.shrink_slow(300);
    assert!(!one.grow_slow(401), "there is not so much");
    assert!(one.grow_slow(300), "and nothing was lost by asking");
    one.shrink_slow(300);
    other.shrink_slow(200);
    MemoryMeter::shrink(&other, 400);
    assert_eq!((budget.used(), budget.shared.slow.load(Ordering::Relaxed)), (0, 0));
}
