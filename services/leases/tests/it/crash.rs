//! A node dies at each crash window, under load, and another one goes on: nothing is lost, nothing is confirmed twice, and no
//! message is leased to two at one time.

use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
    time::{Duration, Instant},
};

use futures::future::join_all;
use reqwest::{Method, StatusCode};
use testkit::wait_until;

use crate::served::{LIMIT, Leased, Served, answer, messages};

const LEASE: Duration = Duration::from_secs(2);
const CLIENTS: usize = 12;
const EACH: usize = 60;

/// When it was asked for, when it was answered, and the how manieth of its message it was.
type Lease = (Instant, Instant, i32);

/// What the clients saw.
#[derive(Default)]
struct Book {
    pushed: Mutex<HashSet<String>>,
    /// For each message, when each of its leases was asked for and answered.
    leased: Mutex<HashMap<String, Vec<Lease>>>,
    confirmed: Mutex<Vec<String>>,
    /// The last lease of which the answer to the confirm was lost.
    unknown: Mutex<HashMap<String, i32>>,
}

async fn pushes(served: &Served, book: &Book, client: usize) {
    for number in 0..EACH {
        let key = format!("{client}-{number}");
        // lost or not, it is said again until it is answered
        let id = wait_until("a push to be answered", LIMIT, async || {
            let request = served.request(Method::POST, "/").body(number.to_string());
            let sent = request.header("Idempotency-Key", &key).send().await;
            let answer = sent.map_err(|error| error.to_string())?;
            let (status, text) = (answer.status(), answer.text().await.unwrap_or_default());
            if status == StatusCode::CREATED {
                Ok(text)
            } else {
                Err(text)
            }
        })
        .await;
        assert!(book.pushed.lock().unwrap().insert(id), "an id for two");
    }
}

/// Leases some and confirms them; false when there was nothing.
async fn work(served: &Served, book: &Book) -> bool {
    let asked = Instant::now();
    let path = format!("/?amount=5&lease_ms={}", LEASE.as_millis());
    let Ok(got) = served.request(Method::GET, &path).send().await else {
        return true;
    };
    if got.status() != StatusCode::OK {
        return true;
    }
    let Ok(text) = got.text().await else {
        return true;
    };
    let answered = Instant::now();
    let leased = messages(&crate::served::Answer {
        status: StatusCode::OK,
        media: String::new(),
        text,
    });
    for Leased {
        id, receive_count, ..
    } in &leased
    {
        let mut all = book.leased.lock().unwrap();
        let leases = all.entry(id.clone()).or_default();
        leases.push((asked, answered, *receive_count));
    }
    for Leased {
        id,
        token,
        receive_count,
        ..
    } in &leased
    {
        let request = served.request(Method::PATCH, &format!("/{id}?token={token}"));
        match request.send().await.map(|answer| answer.status()) {
            Ok(StatusCode::NO_CONTENT) => book.confirmed.lock().unwrap().push(id.clone()),
            Ok(StatusCode::NOT_FOUND) => {}
            Ok(StatusCode::SERVICE_UNAVAILABLE) | Err(_) => {
                let mut unknown = book.unknown.lock().unwrap();
                let last = unknown.entry(id.clone()).or_default();
                *last = (*last).max(*receive_count);
            }
            Ok(other) => panic!("{other}"),
        }
    }
    !leased.is_empty()
}

async fn dies_at(point: &str) {
    let mut served = Served::by(2).await;
    served.nodes[0]
        .arm(&format!("{point}=crash@15"))
        .await
        .unwrap();
    let book = Book::default();
    let pushing = join_all((0..CLIENTS).map(|client| pushes(&served, &book, client)));
    let all = CLIENTS * EACH;
    let left = "select count(*) from leases.message";
    let working = join_all((0..CLIENTS).map(|_| async {
        while work(&served, &book).await
            || book.pushed.lock().unwrap().len() < all
            || served.count(left).await > 0
        {}
    }));
    tokio::join!(pushing, working);
    let died = served.nodes[0].wait(LIMIT).await.unwrap();
    assert!(!died.success(), "{point}: {died}");

    let pushed: HashSet<String> = {
        let answers = book.pushed.lock().unwrap();
        let id = |text: &String| -> String {
            let answer: serde_json::Value = serde_json::from_str(text).unwrap();
            answer["messageID"].as_str().unwrap().to_owned()
        };
        answers.iter().map(id).collect()
    };
    assert_eq!(pushed.len(), all);
    let confirmed = book.confirmed.into_inner().unwrap();
    let once: HashSet<String> = confirmed.iter().cloned().collect();
    assert_eq!(once.len(), confirmed.len(), "{point}: confirmed twice");
    let unknown = book.unknown.into_inner().unwrap();
    let leased = book.leased.into_inner().unwrap();
    // one that was leased again was not confirmed then: only the last confirm may be the one that nobody heard of
    let excused = |id: &String| {
        let leases = leased.get(id).into_iter().flatten();
        let last = leases.map(|(_, _, count)| *count).max();
        last.is_some() && unknown.get(id).copied() == last
    };
    let lost: Vec<_> = pushed
        .iter()
        .filter(|id| !once.contains(*id) && !excused(id))
        .collect();
    assert!(lost.is_empty(), "{point}: lost {lost:?}");
    assert!(once.is_subset(&pushed), "{point}: nobody pushed these");
    for (id, mut leases) in leased {
        leases.sort_by_key(|(_, _, count)| *count);
        for pair in leases.windows(2) {
            let ((asked, _, one), (_, answered, other)) = (pair[0], pair[1]);
            assert_ne!(one, other, "{point}: {id} was leased to two");
            let apart = answered.saturating_duration_since(asked);
            assert!(apart >= LEASE, "{point}: {id} was leased to two, {apart:?}");
        }
    }
    let node = &mut served.nodes[0];
    node.start_again().await;
    crate::served::ready(node).await;
    assert!(
        answer(served.to(0, Method::GET, "/"))
            .await
            .text
            .contains("[]")
    );
}

#[tokio::test]
async fn a_node_that_dies_before_a_push_is_committed() {
    dies_at("leases.push.before_commit").await;
}

#[tokio::test]
async fn a_node_that_dies_after_a_push_is_committed() {
    dies_at("leases.push.after_commit").await;
}

#[tokio::test]
async fn a_node_that_dies_before_a_lease_is_committed() {
    dies_at("leases.lease.before_commit").await;
}

#[tokio::test]
async fn a_node_that_dies_after_a_lease_is_committed() {
    dies_at("leases.lease.after_commit").await;
}

#[tokio::test]
async fn a_node_that_dies_before_a_confirm_is_committed() {
    dies_at("leases.confirm.before_commit").await;
}

#[tokio::test]
async fn a_node_that_dies_after_a_confirm_is_committed() {
    dies_at("leases.confirm.after_commit").await;
}
