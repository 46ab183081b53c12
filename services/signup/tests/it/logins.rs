//! Logins: which tell nobody whether there is an account, and are limited.

use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::{
    Response, StatusCode,
    header::{LOCATION, RETRY_AFTER},
};
use serde_json::{Value, json};
use testkit::{Process, wait_until};

use crate::world::{
    LIMIT, PASSWORD, World, account, client, cookie, create, post, problem, submit, text,
};

async fn log_in(node: &Process, email: &str, password: &str) -> Response {
    post(
        node,
        "/login",
        &json!({"email": email, "password": password}),
    )
    .await
}

async fn from(node: &Process, client_address: &str, email: &str) -> StatusCode {
    let request = client()
        .post(format!("{}/login", node.url()))
        .header("x-real-ip", client_address);
    let request = request.json(&json!({"email": email, "password": "wrong for sure"}));
    request.send().await.unwrap().status()
}

#[tokio::test]
async fn a_login_is_right_or_wrong_and_says_nothing_else() {
    let world = World::new().await;
    let api = world.api("api-1").start().await;
    world.ready(&[&api]).await;
    let created = create(&api, "Ada@example.test").await;
    let answer = log_in(&api, " aDA@Example.TEST ", PASSWORD).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let known: Value = answer.json().await.unwrap();
    assert_eq!(known["userId"], created["userId"]);
    assert_ne!(known["token"], created["token"]);
    assert_eq!(
        account(&api, text(&known, "token")).await.status(),
        StatusCode::OK
    );
    let (status, wrong) = problem(log_in(&api, "ada@example.test", "wrong for sure").await).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    for nobody in ["bob@example.test", "no address", "a\0b@example.test", ""] {
        let (status, told) = problem(log_in(&api, nobody, PASSWORD).await).await;
        assert_eq!(
            (status, &told),
            (StatusCode::UNAUTHORIZED, &wrong),
            "{nobody:?}"
        );
    }
    // By the form.
    let fields = [("email", "ada@example.test"), ("password", PASSWORD)];
    let answer = submit(&api, "/signup/login", &fields).await;
    assert_eq!(
        (answer.status(), &answer.headers()[LOCATION]),
        (StatusCode::SEE_OTHER, &"/signup".parse().unwrap())
    );
    assert!(cookie(&answer).contains("HttpOnly"));
    let fields = [
        ("email", "ada@example.test"),
        ("password", "wrong for sure"),
    ];
    let answer = submit(&api, "/login", &fields).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let page = answer.text().await.unwrap();
    assert!(
        page.contains("value=\"ada@example.test\"") && page.contains("is not right"),
        "{page}"
    );
    assert!(!page.contains("wrong for sure"));
}

/// The same work is done: medians, taken in turn, and a factor that noise does not reach.
#[tokio::test]
async fn a_login_takes_as_long_whether_there_is_an_account_or_not() {
    let world = World::new().await;
    let most = 1_000;
    let api = world
        .api("api-1")
        .env("LOGIN_MAX_ADDRESS", most)
        .env("LOGIN_MAX_CLIENT", most)
        .start()
        .await;
    world.ready(&[&api]).await;
    create(&api, "ada@example.test").await;
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for _ in 0..15 {
        for (email, times) in [
            ("ada@example.test", &mut known),
            ("bob@example.test", &mut unknown),
        ] {
            let began = Instant::now();
            let answer = log_in(&api, email, "wrong for sure").await;
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
            times.push(began.elapsed());
        }
    }
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (known, unknown) = (median(known), median(unknown));
    println!("median of a login: {known:?} with an account, {unknown:?} without");
    let ratio = known.as_secs_f64() / unknown.as_secs_f64();
    assert!(
        (0.5..2.0).contains(&ratio),
        "{known:?} with an account, {unknown:?} without"
    );
    // Without a hash it would be a fraction of this.
    assert!(unknown > Duration::from_millis(5), "{unknown:?}");
}

#[tokio::test]
async fn tries_for_one_address_are_limited_on_all_nodes_and_not_for_ever() {
    let world = World::new().await;
    let api = |name| {
        world
            .api(name)
            .env("LOGIN_MAX_ADDRESS", 3)
            .env("LOGIN_WINDOW_SECS", 4)
    };
    let (one, other) = (api("api-1").start().await, api("api-2").start().await);
    world.ready(&[&one, &other]).await;
    create(&one, "ada@example.test").await;
    // Together, and for an address that nobody has the same as for one with an account.
    for email in ["ada@example.test", "bob@example.test"] {
        let spelled = [email.to_owned(), email.to_uppercase()];
        let tries = (0..12).map(|index| {
            log_in(
                [&one, &other][index % 2],
                &spelled[index / 2 % 2],
                "wrong for sure",
            )
        });
        let answers = join_all(tries).await;
        let refused = |answer: &&Response| answer.status() == StatusCode::TOO_MANY_REQUESTS;
        assert_eq!(answers.iter().filter(refused).count(), 9, "{email}");
        for answer in answers.iter().filter(refused) {
            let seconds: u32 = answer.headers()[RETRY_AFTER]
                .to_str()
                .unwrap()
                .parse()
                .unwrap();
            assert!((1..=4).contains(&seconds), "{seconds}");
        }
    }
    let (status, told) = problem(log_in(&other, "ada@example.test", PASSWORD).await).await;
    assert_eq!(
        status,
        StatusCode::TOO_MANY_REQUESTS,
        "the right password makes no difference"
    );
    assert_eq!(told["type"], "urn:unacked:problem:too_many_logins");
    // Asking again while it is refused does not count.
    wait_until("the window to pass", LIMIT, async || {
        let status = log_in(&one, "ada@example.test", PASSWORD).await.status();
        if status == StatusCode::OK {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
    let limited = one
        .metric("unacked_logins_limited_total{by=\"address\"}")
        .await
        .unwrap();
    assert!(limited > 0.5, "{limited}");
}

#[tokio::test]
async fn tries_of_one_client_are_limited_whatever_addresses_it_names() {
    let world = World::new().await;
    let api = |name| world.api(name).env("LOGIN_MAX_CLIENT", 5);
    let (one, other) = (api("api-1").start().await, api("api-2").start().await);
    world.ready(&[&one, &other]).await;
    for number in 0..5 {
        let email = format!("p{number}@example.test");
        assert_eq!(
            from([&one, &other][number % 2], "192.0.2.7", &email).await,
            StatusCode::UNAUTHORIZED
        );
    }
    for node in [&one, &other] {
        assert_eq!(
            from(node, "192.0.2.7", "q@example.test").await,
            StatusCode::TOO_MANY_REQUESTS
        );
        assert_eq!(
            from(node, "192.0.2.8", "q@example.test").await,
            StatusCode::UNAUTHORIZED
        );
    }
    // What was refused for the client was not counted for the address.
    let stored = world
        .count("select max(cardinality(tried_at)) from signup.login_try")
        .await;
    assert_eq!(stored, 5);
}
