//! The containers do what the native stack does: `docker/docker-compose.yml` itself, built, scaled and asked from outside.
//!
//! Needs Docker with Compose; run by `cargo lab test`, or by hand with `cargo test -p lab --test compose -- --nocapture`.
//! Each test brings up a stack of its own and takes it down again with its volumes, also when it fails.

#![expect(clippy::print_stdout, reason = "times and figures, for `--nocapture`")]

mod lab;
mod others;
mod stack;
mod traffic;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use stack::Stack;
use traffic::Traffic;

/// What must hold 2, in containers, with the default settings; and what only containers promise.
#[tokio::test]
async fn sixty_messages_are_shared_by_all_nodes_and_each_is_processed_once() {
    let stack = Stack::up(&[]).await;

    nothing_but_the_gateway_and_the_brokers_page_is_published(&stack);
    services_run_as_an_ordinary_user(&stack);
    a_role_reaches_its_own_schema_only(&stack);
    the_gateway_refuses_in_our_words(&stack).await;
    others::are_said_to_be_absent(&stack).await;

    let client = reqwest::Client::new();
    for number in 0..60 {
        let answer = client
            .post(stack.url("/api/messages"))
            .header("idempotency-key", format!("sixty-{number}"))
            .header("x-run", "sixty")
            .json(&serde_json::json!({ "message": format!("message {number}") }))
            .send()
            .await
            .expect("the gateway answers");
        assert_eq!(answer.status(), 202, "{:?}", answer.text().await);
    }
    stack.processed("sixty", 60, Duration::from_mins(2)).await;

    let senders = stack.column("select distinct node from sender.message where run = 'sixty'");
    assert_eq!(senders.len(), 2, "both senders took some: {senders:?}");
    let receivers =
        stack.column("select distinct node from receiver.processed where run = 'sixty'");
    assert_eq!(
        receivers.len(),
        3,
        "all three receivers processed some: {receivers:?}"
    );
    // 60 deliveries that all go well happen once in 650,000 runs
    let failed = stack.column("select distinct message_id::text from receiver.failure");
    assert!(!failed.is_empty(), "some deliveries fail");
    let settled_at_once = stack.column(
        "select message_id::text from receiver.processed join receiver.failure using (message_id)
         where processed.attempt = 1 or not redelivered",
    );
    assert_eq!(
        settled_at_once, [""; 0],
        "what failed was delivered again before it was processed"
    );

    for page in ["/", "/received"] {
        let answer = client.get(stack.url(page)).send().await.expect("a page");
        assert_eq!(answer.status(), 200, "{page}");
    }
    the_gateway_says_that_no_node_answers(&stack).await;
}

/// What must hold 7: no request of a client fails because a node left or came, and no message is lost or doubled.
#[tokio::test]
async fn scaling_down_and_up_under_traffic_loses_no_request_and_doubles_no_message() {
    let stack = Stack::up(&[("WORK_DELAY_MAX_MS", "200")]).await;

    let traffic = Traffic::start(stack.url(""), "scaling", 50);
    tokio::time::sleep(Duration::from_secs(3)).await;
    for (sender, receiver) in [(1, 1), (4, 4)] {
        stack.scale(sender, receiver).await;
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    let report = traffic.stop().await;
    println!("{report}");

    assert_eq!(report.failed, [""; 0], "no request of a client failed");
    let accepted = report.accepted.len();
    stack
        .processed("scaling", accepted, Duration::from_mins(2))
        .await;
    let stored: BTreeSet<String> = stack
        .column("select text from sender.message where run = 'scaling'")
        .into_iter()
        .collect();
    assert_eq!(
        stored, report.accepted,
        "what clients were told is what is stored"
    );

    // 2 at first, one of which stayed, and 3 new ones; 3 at first, and 3 new ones
    let senders = stack.column("select distinct node from sender.message where run = 'scaling'");
    assert_eq!(senders.len(), 5, "every sender took some: {senders:?}");
    let receivers =
        stack.column("select distinct node from receiver.processed where run = 'scaling'");
    assert_eq!(
        receivers.len(),
        6,
        "every receiver processed some: {receivers:?}"
    );
}

fn nothing_but_the_gateway_and_the_brokers_page_is_published(stack: &Stack) {
    let mut published = BTreeSet::new();
    for container in stack.containers("") {
        let ports = stack::docker(&[
            "inspect",
            "-f",
            "{{json .NetworkSettings.Ports}}",
            &container,
        ]);
        let ports: Value = serde_json::from_str(&ports).expect("docker's JSON");
        for binding in ports.as_object().into_iter().flatten().flat_map(|(_, b)| {
            let bindings: &[Value] = b.as_array().map_or(&[], Vec::as_slice);
            bindings
        }) {
            published.insert(format!("{}:{}", binding["HostIp"], binding["HostPort"]));
        }
    }
    // the mails' port is published with them
    let (_mails, ports) = stack.ports.split_last().expect("ports");
    let wanted = ports.iter().map(|port| format!("\"127.0.0.1\":\"{port}\""));
    assert_eq!(published, wanted.collect());
}

fn services_run_as_an_ordinary_user(stack: &Stack) {
    for service in ["sender", "receiver"] {
        for container in stack.containers(service) {
            let user = stack::docker(&["exec", &container, "id", "-u"]);
            assert_eq!(user, "10001", "{service}");
        }
    }
}

fn a_role_reaches_its_own_schema_only(stack: &Stack) {
    let ask = |role: &str, table: &str| {
        let password = role.to_uppercase();
        stack.try_compose(&[
            "exec",
            "-T",
            "postgres",
            "sh",
            "-c",
            &format!(
                "PGPASSWORD=${password}_PASSWORD \
                 psql -h 127.0.0.1 -U {role} -d unacked -Atc 'select count(*) from {table}'"
            ),
        ])
    };
    for (role, own, other) in [
        ("sender", "sender.message", "receiver.processed"),
        ("receiver", "receiver.processed", "sender.message"),
    ] {
        assert_eq!(ask(role, own), Ok("0".into()), "{role} reads its own table");
        let refused = ask(role, other).expect_err("the other's table is out of reach");
        assert!(
            refused.contains("permission denied for schema"),
            "{refused}"
        );
        assert_eq!(ask("auditor", own), Ok("0".into()), "the auditor reads all");
    }
}

async fn the_gateway_refuses_in_our_words(stack: &Stack) {
    let client = reqwest::Client::new();
    let large = "x".repeat(1024 * 1024 + 1);
    for (path, kind) in [
        ("/", "text/html"),
        ("/api/messages", "application/problem+json"),
    ] {
        let answer = client
            .post(stack.url(path))
            .body(large.clone())
            .send()
            .await
            .expect("an answer, not a cut connection");
        traffic::assert_answer(answer, 413, kind, "1 MiB").await;
    }
    // nobody waits for the console: it may still be starting
    let lab = loop {
        let lab = client.get(stack.url("/lab")).send().await.expect("a page");
        if lab.status() != 502 {
            break lab;
        }
    };
    traffic::assert_answer(lab, 200, "text/html", "Balance of runs").await;
}

async fn the_gateway_says_that_no_node_answers(stack: &Stack) {
    stack.compose(&["stop", "sender"]);
    let client = reqwest::Client::new();
    // for a second the gateway still knows where they were, and finds nobody there: that is a 504
    let page = loop {
        let page = client.get(stack.url("/")).send().await.expect("a page");
        if page.status() != 504 {
            break page;
        }
    };
    traffic::assert_answer(page, 502, "text/html", "No node answers").await;
    let problem = client
        .post(stack.url("/api/messages"))
        .json(&serde_json::json!({ "message": "to nobody" }))
        .send()
        .await
        .expect("a problem");
    let kind = "application/problem+json";
    traffic::assert_answer(problem, 502, kind, "Nothing was accepted").await;
}
