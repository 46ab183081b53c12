//! Taking notes: what is accepted, what is refused and how, and where a note is afterwards.

use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use testkit::wait_until;
use uuid::Uuid;

use crate::world::{LIMIT, World, said, started};

#[tokio::test]
async fn a_note_is_accepted_at_once_and_waits_until_a_worker_has_saved_it() {
    let world = World::new().await;
    let api = started(world.api("notes-1")).await;
    let url = api.url();
    let saved = world.post(&url, "k", "  hello\n").await.unwrap();
    assert_eq!(saved.status, StatusCode::ACCEPTED, "{saved:?}");
    let there = format!("/notes/{}", saved.id());
    assert_eq!(saved.header("location"), Some(there.as_str()));
    let fields: Vec<_> = saved.body.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["acceptedAt", "id", "number"]);
    let waits = world.get(&url, &there).await;
    assert_eq!(waits.status, StatusCode::OK);
    assert_eq!(waits.header("cache-control"), Some("no-store"));
    assert_eq!(waits.body["state"], "waiting");
    for field in ["id", "number", "acceptedAt"] {
        assert_eq!(waits.body[field], saved.body[field], "{field}");
    }
    assert_eq!(
        (&waits.body["content"], &waits.body["savedAt"]),
        (&json!("hello"), &Value::Null)
    );
    assert!(world.get(&url, "/").await.contents().is_empty());

    let _worker = started(world.worker("worker-1")).await;
    world.state(&url, saved.id(), "saved").await;
    let now = world.get(&url, &there).await;
    assert_eq!(now.body["savedBy"], "worker-1");
    wait_until("the list to have it", LIMIT, async || {
        world.get(&url, "/").await.contents() == ["hello"]
    })
    .await;
    world.saved_once(1).await;
}

#[tokio::test]
async fn what_is_sent_is_json_whatever_it_is_called() {
    let world = World::new().await;
    let api = started(world.api("notes-1")).await;
    let url = format!("{}/save", api.url());
    let types = [
        None,
        Some("application/json"),
        Some("application/x-www-form-urlencoded"),
        Some("text/plain; charset=latin1"),
        Some("nonsense"),
    ];
    for media in types {
        let mut request = world.client.post(&url).body(r#"{"content":"ä"}"#);
        if let Some(media) = media {
            request = request.header("content-type", media);
        }
        let said = said(request.send().await.unwrap()).await.unwrap();
        assert_eq!(said.status, StatusCode::ACCEPTED, "{media:?}: {said:?}");
    }
}

#[tokio::test]
async fn what_a_foreign_page_sends_is_refused() {
    let world = World::new().await;
    let api = started(world.api("notes-1")).await;
    let own = api.url();
    for path in ["/save", "/notes/save"] {
        let post = |headers: &[(&str, &str)]| {
            // As a page may send it without asking first.
            let request = world.client.post(format!("{own}{path}"));
            let request = request.header("content-type", "text/plain");
            let request = headers.iter().fold(request, |request, (name, value)| {
                request.header(*name, *value)
            });
            request.body(r#"{"content":"a"}"#).send()
        };
        for foreign in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let said = said(post(&[foreign]).await.unwrap()).await.unwrap();
            assert_eq!(said.status, StatusCode::FORBIDDEN, "{foreign:?}: {said:?}");
            assert_eq!(
                said.header("content-type"),
                Some("application/problem+json")
            );
        }
        assert_eq!(world.count("select count(*) from notes.message").await, 0);
    }
    for own in [None, Some(own.as_str())] {
        let request = world.client.post(format!("{}/save", api.url()));
        let request = own
            .into_iter()
            .fold(request, |request, own| request.header("origin", own));
        let request = request.body(r#"{"content":"a"}"#);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::ACCEPTED);
    }
}

#[tokio::test]
async fn what_is_no_note_is_refused_with_the_reason() {
    let world = World::new().await;
    let api = started(world.api("notes-1")).await;
    let url = format!("{}/save", api.url());
    let long = json!({"content": "ä".repeat(10_001)}).to_string();
    let wrong = [
        ("", 400, "The body is empty."),
        ("{", 400, "The body is not JSON"),
        ("content=something", 400, "The body is not JSON"),
        (r#"["something"]"#, 422, "not an object with `content`"),
        (r#"{"content":1}"#, 422, "expected a string"),
        (r#"{"message":"a"}"#, 422, "unknown field `message`"),
        (r#"{"content":"a","x":1}"#, 422, "unknown field `x`"),
        ("{}", 422, "missing field `content`"),
        (r#"{"content":" \n"}"#, 422, "The content is empty."),
        (r#"{"content":"a\u0000b"}"#, 422, "The content has a NUL"),
        (&long, 422, "The content has 10001 characters"),
    ];
    for (body, status, reason) in wrong {
        // Also for a browser: it is programs that come here.
        for accept in ["*/*", "text/html"] {
            let request = world.client.post(&url).body(body.to_owned());
            let request = request.header("accept", accept);
            let said = said(request.send().await.unwrap()).await.unwrap();
            assert_eq!(said.status, status, "{body}: {said:?}");
            assert_eq!(
                said.header("content-type"),
                Some("application/problem+json")
            );
            let detail = said.body["detail"].as_str().unwrap();
            assert!(detail.contains(reason), "{body}: {detail}");
        }
    }
    let longest = "ä".repeat(10_000);
    let fits = world.post(&api.url(), "k", &longest).await.unwrap();
    assert_eq!(fits.status, StatusCode::ACCEPTED);
    assert_eq!(world.count("select count(*) from notes.message").await, 1);
}

#[tokio::test]
async fn a_key_stands_for_one_note_at_every_node() {
    let world = World::new().await;
    let nodes = [
        started(world.api("notes-1")).await,
        started(world.api("notes-2")).await,
    ];
    let urls = nodes.each_ref().map(testkit::Process::url);
    let answers = join_all((0..20).map(|n| world.post(&urls[n % 2], "k", "once"))).await;
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    for answer in &answers {
        assert_eq!(
            (answer.status, &answer.body),
            (StatusCode::ACCEPTED, &answers[0].body)
        );
    }
    let other = world.post(&urls[0], "k", "twice").await.unwrap();
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(other.body["type"], "urn:unacked:problem:key_reused");
    let keyless = world.client.post(format!("{}/save", urls[0]));
    let keyless = keyless
        .header("Idempotency-Key", "")
        .body(r#"{"content":"a"}"#);
    assert_eq!(
        keyless.send().await.unwrap().status(),
        StatusCode::BAD_REQUEST
    );
    let _worker = started(world.worker("worker-1")).await;
    world.saved_once(1).await;
}

#[tokio::test]
async fn a_run_travels_along() {
    let world = World::new().await;
    let (api, _worker) = world.both().await;
    let request = world.client.post(format!("{}/save", api.url()));
    let request = request.header("X-Run", "run-1").body(r#"{"content":"a"}"#);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::ACCEPTED);
    world.saved_once(1).await;
    let of_run = "select count(*) from notes.message join notes.processed using (message_id, number, text, run) where run = 'run-1'";
    assert_eq!(world.count(of_run).await, 1);
}

#[tokio::test]
async fn no_more_than_the_limit_wait_and_then_it_is_said() {
    let world = World::new().await;
    let nobody = "amqp://a:b@127.0.0.1:1/%2f";
    let api = world
        .api("notes-1")
        .env("AMQP_URL", nobody)
        .env("OUTBOX_MAX", 5);
    let api = started(api).await;
    let url = api.url();
    let answers = join_all((0..20).map(|n| {
        let (world, url) = (&world, &url);
        async move { world.post(url, &format!("k{n}"), "a").await.unwrap() }
    }))
    .await;
    let (yes, no): (Vec<_>, Vec<_>) = answers
        .iter()
        .partition(|answer| answer.status == StatusCode::ACCEPTED);
    assert_eq!(yes.len(), 5);
    for answer in no {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.body["type"], "urn:unacked:problem:outbox_full");
    }
}

#[tokio::test]
async fn what_was_given_up_on_is_parked_and_said_to_be() {
    let world = World::new().await;
    let api = started(world.api("notes-1")).await;
    let url = api.url();
    // Stops at the only delivery in hand; the others go to whoever comes next.
    let worker = world.worker("worker-1").env("PREFETCH", 1);
    let worker = worker.env("FAIL_POINTS", "consumer.on_delivery=crash@1");
    let mut worker = worker.env("MAX_DELIVERIES", 1).start().await;
    let id = world.offer(&url, "poison").await;
    worker.wait(LIMIT).await.unwrap();
    worker.set_env("FAIL_POINTS", "");
    worker.start_again().await;
    world.state(&url, id, "parked").await;
    let parked = "select count(*) from notes.dead_letter where state = 'parked'";
    assert_eq!(world.count(parked).await, 1);
    let listed = world.database.dead_letters_of("notes").await;
    assert!(
        listed.contains(&id.to_string()) && listed.lines().count() == 1,
        "{listed}"
    );
    assert_eq!(world.count("select count(*) from notes.processed").await, 0);
}

#[tokio::test]
async fn a_note_that_nobody_wrote_is_not_found() {
    let world = World::new().await;
    let api = started(world.api("notes-1")).await;
    for (id, status) in [(Uuid::now_v7().to_string(), 404), ("1".to_owned(), 400)] {
        let said = world.get(&api.url(), &format!("/notes/{id}")).await;
        assert_eq!(said.status, status, "{said:?}");
        assert_eq!(
            said.header("content-type"),
            Some("application/problem+json")
        );
    }
}

#[tokio::test]
async fn without_its_database_a_node_says_so_and_is_not_ready() {
    let world = World::new().await;
    let nowhere = "postgres://a:b@127.0.0.1:1/unacked";
    let api = world
        .api("notes-1")
        .env("DATABASE_URL", nowhere)
        .start()
        .await;
    let said = world.post(&api.url(), "k", "a").await.unwrap();
    assert_eq!(said.status, StatusCode::SERVICE_UNAVAILABLE, "{said:?}");
    assert_eq!(said.body["type"], "urn:unacked:problem:database_away");
    assert_eq!(
        world.get(&api.url(), "/").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert!(!api.ready().await.unwrap().0);
}

#[tokio::test]
async fn an_api_is_ready_without_the_broker_and_a_worker_is_not() {
    let world = World::new().await;
    let nobody = "amqp://a:b@127.0.0.1:1/%2f";
    let api = started(world.api("notes-1").env("AMQP_URL", nobody)).await;
    assert_eq!(
        world.post(&api.url(), "k", "a").await.unwrap().status,
        StatusCode::ACCEPTED
    );
    let worker = world
        .worker("worker-1")
        .env("AMQP_URL", nobody)
        .start()
        .await;
    wait_until("the worker to say what it lacks", LIMIT, async || {
        let (ready, said) = worker.ready().await.map_err(|error| error.to_string())?;
        let parts = &said["parts"];
        let right = (&parts["rabbitmq"]["state"], &parts["postgres"]["state"])
            == (&json!("away"), &json!("up"));
        if !ready && right {
            Ok(())
        } else {
            Err(said.to_string())
        }
    })
    .await;
}
