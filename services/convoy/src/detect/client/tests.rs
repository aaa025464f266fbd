#![allow(clippy::unwrap_used)]

use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const FOUND: &str = r#"{"request_id":"r","detections":[{"class_name":"bus","confidence":0.9,"bbox":{"x_min":0.1,"y_min":0.2,"x_max":0.3,"y_max":0.4}}]}"#;

/// A server that gives one answer per connection, and hands back the request lines it saw.
async fn server(answers: Vec<(u16, &'static str, &'static str)>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = tokio::spawn(async move {
        let mut seen = Vec::new();
        for (status, header, body) in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"PHOTO") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the request was cut off");
            }
            let head = String::from_utf8_lossy(&request);
            seen.push(head.lines().next().unwrap().to_owned());
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} X\r\n{header}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        seen
    });
    (url, seen)
}

fn client(url: &str, user: Option<&str>) -> Client {
    Client::new(url, user.map(str::to_owned), None, Duration::from_secs(20)).unwrap()
}

#[tokio::test]
async fn a_busy_server_is_asked_again_under_the_same_id() {
    let busy = r#"{"error":"Too busy.","code":"overloaded","request_id":null}"#;
    let (url, seen) =
        server(vec![(429, "Retry-After: 0\r\n", busy), (503, "Retry-After: 0\r\n", busy), (200, "", FOUND)])
            .await;
    let answer = client(&url, Some("ü &=#")).predict(Bytes::from_static(b"PHOTO")).await.unwrap();
    assert_eq!(answer.detections[0].class_name, "bus");
    assert_eq!(answer.fields["request_id"], "r");

    let seen = seen.await.unwrap();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|line| line == &seen[0]), "{seen:?}");
    assert!(seen[0].starts_with("POST /predict?request_id="), "{}", seen[0]);
    assert!(seen[0].contains("&user_id=%C3%BC+%26%3D%23 "), "{}", seen[0]);
}

#[tokio::test]
async fn what_the_server_says_is_the_error() {
    let refused = r#"{"error":"The data is not an image.","code":"invalid_input","request_id":null}"#;
    let (url, seen) = server(vec![(400, "", refused)]).await;
    let error = client(&url, None).predict(Bytes::from_static(b"PHOTO")).await.unwrap_err();
    assert_eq!(error, "The data is not an image.");
    assert_eq!(seen.await.unwrap().len(), 1, "the same request gets the same answer: it is not sent again");
}

#[tokio::test]
async fn another_server_is_recognised() {
    let (url, _) = server(vec![(404, "", "<html>"), (200, "", "hello")]).await;
    let client = client(&url, None);
    let error = client.predict(Bytes::from_static(b"PHOTO")).await.unwrap_err();
    assert!(error.contains("is it Convoy's feature-service?"), "{error}");
    let error = client.predict(Bytes::from_static(b"PHOTO")).await.unwrap_err();
    assert!(error.contains("is no Convoy of this version"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_to_be() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = client(&url, None).predict(Bytes::from_static(b"PHOTO")).await.unwrap_err();
    assert!(error.contains("cannot be reached") && error.contains("convoy up"), "{error}");
}

#[test]
fn addresses_and_users_that_cannot_be_are_refused() {
    for server in ["localhost:5001", "https://example.test", "nonsense"] {
        let failure = Client::new(server, None, None, Duration::from_secs(1)).unwrap_err();
        assert_eq!(failure.code(), 64, "{failure}");
        assert!(failure.to_string().contains("--server"), "{failure}");
    }
    let failure = Client::new("http://a", Some("..".to_owned()), None, Duration::from_secs(1)).unwrap_err();
    assert!(failure.to_string().contains("--user"), "{failure}");
}

#[test]
fn pixels_stay_in_the_photo() {
    let bbox = BoundingBox { x_min: -0.1, y_min: 0.5, x_max: 1.2, y_max: f32::NAN };
    assert_eq!(bbox.in_pixels(546, 413), [0, 207, 546, 0]);
}
