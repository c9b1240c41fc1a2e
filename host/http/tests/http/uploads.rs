//! Uploads to servers that read as they like, over real connections on this machine.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use wbuild_http::{Clients, FileBody, Moving, Options, Reach};

/// More than the buffers between two sockets hold.
const SIZE: u64 = 16 << 20;
const STALL: Duration = Duration::from_millis(400);

/// Sends a file to a server that does this with its connection. What came of it, and how much went out.
async fn send(
    serve: impl FnOnce(TcpStream) + Send + 'static,
) -> (Option<Result<u16, reqwest::Error>>, u64) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let url = reqwest::Url::parse(&url).expect("a URL");
    std::thread::spawn(move || serve(listener.accept().expect("a connection").0));
    let file: File = tempfile::tempfile().expect("a file");
    file.set_len(SIZE).expect("its length");
    let out = Arc::new(AtomicU64::new(0));
    let moving = Arc::new(Moving::default());
    let sent: Arc<dyn Fn(u64) + Send + Sync> = {
        let out = Arc::clone(&out);
        Arc::new(move |bytes| out.store(bytes, Ordering::Relaxed))
    };
    let body = FileBody::start(&Arc::new(file), 0, SIZE, &sent, &moving);
    // Only what watches the upload is to give up.
    let clients = Clients::new(Options { reach: Reach::Everything, ..Options::default() });
    let client = clients.client(&url).await.expect("a client");
    let request = client.put(url).body(reqwest::Body::wrap(body)).send();
    let answer = moving.watch(request, STALL).await;
    let status = answer.map(|answer| answer.map(|answer| answer.status().as_u16()));
    (status, out.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_nothing_is_given_up() {
    let (end, ended) = mpsc::channel::<()>();
    let began = Instant::now();
    // The connection is held, and nothing is read from it.
    let (status, out) = send(move |connection| {
        let _ = ended.recv();
        drop(connection);
    })
    .await;
    let took = began.elapsed();
    drop(end);
    assert!(status.is_none() && out < SIZE, "{status:?} after {out} bytes");
    assert!(took >= STALL && took < STALL * 20, "it took {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_all_and_never_answers_is_given_up() {
    let (end, ended) = mpsc::channel::<()>();
    let (status, out) = send(move |mut connection| {
        let mut all = vec![0; 1 << 20];
        let mut left = SIZE;
        while left > 0 {
            let read = connection.read(&mut all).expect("read") as u64;
            assert!(read > 0, "the connection ended");
            left = left.saturating_sub(read);
        }
        let _ = ended.recv();
    })
    .await;
    drop(end);
    assert!(status.is_none() && out == SIZE, "{status:?} after {out} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_slow_is_waited_for() {
    let began = Instant::now();
    let (status, out) = send(|mut connection| {
        // Slow with what cannot all lie in buffers, and then not: of the rest no client hears anything.
        let mut piece = vec![0; 1 << 20];
        for number in 0..SIZE >> 20 {
            if number < 10 {
                std::thread::sleep(STALL / 8);
            }
            connection.read_exact(&mut piece).expect("read");
        }
        let _ = connection.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
        // What is left of the request; a connection that is closed over it loses the answer.
        let _ = std::io::copy(&mut connection, &mut std::io::sink());
    })
    .await;
    assert!(matches!(status, Some(Ok(201))) && out == SIZE, "{status:?} after {out} bytes");
    assert!(began.elapsed() > STALL, "it was not slow");
}
