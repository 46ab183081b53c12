//! What people do with notes, leases and sign-up, each on its own port and behind the gateway.

use std::{sync::LazyLock, time::Duration};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use testkit::wait_until;

use crate::{
    browser::{Browser, Kind},
    every_page::{WRONG, look},
    stack::{Stack, free_ports, unique},
};

const LIMIT: Duration = Duration::from_secs(30);
const WITHOUT_SCRIPT: Kind = Kind {
    no_script: true,
    dark: false,
    narrow: false,
};
const PASSWORD: &str = "three grey teapots 7";

/// The stack of these tests, and the services' own addresses.
struct Others {
    stack: Stack,
    notes: String,
    leases: String,
    signup: String,
}

static OTHERS: LazyLock<Others> = LazyLock::new(|| {
    let ports: [u16; 3] = free_ports();
    let flags = ["notes", "leases", "signup"].iter().zip(ports);
    let mut flags: Vec<String> = flags
        .map(|(name, port)| format!("--{name}-port={port}"))
        .collect();
    flags.extend(["--with=all", "--no-console"].map(str::to_owned));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let stack = Stack::start("others", &flags, &[]);
    let [notes, leases, signup] = ports.map(|port| format!("http://127.0.0.1:{port}"));
    Others {
        stack,
        notes,
        leases,
        signup,
    }
});

fn address() -> String {
    format!("ada.{}@example.test", uuid::Uuid::new_v4().simple())
}

async fn write(browser: &Browser, text: &str) {
    browser.fill("textarea", text).await;
    browser.click(".btn-send").await;
    browser.shows("#confirmation", "Accepted as #").await;
}

/// Waits until the list, asked for anew, has the note.
async fn saved(browser: &Browser, home: &str, text: &str) -> String {
    wait_until("the note in the list", LIMIT, async || {
        browser.go(home).await;
        browser.rows_with(text).await.pop()
    })
    .await
}

async fn fill_form(browser: &Browser, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        browser.fill(&format!("#{name}"), value).await;
    }
    browser.click("main .btn-send").await;
}

async fn sign_up(browser: &Browser, email: &str) {
    let name = [("firstName", "Ada"), ("lastName", "Lovelace")];
    fill_form(
        browser,
        &[name[0], name[1], ("email", email), ("password", PASSWORD)],
    )
    .await;
    browser.shows("h1", "Hello Ada Lovelace").await;
}

async fn lease_call(method: reqwest::Method, path: &str, body: &str) -> (StatusCode, Value) {
    let request = Client::new().request(method, format!("{}{path}", OTHERS.leases));
    let answer = request.body(body.to_owned()).send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

/// The marked tab, behind the port of all services.
async fn tab(browser: &Browser, name: &str) {
    assert_eq!(browser.count("nav [aria-current]").await, 1);
    assert_eq!(browser.text("nav [aria-current]").await, name);
}

#[tokio::test]
async fn their_pages_fit_can_be_read_and_have_no_failing_script() {
    let mut browser = Browser::at(&OTHERS.stack.gateway, Kind::default()).await;
    browser.begin_with(WRONG).await;
    browser.go("/notes").await;
    for text in [
        "Good morning from the first window",
        "Grüße aus Köln, привет из Риги",
        "Two things:\n- a new cable for the modem\n- milk",
        "Backup of the library finished, 3 files skipped",
    ] {
        write(&browser, text).await;
        saved(&browser, "/notes", text).await;
    }
    write(&browser, "See you at the harbour").await;
    tab(&browser, "Notes").await;
    look(&mut browser, "notes").await;

    for (queue, settings) in [
        ("mail", "{}"),
        ("invoices", r#"{"lease_ms":600000,"max_receives":1}"#),
    ] {
        let (status, said) =
            lease_call(reqwest::Method::PUT, &format!("/queues/{queue}"), settings).await;
        assert_eq!(status, 201, "{said}");
        let path = format!("/queues/{queue}/batch");
        lease_call(reqwest::Method::POST, &path, "[1, 2, 3, 4, 5]").await;
    }
    lease_call(reqwest::Method::GET, "/queues/invoices?amount=2", "").await;
    let (_, dying) = lease_call(
        reqwest::Method::GET,
        "/queues/invoices?amount=1&lease_ms=1",
        "",
    )
    .await;
    assert_eq!(dying["messages"].as_array().unwrap().len(), 1, "{dying}");
    wait_until("two leased and one dead", LIMIT, async || {
        browser.go("/leases/queues").await;
        let [row] = &browser.rows_with("invoices").await[..] else {
            return Err("no row".to_owned());
        };
        let counts: Vec<&str> = row.split_whitespace().collect();
        if counts.starts_with(&["invoices", "2", "2", "1"]) {
            Ok(())
        } else {
            Err(row.clone())
        }
    })
    .await;
    // and how fast, which is told a second later
    wait_until("a rate", LIMIT, async || {
        lease_call(reqwest::Method::POST, "/queues/mail", "6").await;
        browser.go("/leases/queues").await;
        let pushed = browser.text("[data-queue=mail] td:nth-child(5)").await;
        if pushed.parse::<f64>().is_ok_and(|rate| rate > 0.0) {
            Ok(())
        } else {
            Err(pushed)
        }
    })
    .await;
    tab(&browser, "Leases").await;
    look(&mut browser, "queues").await;

    browser.go("/signup").await;
    browser.shows("h1", "Create an account").await;
    tab(&browser, "Sign-up").await;
    look(&mut browser, "sign-up").await;
    fill_form(
        &browser,
        &[
            ("firstName", "Ada"),
            ("email", "ada"),
            ("password", "password"),
        ],
    )
    .await;
    browser.find("#lastName-wrong").await;
    look(&mut browser, "sign-up-wrong").await;
    fill_form(
        &browser,
        &[
            ("lastName", "Lovelace"),
            ("email", &address()),
            ("password", PASSWORD),
        ],
    )
    .await;
    browser.shows("#mail", "mail: sent").await;
    look(&mut browser, "account").await;
    browser.click("form[action$='/logout'] button").await;
    browser.shows("h1", "Log in").await;
    look(&mut browser, "log-in").await;
    browser.close().await;
}

#[tokio::test]
async fn a_note_is_written_and_read_without_script() {
    for (at, home) in [(&OTHERS.notes, "/"), (&OTHERS.stack.gateway, "/notes")] {
        let browser = Browser::at(at, WITHOUT_SCRIPT).await;
        browser.go(home).await;
        let own = at == &OTHERS.notes;
        assert_eq!(
            browser.count("nav").await,
            usize::from(!own),
            "tabs at {at}"
        );
        let text = unique("water the plants");
        write(&browser, &text).await;
        assert_eq!(browser.path().await, home);
        wait_until("it to be saved", LIMIT, async || {
            let said = browser.text("#confirmation").await;
            if said.contains("It is saved.") {
                return Ok(());
            }
            browser.click("#confirmation a").await;
            Err(said)
        })
        .await;
        let row = saved(&browser, home, &text).await;
        assert!(row.contains("notes-worker-"), "{row}");
        browser.close().await;
    }
}

#[tokio::test]
async fn an_account_is_made_greeted_mailed_left_and_found_again_without_script() {
    for (at, home) in [(&OTHERS.signup, ""), (&OTHERS.stack.gateway, "/signup")] {
        let browser = Browser::at(at, WITHOUT_SCRIPT).await;
        // who is not known is led to the form
        browser.go(&format!("{home}/")).await;
        browser.shows("h1", "Create an account").await;
        assert_eq!(browser.path().await, format!("{home}/createUser"));
        let email = address();
        fill_form(
            &browser,
            &[
                ("firstName", "Ada"),
                ("lastName", "Lovelace"),
                ("email", &email),
                ("password", "short"),
            ],
        )
        .await;
        browser.find("#password-wrong").await;
        assert_eq!(
            browser.count("[aria-invalid]").await,
            1,
            "only the password is wrong"
        );
        let typed = browser.find("#email").await.prop("value").await.unwrap();
        assert_eq!(
            typed.as_deref(),
            Some(&*email),
            "what was right is still there"
        );
        let password = browser.find("#password").await.prop("value").await.unwrap();
        assert_eq!(password.as_deref(), Some(""), "but never the password");
        sign_up(&browser, &email).await;
        // the page looks again by itself
        browser.shows("#mail", "mail: sent").await;
        let mails: Value = serde_json::from_str(&OTHERS.stack.lab(&["mails", "--json"])).unwrap();
        let mails = mails.as_array().unwrap().iter();
        let mine: Vec<&Value> = mails.filter(|mail| mail["to"] == json!([email])).collect();
        assert_eq!(mine.len(), 1, "{mine:?}");
        assert_eq!(mine[0]["copies"], 1);

        browser.click("form[action$='/logout'] button").await;
        browser.shows("h1", "Log in").await;
        browser.go(&format!("{home}/")).await;
        browser.shows("h1", "Create an account").await;
        // the same address, in other letters
        let name = [("firstName", "Ada"), ("lastName", "Lovelace")];
        let shouted = email.to_uppercase();
        fill_form(
            &browser,
            &[
                name[0],
                name[1],
                ("email", &shouted),
                ("password", PASSWORD),
            ],
        )
        .await;
        browser
            .shows("#email-wrong", "There is an account for this address")
            .await;

        browser.go(&format!("{home}/login")).await;
        fill_form(
            &browser,
            &[("email", &shouted), ("password", "three grey teapots 8")],
        )
        .await;
        browser
            .shows("#error", "The address or the password is not right")
            .await;
        fill_form(&browser, &[("password", PASSWORD)]).await;
        browser.shows("h1", "Hello Ada Lovelace").await;
        browser.close().await;
    }
}
