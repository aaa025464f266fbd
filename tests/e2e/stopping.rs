//! SIGTERM on the real binary: nothing that was accepted is lost.

use crate::fixture::{PATIENCE, data_folder, unique};
use crate::grpc::connect;
use crate::photo;
use crate::process::Process;
use crate::rest::{self, with_query};
use convoy::ready_file::Addresses;
use convoy_proto::model_serving::PredictionRequest;
use convoy_proto::model_serving::model_serving_client::ModelServingClient;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const DELAY: Duration = Duration::from_secs(2);
/// Requests that must have been answered before the signal is sent: every client is in the middle of its work then.
const WARM: usize = 40;

type Failure = Box<dyn Error + Send + Sync>;

/// Whether a request never left because nobody listens any more: no connection was to be had, or the one there was
/// had been closed by the server before the request was written to it (which HTTP/2 clients learn from GOAWAY).
fn is_refused(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let refused =
            error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        if refused || error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        cause = error.source();
    }
    false
}

async fn predict_over_rest(client: &reqwest::Client, addresses: &Addresses) -> Result<(), Failure> {
    let url = with_query(
        format!("http://{}/predict", addresses.feature.unwrap()),
        &[("request_id", &unique("load"))],
    );
    let answer = client.post(url).header("content-type", "image/jpeg").body(photo::bytes()).send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    if status == 200 { Ok(()) } else { Err(format!("{status}: {text}").into()) }
}

async fn predict_over_grpc(
    client: &mut ModelServingClient<tonic::transport::Channel>,
) -> Result<(), Failure> {
    let request = PredictionRequest { image: photo::bytes().into(), ..Default::default() };
    client.predict(request).await?;
    Ok(())
}

/// Sends requests one after the other until one is refused; hands back when that was. Anything else that fails is an error.
async fn load(kind: Kind, addresses: Addresses, answered: Arc<AtomicUsize>) -> Result<Instant, String> {
    let mut builder = reqwest::Client::builder().no_proxy();
    if kind == Kind::FreshConnections {
        builder = builder.pool_max_idle_per_host(0);
    }
    let http = builder.build().unwrap();
    let grpc = addresses.grpc.unwrap();
    let mut channel = ModelServingClient::new(connect(grpc).await.unwrap());
    loop {
        let result = match kind {
            Kind::FreshConnections | Kind::KeepAlive => predict_over_rest(&http, &addresses).await,
            Kind::Grpc => predict_over_grpc(&mut channel).await,
            Kind::FreshGrpc => match connect(grpc).await {
                Ok(fresh) => predict_over_grpc(&mut ModelServingClient::new(fresh)).await,
                Err(error) => Err(error.into()),
            },
        };
        match result {
            Ok(()) => answered.fetch_add(1, Ordering::Relaxed),
            Err(error) if is_refused(&*error) => return Ok(Instant::now()),
            Err(error) => return Err(format!("{kind:?}: {error:?}")),
        };
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    FreshConnections,
    KeepAlive,
    Grpc,
    FreshGrpc,
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_loses_no_request() {
    let (mut process, addresses) = Process::ready(&["--shutdown-delay", "2s"]);
    let answered = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for kind in [
        Kind::FreshConnections,
        Kind::FreshConnections,
        Kind::KeepAlive,
        Kind::KeepAlive,
        Kind::Grpc,
        Kind::FreshGrpc,
    ] {
        clients.spawn(load(kind, addresses, Arc::clone(&answered)));
    }
    let mut health = HealthClient::new(connect(addresses.grpc.unwrap()).await.unwrap());
    let watched = HealthCheckRequest { service: String::new() };
    let mut watch = health.watch(watched).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);

    let warm = async {
        while answered.load(Ordering::Relaxed) < WARM {
            assert!(clients.try_join_next().is_none(), "a client ended before the signal");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, warm).await.expect("the load is served");
    assert!(process.ready_file().exists());
    // Before the signal: it may be heard before this goes on.
    let signalled = Instant::now();
    process.signal("TERM");

    // While it drains it says that it is unready, and serves on.
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    let before = answered.load(Ordering::Relaxed);
    let feature = format!("http://{}/ready", addresses.feature.unwrap());
    assert_eq!(rest::get(feature).await.json(503)["ready"], false);
    let results = format!("http://{}/ready", addresses.results.unwrap());
    assert_eq!(rest::get(results).await.json(503)["ready"], false);
    assert!(!process.ready_file().exists(), "the ready file says that it is ready");

    while let Some(client) = clients.join_next().await {
        let refused = client.unwrap().unwrap_or_else(|error| panic!("{error}\n{}", process.log()));
        assert!(
            refused >= signalled + DELAY,
            "refused {:?} before the delay was over",
            signalled + DELAY - refused
        );
    }
    assert!(answered.load(Ordering::Relaxed) > before, "nothing was served while draining");
    assert_eq!(process.wait().code(), Some(0), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let (mut process, _) = Process::ready(&["--shutdown-delay", "1h", "--shutdown-grace", "2h"]);
        process.signal("TERM");
        process.wait_for_log("\"message\":\"stopping\"");
        assert!(process.is_running());
        // Before that the same again is one signal.
        tokio::time::sleep(Duration::from_millis(100)).await;
        process.signal(signal);
        assert_eq!(process.wait().code(), Some(code), "{}", process.log());
    }
}

/// Before it is ready, and even before it listens, a signal stops it in order.
#[test]
fn a_signal_before_readiness_stops_it() {
    for moment in ["\"message\":\"starting\"", "\"message\":\"listening\""] {
        let mut process = Process::start_in(data_folder(), &["--shutdown-delay", "10ms"]);
        process.wait_for_log(moment);
        process.signal("INT");
        assert_eq!(process.wait().code(), Some(0), "{}", process.log());
        assert!(!process.ready_file().exists());
    }
}

/// A client that opens a connection and sends half a request keeps feature-service from ending.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_ends_is_cut_off_by_the_grace_period() {
    use tokio::io::AsyncWriteExt as _;
    let flags = ["--shutdown-grace", "500ms", "--request-timeout", "1h"];
    let (mut process, addresses) = Process::ready(&flags);
    let mut stream = tokio::net::TcpStream::connect(addresses.feature.unwrap()).await.unwrap();
    let head =
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: image/jpeg\r\nContent-Length: 100\r\n\r\nhalf";
    stream.write_all(head).await.unwrap();
    // A request on a later connection was answered: the earlier one was accepted.
    rest::get(format!("http://{}/health", addresses.feature.unwrap())).await.json(200);
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(1), "{}", process.log());
    assert!(process.log().contains("while feature-service was stopping"), "{}", process.log());
}
