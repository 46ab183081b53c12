//! What clumsy programs send: each gets a 4xx that says what is wrong, as a page on the pages and
//! as problem details on the API, and the next request finds everything as it was.

use futures::future::join_all;
use reqwest::{Client, Method, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::stack::{gateway, unique};

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

async fn ask(method: Method, path: &str, media: &str, body: impl Into<reqwest::Body>) -> Response {
    let client = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let mut request = client
        .request(method, format!("{}{path}", gateway()))
        .body(body);
    if !media.is_empty() {
        request = request.header(header::CONTENT_TYPE, media);
    }
    request.send().await.unwrap()
}

fn media(response: &Response) -> String {
    let media = response.headers().get(header::CONTENT_TYPE);
    media
        .map(|media| media.to_str().unwrap().to_owned())
        .unwrap_or_default()
}

async fn api(body: &Value) -> Response {
    ask(Method::POST, "/api/messages", JSON, body.to_string()).await
}

#[tokio::test]
async fn a_wrong_form_gets_a_page_that_says_what_is_wrong() {
    let long = format!("message={}", "x".repeat(10_001));
    let huge = format!("message={}", "x".repeat(2 * 1024 * 1024));
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        (FORM, b"message=".to_vec(), 422, "The message is empty."),
        (
            FORM,
            b"message=+%09%0D%0A".to_vec(),
            422,
            "The message is empty.",
        ),
        (FORM, long.into(), 422, "10001 characters"),
        (FORM, b"message=a%00b".to_vec(), 422, "NUL"),
        (FORM, b"message=%ff".to_vec(), 400, "not valid UTF-8"),
        (FORM, b"message=\xc3".to_vec(), 400, "not valid UTF-8"),
        (FORM, b"message[]=x".to_vec(), 400, "message[]"),
        (FORM, b"message=a&message=b".to_vec(), 400, "more than once"),
        (FORM, b"massage=a".to_vec(), 400, "massage"),
        (FORM, b"".to_vec(), 400, "missing"),
        (FORM, b"key=x".to_vec(), 400, "missing"),
        ("", b"message=a".to_vec(), 415, "Content-Type"),
        ("text/plain", b"message=a".to_vec(), 415, "text/plain"),
        (
            "multipart/form-data; boundary=x",
            b"--x--".to_vec(),
            415,
            "multipart",
        ),
        (FORM, huge.into(), 413, ""),
    ];
    for (kind, body, status, says) in cases {
        let name = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let answer = ask(Method::POST, "/", kind, body).await;
        assert_eq!(answer.status(), status, "{name}");
        assert!(media(&answer).starts_with("text/html"), "{name}");
        let page = answer.text().await.unwrap();
        assert!(page.contains(says), "{name}: {page}");
    }
    assert_eq!(ask(Method::GET, "/", "", "").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_wrong_document_gets_problem_details() {
    let many = Value::from(vec![json!({"message": "a"}); 1_001]).to_string();
    let long = json!({"message": "x".repeat(10_001)}).to_string();
    let huge = json!({"message": "x".repeat(2 * 1024 * 1024)}).to_string();
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        (JSON, b"".to_vec(), 400, "empty"),
        (JSON, b"{".to_vec(), 400, "not JSON"),
        (JSON, b"{\"message\":\"\xff\"}".to_vec(), 400, "UTF-8"),
        (JSON, b"{}".to_vec(), 422, "missing field `message`"),
        (JSON, br#"{"message":1}"#.to_vec(), 422, "expected a string"),
        (
            JSON,
            br#"{"message":"a","x":1}"#.to_vec(),
            422,
            "unknown field `x`",
        ),
        (
            JSON,
            br#"{"message":"a","message":"b"}"#.to_vec(),
            422,
            "duplicate field",
        ),
        (JSON, br#"{"message":" "}"#.to_vec(), 422, "empty"),
        (JSON, br#"{"message":"a\u0000b"}"#.to_vec(), 422, "NUL"),
        (JSON, br#"{"message":"\ud800"}"#.to_vec(), 400, ""),
        (JSON, b"\"text\"".to_vec(), 422, "object"),
        (JSON, b"[]".to_vec(), 422, "The array is empty."),
        (JSON, b"[[\"a\"]]".to_vec(), 422, "object"),
        (
            JSON,
            br#"[{"message":"a"},{"message":""}]"#.to_vec(),
            422,
            "At index 1",
        ),
        (JSON, many.into(), 422, "at most 1,000"),
        (JSON, long.into(), 422, "10001 characters"),
        (JSON, huge.into(), 413, ""),
        ("", b"{}".to_vec(), 415, "application/json"),
        (FORM, b"message=a".to_vec(), 415, "application/json"),
        (
            "application/json; charset=latin1",
            b"{}".to_vec(),
            415,
            "UTF-8",
        ),
    ];
    for (kind, body, status, says) in cases {
        let name = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let answer = ask(Method::POST, "/api/messages", kind, body).await;
        assert_eq!(answer.status(), status, "{name}");
        assert_eq!(media(&answer), "application/problem+json", "{name}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["status"], status, "{name}: {problem}");
        assert!(
            problem["detail"].as_str().unwrap().contains(says),
            "{name}: {problem}"
        );
    }
}

#[tokio::test]
async fn a_wrong_address_or_method_is_named() {
    for (method, path, status) in [
        (Method::GET, "/nowhere", 404),
        (Method::GET, "/received/nowhere", 404),
        (Method::GET, "/static/nothing.css", 404),
        (Method::GET, "/api/nowhere", 404),
        (
            Method::GET,
            "/api/messages/00000000-0000-7000-8000-000000000000",
            404,
        ),
        (Method::GET, "/api/messages/12", 400),
        (Method::GET, "/api/messages/%ff", 400),
        (Method::GET, "/received/api/nowhere", 404),
        (Method::DELETE, "/", 405),
        (Method::PUT, "/received", 405),
        (Method::GET, "/reset-session", 405),
        (Method::GET, "/api/messages", 405),
        (Method::POST, "/received/api/messages", 405),
    ] {
        let answer = ask(method.clone(), path, "", "").await;
        assert_eq!(answer.status(), status, "{method} {path}");
        let problem = path.contains("/api/");
        let expected = if problem {
            "application/problem+json"
        } else {
            "text/html"
        };
        assert!(
            media(&answer).starts_with(expected),
            "{method} {path}: {}",
            media(&answer)
        );
        if status == 405 {
            assert!(
                answer.headers().contains_key(header::ALLOW),
                "{method} {path}"
            );
        }
    }
}

#[tokio::test]
async fn a_program_hands_in_messages_and_asks_for_them() {
    let text = unique("by a program");
    let answer = api(&json!({"message": text})).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert!(
        answer.headers().get(header::SET_COOKIE).is_none(),
        "the API starts no session"
    );
    let location = answer.headers()[header::LOCATION]
        .to_str()
        .unwrap()
        .to_owned();
    let receipt: Value = answer.json().await.unwrap();
    assert_eq!(receipt["repeated"], false);
    let message: Value = ask(Method::GET, &location, "", "")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(message["message_id"], receipt["message_id"]);
    assert_eq!(message["text"], text.as_str());
    let both = api(&json!([{"message": "one of two"}, {"message": "two of two"}])).await;
    let both: Value = both.json().await.unwrap();
    assert_eq!(both["messages"].as_array().unwrap().len(), 2);
    let results: Value = ask(Method::GET, "/received/api/messages", "", "")
        .await
        .json()
        .await
        .unwrap();
    assert!(results["messages"].is_array() && results["dead_letters"]["count"].is_i64());
}

#[tokio::test]
async fn a_key_stands_for_one_message() {
    let (key, text) = (unique("key").replace(' ', "-"), unique("repeated"));
    let hand_in = async |key: &str, text: &str| {
        let request = Client::new().post(format!("{}/api/messages", gateway()));
        let request = request.header("Idempotency-Key", key);
        request
            .json(&json!({"message": text}))
            .send()
            .await
            .unwrap()
    };
    let answers = join_all((0..8).map(|_| hand_in(&key, &text))).await;
    let mut ids = Vec::new();
    let mut new = 0;
    for answer in answers {
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        let receipt: Value = answer.json().await.unwrap();
        new += usize::from(receipt["repeated"] == false);
        ids.push(receipt["message_id"].clone());
    }
    ids.dedup();
    assert_eq!((ids.len(), new), (1, 1));
    let other = hand_in(&key, "another text").await;
    assert_eq!(other.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let problem: Value = other.json().await.unwrap();
    assert_eq!(problem["type"], "urn:unacked:problem:key_reused");
    for wrong in ["a b", &"x".repeat(201)] {
        let refused = hand_in(wrong, "text").await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn the_same_form_at_once_is_one_message() {
    let client = Client::builder().cookie_store(true).build().unwrap();
    client.get(gateway()).send().await.unwrap();
    let text = unique("eight times");
    let key = uuid::Uuid::new_v4().to_string();
    let form = [("message", text.as_str()), ("key", key.as_str())];
    let posts = join_all((0..8).map(|_| client.post(gateway()).form(&form).send())).await;
    assert!(
        posts
            .into_iter()
            .all(|post| post.unwrap().status() == StatusCode::OK)
    );
    let page = client
        .get(gateway())
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(page.matches(text.as_str()).count(), 1, "{page}");
    assert!(page.contains(r#"<span id="sent">1</span>"#), "{page}");
    let edited = format!("{text}, edited");
    let form = [("message", edited.as_str()), ("key", key.as_str())];
    let page = client
        .post(gateway())
        .form(&form)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(
        page.matches(text.as_str()).count(),
        2,
        "another text is another message: {page}"
    );
}

#[tokio::test]
async fn a_reset_needs_the_token_of_the_session() {
    let client = Client::builder().cookie_store(true).build().unwrap();
    client.get(gateway()).send().await.unwrap();
    let reset = format!("{}/reset-session", gateway());
    let wrong = [("csrf", "0".repeat(32))];
    for request in [client.post(&reset), client.post(&reset).form(&wrong)] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert!(media(&answer).starts_with("text/html"));
    }
    let none = Client::new()
        .post(&reset)
        .form(&wrong)
        .send()
        .await
        .unwrap();
    assert_eq!(
        none.status(),
        StatusCode::FORBIDDEN,
        "without any session, too"
    );
    assert!(none.headers().get(header::SET_COOKIE).is_none());
}

#[tokio::test]
async fn a_foreign_form_starts_no_session() {
    for (name, value) in [
        ("Origin", "http://evil.example"),
        ("Sec-Fetch-Site", "cross-site"),
    ] {
        let request = Client::new().post(gateway()).header(name, value);
        let answer = request
            .form(&[("message", "foreign")])
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{name}");
        assert!(answer.headers().get(header::SET_COOKIE).is_none(), "{name}");
    }
}

#[tokio::test]
async fn a_broken_cookie_is_no_error() {
    for cookie in [
        "",
        "unacked_session",
        "unacked_session=",
        "unacked_session=%ff;;;=",
        "=;,\"",
    ] {
        for path in ["/", "/received"] {
            let request = Client::new().get(format!("{}{path}", gateway()));
            let answer = request
                .header(header::COOKIE, cookie.as_bytes())
                .send()
                .await;
            assert_eq!(answer.unwrap().status(), StatusCode::OK, "{cookie}");
        }
    }
}
