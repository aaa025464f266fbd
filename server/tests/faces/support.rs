//! One server for the tests that do not stop it, and what they ask it with.

use bytes::{BufMut as _, Bytes, BytesMut};
use clap::Parser;
use convoy_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use convoy_proto::model_serving::model_serving_client::ModelServingClient;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model_serving::{Config, Listeners, RunError, run};
use prost::Message;
use sandbox::{Color, Decode, Filter, Fit, Resize, Sandbox, SandboxConfig};
use serde_json::Value;
use service_kit::{Readiness, Shutdown};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, Once, OnceLock};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    config: Config,
}

/// A server on ports of its own.
pub(crate) struct Server {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) readiness: Readiness,
    pub(crate) shutdown: Shutdown,
    pub(crate) ended: JoinHandle<Result<(), RunError>>,
}

/// The defaults, with ports of its own, for the models at `path` in the workspace.
pub(crate) fn config(path: &str) -> Config {
    let path = workspace().join(path);
    let arguments = [
        "test",
        "--grpc-addr=127.0.0.1:0",
        "--http-addr=127.0.0.1:0",
        "--metrics-addr=127.0.0.1:0",
        "--device=cpu",
        // However slow the machine, nothing is refused for being late.
        "--slo=none",
        "--profile-cache=none",
        "--model-path",
        path.to_str().unwrap(),
    ];
    Cli::try_parse_from(arguments).unwrap().config
}

/// The sandbox of all servers here: compiling it takes a second.
pub(crate) fn sandbox() -> Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    SANDBOX.get_or_init(|| Sandbox::new(SandboxConfig::default()).unwrap()).clone()
}

/// What was logged by all servers here about the request with this id, oldest first.
pub(crate) fn logged(request_id: &str) -> Vec<Value> {
    let text = LOG.lock().unwrap().clone();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice::<Value>(line).unwrap())
        .filter(|line| line["request_id"] == request_id)
        .collect()
}

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Collects the log lines of all servers: a process has one subscriber.
fn collect_logs() {
    struct Writer;
    impl io::Write for Writer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            LOG.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let ours =
            Targets::new().with_target("audit", Level::INFO).with_target("model_serving", Level::DEBUG);
        let lines = fmt::layer().json().flatten_event(true).with_writer(|| Writer).with_filter(ours);
        tracing_subscriber::registry().with(lines).init();
    });
}

impl Server {
    /// Starts one with `config`; it need not be ready yet.
    pub(crate) async fn start(config: Config, readiness: Readiness) -> Self {
        Self::start_with(config, sandbox(), readiness).await
    }

    async fn start_with(config: Config, sandbox: Sandbox, readiness: Readiness) -> Self {
        collect_logs();
        let shutdown = Shutdown::new();
        let listeners = Listeners::bind(&config).await.unwrap();
        let (grpc, http, metrics) = (listeners.grpc_addr(), listeners.http_addr(), listeners.metrics_addr());
        let ended = tokio::spawn(run(config, listeners, sandbox, readiness.clone(), shutdown.clone()));
        Self { grpc, http, metrics, readiness, shutdown, ended }
    }

    /// Returns when the gRPC port is open: the models that were chosen are loaded, or cannot be.
    pub(crate) async fn until_listening(&mut self) {
        while tokio::net::TcpStream::connect(self.grpc).await.is_err() {
            tokio::select! {
                ended = &mut self.ended => panic!("the server ended: {ended:?}"),
                () = tokio::time::sleep(Duration::from_millis(2)) => {}
            }
        }
    }

    /// Starts one with `config`, and returns when it is ready.
    pub(crate) async fn ready(config: Config) -> Self {
        Self::ready_with(config, sandbox()).await
    }

    /// The same, with a sandbox of its own.
    pub(crate) async fn ready_with(config: Config, sandbox: Sandbox) -> Self {
        let readiness = Readiness::new();
        let loading = readiness.hold("the test's look at run");
        let mut server = Self::start_with(config, sandbox, readiness.clone()).await;
        // `run` takes its own hold before it first yields to a connection.
        reqwest::get(format!("http://{}/health", server.http)).await.unwrap();
        drop(loading);
        tokio::select! {
            () = readiness.wait_ready() => {}
            ended = &mut server.ended => panic!("the server ended: {ended:?}"),
        }
        server
    }

    /// The value of a series, as `/metrics` gives it now: its name with its labels. 0 for one that is not there.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text =
            reqwest::get(format!("http://{}/metrics", self.metrics)).await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Requests of a model's version 1 that failed for this reason, in Triton's word.
    pub(crate) async fn failures(&self, model: &str, reason: &str) -> f64 {
        let labels = format!("model=\"{model}\",reason=\"{reason}\",version=\"1\"");
        self.metric(&format!("nv_inference_request_failure{{{labels}}}")).await
    }

    /// Returns when [`Server::metric`] is what is `wanted`.
    pub(crate) async fn until(&self, series: &str, wanted: impl Fn(f64) -> bool) {
        while !wanted(self.metric(series).await) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The one that tests share: ready, and running until the process ends.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<(Runtime, Server)> = OnceLock::new();
        // Tests have runtimes of their own, which end with them; the server must outlive them.
        let start = || {
            std::thread::spawn(|| {
                let runtime = Runtime::new().unwrap();
                let server = runtime.block_on(Server::ready(config("models")));
                (runtime, server)
            })
            .join()
            .unwrap()
        };
        &SHARED.get_or_init(start).1
    }

    pub(crate) async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn predict_client(&self) -> ModelServingClient<Channel> {
        ModelServingClient::new(self.channel().await).max_encoding_message_size(2 * MAX_MESSAGE_BYTES)
    }

    pub(crate) async fn inference_client(&self) -> GrpcInferenceServiceClient<Channel> {
        GrpcInferenceServiceClient::new(self.channel().await).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Calls `method` without a gRPC client's own timers, and answers the status code in the headers.
    pub(crate) async fn raw_unary(&self, method: &str, timeout: &str, message: &impl Message) -> Code {
        let stream = tokio::net::TcpStream::connect(self.grpc).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(message.encoded_len().try_into().unwrap());
        message.encode(&mut body).unwrap();
        let request = Request::post(format!("http://{}{method}", self.grpc))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", timeout)
            .body(Full::new(body.freeze()))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        response.headers().get("grpc-status").map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
    }
}

/// The street with a bus and cars.
pub(crate) fn photo() -> Bytes {
    std::fs::read(workspace().join("tests/photos/double_decker_bus.jpg")).unwrap().into()
}

/// Its pixels as the detector takes them.
pub(crate) async fn photo_pixels() -> Bytes {
    let resize = Resize {
        width: 300,
        height: 300,
        fit: Fit::Stretch,
        filter: Filter::Bilinear,
        color: Color::Rgb,
        decode: Decode::Auto,
    };
    sandbox().tensor(photo(), resize, None).await.unwrap().pixels.into()
}

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The file of a small model, made by `tests/models/generate.py`.
pub(crate) fn test_model(name: &str) -> PathBuf {
    workspace().join("server/tests/models").join(format!("{name}.onnx"))
}
