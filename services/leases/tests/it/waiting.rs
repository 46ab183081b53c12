//! Waiting for a message: woken by what happens on other nodes, and by the end of leases, without asking again and again.

use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde_json::json;
use testkit::{Process, wait_until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::served::{LIMIT, Served, answer, bodies, messages};

const WAIT: &str = "/?wait_ms=20000&lease_ms=60000";

async fn metric(node: &Process, name: &str) -> f64 {
    node.metric(name).await.unwrap()
}

/// Waits until so many wait at a node: each has looked by then.
async fn waiting(served: &Served, node: usize, count: f64) {
    let node = &served.nodes[node];
    wait_until("those who wait", LIMIT, async || {
        (metric(node, "unacked_leases_waiting").await - count).abs() < f64::EPSILON
    })
    .await;
}

async fn leased(request: RequestBuilder) -> Vec<String> {
    let leased = messages(&answer(request).await.is(200));
    bodies(&leased).into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_push_at_one_node_wakes_who_waits_at_another_at_once() {
    let served = Served::by(3).await;
    let wait = async {
        let got = leased(served.to(0, Method::GET, WAIT)).await;
        (got, Instant::now())
    };
    let push = async {
        waiting(&served, 0, 1.0).await;
        let began = Instant::now();
        answer(served.to(1, Method::POST, "/").body("1"))
            .await
            .is(201);
        began
    };
    let ((got, woken), pushed) = tokio::join!(wait, push);
    assert_eq!(got, ["1"]);
    let took = woken.saturating_duration_since(pushed);
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[tokio::test]
async fn the_end_of_a_lease_and_what_is_given_back_or_redriven_wake_who_waits() {
    let served = Served::by(2).await;
    let id = served.push("", "1").await;
    served.lease("", "lease_ms=400").await;
    let began = Instant::now();
    let got = leased(served.to(0, Method::GET, WAIT)).await;
    assert_eq!(got, ["1"]);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );

    let give_back = async {
        waiting(&served, 0, 1.0).await;
        let path = format!("/{id}/lease");
        answer(served.to(1, Method::DELETE, &path)).await.is(204);
    };
    let (got, ()) = tokio::join!(leased(served.to(0, Method::GET, WAIT)), give_back);
    assert_eq!(got, ["1"]);

    // a lease that is made shorter ends earlier than who waits has been told
    let shorten = async {
        waiting(&served, 0, 1.0).await;
        let path = format!("/{id}/lease?lease_ms=1");
        answer(served.to(1, Method::PATCH, &path)).await.is(204);
    };
    let (got, ()) = tokio::join!(leased(served.to(0, Method::GET, WAIT)), shorten);
    assert_eq!(got, ["1"]);

    served
        .put("/queues/q", r#"{"max_receives":1,"lease_ms":1}"#)
        .await
        .is(201);
    served.push("/queues/q", "2").await;
    served.lease("/queues/q", "").await;
    served.dead("/queues/q", 1).await;
    let redrive = async {
        waiting(&served, 0, 1.0).await;
        let order = json!({"all": true}).to_string();
        let path = "/queues/q/dead-letters/redrive";
        answer(served.to(1, Method::POST, path).body(order))
            .await
            .is(200);
    };
    let path = format!("/queues/q{WAIT}");
    let (got, ()) = tokio::join!(leased(served.to(0, Method::GET, &path)), redrive);
    assert_eq!(got, ["2"]);
}

#[tokio::test]
async fn who_waits_asks_nothing_while_nothing_happens() {
    let served = Served::by(1).await;
    // one is leased for long: a timer is set, far away
    served.push("", "1").await;
    served.lease("", "lease_ms=600000").await;
    let commits = async || metric(&served.nodes[0], "unacked_leases_commits_total").await;
    let asked = async || metric(&served.nodes[0], "unacked_leases_asked_total").await;
    let asked_before = asked().await;
    let wait = async || leased(served.to(0, Method::GET, "/?wait_ms=3000")).await;
    let look = async {
        waiting(&served, 0, 3.0).await;
        commits().await
    };
    let (one, two, three, before) = tokio::join!(wait(), wait(), wait(), look);
    let after = commits().await;
    assert!(one.is_empty() && two.is_empty() && three.is_empty());
    assert!((after - before).abs() < f64::EPSILON, "{before} {after}");
    // when the lease ends: each of them once, or together
    let questions = asked().await - asked_before;
    assert!((1.0..=3.0).contains(&questions), "{questions}");
}

#[tokio::test]
async fn a_client_that_left_takes_no_message() {
    let served = Served::by(1).await;
    let gone = served.to(0, Method::GET, WAIT).timeout(LIMIT);
    let gone = gone.send();
    {
        let mut gone = std::pin::pin!(gone);
        tokio::select! {
            _ = &mut gone => panic!("there was nothing to be answered"),
            () = waiting(&served, 0, 1.0) => {}
        }
        // dropped here, with its connection
    }
    waiting(&served, 0, 0.0).await;
    let id = served.push("", "1").await;
    let leased = served.lease("", "").await;
    assert_eq!(
        (leased[0].id.as_str(), leased[0].receive_count),
        (id.as_str(), 1)
    );
}

#[tokio::test]
async fn a_client_that_leaves_before_it_hears_of_its_lease_costs_no_receive() {
    let served = Served::by(1).await;
    let settings = r#"{"max_receives":1,"lease_ms":60000}"#;
    served.put("/queues/q", settings).await.is(201);
    let id = served.push("/queues/q", "1").await;
    let node = &served.nodes[0];
    let point = "leases.lease.after_commit";
    node.arm(&format!("{point}=park")).await.unwrap();
    let at = node.url().replace("http://", "");
    let mut client = TcpStream::connect(&at).await.unwrap();
    let request = format!("GET /queues/q/ HTTP/1.1\r\nHost: {at}\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    wait_until("the lease", LIMIT, async || {
        node.fail_point(point).await.unwrap().1 == 1
    })
    .await;
    // it goes, and the node has seen it when it has closed its own end
    client.shutdown().await.unwrap();
    let closed = tokio::time::timeout(LIMIT, client.read(&mut [0; 1])).await;
    assert_eq!(closed.unwrap().unwrap(), 0);
    node.arm("").await.unwrap();
    let leased = served.lease_until("/queues/q", "").await;
    assert_eq!(
        (leased[0].id.as_str(), leased[0].receive_count),
        (id.as_str(), 1)
    );
}

#[tokio::test]
async fn many_who_wait_get_one_each() {
    let served = Served::by(3).await;
    let wait = async |number: usize| {
        let path = "/?amount=1&wait_ms=20000&lease_ms=60000";
        leased(served.to(number % 3, Method::GET, path)).await
    };
    let push = async {
        for node in 0..3 {
            waiting(&served, node, 10.0).await;
        }
        served.push_numbers("", 100..130).await;
    };
    let all = futures::future::join_all((0..30).map(wait));
    let (got, ()) = tokio::join!(all, push);
    let mut got: Vec<String> = got.concat();
    got.sort();
    let pushed: Vec<String> = (100..130).map(|number: u32| number.to_string()).collect();
    assert_eq!(got, pushed);
}

#[tokio::test]
async fn who_waits_is_answered_when_the_node_stops() {
    let mut served = Served::by(1).await;
    let request = served.to(0, Method::GET, WAIT);
    let wait = tokio::task::LocalSet::new();
    let waiter = wait.spawn_local(leased(request));
    let began = Instant::now();
    let stop = async {
        waiting(&served, 0, 1.0).await;
        let node = &mut served.nodes[0];
        node.terminate(Duration::from_secs(8)).await.unwrap()
    };
    let status = wait.run_until(stop).await;
    assert!(status.success(), "{status}");
    assert_eq!(wait.run_until(waiter).await.unwrap(), Vec::<String>::new());
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}
