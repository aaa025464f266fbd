//! A million predictions of 10,000 users, one of whom has 100,000: start-up, reads by id at 1,000 a second, and a stream
//! of all that one user has. Prints what it measures:
//!
//! ```console
//! cargo test --release -p results-service --test million_rows -- --ignored --nocapture
//! ```
//!
//! It takes a minute or two and about a gigabyte in the folder for temporary files. The machine must be otherwise idle:
//! client and service share it, and the process whose memory is measured.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use futures_util::StreamExt as _;
use results_service::store::{NewPrediction, PredictionStore, Put, StoreOptions};
use results_service::{Config, Listeners, run};
use serde_json::value::RawValue;
use service_kit::{Readiness, Shutdown};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval};

const ROWS: usize = 1_000_000;
const OF_ONE_USER: usize = 100_000;
const USERS: usize = 10_000;
/// Reads by id: how many a second, and for how long.
const RATE: u32 = 1_000;
const SECONDS: u32 = 20;

/// What the detector finds on a street, as feature-service stores it: 345 bytes.
const DETECTIONS: &str = r#"[{"class_name":"bus","confidence":0.97112906,"bbox":{"x_min":0.109703474,"y_min":0.29835704,"x_max":0.8858265,"y_max":0.9559647}},{"class_name":"car","confidence":0.8257486,"bbox":{"x_min":0.02164435,"y_min":0.69122785,"x_max":0.11424522,"y_max":0.7956615}},{"class_name":"car","confidence":0.3597747,"bbox":{"x_min":0.8034123,"y_min":0.66896755,"x_max":1.0,"y_max":0.9409134}}]"#;

fn prediction(number: usize) -> NewPrediction {
    // The one user's rows lie among all others'.
    let user = if number.is_multiple_of(ROWS / OF_ONE_USER) { 0 } else { 1 + number % (USERS - 1) };
    NewPrediction {
        request_id: format!("request-{number}"),
        user_id: format!("user-{user}"),
        model_name: Some("vehicle-detector".to_owned()),
        model_version: "1".to_owned(),
        inference_time_ms: 41.25,
        predictions: RawValue::from_string(DETECTIONS.to_owned()).unwrap(),
        content_sha256: None,
        received_at: None,
    }
}

async fn fill(database: &Path) {
    let store = PredictionStore::open(&StoreOptions::new(database), &Readiness::new()).unwrap();
    for part in 0..ROWS / 1_000 {
        let part = (0..1_000).map(|number| prediction(part * 1_000 + number)).collect();
        let outcomes = store.put_many(part).await.unwrap();
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Put::Stored { .. }))));
    }
    store.close().await;
}

/// Memory of this process in MiB: now (`VmRSS`), or the most it had (`VmHWM`).
fn resident(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// What the client's own timer may be late by: its resolution is a millisecond.
const TIMER: Duration = Duration::from_millis(2);

/// Reads by id, one each time it is due, whatever became of those before it. Sorted, from when each was sent; if the
/// client was late by more than its timer is, from when it was due.
async fn read_by_id(base: &str) -> Vec<Duration> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut due = interval(Duration::from_secs(1) / RATE);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut reads = Vec::new();
    for number in 0..(RATE * SECONDS) as usize {
        let was_due = due.tick().await.into_std();
        let from = if was_due.elapsed() > TIMER { was_due } else { Instant::now() };
        // All over the table: a prime stride.
        let request = client.get(format!("{base}/predictions/request-{}", number * 7_919 % ROWS)).send();
        reads.push(tokio::spawn(async move {
            let answer = request.await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.bytes().await.unwrap();
            from.elapsed()
        }));
    }
    let mut latencies = Vec::new();
    for read in reads {
        latencies.push(read.await.unwrap());
    }
    latencies.sort();
    latencies
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes and prints figures: see the top of the file"]
async fn a_million_rows() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("predictions.db");
    let began = Instant::now();
    fill(&database).await;
    println!("stored {ROWS} predictions in {:.1} s", began.elapsed().as_secs_f64());
    println!("database: {} MiB", database.metadata().unwrap().len() >> 20);

    let arguments = ["test", "--results-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--db-path"];
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        config: Config,
    }
    let arguments = arguments.iter().copied().chain([database.to_str().unwrap()]);
    let Cli { config } = clap::Parser::parse_from(arguments);
    let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
    let began = Instant::now();
    let listeners = Listeners::bind(&config).await.unwrap();
    let (base, admin) =
        (format!("http://{}", listeners.addr()), format!("http://{}", listeners.admin_addr()));
    let service = tokio::spawn(run(config, listeners, readiness.clone(), shutdown.clone()));
    while reqwest::get(format!("{base}/ready")).await.unwrap().status() != 200 {
        readiness.wait_ready().await;
    }
    println!("start-up: {} ms", began.elapsed().as_millis());

    let latencies = read_by_id(&base).await;
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!(
        "GET by id at {RATE}/s for {SECONDS} s: p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, most {:.2} ms",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );

    let before = resident("VmRSS");
    let began = Instant::now();
    let mut stream = reqwest::get(format!("{base}/predictions/user/user-0")).await.unwrap().bytes_stream();
    let (mut bytes, mut tail, mut most) = (0_usize, Vec::new(), before);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.unwrap();
        bytes += chunk.len();
        tail.extend_from_slice(&chunk);
        let keep = tail.len().saturating_sub(32);
        tail.drain(..keep);
        most = most.max(resident("VmRSS"));
    }
    let tail = String::from_utf8_lossy(&tail).into_owned();
    assert!(tail.ends_with(&format!("],\"count\":{OF_ONE_USER}}}")), "{tail}");
    println!(
        "a user's {OF_ONE_USER} predictions: {} MiB in {:.2} s; resident before {before} MiB, during it at most {most} MiB",
        bytes >> 20,
        began.elapsed().as_secs_f64()
    );

    for path in ["/stats", "/predictions?class=truck&limit=1"] {
        let began = Instant::now();
        let answer = reqwest::get(format!("{admin}{path}")).await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap();
        println!("GET {path}: {:.2} s", began.elapsed().as_secs_f64());
    }
    println!("resident at most since the process began, filling included: {} MiB", resident("VmHWM"));
    shutdown.stop();
    service.await.unwrap().unwrap();
}
