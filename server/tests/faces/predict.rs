use super::support::{Server, logged, photo};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use convoy_proto::model_serving::{BoundingBox, Detection, PredictionRequest};
use tonic::{Code, Status};

fn request() -> PredictionRequest {
    PredictionRequest { request_id: "request 1".to_owned(), image: photo(), ..Default::default() }
}

async fn refused(request: PredictionRequest) -> Status {
    Server::shared().predict_client().await.predict(request).await.unwrap_err()
}

/// The boxes that the model's provenance gives for the photo, as fractions of its 546×413 pixels.
fn expected(pixels: [f32; 4]) -> BoundingBox {
    let [x_min, y_min, x_max, y_max] = pixels;
    BoundingBox { x_min: x_min / 546.0, y_min: y_min / 413.0, x_max: x_max / 546.0, y_max: y_max / 413.0 }
}

fn intersection_over_union(a: &BoundingBox, b: &BoundingBox) -> f32 {
    let area = |b: &BoundingBox| (b.x_max - b.x_min).max(0.0) * (b.y_max - b.y_min).max(0.0);
    let both = area(&BoundingBox {
        x_min: a.x_min.max(b.x_min),
        y_min: a.y_min.max(b.y_min),
        x_max: a.x_max.min(b.x_max),
        y_max: a.y_max.min(b.y_max),
    });
    both / (area(a) + area(b) - both)
}

fn has(detections: &[Detection], class: &str, confidence: f32, pixels: [f32; 4]) {
    let expected = expected(pixels);
    let found = detections.iter().any(|found| {
        found.class_name == class
            && found.confidence >= confidence
            && intersection_over_union(found.bbox.as_ref().unwrap(), &expected) >= 0.9
    });
    assert!(found, "no {class} of at least {confidence} at {pixels:?} in {detections:#?}");
}

#[tokio::test]
async fn a_photo_gives_its_bus_and_its_car() {
    let mut client = Server::shared().predict_client().await;
    let answer = client.predict(request()).await.unwrap().into_inner();
    assert_eq!(answer.request_id, "request 1");
    assert_eq!((answer.model_name.as_str(), answer.model_version.as_str()), ("vehicle-detector", "1"));
    assert!(answer.inference_time_ms > 0.0);
    has(&answer.detections, "bus", 0.9, [60.0, 123.0, 482.0, 394.0]);
    has(&answer.detections, "car", 0.7, [12.0, 286.0, 63.0, 329.0]);
    assert!(answer.detections.is_sorted_by(|a, b| a.confidence >= b.confidence), "best first");
    assert!(
        answer.detections.iter().all(|found| ["car", "truck", "bus"].contains(&found.class_name.as_str()))
    );
}

#[tokio::test]
async fn base64_gives_the_same_as_bytes() {
    let mut client = Server::shared().predict_client().await;
    let bytes = client.predict(request()).await.unwrap().into_inner();
    let lines: Vec<String> = STANDARD
        .encode(photo())
        .as_bytes()
        .chunks(76)
        .map(|c| String::from_utf8(c.to_vec()).unwrap())
        .collect();
    let text = PredictionRequest {
        image_data: lines.join("\r\n"),
        image: Bytes::new(),
        model_name: "vehicle-detector".to_owned(),
        ..request()
    };
    let base64 = client.predict(text).await.unwrap().into_inner();
    assert_eq!(bytes.detections, base64.detections);
}

#[tokio::test]
async fn a_missing_request_id_is_a_new_uuid() {
    let mut client = Server::shared().predict_client().await;
    let unnamed = PredictionRequest { request_id: String::new(), ..request() };
    let first = client.predict(unnamed.clone()).await.unwrap().into_inner().request_id;
    let second = client.predict(unnamed).await.unwrap().into_inner().request_id;
    assert!(uuid::Uuid::parse_str(&first).is_ok(), "{first}");
    assert_ne!(first, second);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said() {
    let none = PredictionRequest { image: Bytes::new(), ..request() };
    let text = |text: &str| PredictionRequest { image_data: text.to_owned(), ..none.clone() };
    let cases = [
        (none.clone(), "has no image"),
        (PredictionRequest { image_data: "aGk=".to_owned(), ..request() }, "Both `image` and `image_data`"),
        (text("https://example.test/a.jpg"), "image_data is not base64"),
        (text("   "), "The image is empty"),
        (text("aGVsbG8gd29ybGQhIGhlbGxvIHdvcmxkIQ=="), "not an image"),
        (PredictionRequest { image: photo().slice(..2000), ..request() }, "truncated"),
        (PredictionRequest { request_id: "..".to_owned(), ..request() }, "request_id may not be"),
        (PredictionRequest { request_id: "x".repeat(257), ..request() }, "request_id is 257 bytes long"),
        (
            PredictionRequest { user_id: "a\nb".to_owned(), ..request() },
            "user_id has the control character U+000A",
        ),
    ];
    for (request, sentence) in cases {
        let status = refused(request).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(sentence), "{:?} does not say {sentence:?}", status.message());
    }
}

#[tokio::test]
async fn an_unknown_model_is_not_found() {
    let status = refused(PredictionRequest { model_name: "no-such".to_owned(), ..request() }).await;
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("no-such"));
}

#[tokio::test]
async fn a_message_of_65_mib_is_an_invalid_argument() {
    let status = refused(PredictionRequest { image: vec![0; 65 << 20].into(), ..request() }).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("67108864 bytes"), "{status}");
}

#[tokio::test]
async fn a_passed_deadline_is_told_as_such() {
    let server = Server::shared();
    let code = server.raw_unary("/model_serving.ModelServing/Predict", "1n", &request()).await;
    assert_eq!(code, Code::DeadlineExceeded);
    let code = server.raw_unary("/model_serving.ModelServing/Predict", "soon", &request()).await;
    assert_eq!(code, Code::InvalidArgument);
    let code = server.raw_unary("/model_serving.ModelServing/Predict", "60S", &request()).await;
    assert_eq!(code, Code::Ok);
}

#[tokio::test]
async fn each_prediction_leaves_one_audit_line() {
    let audited =
        PredictionRequest { request_id: "audited".to_owned(), user_id: "alice".to_owned(), ..request() };
    let mut traced = tonic::Request::new(audited);
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    traced.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    let answer = Server::shared().predict_client().await.predict(traced).await.unwrap().into_inner();
    let lines = logged("audited");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let line = &lines[0];
    assert_eq!(line["target"], "audit");
    assert_eq!(line["user_id"], "alice");
    assert_eq!(line["model"], "vehicle-detector");
    assert_eq!(line["version"], "1");
    assert_eq!(line["detections"], answer.detections.len());
    assert_eq!(line["inference_ms"].as_f64(), Some(answer.inference_time_ms));
    assert!(line["queue_ms"].as_f64().is_some());
    assert_eq!(line["traceparent"], traceparent);
}

#[tokio::test]
async fn a_failure_is_logged_once() {
    refused(PredictionRequest {
        request_id: "failing".to_owned(),
        image: "no image at all".into(),
        ..request()
    })
    .await;
    let lines = logged("failing");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(
        (lines[0]["level"].as_str(), lines[0]["code"].as_str()),
        (Some("DEBUG"), Some("invalid_input"))
    );
}

#[tokio::test]
async fn a_name_of_a_mebibyte_comes_back_cut_and_on_one_line() {
    let model_name = format!("no\nsuch {}", "x".repeat(1 << 20));
    let status =
        refused(PredictionRequest { request_id: "endless name".to_owned(), model_name, ..request() }).await;
    assert_eq!(status.code(), Code::NotFound, "{status}");
    assert!(status.message().starts_with("There is no model `no\\nsuch xxx"), "{status}");
    assert!(status.message().len() < 2048, "{} bytes", status.message().len());
    let lines = logged("endless name");
    assert_eq!(lines.len(), 1);
    for field in ["model", "error"] {
        let text = lines[0][field].as_str().unwrap();
        assert!(text.len() < 2048 && !text.contains('\n'), "{field}: {} bytes", text.len());
    }
}
