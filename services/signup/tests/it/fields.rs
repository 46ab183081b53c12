//! Wrong fields: named all at once, to programs and beside the fields of the form.

use reqwest::{
    StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde_json::json;

use crate::world::{World, client, person, post, problem, submit};

#[tokio::test]
async fn all_wrong_fields_are_named_at_once() {
    let world = World::new().await;
    let api = world.api("api-1").start().await;
    world.ready(&[&api]).await;
    let nothing = json!({});
    let all =
        json!({"firstName": " ", "lastName": "a\u{202e}b", "email": "ada", "password": "short"});
    for body in [nothing, all] {
        let (status, told) = problem(post(&api, "/createUser", &body).await).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(told["type"], "urn:unacked:problem:wrong_fields");
        let errors = told["errors"].as_array().unwrap();
        let named: Vec<_> = errors
            .iter()
            .map(|error| error["field"].as_str().unwrap())
            .collect();
        assert_eq!(named, ["firstName", "lastName", "email", "password"]);
        assert!(
            errors
                .iter()
                .all(|error| error["detail"].as_str().unwrap().len() > 10)
        );
    }
    for (field, wrong) in [
        ("email", "ada@localhost"),
        ("email", "ada@example.test\r\nBcc: x@example.test"),
        ("password", "Password123!"),
        ("password", "my-lovelace-secret"),
        ("password", "xx-grace.h-xx"),
        ("firstName", ""),
    ] {
        let mut body = person("grace.h@example.test");
        body[field] = json!(wrong);
        let (status, told) = problem(post(&api, "/createUser", &body).await).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
        assert_eq!(told["errors"].as_array().unwrap().len(), 1, "{told}");
        assert_eq!(told["errors"][0]["field"], field);
    }
    for (body, status) in [
        (json!([]), 422),
        (json!({"firstName": 1}), 422),
        (json!({"name": "x"}), 422),
    ] {
        let (said, _) = problem(post(&api, "/createUser", &body).await).await;
        assert_eq!(said.as_u16(), status, "{body}");
    }
    assert_eq!(world.count("select count(*) from signup.account").await, 0);
}

#[tokio::test]
async fn the_form_keeps_what_was_typed_but_the_password() {
    let world = World::new().await;
    let api = world.api("api-1").start().await;
    world.ready(&[&api]).await;
    let fields = [
        ("firstName", "A\"<i>"),
        ("lastName", ""),
        ("email", "ada@example"),
        ("password", "tooshort"),
    ];
    let answer = submit(&api, "/createUser", &fields).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let page = answer.text().await.unwrap();
    for part in [
        "value=\"A&#34;&#60;i&#62;\"",
        "value=\"ada@example\"",
        "id=\"lastName-wrong\"",
        "id=\"email-wrong\"",
        "id=\"password-wrong\"",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(
        !page.contains("tooshort") && !page.contains("id=\"firstName-wrong\""),
        "{page}"
    );
}

#[tokio::test]
async fn who_sends_json_reads_json_whatever_else_they_take() {
    let world = World::new().await;
    let api = world.api("api-1").start().await;
    world.ready(&[&api]).await;
    for accept in [
        "*/*;q=0.8",
        "application/*",
        "text/html",
        "text/html, image/gif, *; q=.2, */*; q=.2",
    ] {
        let request = client().post(format!("{}/createUser", api.url()));
        let request = request.header(ACCEPT, accept).json(&json!({}));
        let (status, told) = problem(request.send().await.unwrap()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(told["errors"].as_array().unwrap().len(), 4, "{told}");
    }
}

#[tokio::test]
async fn what_is_said_to_be_neither_json_nor_a_form_hears_what_is_right() {
    let world = World::new().await;
    let api = world.api("api-1").start().await;
    world.ready(&[&api]).await;
    let body = person("grace.h@example.test").to_string();
    for (said, wrong) in [
        ("text/plain", "application/x-www-form-urlencoded"),
        ("application/x-www-form-urlencoded", "said to be a form"),
    ] {
        for path in ["/createUser", "/login"] {
            let request = client().post(format!("{}{path}", api.url()));
            let request = request.header(CONTENT_TYPE, said).body(body.clone());
            let request = request.header(ACCEPT, "application/json");
            let (status, told) = problem(request.send().await.unwrap()).await;
            assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
            let detail = told["detail"].as_str().unwrap();
            let right = detail.contains("application/json") && detail.contains(wrong);
            assert!(right, "{detail}");
        }
    }
    let counted = api.metric("unacked_http_errors_total").await.unwrap();
    assert!(counted > 3.9, "{counted}");
}
