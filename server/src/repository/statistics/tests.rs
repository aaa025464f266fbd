#![allow(clippy::unwrap_used)]

use super::*;
use crate::metrics::Metrics;
use crate::repository::{
    InferenceRequest, ModelControlMode, ModelRepository, ModelVersion, RepositoryConfig,
};
use crate::scheduler::CloseReason;
use crate::tensor::{DataType, Shape, Tensor};
use crate::test_models;
use std::future::{Future as _, poll_fn};
use std::task::Poll;
use tempfile::TempDir;

#[test]
fn two_requests_in_one_batch_count_as_triton_counts_them() {
    let statistics = VersionStatistics::new(8);
    let ms = Duration::from_millis;
    let batch = BatchReport {
        lane: crate::scheduler::Lane::Narrow,
        rows: 3,
        requests: 2,
        closed: CloseReason::Queue,
        expected: ms(9),
        compute_input: ms(1),
        duration: ms(9),
        compute_output: ms(2),
        succeeded: true,
    };
    statistics.executed(&batch);
    statistics.executed(&BatchReport { succeeded: false, ..batch });
    for rows in [1, 2] {
        statistics.succeeded(&RequestReport {
            rows,
            total: ms(14),
            queue: ms(2),
            compute_input: ms(1),
            compute_infer: ms(9),
            compute_output: ms(2),
        });
    }
    statistics.failed(ms(5));
    let read = statistics.read("m", "1");
    let sum = |count, milliseconds: u64| StatisticDuration { count, ns: milliseconds * 1_000_000 };
    assert!(read.last_inference > 1_600_000_000_000);
    assert_eq!((read.inference_count, read.execution_count), (3, 1));
    let expected = InferStatistics {
        success: sum(2, 28),
        fail: sum(1, 5),
        queue: sum(2, 4),
        compute_input: sum(2, 2),
        compute_infer: sum(2, 18),
        compute_output: sum(2, 4),
    };
    assert_eq!(read.inference_stats, expected);
    let of_three = BatchStatistics {
        batch_size: 3,
        compute_input: sum(1, 1),
        compute_infer: sum(1, 9),
        compute_output: sum(1, 2),
    };
    assert_eq!(read.batch_stats, [of_three]);
}

/// The model that counts to what it is told, with an objective that a long count is late for.
struct Busy {
    model: Arc<ModelVersion>,
    metrics: Arc<Metrics>,
    _repository: ModelRepository,
    _root: TempDir,
}

fn busy() -> Busy {
    let config = "max_batch_size: 0 instance_group { count: 1 kind: KIND_CPU }";
    let root = test_models::repository(&[("busy", "busy", config)]);
    let metrics = Arc::new(Metrics::new().unwrap());
    let config = RepositoryConfig {
        control_mode: ModelControlMode::None,
        onnxruntime_lib: Some(test_models::library()),
        profile_time: Duration::from_millis(1),
        slo: Some(Duration::from_millis(1)),
        ..RepositoryConfig::new(root.path())
    };
    let observer = Arc::<Metrics>::clone(&metrics);
    let repository = ModelRepository::load(&config, observer).unwrap();
    Busy { model: repository.get("busy", "").unwrap(), metrics, _repository: repository, _root: root }
}

fn count_to(n: i64) -> InferenceRequest {
    let n = Tensor {
        name: "n".to_owned(),
        datatype: DataType::Int64,
        shape: Shape::from([1]),
        data: n.to_le_bytes().to_vec().into(),
    };
    InferenceRequest { inputs: vec![n], ..InferenceRequest::default() }
}

fn metric(metrics: &Metrics, name: &str, more: &str) -> f64 {
    let text = String::from_utf8(metrics.render().unwrap()).unwrap();
    let series = format!("{name}{{model=\"busy\",{more}version=\"1\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
}

/// Returns when the metric is 1.
async fn one(metrics: &Metrics, name: &str, more: &str) {
    while metric(metrics, name, more) < 1.0 {
        tokio::task::yield_now().await;
    }
}

/// Each request is one success or one failure, and never both, by both accounts.
#[tokio::test]
async fn a_caller_that_hangs_up_is_one_failure_however_late_its_answer_would_be() {
    const FAILURE: &str = "nv_inference_request_failure";
    let Busy { model, metrics, .. } = &busy();
    // Alone, it is executed at once, and takes far longer than the objective.
    let mut call = Box::pin(model.infer(count_to(300_000), None));
    let polled = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
    assert!(polled.is_pending());
    while model.pending() > 0 {
        tokio::task::yield_now().await;
    }
    drop(call);
    one(metrics, "convoy_dead_work_rows_total", "reason=\"late\",").await;
    assert_eq!(metric(metrics, FAILURE, "reason=\"CANCELED\","), 1.0);
    let of_one = model.statistics();
    assert_eq!((of_one.inference_stats.success.count, of_one.inference_stats.fail.count), (0, 1));
    assert_eq!((of_one.inference_count, of_one.execution_count), (0, 1), "it was executed, and for nobody");
    assert_eq!(metric(metrics, "nv_inference_count", ""), 0.0);
    assert_eq!(metric(metrics, "nv_inference_exec_count", ""), 1.0);

    model.infer(count_to(1), None).await.unwrap();
    // It is counted once its caller has been answered.
    one(metrics, "nv_inference_request_success", "").await;
    assert_eq!(metric(metrics, "nv_inference_count", ""), 1.0);
    model.count_failure(ErrorCode::Overloaded);
    assert_eq!(metric(metrics, FAILURE, "reason=\"REJECTED\","), 1.0);
    let of_three = model.statistics().inference_stats;
    assert_eq!((of_three.success.count, of_three.fail.count), (1, 2));
    assert_eq!(metric(metrics, FAILURE, "reason=\"CANCELED\","), 1.0);
}
