//! Accounts: created at once, by programs and by browsers, one for an address.

use futures::future::join_all;
use reqwest::{
    StatusCode,
    header::{ACCEPT, COOKIE, LOCATION, ORIGIN, RETRY_AFTER},
};
use serde_json::{Value, json};
use testkit::wait_until_eq;

use crate::world::{
    LIMIT, PASSWORD, World, account, client, cookie, create, mail_is, person, post, problem,
    submit, text,
};

#[tokio::test]
async fn an_account_is_there_at_once_and_its_mail_comes_when_somebody_sends_it() {
    let world = World::new().await;
    let api = world.api("api-1").start().await;
    world.ready(&[&api]).await;
    let answer = post(&api, "/createUser", &person("Ada@Example.test")).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(answer.headers()[LOCATION], "/");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let created: Value = answer.json().await.unwrap();
    let token = text(&created, "token");
    let told: Value = account(&api, token).await.json().await.unwrap();
    assert_eq!(told["firstName"], "Ada");
    assert_eq!(told["email"], "Ada@Example.test");
    assert_eq!(told["mail"], "waiting");
    let hash: String = sqlx::query_scalar("select password_hash from signup.account")
        .fetch_one(&world.database.admin)
        .await
        .unwrap();
    // Those that OWASP names first.
    assert!(
        hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
        "{hash}"
    );
    let _welcome = world.welcome("welcome-1").start().await;
    let told = mail_is(&api, token, "sent").await;
    assert!(told["sentAt"].is_string(), "{told}");
    assert!(
        !api.log().contains(PASSWORD) && !api.log().to_lowercase().contains("ada@"),
        "{}",
        api.log()
    );
}

#[tokio::test]
async fn a_browser_signs_up_by_the_form_and_is_known_by_its_cookie() {
    let world = World::new().await;
    let api = world.api("api-1").start().await;
    let secure = world.api("api-2").env("SESSION_SECURE", true).start().await;
    world.ready(&[&api, &secure]).await;
    for (base, home) in [("", "/"), ("/signup", "/signup")] {
        let page = client()
            .get(format!("{}{base}/createUser", api.url()))
            .send()
            .await
            .unwrap();
        assert_eq!(page.status(), StatusCode::OK);
        let page = page.text().await.unwrap();
        for part in [
            "firstName",
            "lastName",
            "email",
            "password",
            &format!("action=\"{base}/createUser\""),
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        let email = format!("ada{}@example.test", home.len());
        let fields = [
            ("firstName", "<b>Ada</b>"),
            ("lastName", "Lovelace"),
            ("email", &email),
            ("password", PASSWORD),
        ];
        let answer = submit(&api, &format!("{base}/createUser"), &fields).await;
        assert_eq!(
            (answer.status(), &answer.headers()[LOCATION]),
            (StatusCode::SEE_OTHER, &home.parse().unwrap())
        );
        let cookie = cookie(&answer);
        for part in [
            "; Path=/;",
            "; HttpOnly",
            "; SameSite=Lax",
            "; Max-Age=43200",
        ] {
            assert!(cookie.contains(part), "{part}: {cookie}");
        }
        assert!(!cookie.contains("Secure"), "{cookie}");
        let request = client()
            .get(format!("{}{home}", api.url()))
            .header(ACCEPT, "text/html");
        let page = request
            .header(COOKIE, cookie.split(';').next().unwrap())
            .send()
            .await
            .unwrap();
        let page = page.text().await.unwrap();
        assert!(
            page.contains("Hello &#60;b&#62;Ada&#60;/b&#62; Lovelace"),
            "{page}"
        );
        assert!(
            page.contains("mail: waiting") && page.contains(&format!("action=\"{base}/logout\"")),
            "{page}"
        );
    }
    let fields = [
        ("firstName", "Eve"),
        ("lastName", "X"),
        ("email", "eve@example.test"),
        ("password", PASSWORD),
    ];
    let answer = submit(&secure, "/createUser", &fields).await;
    assert!(cookie(&answer).contains("; Secure"));
}

#[tokio::test]
async fn without_a_token_a_browser_goes_to_the_form_and_a_program_hears_401() {
    let world = World::new().await;
    let api = world.api("api-1").start().await;
    world.ready(&[&api]).await;
    for (path, form) in [("/", "/createUser"), ("/signup", "/signup/createUser")] {
        let url = format!("{}{path}", api.url());
        // curl, as in the seed, says that it takes anything.
        for accept in ["*/*", "text/html"] {
            let answer = client()
                .get(&url)
                .header(ACCEPT, accept)
                .send()
                .await
                .unwrap();
            assert_eq!(
                (answer.status(), &answer.headers()[LOCATION]),
                (StatusCode::SEE_OTHER, &form.parse().unwrap())
            );
        }
        let answer = client().head(&url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        let answer = client()
            .get(&url)
            .header(ACCEPT, "application/json")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        let varies: Vec<_> = answer.headers().get_all("vary").iter().collect();
        assert_eq!(varies, ["accept, cookie, authorization"]);
        let (status, problem) = problem(answer).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(problem["type"], "urn:unacked:problem:no_token");
    }
    let url = format!("{}/signup/", api.url());
    let answer = client().get(url).send().await.unwrap();
    assert_eq!(answer.headers()[LOCATION], "/signup");
    let answer = account(&api, "not.a.token").await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    for path in ["/health", "/signup/health"] {
        let health = client()
            .get(format!("{}{path}", api.url()))
            .send()
            .await
            .unwrap();
        assert_eq!(health.status(), StatusCode::OK);
        let health: Value = health.json().await.unwrap();
        assert_eq!(health, json!({"status": "up", "node": "api-1"}));
    }
}

#[tokio::test]
async fn of_two_who_want_one_address_at_once_one_gets_it() {
    let world = World::new().await;
    let (one, other) = (
        world.api("api-1").start().await,
        world.api("api-2").start().await,
    );
    world.ready(&[&one, &other]).await;
    for round in 0..4 {
        let spelled = |index: usize| {
            let email = format!("race-{round}@example.test");
            if index < 3 {
                email
            } else {
                email.to_uppercase()
            }
        };
        let bodies: Vec<Value> = (0..6).map(|index| person(&spelled(index))).collect();
        let nodes = [&one, &other].into_iter().cycle();
        let answers = join_all(
            bodies
                .iter()
                .zip(nodes)
                .map(|(body, node)| post(node, "/createUser", body)),
        )
        .await;
        let mut created = 0;
        for answer in answers {
            if answer.status() == StatusCode::CREATED {
                created += 1;
                continue;
            }
            let (status, problem) = problem(answer).await;
            assert_eq!(status, StatusCode::CONFLICT, "{problem}");
            assert_eq!(problem["type"], "urn:unacked:problem:email_taken");
            assert_eq!(problem["errors"][0]["field"], "email");
        }
        assert_eq!(created, 1);
    }
    assert_eq!(world.count("select count(*) from signup.account").await, 4);
    // Whoever reads the form hears it beside the field.
    let fields = [
        ("firstName", "Ada"),
        ("lastName", "L."),
        ("email", "RACE-1@example.test"),
        ("password", PASSWORD),
    ];
    let answer = submit(&one, "/createUser", &fields).await;
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    let page = answer.text().await.unwrap();
    assert!(
        page.contains("id=\"email-wrong\"") && page.contains("RACE-1@example.test"),
        "{page}"
    );
}

#[tokio::test]
async fn dying_before_the_commit_leaves_nothing_and_dying_after_it_an_account_with_its_mail() {
    let world = World::new().await;
    let mut api = world
        .api("api-1")
        .env("FAIL_POINTS", "signup.before_commit=crash@1")
        .start()
        .await;
    world.ready(&[&api]).await;
    let request = client()
        .post(format!("{}/createUser", api.url()))
        .json(&person("ada@example.test"));
    request.send().await.unwrap_err();
    assert!(!api.wait(LIMIT).await.unwrap().success());
    assert_eq!(world.count("select count(*) from signup.account").await, 0);
    assert_eq!(world.count("select count(*) from signup.outbox").await, 0);
    api.set_env("FAIL_POINTS", "signup.after_commit=crash@1");
    api.start_again().await;
    world.ready(&[&api]).await;
    let request = client()
        .post(format!("{}/createUser", api.url()))
        .json(&person("ada@example.test"));
    request.send().await.unwrap_err();
    assert!(!api.wait(LIMIT).await.unwrap().success());
    api.set_env("FAIL_POINTS", "");
    api.start_again().await;
    let welcome = world.welcome("welcome-1").start().await;
    world.ready(&[&api, &welcome]).await;
    let answer = post(&api, "/createUser", &person("ada@example.test")).await;
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    let login = json!({"email": "ada@example.test", "password": PASSWORD});
    let answer = post(&api, "/login", &login).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let known: Value = answer.json().await.unwrap();
    mail_is(&api, text(&known, "token"), "sent").await;
    let emptied = async || world.count("select count(*) from signup.outbox").await;
    wait_until_eq("the outbox to be empty", LIMIT, 0, emptied).await;
    assert_eq!(world.mail.catcher.caught().len(), 1);
}

#[tokio::test]
async fn an_outcome_that_nobody_knows_is_told_as_that_and_a_rollback_as_nothing() {
    let world = World::new().await;
    let api = world.api("api-1").start().await;
    world.ready(&[&api]).await;
    api.arm("signup.before_commit=error@1").await.unwrap();
    let (status, told) = problem(post(&api, "/createUser", &person("a1@example.test")).await).await;
    assert_eq!(
        (status, text(&told, "type")),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "urn:unacked:problem:database_away"
        )
    );
    assert_eq!(world.count("select count(*) from signup.account").await, 0);
    api.arm("signup.after_commit=error@1").await.unwrap();
    let answer = post(&api, "/createUser", &person("a2@example.test")).await;
    assert!(answer.headers().contains_key(RETRY_AFTER));
    let (status, told) = problem(answer).await;
    assert_eq!(
        (status, text(&told, "type")),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "urn:unacked:problem:outcome_unknown"
        )
    );
    assert_eq!(world.count("select count(*) from signup.account").await, 1);
}

#[tokio::test]
async fn a_flood_of_sign_ups_is_bounded_and_the_others_are_told_to_come_again() {
    let world = World::new().await;
    let api = world.api("api-1").env("HASHES_AT_ONCE", 1).start().await;
    world.ready(&[&api]).await;
    let bodies: Vec<Value> = (0..60)
        .map(|number| person(&format!("p{number}@example.test")))
        .collect();
    let answers = join_all(bodies.iter().map(|body| post(&api, "/createUser", body))).await;
    let mut created = 0;
    for answer in answers {
        if answer.status() == StatusCode::CREATED {
            created += 1;
            continue;
        }
        assert!(answer.headers().contains_key(RETRY_AFTER));
        let (status, told) = problem(answer).await;
        assert_eq!(
            (status, text(&told, "type")),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "urn:unacked:problem:crowded"
            )
        );
    }
    assert!(
        (17..60).contains(&created),
        "{created}: one and sixteen at least, and not all"
    );
    assert_eq!(
        world.count("select count(*) from signup.account").await,
        created
    );
    let refused = api.metric("unacked_hashes_refused_total").await.unwrap();
    assert_eq!(format!("{refused}"), (60 - created).to_string());
}

#[tokio::test]
async fn sign_ups_of_one_client_are_limited_and_take_no_login_from_it() {
    let world = World::new().await;
    let api = |name| world.api(name).env("SIGNUPS_MAX_CLIENT", 3);
    let (one, other) = (api("api-1").start().await, api("api-2").start().await);
    let free = world.api("api-3").env("SIGNUPS_MAX_CLIENT", 0);
    let free = free.start().await;
    world.ready(&[&one, &other, &free]).await;
    let wrong = post(&one, "/createUser", &person("no address")).await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    for number in 0..3 {
        let node = [&one, &other][number % 2];
        create(node, &format!("p{number}@example.test")).await;
    }
    for node in [&one, &other] {
        let answer = post(node, "/createUser", &person("q@example.test")).await;
        assert!(answer.headers().contains_key(RETRY_AFTER));
        let (status, told) = problem(answer).await;
        assert_eq!(
            (status, text(&told, "type")),
            (
                StatusCode::TOO_MANY_REQUESTS,
                "urn:unacked:problem:too_many_signups"
            )
        );
    }
    let limited = one.metric("unacked_signups_limited_total").await.unwrap();
    assert_eq!(format!("{limited}"), "1");
    let login = json!({"email": "p0@example.test", "password": PASSWORD});
    let login = post(&one, "/login", &login).await;
    assert_eq!(login.status(), StatusCode::OK);
    let request = client().post(format!("{}/createUser", one.url()));
    let request = request.header("x-real-ip", "192.0.2.7");
    let answer = request.json(&person("r@example.test")).send().await;
    assert_eq!(answer.unwrap().status(), StatusCode::CREATED);
    create(&free, "s@example.test").await;
}

#[tokio::test]
async fn no_more_accounts_are_taken_than_their_mails_may_wait() {
    let world = World::new().await;
    let api = world.api("api-1").env("OUTBOX_MAX", 2);
    let api = api.env("AMQP_URL", "amqp://127.0.0.1:1").start().await;
    world.ready(&[&api]).await;
    let bodies: Vec<Value> = (0..6)
        .map(|number| person(&format!("p{number}@example.test")))
        .collect();
    let answers = join_all(bodies.iter().map(|body| post(&api, "/createUser", body))).await;
    let mut created = 0;
    for answer in answers {
        if answer.status() == StatusCode::CREATED {
            created += 1;
            continue;
        }
        let (status, told) = problem(answer).await;
        assert_eq!(
            (status, text(&told, "type")),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "urn:unacked:problem:outbox_full"
            )
        );
    }
    assert_eq!(created, 2);
}

#[tokio::test]
async fn foreign_pages_can_neither_create_nor_log_in_nor_out() {
    let world = World::new().await;
    let api = world.api("api-1").start().await;
    world.ready(&[&api]).await;
    create(&api, "ada@example.test").await;
    let fields = [("email", "ada@example.test"), ("password", PASSWORD)];
    for path in ["/createUser", "/login", "/logout", "/signup/login"] {
        let request = client().post(format!("{}{path}", api.url())).form(&fields);
        let answer = request
            .header(ORIGIN, "http://elsewhere.test")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path}");
        assert!(!answer.headers().contains_key("set-cookie"));
    }
    let request = client().post(format!("{}/login", api.url())).form(&fields);
    let answer = request.header(ORIGIN, api.url()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn the_run_of_a_request_is_kept_with_the_account_and_its_mail() {
    let world = World::new().await;
    let api = world.api("api-1").start().await;
    let welcome = world.welcome("welcome-1").start().await;
    world.ready(&[&api, &welcome]).await;
    let request = client()
        .post(format!("{}/createUser", api.url()))
        .header("x-run", "r7");
    let answer = request
        .json(&person("r7-1@example.test"))
        .send()
        .await
        .unwrap();
    let created: Value = answer.json().await.unwrap();
    mail_is(&api, text(&created, "token"), "sent").await;
    let both = "select count(*) from signup.account join signup.mail using (message_id, user_id, run) where run = 'r7'";
    assert_eq!(world.count(both).await, 1);
}
