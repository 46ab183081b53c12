//! The database is away, or hangs: it is said at once, and it is back by itself.

use reqwest::Method;
use testkit::{Database, Direction, Proxy, Servers, wait_until};

use crate::served::{Answer, LIMIT, answer, client, node, ready};

#[tokio::test]
async fn a_database_that_is_away_is_503_and_back_by_itself() {
    let servers = Servers::shared();
    let database = Database::fresh(&servers).await;
    let proxy = Proxy::before(&database.leases_url).await;
    let url = proxy.url(&database.leases_url);
    let node = node(&servers, "leases-1", &url).start().await;
    ready(&node).await;
    let client = client();
    let ask = async |method: Method, path: &str, body: &str| -> Answer {
        let request = client.request(method, node.url() + path);
        answer(request.body(body.to_owned())).await
    };
    let pushed = ask(Method::POST, "/", "1").await.is(201).json();
    let id = pushed["messageID"].as_str().unwrap().to_owned();
    let lease = "/?lease_ms=600000";
    ask(Method::GET, lease, "").await.is(200);

    proxy.refuse(true);
    proxy.cut_rst();
    for (method, path, body) in [
        (Method::POST, "/", "2"),
        (Method::GET, "/?wait_ms=20000", ""),
        (Method::PATCH, &*format!("/{id}"), ""),
        (Method::GET, "/dead-letters", ""),
    ] {
        let refused = ask(method, path, body).await.is(503);
        assert_eq!(refused.media, "application/problem+json");
    }
    wait_until("it to be known", LIMIT, async || {
        !node.ready().await.unwrap().0
    })
    .await;
    let refused = ask(Method::POST, "/", "2").await.is(503).json();
    assert_eq!(refused["type"], "urn:unacked:problem:database_away");
    proxy.heal();
    ready(&node).await;
    ask(Method::PATCH, &format!("/{id}"), "").await.is(204);

    // it hangs: who is waiting for an answer is told after a while
    proxy.freeze(Direction::Down);
    let refused = ask(Method::POST, "/", "3").await.is(503).json();
    assert!(
        refused["type"]
            .as_str()
            .unwrap()
            .starts_with("urn:unacked:problem:")
    );
    proxy.heal();
    ready(&node).await;
    ask(Method::POST, "/", "4").await.is(201);

    // and the bell rings again
    let empty = r#"{"messages":[]}"#;
    while ask(Method::GET, lease, "").await.is(200).text != empty {}
    let wait = ask(Method::GET, "/?wait_ms=20000", "");
    let push = async {
        wait_until("somebody to wait", LIMIT, async || {
            node.metric("unacked_leases_waiting").await.unwrap() > 0.0
        })
        .await;
        ask(Method::POST, "/", "5").await.is(201);
    };
    let (woken, ()) = tokio::join!(wait, push);
    assert!(woken.is(200).text.contains(r#""body":5"#));
}
