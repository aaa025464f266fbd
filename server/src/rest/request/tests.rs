#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn read(body: &Bytes, header_length: Option<usize>) -> Result<Ask, ServingError> {
    super::read(body, header_length, &|_| Ok(()))
}

fn refused(body: impl Into<Bytes>, header_length: Option<usize>) -> String {
    match read(&body.into(), header_length).unwrap_err() {
        ServingError::InvalidInput(sentence) => sentence,
        other => panic!("{other:?} is not the caller's fault"),
    }
}

fn body(value: &serde_json::Value) -> Bytes {
    serde_json::to_vec(value).unwrap().into()
}

#[test]
fn a_request_in_json_is_read() {
    let request = json!({
        "id": "a\n1", "parameters": {"timeout": 5, "name": "x", "share": 0.5, "big": u64::MAX, "none": null},
        "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [[0.5, 2]], "unknown": {"a": []}}],
        "outputs": [{"name": "y", "parameters": {"binary_data": true}}],
    });
    let ask = read(&body(&request), None).unwrap();
    assert_eq!(ask.id, "a\n1");
    assert_eq!(ask.parameters.get("timeout"), Some(&Parameter::Int(5)));
    assert_eq!(ask.parameters.get("big"), Some(&Parameter::Uint(u64::MAX)));
    assert_eq!(ask.parameters.get("share"), Some(&Parameter::Double(0.5)));
    assert_eq!(ask.parameters.get("none"), None);
    assert_eq!(&ask.inputs[0].data[..], [0.5_f32.to_le_bytes(), 2_f32.to_le_bytes()].concat());
    assert_eq!(ask.outputs[0].parameters.get("binary_data"), Some(&Parameter::Bool(true)));
}

#[test]
fn what_elements_in_json_need_is_reserved_before_they_are_read() {
    let inputs = json!([
        {"name": "a", "shape": [3], "datatype": "INT64", "data": [1, 2, 3]},
        {"name": "b", "shape": [2], "datatype": "UINT8", "parameters": {"binary_data_size": 2}},
        {"name": "c", "shape": [1i64 << 40], "datatype": "FP64", "data": [1.5]},
    ]);
    let json = body(&json!({"inputs": inputs}));
    let all: Bytes = [&json[..], &[1, 2]].concat().into();
    let reserved = std::cell::RefCell::new(Vec::new());
    let reserve = |bytes| {
        reserved.borrow_mut().push(bytes);
        Ok(())
    };
    let error = super::read(&all, Some(json.len()), &reserve).unwrap_err();
    assert!(error.to_string().contains("less data than its shape"), "{error}");
    assert_eq!(*reserved.borrow(), [24, "[1.5]".len() / 2 * 8], "no more than the text can have");
    let full = |_| Err(ServingError::TooLarge("No room.".to_owned()));
    assert_eq!(super::read(&all, Some(json.len()), &full).unwrap_err().to_string(), "No room.");
}

#[test]
fn binary_inputs_are_views_of_the_body_in_their_order() {
    let json = json!({"inputs": [
        {"name": "a", "shape": [2], "datatype": "UINT8", "parameters": {"binary_data_size": 2}},
        {"name": "b", "shape": [1], "datatype": "BOOL", "data": [true]},
        {"name": "c", "shape": [1], "datatype": "FP16", "parameters": {"binary_data_size": 2}},
    ]});
    let json = body(&json);
    let all: Bytes = [&json[..], &[1, 2, 3, 4]].concat().into();
    let ask = read(&all, Some(json.len())).unwrap();
    let data: Vec<&[u8]> = ask.inputs.iter().map(|input| &input.data[..]).collect();
    assert_eq!(data, [&[1, 2][..], &[1], &[3, 4]]);
    assert_eq!(ask.inputs[0].data.as_ptr(), all[json.len()..].as_ptr(), "no copy");

    assert!(refused(all.slice(..all.len() - 1), Some(json.len())).contains("only 1 follow"));
    assert!(refused([&all[..], &[5]].concat(), Some(json.len())).contains("1 bytes more"));
    assert!(refused(all.clone(), Some(all.len() + 1)).contains("Inference-Header-Content-Length"));
    assert!(refused(json, None).contains("only 0 follow"));
}

#[test]
fn what_cannot_be_read_is_said_in_a_sentence() {
    let input = json!({"name": "x", "shape": [1], "datatype": "UINT8", "data": [1]});
    let with = |field: &str, value: serde_json::Value| {
        let mut input = input.clone();
        input[field] = value;
        json!({"inputs": [input]})
    };
    let many = vec![json!({}); MAX_ENTRIES + 1];
    for (request, part) in [
        (json!([[], []]), "not a JSON object"),
        (json!({"inputs": [["x", "UINT8", [1]]]}), "not a JSON object"),
        (json!({"inputs": {}}), "cannot be read"),
        (json!({"id": 7, "inputs": []}), "cannot be read"),
        (json!({}), "inputs"),
        (json!({"inputs": many}), "more than 1024"),
        (with("shape", json!([1, -1])), "no tensor can have"),
        (with("shape", json!([i64::MAX, 3])), "no tensor can have"),
        (with("shape", json!([0.5])), "cannot be read"),
        (with("shape", json!(vec![1; MAX_RANK + 1])), "more than 32"),
        (with("datatype", json!("float")), "no data type"),
        (with("data", json!(null)), "has no data"),
        (with("data", json!([256])), "no UINT8 value"),
        (with("parameters", json!({"binary_data_size": 1})), "beside binary_data_size"),
        (with("parameters", json!({"binary_data_size": -1})), "no number of bytes"),
        (with("parameters", json!({"shared_memory_region": "r"})), "not supported"),
        (with("parameters", json!({"a": [1]})), "a text, a number"),
        (with("parameters", json!([])), "parameters by their names"),
    ] {
        let sentence = refused(body(&request), None);
        assert!(sentence.contains(part), "{request}: {sentence:?} does not say {part:?}");
        assert!(sentence.ends_with('.'), "{sentence}");
    }
    for (text, part) in [
        (r#"{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [NaN]}]}"#, "cannot be read"),
        (
            r#"{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [Infinity]}]}"#,
            "cannot be read",
        ),
        (r#"{"inputs": []} x"#, "trailing"),
        (r#"{"inputs": []"#, "cannot be read"),
        (r#"{"parameters": {"a": 1, "a": 2}, "inputs": []}"#, "given twice"),
        ("", "not a JSON object"),
    ] {
        let sentence = refused(text, None);
        assert!(sentence.contains(part), "{text}: {sentence:?} does not say {part:?}");
    }
}

#[test]
fn deep_json_is_refused_wherever_it_is() {
    let deep = "[".repeat(1 << 20);
    let closed = format!("{deep}{}", "]".repeat(1 << 20));
    let input = r#"{"inputs": [{"name": "x", "datatype": "UINT8", "shape": [1], "data": "#;
    for text in [
        deep.clone(),
        format!("{input}{deep}"),
        format!("{input}{closed}}}]}}"),
        format!(r#"{{"parameters": {{"a": {closed}}}, "inputs": []}}"#),
        format!(r#"{{"inputs": {closed}}}"#),
        format!(r#"{{"id": {closed}, "inputs": []}}"#),
    ] {
        refused(text, None);
    }
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..60), length in any::<Option<usize>>()) {
        let _ = read(&Bytes::from(bytes.clone()), length);
        // Something like a request, damaged.
        let request = br#"{"id":"i","inputs":[{"name":"x","shape":[1,2],"datatype":"BYTES","data":["a","b"]}],"outputs":[{"name":"y"}]}"#;
        let mut damaged = request.to_vec();
        for byte in bytes.drain(..) {
            let at = usize::from(byte) * 7 % damaged.len();
            damaged[at] = byte;
            let _ = read(&Bytes::from(damaged.clone()), length.map(|length| length % 200));
        }
    }

    #[test]
    fn binary_data_comes_back(data in proptest::collection::vec(any::<u8>(), 0..50)) {
        let json = body(&json!({"inputs": [{"name": "x", "shape": [data.len()], "datatype": "UINT8",
            "parameters": {"binary_data_size": data.len()}}]}));
        let ask = read(&[&json[..], &data].concat().into(), Some(json.len())).unwrap();
        prop_assert_eq!(&ask.inputs[0].data[..], &data);
    }
}
