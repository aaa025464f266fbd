//! A load generator for a results service: a closed loop of clients over kept connections, or a steady rate.
//!
//! ```text
//! cargo run --release -p results-service --example results_load -- post  http://127.0.0.1:5002 --clients 32 --seconds 10
//! cargo run --release -p results-service --example results_load -- get   http://127.0.0.1:5002 --ids ids.txt
//! cargo run --release -p results-service --example results_load -- fill  http://127.0.0.1:5002 --rows 1000000 --users 10000
//! cargo run --release -p results-service --example results_load -- serve data/predictions.db ready.json
//! ```
//!
//! `post` writes the ids that it got a 201 for to `--ids`, `get` asks for them at random. With `--rate`, requests begin
//! at fixed times and latency counts from then, so that a service which is late is seen to be. `fill` stores rows by
//! arrays. `serve` is results-service alone, with its logs, for machines where the whole of Convoy is not built: on a
//! free port, which it writes to a file once it is ready. One line of JSON is the result.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a tool that ends at the first surprise")]

use clap::{Args, Parser, Subcommand};
use results_service::{Config, Listeners, run};
use serde_json::json;
use service_kit::{Readiness, Shutdown, telemetry};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Post(Load),
    Get(Load),
    Fill(Fill),
    Serve { database: PathBuf, ready_file: PathBuf },
}

#[derive(Args, Clone)]
struct Load {
    url: String,
    #[arg(long, default_value_t = 32)]
    clients: usize,
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Requests a second; without it each client sends as soon as it was answered.
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value = "ids.txt")]
    ids: PathBuf,
}

#[derive(Args)]
struct Fill {
    url: String,
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    #[arg(long, default_value_t = 10_000)]
    users: usize,
    /// Of the rows, as many are of the user `heavy`.
    #[arg(long, default_value_t = 100_000)]
    heavy: usize,
    #[arg(long, default_value = "ids.txt")]
    ids: PathBuf,
}

#[tokio::main]
async fn main() {
    match Cli::parse().command {
        Command::Post(load) => measure(load, true).await,
        Command::Get(load) => measure(load, false).await,
        Command::Fill(fill) => store_rows(fill).await,
        Command::Serve { database, ready_file } => serve(database, ready_file).await,
    }
}

async fn serve(database: PathBuf, ready_file: PathBuf) {
    telemetry::init(&"info".parse().unwrap(), telemetry::LogFormat::Json).unwrap();
    let arguments = ["serve", "--results-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--db-path"];
    let arguments = arguments.map(std::ffi::OsString::from).into_iter().chain([database.into()]);
    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        config: Config,
    }
    let config = Flags::parse_from(arguments).config;
    let listeners = Listeners::bind(&config).await.unwrap();
    let address = listeners.addr();
    let readiness = Readiness::new();
    let service = tokio::spawn(run(config, listeners, readiness.clone(), Shutdown::new()));
    while reqwest::get(format!("http://{address}/ready")).await.unwrap().status() != 200 {
        readiness.wait_ready().await;
    }
    std::fs::write(ready_file, json!({ "results": address }).to_string()).unwrap();
    service.await.unwrap().unwrap();
}

/// A prediction of about 400 bytes: two detections.
fn body(request_id: &str, user_id: &str) -> serde_json::Value {
    json!({
        "request_id": request_id, "user_id": user_id, "model_name": "vehicle-detector", "model_version": "1",
        "inference_time_ms": 41.25,
        "predictions": [
            {"class_name": "bus", "confidence": 0.9312, "bbox": {"x_min": 0.0512, "y_min": 0.1127, "x_max": 0.7431, "y_max": 0.9012}},
            {"class_name": "car", "confidence": 0.6127, "bbox": {"x_min": 0.7712, "y_min": 0.5521, "x_max": 0.9931, "y_max": 0.8012}}
        ]
    })
}

async fn measure(load: Load, is_post: bool) {
    let known: Arc<Vec<String>> = Arc::new(match is_post {
        true => Vec::new(),
        false => std::fs::read_to_string(&load.ids).unwrap().lines().map(str::to_owned).collect(),
    });
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(load.seconds);
    let clients: Vec<_> = (0..load.clients)
        .map(|client| {
            let (load, known) = (load.clone(), Arc::clone(&known));
            tokio::spawn(async move {
                let mut connection = Connection::open(&load.url).await;
                let (mut latencies, mut ids, mut failures) = (Vec::new(), Vec::new(), 0_u64);
                let mut random = uuid::Uuid::new_v4().as_u128() as u64 | 1;
                for number in 0_u64.. {
                    let due = load.rate.map(|rate| {
                        begin
                            + Duration::from_secs_f64(
                                (client as f64 + (number * load.clients as u64) as f64) / rate,
                            )
                    });
                    let from = match due {
                        // Late because of the service: its time counts from when it should have begun.
                        Some(due) if due <= Instant::now() => due,
                        Some(due) => {
                            tokio::time::sleep_until(due.into()).await;
                            Instant::now()
                        }
                        None => Instant::now(),
                    };
                    if from >= end {
                        break;
                    }
                    let status = if is_post {
                        let id = uuid::Uuid::new_v4().to_string();
                        let body = body(&id, &format!("user-{}", id.as_bytes()[0])).to_string();
                        let status = connection.send("POST", "/predictions", &body).await;
                        ids.push(id);
                        status
                    } else {
                        // xorshift64
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        let id = &known[random as usize % known.len()];
                        connection.send("GET", &format!("/predictions/{id}"), "").await
                    };
                    latencies.push(from.elapsed());
                    if status != if is_post { 201 } else { 200 } {
                        failures += 1;
                        ids.pop();
                    }
                }
                (latencies, ids, failures)
            })
        })
        .collect();
    let (mut latencies, mut ids, mut failures) = (Vec::new(), Vec::new(), 0);
    for client in clients {
        let (of_client, of_ids, failed) = client.await.unwrap();
        latencies.extend(of_client);
        ids.extend(of_ids);
        failures += failed;
    }
    let elapsed = begin.elapsed().as_secs_f64();
    if is_post {
        std::fs::write(&load.ids, ids.join("\n")).unwrap();
    }
    latencies.sort_unstable();
    let at = |share: f64| {
        let index = ((latencies.len() as f64 * share) as usize).min(latencies.len() - 1);
        latencies[index].as_secs_f64() * 1e3
    };
    println!(
        "{}",
        json!({
            "requests": latencies.len(), "failures": failures, "per_second": (latencies.len() as f64 / elapsed).round(),
            "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0),
        })
    );
}

async fn store_rows(fill: Fill) {
    let mut connection = Connection::open(&fill.url).await;
    let mut ids = Vec::with_capacity(fill.rows);
    let begin = Instant::now();
    for first in (0..fill.rows).step_by(1_000) {
        let rows = first..(first + 1_000).min(fill.rows);
        let bodies: Vec<_> = rows
            .map(|row| {
                let id = uuid::Uuid::new_v4().to_string();
                let user =
                    if row < fill.heavy { "heavy".to_owned() } else { format!("user-{}", row % fill.users) };
                let body = body(&id, &user);
                ids.push(id);
                body
            })
            .collect();
        let status =
            connection.send("POST", "/predictions", &serde_json::Value::from(bodies).to_string()).await;
        assert_eq!(status, 200);
    }
    std::fs::write(&fill.ids, ids.join("\n")).unwrap();
    let seconds = begin.elapsed().as_secs_f64();
    println!("{}", json!({"rows": fill.rows, "seconds": seconds, "per_second": fill.rows as f64 / seconds}));
}

/// HTTP/1.1 without what a measurement does not need, so that the service has the machine.
struct Connection {
    stream: TcpStream,
    host: String,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(url: &str) -> Self {
        let host = url.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
        let stream = TcpStream::connect(&host).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, host, buffer: Vec::new() }
    }

    /// Sends a request, reads the answer to its end and returns its status.
    async fn send(&mut self, method: &str, path: &str, body: &str) -> u16 {
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{kind}Content-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        if self.stream.write_all(request.as_bytes()).await.is_err() {
            *self = Self::open(&format!("http://{}", self.host)).await;
            self.stream.write_all(request.as_bytes()).await.unwrap();
        }
        self.buffer.clear();
        loop {
            let mut chunk = [0; 4096];
            let read = self.stream.read(&mut chunk).await.unwrap();
            assert!(read > 0, "the connection was closed");
            self.buffer.extend_from_slice(&chunk[..read]);
            let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
            let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.expect("a length").trim().parse().unwrap();
            if self.buffer.len() < end + 4 + length {
                continue;
            }
            let status = head[9..12].parse().unwrap();
            if head.contains("connection: close") {
                *self = Self::open(&format!("http://{}", self.host)).await;
            }
            return status;
        }
    }
}
