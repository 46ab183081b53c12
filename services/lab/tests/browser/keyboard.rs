//! Without a mouse: every control is reached by Tab, and one sees where one is.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::wait_until_eq;

use crate::{
    browser::{Browser, Kind},
    live::{flow_says, lab_stack, receivers},
    stack::unique,
};

const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const LIMIT: Duration = Duration::from_secs(20);
/// Marks what can be reached and has not been; what is folded or disabled cannot.
const BEGIN: &str = "
    const all = 'a[href], button, input:not([type=hidden]), select, textarea, summary';
    for (const one of document.querySelectorAll(all)) {
        const group = one.type === 'radio' && !one.checked;
        if (one.checkVisibility({ visibilityProperty: true }) && !one.matches(':disabled') && !group) one.dataset.missed = '';
    }
    document.activeElement.blur();
    return document.querySelectorAll('[data-missed]').length";
/// Says what is wrong with where the focus is, or null.
const HERE: &str = "
    const here = document.activeElement;
    delete here.dataset.missed;
    const { outlineStyle, boxShadow } = getComputedStyle(here);
    const seen = outlineStyle !== 'none' || boxShadow !== 'none' || here === document.body;
    return seen ? null : here.outerHTML";

#[tokio::test]
async fn every_control_is_reached_by_tab_and_one_sees_where_one_is() {
    let (stack, _turn) = lab_stack().await;
    let browser = Browser::at(&stack.gateway, Kind::default()).await;
    browser.sign_in(&stack.token()).await;
    browser.go("/").await;
    browser.send(&unique("to be tabbed to")).await;
    for page in [
        "/",
        "/received",
        "/lab",
        "/lab/messages",
        "/lab/dead",
        "/lab/experiments",
        "/lab/sign-in",
    ] {
        browser.go(page).await;
        let all = browser.script(BEGIN).await.as_u64().unwrap();
        assert!(all > 6, "{page}: {all}");
        // A field for a moment has some stops of its own.
        for _ in 0..all + 30 {
            browser.press(TAB).await;
            let unseen = browser.script(HERE).await;
            assert!(unseen.is_null(), "{page}: {unseen}");
        }
        let missed =
            "return [...document.querySelectorAll('[data-missed]')].map(one => one.outerHTML)";
        assert_eq!(browser.script(missed).await, json!([]), "{page}");
    }
    browser.close().await;
}

#[tokio::test]
async fn a_knob_is_turned_by_keys_alone() {
    let (stack, _turn) = lab_stack().await;
    let browser = Browser::at(&stack.gateway, Kind::default()).await;
    browser.go("/lab/sign-in").await;
    browser.press(&format!("{}{ENTER}", stack.token())).await;
    browser.shows(".answered", "signed in").await;
    let node = receivers(&browser).await.swap_remove(0);
    reach(&browser, "#knobs [name=prefetch]").await;
    browser.press(&format!("14{ENTER}")).await;
    flow_says(&browser, &node, "of 14 in hand").await;
    let kept = "return document.activeElement.name";
    assert_eq!(
        browser.script(kept).await,
        "prefetch",
        "one stays where one was"
    );
    reach(&browser, "#knobs [name=clear]").await;
    browser.press(ENTER).await;
    flow_says(&browser, &node, "of 16 in hand").await;
    browser.close().await;
}

#[tokio::test]
async fn enter_twice_on_a_button_is_the_same_deed_twice() {
    let (stack, _turn) = lab_stack().await;
    let browser = Browser::at(&stack.gateway, Kind::default()).await;
    browser.sign_in(&stack.token()).await;
    let accepted = async || {
        let state = reqwest::get(format!("{}/lab/api/state", stack.gateway));
        let state: Value = state.await.unwrap().json().await.unwrap();
        state["all"]["accepted"].as_i64().unwrap()
    };
    let before = accepted().await;
    reach(&browser, "#send-burst").await;
    for bursts in 1..=2 {
        browser.press(ENTER).await;
        let right = before + bursts * 100;
        wait_until_eq("a burst to be accepted", LIMIT, right, accepted).await;
        let here = browser.script("return document.activeElement.id").await;
        assert_eq!(here, "send-burst", "one stays where one was");
    }
    let state = reqwest::get(format!("{}/lab/api/state", stack.gateway));
    let state: Value = state.await.unwrap().json().await.unwrap();
    assert!(state["load"].is_null(), "{state}");
    browser.close().await;
}

/// Tab, until there is this field or button.
async fn reach(browser: &Browser, css: &str) {
    let script = "return document.activeElement.matches(arguments[0])";
    for _ in 0..200 {
        browser.press(TAB).await;
        if browser.script_with(script, vec![json!(css)]).await == true {
            return;
        }
    }
    panic!("Tab never comes to {css}");
}
