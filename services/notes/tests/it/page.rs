//! The list and the page: order, cursor, both places, and the form.

use reqwest::{StatusCode, header::ACCEPT};
use serde_json::Value;
use testkit::{Process, wait_until};
use uuid::Uuid;

use crate::world::{LIMIT, Said, World, said, started};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

/// Saves so many notes, one after the other.
async fn saved(world: &World, api: &Process, count: usize) {
    let url = api.url();
    for n in 1..=count {
        let id = world.offer(&url, &format!("note {n}")).await;
        world.state(&url, id, "saved").await;
    }
}

async fn page(world: &World, url: &str) -> Said {
    let asked = world.client.get(url).header(ACCEPT, BROWSER);
    said(asked.send().await.unwrap()).await.unwrap()
}

fn text(said: &Said) -> &str {
    said.body.as_str().unwrap()
}

#[tokio::test]
async fn a_list_is_walked_from_the_newest_to_the_oldest() {
    let world = World::new().await;
    let (api, _worker) = world.both().await;
    saved(&world, &api, 7).await;
    let url = api.url();
    wait_until("the list to have them all", LIMIT, async || {
        world.get(&url, "/").await.contents().len() == 7
    })
    .await;
    let (mut path, mut seen) = ("/?limit=3".to_owned(), Vec::new());
    loop {
        let list = world.get(&url, &path).await;
        seen.push(list.contents());
        match &list.body["next"] {
            Value::Null => break,
            next => path = format!("/?limit=3&before={next}"),
        }
    }
    let note = |n: u32| format!("note {n}");
    assert_eq!(
        seen,
        [
            vec![note(7), note(6), note(5)],
            vec![note(4), note(3), note(2)],
            vec![note(1)]
        ]
    );
    for wrong in [
        "limit=0",
        "limit=101",
        "before=x",
        "befor=1",
        "limit=1&limit=2",
    ] {
        let said = world.get(&url, &format!("/?{wrong}")).await;
        assert_eq!(said.status, StatusCode::BAD_REQUEST, "{wrong}");
        assert_eq!(
            said.header("content-type"),
            Some("application/problem+json")
        );
    }
}

#[tokio::test]
async fn the_same_is_at_the_root_and_under_the_name() {
    let world = World::new().await;
    let (api, _worker) = world.both().await;
    saved(&world, &api, 1).await;
    let url = api.url();
    for path in ["/", "/notes", "/notes/"] {
        wait_until("the list to have it", LIMIT, async || {
            world.get(&url, path).await.contents() == ["note 1"]
        })
        .await;
        let head = world
            .client
            .head(format!("{url}{path}"))
            .send()
            .await
            .unwrap();
        assert_eq!(head.status(), StatusCode::OK);
    }
    let request = world.client.post(format!("{url}/notes/save"));
    let request = request.body(r#"{"content":"under the name"}"#);
    let said = said(request.send().await.unwrap()).await.unwrap();
    assert_eq!(said.status, StatusCode::ACCEPTED, "{said:?}");
    let there = said.header("location").unwrap().to_owned();
    assert_eq!(
        world.get(&url, &there).await.body["content"],
        "under the name"
    );
}

#[tokio::test]
async fn a_browser_gets_a_page_with_a_form_and_what_others_wrote_is_text() {
    let world = World::new().await;
    let (api, _worker) = world.both().await;
    let url = api.url();
    let id = world.offer(&url, "<script>alert(1)</script>").await;
    world.state(&url, id, "saved").await;
    for (path, form) in [("/", r#"action="/""#), ("/notes", r#"action="/notes""#)] {
        let drawn = wait_until("the page to have it", LIMIT, async || {
            let drawn = page(&world, &format!("{url}{path}")).await;
            text(&drawn).contains("alert(1)").then_some(drawn)
        })
        .await;
        assert_eq!(drawn.status, StatusCode::OK);
        assert!(drawn.header("x-cache").is_some());
        let html = text(&drawn);
        assert!(
            html.contains(form) && html.contains("name=\"content\""),
            "{html}"
        );
        assert!(!html.contains("<script>alert"), "{html}");
        assert!(html.contains(&format!("data-message=\"{id}\"")), "{html}");
    }
}

#[tokio::test]
async fn a_form_that_is_sent_twice_is_one_note() {
    let world = World::new().await;
    let (api, _worker) = world.both().await;
    let url = api.url();
    let key = Uuid::new_v4();
    for _ in 0..2 {
        let form = [("content", "one\r\ntwo"), ("key", &key.to_string())];
        let request = world.client.post(format!("{url}/notes")).form(&form);
        let request = request.header(ACCEPT, BROWSER).header("origin", &url);
        let sent = request.send().await.unwrap();
        assert_eq!(sent.status(), StatusCode::SEE_OTHER);
        let there = sent.headers()["location"].to_str().unwrap().to_owned();
        assert!(there.starts_with("/notes?accepted="), "{there}");
        let shown = page(&world, &format!("{url}{there}")).await;
        assert!(text(&shown).contains("Accepted as #"), "{shown:?}");
    }
    world.saved_once(1).await;
    let lines = "select count(*) from notes.processed where text = E'one\\ntwo'";
    assert_eq!(world.count(lines).await, 1);
}

#[tokio::test]
async fn a_form_that_is_refused_keeps_what_was_typed() {
    let world = World::new().await;
    let api = started(world.api("notes-1")).await;
    let url = api.url();
    let long = "x".repeat(10_001);
    let request = world.client.post(&url).form(&[("content", long.as_str())]);
    let request = request.header(ACCEPT, BROWSER);
    let refused = said(request.send().await.unwrap()).await.unwrap();
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let html = text(&refused);
    assert!(html.contains("10001 characters") && html.contains(&long));
    let foreign = world.client.post(&url).form(&[("content", "a")]);
    let foreign = foreign
        .header("origin", "http://evil.example")
        .send()
        .await
        .unwrap();
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
    assert_eq!(world.count("select count(*) from notes.message").await, 0);
}
