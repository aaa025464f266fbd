//! The corpus of hostile images through the whole of Convoy: every file gets a detection or a 4xx, and many at once leave
//! neither memory behind nor good images without an answer.

use crate::fixture::{PATIENCE, unique};
use crate::photo;
use crate::process::Process;
use crate::rest::with_query;
use bytes::Bytes;
use reqwest::Client;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Clients that send hostile images at once.
const HOSTILE_CLIENTS: usize = 16;
/// Clients that send good ones meanwhile.
const GOOD_CLIENTS: usize = 4;

/// Name, bytes and verdicts of every file.
fn corpus() -> Vec<(String, Bytes, String)> {
    let folder = photo::repository().join("tests/corpus");
    let table = fs::read_to_string(folder.join("expected.tsv")).unwrap();
    let file = |line: &str| {
        let (name, verdicts) = line.split_once('\t').unwrap();
        (name.to_owned(), fs::read(folder.join("files").join(name)).unwrap().into(), verdicts.to_owned())
    };
    table.lines().map(file).collect()
}

/// A process of its own, and the URL of its feature-service. However slow the machine, no request is out of time.
fn convoy() -> (Process, String) {
    let (process, addresses) = Process::ready(&["--request-timeout", "1h"]);
    (process, format!("http://{}", addresses.feature.unwrap()))
}

async fn predict(client: &Client, base: &str, image: Bytes) -> (u16, String) {
    let url = with_query(format!("{base}/predict"), &[("user_id", &unique("hostile"))]);
    let request = client.post(url).header("content-type", "image/jpeg").body(image);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn every_file_of_the_corpus_gets_a_detection_or_a_4xx() {
    let (_process, base) = convoy();
    let client = Client::new();
    for (name, image, verdicts) in corpus() {
        let (status, text) = predict(&client, &base, image).await;
        let may_be_good = verdicts.split(',').any(|verdict| ["accepted", "any"].contains(&verdict));
        let may_be_refused = verdicts != "accepted";
        let expected =
            if status == 200 { may_be_good } else { may_be_refused && [400, 413].contains(&status) };
        assert!(expected, "{name}, {verdicts}: {status} {text}");
    }
    assert_eq!(predict(&client, &base, photo::bytes().into()).await.0, 200);
}

/// Resident memory of a process in KiB.
fn resident(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Good images from `GOOD_CLIENTS` until `stop`, `least` of them in all; how long each took.
async fn good_images(base: &str, least: usize, stop: Arc<AtomicBool>) -> Vec<Duration> {
    let sent = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..GOOD_CLIENTS {
        let (base, stop, sent, client) =
            (base.to_owned(), Arc::clone(&stop), Arc::clone(&sent), Client::new());
        clients.spawn(async move {
            let mut took = Vec::new();
            while sent.fetch_add(1, Ordering::Relaxed) < least || !stop.load(Ordering::Relaxed) {
                let start = Instant::now();
                let (status, text) = predict(&client, &base, photo::bytes().into()).await;
                assert_eq!(status, 200, "a good image: {text}");
                took.push(start.elapsed());
            }
            took
        });
    }
    clients.join_all().await.into_iter().flatten().collect()
}

/// `count` hostile images, in the order of the corpus, from `HOSTILE_CLIENTS`; how many got which status.
async fn hostile_images(base: &str, count: usize, least_good: usize) -> (Vec<(u16, usize)>, Vec<Duration>) {
    let files: Arc<Vec<Bytes>> = Arc::new(
        corpus()
            .into_iter()
            .filter(|(.., verdicts)| verdicts != "accepted")
            .map(|(_, image, _)| image)
            .collect(),
    );
    let next = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let good = tokio::spawn({
        let (base, stop) = (base.to_owned(), Arc::clone(&stop));
        async move { good_images(&base, least_good, stop).await }
    });
    let mut clients = JoinSet::new();
    for _ in 0..HOSTILE_CLIENTS {
        let (base, next, files, client) =
            (base.to_owned(), Arc::clone(&next), Arc::clone(&files), Client::new());
        clients.spawn(async move {
            let mut statuses = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= count {
                    return statuses;
                }
                let (status, text) = predict(&client, &base, files[at % files.len()].clone()).await;
                assert!(status == 200 || (400..500).contains(&status), "{status} {text}");
                statuses.push(status);
            }
        });
    }
    let mut statuses: Vec<u16> = clients.join_all().await.into_iter().flatten().collect();
    stop.store(true, Ordering::Relaxed);
    statuses.sort_unstable();
    let counts = statuses.chunk_by(|a, b| a == b).map(|same| (same[0], same.len())).collect();
    (counts, good.await.unwrap())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// Sends `count` hostile images beside good ones, and fails unless memory comes back to within 10 % of what it was and
/// every good image is answered. What it measured it prints.
#[allow(clippy::print_stderr)]
async fn flood(count: usize, good: usize) {
    let (process, base) = convoy();
    let stopped = Arc::new(AtomicBool::new(true));
    // What a server takes once and keeps, for its threads and their heaps, it has taken after this: the same images, as many
    // at once. A leak grows with every further one.
    hostile_images(&base, count.min(400), good).await;
    let mut alone = good_images(&base, good, stopped).await;
    let before = resident(&process);
    let (statuses, mut beside) = hostile_images(&base, count, good).await;
    let start = Instant::now();
    let mut after = resident(&process);
    while after > before + before / 10 {
        assert!(start.elapsed() < PATIENCE, "it had {before} KiB, and has {after} KiB");
        sleep(Duration::from_millis(50)).await;
        after = resident(&process);
    }
    alone.sort_unstable();
    beside.sort_unstable();
    let line = |sorted: &[Duration]| {
        let (p50, p99) = (percentile(sorted, 50), percentile(sorted, 99));
        format!("{} images, p50 {:.1} ms, p99 {:.1} ms", sorted.len(), millis(p50), millis(p99))
    };
    eprintln!(
        "{count} hostile images from {HOSTILE_CLIENTS} clients: {statuses:?} (status, count)\nresident memory: {before} KiB \
         before, {after} KiB after\ngood images from {GOOD_CLIENTS} clients: alone {}; beside {}",
        line(&alone),
        line(&beside),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_hostile_images_leave_no_memory_behind_and_good_ones_are_answered() {
    flood(160, 40).await;
}

/// `cargo test --release -p e2e --test e2e -- --ignored --nocapture two_thousand`, on a machine that does nothing else if
/// its times are to mean anything.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn two_thousand_hostile_images() {
    flood(2000, 400).await;
}
