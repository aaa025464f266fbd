//! Small models over REST: every data type, and labels.

use super::support::{Server, config, workspace};
use serde_json::{Value, json};
use std::fs;
use tempfile::TempDir;

/// A repository of `types`, whose outputs are its inputs, and `lookup`, which has labels.
fn repository() -> TempDir {
    let repository = tempfile::tempdir().unwrap();
    for (name, config) in
        [("types", ""), ("lookup", r#"output { name: "value" label_filename: "names.txt" }"#)]
    {
        let model = repository.path().join(name);
        fs::create_dir_all(model.join("1")).unwrap();
        let file = workspace().join(format!("server/tests/models/{name}.onnx"));
        fs::copy(file, model.join("1/model.onnx")).unwrap();
        fs::write(model.join("config.pbtxt"), config).unwrap();
        fs::write(model.join("names.txt"), "only\n").unwrap();
    }
    repository
}

async fn infer(server: &Server, model: &str, request: &Value, binary: &[u8]) -> (u16, Value) {
    let json = request.to_string();
    let client = reqwest::Client::new();
    let post = client.post(format!("http://{}/v2/models/{model}/infer", server.http));
    let body = [json.as_bytes(), binary].concat();
    let response =
        post.header("inference-header-content-length", json.len()).body(body).send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap())
}

#[tokio::test]
async fn every_data_type_comes_back_as_it_was_sent() {
    let repository = repository();
    let server = Server::ready(config(repository.path().to_str().unwrap())).await;
    let elements = [
        ("bool", json!([true, false])),
        ("uint8", json!([0, 255])),
        ("uint16", json!([0, 65535])),
        ("uint32", json!([0, u32::MAX])),
        ("uint64", json!([0, u64::MAX])),
        ("int8", json!([-128, 127])),
        ("int16", json!([i16::MIN, i16::MAX])),
        ("int32", json!([i32::MIN, i32::MAX])),
        ("int64", json!([i64::MIN, i64::MAX])),
        ("fp32", json!([0.1, -3.402_823_5e38])),
        ("fp64", json!([0.1, -1.797_693_134_862_315_7e308])),
        ("bytes", json!(["", "\"é\"\n"])),
    ];
    let mut inputs = Vec::new();
    for (name, data) in &elements {
        let datatype = name.to_uppercase();
        inputs.push(json!({"name": name, "datatype": datatype, "shape": [1, 2], "data": [data]}));
    }
    for name in ["fp16", "bf16"] {
        let parameters = json!({"binary_data_size": 4});
        let datatype = name.to_uppercase();
        inputs.push(json!({"name": name, "datatype": datatype, "shape": [1, 2], "parameters": parameters}));
    }
    let outputs: Vec<Value> =
        elements.iter().map(|(name, _)| json!({"name": format!("{name}_out")})).collect();
    let mut request = json!({"inputs": inputs, "outputs": outputs});
    let binary = [0, 0x3c, 0, 0xc0, 0x80, 0x3f, 0, 0xc0];
    let (status, answer) = infer(&server, "types", &request, &binary).await;
    assert_eq!(status, 200, "{answer}");
    for (output, (name, data)) in answer["outputs"].as_array().unwrap().iter().zip(&elements) {
        assert_eq!(output["datatype"], name.to_uppercase());
        assert_eq!((&output["shape"], &output["data"]), (&json!([1, 2]), data), "{name}");
    }

    request["outputs"] = json!([{"name": "fp16_out"}]);
    let (status, answer) = infer(&server, "types", &request, &binary).await;
    assert_eq!(status, 400);
    assert!(answer["error"].as_str().unwrap().contains("`binary_data`"), "{answer}");

    // Two rows, and the name of the only class.
    let request = json!({
        "inputs": [{"name": "index", "datatype": "INT64", "shape": [2, 1], "data": [3, 1]}],
        "outputs": [{"name": "value", "parameters": {"classification": 5}}],
    });
    let (status, answer) = infer(&server, "lookup", &request, &[]).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["outputs"][0]["data"], json!(["30.000000:0:only", "10.000000:0:only"]));
}
