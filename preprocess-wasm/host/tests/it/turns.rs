//! Queues, lanes, and images that take turns.

use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jpeg_encoder::{ColorType, Encoder};
use sandbox::{Sandbox, SandboxConfig, SandboxError};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::fixtures::{Meter, stretch};
use crate::hostile::{FOREVER, begin, hostile, run};

#[tokio::test]
async fn full_queues_are_busy_until_callers_hang_up() {
    let hostile = hostile(FOREVER, 2);
    let mut waiting = Vec::new();
    // In the slow lane two work, fourteen more wait for their turn, and two are queued.
    let error = 'full: loop {
        assert!(waiting.len() < 19, "there are places for eighteen");
        waiting.push(Box::pin(run(&hostile.sandbox, "Loop")));
        begin(waiting.last_mut().unwrap()).await;
        // The one thread of the quick lane is free again when the loop has gone on to the slow one.
        assert!(run(&hostile.sandbox, "Fine").await.is_ok());
        for call in &mut waiting {
            tokio::select! {
                biased;
                answer = call => break 'full answer.unwrap_err(),
                () = ready(()) => {}
            }
        }
    };
    assert_eq!(waiting.len(), 19, "all places were taken");
    assert!(matches!(error, SandboxError::Busy { retry_after } if retry_after > Duration::ZERO), "{error:?}");
    drop(waiting);
    assert!(run(&hostile.sandbox, "Fine").await.is_ok());
}

#[tokio::test]
async fn what_takes_long_makes_nobody_wait_who_does_not() {
    let hostile = hostile(FOREVER, 4);
    let mut endless = [(); 3].map(|()| Box::pin(run(&hostile.sandbox, "Loop")));
    for call in &mut endless {
        begin(call).await;
    }
    // There is one thread in the quick lane, and it comes free.
    for _ in 0..3 {
        assert!(run(&hostile.sandbox, "Fine").await.is_ok());
    }
    // For a large JPEG there is another.
    assert!(run(&hostile.sandbox, "JPEG of many pixels").await.is_ok());
    // What declares many pixels goes to the slow lane at once, as the loops did in the end. There are two places for the three of
    // them, and it has its turn all the same; so has a JPEG of many more, and what needs much memory, once it wants that.
    for does in ["Enormous", "Vast JPEG", "Needs much memory"] {
        assert_eq!(run(&hostile.sandbox, does).await.unwrap().pixels, [0; 12]);
        for call in &mut endless {
            begin(call).await;
        }
    }
}

#[tokio::test]
async fn waiting_for_a_turn_is_no_running_and_ends_at_the_callers_deadline() {
    let limit = Duration::from_millis(500);
    let hostile = hostile(limit, 8);
    let started = Instant::now();
    let mut calls = JoinSet::new();
    for _ in 0..3 {
        let sandbox = hostile.sandbox.clone();
        calls.spawn(async move { (run(&sandbox, "Loop").await.unwrap_err(), started.elapsed()) });
    }
    let answers = calls.join_all().await;
    // Two work at a time, each for half a second: were waiting counted, all would be done after that. Beside other work one may
    // have waited for as long as any may before it was its turn.
    if answers.iter().all(|(answer, _)| *answer == SandboxError::OutOfTime { limit }) {
        let last = answers.iter().map(|(_, elapsed)| *elapsed).max();
        assert!(last.unwrap() >= limit * 3 / 2, "{last:?}");
    }

    let deadline = Some(Instant::now() + limit);
    let call = || hostile.sandbox.tensor(Bytes::from_static(b"Loop"), stretch(2, 2), deadline);
    let answers = tokio::join!(call(), call(), call(), call());
    for answer in [answers.0, answers.1, answers.2, answers.3] {
        assert_eq!(answer.unwrap_err(), SandboxError::DeadlineExceeded);
    }
    assert_eq!(run(&hostile.sandbox, "Enormous").await.unwrap().pixels, [0; 12], "there are places again");
}

#[tokio::test]
async fn what_waits_is_given_up_if_others_need_its_memory() {
    let hostile = hostile(FOREVER, 4);
    let meter = Meter::of(usize::MAX);
    let metered = hostile.sandbox.metered(Arc::<Meter>::clone(&meter));
    let mut bombs = [(); 3].map(|()| Box::pin(run(&metered, "Takes much memory and loops")));
    for bomb in &mut bombs {
        begin(bomb).await;
    }
    // What comes last might have its turn first, and would find room: threads wake in whatever order the system likes.
    let each_has_its_own = async {
        while meter.used() < 3 * (300 << 20) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(FOREVER, each_has_its_own).await.expect("they get their memory");
    // Two of those that take turns work at once, and each may have 512 MiB. All four want 1,200.
    assert!(run(&hostile.sandbox, "Needs much memory").await.is_ok());
    let [first, second, third] = bombs;
    let given_up = tokio::select! {
        answer = first => answer,
        answer = second => answer,
        answer = third => answer,
    };
    assert!(
        matches!(given_up, Err(SandboxError::Busy { retry_after }) if retry_after > Duration::ZERO),
        "{given_up:?}"
    );
}

#[tokio::test]
async fn an_image_that_was_interrupted_is_the_same_as_one_that_was_not() {
    let (width, height) = (4_000, 3_000);
    let pixels: Vec<u8> = (0..width as usize * height as usize * 3).map(|i| (i * 7 % 251) as u8).collect();
    let mut jpeg = Vec::new();
    let mut encoder = Encoder::new(&mut jpeg, 80);
    // Those are decoded whole, which takes longer than an image is left alone beside others.
    encoder.set_progressive(true);
    encoder.encode(&pixels, width, height, ColorType::Rgb).unwrap();
    let sandbox = Sandbox::new(SandboxConfig { workers: 1, ..SandboxConfig::default() }).unwrap();
    let jpeg = Bytes::from(jpeg);
    let alone = sandbox.tensor(jpeg.clone(), stretch(300, 300), None).await.unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..5 {
        let (sandbox, jpeg) = (sandbox.clone(), jpeg.clone());
        calls.spawn(async move { sandbox.tensor(jpeg, stretch(300, 300), None).await });
    }
    for answer in calls.join_all().await {
        // Beside other work one may have waited for as long as any may.
        match answer {
            Ok(tensor) => assert_eq!(tensor.pixels, alone.pixels),
            Err(error) => assert!(matches!(error, SandboxError::Busy { .. }), "{error:?}"),
        }
    }
}
