//! Images that make their decoder fail: what an operator finds in the log.

use crate::fakes::{FakeModels, FakeResults};
use crate::rig::{config, json_request, request, send};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox::{Sandbox, SandboxConfig};
use serde_json::{Value, json};
use service_kit::Readiness;
use std::sync::{Arc, Mutex};
use std::{fs, io};
use tracing_subscriber::fmt::MakeWriter;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The hostile guest of the sandbox's tests: what it does is what the image begins with, in small letters before it has
/// told the image's size.
fn hostile() -> Sandbox {
    let read = |path: &str| {
        let path = format!("{}/../../preprocess-wasm/{path}", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(path).unwrap()
    };
    let mut resolve = Resolve::default();
    let package = resolve.push_str("preprocess.wit", &read("wit/preprocess.wit")).unwrap();
    let world = resolve.select_world(&[package], Some("preprocessor")).unwrap();
    let mut module = wat::parse_str(read("host/tests/it/hostile.wat")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let component = ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.wasm");
    fs::write(&path, component).unwrap();
    Sandbox::new(SandboxConfig { component: Some(path), workers: 1, ..SandboxConfig::default() }).unwrap()
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Log {
    /// The lines about the request with this id.
    fn of(&self, request_id: &str) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["request_id"] == request_id).collect()
    }
}

#[tokio::test]
async fn a_trap_is_logged_with_the_request_and_the_images_digest_whether_or_not_the_client_gave_an_id() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(log.clone()).finish();
    // Of this thread alone, on which the handlers of this test run.
    let _logging = tracing::subscriber::set_default(subscriber);
    let (models, results) = (FakeModels::start().await, FakeResults::start().await);
    let config = config(&models.url(), &results.url());
    let router = feature_service::router(&config, hostile(), Readiness::new()).unwrap();

    let secret = "unreachable, and a secret";
    let image = STANDARD.encode(secret);
    for (request, given) in [
        (json_request("/preprocess", &json!({"image": image})), None),
        (json_request("/preprocess", &json!({"image": image, "request_id": "p1"})), Some("p1")),
        (json_request("/predict", &json!({"image": image})), None),
        (request("/predict?request_id=r1", "image/jpeg", secret), Some("r1")),
    ] {
        let answer = send(&router, request).await;
        answer.assert_error(400, "invalid_input", "made the decoder fail");
        let id = answer.body["request_id"].as_str().unwrap();
        match given {
            Some(given) => assert_eq!(id, given),
            None => assert!(id.parse::<uuid::Uuid>().is_ok(), "{id}"),
        }
        let [line] = &log.of(id)[..] else { panic!("one line: {:?}", log.of(id)) };
        assert_eq!((&line["level"], &line["message"]), (&json!("WARN"), &json!("request failed")));
        // printf 'unreachable, and a secret' | sha256sum
        assert_eq!(
            line["image_sha256"], "33a12e8d1563af3993d1e59a758187e835a93ceb4719cd17935aac6a1b73dd72",
            "{line}"
        );
        assert!(!line.to_string().contains("secret"), "{line}");
    }
}
