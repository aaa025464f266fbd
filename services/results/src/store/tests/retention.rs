//! The retention period.

use super::*;
use std::time::Instant;

#[tokio::test]
async fn what_is_past_the_period_goes_without_a_trace_and_the_rest_stays() {
    let (folder, store) = new_store();
    for number in 0..1_200 {
        let id = format!("r{number}");
        let user = if number % 4 == 0 { "keeper" } else { "passer-by" };
        store.put(prediction(&id, user)).await.unwrap();
    }
    store.close().await;
    // Three days old.
    other_program(&folder)
        .execute(
            "UPDATE predictions SET created_at = created_at - 259200000000 WHERE user_id = 'passer-by'",
            [],
        )
        .unwrap();
    let options = StoreOptions {
        retain: Some(Duration::from_secs(2 * 86_400)),
        ..StoreOptions::new(database(&folder))
    };
    let store = open_with(&options, &Readiness::new());
    let deadline = Instant::now() + Duration::from_secs(60);
    let files = || {
        let read = |suffix| std::fs::read(files::beside(&database(&folder), suffix)).unwrap_or_default();
        [read(""), read("-wal"), read("-shm")].concat()
    };
    while files().windows(9).any(|window| window == b"passer-by") {
        assert!(Instant::now() < deadline, "traces stay");
        // Writers go on meanwhile.
        store.put(prediction(&uuid::Uuid::new_v4().to_string(), "writer")).await.unwrap();
    }
    assert!(ids(&store, "passer-by").await.is_empty());
    assert_eq!(ids(&store, "keeper").await.len(), 300);
    assert_eq!(store.receipts(1).1, 0, "nobody asked for it");
    store.close().await;
    check_integrity(&database(&folder));
}
