//! `/healthz`, `/readyz` and `/metrics`, nothing else; plain HTTP/1.1 for the kubelet and a scraper.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::metrics;

/// Connections served at once. A stranger who opens more has them closed, and for as long as it takes to see that the
/// first ones ask for nothing, the kubelet's with them: it asks again.
const MAX_CONNECTIONS: usize = 32;
/// How long a client may take to send its request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether the role does its work; `/readyz` answers with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says from now on that the role is ready, or not.
    pub(crate) fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    /// Whether it is.
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The address could not be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr} (--metrics-addr)")]
pub(crate) struct ListenError {
    addr: SocketAddr,
    source: std::io::Error,
}

/// Serves until the process ends. `/healthz` answers as long as the runtime turns.
pub(crate) async fn serve(
    addr: SocketAddr,
    readiness: Readiness,
    registry: Arc<Registry>,
) -> Result<Infallible, ListenError> {
    let listener = TcpListener::bind(addr).await.map_err(|source| ListenError { addr, source })?;
    serve_on(listener, readiness, registry).await
}

async fn serve_on(
    listener: TcpListener,
    readiness: Readiness,
    registry: Arc<Registry>,
) -> Result<Infallible, ListenError> {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, usually: leave the others time to close theirs.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            tracing::debug!("a connection too many was closed");
            continue;
        };
        let (readiness, registry) = (readiness.clone(), registry.clone());
        tokio::spawn(async move {
            let _slot = slot;
            let service = service_fn(|request: Request<Incoming>| {
                let response =
                    answer(request.method(), request.uri().path(), readiness.get(), &registry);
                async { Ok::<_, Infallible>(response) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
}

fn answer(method: &Method, path: &str, ready: bool, registry: &Registry) -> Response<Full<Bytes>> {
    if method != Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match path {
        "/healthz" => plain(StatusCode::OK, "ok\n"),
        "/readyz" if ready => plain(StatusCode::OK, "ok\n"),
        "/readyz" => plain(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        "/metrics" => body(StatusCode::OK, metrics::CONTENT_TYPE, metrics::encode(registry)),
        _ => plain(StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics\n"),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    body(status, "text/plain; charset=utf-8", text)
}

fn body(
    status: StatusCode,
    content_type: &'static str,
    text: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    fn status(method: &Method, path: &str, ready: bool) -> u16 {
        answer(method, path, ready, &metrics::registry()).status().as_u16()
    }

    async fn get(addr: SocketAddr) -> String {
        let ask = move || {
            let mut stream = TcpStream::connect(addr).expect("connected");
            let mut text = String::new();
            // A connection that is closed at once takes nothing, or has nothing to read.
            let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
            let _ = stream.read_to_string(&mut text);
            text
        };
        tokio::task::spawn_blocking(ask).await.expect("no panic")
    }

    /// Any pod of the cluster can open connections.
    #[tokio::test]
    async fn strangers_that_say_nothing_keep_nobody_out_for_long() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let registry = Arc::new(metrics::registry());
        let server = tokio::spawn(serve_on(listener, Readiness::default(), registry));
        let mut strangers = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            strangers.push(TcpStream::connect(addr).expect("connected"));
        }
        let refused = tokio::time::timeout(HEADER_TIMEOUT / 2, get(addr)).await;
        assert_eq!(refused.expect("closed at once"), "");
        let answered = async {
            while !get(addr).await.starts_with("HTTP/1.1 200") {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(HEADER_TIMEOUT * 10, answered).await.expect("their time is over");
        server.abort();
    }

    #[test]
    fn each_path_answers() {
        let table = [
            (Method::GET, "/healthz", false, 200),
            (Method::GET, "/readyz", false, 503),
            (Method::GET, "/readyz", true, 200),
            (Method::GET, "/metrics", false, 200),
            (Method::GET, "/", true, 404),
            (Method::POST, "/healthz", true, 405),
        ];
        for (method, path, ready, expected) in table {
            assert_eq!(status(&method, path, ready), expected, "{method} {path} {ready}");
        }
    }
}
