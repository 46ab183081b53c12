//! Serves a router over HTTP/1.1 until the process stops.
//!
//! Nothing a client does or omits holds a connection for ever: the head of a request, and the rest
//! between two requests, may take 75 s; a body 20 s, however it dribbles; a handler 30 s up to the
//! head of its answer (408: what waits that long here waits for the client, since every await on a
//! server has a shorter limit). Answers that stream, as
//! server-sent events do, are not limited and must end when the lifecycle stops. A client that
//! does not read its answer is bounded by the lifecycle's limit at the end only.
//!
//! When the process stops, the listener closes at once, so that the gateway tries another node;
//! requests that have begun are answered, idle connections are closed. What is between the two, a
//! connection accepted by the kernel and not by us, is reset, and the gateway tries another node.

use std::{io, net::SocketAddr, time::Duration};

use anyhow::Context;
use axum::{
    Router,
    extract::{ConnectInfo, Request},
    http::StatusCode,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tower_http::{catch_panic::CatchPanicLayer, timeout::RequestBodyDeadlineLayer};

use crate::{WrongSetting, lifecycle::Lifecycle};

/// What a client may take its time for.
#[derive(Clone, Copy)]
struct Limits {
    /// The head of a request, the rest before it included. Longer than a gateway keeps an idle
    /// connection, so that it is the gateway that closes it.
    head: Duration,
    /// The whole body of a request.
    body: Duration,
    /// From the head of the request to the head of the answer.
    handler: Duration,
}

const LIMITS: Limits = Limits {
    head: Duration::from_secs(75),
    body: Duration::from_secs(20),
    handler: Duration::from_secs(30),
};
/// After a failed accept: mostly there are no file descriptors left, and asking again at once
/// would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that the kernel holds until we accept them; it has a limit of its own beside. The
/// library's 128 are fewer than the gateway opens in one moment under load: what is above them is
/// dropped, tried again after a second, and by then the gateway has given up on us.
const BACKLOG: u32 = 4_096;

/// Listens on the address that a setting holds.
pub fn bind(setting: &'static str, address: &str) -> anyhow::Result<TcpListener> {
    let parsed: SocketAddr = address
        .parse()
        .map_err(|_| WrongSetting::new(setting, address, "ADDRESS:PORT, such as 127.0.0.1:8081"))?;
    listen(parsed).with_context(|| format!("{setting}: listening on {address}"))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // a node that is started again finds its port free, though connections of before are not over yet
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves the router until the process stops, then finishes what has begun.
pub fn serve(listener: TcpListener, router: Router, lifecycle: &Lifecycle) {
    serve_within(LIMITS, listener, router, lifecycle);
}

/// The same for handlers that wait for something on purpose, for so long at most. They must look at
/// the lifecycle themselves, or the process waits for them.
pub fn serve_patiently(
    patience: Duration,
    listener: TcpListener,
    router: Router,
    lifecycle: &Lifecycle,
) {
    let limits = Limits {
        handler: LIMITS.handler + patience,
        ..LIMITS
    };
    serve_within(limits, listener, router, lifecycle);
}

fn serve_within(limits: Limits, listener: TcpListener, router: Router, lifecycle: &Lifecycle) {
    let router = router
        .layer(RequestBodyDeadlineLayer::new(limits.body))
        .layer(from_fn(move |request, next| {
            limit_handler(limits.handler, request, next)
        }))
        // The last net: a handler that panics is a 500, not a process that ends.
        .layer(CatchPanicLayer::new());
    let life = lifecycle.clone();
    lifecycle.spawn("http", accept(limits.head, listener, router, life));
}

async fn accept(
    head_limit: Duration,
    listener: TcpListener,
    router: Router,
    life: Lifecycle,
) -> anyhow::Result<()> {
    let stopping = life.stopping();
    while let Some(accepted) = stopping.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                let router = router.clone();
                let connection = connection(head_limit, stream, peer, router, stopping.clone());
                life.spawn_once("http connection", connection);
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    Ok(())
}

/// A client that left before it was accepted.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

async fn connection(
    head_limit: Duration,
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    // Without it, small answers wait for the other side's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    // for handlers that count by who asks
    let router = router.map_request(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_limit)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stopping.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
    Ok(())
}

async fn limit_handler(limit: Duration, request: Request, next: Next) -> Response {
    timeout(limit, next.run(request))
        .await
        .unwrap_or_else(|_elapsed| {
            (StatusCode::REQUEST_TIMEOUT, "the request took too long\n").into_response()
        })
}

#[cfg(test)]
mod tests {
    use std::{process::ExitCode, sync::Arc};

    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::Notify,
    };

    use super::*;

    const SHORT: Limits = Limits {
        head: Duration::from_millis(300),
        body: Duration::from_millis(300),
        handler: Duration::from_secs(3),
    };

    fn served(router: Router) -> (SocketAddr, Lifecycle) {
        let lifecycle = Lifecycle::new(Duration::from_secs(10));
        let listener = bind("LISTEN", "127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        serve_within(SHORT, listener, router, &lifecycle);
        (address, lifecycle)
    }

    #[tokio::test]
    async fn a_request_that_has_begun_is_answered_though_the_process_stops() {
        let (arrived, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let handler = {
            let (arrived, go_on) = (Arc::clone(&arrived), Arc::clone(&go_on));
            async move || {
                arrived.notify_one();
                go_on.notified().await;
                "done"
            }
        };
        let (address, lifecycle) = served(Router::new().route("/", get(handler)));
        let request = reqwest::get(format!("http://{address}/"));
        let stop = async {
            arrived.notified().await;
            lifecycle.stop();
            // The listener is closed from here on.
            while TcpStream::connect(address).await.is_ok() {
                tokio::task::yield_now().await;
            }
            go_on.notify_one();
        };
        let (answer, ()) = tokio::join!(request, stop);
        assert_eq!(answer.unwrap().text().await.unwrap(), "done");
        assert_eq!(
            format!("{:?}", lifecycle.finish().await),
            format!("{:?}", ExitCode::SUCCESS)
        );
    }

    #[tokio::test]
    async fn an_idle_connection_does_not_hold_up_the_end() {
        let (address, lifecycle) = served(Router::new());
        let mut idle = TcpStream::connect(address).await.unwrap();
        lifecycle.stop();
        let mut rest = Vec::new();
        // An end or a reset: it may not have been accepted yet.
        let _ = timeout(Duration::from_secs(5), idle.read_to_end(&mut rest))
            .await
            .unwrap();
        timeout(Duration::from_secs(5), lifecycle.finish())
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_a_500_and_the_process_lives() {
        async fn panics() {
            panic!("on purpose");
        }
        let (address, lifecycle) = served(Router::new().route("/", get(panics)));
        let answer = reqwest::get(format!("http://{address}/")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!lifecycle.stopping().is_cancelled());
    }

    #[tokio::test]
    async fn a_body_that_dribbles_ends_with_a_4xx() {
        let echo = async |body: String| body;
        let (address, lifecycle) = served(Router::new().route("/", axum::routing::post(echo)));
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nab")
            .await
            .unwrap();
        let mut answer = [0; 12];
        slow.read_exact(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
        lifecycle.stop();
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_closes_the_connection() {
        let (address, lifecycle) = served(Router::new());
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        let mut rest = Vec::new();
        slow.read_to_end(&mut rest).await.unwrap();
        lifecycle.stop();
    }

    #[tokio::test]
    async fn a_wrong_address_is_a_wrong_setting_and_a_taken_one_is_not() {
        let error = bind("LISTEN", "here").unwrap_err();
        assert!(error.is::<WrongSetting>(), "{error}");
        let taken = bind("LISTEN", "127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = bind("LISTEN", &address).unwrap_err();
        assert!(
            !error.is::<WrongSetting>() && format!("{error:#}").contains(&address),
            "{error:#}"
        );
    }
    #[tokio::test]
    async fn a_burst_of_connections_waits_until_it_is_accepted() {
        let listener = bind("LISTEN", "127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // nobody accepts: what finds no room is never connected
        let mut burst = Vec::new();
        for _ in 0..300 {
            let connection = timeout(Duration::from_secs(10), TcpStream::connect(address)).await;
            burst.push(connection.unwrap().unwrap());
        }
        drop(listener);
    }
}
