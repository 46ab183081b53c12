//! What is pushed, and how.

use reqwest::Method;
use serde_json::{Value, json};

use super::{FORM, last};
use crate::served::{Served, answer, bodies, messages};

contract! {
    the_seeds_commands_work_as_pasted
    any_valid_json_comes_back_equal
    a_batch_is_pushed_in_one_call_in_its_order
    invalid_json_is_400
    more_than_256_kib_is_413
    a_push_with_a_key_is_one_push
}

async fn the_seeds_commands_work_as_pasted(served: &Served) {
    last(served).await;
    let post = |media: Option<&str>| {
        let request = served.request(Method::POST, "").body(r#"{"value": 12}"#);
        match media {
            Some(media) => request.header("content-type", media),
            None => request,
        }
    };
    let mut ids = Vec::new();
    for media in [Some("application/json"), Some(FORM), None, Some("text/x")] {
        let pushed = answer(post(media)).await.is(201).json();
        assert_eq!(pushed.as_object().unwrap().len(), 1, "{pushed}");
        let id = pushed["messageID"].as_str().unwrap().to_owned();
        assert_eq!(id.len(), 36);
        ids.push(id);
    }
    let got = served.get("").await.is(200);
    assert_eq!(got.media, "application/json");
    let leased = messages(&got);
    let found: Vec<&str> = leased.iter().map(|leased| leased.id.as_str()).collect();
    assert_eq!(found, ids);
    assert_eq!(leased[0].body(), r#"{"value": 12}"#);
    assert!(served.lease("", "amount=100").await.is_empty());
    let confirmed = served.patch(&format!("/{}", ids[0])).await.is(204);
    assert_eq!(confirmed.text, "");
}

async fn any_valid_json_comes_back_equal(served: &Served) {
    last(served).await;
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let documents = [
        "null",
        "true",
        "-0",
        "1.10",
        "1e400",
        "123456789012345678901234567890.000",
        r#""""#,
        r#""\u0000""#,
        r#"{"\u0000":"\u0000","b":"\ud83d\ude00 \/ \\ ä 😀"}"#,
        r#"{"b":1,"a":2,"b":3}"#,
        r#"[1, 2,  {"x" : [ ] }]"#,
        &deep,
    ];
    for document in documents {
        served.push("", document).await;
    }
    let leased = served.lease("", "amount=100").await;
    assert_eq!(bodies(&leased), documents);
    served.push("", " \n\t[1]\r\n ").await;
    assert_eq!(bodies(&served.lease("", "").await), ["[1]"]);
}

async fn a_batch_is_pushed_in_one_call_in_its_order(served: &Served) {
    last(served).await;
    let pushed = served
        .post("/batch", r#"[1, "two", {"n":3}]"#)
        .await
        .is(201);
    let ids: Vec<String> = serde_json::from_value(pushed.json()["messageIDs"].clone()).unwrap();
    let leased = served.lease("", "").await;
    let found: Vec<&str> = leased.iter().map(|leased| leased.id.as_str()).collect();
    assert_eq!(found, ids);
    assert_eq!(bodies(&leased), ["1", r#""two""#, r#"{"n":3}"#]);
    let many = |count: usize| json!((0..count).collect::<Vec<_>>()).to_string();
    let pushed = served.post("/batch", many(1_000)).await.is(201).json();
    assert_eq!(pushed["messageIDs"].as_array().unwrap().len(), 1_000);
    let numbers: Vec<String> = (0..1_000).map(|number: u32| number.to_string()).collect();
    assert_eq!(bodies(&served.lease("", "amount=1000").await), numbers);
    for wrong in [many(1_001), "[]".to_owned(), "{}".to_owned()] {
        served.post("/batch", wrong).await.is(422);
    }
    served.post("/batch", "[1,").await.is(400);
    assert!(served.lease("", "").await.is_empty(), "all or none");
}

async fn invalid_json_is_400(served: &Served) {
    for wrong in [
        &b""[..],
        b" ",
        b"{",
        b"{'a':1}",
        b"1 2",
        b"nul",
        b"\"\xff\"",
        b"\"\0\"",
    ] {
        let refused = served.post("/", wrong).await.is(400);
        assert_eq!(refused.media, "application/problem+json");
    }
    assert!(served.lease("", "").await.is_empty());
}

async fn more_than_256_kib_is_413(served: &Served) {
    let of = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    served.post("/", of(256 * 1024)).await.is(201);
    served.post("/", of(256 * 1024 + 1)).await.is(413);
    served.post("/", of(2 * 1024 * 1024)).await.is(413);
    let batch = format!("[1,{}]", of(256 * 1024 + 1));
    served.post("/batch", batch).await.is(413);
    let three = [of(256 * 1024), of(256 * 1024), of(256 * 1024)].join(",");
    served.post("/batch", format!("[{three}]")).await.is(201);
    let leased = served.lease("", "").await;
    assert_eq!(leased.len(), 4);
    assert!(
        leased
            .iter()
            .all(|leased| leased.body().len() == 256 * 1024)
    );
}

async fn a_push_with_a_key_is_one_push(served: &Served) {
    let push = async |key: &str, path: &str, body: &str| {
        let request = served
            .request(Method::POST, path)
            .header("Idempotency-Key", key);
        answer(request.body(body.to_owned())).await
    };
    let (one, two, three) = tokio::join!(
        push("k", "/", "1"),
        push("k", "/", "1"),
        push("k", "/", "1")
    );
    let [one, two, three] = [one, two, three].map(|pushed| pushed.is(201).text);
    assert_eq!([&one, &one], [&two, &three]);
    let id = serde_json::from_str::<Value>(&one).unwrap()["messageID"].clone();
    assert_eq!(served.lease("", "lease_ms=60000").await.len(), 1);
    served
        .patch(&format!("/{}", id.as_str().unwrap()))
        .await
        .is(204);
    assert_eq!(
        push("k", "/", "1").await.is(201).text,
        one,
        "also when it is confirmed"
    );
    let refused = push("k", "/", "2").await.is(422).json();
    assert_eq!(refused["type"], "urn:unacked:problem:key_reused");
    push("k", "/batch", "[1,2]").await.is(422);
    let many = push("b", "/batch", "[1,2]").await.is(201).text;
    assert_eq!(push("b", "/batch", "[1,2]").await.is(201).text, many);
    push("b", "/batch", "[1]").await.is(422);
    push("b", "/batch", "[1,2,3]").await.is(422);
    assert_eq!(bodies(&served.lease("", "").await), ["1", "2"]);
    for wrong in ["", "a b", &"x".repeat(201)] {
        push(wrong, "/", "1").await.is(400);
    }
    // another queue is another push
    served.put("/queues/q", "").await.is(201);
    let other = push("k", "/queues/q", "1").await.is(201).text;
    assert_ne!(other, one);
    assert_eq!(served.count("select count(*) from leases.pushed").await, 3);
}
