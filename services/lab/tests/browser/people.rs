//! What people do.

use std::{
    io::{Read, Write},
    net::TcpListener,
    time::Duration,
};

use testkit::wait_until;

use crate::{
    browser::{Browser, Kind},
    stack::{gateway, unique},
};

const LIMIT: Duration = Duration::from_secs(20);
const WITHOUT_SCRIPT: Kind = Kind {
    no_script: true,
    dark: false,
    narrow: false,
};

/// Sends on one page and finds the result on the other.
async fn sends_and_finds(browser: &Browser, text: &str) {
    browser.go("/").await;
    browser.send(text).await;
    let said = browser.text("#confirmation").await;
    assert!(
        said.starts_with("Accepted as #") && said.contains(" by sender-"),
        "{said}"
    );
    let number = said
        .trim_start_matches("Accepted as #")
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    let rows = browser.rows_with(text).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert!(
        rows[0].starts_with(&number) && rows[0].contains("sender-"),
        "{rows:?}"
    );
    assert_eq!(browser.text("#sent").await, "1");
    browser
        .client
        .find(fantoccini::Locator::LinkText("Go to results"))
        .await
        .unwrap()
        .click()
        .await
        .unwrap();
    let result = wait_until("the result", LIMIT, async || {
        browser.go("/received").await;
        browser.rows_with(text).await.pop()
    })
    .await;
    assert!(
        result.starts_with(&number) && result.contains("receiver-"),
        "{result}"
    );
    assert!(result.contains(" ms"), "{result}");
    assert_eq!(
        browser.text("#sent").await,
        "1",
        "both pages know the session"
    );
    browser.go("/").await;
    let rows = browser.rows_with(text).await;
    assert!(rows[0].contains("published"), "{rows:?}");
}

#[tokio::test]
async fn a_message_is_seen_on_both_pages() {
    let browser = Browser::open(Kind::default()).await;
    sends_and_finds(&browser, &unique("hello")).await;
    browser.close().await;
}

#[tokio::test]
async fn both_pages_have_the_same_head_and_no_link_that_leads_nowhere() {
    let browser = Browser::open(Kind::default()).await;
    browser.go("/").await;
    browser.send(&unique("head")).await;
    for (page, node, deed) in [
        ("/", "sender-", "Accepted since its start"),
        ("/received", "receiver-", "Processed since its start"),
    ] {
        browser.go(page).await;
        let labels =
            "return [...document.querySelectorAll('.figures dt')].map(dt => dt.textContent)";
        let expected = ["This node", deed, "Last", "My session", "Active sessions"];
        assert_eq!(browser.script(labels).await, serde_json::json!(expected));
        assert!(browser.text(".figures .node").await.starts_with(node));
        assert_eq!(browser.text("#sent").await, "1");
        let active = browser.text("#active").await;
        assert!(active.parse::<u32>().unwrap() >= 1, "{active}");
        let done = browser.text("#done").await;
        done.parse::<u32>().unwrap();
        let started = browser.find(".figures dt[title]").await;
        let started = started.attr("title").await.unwrap().unwrap();
        assert!(
            started.starts_with("Since 20") && started.ends_with(" UTC"),
            "{started}"
        );
        let links = "return [...document.querySelectorAll('a')].map(a => a.getAttribute('href'))";
        let links: Vec<String> = serde_json::from_value(browser.script(links).await).unwrap();
        for link in links {
            let answer = reqwest::get(gateway().to_owned() + &link).await.unwrap();
            assert!(answer.status().is_success(), "{link}");
        }
        let tabs = "Send\nResults\nLab\nMessages\nDead letters\nExperiments";
        assert_eq!(browser.text(".tabs").await, tabs);
    }
    browser.close().await;
}

#[tokio::test]
async fn everything_works_without_script() {
    let browser = Browser::open(WITHOUT_SCRIPT).await;
    sends_and_finds(&browser, &unique("no script")).await;
    assert!(
        browser.text("thead").await.contains("UTC"),
        "times are said to be UTC"
    );
    let before = browser.session().await;
    browser.click("form[action='/reset-session'] button").await;
    browser.shows("#confirmation", "reset").await;
    assert_ne!(browser.session().await, before);
    browser.close().await;
}

#[tokio::test]
async fn a_reload_sends_nothing_again() {
    let browser = Browser::open(Kind::default()).await;
    let text = unique("once");
    browser.go("/").await;
    browser.send(&text).await;
    for _ in 0..3 {
        browser.client.refresh().await.unwrap();
        assert_eq!(browser.rows_with(&text).await.len(), 1);
        assert_eq!(browser.count("#confirmation").await, 0, "it is said once");
    }
    assert_eq!(browser.text("#sent").await, "1");
    browser.close().await;
}

#[tokio::test]
async fn a_double_click_sends_one_message() {
    let browser = Browser::open(Kind::default()).await;
    let text = unique("twice");
    browser.go("/").await;
    browser
        .find("textarea")
        .await
        .send_keys(&text)
        .await
        .unwrap();
    browser.double_click(".btn-send").await;
    browser.shows("#confirmation", "ccepted as #").await;
    browser.go("/").await;
    assert_eq!(browser.rows_with(&text).await.len(), 1);
    assert_eq!(browser.text("#sent").await, "1");
    browser.close().await;
}

#[tokio::test]
async fn enter_sends_and_shift_enter_begins_a_line() {
    let browser = Browser::open(Kind::default()).await;
    let text = unique("first line");
    browser.go("/").await;
    let field = browser.find("textarea").await;
    // Shift down, Enter, Shift up; then Enter alone.
    field
        .send_keys(&format!("{text}\u{e008}\u{e007}\u{e000}second"))
        .await
        .unwrap();
    assert_eq!(
        field.prop("value").await.unwrap().unwrap(),
        format!("{text}\nsecond")
    );
    field.send_keys("\u{e007}").await.unwrap();
    browser.find("#confirmation").await;
    assert_eq!(browser.rows_with(&format!("{text}\nsecond")).await.len(), 1);
    browser.close().await;
}

#[tokio::test]
async fn an_empty_message_is_not_sent() {
    for kind in [Kind::default(), WITHOUT_SCRIPT] {
        let browser = Browser::open(kind).await;
        browser.go("/").await;
        browser.click(".btn-send").await;
        assert_eq!(browser.count("textarea:invalid").await, 1);
        assert_eq!(
            browser.count("#confirmation, #error").await,
            0,
            "the browser has not asked"
        );
        browser
            .find("textarea")
            .await
            .send_keys("   ")
            .await
            .unwrap();
        browser.click(".btn-send").await;
        if kind.no_script {
            assert_eq!(browser.text("#error").await, "The message is empty.");
        } else {
            assert_eq!(browser.count("textarea:invalid").await, 1);
            assert_eq!(browser.count("#confirmation, #error").await, 0);
        }
        assert_eq!(browser.text("#sent").await, "0");
        browser.close().await;
    }
}

#[tokio::test]
async fn what_is_too_long_comes_back_to_be_shortened() {
    let browser = Browser::open(Kind::default()).await;
    browser.go("/").await;
    let fill =
        "const field = document.querySelector('textarea'); field.removeAttribute('maxlength');
        field.value = 'x'.repeat(10001); field.setCustomValidity('');";
    browser.script(fill).await;
    browser.click(".btn-send").await;
    let said = browser.text("#error").await;
    assert!(
        said.contains("10001 characters") && said.contains("10000"),
        "{said}"
    );
    let kept = browser
        .script("return document.querySelector('textarea').value.length")
        .await;
    assert_eq!(kept, 10_001);
    assert_eq!(browser.overflow().await, 0);
    browser.close().await;
}

#[tokio::test]
async fn markup_is_shown_as_text() {
    let browser = Browser::open(Kind::default()).await;
    let text =
        unique("<b>bold</b><img src=x onerror=\"document.title='x'\">") + "</td></textarea>&amp;";
    browser.go("/").await;
    browser.send(&text).await;
    assert_eq!(
        browser.rows_with(&text).await.len(),
        1,
        "exactly as it was written"
    );
    wait_until("the result", LIMIT, async || {
        browser.go("/received").await;
        browser.rows_with(&text).await.pop()
    })
    .await;
    assert_eq!(browser.count("td b:not(.wait), td img").await, 0);
    assert_eq!(browser.client.title().await.unwrap(), "Results · Unacked");
    browser.close().await;
}

#[tokio::test]
async fn a_reset_begins_a_new_session_and_keeps_the_messages() {
    let browser = Browser::open(Kind::default()).await;
    let text = unique("kept");
    browser.go("/").await;
    browser.send(&text).await;
    let before = browser.session().await.unwrap();
    assert_eq!(browser.text("#sent").await, "1");
    browser.click("form[action='/reset-session'] button").await;
    browser.shows("#confirmation", "reset").await;
    assert_ne!(browser.session().await.unwrap(), before);
    assert_eq!(browser.text("#sent").await, "0");
    assert_eq!(browser.rows_with(&text).await.len(), 1);
    browser.close().await;
}

#[tokio::test]
async fn a_double_click_on_reset_is_one_reset() {
    let browser = Browser::open(Kind::default()).await;
    browser.go("/").await;
    browser
        .double_click("form[action='/reset-session'] button")
        .await;
    wait_until("the first page", LIMIT, async || {
        browser.path().await == "/"
    })
    .await;
    assert_eq!(browser.text("#sent").await, "0");
    browser.close().await;
}

#[tokio::test]
async fn a_foreign_page_resets_nothing_and_sends_nothing() {
    let browser = Browser::open(Kind::default()).await;
    browser.go("/").await;
    browser.send(&unique("mine")).await;
    let before = browser.session().await.unwrap();
    let text = unique("foreign");
    let page = format!(
        "<!doctype html><form method=post action='{0}/reset-session'><input name=csrf value=x>
         <button id=reset>reset</button></form><form method=post action='{0}/'>
         <input name=message value='{text}'><button id=send>send</button></form>",
        gateway()
    );
    let foreign = serve(page);
    for button in ["#reset", "#send"] {
        browser.client.goto(&foreign).await.unwrap();
        // The same host on another port: the browser sends the cookie along.
        browser.click(button).await;
        browser.shows(".error-page .status", "403").await;
    }
    browser.go("/").await;
    assert_eq!(browser.session().await.unwrap(), before);
    assert_eq!(browser.text("#sent").await, "1");
    assert!(browser.rows_with(&text).await.is_empty());
    browser.close().await;
}

/// A page of somebody else, on a port of its own, until the test program ends.
fn serve(page: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let _ = stream.read(&mut [0; 4096]);
            let length = page.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n{page}"
            );
        }
    });
    format!("http://{address}/")
}

#[tokio::test]
async fn the_pages_fit_a_phone_and_a_desk_by_day_and_by_night() {
    let long = format!("{} {}", "w".repeat(200), unique("long words"));
    for (narrow, dark) in [(false, false), (true, false), (false, true), (true, true)] {
        let browser = Browser::open(Kind {
            narrow,
            dark,
            no_script: false,
        })
        .await;
        browser.go("/").await;
        browser.send(&long).await;
        let kind = format!(
            "{}-{}",
            if narrow { "390" } else { "1440" },
            if dark { "dark" } else { "light" }
        );
        assert_eq!(browser.overflow().await, 0, "send, {kind}");
        let lightness = "const c = getComputedStyle(document.body).backgroundColor;
            return c.match(/\\d+/g).slice(0, 3).reduce((sum, n) => sum + Number(n), 0)";
        let lightness = browser.script(lightness).await.as_i64().unwrap();
        assert_eq!(dark, lightness < 200, "{kind}: {lightness}");
        wait_until("the result", LIMIT, async || {
            browser.go("/received").await;
            !browser.rows_with(&long[201..]).await.is_empty()
        })
        .await;
        assert_eq!(browser.overflow().await, 0, "results, {kind}");
        browser.go("/nowhere").await;
        assert_eq!(browser.overflow().await, 0, "an error, {kind}");
        browser.close().await;
    }
}
