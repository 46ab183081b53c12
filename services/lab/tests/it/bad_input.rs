//! Whatever is thrown at a sender or a receiver: a 4xx that says what is wrong, as a page or as
//! problem details, and the process lives on.

use std::time::Duration;

use futures::{StreamExt, stream};
use reqwest::{Method, Response};
use serde_json::Value;
use testkit::Process;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    load::{client, offer},
    world::{World, ready},
};

const LIMIT: Duration = Duration::from_mins(1);

async fn send(
    url: &str,
    method: Method,
    content_type: &str,
    body: impl Into<reqwest::Body>,
) -> Response {
    let request = client()
        .request(method, url)
        .header("Content-Type", content_type);
    request.body(body).send().await.unwrap()
}

/// Problem details with the right status, a title and a sentence.
async fn problem(response: Response, status: u16, what: &str) {
    assert_eq!(response.status().as_u16(), status, "{what}");
    let kind = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(
        kind.starts_with("application/problem+json"),
        "{what}: {kind}"
    );
    let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(body["status"], status, "{what}: {body}");
    let detail = body["detail"].as_str().unwrap_or_default();
    assert!(detail.len() > 10, "{what} says what is wrong: {body}");
}

/// A page with the right status.
async fn page(response: Response, status: u16, what: &str) {
    let found = response.status().as_u16();
    let kind = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    let body = response.text().await.unwrap();
    assert_eq!(found, status, "{what}: {body}");
    assert!(
        kind.starts_with("text/html") && body.contains("</html>"),
        "{what}: {kind}"
    );
}

#[tokio::test]
async fn every_bad_request_to_the_api_is_a_problem() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    let _receiver = world.receiver("receiver-1").start().await;
    ready(&sender).await;
    let url = format!("{}/api/messages", sender.url());
    let json = "application/json";
    let long = format!(r#"{{"message": "{}"}}"#, "x".repeat(10_001));
    let cases: [(&str, &[u8], u16); 15] = [
        ("empty text", br#"{"message": ""}"#, 422),
        ("nothing seen", br#"{"message": "\u200b\ufeff"}"#, 422),
        ("spaces", br#"{"message": " \t\n "}"#, 422),
        ("too long", long.as_bytes(), 422),
        ("NUL", br#"{"message": "a\u0000b"}"#, 422),
        ("invalid UTF-8", b"{\"message\": \"\xff\xfe\"}", 400),
        ("no body", b"", 400),
        ("not JSON", b"hello", 400),
        ("unknown field", br#"{"message": "a", "mood": "b"}"#, 422),
        (
            "repeated field",
            br#"{"message": "a", "message": "b"}"#,
            422,
        ),
        ("a number", br#"{"message": 1}"#, 422),
        ("an array as text", br#"{"message": ["a"]}"#, 422),
        ("nothing", b"{}", 422),
        ("an empty array", b"[]", 422),
        ("null", b"null", 422),
    ];
    for (what, body, status) in cases {
        problem(
            send(&url, Method::POST, json, body.to_vec()).await,
            status,
            what,
        )
        .await;
    }
    let good = r#"{"message": "a"}"#;
    problem(
        send(&url, Method::POST, "text/plain", good).await,
        415,
        "wrong content type",
    )
    .await;
    problem(
        send(&url, Method::DELETE, json, "").await,
        405,
        "wrong method",
    )
    .await;
    problem(
        send(
            &format!("{}/api/nothing", sender.url()),
            Method::GET,
            json,
            "",
        )
        .await,
        404,
        "unknown path",
    )
    .await;
    problem(
        send(&format!("{url}/42"), Method::GET, json, "").await,
        400,
        "not an id",
    )
    .await;
    let unknown = format!("{url}/{}", uuid::Uuid::new_v4());
    problem(
        send(&unknown, Method::GET, json, "").await,
        404,
        "unknown id",
    )
    .await;
    let huge = format!(r#"{{"message": "{}"}}"#, "x".repeat(2 << 20));
    problem(
        send(&url, Method::POST, json, huge).await,
        413,
        "over 1 MiB",
    )
    .await;
    for key in ["", "a b", &"k".repeat(201), "ä"] {
        let request = client()
            .post(&url)
            .header("Idempotency-Key", key.as_bytes())
            .header("Content-Type", json);
        problem(request.body(good).send().await.unwrap(), 400, "a bad key").await;
    }
    assert_eq!(world.count("select count(*) from sender.message").await, 0);
    still_well(&world, &sender).await;
}

#[tokio::test]
async fn every_bad_form_is_a_page() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    let receiver = world.receiver("receiver-1").start().await;
    ready(&sender).await;
    ready(&receiver).await;
    let form = "application/x-www-form-urlencoded";
    let long = format!("message={}", "x".repeat(10_001));
    let cases: [(&str, &str, u16); 10] = [
        ("empty", "message=", 422),
        ("nothing seen", "message=%E2%80%8B+%EF%BB%BF", 422),
        ("spaces", "message=+++", 422),
        ("absent", "", 400),
        ("too long", &long, 422),
        ("NUL", "message=a%00b", 422),
        ("invalid UTF-8", "message=%ff%fe", 400),
        ("an array", "message[]=x", 400),
        ("repeated", "message=a&message=b", 400),
        ("an unknown field", "message=a&mood=b", 400),
    ];
    for (what, body, status) in cases {
        page(
            send(&sender.url(), Method::POST, form, body.to_owned()).await,
            status,
            what,
        )
        .await;
    }
    page(
        send(&sender.url(), Method::POST, "text/plain", "message=a").await,
        415,
        "wrong content type",
    )
    .await;
    page(
        send(&sender.url(), Method::PUT, form, "").await,
        405,
        "wrong method",
    )
    .await;
    page(
        send(&format!("{}/nowhere", sender.url()), Method::GET, form, "").await,
        404,
        "unknown path",
    )
    .await;
    let huge = format!("message={}", "x".repeat(2 << 20));
    page(
        send(&sender.url(), Method::POST, form, huge).await,
        413,
        "over 1 MiB",
    )
    .await;
    page(
        send(
            &format!("{}/received", receiver.url()),
            Method::POST,
            form,
            "",
        )
        .await,
        405,
        "wrong method",
    )
    .await;
    let odd = client()
        .get(sender.url())
        .header("Cookie", b"unacked_session=\xff;;=;a".as_slice());
    assert_eq!(
        odd.send().await.unwrap().status(),
        200,
        "an odd cookie is no cookie"
    );
    assert_eq!(world.count("select count(*) from sender.message").await, 0);
    still_well(&world, &sender).await;
}

#[tokio::test]
async fn a_key_of_the_form_that_is_none_is_told_and_the_form_can_be_used_again() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    let _receiver = world.receiver("receiver-1").start().await;
    ready(&sender).await;
    let post = async |key: &str| {
        let form = [("message", "typed text"), ("key", key)];
        client()
            .post(sender.url())
            .form(&form)
            .send()
            .await
            .unwrap()
    };
    let mut given = String::new();
    for key in ["", "4711", "<b>"] {
        let answer = post(key).await;
        assert_eq!(answer.status(), 400, "{key}");
        let page = answer.text().await.unwrap();
        assert!(page.contains("not a UUID"), "{page}");
        assert!(page.contains("typed text</textarea>"), "{page}");
        let field = page.split_once("name=\"key\" value=\"").unwrap().1;
        given = field.split_once('"').unwrap().0.to_owned();
    }
    assert_eq!(world.count("select count(*) from sender.message").await, 0);
    let answer = post(&given).await;
    assert_eq!(answer.status(), 200, "where the redirect leads");
    world.drained(LIMIT).await.assert_exactly_once(1);
}

/// 50 times: whether an answer is lost on the way is a matter of luck.
#[tokio::test]
async fn a_body_that_is_refused_is_read_so_that_the_answer_arrives() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    let _receiver = world.receiver("receiver-1").start().await;
    ready(&sender).await;
    let (json, form) = ("application/json", "application/x-www-form-urlencoded");
    let at = |path: &str| format!("{}{path}", sender.url());
    let cases = [
        (Method::POST, at("/api/messages"), json, 2 << 20, 413),
        (Method::POST, at("/"), form, 2 << 20, 413),
        (Method::POST, at("/api/messages"), json, 7 << 20, 413),
        (
            Method::POST,
            at("/api/messages"),
            "text/plain",
            1 << 20,
            415,
        ),
        (Method::POST, at("/api/nothing"), json, 1 << 20, 404),
        (Method::PUT, at("/api/messages"), json, 1 << 20, 405),
    ];
    let rounds = (0..50).flat_map(|round| cases.iter().map(move |case| (round, case)));
    stream::iter(rounds)
        .for_each_concurrent(4, |(round, (method, url, kind, size, status))| async move {
            let answer = send(url, method.clone(), kind, "x".repeat(*size)).await;
            assert_eq!(answer.status(), *status, "round {round}: {method} {url}");
            assert!(answer.text().await.unwrap().contains(&status.to_string()));
        })
        .await;
    still_well(&world, &sender).await;
}

#[tokio::test]
async fn a_body_without_end_is_cut_off() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    let _receiver = world.receiver("receiver-1").start().await;
    ready(&sender).await;
    let address = sender.url().replace("http://", "");
    for path in ["/api/messages", "/nowhere"] {
        let mut endless = TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        );
        endless.write_all(head.as_bytes()).await.unwrap();
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        let mut written = 0_usize;
        let cut = async {
            while endless.write_all(chunk.as_bytes()).await.is_ok() {
                written += chunk.len();
            }
        };
        tokio::time::timeout(LIMIT, cut)
            .await
            .expect("it is not read for ever");
        // What is read, and what the buffers of the system take.
        assert!((8 << 20..64 << 20).contains(&written), "{path}: {written}");
    }
    still_well(&world, &sender).await;
}

#[tokio::test]
async fn a_body_that_dribbles_is_answered_and_what_is_not_http_is_refused() {
    let world = World::new().await;
    let sender = world.sender("sender-1").start().await;
    let _receiver = world.receiver("receiver-1").start().await;
    ready(&sender).await;
    let address = sender.url().replace("http://", "");
    let mut slow = TcpStream::connect(&address).await.unwrap();
    slow.write_all(b"POST /api/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"mess")
        .await
        .unwrap();
    let mut answer = String::new();
    let read = slow.read_to_string(&mut answer);
    tokio::time::timeout(LIMIT, read)
        .await
        .expect("it does not wait for ever")
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let mut noise = TcpStream::connect(&address).await.unwrap();
    noise
        .write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(LIMIT, noise.read_to_end(&mut answer))
        .await
        .expect("it is closed");
    still_well(&world, &sender).await;
}

async fn still_well(world: &World, sender: &Process) {
    offer(&[sender.url()], 1, 1, Duration::ZERO).await;
    world.drained(LIMIT).await.assert_exactly_once(1);
}
