//! Guests that mean harm, and components that do not fit.

use std::fs;
use std::future::{Future, ready};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sandbox::{ImageTensor, Limits, Sandbox, SandboxConfig, SandboxError};
use tempfile::TempDir;
use tokio::task::JoinSet;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::fixtures::{photo, sandbox, stretch};

pub(crate) const WIT: &str = include_str!("../../../wit/preprocess.wit");
/// Longer than any test takes.
pub(crate) const FOREVER: Duration = Duration::from_secs(600);

/// Makes a component of a core module and the world in `wit`.
pub(crate) fn component(wit: &str, module: &str) -> Vec<u8> {
    component_of(wit, &wat::parse_str(module).unwrap())
}

/// The same of a module that a compiler made.
pub(crate) fn component_of(wit: &str, module: &[u8]) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("preprocess.wit", wit).unwrap();
    let world = resolve.select_world(&[package], Some("preprocessor")).unwrap();
    let mut module = module.to_vec();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

pub(crate) struct Hostile {
    pub(crate) sandbox: Sandbox,
    _folder: TempDir,
}

/// A sandbox of one worker around the component of `hostile.wat`.
pub(crate) fn hostile(timeout: Duration, queue: usize) -> Hostile {
    let (folder, path) = file(&component(WIT, include_str!("hostile.wat")));
    let limits = Limits { timeout, ..Limits::default() };
    let config = SandboxConfig { component: Some(path), limits, workers: 1, queue };
    Hostile { sandbox: Sandbox::new(config).unwrap(), _folder: folder }
}

pub(crate) fn file(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("preprocess.wasm");
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

pub(crate) async fn run(sandbox: &Sandbox, does: &'static str) -> Result<ImageTensor, SandboxError> {
    sandbox.tensor(Bytes::from_static(does.as_bytes()), stretch(2, 2), None).await
}

#[tokio::test]
async fn a_component_of_the_world_replaces_the_embedded_one() {
    let hostile = hostile(FOREVER, 1);
    let tensor = run(&hostile.sandbox, "Black, please").await.unwrap();
    assert_eq!(tensor.pixels, [0; 12]);
    assert_eq!((tensor.source.width, tensor.source.height), (7, 5));
}

/// Whether an error is the one that is expected.
type Expected = Box<dyn Fn(&SandboxError) -> bool>;

fn trapped(word: &'static str) -> Expected {
    Box::new(move |e| matches!(e, SandboxError::Trapped { detail, .. } if detail.contains(word)))
}

fn is(expected: SandboxError) -> Expected {
    Box::new(move |e| *e == expected)
}

fn component_fault() -> Expected {
    Box::new(|e| matches!(e, SandboxError::Component { .. }))
}

/// Each twice, and after each a good image on the same thread.
async fn assert_stopped(hostile: &Hostile, cases: impl IntoIterator<Item = (&'static str, Expected)>) {
    for (does, is_expected) in cases {
        for _ in 0..2 {
            let error = run(&hostile.sandbox, does).await.unwrap_err();
            assert!(is_expected(&error), "{does}: {error:?}");
        }
        assert_eq!(run(&hostile.sandbox, "Fine").await.unwrap().pixels, [0; 12], "after {does}");
    }
    sandbox().tensor(photo(), stretch(30, 30), None).await.unwrap();
}

#[tokio::test]
async fn each_guest_is_stopped_with_its_own_verdict_and_the_next_is_not_harmed() {
    let hostile = hostile(FOREVER, 1);
    let limit_bytes = Limits::default().decode_memory("Memory".len(), (7, 5), &stretch(2, 2));
    assert!(limit_bytes < 17 << 20, "what 7x5 pixels may have: {limit_bytes}");
    let cases = [
        ("Memory", is(SandboxError::OutOfMemory { limit_bytes })),
        ("Recursion", trapped("call stack exhausted")),
        ("Unreachable", trapped("unreachable")),
        ("Out of bounds", trapped("out of bounds")),
        ("Pointer beyond", trapped("out of bounds")),
        ("Q: result beyond", trapped("out of bounds")),
        ("Huge", trapped("hostcall")),
        ("Wrong size", component_fault()),
        ("Goes on with less memory", trapped("call stack exhausted")),
        ("Asks for too much before", trapped("unreachable")),
    ];
    assert_stopped(&hostile, cases).await;
}

#[tokio::test]
async fn a_guest_that_harms_while_it_reads_the_header_is_stopped_sooner() {
    let hostile = hostile(FOREVER, 1);
    let limit_bytes = Limits::default().probe_memory("memory".len());
    let limit = Limits::default().max_pixels;
    let cases = [
        ("loop", is(SandboxError::OutOfTime { limit: Limits::PROBE_TIME })),
        ("memory", is(SandboxError::OutOfMemory { limit_bytes })),
        ("recursion", trapped("call stack exhausted")),
        ("unreachable", trapped("unreachable")),
        ("out of bounds", trapped("out of bounds")),
        ("q: result beyond", trapped("out of bounds")),
        ("huge", trapped("hostcall")),
        ("zero pixels", component_fault()),
        ("format of 33 bytes", component_fault()),
        ("goes on with less memory", trapped("call stack exhausted")),
        ("x: too many", is(SandboxError::TooManyPixels { width: 60_000, height: 60_000, limit })),
    ];
    assert_stopped(&hostile, cases).await;
}

#[tokio::test]
async fn a_trap_tells_which_image_it_was_and_not_what_was_in_it() {
    let hostile = hostile(FOREVER, 1);
    let error = run(&hostile.sandbox, "Unreachable").await.unwrap_err();
    let SandboxError::Trapped { image_sha256, .. } = &error else { panic!("{error:?}") };
    // printf Unreachable | sha256sum
    assert_eq!(image_sha256, "abaa46adb4e13ab2e7202ad1480a4182fde02f70e2e8ac27eb8b8dd04dc3c427");
    assert!(!error.to_string().contains("Unreachable"), "{error}");
}

#[tokio::test]
async fn what_is_called_a_jpeg_is_one_and_a_complaint_is_short() {
    let hostile = hostile(FOREVER, 1);
    let answer = hostile.sandbox.preprocess("Fine".into(), stretch(2, 2), None).await;
    assert!(
        matches!(&answer, Err(SandboxError::Component { detail }) if detail.contains("JPEG")),
        "{answer:?}"
    );
    let error = run(&hostile.sandbox, "K: complains at length").await.unwrap_err();
    assert!(matches!(&error, SandboxError::Corrupt { detail } if detail.chars().count() == 201), "{error:?}");
}

#[tokio::test]
async fn all_memory_of_an_instance_is_as_at_the_start() {
    let (_folder, path) = file(&component(WIT, include_str!("fresh.wat")));
    let config = SandboxConfig { component: Some(path), workers: 1, ..SandboxConfig::default() };
    let sandbox = Sandbox::new(config).unwrap();
    // There are few places for the memory of an instance, and each image needs one: they are used again.
    for round in 0..4 {
        run(&sandbox, "Fill").await.unwrap();
        let pixels = run(&sandbox, "Sum").await.unwrap().pixels;
        let [dirty, wrong, pages] =
            [0, 4, 8].map(|at| u32::from_le_bytes(pixels[at..at + 4].try_into().unwrap()));
        assert_eq!((dirty, wrong, pages), (0, 0, 192), "round {round}: dirty words, wrong bytes, pages");
    }
}

#[tokio::test]
async fn no_image_finds_anything_of_the_one_before() {
    // One thread, whose images are given the same place for their memory by the pooling allocator.
    let hostile = hostile(FOREVER, 1);
    for image in 0..3 {
        let tensor = run(&hostile.sandbox, "Count").await.unwrap();
        assert_eq!(tensor.pixels[..3], [1, 1, 1], "image {image}");
        assert_eq!(tensor.pixels[3..], [0; 9], "image {image}");
    }
}

#[tokio::test]
async fn an_endless_loop_is_out_of_time() {
    let limit = Duration::from_millis(500);
    let hostile = hostile(limit, 1);
    assert_eq!(run(&hostile.sandbox, "Loop").await.unwrap_err(), SandboxError::OutOfTime { limit });
    assert!(run(&hostile.sandbox, "Fine").await.is_ok());
}

#[tokio::test]
async fn nobody_waits_for_ever_though_nobody_sets_a_deadline() {
    let limit = Duration::from_millis(500);
    let hostile = hostile(limit, 8);
    // Together they would run for four seconds, and each is answered within 1.1 s of its arrival.
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let sandbox = hostile.sandbox.clone();
        calls.spawn(async move { run(&sandbox, "Loop").await.unwrap_err() });
    }
    let mut answers = calls.join_all().await;
    answers.retain(|answer| *answer != SandboxError::OutOfTime { limit });
    assert!(!answers.is_empty());
    assert!(answers.iter().all(|answer| *answer == SandboxError::Busy { retry_after: limit }), "{answers:?}");
    assert!(run(&hostile.sandbox, "Fine").await.is_ok());
}

#[tokio::test]
async fn a_callers_deadline_stops_a_loop_and_what_waits_behind_it() {
    let hostile = hostile(FOREVER, 4);
    // It is shorter than what an image may take in the quick lane.
    let deadline = Instant::now() + Duration::from_millis(10);
    let call =
        |does: &'static str| hostile.sandbox.tensor(does.as_bytes().into(), stretch(2, 2), Some(deadline));
    let (running, waiting) = tokio::join!(call("Loop"), call("Fine"));
    assert_eq!(running.unwrap_err(), SandboxError::DeadlineExceeded);
    assert_eq!(waiting.unwrap_err(), SandboxError::DeadlineExceeded);
    // The one thread is free again before the loop's time has passed.
    assert!(run(&hostile.sandbox, "Fine").await.is_ok());
    assert!(deadline.elapsed() < FOREVER, "the loop went on to its end");
}

/// Polls a future once: after that its image is in the pool.
pub(crate) async fn begin<F: Future>(future: &mut Pin<Box<F>>) {
    tokio::select! {
        biased;
        _ = future => panic!("it is done already"),
        () = ready(()) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_handle_stops_what_runs_and_joins_the_threads() {
    let begun = Instant::now();
    let hostile = hostile(FOREVER, 1);
    let handle = hostile.sandbox.clone();
    let mut running = Box::pin(async move { run(&handle, "Loop").await });
    begin(&mut running).await;
    drop(running);
    drop(hostile);
    assert!(begun.elapsed() < FOREVER, "the loop went on to its end");
}

fn refusal(component: &Path) -> String {
    let config =
        SandboxConfig { component: Some(component.to_owned()), workers: 1, ..SandboxConfig::default() };
    match Sandbox::new(config) {
        Err(SandboxError::Component { detail }) => detail,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_component_that_imports_anything_is_refused() {
    let wit = WIT.replace("export images;", "import now: func() -> u64;\n    export images;");
    let module = include_str!("hostile.wat").replacen(
        "(module",
        "(module (import \"$root\" \"now\" (func (result i64)))",
        1,
    );
    let (_folder, path) = file(&component(&wit, &module));
    let detail = refusal(&path);
    assert!(detail.contains("imports now"), "{detail}");
}

#[test]
fn what_is_not_of_the_world_is_refused() {
    let cases: [(&[u8], &str); 5] = [
        (&wat::parse_str("(component)").unwrap(), "world"),
        (&wat::parse_str("(module)").unwrap(), "a core module, not a component"),
        (b"\0asm\x0d\0\x01\0 and then nothing of the kind", "cannot be compiled"),
        (b"no wasm at all", "no WebAssembly file"),
        (b"", "no WebAssembly file"),
    ];
    for (bytes, word) in cases {
        let (_folder, path) = file(bytes);
        let detail = refusal(&path);
        assert!(detail.contains(word) && !detail.contains('\n'), "{detail}");
    }
    let detail = refusal(Path::new("/nowhere/preprocess.wasm"));
    assert!(detail.contains("/nowhere/preprocess.wasm"), "{detail}");
}

#[test]
fn memory_that_is_declared_and_not_grown_counts_too() {
    let module = include_str!("hostile.wat")
        .replace("(memory (export \"memory\") 16)", "(memory (export \"memory\") 9000)");
    let (_folder, path) = file(&component(WIT, &module));
    let detail = refusal(&path);
    assert!(detail.contains("memory"), "{detail}");
}

#[test]
fn what_does_not_start_within_the_limits_of_a_header_is_refused() {
    let wat = include_str!("hostile.wat");
    let looping = wat.replacen("(module", "(module (start $spin) (func $spin (loop $again (br $again)))", 1);
    let large = wat.replace("(memory (export \"memory\") 16)", "(memory (export \"memory\") 300)");
    for (module, words) in [(looping, "its header took longer"), (large, "memory")] {
        let (_folder, path) = file(&component(WIT, &module));
        let detail = refusal(&path);
        assert!(
            detail.contains("cannot be started within 16777216 bytes") && detail.contains(words),
            "{detail}"
        );
    }
}

#[tokio::test]
async fn a_component_of_its_own_harms_only_its_own_images() {
    let (_folder, path) = file(&component(WIT, include_str!("hostile.wat")));
    let config = SandboxConfig { workers: 1, queue: 4, ..SandboxConfig::default() };
    let ours = Sandbox::new(config).unwrap();
    let theirs = ours.with_component(&path).unwrap();
    assert_eq!(theirs.limits(), ours.limits());
    let mut loops: Vec<_> = (0..4).map(|_| Box::pin(run(&theirs, "Loop"))).collect();
    for each in &mut loops {
        begin(each).await;
    }
    ours.tensor(photo(), stretch(30, 30), None).await.unwrap();
    drop(loops);
    assert!(run(&theirs, "Fine").await.is_ok());
}
