//! Listings: their order, their pages, their filters; and counting.

use super::super::reads::{PAGE_OF_ALL, PAGE_OF_USER, PageSize, page};
use super::super::record::FIND;
use super::*;
use jiff::Timestamp;

const ALL: PageSize = PageSize { rows: usize::MAX, bytes: usize::MAX, visits: usize::MAX };

fn of_user(user_id: &str) -> Filter {
    Filter { user_id: Some(user_id.to_owned()), ..Filter::default() }
}

/// All that matches `filter`, read in pages of `size`; and how many pages that took.
fn read(folder: &TempDir, filter: &Filter, size: PageSize) -> (Vec<String>, usize) {
    let connection = other_program(folder);
    let (mut from, mut seen, mut pages) = (Some(Cursor::NEWEST), Vec::new(), 0);
    while let Some(cursor) = from {
        // As a client gives it back.
        let cursor = cursor.to_string().parse().unwrap();
        let page = page(&connection, filter, cursor, size).unwrap();
        seen.extend(page.predictions.into_iter().map(|p| p.request_id));
        (from, pages) = (page.next, pages + 1);
    }
    (seen, pages)
}

/// Rows with these instants (microseconds), models and predictions, all of one user; named by their places.
async fn store_with(rows: &[(i64, Option<&str>, &str)]) -> (TempDir, PredictionStore) {
    let (folder, store) = new_store();
    for (number, (_, model, json)) in rows.iter().enumerate() {
        let new = NewPrediction {
            model_name: model.map(str::to_owned),
            predictions: RawValue::from_string((*json).to_owned()).unwrap(),
            ..prediction(&format!("r{number}"), "u1")
        };
        assert!(matches!(store.put(new).await, Ok(Put::Stored { .. })));
    }
    let connection = other_program(&folder);
    for (number, (at, ..)) in rows.iter().enumerate() {
        let sql = "UPDATE predictions SET created_at = ?1 WHERE request_id = ?2";
        connection.execute(sql, (at, format!("r{number}"))).unwrap();
    }
    (folder, store)
}

#[tokio::test]
async fn a_listing_is_newest_first_and_rows_of_one_instant_keep_their_order() {
    // One instant for r0 to r3, an earlier one for r5: the clock was set back.
    let rows = [2000, 2000, 2000, 2000, 3000, 1000].map(|at| (at, None, "[]"));
    let (folder, store) = store_with(&rows).await;
    put(&store, "other", "u2").await;
    let expected = ["r4", "r3", "r2", "r1", "r0", "r5"];
    assert_eq!(ids(&store, "u1").await, expected);
    // Pages that end inside the instant show each row once.
    for rows in 1..4 {
        assert_eq!(read(&folder, &of_user("u1"), PageSize { rows, ..ALL }).0, expected);
    }
    let (everybody, _) = read(&folder, &Filter::default(), PageSize { rows: 2, ..ALL });
    assert_eq!(everybody, ["other", "r4", "r3", "r2", "r1", "r0", "r5"]);
}

#[tokio::test]
async fn a_page_ends_at_each_of_its_bounds() {
    let (folder, _store) = store_with(&[1, 2, 3].map(|at| (at, None, "[]"))).await;
    for size in [PageSize { rows: 1, ..ALL }, PageSize { bytes: 1, ..ALL }, PageSize { visits: 1, ..ALL }] {
        assert_eq!(read(&folder, &of_user("u1"), size), (vec!["r2".into(), "r1".into(), "r0".into()], 3));
    }
}

#[tokio::test]
async fn a_filter_that_nothing_matches_costs_many_short_pages() {
    let (folder, _store) = store_with(&[1, 2, 3, 4, 5].map(|at| (at, None, "[]"))).await;
    let nobody = Filter { class: Some("bus".to_owned()), ..of_user("u1") };
    assert_eq!(read(&folder, &nobody, PageSize { visits: 2, ..ALL }), (Vec::new(), 3));
}

#[tokio::test]
async fn filters_are_met_all_at_once() {
    let rows = [
        (1000, Some("a"), r#"[{"class_name":"bus"}]"#),
        (2000, Some("b"), r#"[{"class":"bus"},{"class_name":"car"}]"#),
        (3000, None, r#"{"class_name":"bus"}"#),
        (4000, Some("a"), r#"[{"class_name":"car","class":"bus"}]"#),
    ];
    let (folder, _store) = store_with(&rows).await;
    let at = |micros| Some(Timestamp::from_microsecond(micros).unwrap());
    let text = |text: &str| Some(text.to_owned());
    for (filter, expected) in [
        (Filter::default(), vec!["r3", "r2", "r1", "r0"]),
        (Filter { since: at(2000), ..Filter::default() }, vec!["r3", "r2", "r1"]),
        (Filter { until: at(3000), ..Filter::default() }, vec!["r1", "r0"]),
        (Filter { since: at(2000), until: at(2001), ..Filter::default() }, vec!["r1"]),
        (Filter { since: at(3000), until: at(2000), ..Filter::default() }, vec![]),
        (Filter { model: text("a"), ..Filter::default() }, vec!["r3", "r0"]),
        (Filter { class: text("bus"), ..Filter::default() }, vec!["r1", "r0"]),
        (Filter { class: text("car"), ..Filter::default() }, vec!["r3", "r1"]),
        (Filter { class: text("car"), model: text("b"), ..Filter::default() }, vec!["r1"]),
        (of_user("u2"), vec![]),
    ] {
        for size in [ALL, PageSize { rows: 1, ..ALL }, PageSize { visits: 1, ..ALL }] {
            assert_eq!(read(&folder, &filter, size).0, expected, "{filter:?} {size:?}");
        }
    }
}

#[test]
fn a_cursor_comes_back_from_its_text_and_nothing_else_does() {
    for text in ["0".repeat(32), "f".repeat(32), "000644a1b2c3d4e5000000000000002a".to_owned()] {
        assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
    }
    assert_eq!(Cursor::NEWEST.to_string().parse(), Ok(Cursor::NEWEST));
    for text in
        ["", "0", &"g".repeat(32), &"F".repeat(32), &"+0".repeat(16), &"0".repeat(33), &"ü".repeat(16)]
    {
        assert!(text.parse::<Cursor>().is_err(), "{text}");
    }
}

#[test]
fn queries_use_their_index_and_sort_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let _store = open(&folder);
    let connection = other_program(&folder);
    for (sql, index) in [
        (PAGE_OF_USER, "predictions_by_user"),
        (PAGE_OF_ALL, "predictions_by_time"),
        (FIND, "sqlite_autoindex_predictions_1"),
    ] {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let unbound = vec![rusqlite::types::Null; statement.parameter_count()];
        let plan: Vec<String> = statement
            .query_map(rusqlite::params_from_iter(unbound), |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(plan.len(), 1, "{plan:?}");
        assert!(plan[0].starts_with("SEARCH") && plan[0].contains(index), "{plan:?}");
    }
}

#[tokio::test]
async fn stats_count_what_is_there() {
    let rows = [
        (0, Some("a"), r#"[{"class_name":"bus"},{"class_name":"bus"}]"#),
        (86_400_000_000, Some("a"), r#"[{"class":"car"}]"#),
        (86_400_000_001, None, "null"),
    ];
    let (_folder, store) = store_with(&rows).await;
    put(&store, "r3", "u2").await;
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.predictions, stats.users), (4, 2));
    assert_eq!((stats.models["a"], stats.models["vehicle-detector"]), (2, 1));
    assert_eq!((stats.classes["bus"], stats.classes["car"]), (2, 1));
    assert_eq!((stats.days["1970-01-01"], stats.days["1970-01-02"]), (1, 2));
    assert!(stats.database_bytes + stats.wal_bytes > 0 && stats.commits >= 4);
}

#[tokio::test]
async fn counting_goes_on_over_its_steps() {
    let (_folder, store) = new_store();
    for part in 0..5 {
        let new = (0..1000).map(|n| prediction(&format!("r{part}-{n}"), &format!("u{}", part * 1000 + n)));
        store.put_many(new.collect()).await.unwrap();
    }
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.predictions, stats.users), (5000, 5000));
    assert_eq!(stats.days.values().sum::<u64>(), 5000);
}
