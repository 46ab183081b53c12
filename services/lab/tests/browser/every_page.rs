//! Every page with something on it, wide and narrow, by day and by night: it fits, it can be read, and its scripts do not
//! fail. `lab screenshots` runs this and its like of the other services, and keeps the pictures.

use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use testkit::wait_until;

use crate::{
    browser::{Browser, Kind, pictures},
    live::{breaking, receivers, turn_of, unfold},
    stack::Stack,
};

const LIMIT: Duration = Duration::from_mins(2);
/// Labels, figures and tabs that are not there in full.
const CUT: &str = "return [...document.querySelectorAll('#balance dt, .figures dd, .tabs')]
    .filter(one => one.scrollWidth > one.clientWidth).map(one => one.textContent)";
const READABLE: &str = include_str!("readable.js");
/// Remembers what goes wrong on a page.
pub(crate) const WRONG: &str = "window.wrong = [];
    addEventListener('error', (event) => wrong.push(event.message));
    addEventListener('unhandledrejection', (event) => wrong.push(String(event.reason)));
    addEventListener('securitypolicyviolation', (event) => wrong.push(event.blockedURI + event.violatedDirective));";
const TEXTS: [&str; 12] = [
    "Good morning from the first window",
    "Order 4711: two pounds of coffee, one teapot, the blue one",
    "Please call Ada back about the analytical engine",
    "Grüße aus Köln, привет из Риги",
    "The parcel for house 12 is with the neighbours",
    "Invoice 2026-1187 is paid",
    "A message of several lines:\n- milk\n- bread\n- a new cable for the modem",
    "Reminder: water the plants on Friday",
    "Temperature in the cellar: 14.2 degrees",
    "Table for four at half past seven, by the window",
    "Backup of the library finished, 3 files skipped",
    "See you at the harbour",
];
const POISON: [&str; 3] = [
    "poison: order 4712 has no address",
    "poison: a date that was never there, 30 February",
    "poison: invoice 2026-1188 over -1.00",
];

/// Looks at the page that is open, as it is, in each kind of window.
pub(crate) async fn look(browser: &mut Browser, name: &str) {
    for (narrow, dark) in [(false, false), (false, true), (true, false), (true, true)] {
        let kind = Kind {
            narrow,
            dark,
            no_script: false,
        };
        browser.be(kind).await;
        browser
            .finds("the flow in its new width", "
                const stage = document.getElementById('flow-stage');
                const svg = document.getElementById('flow-lines');
                return !stage || Number(svg.getAttribute('width')) === Math.floor(stage.clientWidth) || null", &[])
            .await;
        let still =
            "const moves = (one) => one instanceof CSSTransition && one.playState === 'running';
            return !document.getAnimations().some(moves) || null";
        browser
            .finds("colours that change no more", still, &[])
            .await;
        assert_eq!(browser.overflow().await, 0, "{name}, {kind:?}");
        let cut = browser.script(CUT).await;
        assert_eq!(cut, json!([]), "{name}, {kind:?}");
        let unreadable = browser.script(READABLE).await;
        assert_eq!(unreadable, json!([]), "{name}, {kind:?}");
        browser.picture(name).await;
    }
    browser.be(Kind::default()).await;
    let wrong = browser.script("return wrong").await;
    assert_eq!(wrong, json!([]), "{name}");
}

async fn get(stack: &Stack, path: &str) -> Value {
    let answer = reqwest::get(format!("{}{path}", stack.gateway));
    answer.await.unwrap().json().await.unwrap()
}

/// Breaks something at the lab, from its page.
async fn break_it(browser: &Browser, fault: &str, on: Option<&str>, time: &str) {
    unfold(browser, fault).await;
    if let Some(on) = on {
        browser.fill(&format!("#on-{fault}"), on).await;
    }
    browser.fill(&format!("#for-{fault}"), time).await;
    browser.click(&breaking(fault)).await;
    unfold(browser, fault).await;
}

/// Waits until so many seconds are in the charts in which something was processed.
async fn seconds(stack: &Stack, wanted: usize) {
    wait_until("the charts to have something", 3 * LIMIT, async || {
        let history = get(stack, "/lab/api/history").await;
        let seconds = history["seconds"].as_array().unwrap();
        let busy = seconds
            .iter()
            .filter(|second| second["accepted"].as_u64() > Some(3));
        busy.count() >= wanted
    })
    .await;
}

#[tokio::test]
async fn every_page_fits_can_be_read_and_has_no_failing_script() {
    let _turn = turn_of().await;
    let settings = [
        ("WORK_DELAY_MIN_MS", "150"),
        ("WORK_DELAY_MAX_MS", "1500"),
        ("WORK_FAIL_ONE_IN", "6"),
        ("WORK_MAX_FAILURES", "4"),
    ];
    let stack = Stack::start("pages", &["--sender", "2", "--receiver", "3"], &settings);
    let mut browser = Browser::at(&stack.gateway, Kind::default()).await;
    browser.begin_with(WRONG).await;
    let client = Client::new();
    for text in TEXTS.iter().chain(&POISON).chain(&TEXTS) {
        let api = client.post(format!("{}/api/messages", stack.gateway));
        let answer = api.json(&json!({ "message": text })).send().await.unwrap();
        assert!(answer.status().is_success());
    }
    wait_until("all to be processed or parked", LIMIT, async || {
        let all = get(&stack, "/received/api/messages").await;
        all["messages"].as_array().unwrap().len() == 20 && all["dead_letters"]["count"] == 3
    })
    .await;

    for (name, path, ready) in [
        ("send", "/", "#messages tr"),
        ("received", "/received", "#results tr"),
        ("sign-in", "/lab/sign-in", "#token"),
        ("error", "/nowhere", ".error-page"),
    ] {
        browser.go(path).await;
        browser.find(ready).await;
        look(&mut browser, name).await;
    }
    browser.sign_in(&stack.token()).await;
    at_the_lab(&mut browser, &stack).await;
    of_messages(&mut browser, &stack).await;
    of_experiments(&mut browser).await;
    browser.close().await;
}

/// The flow while it moves, and with a dead receiver.
async fn at_the_lab(browser: &mut Browser, stack: &Stack) {
    // Pictures are worth waiting for charts with something on them.
    let (before, between) = if pictures().is_some() {
        (30, 75)
    } else {
        (3, 5)
    };
    browser.shows("#live", "Live.").await;
    for (name, value) in [("rate", "14"), ("for", "10m"), ("poison", "2")] {
        browser.fill(&format!("#load [name={name}]"), value).await;
    }
    browser.click("#load .btn-quiet").await;
    seconds(stack, before).await;
    break_it(browser, "rabbitmq-pause", None, "8s").await;
    seconds(stack, between).await;
    wait_until("the broker to be back", LIMIT, async || {
        get(stack, "/lab/api/state").await["faults"] == json!([])
    })
    .await;
    let moving = "const canvas = document.getElementById('flow-dots');
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((part) => part > 0).length > 1500 || null";
    browser.finds("dots", moving, &[]).await;
    look(browser, "lab").await;

    let victim = receivers(browser).await.swap_remove(1);
    break_it(browser, "receiver-kill", Some(&victim), "10m").await;
    browser.find(".flow-node.is-dead").await;
    browser
        .shows("#faults", &format!("receiver-kill on {victim}"))
        .await;
    look(browser, "lab-broken").await;
    browser.click("#faults .notice-bad button").await;
}

/// The search, the passport of a message whose receiver died, dead letters and a redrive.
async fn of_messages(browser: &mut Browser, stack: &Stack) {
    let returned = wait_until(
        "a message that came back from the dead",
        LIMIT,
        async || {
            let found = get(stack, "/lab/api/messages?attempts=2&state=processed").await;
            for message in found["messages"].as_array()? {
                let id = message["message_id"].as_str()?.to_owned();
                let story = get(stack, &format!("/lab/api/messages/{id}")).await;
                if story.to_string().contains("node-died") {
                    return Some(id);
                }
            }
            None
        },
    )
    .await;
    browser.go("/lab/messages?attempts=2").await;
    browser.find("#found").await;
    look(browser, "messages").await;
    browser.go(&format!("/lab/messages/{returned}")).await;
    look(browser, "message").await;

    browser.go("/lab/dead").await;
    browser.find("#dead-letters").await;
    look(browser, "dead").await;
    browser.click("input[value=matching]").await;
    browser.click("#select .btn-send").await;
    browser.find("#plan").await;
    look(browser, "redrive-plan").await;
    browser.click("form[action$='/start'] button").await;
    browser.shows("h1", "done").await;
    look(browser, "redrive").await;
}

/// The catalogue, and a run with its report.
async fn of_experiments(browser: &mut Browser) {
    browser.go("/lab/experiments").await;
    let form = "form[action='/lab/experiments/failed-work/runs']";
    browser
        .click("details:has(form[action='/lab/experiments/failed-work/runs']) > summary")
        .await;
    look(browser, "experiments").await;
    browser.click(&format!("{form} button[name=twin]")).await;
    // the page follows it by itself
    wait_until("its verdict", 3 * LIMIT, async || {
        if browser.count("[data-state=done]").await == 1 {
            Ok(())
        } else {
            Err(browser.text("#run").await)
        }
    })
    .await;
    look(browser, "run").await;
    browser.click("#run .btn-send").await;
    browser.find("h1").await;
    look(browser, "report").await;
}
