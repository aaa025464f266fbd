#![allow(clippy::unwrap_used)]

use super::*;
use std::sync::{Arc, Mutex};

type Log = Arc<Mutex<Vec<String>>>;

#[derive(Debug, thiserror::Error)]
#[error("The disk is gone.")]
struct Broken;

/// A service that notes what happens to it, and takes `linger` to stop.
fn service(name: &'static str, log: &Log, linger: Duration) -> Service {
    let log = Arc::clone(log);
    Service::start(name, move |_, shutdown| async move {
        let note = |what: &str| log.lock().unwrap().push(format!("{name} {what}"));
        shutdown.draining().await;
        note("drains");
        shutdown.stopping().await;
        note("stops");
        tokio::time::sleep(linger).await;
        note("ended");
        Ok::<(), Broken>(())
    })
}

#[tokio::test(start_paused = true)]
async fn all_drain_then_each_stops_after_the_one_that_calls_it() {
    let log = Log::default();
    let second = Duration::from_secs(1);
    let services = ["feature", "models", "results"].map(|name| service(name, &log, second)).into();
    let fleet = Fleet::new(Addresses::default(), services);
    let start = Instant::now();
    fleet.stop(Duration::from_secs(2), Duration::from_secs(30)).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(5));

    let mut log = log.lock().unwrap().clone();
    log[..3].sort();
    let expected = "feature drains,models drains,results drains,feature stops,feature ended,models stops,\
                    models ended,results stops,results ended";
    assert_eq!(log.join(","), expected);
}

#[tokio::test(start_paused = true)]
async fn the_grace_period_names_who_hung_and_what_was_behind() {
    let log = Log::default();
    let services = vec![
        service("feature", &log, Duration::ZERO),
        service("models", &log, Duration::from_secs(3600)),
        service("results", &log, Duration::ZERO),
    ];
    let start = Instant::now();
    let stopped = Fleet::new(Addresses::default(), services)
        .stop(Duration::from_secs(2), Duration::from_secs(10))
        .await;
    assert_eq!(stopped, Err(StopError::GraceRanOut { hung: "models", behind: vec!["results"] }));
    assert_eq!(start.elapsed(), Duration::from_secs(10), "the delay counts as grace");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_is_named_and_the_others_still_stop() {
    let log = Log::default();
    let broken = Service::start("results", |_, _| async { Err::<(), _>(Broken) });
    let mut fleet =
        Fleet::new(Addresses::default(), vec![service("feature", &log, Duration::from_secs(1)), broken]);
    let ended = fleet.ended_by_itself().await;
    assert_eq!(ended.to_string(), "results stopped by itself. The disk is gone.");
    fleet.stop(Duration::ZERO, Duration::from_secs(30)).await.unwrap();
    assert_eq!(log.lock().unwrap().last().unwrap(), "feature ended");
}

#[tokio::test(start_paused = true)]
async fn an_error_while_stopping_is_not_lost() {
    let failing = Service::start("results", |_, shutdown| async move {
        shutdown.stopping().await;
        Err::<(), _>(Broken)
    });
    let stopped =
        Fleet::new(Addresses::default(), vec![failing]).stop(Duration::ZERO, Duration::from_secs(30)).await;
    assert_eq!(stopped.unwrap_err().to_string(), "results stopped with an error. The disk is gone.");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_error() {
    let panics = Service::start("models", |_, _| async { panic!("boom") as Result<(), Broken> });
    let mut fleet = Fleet::new(Addresses::default(), vec![panics]);
    assert!(fleet.ended_by_itself().await.to_string().contains("boom"));
}

#[tokio::test(start_paused = true)]
async fn ready_waits_for_what_a_service_holds_from_its_first_step() {
    let loads = Service::start("models", |readiness, shutdown| async move {
        let loading = readiness.hold("model a");
        tokio::time::sleep(Duration::from_secs(7)).await;
        drop(loading);
        shutdown.stopping().await;
        Ok::<(), Broken>(())
    });
    let fleet = Fleet::new(Addresses::default(), vec![loads]);
    assert_eq!(fleet.waiting_for(), ["models: its start"]);
    let start = Instant::now();
    fleet.ready().await;
    assert_eq!(start.elapsed(), Duration::from_secs(7));
}
