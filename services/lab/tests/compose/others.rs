//! The services that run only with their profile: notes, leases and sign-up, behind the gateway and on their own ports.

use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use crate::stack::{self, Stack};
use crate::traffic::assert_answer;

const PORTS: [(&str, &str); 3] = [
    ("notes", "NOTES_PORT"),
    ("leases", "LEASES_PORT"),
    ("signup", "SIGNUP_PORT"),
];
const LIMIT: Duration = Duration::from_mins(1);

/// Without their profile: the gateway says what to do.
pub(crate) async fn are_said_to_be_absent(stack: &Stack) {
    for (name, port) in PORTS {
        let how = format!("`--profile {name}`");
        for url in [stack.url(&format!("/{name}")), stack.url_at(port, "/")] {
            let answer = Client::new().get(url).send().await.expect("a problem");
            assert_answer(answer, 502, "application/problem+json", &how).await;
        }
    }
}

async fn json(request: RequestBuilder, status: u16) -> Value {
    let answer = request.send().await.expect("an answer");
    let found = answer.status();
    let text = answer.text().await.expect("its text");
    assert_eq!(found, status, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> Result<(), Value>) {
    let asked = Instant::now();
    while let Err(found) = done().await {
        assert!(asked.elapsed() < LIMIT, "{what}: {found}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn with_their_profile_they_run_and_scale() {
    let stack = Stack::up(&[("COMPOSE_PROFILES", "all"), ("WORK_DELAY_MAX_MS", "100")]).await;
    let started = Instant::now();
    let scaled = ["sender=1", "receiver=1", "notes=2", "notes-worker=3"];
    let scaled = scaled.map(|scale| format!("--scale={scale}"));
    let up = ["up", "--detach", "--wait", "--no-build", "--no-recreate"];
    let scaled = scaled.iter().map(String::as_str);
    stack.compose(&up.into_iter().chain(scaled).collect::<Vec<_>>());
    println!("scaled in {:.1?}", started.elapsed());
    assert_eq!(stack.containers("notes").len(), 2);
    assert_eq!(stack.containers("notes-worker").len(), 3);
    for container in stack.containers("notes-worker") {
        let environment = ["exec", &container, "cat", "/proc/1/environ"];
        let environment = stack::docker(&environment);
        let name = format!("NODE_NAME=notes-worker-{}\0", &container[..6]);
        assert!(environment.contains(&name), "{environment}");
    }
    for [notes, leases, signup] in [
        PORTS.map(|(_, port)| stack.url_at(port, "")),
        PORTS.map(|(name, _)| stack.url(&format!("/{name}"))),
    ] {
        save_and_get(&notes).await;
        push_lease_confirm(&leases).await;
        welcome(&stack, &signup).await;
    }
    // who saved, and who worked
    let apis = stack.column("select distinct node from notes.message");
    assert!(
        apis.iter().all(|node| node.starts_with("notes-")),
        "{apis:?}"
    );
    let workers = stack.column("select distinct node from notes.processed");
    assert!(
        workers.iter().all(|node| node.starts_with("notes-worker-")),
        "{workers:?}"
    );
}

async fn save_and_get(address: &str) {
    let content = format!("something at {address}");
    let save = Client::new().post(format!("{address}/save"));
    json(save.body(json!({"content": content}).to_string()), 202).await;
    until("the note to be saved", async || {
        let list = json(Client::new().get(format!("{address}/")), 200).await;
        let notes = list["notes"].as_array().expect("notes");
        let there = notes.iter().any(|note| note["content"] == *content);
        if there { Ok(()) } else { Err(list) }
    })
    .await;
}

async fn push_lease_confirm(address: &str) {
    let client = Client::new();
    let pushed = json(client.post(address).body(r#"{"value": 12}"#), 201).await;
    let leased = json(client.get(format!("{address}?lease_ms=20000")), 200).await;
    let message = &leased["messages"][0];
    assert_eq!(message["id"], pushed["messageID"], "{leased}");
    assert_eq!(message["body"], json!({"value": 12}), "{leased}");
    let id = message["id"].as_str().expect("an id");
    let confirm = client.patch(format!("{address}/{id}")).send().await;
    assert_eq!(confirm.expect("an answer").status(), 204);
}

async fn welcome(stack: &Stack, address: &str) {
    let email = format!("ada.{}@example.test", uuid::Uuid::new_v4().simple());
    let user = json!({"firstName": "Ada", "lastName": "Lovelace", "email": email, "password": "a long enough one 7"});
    let create = Client::new().post(format!("{address}/createUser"));
    json(create.json(&user), 201).await;
    let mails = stack.url_at("MAILS_PORT", "/api/v1/messages");
    until("the mail to come", async || {
        let mails = json(Client::new().get(&mails), 200).await;
        let there = mails["messages"]
            .as_array()
            .expect("mails")
            .iter()
            .any(|mail| mail["To"][0]["Address"] == *email);
        if there { Ok(()) } else { Err(mails) }
    })
    .await;
}
