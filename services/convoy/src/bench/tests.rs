#![allow(clippy::unwrap_used)]

use super::*;
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    bench: BenchArgs,
}

fn parse(arguments: &[&str]) -> BenchArgs {
    Line::try_parse_from([&["bench"], arguments].concat()).unwrap().bench
}

#[test]
fn loads_are_lists() {
    let args = parse(&["--concurrency=1,16", "--open-loop=2x,300"]);
    assert_eq!(args.concurrency, [1, 16]);
    assert_eq!(args.open_loop, [Rate::OfCapacity(2.0), Rate::PerSecond(300.0)]);
    let defaults = parse(&[]);
    assert_eq!(defaults.concurrency, [1, 4, 16, 64]);
    assert!(defaults.open_loop.is_empty());
    assert!(Line::try_parse_from(["bench", "--open-loop=fast"]).is_err());
}

#[test]
fn the_objective_is_its_own_or_the_servers() {
    assert_eq!(parse(&[]).objective(), Duration::from_secs(1));
    assert_eq!(parse(&["--slo=50ms"]).objective(), Duration::from_millis(50));
    assert_eq!(parse(&["--slo=none"]).objective(), Duration::from_millis(100));
    assert_eq!(parse(&["--slo=50ms", "--objective=20ms"]).objective(), Duration::from_millis(20));
    assert_eq!(parse(&["--url=h:1", "--slo=50ms"]).objective(), Duration::from_millis(100));
}

#[test]
fn a_server_elsewhere_needs_the_models_file() {
    let error = parse(&["--url=localhost:50051"]).validate().unwrap_err();
    assert!(error.to_string().contains("--model-file"), "{error}");
    assert!(parse(&["--url=localhost:50051", "--model-file=m.onnx"]).validate().is_ok());
    let error = parse(&["--duration=1ms"]).validate().unwrap_err();
    assert!(matches!(error, Failure::Usage(_)), "{error}");
}
