//! Nodes come and go behind the real nginx while clients post and do not repeat: none of them loses a request.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use axum::{Router, http::StatusCode, routing::post};
use bytes::Bytes;
use futures::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use lab::stack::{
    dir::LabDir,
    gateway::{Gateway, Listens, Routes},
    install,
    node::Service,
};
use testkit::wait_until;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

use crate::up::{LIMIT, folder};

const CLIENTS: usize = 32;
/// Between two posts of a client.
const PAUSE: Duration = Duration::from_millis(5);
const RELOADS: usize = 20;

/// A gateway of the test's own, with nodes behind it that say yes to everything.
struct Stage {
    gateway: Gateway,
    address: SocketAddr,
    /// Of notes, which leads to the same nodes.
    own: SocketAddr,
    nodes: [u16; 2],
    folder: PathBuf,
    _tasks: JoinSet<()>,
}

impl Stage {
    async fn new() -> Self {
        let mut tasks = JoinSet::new();
        let nodes = [node(&mut tasks).await, node(&mut tasks).await];
        let folder = folder();
        let dir = LabDir::open(&folder).unwrap();
        let port = dir.port("gateway").unwrap();
        let own = dir.port("own").unwrap();
        let mut listens = Listens::on(port);
        listens.own.insert(Service::Notes, own);
        let nginx = install::path(&install::NGINX).unwrap();
        let (news, _) = mpsc::unbounded_channel();
        let gateway = Gateway::prepare(&dir, nginx, listens, None, &news, &mut tasks).unwrap();
        gateway.start(&routes(&nodes)).await.unwrap();
        Self {
            gateway,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            own: SocketAddr::from(([127, 0, 0, 1], own)),
            nodes,
            folder,
            _tasks: tasks,
        }
    }

    /// With both nodes, and then with one.
    async fn scale(&self, time: usize) {
        let nodes = routes(&self.nodes[time % 2..]);
        self.gateway.route(&nodes).await.unwrap();
    }

    async fn end(self) {
        self.gateway.stop().await.unwrap();
        std::fs::remove_dir_all(self.folder).unwrap();
    }
}

fn routes(nodes: &[u16]) -> Routes {
    [Service::Sender, Service::Notes]
        .map(|service| (service, nodes.to_vec()))
        .into()
}

async fn node(tasks: &mut JoinSet<()>) -> u16 {
    let app = Router::new().route("/api/messages", post(async || StatusCode::ACCEPTED));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn(async move {
        axum::serve(listener, app).await.unwrap();
    });
    port
}

/// A connection that is used for as long as the gateway allows. Nothing is sent twice.
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

impl Connection {
    async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(async { drop(connection.await) });
        Self {
            sender,
            _driver: driver,
        }
    }

    async fn post(&mut self) -> hyper::Result<Response<Bytes>> {
        let mut request = Request::new(Full::new(Bytes::from_static(b"message")));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = "/api/messages".parse().unwrap();
        let headers = request.headers_mut();
        headers.insert(HOST, "gateway".parse().unwrap());
        let answered = async {
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        timeout(LIMIT, answered).await.expect("no answer")
    }
}

fn is_last(answer: &Response<Bytes>) -> bool {
    let word = answer.headers().get("connection");
    word.is_some_and(|word| word == "close")
}

/// What became of a client's posts.
#[derive(Default)]
struct Told {
    posted: usize,
    failed: Vec<String>,
}

/// Posts until it is over. `again` counts the answers over connections that had been idle.
async fn client(place: usize, address: SocketAddr, over: &AtomicBool, again: &AtomicUsize) -> Told {
    // not all in the same moment: a reload would fall between two bursts
    let first = PAUSE * u32::try_from(place).unwrap() / u32::try_from(CLIENTS).unwrap();
    let mut pace = interval_at(Instant::now() + first, PAUSE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Told::default();
    let mut kept: Option<Connection> = None;
    while !over.load(Ordering::Relaxed) {
        pace.tick().await;
        let was_idle = kept.is_some();
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => Connection::to(address).await,
        };
        told.posted += 1;
        match connection.post().await {
            Ok(answer) if answer.status() != StatusCode::ACCEPTED => {
                told.failed.push(format!("{answer:?}"));
            }
            Ok(answer) => {
                again.fetch_add(usize::from(was_idle), Ordering::Relaxed);
                kept = (!is_last(&answer)).then_some(connection);
            }
            // closed before anything was written: nothing is lost, and any client takes another connection
            Err(error) if error.is_canceled() => told.posted -= 1,
            Err(error) => told.failed.push(format!("{error:?}")),
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_post_over_a_kept_connection_is_lost_while_nodes_come_and_go() {
    let stage = Stage::new().await;
    let (over, again) = (AtomicBool::new(false), AtomicUsize::new(0));
    let clients = join_all((0..CLIENTS).map(|place| {
        let address = [stage.address, stage.own][place % 2];
        client(place, address, &over, &again)
    }));
    let scaling = async {
        for time in 0..RELOADS {
            // otherwise there would be nothing to lose
            let enough = again.load(Ordering::Relaxed) + 2 * CLIENTS;
            wait_until("connections to be kept", LIMIT, async || {
                let now = again.load(Ordering::Relaxed);
                if now >= enough { Ok(()) } else { Err(now) }
            })
            .await;
            stage.scale(time).await;
        }
        over.store(true, Ordering::Relaxed);
    };
    let (told, ()) = tokio::join!(clients, scaling);
    let posted: usize = told.iter().map(|told| told.posted).sum();
    let failed: Vec<&String> = told.iter().flat_map(|told| &told.failed).collect();
    assert!(
        failed.is_empty(),
        "{} of {posted}: {failed:?}",
        failed.len()
    );
    stage.end().await;
}

#[tokio::test]
async fn a_reload_waits_for_a_kept_connection_and_its_next_answer_is_the_last() {
    let stage = Stage::new().await;
    for address in [stage.address, stage.own] {
        says_goodbye(&stage, address).await;
    }
    stage.end().await;
}

async fn says_goodbye(stage: &Stage, address: SocketAddr) {
    let mut kept = Connection::to(address).await;
    assert!(!is_last(&kept.post().await.unwrap()));
    let file = stage.folder.join("gateway/drain");
    let farewell = async {
        wait_until("the drain to begin", LIMIT, async || {
            if file.exists() {
                Ok(())
            } else {
                Err("there is no file")
            }
        })
        .await;
        kept.post().await.unwrap()
    };
    let ((), answer) = tokio::join!(stage.scale(1), farewell);
    assert!(is_last(&answer), "{answer:?}");
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    // who says nothing is not waited for for ever, and connections are kept again afterwards
    let mut silent = Connection::to(address).await;
    assert!(!is_last(&silent.post().await.unwrap()));
    timeout(LIMIT, stage.scale(0)).await.unwrap();
    assert!(!file.exists());
    let mut next = Connection::to(address).await;
    assert!(!is_last(&next.post().await.unwrap()));
}
