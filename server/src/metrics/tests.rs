#![allow(clippy::unwrap_used)]

use super::*;
use crate::scheduler::{CloseReason, DeadWork, Lane, RefusalReason, Stage};

const LABELS: ModelLabels<'static> = ModelLabels { model: "m", version: "1" };

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.render().unwrap()).unwrap()
}

fn version(metrics: &Metrics) -> Arc<dyn ServingObserver> {
    metrics.of_version(LABELS).unwrap()
}

fn assert_has(metrics: &Metrics, lines: &[&str]) {
    let text = text(metrics);
    for line in lines {
        assert!(text.lines().any(|other| other == *line), "{line} is not in\n{text}");
    }
}

#[test]
fn two_requests_in_one_batch_count_as_triton_counts_them() {
    let metrics = Metrics::new().unwrap();
    let version = version(&metrics);
    let ms = Duration::from_millis;
    let request = RequestReport {
        rows: 2,
        total: ms(12),
        queue: ms(1),
        compute_input: ms(1),
        compute_infer: ms(9),
        compute_output: ms(1),
    };
    let batch = BatchReport {
        rows: 4,
        requests: 2,
        lane: Lane::Narrow,
        closed: CloseReason::Queue,
        expected: ms(18),
        compute_input: ms(1),
        duration: ms(9),
        compute_output: ms(1),
        succeeded: true,
    };
    version.batch_executed(LABELS, &batch);
    version.batch_executed(LABELS, &BatchReport { succeeded: false, lane: Lane::Wide, ..batch });
    version.request_succeeded(LABELS, &request);
    version.request_succeeded(LABELS, &request);
    assert_has(
        &metrics,
        &[
            r#"nv_inference_request_success{model="m",version="1"} 2"#,
            r#"nv_inference_count{model="m",version="1"} 4"#,
            r#"nv_inference_exec_count{model="m",version="1"} 1"#,
            r#"nv_inference_request_duration_us{model="m",version="1"} 24000"#,
            r#"nv_inference_queue_duration_us{model="m",version="1"} 2000"#,
            r#"nv_inference_compute_input_duration_us{model="m",version="1"} 2000"#,
            r#"nv_inference_compute_infer_duration_us{model="m",version="1"} 18000"#,
            r#"nv_inference_compute_output_duration_us{model="m",version="1"} 2000"#,
            r#"convoy_batch_size_rows_sum{model="m",version="1"} 8"#,
            r#"convoy_request_duration_seconds_count{model="m",version="1"} 2"#,
            r#"convoy_queue_duration_seconds_count{model="m",version="1"} 2"#,
            r#"convoy_compute_infer_duration_seconds_count{model="m",version="1"} 2"#,
            r#"convoy_prediction_ratio_sum{model="m",version="1"} 0.5"#,
            r#"convoy_batches_closed_total{lane="narrow",model="m",reason="queue",version="1"} 1"#,
            r#"convoy_batches_closed_total{lane="wide",model="m",reason="queue",version="1"} 1"#,
        ],
    );
}

#[test]
fn failures_have_tritons_reasons() {
    let metrics = Metrics::new().unwrap();
    let version = version(&metrics);
    let reason =
        |reason, n| format!(r#"nv_inference_request_failure{{model="m",reason="{reason}",version="1"}} {n}"#);
    assert!(text(&metrics).contains(&reason("REJECTED", 0)), "there from the start");
    version.request_failed(LABELS, ErrorCode::Overloaded);
    version.request_failed(LABELS, ErrorCode::Internal);
    version.request_failed(LABELS, ErrorCode::InvalidInput);
    version.request_abandoned(LABELS);
    version.pending_requests(LABELS, 3);
    metrics.image_seen::<()>(&Err(SandboxError::NotAnImage));
    let text = text(&metrics);
    for each in ["REJECTED", "BACKEND", "OTHER", "CANCELED"] {
        assert!(text.contains(&reason(each, 1)), "{each} is not 1 in\n{text}");
    }
    assert!(text.contains(r#"nv_inference_pending_request_count{model="m",version="1"} 3"#));
    assert!(text.contains(r#"convoy_sandbox_images_total{verdict="not_an_image"} 1"#));
    assert!(text.contains(r#"convoy_sandbox_images_total{verdict="trapped"} 0"#), "there from the start");
}

#[test]
fn every_value_of_a_label_has_a_series_of_its_own() {
    let metrics = Metrics::new().unwrap();
    let version = version(&metrics);
    for (at, reason) in RefusalReason::ALL.into_iter().enumerate() {
        for (beside, stage) in Stage::ALL.into_iter().enumerate() {
            (0..=at * 10 + beside).for_each(|_| version.request_refused(LABELS, reason, stage));
        }
    }
    for (at, why) in DeadWork::ALL.into_iter().enumerate() {
        version.work_wasted(LABELS, why, at + 1, Duration::from_millis(500));
    }
    let refused = |reason: RefusalReason, stage: Stage, n: usize| {
        let (reason, stage) = (reason.as_str(), stage.as_str());
        format!(
            r#"convoy_requests_refused_total{{model="m",reason="{reason}",stage="{stage}",version="1"}} {n}"#
        )
    };
    for (at, reason) in RefusalReason::ALL.into_iter().enumerate() {
        for (beside, stage) in Stage::ALL.into_iter().enumerate() {
            assert_has(&metrics, &[&refused(reason, stage, at * 10 + beside + 1)]);
        }
    }
    for (at, why) in DeadWork::ALL.into_iter().enumerate() {
        let why = why.as_str();
        let labels = format!(r#"{{model="m",reason="{why}",version="1"}}"#);
        assert_has(
            &metrics,
            &[
                &format!("convoy_dead_work_rows_total{labels} {}", at + 1),
                &format!("convoy_dead_work_seconds_total{labels} 0.5"),
            ],
        );
    }
    for (at, reason) in CloseReason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, at);
    }
    for (at, lane) in Lane::ALL.into_iter().enumerate() {
        assert_eq!(lane as usize, at);
    }
    for (at, reason) in FailureReason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, at);
    }
}

#[test]
fn a_version_loaded_again_goes_on_counting_and_an_unloaded_one_is_gone() {
    let metrics = Metrics::new().unwrap();
    let success = r#"nv_inference_request_success{model="m",version="1"}"#;
    let before = version(&metrics);
    before.request_abandoned(LABELS);
    before.objective(LABELS, Some(Duration::from_millis(10)), Some(Duration::from_millis(30)));
    let again = version(&metrics);
    drop(before);
    again.request_abandoned(LABELS);
    assert_has(
        &metrics,
        &[
            r#"nv_inference_request_failure{model="m",reason="CANCELED",version="1"} 2"#,
            r#"convoy_latency_objective_seconds{model="m",version="1"} 0.03"#,
            r#"convoy_latency_objective_configured_seconds{model="m",version="1"} 0.01"#,
            &format!("{success} 0"),
        ],
    );
    again.objective(LABELS, None, None);
    assert!(!text(&metrics).contains("convoy_latency_objective_seconds{"));
    let other = metrics.of_version(ModelLabels { model: "m", version: "2" }).unwrap();
    drop(again);
    let left = text(&metrics);
    let of_version = |version: &str| left.lines().filter(|line| line.contains(version)).count();
    assert_eq!(of_version(r#"version="1""#), 0, "{left}");
    assert!(of_version(r#"version="2""#) > 0);
    drop(other);
    assert!(!text(&metrics).contains("version="));
}

#[test]
fn two_servers_in_one_process_do_not_share_counts() {
    let (one, other) = (Metrics::new().unwrap(), Metrics::new().unwrap());
    one.image_seen(&Ok(()));
    let _version = version(&one);
    let accepted = |metrics: &Metrics| {
        let text = text(metrics);
        let line = text.lines().find(|line| line.contains("accepted")).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    assert_eq!((accepted(&one), accepted(&other)), (Some(1.0), Some(0.0)));
    assert!(text(&one).contains("nv_inference_count{") && !text(&other).contains("nv_inference_count{"));
}
