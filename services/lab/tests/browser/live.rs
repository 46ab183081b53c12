//! What is seen of a message while it moves, and how soon: by the clock of this machine, noted inside the pages.

use std::{collections::BTreeMap, slice::from_ref, sync::LazyLock, time::Duration};

use reqwest::Client;
use serde_json::{Value, json};
use testkit::wait_until;
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    browser::{Browser, Kind},
    stack::{Stack, unique},
};

const NOTED: &str = include_str!("noted.js");
const LIMIT: Duration = Duration::from_secs(20);
/// From an event to its being seen, in milliseconds.
const SOON: i64 = 1_000;
/// Whether nodes live is looked at twice a second, and told once a second.
const DEATH_SOON: i64 = 2_000;

/// The stack for the lab's tests, which have it one at a time: what one does to it the others would see.
pub(crate) async fn lab_stack() -> (&'static Stack, MutexGuard<'static, ()>) {
    static LAB: LazyLock<Stack> = LazyLock::new(|| {
        let settings = [("WORK_DELAY_MAX_MS", "100"), ("WORK_FAIL_ONE_IN", "0")];
        Stack::start("lab", &["--sender", "2", "--receiver", "2"], &settings)
    });
    let turn = turn_of().await;
    set_right(&LAB).await;
    (&LAB, turn)
}

/// Undoes what a test that failed has left: faults, a load, turned knobs.
async fn set_right(stack: &Stack) {
    let client = Client::builder().cookie_store(true).build().unwrap();
    let at = |path: &str| format!("{}{path}", stack.gateway);
    let token = [("token", stack.token())];
    let signed_in = client.post(at("/lab/sign-in")).form(&token).send().await;
    let page = signed_in.unwrap().text().await.unwrap();
    let csrf = page.split("name=\"csrf\" value=\"").nth(1).unwrap();
    let csrf = csrf.split('"').next().unwrap();
    let state = client.get(at("/lab/api/state")).send().await.unwrap();
    let state: Value = state.json().await.unwrap();
    let mut deeds = vec![("/lab/api/knobs", json!({"target": "all", "clear": true}))];
    for node in state["nodes"].as_array().unwrap() {
        let clear = json!({"target": node["name"], "clear": true});
        deeds.push(("/lab/api/knobs", clear));
    }
    if state["faults"] != json!([]) {
        deeds.push(("/lab/api/faults/heal", json!({})));
    }
    if !state["load"].is_null() {
        deeds.push(("/lab/api/load/stop", json!({})));
    }
    for (path, body) in deeds {
        let deed = client.post(at(path)).header("x-csrf-token", csrf);
        let answer = deed.json(&body).send().await.unwrap();
        let (status, said) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {said}");
    }
}

/// One at a time, so that nobody's second is spent by another.
pub(crate) async fn turn_of() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Names of the receivers, at the lab.
pub(crate) async fn receivers(browser: &Browser) -> Vec<String> {
    let names =
        "return [...document.querySelectorAll('#target option:not([value])')].map(o => o.text)";
    serde_json::from_value(browser.script(names).await).unwrap()
}

/// Turns knobs of one node, or of all; without any, back to the settings.
pub(crate) async fn turn(browser: &Browser, target: &str, knobs: &[(&str, &str)]) {
    let label = if target == "all" { "all nodes" } else { target };
    browser.choose("#target", label).await;
    if knobs.is_empty() {
        browser.click("#knobs button[name=clear]").await;
    } else {
        for (name, value) in knobs {
            let css = format!("#knobs [name={name}]");
            if *name == "failure_action" {
                browser.choose(&css, value).await;
            } else {
                browser.fill(&css, value).await;
            }
        }
        browser.click("#knobs button:not([name])").await;
    }
}

/// Unfolds the faults among which this one is, or folds them.
pub(crate) async fn unfold(browser: &Browser, fault: &str) {
    let group = format!("details:has(input[value='{fault}']) > summary");
    browser.click(&group).await;
}

/// The button that does it.
pub(crate) fn breaking(fault: &str) -> String {
    format!("form:has(input[value='{fault}']) button")
}

/// Waits until the flow says this of a node.
pub(crate) async fn flow_says(browser: &Browser, node: &str, says: &str) {
    let title = "return [...document.querySelectorAll('.flow-node title')].map(t => t.textContent)
        .find(t => t.startsWith(arguments[0] + ':')) ?? ''";
    wait_until(&format!("{node}: {says}"), LIMIT, async || {
        let title = browser.script_with(title, vec![json!(node)]).await;
        let title = title.as_str().unwrap().to_owned();
        if title.contains(says) {
            Ok(())
        } else {
            Err(title)
        }
    })
    .await;
}

/// When something was seen, in milliseconds since 1970.
async fn seen(browser: &Browser, what: &str, script: &str, arguments: &[Value]) -> i64 {
    let at = browser.finds(what, script, arguments).await;
    at.as_i64().unwrap()
}

#[tokio::test]
async fn a_message_is_seen_in_every_window_within_a_second_of_each_event() {
    let (stack, _turn) = lab_stack().await;
    let mut browser = Browser::at(&stack.gateway, Kind::default()).await;
    let writing = browser.client.window().await.unwrap();
    let mut windows = Vec::new();
    for page in ["/", "/received", "/lab"] {
        windows.push(browser.window().await);
        browser.begin_with(NOTED).await;
        browser.go(page).await;
        browser.find("#live.ok").await;
        browser.script("window.isThis = 'the first page'").await;
    }
    let [home, received, lab] = &windows[..] else {
        panic!("three windows");
    };
    browser.script("return hear()").await;
    let mut latest = BTreeMap::<String, i64>::new();
    for round in 0..5 {
        browser.turn_to(lab).await;
        let rest = "return Date.now() - (noted.dots.at(-1)?.[0] ?? 0) > 300 || null";
        browser.finds("no dot to move", rest, &[]).await;

        browser.turn_to(&writing).await;
        browser.go("/").await;
        let text = unique("seen everywhere");
        browser.send(&text).await;
        let row = "return [...document.querySelectorAll('tr[data-message]')]
            .find(row => row.textContent.includes(arguments[0]))?.dataset.message ?? null";
        let id = browser.finds("the row", row, &[json!(text)]).await;

        browser.turn_to(lab).await;
        let mut at = BTreeMap::new();
        for kind in ["accepted", "published", "delivered", "processed"] {
            let event = "return noted.events
                .find(event => event.id === arguments[0] && event.kind === arguments[1])?.at ?? null";
            let event = seen(&browser, kind, event, &[id.clone(), json!(kind)]).await;
            at.insert(kind, event);
        }
        let mut note = |what: &str, kind: &str, seen: i64| {
            let late = seen - at[kind];
            assert!(
                late <= SOON,
                "{what}: {late} ms after {kind}, round {round}"
            );
            let most = latest.entry(what.to_owned()).or_insert(late);
            *most = late.max(*most);
        };
        for (kind, line) in [
            ("accepted", "in"),
            ("published", "publish"),
            ("delivered", "deliver"),
            ("processed", "out"),
        ] {
            let dot = "return dotOn(arguments[0], arguments[1])";
            let dot = seen(&browser, line, dot, &[json!(line), json!(at[kind])]).await;
            note(&format!("a dot on the line {line}"), kind, dot);
        }
        let row = "return noted.rows[arguments[0]] ?? null";
        browser.turn_to(home).await;
        let there = seen(&browser, "its row", row, from_ref(&id)).await;
        note("its row on /", "accepted", there);
        let state = format!("{} published", id.as_str().unwrap());
        let there = seen(&browser, "published", row, &[json!(state)]).await;
        note("its state on /", "published", there);
        browser.turn_to(received).await;
        let there = seen(&browser, "its result", row, from_ref(&id)).await;
        note("its row on /received", "processed", there);
    }
    for window in &windows {
        browser.turn_to(window).await;
        assert_eq!(
            browser.script("return window.isThis").await,
            "the first page"
        );
    }
    println!("seen at most so many ms after the event: {latest:?}");
    browser.close().await;
}

/// A browser has six connections to an address for all its pages, and each live page that is seen holds one.
#[tokio::test]
async fn more_tabs_than_a_browser_has_connections_are_live_when_they_are_seen() {
    let (stack, _turn) = lab_stack().await;
    let mut browser = Browser::at(&stack.gateway, Kind::default()).await;
    browser.go("/").await;
    browser.find("#live.ok").await;
    let first = browser.client.window().await.unwrap();
    for page in ["/received", "/lab", "/"].repeat(3) {
        browser.tab().await;
        browser.go(page).await;
        browser.find("#live.ok").await;
    }
    let text = unique("sent from another tab");
    browser.send(&text).await;
    browser.turn_to(&first).await;
    browser.shows("table[data-live]", &text).await;
    browser.close().await;
}

#[tokio::test]
async fn a_killed_receiver_turns_dead_and_its_messages_come_back_and_another_takes_them() {
    let (stack, _turn) = lab_stack().await;
    let mut browser = Browser::at(&stack.gateway, Kind::default()).await;
    browser.begin_with(NOTED).await;
    browser.sign_in(&stack.token()).await;
    browser.shows("#live", "Live.").await;
    browser.script("return hear()").await;
    let victim = receivers(&browser).await.swap_remove(0);
    // What it takes it keeps, for longer than it lives.
    let slow = [
        ("delay_min_ms", "60000"),
        ("delay_max_ms", "60000"),
        ("prefetch", "9"),
    ];
    turn(&browser, &victim, &slow).await;
    flow_says(&browser, &victim, "of 9 in hand").await;
    browser.click("#load button[value='100']").await;
    flow_says(&browser, &victim, "9 of 9 in hand").await;

    unfold(&browser, "receiver-kill").await;
    browser.fill("#on-receiver-kill", &victim).await;
    browser.fill("#for-receiver-kill", "10m").await;
    browser.click(&breaking("receiver-kill")).await;
    let died =
        "return noted.nodes[arguments[0]]?.find(({ state }) => state === 'dead')?.at ?? null";
    let died = seen(&browser, "its death", died, &[json!(victim)]).await;
    let state = reqwest::get(format!("{}/lab/api/state", stack.gateway));
    let state: Value = state.await.unwrap().json().await.unwrap();
    let killed = state["faults"][0]["since"].as_i64().unwrap();
    assert!(died - killed <= DEATH_SOON, "{} ms", died - killed);
    flow_says(&browser, &victim, "9 in hand went back").await;
    let news = format!("{victim} died, up to 9 in hand went back");
    browser.shows("#flow-news", &news).await;
    let dot = "return dotOn(arguments[0], arguments[1])";
    let back = seen(&browser, "a way back", dot, &[json!("back"), json!(killed)]).await;
    assert!(back - killed <= DEATH_SOON, "{} ms", back - killed);
    browser.shows("#faults .notice-bad", "receiver-kill").await;

    let again = "const again = noted.events
            .filter(({ kind, redelivered }) => kind === 'delivered' && redelivered);
        return new Set(again.map(({ id }) => id)).size === 9 ? again : null";
    let again = browser.finds("nine deliveries again", again, &[]).await;
    let again = again.as_array().unwrap();
    for event in again {
        assert_ne!(event["node"], victim.as_str(), "{event}");
        let at = event["at"].as_i64().unwrap();
        let taken = seen(&browser, "a way on", dot, &[json!("deliver"), json!(at)]).await;
        assert!(taken - at <= SOON, "{} ms", taken - at);
    }
    let other = again[0]["node"].as_str().unwrap();
    let id = again[0]["id"].as_str().unwrap();
    browser
        .click("button[aria-label='Heal receiver-kill']")
        .await;
    flow_says(&browser, &victim, "of 9 in hand").await;
    println!(
        "seen dead after {} ms, going back after {} ms",
        died - killed,
        back - killed
    );
    turn(&browser, &victim, &[]).await;
    flow_says(&browser, &victim, "of 16 in hand").await;

    browser.window().await;
    browser.go("/received").await;
    let row = format!("tr[data-message='{id}']");
    browser.shows(&row, other).await;
    assert_eq!(browser.text(&format!("{row} .attempt b")).await, "2");
    browser.click(&format!("{row} a")).await;
    // what a node did last may be written a moment later, and a passport is as of when it was asked for
    let passport = format!("/lab/messages/{id}");
    wait_until("the cause", LIMIT, async || {
        browser.go(&passport).await;
        let why = browser.text(".story-then").await;
        if why.contains("its node died") {
            Ok(())
        } else {
            Err(why)
        }
    })
    .await;
    let story = browser.text(".story").await;
    assert!(story.contains(&victim) && story.contains(other), "{story}");
    browser.close().await;
}
