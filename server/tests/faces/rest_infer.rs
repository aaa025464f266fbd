use super::support::{Server, photo, photo_pixels};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::GzEncoder;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};

const INFER: &str = "/v2/models/vehicle-detector/infer";
const ROW_BYTES: usize = 300 * 300 * 3;
const LENGTH: &str = "inference-header-content-length";

/// A request with binary tensors behind its JSON.
fn binary(json: &Value, data: &[u8]) -> RequestBuilder {
    let json = json.to_string();
    let body = [json.as_bytes(), data].concat();
    post(INFER).header(LENGTH, json.len()).body(body)
}

fn post(path: &str) -> RequestBuilder {
    Client::new().post(format!("http://{}{path}", Server::shared().http))
}

fn pixels(rows: usize) -> Value {
    json!({"name": "images", "datatype": "UINT8", "shape": [rows, 300, 300, 3],
           "parameters": {"binary_data_size": rows * ROW_BYTES}})
}

/// Encoded images as the elements of a BYTES input.
fn images(images: &[&[u8]], shape: Value) -> (Value, Vec<u8>) {
    let mut data = Vec::new();
    for image in images {
        data.extend_from_slice(&(image.len() as u32).to_le_bytes());
        data.extend_from_slice(image);
    }
    let input = json!({"name": "images", "datatype": "BYTES", "shape": shape,
                       "parameters": {"binary_data_size": data.len()}});
    (input, data)
}

async fn answer(request: RequestBuilder) -> Value {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}

async fn refused(request: RequestBuilder) -> (u16, String) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["error"].as_str().unwrap().to_owned())
}

/// JSON and binary part of an answer.
async fn parts(response: Response) -> (Value, Bytes) {
    let length: usize = response.headers()[LENGTH].to_str().unwrap().parse().unwrap();
    let body = response.bytes().await.unwrap();
    (serde_json::from_slice(&body[..length]).unwrap(), body.slice(length..))
}

fn detections(output: &Value) -> Vec<Value> {
    assert_eq!((&output["name"], &output["datatype"]), (&json!("detections"), &json!("BYTES")));
    let rows = output["data"].as_array().unwrap();
    rows.iter().map(|row| serde_json::from_str(row.as_str().unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn json_and_binary_data_give_the_same_detections() {
    let data = photo_pixels().await;
    let request = json!({
        "id": "rest-1", "parameters": {"colour": "red", "user_id": "bob"},
        "inputs": [pixels(1)], "outputs": [{"name": "detections"}],
    });
    let of_binary = answer(binary(&request, &data)).await;
    assert_eq!(of_binary["model_name"], "vehicle-detector");
    assert_eq!(of_binary["model_version"], "1");
    assert_eq!(of_binary["id"], "rest-1");
    assert_eq!(of_binary["parameters"]["colour"], "red", "what the server does not act upon is echoed");
    assert_eq!(of_binary["parameters"]["user_id"], Value::Null);
    assert!(of_binary["parameters"]["inference_time_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(of_binary["outputs"][0]["shape"], json!([1]));
    let found = detections(&of_binary["outputs"][0]);
    assert_eq!(found[0][0]["class_name"], "bus");

    let nested: Vec<Vec<&[u8]>> = data.chunks(900).map(|line| line.chunks(3).collect()).collect();
    for elements in [json!(&data[..]), json!([nested])] {
        let input =
            json!({"name": "images", "datatype": "UINT8", "shape": [1, 300, 300, 3], "data": elements});
        let request = json!({"inputs": [input], "outputs": [{"name": "detections"}]});
        let of_json = answer(post(INFER).body(request.to_string())).await;
        assert_eq!(detections(&of_json["outputs"][0]), found);
    }
}

#[tokio::test]
async fn outputs_come_in_the_form_and_order_asked_for() {
    let data = vec![127; ROW_BYTES];
    let request = json!({
        "parameters": {"binary_data_output": true}, "inputs": [pixels(1)],
        "outputs": [{"name": "scores"}, {"name": "boxes", "parameters": {"binary_data": false}},
                    {"name": "detections"}],
    });
    let response = binary(&request, &data).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    let (json, bytes) = parts(response).await;
    let outputs = json["outputs"].as_array().unwrap();
    let names: Vec<_> = outputs.iter().map(|output| output["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["scores", "boxes", "detections"]);
    assert_eq!(outputs[0]["parameters"]["binary_data_size"], 1917 * 80 * 4);
    assert_eq!(outputs[1]["data"].as_array().unwrap().len(), 1917 * 4);
    assert_eq!(bytes.len(), 1917 * 80 * 4 + 6);
    assert_eq!(&bytes[1917 * 80 * 4..], b"\x02\0\0\0[]");

    let top = json!({"name": "scores", "parameters": {"classification": 3}});
    let response = answer(binary(&json!({"inputs": [pixels(1)], "outputs": [top]}), &data)).await;
    let output = &response["outputs"][0];
    assert_eq!((&output["datatype"], &output["shape"]), (&json!("BYTES"), &json!([1, 3])));
    let mut best = bytes[..1917 * 80 * 4]
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .enumerate()
        .collect::<Vec<_>>();
    best.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let expected: Vec<String> =
        best[..3].iter().map(|(index, value)| format!("{value:.6}:{index}")).collect();
    assert_eq!(output["data"], json!(expected));
}

#[tokio::test]
async fn compression_works_in_both_directions() {
    let request =
        json!({"inputs": [pixels(1)], "outputs": [{"name": "boxes", "parameters": {"binary_data": true}}]});
    let json = request.to_string();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(json.as_bytes()).unwrap();
    encoder.write_all(&vec![127; ROW_BYTES]).unwrap();
    let body = encoder.finish().unwrap();
    let compressed = |accepted: &'static str| {
        post(INFER)
            .header(LENGTH, json.len())
            .header("content-encoding", "gzip")
            .header("accept-encoding", accepted)
            .body(body.clone())
            .send()
    };
    for accepted in ["gzip", "deflate"] {
        let response = compressed(accepted).await.unwrap();
        assert_eq!(response.headers()["content-encoding"], accepted);
        let length: usize = response.headers()[LENGTH].to_str().unwrap().parse().unwrap();
        let body = response.bytes().await.unwrap();
        let mut plain = Vec::new();
        match accepted {
            "gzip" => MultiGzDecoder::new(&body[..]).read_to_end(&mut plain),
            _ => ZlibDecoder::new(&body[..]).read_to_end(&mut plain),
        }
        .unwrap();
        let json: Value = serde_json::from_slice(&plain[..length]).unwrap();
        assert_eq!(json["outputs"][0]["parameters"]["binary_data_size"], 1917 * 4 * 4);
        assert_eq!(plain.len() - length, 1917 * 4 * 4);
    }
    assert_eq!(compressed("br").await.unwrap().headers().get("content-encoding"), None);
}

#[tokio::test]
async fn encoded_images_are_found_in_where_they_are() {
    let photo = photo();
    let (input, data) = images(&[&photo, &photo], json!([2, 1]));
    let request = json!({"inputs": [input], "outputs": [{"name": "detections"}]});
    let found = detections(&answer(binary(&request, &data)).await["outputs"][0]);
    assert_eq!((found.len(), &found[0][0]["class_name"]), (2, &json!("bus")));
    assert_eq!(found[0], found[1]);

    // Nothing but the image: one row, and every output in binary.
    let request = post(INFER).header(LENGTH, 0).body(photo.clone());
    let (json, bytes) = parts(request.send().await.unwrap()).await;
    assert_eq!(json["outputs"][0]["shape"], json!([1, 1917, 4]));
    assert_eq!(bytes.len(), 1917 * (80 + 4) * 4);

    let (input, data) = images(&[&photo, b"no image at all"], json!([2]));
    let (status, error) = refused(binary(&json!({"inputs": [input]}), &data)).await;
    assert_eq!(status, 400);
    assert!(error.starts_with("Image 1 of input `images`: "), "{error}");

    let (input, data) = images(&[&photo[..]; 9], json!([9]));
    let (status, error) = refused(binary(&json!({"inputs": [input]}), &data)).await;
    assert_eq!((status, error.contains("from 1 to 8")), (400, true), "{error}");
    let (input, data) = images(&[&photo], json!([1, 1, 1]));
    assert!(refused(binary(&json!({"inputs": [input]}), &data)).await.1.contains("[n] or [n,1]"));
    let (input, data) = images(&[&photo], json!([2]));
    assert!(refused(binary(&json!({"inputs": [input]}), &data)).await.1.contains("has 1 BYTES elements"));
}

#[tokio::test]
async fn what_is_wrong_is_said_with_tritons_statuses() {
    let fine = json!({"inputs": [pixels(1)]});
    let with = |key: &str, value: Value| {
        let mut request = fine.clone();
        request["parameters"] = json!({key: value});
        binary(&request, &[0; ROW_BYTES])
    };
    let unknown = |path: &str| post(path).body("{}");
    let cases = [
        (unknown("/v2/models/no-such/infer"), 404, "no model"),
        (unknown("/v2/models/vehicle-detector/versions/7/infer"), 404, "no version"),
        (post(INFER).body("[]"), 400, "not a JSON object"),
        (post(INFER).body(r#"{"inputs": [NaN]}"#), 400, "cannot be read"),
        (post(INFER).body("[".repeat(1 << 20)), 400, "not a JSON object"),
        (post(INFER).header(LENGTH, "x").body("{}"), 400, "Inference-Header-Content-Length"),
        (post(INFER).header("content-encoding", "br").body("{}"), 415, "`br`"),
        (post(INFER).header("content-encoding", "gzip").body("{}"), 400, "not valid gzip"),
        (binary(&fine, &[0; 5]), 400, "only 5 follow"),
        (with("timeout", json!(1)), 504, "deadline"),
        (with("timeout", json!("soon")), 400, "`timeout`"),
        (with("priority", json!(-1)), 400, "`priority`"),
        (with("sequence_id", json!(7)), 400, "sequences are not supported"),
        (with("binary_data_output", json!("yes")), 400, "`binary_data_output`"),
        (post("/v2/systemsharedmemory/region/a/register").body("{}"), 501, "Shared memory is not supported"),
        (post("/v2/cudasharedmemory/unregister"), 501, "not supported"),
        (post("/v2/repository/models/no-such/load").body("[]"), 400, "not a JSON object"),
    ];
    for (request, status, part) in cases {
        let (is, error) = refused(request).await;
        assert_eq!(is, status, "{error}");
        assert!(error.contains(part) && error.ends_with('.'), "{error:?} does not say {part:?}");
    }

    // The size is refused before the body is read, compressed or not.
    let bomb = |encoder: &mut GzEncoder<Vec<u8>>| encoder.write_all(&vec![b' '; 65 << 20]);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    bomb(&mut encoder).unwrap();
    let request = post(INFER).header("content-encoding", "gzip").body(encoder.finish().unwrap());
    assert_eq!(refused(request).await.0, 413);
    assert_eq!(
        post(INFER).body(vec![b' '; 65 << 20]).send().await.map(|r| r.status().as_u16()).unwrap_or(413),
        413
    );
}

#[tokio::test]
async fn the_repository_answers_as_tritons() {
    let index: Value = answer(post("/v2/repository/index").body(r#"{"ready": true}"#)).await;
    assert_eq!(index, json!([{"name": "vehicle-detector", "version": "1", "state": "READY"}]));
    binary(&json!({"inputs": [pixels(1)]}), &[0; ROW_BYTES]).send().await.unwrap();
    for path in [
        "/v2/models/stats",
        "/v2/models/vehicle-detector/stats",
        "/v2/models/vehicle-detector/versions/1/stats",
    ] {
        let response = reqwest::get(format!("http://{}{path}", Server::shared().http)).await.unwrap();
        let json: Value = response.json().await.unwrap();
        let model = &json["model_stats"][0];
        assert_eq!((&model["name"], &model["version"]), (&json!("vehicle-detector"), &json!("1")));
        assert!(model["inference_stats"]["success"]["count"].as_u64().unwrap() > 0, "{json}");
        assert!(model["batch_stats"][0]["compute_infer"]["ns"].as_u64().unwrap() > 0, "{json}");
    }
}
