//! What one does at the lab: after signing in, and not before.

use std::time::Duration;

use testkit::wait_until;

use crate::{
    browser::{Browser, Kind},
    live::{breaking, flow_says, lab_stack, receivers, turn, unfold},
    stack::unique,
};

const LIMIT: Duration = Duration::from_secs(30);
const CONTROLS: &str = "main form[method=post] button";

/// How many controls can be pressed, and how many there are.
async fn controls(browser: &Browser) -> (usize, usize) {
    let open = browser.count(&format!("{CONTROLS}:enabled")).await;
    (open, browser.count(CONTROLS).await)
}

#[tokio::test]
async fn only_the_right_token_opens_the_controls() {
    let (stack, _turn) = lab_stack().await;
    let browser = Browser::at(&stack.gateway, Kind::default()).await;
    for page in ["/lab", "/lab/experiments"] {
        browser.go(page).await;
        let (open, all) = controls(&browser).await;
        assert!(open == 0 && all > 10, "{page}: {open} of {all}");
    }
    browser.go("/lab").await;
    browser.click("main > .notice a").await;
    browser.fill("#token", "not the token of this stack").await;
    browser.click("main .btn-send").await;
    browser.shows(".notice-bad", "not the token").await;
    browser.go("/lab").await;
    assert_eq!(controls(&browser).await.0, 0);

    browser.sign_in(&stack.token()).await;
    let (open, all) = controls(&browser).await;
    assert!(open > all / 2, "{open} of {all}");
    assert_eq!(browser.count("#knobs button:disabled").await, 0);
    let node = receivers(&browser).await.swap_remove(1);
    turn(&browser, &node, &[("prefetch", "11")]).await;
    flow_says(&browser, &node, "of 11 in hand").await;
    browser.shows("#knobs > p", &node).await;
    turn(&browser, &node, &[]).await;
    flow_says(&browser, &node, "of 16 in hand").await;

    browser.go("/lab/sign-in").await;
    browser.click("form[action='/lab/sign-out'] button").await;
    browser.shows("main > .notice", "Sign in").await;
    assert_eq!(controls(&browser).await.0, 0);
    browser.close().await;
}

#[tokio::test]
async fn a_dead_letter_is_sent_back_after_the_page_has_said_what_that_would_do() {
    let (stack, _turn) = lab_stack().await;
    let mut browser = Browser::at(&stack.gateway, Kind::default()).await;
    browser.sign_in(&stack.token()).await;
    let lab = browser.client.window().await.unwrap();
    let nodes = receivers(&browser).await;
    let park = [
        ("fail_one_in", "1"),
        ("failure_action", "park"),
        ("prefetch", "13"),
    ];
    turn(&browser, "all", &park).await;
    for node in &nodes {
        flow_says(&browser, node, "of 13 in hand").await;
    }
    let other = browser.window().await;
    browser.go("/").await;
    let text = unique("given up on");
    browser.send(&text).await;
    let found = format!("/lab/dead?text={}", text.replace(' ', "+"));
    wait_until("the dead letter", LIMIT, async || {
        browser.go(&found).await;
        browser.rows_with(&text).await.pop()
    })
    .await;
    browser.turn_to(&lab).await;
    turn(&browser, "all", &[]).await;
    for node in &nodes {
        flow_says(&browser, node, "of 16 in hand").await;
    }

    browser.turn_to(&other).await;
    browser.click("#dead-letters input[name=id]").await;
    browser.click("#select .btn-send").await;
    browser.shows("#plan", "1 selected").await;
    assert_eq!(browser.count("#progress").await, 0, "nothing is sent yet");
    browser.click("form[action$='/start'] button").await;
    browser.shows("#progress", "1 processed by now").await;
    browser.go("/received").await;
    assert_eq!(browser.rows_with(&text).await.len(), 1);
    browser.click("tr[data-message] a").await;
    browser
        .shows(".story", "sent back from the dead letters")
        .await;
    browser.go(&found).await;
    assert_eq!(
        browser.count("#dead-letters").await,
        0,
        "it is parked no more"
    );
    browser.close().await;
}

#[tokio::test]
async fn the_lab_works_without_script() {
    let (stack, _turn) = lab_stack().await;
    let kind = Kind {
        no_script: true,
        ..Kind::default()
    };
    let browser = Browser::at(&stack.gateway, kind).await;
    browser.sign_in(&stack.token()).await;
    for (css, shown) in [("#picture", false), ("#charts", false), ("#flow", true)] {
        let part = browser.find(css).await;
        assert_eq!(part.is_displayed().await.unwrap(), shown, "{css}");
    }
    assert_eq!(browser.count("#flow tr[data-node]").await, 4);
    turn(&browser, "all", &[("prefetch", "12")]).await;
    browser.shows("#turned", "prefetch 12").await;
    turn(&browser, "all", &[]).await;
    browser.shows("#turned", "none").await;

    browser.click("#load button[name=poison]").await;
    unfold(&browser, "work-fail").await;
    browser.click(&breaking("work-fail")).await;
    browser.shows("#faults .notice-bad", "work-fail").await;
    browser.click("#faults .notice-bad button").await;
    wait_until("nothing to be broken", LIMIT, async || {
        browser.go("/lab").await;
        browser.count("#faults .notice-bad").await == 0
    })
    .await;

    browser.go("/lab/messages?text=kept&attempts=0").await;
    browser.shows("#wrong", "a number from 1").await;
    let kept = "return document.getElementById('s-text').value";
    assert_eq!(browser.script(kept).await, "kept");
    browser.go("/lab/messages").await;
    browser.fill("#s-text", "from the console").await;
    browser.click(".search .btn-send").await;
    browser.click("#found tbody a").await;
    browser.shows(".story", "Accepted").await;
    let letter = wait_until("the dead letter", LIMIT, async || {
        browser.go("/lab/dead?text=poison").await;
        browser.rows_with("poison: from the console").await.pop()
    })
    .await;
    browser.click("#dead-letters input[name=id]").await;
    browser.fill("[name=confirm]", "discard 1").await;
    browser.click("[formaction='/lab/dead/discard']").await;
    browser
        .shows("#notice", "1 dead letter was discarded")
        .await;
    browser.go("/lab/dead?text=poison").await;
    assert!(!browser.rows_with(&letter).await.contains(&letter));
    browser.close().await;
}
