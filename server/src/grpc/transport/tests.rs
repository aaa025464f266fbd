#![allow(clippy::unwrap_used)]

use super::window::LARGE_WINDOW_BYTES;
use super::*;
use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use service_kit::Shutdown;
use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tower::service_fn;

struct Server {
    address: SocketAddr,
    shutdown: Shutdown,
    window: Arc<StreamWindow>,
    serving: JoinHandle<()>,
}

/// A server whose requests to `/never` are never answered; all others are at once, and nothing of any is read.
async fn server(max_connection_age: Option<Duration>) -> Server {
    let service = service_fn(|request: Request<Body>| async move {
        if request.uri().path() == "/never" {
            let () = pending().await;
        }
        drop(request);
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    serve(service, max_connection_age).await
}

async fn serve(service: impl Answers + Sync, max_connection_age: Option<Duration>) -> Server {
    let (shutdown, window) = (Shutdown::new(), Arc::new(StreamWindow::new()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listening = Listening::new(listener, &shutdown).unwrap();
    let transport = Transport { max_connection_age, window: Arc::clone(&window) };
    let serving = tokio::spawn(transport.serve(listening, service));
    Server { address, shutdown, window, serving }
}

async fn connect(address: SocketAddr) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let builder = Builder::new().max_send_buffer_size(64 << 20).handshake(stream);
    let (sender, connection) = builder.await.unwrap();
    (sender, tokio::spawn(connection))
}

fn to(path: &str) -> Request<()> {
    Request::post(format!("http://convoy{path}")).body(()).unwrap()
}

/// Bytes that may be sent on a new stream.
async fn may_send(sender: &mut SendRequest<Bytes>) -> usize {
    let (_answer, mut stream) = sender.send_request(to("/never"), false).unwrap();
    stream.reserve_capacity(8 << 20);
    let capacity = poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
    stream.send_reset(h2::Reason::CANCEL);
    capacity
}

#[tokio::test]
async fn what_a_client_may_send_follows_what_becomes_of_requests() {
    let server = server(None).await;
    let (sender, _connection) = connect(server.address).await;
    let mut sender = sender.ready().await.unwrap();
    let answered = |sender: &mut SendRequest<Bytes>| sender.send_request(to("/"), true).unwrap().0;
    answered(&mut sender).await.unwrap();
    assert_eq!(may_send(&mut sender).await, LARGE_WINDOW_BYTES as usize);
    server.window.refused();
    // The client learns of it with the answer to its next request.
    answered(&mut sender).await.unwrap();
    let small = may_send(&mut sender).await;
    assert!(small < LARGE_WINDOW_BYTES as usize / 4, "{small}");
}

#[tokio::test]
async fn a_connection_that_is_old_or_whose_server_stops_is_ended_in_order() {
    let old = server(Some(Duration::from_millis(1))).await;
    let (_sender, connection) = connect(old.address).await;
    connection.await.unwrap().unwrap();
    let stopping = server(None).await;
    let (mut sender, connection) = connect(stopping.address).await;
    let (open, mut stream) = sender.send_request(to("/never"), false).unwrap();
    let (answer, _) = sender.send_request(to("/"), true).unwrap();
    answer.await.unwrap();
    // Who says nothing does not keep the server.
    let silent = TcpStream::connect(stopping.address).await.unwrap();
    stopping.shutdown.stop();
    // What is open is waited for.
    assert!(tokio::time::timeout(Duration::from_secs(1), open).await.is_err());
    assert!(!stopping.serving.is_finished());
    stream.send_reset(h2::Reason::CANCEL);
    drop(stream);
    stopping.serving.await.unwrap();
    connection.await.unwrap().unwrap();
    drop(silent);
}

/// A frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// `POST http / a`, as static entries and literals of HPACK (RFC 7541).
const POST: &[u8] = &[0x83, 0x86, 0x84, 0x01, 0x01, b'a'];

/// Answers go out on headers, and bodies that were on their way come after them, whatever the client does.
#[tokio::test]
async fn bodies_of_requests_that_were_answered_at_once_are_no_errors() {
    const ROUNDS: u32 = 15;
    const OPEN: u32 = 100;
    let server = server(None).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&[frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, 1, 0, &[])].concat()).await.unwrap();
    let mut kinds = BTreeMap::<u8, u32>::new();
    for round in 0..ROUNDS {
        let streams = (0..OPEN).map(|at| 2 * (round * OPEN + at) + 1);
        let opened: Vec<u8> = streams.clone().flat_map(|id| frame(HEADERS, 4, id, POST)).collect();
        stream.write_all(&opened).await.unwrap();
        // Each is answered, and then reset, for its body is not wanted.
        while kinds.get(&RST_STREAM).is_none_or(|&resets| resets < (round + 1) * OPEN) {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.unwrap();
            *kinds.entry(head[3]).or_default() += 1;
            assert!(head[3] != GOAWAY, "{payload:?}");
            assert!(head[3] != RST_STREAM || payload == [0; 4], "no error: {payload:?}");
        }
        let late: Vec<u8> = streams.flat_map(|id| frame(DATA, 1, id, &[0; 10])).collect();
        stream.write_all(&late).await.unwrap();
    }
    assert_eq!(kinds[&HEADERS], ROUNDS * OPEN);
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_what_it_asked() {
    // A handler holds a clone of this for as long as it is there.
    let handlers = Arc::new(());
    let (began, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let of_service = Arc::downgrade(&handlers);
    let service = service_fn(move |_: Request<Body>| {
        let (held, began) = (of_service.upgrade(), began.clone());
        async move {
            began.send(()).unwrap();
            let () = pending().await;
            drop(held);
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    });
    let server = serve(service, None).await;
    let (mut sender, connection) = connect(server.address).await;
    let _reset = sender.send_request(to("/"), true).unwrap();
    has_begun.recv().await.unwrap();
    connection.abort();
    server.shutdown.stop();
    server.serving.await.unwrap();
    assert_eq!(Arc::strong_count(&handlers), 1, "a handler is still there");
}
