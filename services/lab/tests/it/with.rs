//! What `lab up --with` runs beside senders and receivers: each service behind the gateway under its name and at the root of a
//! port of its own, with nodes that are kept, scaled and told like all others.

use std::{collections::BTreeMap, process::Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testkit::wait_until;
use tokio::process::Command;

use crate::{
    load::client,
    up::{LIMIT, Stack, folder, free_port, said, signal},
    world::lab,
};

/// A command line as one pastes it, with another address in it; what it wrote.
async fn paste(line: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{line} -sS")]);
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    assert!(output.status.success(), "{line}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

/// How many nodes of each service are ready.
fn ready(status: &Value) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for node in status["nodes"].as_array().unwrap() {
        if node["state"] == "ready" {
            let service = node["service"].as_str().unwrap().to_owned();
            *counts.entry(service).or_default() += 1;
        }
    }
    counts
}

fn counts(of: &[(&str, usize)]) -> BTreeMap<String, usize> {
    of.iter()
        .map(|(service, count)| ((*service).to_owned(), *count))
        .collect()
}

const ALL: [(&str, usize); 7] = [
    ("leases", 2),
    ("notes", 2),
    ("notes-worker", 2),
    ("receiver", 1),
    ("sender", 1),
    ("signup", 1),
    ("signup-welcome", 1),
];

#[tokio::test]
async fn all_services_run_side_by_side_and_are_kept_and_scaled() {
    let ports = [free_port(), free_port(), free_port()];
    let flags = ["notes", "leases", "signup"].iter().zip(ports);
    let flags: Vec<String> = flags
        .map(|(name, port)| format!("--{name}-port={port}"))
        .collect();
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.extend(["--with=all", "--no-console"]);
    let mut stack = Stack::up_with(1, 1, &flags, &[("WORK_DELAY_MAX_MS", "0")]).await;
    let own = ports.map(|port| format!("http://127.0.0.1:{port}"));
    for address in own.iter().chain([&stack.gateway]) {
        stack.says(address).await;
    }
    let status = stack.status().await.unwrap();
    assert_eq!(ready(&status), counts(&ALL), "{status}");
    assert_eq!(status["catcher"]["state"], "ready", "{status}");
    let told = json!({"notes": own[0], "leases": own[1], "signup": own[2]});
    assert_eq!(status["own"], told);
    for node in status["nodes"].as_array().unwrap() {
        let (name, service) = (&node["name"], node["service"].as_str().unwrap());
        let of = name.as_str().unwrap().rsplit_once('-').unwrap().0;
        assert_eq!(of, service);
    }

    for address in [&own[0], &format!("{}/notes", stack.gateway)] {
        notes(address).await;
    }
    for address in [&own[1], &format!("{}/leases", stack.gateway)] {
        leases(address).await;
    }
    for address in [&own[2], &format!("{}/signup", stack.gateway)] {
        signup(&stack, address).await;
    }
    comes_back(&stack).await;
    scales(&stack).await;
    assert!(stack.lab(&["down"]).await.status.success());
    wait_until("`lab up` to end", LIMIT, async || {
        stack.up.try_wait().unwrap().is_some()
    })
    .await;
    // the mails outlive it
    let mails = stack.lab(&["mails", "--json"]).await;
    assert_eq!(read(&said(&mails)).as_array().unwrap().len(), 2);
    stack.reset().await;
}

/// Save and get, as the document of notes has them.
async fn notes(address: &str) {
    let content = format!("something at {address}");
    let line = format!(r#"curl -X POST {address}/save -d '{{"content":"{content}"}}'"#);
    let saved = read(&paste(&line).await);
    assert!(saved["id"].is_string(), "{saved}");
    wait_until("the note to be there", LIMIT, async || {
        let list = read(&paste(&format!("curl -X GET {address}/")).await);
        let notes = list["notes"].as_array().unwrap();
        if notes.iter().any(|note| note["content"] == *content) {
            Ok(())
        } else {
            Err(list)
        }
    })
    .await;
}

/// Push, lease and confirm, as the document of the lease queue has them.
async fn leases(address: &str) {
    let push = format!(
        r#"curl -X POST --header "Content-Type: application/json" --data '{{"value": 12}}' {address}"#
    );
    let pushed = read(&paste(&push).await);
    let leased = read(&paste(&format!("curl -X GET {address}")).await);
    let messages = leased["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 1, "{leased}");
    assert_eq!(messages[0]["id"], pushed["messageID"], "{leased}");
    assert_eq!(messages[0]["body"], json!({"value": 12}), "{leased}");
    let more = read(&paste(&format!("curl -X GET \"{address}/?amount=100\"")).await);
    assert_eq!(more["messages"], json!([]), "the other one has it");
    let id = pushed["messageID"].as_str().unwrap();
    let confirm = format!("curl -X PATCH {address}/{id} -w '%{{http_code}}'");
    assert_eq!(paste(&confirm).await, "204");
    assert_eq!(&paste(&format!("{confirm} -o /dev/null")).await, "404");
}

/// An account, and its mail among those that were caught.
async fn signup(stack: &Stack, address: &str) {
    let page = client().get(format!("{address}/createUser"));
    let page = page.header("Accept", "text/html").send().await.unwrap();
    assert_eq!(page.status(), 200);
    let email = format!("ada.{}@example.test", uuid::Uuid::new_v4().simple());
    let user = json!({"firstName": "Ada", "lastName": "Lovelace", "email": email, "password": "a long enough one 7"});
    let url = format!("{address}/createUser");
    let created = client().post(url).json(&user).send().await.unwrap();
    let status = created.status();
    assert_eq!(status, 201, "{}", created.text().await.unwrap());
    wait_until("the mail to be caught", LIMIT, async || {
        let mails = read(&said(&stack.lab(&["mails", "--json"]).await));
        let newest = mails[0].clone();
        if newest["to"] == json!([email]) && newest["copies"] == 1 {
            Ok(())
        } else {
            Err(mails)
        }
    })
    .await;
    let table = said(&stack.lab(&["mails"]).await);
    assert!(table.lines().next().unwrap().contains(&email), "{table}");
}

/// A node of each, and the catcher.
async fn comes_back(stack: &Stack) {
    let before = stack.status().await.unwrap();
    let nodes = before["nodes"].as_array().unwrap();
    let mut killed = Vec::new();
    for (service, _) in ALL {
        let node = nodes.iter().find(|node| node["service"] == service);
        let node = node.unwrap();
        signal(&node["pid"], Signal::SIGKILL);
        killed.push(node["name"].clone());
    }
    signal(&before["catcher"]["pid"], Signal::SIGKILL);
    wait_until("all to be back", LIMIT, async || {
        let now = stack.status().await?;
        let nodes = now["nodes"].as_array().unwrap();
        let again = nodes
            .iter()
            .filter(|node| node["restarts"] == 1 && killed.contains(&node["name"]));
        let all = again.count() == killed.len() && ready(&now) == counts(&ALL);
        let catcher = &now["catcher"];
        if all && catcher["state"] == "ready" && catcher["restarts"] == 1 {
            Ok(())
        } else {
            Err(now.to_string())
        }
    })
    .await;
}

/// 2 to 3 to 1 workers, while the others stay as they are.
async fn scales(stack: &Stack) {
    for workers in [3, 1] {
        let wanted = format!("notes-worker={workers}");
        let scaled = stack.lab(&["scale", &wanted]).await;
        assert!(scaled.status.success(), "{}", said(&scaled));
        let mut all = counts(&ALL);
        all.insert("notes-worker".to_owned(), workers);
        let status = stack.status().await.unwrap();
        assert_eq!(ready(&status), all, "{status}");
    }
    let wrong = stack.lab(&["scale", "note=1"]).await;
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        said(&wrong).contains("notes, notes-worker"),
        "{}",
        said(&wrong)
    );
}

#[tokio::test]
async fn what_is_not_there_or_taken_is_refused_before_anything_starts() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = format!("--leases-port={}", taken.local_addr().unwrap().port());
    let main = format!("--port={}", free_port());
    for (flags, code, words) in [
        (vec!["--with=notes,queues"], 2, "notes, leases, signup, all"),
        (
            vec!["--with=leases", busy.as_str()],
            1,
            "choose another with --leases-port",
        ),
    ] {
        let folder = folder();
        let mut command = Command::new(lab());
        command.arg("--lab-dir").arg(&folder).arg("up").args(flags);
        command.arg(&main);
        let output = command.stdin(Stdio::null()).output().await.unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(words), "{said}");
        assert!(!folder.join("postgres").exists(), "something began");
        let _ = std::fs::remove_dir_all(folder);
    }
    for (name, value, with) in [
        ("NOTES_CACHE", "never", "notes"),
        ("SMTP_URL", "nowhere", "signup"),
    ] {
        let folder = folder();
        let mut command = Command::new(lab());
        command
            .arg("--lab-dir")
            .arg(&folder)
            .args(["up", "--with", with]);
        command.env(name, value).stdin(Stdio::null());
        let output = command.output().await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        let start = format!("wrong setting {name}");
        assert!(said(&output).starts_with(&start), "{}", said(&output));
        assert!(!folder.exists(), "{name}: something began");
    }
}
