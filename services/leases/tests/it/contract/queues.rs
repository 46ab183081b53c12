//! Queues of other names, the page, and what the requests of programs and browsers have in common.

use reqwest::Method;
use serde_json::{Value, json};
use testkit::wait_until;

use super::{dead_letters::kill, last};
use crate::served::{LIMIT, Served, answer, bodies, messages};

contract! {
    queues_have_names_and_settings_of_their_own
    head_never_leases
    the_page_shows_the_queues
    one_queue_can_be_asked_for_by_its_name_however_many_there_are
    errors_are_problem_details_whatever_the_client_accepts
    behind_the_gateway_it_is_the_same_under_its_prefix
    a_page_of_another_site_can_say_nothing
}

async fn queues_have_names_and_settings_of_their_own(served: &Served) {
    let missing = served.post("/queues/mail", "1").await.is(404).json();
    let detail = missing["detail"].as_str().unwrap();
    assert!(detail.contains("PUT /queues/mail makes it"), "{detail}");
    served.get("/queues/mail").await.is(404);
    let made = served
        .put("/queues/mail", r#"{"lease_ms":60000}"#)
        .await
        .is(201)
        .json();
    let wanted = json!({"name": "mail", "lease_ms": 60_000, "max_receives": 20});
    assert_eq!(made, wanted);
    let changed = served
        .put("/queues/mail", r#"{"max_receives":3}"#)
        .await
        .is(200)
        .json();
    let wanted = json!({"name": "mail", "lease_ms": 60_000, "max_receives": 3});
    assert_eq!(changed, wanted, "what is not said stays");
    let id = served.push("/queues/mail", "1").await;
    let default = served.push("", "2").await;
    assert_eq!(served.lease("", "lease_ms=60000").await[0].id, default);
    assert_eq!(served.lease("/queues/mail", "").await[0].id, id);
    served.patch(&format!("/{id}")).await.is(404);
    served
        .patch(&format!("/queues/mail/{default}"))
        .await
        .is(404);
    served
        .patch(&format!("/queues/mail/{id}/lease"))
        .await
        .is(204);
    served
        .delete(&format!("/queues/mail/{id}/lease"))
        .await
        .is(204);
    assert_eq!(served.lease("/queues/mail", "").await[0].id, id);
    served.patch(&format!("/queues/mail/{id}")).await.is(204);
    // the default queue has a name too
    served
        .patch(&format!("/queues/default/{default}"))
        .await
        .is(204);
    let many = served
        .post("/queues/mail/batch", "[1,2]")
        .await
        .is(201)
        .json();
    assert_eq!(many["messageIDs"].as_array().unwrap().len(), 2);
    for (name, body, status) in [
        ("UPPER", "{}", 400),
        (&*"x".repeat(81), "{}", 400),
        ("a%20b", "{}", 400),
        ("q", "{", 400),
        ("q", r#"{"lease_ms":0}"#, 422),
        ("q", r#"{"max_receives":-1}"#, 422),
        ("q", r#"{"leases":1}"#, 422),
    ] {
        served
            .put(&format!("/queues/{name}"), body)
            .await
            .is(status);
    }
}

async fn head_never_leases(served: &Served) {
    served.push("", "1").await;
    for path in ["", "/", "/leases", "/queues/default"] {
        let head = answer(served.request(Method::HEAD, path)).await.is(200);
        assert_eq!(head.text, "");
    }
    assert_eq!(served.lease("", "").await[0].receive_count, 1);
}

async fn one_queue_can_be_asked_for_by_its_name_however_many_there_are(served: &Served) {
    // more than one page has
    for number in 0..501 {
        let status = served.put(&format!("/queues/q{number}"), "").await.status;
        assert_eq!(status, 201);
    }
    served.put("/queues/zz", "").await.is(201);
    served.push_numbers("/queues/zz", 0..3).await;
    served.lease("/queues/zz", "amount=1&lease_ms=60000").await;
    let read = |path| {
        let request = served.request(Method::GET, path);
        answer(request.header("accept", "application/json"))
    };
    for path in ["/queues?name=zz", "/leases/queues?name=zz"] {
        let found = read(path).await.is(200).json();
        let queues = found["queues"].as_array().unwrap();
        assert_eq!(queues.len(), 1, "{found}");
        let told = ["name", "ready", "leased", "dead"].map(|name| queues[0][name].clone());
        assert_eq!(told, [json!("zz"), json!(2), json!(1), json!(0)]);
    }
    let all = read("/queues").await.is(200).json();
    assert_eq!(all["queues"].as_array().unwrap().len(), 500);
    let none = read("/queues?name=nobodys").await.is(404).json();
    assert!(
        none["detail"].as_str().unwrap().contains("nobodys"),
        "{none}"
    );
    read("/queues?name=A%20B").await.is(404);
    read("/queues?names=zz").await.is(400);
    let page = served.get("/leases/queues?name=zz").await.is(200);
    assert!(page.text.contains("data-queue=\"zz\""), "{}", page.text);
    assert!(!page.text.contains("data-queue=\"q1\""), "{}", page.text);
}

async fn the_page_shows_the_queues(served: &Served) {
    served
        .put("/queues/mail", r#"{"max_receives":1}"#)
        .await
        .is(201);
    served.push_numbers("/queues/mail", 0..4).await;
    served
        .lease("/queues/mail", "amount=1&lease_ms=60000")
        .await;
    kill(served, "/queues/gone", 0..2).await;
    served.dead("/queues/gone", 2).await;
    let read = |path| {
        let request = served.request(Method::GET, path);
        answer(request.header("accept", "application/json"))
    };
    let of = |list: &Value, name: &str| -> Value {
        let queues = list["queues"].as_array().unwrap();
        queues
            .iter()
            .find(|queue| queue["name"] == name)
            .cloned()
            .unwrap()
    };
    let list = read("/queues").await.is(200).json();
    let mail = of(&list, "mail");
    assert_eq!(
        (&mail["ready"], &mail["leased"], &mail["dead"]),
        (&json!(3), &json!(1), &json!(0)),
        "{mail}"
    );
    assert_eq!(of(&list, "gone")["dead"], 2);
    assert_eq!(of(&list, "default")["ready"], 0);
    // rates are of the last seconds: there is something to count in each turn
    wait_until("the rates of all nodes", LIMIT, async || {
        served.push("/queues/mail", "4").await;
        served
            .lease("/queues/mail", "amount=1&lease_ms=60000")
            .await;
        let mail = of(&read("/leases/queues").await.is(200).json(), "mail");
        let rates = ["pushed_per_second", "leased_per_second"].map(|rate| mail[rate].as_f64());
        if rates.iter().all(|rate| rate.unwrap() > 0.0) {
            Ok(())
        } else {
            Err(mail)
        }
    })
    .await;
    let page = served.get("/leases/queues").await.is(200);
    assert!(page.media.starts_with("text/html"), "{}", page.media);
    for part in [
        "data-queue=\"mail\"",
        "data-queue=\"default\"",
        "dead after 1 lease",
    ] {
        assert!(page.text.contains(part), "{part} is missing: {}", page.text);
    }
}

async fn errors_are_problem_details_whatever_the_client_accepts(served: &Served) {
    for accept in ["*/*", "text/html", "application/json"] {
        for (method, path, status) in [
            (Method::GET, "/?amount=0", 400),
            (Method::PATCH, "/nothing", 404),
            (Method::GET, "/queues/nothing", 404),
            (Method::DELETE, "/", 405),
            (Method::GET, "/a/b/c", 404),
        ] {
            let refused = served.request(method, path).header("accept", accept);
            let refused = answer(refused).await.is(status);
            assert_eq!(refused.media, "application/problem+json", "{path} {accept}");
            assert!(refused.json()["detail"].is_string());
        }
    }
}

async fn behind_the_gateway_it_is_the_same_under_its_prefix(served: &Served) {
    last(served).await;
    served
        .put("/leases/queues/q", r#"{"lease_ms":60000}"#)
        .await
        .is(201);
    for queue in ["/leases", "/leases/queues/q"] {
        let pushed = served.post(queue, "1").await.is(201).json();
        let id = pushed["messageID"].as_str().unwrap();
        served.post(&format!("{queue}/batch"), "[2]").await.is(201);
        let leased = served
            .get(&format!("{queue}?amount=1&lease_ms=60000"))
            .await;
        assert_eq!(messages(&leased.is(200))[0].id, id);
        served.patch(&format!("{queue}/{id}/lease")).await.is(204);
        served.delete(&format!("{queue}/{id}/lease")).await.is(204);
        let leased = served
            .get(&format!("{queue}/?lease_ms=60000"))
            .await
            .is(200);
        assert_eq!(bodies(&messages(&leased)), ["2", "1"]);
        served.patch(&format!("{queue}/{id}")).await.is(204);
        served.get(&format!("{queue}/dead-letters")).await.is(200);
        served
            .post(&format!("{queue}/dead-letters/discard"), r#"{"all":true}"#)
            .await
            .is(200);
    }
}

async fn a_page_of_another_site_can_say_nothing(served: &Served) {
    let id = served.push("", "1").await;
    for (name, value) in [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        for (method, path) in [
            (Method::GET, "/?amount=1"),
            (Method::POST, "/"),
            (Method::POST, "/leases/batch"),
            (Method::PATCH, &*format!("/{id}")),
            (Method::PUT, "/queues/theirs"),
            (Method::GET, "/dead-letters"),
        ] {
            let theirs = served.request(method, path).header(name, value);
            let refused = answer(theirs.body("[1]")).await.is(403);
            assert_eq!(refused.media, "application/problem+json");
        }
        // a link to the page is what links are for
        let link = served.request(Method::GET, "/leases/queues");
        answer(link.header(name, value)).await.is(200);
    }
    served.get("/queues/theirs").await.is(404);
    let own = served.to(0, Method::GET, "/?lease_ms=60000");
    let own = own.header("origin", served.nodes[0].url());
    let leased = messages(
        &answer(own.header("sec-fetch-site", "same-origin"))
            .await
            .is(200),
    );
    assert_eq!((bodies(&leased), leased[0].receive_count), (vec!["1"], 1));
}
