//! Arrays of predictions.

use super::*;

#[tokio::test]
async fn each_has_an_outcome_of_its_own_in_one_transaction() {
    let (_folder, store) = new_store();
    put(&store, "taken", "u1").await;
    let commits = store.stats().await.unwrap().commits;
    let many =
        vec![prediction("a", "u1"), prediction("taken", "u2"), prediction("b", "u2"), prediction("a", "u1")];
    let outcomes = store.put_many(many).await.unwrap();
    assert!(
        matches!(
            outcomes[..],
            [Ok(Put::Stored { .. }), Ok(Put::Exists), Ok(Put::Stored { .. }), Ok(Put::Exists)]
        ),
        "{outcomes:?}"
    );
    assert_eq!(store.stats().await.unwrap().commits, commits + 1);
    assert_eq!(ids(&store, "u2").await, ["b"]);
    assert!(store.put_many(Vec::new()).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_was_received_before_the_last_erasure_is_not_stored() {
    let (_folder, store) = new_store();
    let before = store.now();
    assert_eq!(erase(&store, "u1").await, 0);
    let late = NewPrediction { received_at: Some(before), ..prediction("late", "u1") };
    let others = NewPrediction { received_at: Some(before), ..prediction("others", "u2") };
    let outcomes = store.put_many(vec![late.clone(), others, prediction("new", "u1")]).await.unwrap();
    assert!(
        matches!(outcomes[..], [Ok(Put::Erased), Ok(Put::Stored { .. }), Ok(Put::Stored { .. })]),
        "{outcomes:?}"
    );
    assert!(store.get("late".to_owned()).await.unwrap().is_none());
    // A restart knows it too.
    store.close().await;
    let store = open(&_folder);
    assert!(matches!(store.put(late).await, Ok(Put::Erased)));
}

#[tokio::test]
async fn metrics_say_what_was_done() {
    let (_folder, store) = new_store();
    store.put_many(vec![prediction("a", "u1"), prediction("a", "u1"), prediction("b", "u1")]).await.unwrap();
    erase(&store, "u1").await;
    let families = store.metrics();
    let value = |name: &str, label: Option<&str>| {
        let family = families.iter().find(|f| f.name() == name).unwrap_or_else(|| panic!("{name}"));
        let metric = family
            .get_metric()
            .iter()
            .find(|m| label.is_none_or(|label| m.get_label().iter().any(|pair| pair.value() == label)));
        let metric = metric.unwrap();
        metric.get_counter().get_value()
            + metric.get_gauge().get_value()
            + metric.get_histogram().get_sample_count() as f64
    };
    assert_eq!(value("convoy_results_predictions_total", Some("stored")), 2.0);
    assert_eq!(value("convoy_results_predictions_total", Some("exists")), 1.0);
    assert_eq!(value("convoy_results_commit_predictions", None), 1.0);
    assert_eq!(value("convoy_results_erasures_total", None), 1.0);
    assert_eq!(value("convoy_results_erasures_pending", None), 0.0);
    assert_eq!(value("convoy_results_queued_writes", None), 0.0);
    assert_eq!(value("convoy_results_wal_bytes", None), 0.0);
    assert!(value("convoy_results_database_bytes", None) > 0.0);
}
