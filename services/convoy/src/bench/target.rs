//! The server that is measured: one that is started here, or one that runs already; and what is sent to it.

use super::client::framed;
use super::raw::{Input, RawDevice};
use super::{BenchArgs, Outputs, rows};
use crate::exit::Failure;
use crate::health::innermost;
use crate::single::{cannot_start, usage};
use bytes::Bytes;
use convoy_proto::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use convoy_proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use convoy_proto::inference::{ModelConfig, ModelConfigRequest, ModelInferRequest, ModelMetadataRequest};
use model_serving::Listeners;
use model_serving::backend::ExecutionProvider;
use service_kit::{Readiness, Shutdown};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::oneshot;
use tonic::transport::Endpoint;

/// How long a server that runs already may take to say what it has.
const ANSWER: Duration = Duration::from_secs(10);

/// A server that can be asked.
pub(super) struct Target {
    /// HOST:PORT of its gRPC face.
    pub(super) authority: String,
    own: Option<Own>,
}

/// A server of this process, on threads of its own.
struct Own {
    shutdown: Shutdown,
    thread: JoinHandle<Result<(), String>>,
}

impl Target {
    /// The server at `--url`, or one that is started now and ready.
    pub(super) async fn new(args: &BenchArgs) -> Result<Self, Failure> {
        let Some(url) = &args.url else { return start(args).await };
        let authority = url.strip_prefix("http://").or_else(|| url.strip_prefix("grpc://")).unwrap_or(url);
        let authority = authority.trim_end_matches('/');
        if authority.contains('/') || !authority.contains(':') {
            return Err(Failure::Usage(format!(
                "--url (BENCH_URL) is {url}: write HOST:PORT of its gRPC face."
            )));
        }
        Ok(Self { authority: authority.to_owned(), own: None })
    }

    /// Stops it, if it was started here. Blocking.
    pub(super) fn stop(self) -> Result<(), Failure> {
        let Some(own) = self.own else { return Ok(()) };
        own.shutdown.drain();
        own.shutdown.stop();
        let ended = own.thread.join().unwrap_or_else(|_| Err("The server panicked.".to_owned()));
        ended.map_err(Failure::Failed)
    }
}

/// Starts model-serving with the settings of `args`, on a free port.
async fn start(args: &BenchArgs) -> Result<Target, Failure> {
    let mut config = args.server.clone();
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    (config.grpc_addr, config.http_addr, config.metrics_addr) = (free, free, free);
    config.validate().map_err(usage)?;
    args.sandbox.validate()?;
    let sandbox = args.sandbox.start(None).await?;
    let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
    // Until the server holds it itself.
    let starting = readiness.hold("its start");
    let (bound, address) = oneshot::channel();
    let stop = shutdown.clone();
    let ready = readiness.clone();
    let serve = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("The server has no threads: {error}."))?;
        let served = runtime.block_on(async {
            let listeners = Listeners::bind(&config).await.map_err(|error| error.to_string())?;
            let _ = bound.send(listeners.grpc_addr());
            let mut running = Box::pin(model_serving::run(config, listeners, sandbox, ready, stop));
            // Its first step takes a hold of its own.
            let first =
                std::future::poll_fn(|context| std::task::Poll::Ready(running.as_mut().poll(context))).await;
            drop(starting);
            let ended = match first {
                std::task::Poll::Ready(ended) => ended,
                std::task::Poll::Pending => running.await,
            };
            ended.map_err(|error| error.to_string())
        });
        runtime.shutdown_background();
        served
    };
    let thread = thread::Builder::new().name("bench-server".to_owned()).spawn(serve).map_err(cannot_start)?;
    let Ok(address) = address.await else {
        let ended = thread.join().unwrap_or_else(|_| Err("The server panicked.".to_owned()));
        return Err(Failure::CannotStart(ended.err().unwrap_or_default()));
    };
    loop {
        match tokio::time::timeout(Duration::from_millis(50), readiness.wait_ready()).await {
            Ok(()) => break,
            Err(_) if thread.is_finished() => {
                let ended = thread.join().unwrap_or_else(|_| Err("The server panicked.".to_owned()));
                return Err(Failure::CannotStart(ended.err().unwrap_or_default()));
            }
            Err(_) => {}
        }
    }
    Ok(Target { authority: address.to_string(), own: Some(Own { shutdown, thread }) })
}

/// A model as it is asked, through the server and without it.
pub(super) struct Subject {
    pub(super) model: String,
    pub(super) version: String,
    /// Encoded requests.
    pub(super) messages: Vec<Bytes>,
    /// The same rows for raw sessions.
    pub(super) input: Input,
    /// What the server runs it on, and with what: raw sessions are to have the same.
    pub(super) device: RawDevice,
    /// Rows that a request may have.
    pub(super) max_rows: usize,
    /// Its configuration.
    pub(super) config: ModelConfig,
    /// The model's file, where it is known.
    pub(super) file: Option<PathBuf>,
}

impl Subject {
    /// Asks the server what its model takes, and makes requests of one row each.
    pub(super) async fn of(target: &Target, args: &BenchArgs) -> Result<Self, Failure> {
        let failed = |what: String| Failure::Failed(format!("The server at {} {what}.", target.authority));
        let endpoint = Endpoint::from_shared(format!("http://{}", target.authority));
        let endpoint = endpoint.map_err(|error| failed(format!("has no such address: {error}")))?;
        let channel = endpoint.timeout(ANSWER).connect_timeout(ANSWER).connect().await;
        let channel = channel.map_err(|error| failed(format!("cannot be reached: {}", innermost(&error))))?;
        let mut client = GrpcInferenceServiceClient::new(channel);
        let named =
            ModelMetadataRequest { name: args.model.clone().unwrap_or_default(), version: String::new() };
        let metadata = client.model_metadata(named).await;
        let metadata =
            metadata.map_err(|status| failed(format!("refused: {}", status.message())))?.into_inner();
        let [input] = metadata.inputs.as_slice() else {
            return Err(failed(format!("has a model {} without exactly one input", metadata.name)));
        };
        let version = metadata.versions.first().cloned().unwrap_or_default();
        let named = ModelConfigRequest { name: metadata.name.clone(), version: version.clone() };
        let config = client.model_config(named).await;
        let config = config.map_err(|status| failed(format!("refused: {}", status.message())))?.into_inner();
        let config = config.config.unwrap_or_default();
        let device = device(&config, args).map_err(failed)?;
        let input = rows::input(input, args.photo.as_deref()).map_err(Failure::Usage)?;
        let messages = input.rows.iter().map(|row| {
            let wanted = match args.outputs {
                Outputs::Detections => vec!["detections"],
                Outputs::Raw => metadata.outputs.iter().map(|output| output.name.as_str()).collect(),
            };
            framed(&request(&metadata.name, &input, row, &wanted))
        });
        let file = args.model_file.clone().or_else(|| match (&args.url, args.server.model_path.is_file()) {
            (Some(_), _) => None,
            (None, true) => Some(args.server.model_path.clone()),
            (None, false) => {
                Some(args.server.model_path.join(&metadata.name).join(&version).join("model.onnx"))
            }
        });
        let max_rows = usize::try_from(config.max_batch_size).unwrap_or(0).max(1);
        Ok(Self {
            messages: messages.collect(),
            model: metadata.name,
            version,
            input,
            device,
            max_rows,
            config,
            file,
        })
    }
}

/// What the model runs on, as its configuration tells.
fn device(config: &ModelConfig, args: &BenchArgs) -> Result<RawDevice, String> {
    let parameter = |name: &str| config.parameters.get(name).map(|parameter| parameter.string_value.as_str());
    let named = parameter("execution_provider").unwrap_or_default();
    let provider = ExecutionProvider::ALL.into_iter().find(|provider| provider.as_str() == named);
    // Another server does not say: raw ONNX Runtime then runs on the CPU.
    let provider = provider.unwrap_or(ExecutionProvider::Cpu);
    let of_group = config.instance_group.iter().find_map(|group| group.gpus.first().copied());
    let of_parameter = parameter("device_id").and_then(|number| number.parse().ok());
    let gpu = of_group.or(of_parameter).unwrap_or(i32::from(args.server.device.gpu()));
    let acceleration = model_serving::repository::acceleration_of(config)
        .map_err(|detail| format!("has a model whose optimization cannot be had here: {detail}"))?;
    Ok(RawDevice { provider, gpu, acceleration })
}

fn request(model: &str, input: &Input, row: &[u8], outputs: &[&str]) -> ModelInferRequest {
    let output = |name: &&str| InferRequestedOutputTensor { name: (*name).to_owned(), ..Default::default() };
    ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![InferInputTensor {
            name: input.name.clone(),
            datatype: input.datatype.as_str().to_owned(),
            shape: input.shape.to_vec(),
            ..Default::default()
        }],
        outputs: outputs.iter().map(output).collect(),
        raw_input_contents: vec![Bytes::copy_from_slice(row)],
        ..Default::default()
    }
}
