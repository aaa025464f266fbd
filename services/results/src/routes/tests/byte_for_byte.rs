//! `predictions` comes back as it was sent, whatever JSON it is.

use super::*;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    predictions: &'a RawValue,
}

/// Posts `json` as the predictions of a new request, and returns what `GET` by id and the user's listing hold.
async fn round_trip(service: &Service, id: &str, json: &str) -> [String; 2] {
    #[derive(Deserialize)]
    struct Listing<'a> {
        #[serde(borrow)]
        predictions: Vec<Stored<'a>>,
    }
    let body = format!(
        "{{\"request_id\":\"{id}\",\"user_id\":\"{id}\",\"predictions\": {json}\n,\"model_version\":\"1\",\"inference_time_ms\":1}}"
    );
    let created = service.post(body).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
    let read = service.call("GET", &format!("/predictions/{id}")).await;
    let listed = service.call("GET", &format!("/predictions/user/{id}")).await;
    let read: Stored<'_> = serde_json::from_str(&read.text).unwrap();
    let listed: Listing<'_> = serde_json::from_str(&listed.text).unwrap();
    [read.predictions.get().to_owned(), listed.predictions[0].predictions.get().to_owned()]
}

/// JSON texts as their bytes, not as values: white space, key order, repeated keys, long numbers and escapes as other
/// programs write them.
fn json_text() -> impl Strategy<Value = String> {
    let string = prop_oneof!["[ !#-\\[\\]-~é漢🚌]{0,12}", r#"(\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}|[a-z]){0,8}"#,]
        .prop_map(|inner| format!("\"{inner}\""));
    let number = r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,5})?";
    let leaf =
        prop_oneof![Just("null".to_owned()), Just("true".to_owned()), number.prop_map(|n| n), string.clone()];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        let space = "[ \t\r\n]{0,3}";
        let item = (space, inner, space).prop_map(|(before, value, after)| format!("{before}{value}{after}"));
        let member = (space, string.clone(), space, item.clone())
            .prop_map(|(before, key, after, value)| format!("{before}{key}{after}:{value}"));
        prop_oneof![
            prop::collection::vec(item, 0..6).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

#[test]
fn any_json_comes_back_byte_for_byte() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let service = Service::new();
    let number = std::cell::Cell::new(0);
    let config = ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(json in json_text())| {
        number.set(number.get() + 1);
        let returned = runtime.block_on(round_trip(&service, &format!("r{}", number.get()), &json));
        for text in returned {
            prop_assert_eq!(&text, &json);
        }
    });
}

#[tokio::test]
async fn what_parsers_like_to_change_is_not_changed() {
    let service = Service::new();
    for (number, json) in [
        r#"{"b":1,"a":2,"b":3}"#,
        "0.1000000000000000055511151231257827021181583404541015625",
        "123456789012345678901234567890123456789012345678901234567890",
        "1e999",
        "-0",
        "1.0E+2",
        r#""\u00e9\/\ud83d\ude8c\u0000""#,
        r#""\ud800""#,
        "[ 1 ,\t2,\r\n3 ]",
        "\"</script>\u{2028}\u{7f}\"",
        "null",
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(round_trip(&service, &format!("r{number}"), json).await, [json, json]);
    }
}

/// On threads with the usual 2 MiB of stack, in a build without optimisation.
#[tokio::test(flavor = "multi_thread")]
async fn deep_nesting_does_not_overflow_the_stack() {
    let service = std::sync::Arc::new(Service::new());
    let depth = 1_000_000;
    let arrays = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    for (id, json) in [("arrays", arrays), ("objects", objects)] {
        let service = std::sync::Arc::clone(&service);
        // `RawValue` holds it unparsed; so does the answer's text here.
        tokio::spawn(async move {
            let [read, listed] = round_trip(&service, id, &json).await;
            assert!(read == json && listed == json, "{id}");
        })
        .await
        .unwrap();
    }
    let unclosed = "[".repeat(8 << 20);
    assert_eq!(service.post(unclosed).await.status, StatusCode::BAD_REQUEST);
    let in_an_unknown_field = format!("{{\"x\":{}", "[".repeat(8 << 20));
    assert_eq!(service.post(in_an_unknown_field).await.status, StatusCode::BAD_REQUEST);
}
