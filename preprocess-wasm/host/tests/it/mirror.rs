//! Every answer that a guest can give: a short walk through them. `fuzz/fuzz_targets/host.rs` goes on for longer, led by
//! what it covers.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use sandbox::{Sandbox, SandboxConfig, SandboxError};

use crate::fixtures::stretch;
use crate::fuzzed::host;
use crate::hostile::{WIT, component, file};

/// Answers of a walk whose steps are Knuth's (MMIX): small numbers among any, so that tags, lengths and addresses are often
/// in reach.
fn answers(count: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut state = 1_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    (0..count).map(move |_| {
        let mut answer = vec![if next() % 3 == 0 { b'P' } else { b'T' }, 0, 0, 0, 0, 0, 0, 0];
        for _ in 0..1 + next() % 24 {
            let word = match next() % 4 {
                0 => 0,
                1 => next() % 16,
                2 => 1024 + next() % 64,
                _ => next(),
            };
            answer.extend((word as u32).to_le_bytes());
        }
        answer
    })
}

#[tokio::test]
async fn no_answer_of_a_guest_harms_the_host() {
    let (_folder, path) = file(&component(WIT, include_str!("mirror.wat")));
    let config = SandboxConfig { component: Some(path), workers: 1, ..SandboxConfig::default() };
    let mirror = Sandbox::new(config).unwrap();
    let (mut results, mut refused) = (0, 0);
    for answer in answers(20_000) {
        match mirror.tensor(answer.into(), stretch(2, 2), None).await {
            Ok(tensor) => {
                assert_eq!(tensor.pixels.len(), 12);
                assert!(tensor.features.mean_brightness.is_finite() && tensor.placement.x_min.is_finite());
                results += 1;
            }
            Err(SandboxError::Busy { .. } | SandboxError::Stopped | SandboxError::DeadlineExceeded) => {
                panic!("that is nothing that a guest says")
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 1000, "only {refused} refused, {results} results");
    // 12 bytes at 1100, at (0, 0, 1, 1), of an image of 7x5 pixels.
    let mut good = vec![b'T', 0, 0, 0, 0, 0, 0, 0];
    for word in [0, 0, 1100, 12, 0, 0, 1.0_f32.to_bits(), 1.0_f32.to_bits(), 0, 0, 0, 0, 0, 0] {
        good.extend(word.to_le_bytes());
    }
    good.resize(128, 9);
    assert_eq!(mirror.tensor(Bytes::from(good), stretch(2, 2), None).await.unwrap().pixels, [9; 12]);
}

/// What the fuzz target `host` begins with, and what it once failed on, through what it checks.
#[test]
fn the_host_answers_what_fuzzing_begins_with_and_what_it_found() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let mut seeds = 0;
    for folder in ["seeds/host", "regressions/host"] {
        for entry in fs::read_dir(fuzz.join(folder)).unwrap() {
            host(&fs::read(entry.unwrap().path()).unwrap());
            seeds += 1;
        }
    }
    assert!(seeds > 10, "only {seeds}");
}
