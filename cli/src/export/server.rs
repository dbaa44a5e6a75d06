//! The metrics over HTTP, for askers of every kind: slow, half, huge or many, none stops it and none makes it grow.
//!
//! One thread. A connection serves one request and lives for [`LONGEST`] at most; its request may take [`MOST_HEAD`] bytes and
//! [`HEAD_TIME`]. There are [`MOST_CONNECTIONS`] at a time: the next one ends the oldest, so a crowd that says nothing cannot keep
//! out who asks, and is answered at once.

use super::gather::Gatherer;
use crate::failure::{Exit, Failure};
use crate::report::{Event, Reporter};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

const MOST_CONNECTIONS: usize = 256;
const MOST_HEAD: usize = 16 << 10;
const HEAD_TIME: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(10);
/// How often the buses are looked at when nobody asks: health is a matter of several looks.
const LOOK: Duration = Duration::from_secs(1);
/// Pause after a failure to accept: out of descriptors, most likely.
const PAUSE: Duration = Duration::from_millis(50);

const TEXT: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Serves until the process is ended.
pub(super) fn serve(listen: SocketAddr, gatherer: Gatherer, reporter: Reporter) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot wait for connections: {error}")))?;
    runtime.block_on(accept(listen, Arc::new(gatherer), reporter))
}

async fn accept(listen: SocketAddr, gatherer: Arc<Gatherer>, reporter: Reporter) -> Result<Exit, Failure> {
    let bound = TcpListener::bind(listen).await;
    let (listener, address) = bound
        .and_then(|listener| listener.local_addr().map(|address| (listener, address)))
        .map_err(|error| Failure::other(format!("cannot listen on {listen}: {error}; choose another --listen")))?;
    reporter.tell(&Event::Serving { address: address.to_string(), public: !address.ip().is_loopback() });
    tokio::spawn(keep_looking(gatherer.clone()));
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= MOST_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(tokio::spawn(connection(stream, gatherer.clone())).abort_handle());
    }
}

async fn keep_looking(gatherer: Arc<Gatherer>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        // What fails is told to who asks.
        let _ = gatherer.text();
    }
}

async fn connection(stream: TcpStream, gatherer: Arc<Gatherer>) {
    let answer = service_fn(move |request| {
        let gatherer = gatherer.clone();
        async move { Ok::<_, Infallible>(answer(&request, &gatherer)) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MOST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    // Whether the asker was satisfied is the asker's matter.
    let _ = timeout(LONGEST, serving).await;
}

fn answer(request: &Request<Incoming>, gatherer: &Gatherer) -> Response<Full<Bytes>> {
    let plain = |status: StatusCode, text: String| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET /metrics\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n".to_owned());
    }
    match gatherer.text() {
        Ok(text) => {
            let mut response = plain(StatusCode::OK, text);
            response.headers_mut().insert(CONTENT_TYPE, TEXT);
            response
        }
        Err(failure) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{failure}\n")),
    }
}
