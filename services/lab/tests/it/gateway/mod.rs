//! The gateway's rules with a real nginx before real nodes: keys, retries, what is not tried twice, and what it says when
//! no node answers.

mod others;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderMap, Uri},
    response::IntoResponse,
};
use lab::stack::{
    gateway::{Listens, Routes, fill, write_common},
    node::Service,
};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use testkit::{Direction, Process, Proxy, wait_until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};

use crate::{
    load::client,
    redrive::{PARKED, TOKEN, counts, parked, receiver},
    world::{World, ready},
};

const LIMIT: Duration = Duration::from_mins(1);

/// An nginx of the test's own. One process, which goes with the test.
struct Gateway {
    _nginx: Child,
    folder: PathBuf,
    url: String,
    own: BTreeMap<Service, u16>,
}

impl Gateway {
    async fn before(senders: &[&Process]) -> Self {
        let senders = senders.iter().map(|sender| port(&sender.url())).collect();
        Self::of(&[(Service::Sender, senders)]).await
    }

    /// Before nodes at these ports. Notes, leases and sign-up have a port of their own too.
    async fn of(nodes: &[(Service, Vec<u16>)]) -> Self {
        let name = format!("unacked-gateway-{}", uuid::Uuid::new_v4().simple());
        let folder = std::env::temp_dir().join(name);
        // all at once, so that they differ
        let free = [(); 4].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let [main, notes, leases, signup] = free.map(|free| free.local_addr().unwrap().port());
        let listens = Listens {
            port: main,
            own: BTreeMap::from([
                (Service::Notes, notes),
                (Service::Leases, leases),
                (Service::Signup, signup),
            ]),
        };
        let routes: Routes = nodes.iter().cloned().collect();
        let settings = fill(main, &routes, None)
            // Nodes that do not answer are what is tested.
            .replace("error_log stderr warn;", "error_log stderr crit;");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("nginx.conf"), settings).unwrap();
        write_common(&folder, &listens).unwrap();
        let program = lab::stack::install::find("nginx").expect("nginx is installed");
        let nginx = Command::new(program)
            .args(["-e", "stderr", "-g", "master_process off;"])
            .args(["-c", "nginx.conf", "-p"])
            .arg(&folder)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let gateway = Self {
            _nginx: nginx,
            folder,
            url: format!("http://127.0.0.1:{main}"),
            own: listens.own,
        };
        wait_until("the gateway to answer", LIMIT, async || {
            client().get(format!("{}/lab", gateway.url)).send().await
        })
        .await;
        gateway
    }

    fn post(&self, text: &str) -> RequestBuilder {
        let url = format!("{}/api/messages", self.url);
        client().post(url).json(&json!({ "message": text }))
    }

    fn form(&self, text: &str) -> RequestBuilder {
        client().post(&self.url).form(&[("message", text)])
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn port(url: &str) -> u16 {
    let (_, port) = url.rsplit_once(':').unwrap();
    port.trim_end_matches('/').parse().unwrap()
}

async fn body(request: RequestBuilder, status: u16) -> Value {
    let text = page(request, status).await;
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

async fn page(request: RequestBuilder, status: u16) -> String {
    let response: Response = request.send().await.unwrap();
    let found = response.status().as_u16();
    let text = response.text().await.unwrap();
    assert_eq!(found, status, "{text}");
    text
}

#[tokio::test]
async fn keys_pass_the_gateway_as_they_are_and_a_request_without_one_has_its_own() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    ready(&sender).await;
    let gateway = Gateway::before(&[&sender]).await;
    let key = "Idempotency-Key";
    let first = body(gateway.post("a").header(key, "mine"), 202).await;
    let again = body(gateway.post("a").header(key, "mine"), 202).await;
    assert_eq!(first["message_id"], again["message_id"]);
    assert_eq!(again["repeated"], true);
    // As from a sender alone.
    for address in [&gateway.url, &sender.url()] {
        let post = || {
            let url = format!("{address}/api/messages");
            client().post(url).json(&json!({"message": "a"}))
        };
        for request in [
            post().header(key, ""),
            post().header(key, "a").header(key, "b"),
            post().header(key, "").header(key, "b"),
            post().header(key, "a b"),
        ] {
            let problem = body(request, 400).await;
            let detail = problem["detail"].as_str().unwrap_or_default();
            assert!(detail.contains("idempotency-key"), "{address}: {problem}");
        }
    }
    // Two requests are two messages, whatever a client claims.
    for _ in 0..2 {
        let request = gateway.post("b").header("X-Gateway-Key", "theirs");
        assert_eq!(body(request, 202).await["repeated"], false);
    }
    let theirs = "select count(*) from sender.message where idempotency_key = 'theirs'";
    assert_eq!(world.count(theirs).await, 0);
    assert_eq!(world.count("select count(*) from sender.message").await, 3);
}

#[tokio::test]
async fn a_post_without_a_key_that_is_tried_on_two_nodes_counts_once() {
    let world = World::new().await;
    let dies = world
        .sender("sender-1")
        .env("FAIL_POINTS", "submit.after_commit=crash@1")
        .start()
        .await;
    let lives = world.sender("sender-2").start().await;
    ready(&dies).await;
    ready(&lives).await;
    let gateway = Gateway::before(&[&dies, &lives]).await;
    let (mut posts, mut repeated) = (0, 0);
    // which node gets a post is chance
    while repeated == 0 {
        let receipt = body(gateway.post(&format!("message {posts}")), 202).await;
        repeated += i64::from(receipt["repeated"] == true);
        posts += 1;
        assert!(posts < 100, "the first node took none along");
    }
    for n in 0..3 {
        let receipt = body(gateway.post(&format!("one more {n}")), 202).await;
        repeated += i64::from(receipt["repeated"] == true);
        posts += 1;
    }
    assert_eq!(repeated, 1, "the one that the first node took along");
    assert_eq!(
        world.count("select count(*) from sender.message").await,
        posts
    );
}

#[tokio::test]
async fn what_no_node_got_was_not_accepted_and_what_one_got_is_unknown() {
    let world = World::new().await;
    let mut one = world.sender("sender-1").start().await;
    let mut other = world.sender("sender-2").start().await;
    ready(&one).await;
    ready(&other).await;
    let gateway = Gateway::before(&[&one, &other]).await;
    // The gateway keeps connections to both, which are broken by the time it uses them again.
    for _ in 0..4 {
        body(gateway.post("accepted"), 202).await;
    }
    one.kill().await;
    other.kill().await;
    for _ in 0..3 {
        let problem = body(gateway.post("lost"), 502).await;
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(
            detail.contains("Nothing was accepted") && !detail.contains("not known"),
            "{problem}"
        );
        let page = page(gateway.form("lost"), 502).await;
        assert!(page.contains("Nothing was accepted"), "{page}");
    }
    let page = page(client().get(&gateway.url), 502).await;
    assert!(!page.contains("accepted"), "nothing was sent: {page}");
    assert_eq!(world.count("select count(*) from sender.message").await, 4);

    other.set_env("FAIL_POINTS", "submit.after_commit=crash@1");
    other.start_again().await;
    ready(&other).await;
    let keyed = || gateway.post("taken along").header("Idempotency-Key", "k");
    let problem = body(keyed(), 502).await;
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("not known") && !detail.contains("Nothing was accepted"),
        "{problem}"
    );
    other.wait(LIMIT).await.unwrap();
    one.start_again().await;
    ready(&one).await;
    assert_eq!(body(keyed(), 202).await["repeated"], true);
}

#[tokio::test]
async fn a_discard_whose_answer_is_lost_is_not_said_again_to_another_receiver() {
    let world = World::new().await;
    let one = receiver(&world, "receiver-1").await;
    let other = receiver(&world, "receiver-2").await;
    let doors = [
        Proxy::before(&one.url()).await,
        Proxy::before(&other.url()).await,
    ];
    let ports = [&one, &other].into_iter().zip(&doors);
    let ports = ports.map(|(node, door)| port(&door.url(&node.url())));
    let gateway = Gateway::of(&[(Service::Receiver, ports.collect())]).await;
    parked(&world, 3, "x").await;
    let discard = || {
        let url = format!("{}/received/api/dead-letters/discard", gateway.url);
        let order = json!({"selection": {"all": true}, "confirm": "discard 3"});
        client()
            .post(url)
            .header("X-Redrive-Token", TOKEN)
            .json(&order)
    };
    for door in &doors {
        door.freeze(Direction::Down);
    }
    let lose_the_answer = async {
        counts(&world, PARKED, 0).await;
        // the one that was not asked first: it can answer by the time it is
        let (asked, others): (Vec<&Proxy>, Vec<&Proxy>) =
            doors.iter().partition(|door| door.open() > 0);
        assert_eq!((asked.len(), others.len()), (1, 1));
        others[0].thaw();
        asked[0].cut_rst();
        wait_until("the answer to be lost", LIMIT, async || {
            asked[0].open() == 0
        })
        .await;
        asked[0].thaw();
    };
    let (answer, ()) = futures::join!(discard().send(), lose_the_answer);
    let answer = answer.unwrap();
    let (status, problem) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, 502, "{problem}");
    assert!(
        problem.contains("Whether it was done is not known"),
        "{problem}"
    );
    // said by a person, it is answered
    let again = body(discard(), 409).await;
    assert_eq!(again["type"], "urn:unacked:problem:not_confirmed");
}
