//! Tokens: given back on one node and known so on all, and keys that change while nodes run.

use reqwest::{
    StatusCode,
    header::{ACCEPT, AUTHORIZATION, COOKIE, LOCATION},
};
use serde_json::Value;
use testkit::{Process, wait_until_eq};

use crate::world::{KEY, LIMIT, PASSWORD, World, account, client, cookie, create, submit, text};

const NEXT: &str = "the next key of these tests, 32 bytes and more";

async fn status(node: &Process, token: &str) -> u16 {
    account(node, token).await.status().as_u16()
}

#[tokio::test]
async fn a_token_that_was_given_back_is_taken_by_no_node() {
    let world = World::new().await;
    let (one, other) = (
        world.api("api-1").start().await,
        world.api("api-2").start().await,
    );
    world.ready(&[&one, &other]).await;
    let created = create(&one, "ada@example.test").await;
    let token = text(&created, "token");
    let second: Value = {
        let login = serde_json::json!({"email": "ada@example.test", "password": PASSWORD});
        crate::world::post(&other, "/login", &login)
            .await
            .json()
            .await
            .unwrap()
    };
    assert_eq!(
        (status(&one, token).await, status(&other, token).await),
        (200, 200)
    );
    let request = client()
        .post(format!("{}/logout", one.url()))
        .header(ACCEPT, "application/json");
    let answer = request
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert_eq!(
        (status(&one, token).await, status(&other, token).await),
        (401, 401)
    );
    assert_eq!(
        status(&other, text(&second, "token")).await,
        200,
        "another token of the account is as it was"
    );
    // By the button of the page.
    let fields = [("email", "ada@example.test"), ("password", PASSWORD)];
    let known = cookie(&submit(&one, "/login", &fields).await);
    let known = known.split(';').next().unwrap().to_owned();
    let request = client()
        .post(format!("{}/signup/logout", other.url()))
        .header(COOKIE, &known);
    let answer = request.send().await.unwrap();
    assert_eq!(
        (answer.status(), &answer.headers()[LOCATION]),
        (StatusCode::SEE_OTHER, &"/signup/login".parse().unwrap())
    );
    assert!(cookie(&answer).contains("Max-Age=0"));
    let page = client()
        .get(one.url())
        .header(COOKIE, &known)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (page.status(), &page.headers()[LOCATION]),
        (StatusCode::SEE_OTHER, &"/createUser".parse().unwrap())
    );
    // Twice is as good as once.
    let again = client()
        .post(format!("{}/logout", one.url()))
        .header(COOKIE, &known)
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), StatusCode::SEE_OTHER);
    assert_eq!(world.count("select count(*) from signup.revoked").await, 2);
}

#[tokio::test]
async fn what_was_given_back_is_forgotten_when_it_has_ended_and_old_tries_too() {
    let world = World::new().await;
    let api = world.api("api-1").start().await;
    world.ready(&[&api]).await;
    for sql in [
        "insert into signup.revoked (jti, ends_at) values (gen_random_uuid(), now() - interval '1 hour'),
                                                          (gen_random_uuid(), now() + interval '1 hour')",
        "insert into signup.login_try (key, tried_at, last_at) values ('a', '{}', now() - interval '1 hour'), ('b', '{}', now())",
    ] {
        sqlx::query(sql).execute(&world.database.admin).await.unwrap();
    }
    let _other = world.api("api-2").start().await;
    let left = async || {
        let revoked = world.count("select count(*) from signup.revoked").await;
        (
            revoked,
            world.count("select count(*) from signup.login_try").await,
        )
    };
    wait_until_eq("the old ones to be gone", LIMIT, (1, 1), left).await;
}

#[tokio::test]
async fn keys_change_while_nodes_run_and_no_token_is_lost() {
    let world = World::new().await;
    let mut one = world.api("api-1").start().await;
    let other = world
        .api("api-2")
        .env("SIGNUP_KEY", NEXT)
        .env("SIGNUP_KEY_OLD", KEY)
        .start()
        .await;
    let last = world.api("api-3").env("SIGNUP_KEY", NEXT).start().await;
    world.ready(&[&one, &other, &last]).await;
    let created = create(&one, "ada@example.test").await;
    let before = text(&created, "token").to_owned();
    assert_eq!(
        (
            status(&one, &before).await,
            status(&other, &before).await,
            status(&last, &before).await
        ),
        (200, 200, 401)
    );
    let created = create(&other, "bob@example.test").await;
    let after = text(&created, "token").to_owned();
    assert_eq!(
        (
            status(&one, &after).await,
            status(&other, &after).await,
            status(&last, &after).await
        ),
        (401, 200, 200)
    );
    // The first step of a change: every node takes the next key before one signs with it.
    one.kill().await;
    one.set_env("SIGNUP_KEY_OLD", NEXT);
    one.start_again().await;
    world.ready(&[&one]).await;
    assert_eq!(
        (status(&one, &before).await, status(&one, &after).await),
        (200, 200)
    );
}

#[tokio::test]
async fn a_token_ends() {
    let world = World::new().await;
    let api = world.api("api-1").env("TOKEN_SECS", 1).start().await;
    world.ready(&[&api]).await;
    let created = create(&api, "ada@example.test").await;
    let token = text(&created, "token");
    // Its second, and what the clocks of nodes may differ by.
    wait_until_eq("the token to end", LIMIT, 401, async || {
        status(&api, token).await
    })
    .await;
}

#[tokio::test]
async fn without_a_key_nothing_starts_and_a_key_is_told_to_nobody() {
    let world = World::new().await;
    for key in [None, Some("too short")] {
        let api = world
            .api("api-1")
            .env("SIGNUP_KEY", key.unwrap_or_default());
        let (ended, said) = api.output(LIMIT).await.unwrap();
        assert_eq!(ended.code(), Some(2), "{said}");
        assert!(
            said.contains("SIGNUP_KEY") && said.contains("openssl rand -base64 48"),
            "{said}"
        );
        assert!(!said.contains("too short"), "{said}");
    }
    let api = world.api("api-1").env("SIGNUP_KEY_OLD", NEXT).start().await;
    let told = client()
        .get(format!("{}/ops/settings", api.ops_url()))
        .send()
        .await
        .unwrap();
    assert_eq!(told.status(), StatusCode::OK);
    let told = told.text().await.unwrap();
    assert!(
        told.contains("TOKEN_SECS") && !told.contains(KEY) && !told.contains(NEXT),
        "{told}"
    );
}
