//! Sessions in a real Redis, and without it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use daemon::redis::fred::interfaces::{KeysInterface, SortedSetsInterface};
use futures::future::join_all;
use testkit::{Direction, Proxy, Servers, wait_until};
use tokio::{runtime::Handle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::site::{TestSite, cookie, text, value};

const LIMIT: Duration = Duration::from_secs(10);

fn post(path: &str, cookie: &str) -> Request<Body> {
    let cookie = format!("unacked_session={cookie}");
    Request::post(path)
        .header(header::COOKIE, cookie)
        .body(Body::empty())
        .unwrap()
}

/// Redis behind a proxy.
async fn behind(ttl: u32) -> (TestSite, Proxy) {
    let url = Servers::shared().at.redis.url;
    let proxy = Proxy::before(&url).await;
    let site = TestSite::on(&proxy.url(&url), ttl);
    site.connected().await;
    (site, proxy)
}

#[tokio::test]
async fn a_page_starts_a_session_and_the_next_one_finds_it() {
    let site = TestSite::new().await;
    let first = site.get("/", None).await;
    let set = first.headers()[header::SET_COOKIE]
        .to_str()
        .unwrap()
        .to_owned();
    for part in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=1800"] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains("Secure"), "{set}");
    let id = cookie(&first).unwrap();
    let csrf = value(first).await["csrf"].clone();
    let second = site.get("/", Some(&id)).await;
    assert_eq!(
        cookie(&second),
        None,
        "an unchanged session is not written again"
    );
    let second = value(second).await;
    assert_eq!((&second["csrf"], &second["active"]), (&csrf, &1.into()));
}

#[tokio::test]
async fn who_only_looks_starts_no_session() {
    let site = TestSite::new().await;
    let look = site.get("/look", None).await;
    assert_eq!(cookie(&look), None);
    assert_eq!(value(look).await["known"], false);
    assert_eq!(site.indexed().await, 0);
}

#[tokio::test]
async fn an_id_that_is_not_ours_is_replaced_and_never_an_error() {
    let site = TestSite::new().await;
    let unknown = "AAAAAAAAAAAAAAAAAAAAAA";
    for id in [
        unknown,
        "",
        "x",
        "%00",
        "a b",
        "\u{e4}",
        &"A".repeat(4_000),
        "\"",
        "=;=,",
    ] {
        let page = site.get("/", Some(id)).await;
        assert_eq!(page.status(), StatusCode::OK, "{id}");
        assert_ne!(cookie(&page).expect("a session of our own"), id);
    }
    let bytes = Request::get("/").header(header::COOKIE, &b"unacked_session=\xff\xfe"[..]);
    let page = site.ask(bytes.body(Body::empty()).unwrap()).await;
    assert_eq!(page.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_no_session() {
    let site = TestSite::new().await;
    let id = cookie(&site.get("/", None).await).unwrap();
    let _: () = site
        .pool
        .set(&id, "not ours", None, None, false)
        .await
        .unwrap();
    let page = site.get("/", Some(&id)).await;
    assert_eq!(page.status(), StatusCode::OK);
    assert_ne!(cookie(&page).unwrap(), id);
}

#[tokio::test]
async fn messages_counted_at_once_are_all_counted() {
    let site = TestSite::new().await;
    let id = cookie(&site.get("/", None).await).unwrap();
    // Each twice, as a double click does.
    let paths: Vec<_> = (0..100).map(|n| format!("/count/{}", n / 2)).collect();
    join_all(paths.iter().map(|path| site.ask(post(path, &id)))).await;
    assert_eq!(value(site.get("/look", Some(&id)).await).await["sent"], 50);
    let keys = format!("{}sent:*", site.prefix);
    let (_, keys): (String, Vec<String>) = site
        .pool
        .scan_page("0", keys, Some(100_000), None)
        .await
        .unwrap();
    let ttl: i64 = site.pool.ttl(&keys[0]).await.unwrap();
    assert!(
        ttl > 1800,
        "a counter outlives its session, and not for ever: {ttl}"
    );
}

#[tokio::test]
async fn a_reset_gives_a_new_id_and_leaves_nothing_of_the_old() {
    let site = TestSite::new().await;
    let old = cookie(&site.get("/", None).await).unwrap();
    site.ask(post("/count/1", &old)).await;
    let before = value(site.get("/look", Some(&old)).await).await;
    let reset = site.ask(post("/reset", &old)).await;
    assert_eq!(reset.status(), StatusCode::OK);
    let new = cookie(&reset).unwrap();
    assert_ne!(new, old);
    let after = value(site.get("/look", Some(&new)).await).await;
    assert_eq!((&before["sent"], &after["sent"]), (&1.into(), &0.into()));
    assert_ne!(before["csrf"], after["csrf"]);
    assert_eq!(after["active"], 1);
    let kept: i64 = site.pool.exists(&old).await.unwrap();
    assert_eq!((kept, site.indexed().await), (0, 1));
    assert_eq!(
        value(site.get("/look", Some(&old)).await).await["known"],
        false
    );
}

#[tokio::test]
async fn a_token_is_believed_until_the_second_reset() {
    let site = TestSite::new().await;
    let first = site.get("/", None).await;
    let mut id = cookie(&first).unwrap();
    let csrf = value(first).await["csrf"].as_str().unwrap().to_owned();
    let proves =
        async |id: &str| text(site.get(&format!("/proves/{csrf}"), Some(id)).await).await == "true";
    assert!(proves(&id).await);
    // The second of a double click has the new cookie and the token of the old page.
    id = cookie(&site.ask(post("/reset", &id)).await).unwrap();
    assert!(proves(&id).await);
    id = cookie(&site.ask(post("/reset", &id)).await).unwrap();
    assert!(!proves(&id).await);
    let other = cookie(&site.get("/", None).await).unwrap();
    assert!(!proves(&other).await);
}

#[tokio::test]
async fn something_is_said_once() {
    let site = TestSite::new().await;
    let id = cookie(&site.get("/", None).await).unwrap();
    assert_eq!(text(site.ask(post("/flash", &id)).await).await, "null");
    assert_eq!(
        text(site.ask(post("/flash", &id)).await).await,
        "\"said once\""
    );
}

#[tokio::test]
async fn reading_keeps_a_session_alive_and_silence_ends_it() {
    // A quarter of four seconds is how often reading puts the end off.
    let site = TestSite::on(&Servers::shared().at.redis.url, 4);
    site.connected().await;
    let id = cookie(&site.get("/", None).await).unwrap();
    let began = Instant::now();
    wait_until("a session older than its limit", LIMIT, async || {
        let known = value(site.get("/look", Some(&id)).await).await["known"] == true;
        assert!(
            known,
            "it ended while it was in use, after {:?}",
            began.elapsed()
        );
        began.elapsed() > Duration::from_secs(6)
    })
    .await;
    wait_until("its end", LIMIT, async || {
        let kept: i64 = site.pool.exists(&id).await.unwrap();
        kept == 0
    })
    .await;
    let active = value(site.get("/look", None).await).await["active"].clone();
    assert_eq!(active, 0, "an ended session does not count, pruned or not");
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test has no Lifecycle")]
async fn ended_sessions_leave_the_index_and_living_ones_stay() {
    let site = TestSite::new().await;
    site.get("/", None).await;
    let index = format!("{}sessions", site.prefix);
    for chunk in 0..5 {
        let ended: Vec<_> = (0..1_000).map(|n| (1.0, format!("{chunk}-{n}"))).collect();
        let _: () = site
            .pool
            .zadd(&index, None, None, false, false, ended)
            .await
            .unwrap();
    }
    let stop = CancellationToken::new();
    let keeper = tokio::spawn(site.sessions.clone().keep_index(stop.clone()));
    wait_until("a pruned index", LIMIT, async || site.indexed().await == 1).await;
    stop.cancel();
    keeper.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_page_without_redis_is_a_page_without_a_session_and_comes_back() {
    let (site, proxy) = behind(1800).await;
    let id = cookie(&site.get("/", None).await).unwrap();
    proxy.refuse(true);
    proxy.cut_rst();
    wait_until("pages without Redis", LIMIT, async || {
        let began = Instant::now();
        let page = site.get("/", Some(&id)).await;
        assert_eq!(page.status(), StatusCode::OK);
        assert_eq!(cookie(&page), None, "the cookie stays as it is");
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
        value(page).await["known"] == false
    })
    .await;
    // A client notices on its own time; then nothing waits any more.
    wait_until("pages at once", LIMIT, async || {
        let began = Instant::now();
        let page = site.get("/", None).await;
        assert_eq!((page.status(), cookie(&page)), (StatusCode::OK, None));
        assert_eq!(value(page).await["active"], serde_json::Value::Null);
        began.elapsed() < Duration::from_millis(300)
    })
    .await;
    assert_eq!(
        site.ask(post("/reset", &id)).await.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    proxy.refuse(false);
    wait_until("the same session again", LIMIT, async || {
        value(site.get("/", Some(&id)).await).await["known"] == true
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_hangs_is_waited_for_once_in_a_request() {
    let (site, proxy) = behind(1800).await;
    let id = cookie(&site.get("/", None).await).unwrap();
    proxy.freeze(Direction::Down);
    let began = Instant::now();
    let page = site.get("/", Some(&id)).await;
    let took = began.elapsed();
    assert_eq!(page.status(), StatusCode::OK);
    // Loading the session, two figures and its end would be four times 0.7 s.
    assert!(took < Duration::from_millis(1_300), "{took:?}");
    proxy.thaw();
    proxy.cut_rst();
    wait_until("the session again", LIMIT, async || {
        value(site.get("/", Some(&id)).await).await["known"] == true
    })
    .await;
}

#[tokio::test]
async fn an_answer_stands_though_its_session_cannot_be_saved() {
    let url = Servers::shared().at.redis.url;
    let proxy = Arc::new(Proxy::before(&url).await);
    let cutting = Arc::clone(&proxy);
    let site = TestSite::with(&proxy.url(&url), 1800, move || {
        cutting.freeze(Direction::Up);
    });
    site.connected().await;
    let id = cookie(&site.get("/", None).await).unwrap();
    let answer = site.ask(post("/away", &id)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(cookie(&answer), None, "no cookie for what was not stored");
    assert_eq!(text(answer).await, "accepted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_gone_when_it_is_saved_does_not_come_back_and_is_no_outage() {
    let url = Servers::shared().at.redis.url;
    let other = TestSite::new().await;
    let target = Arc::new(OnceLock::<String>::new());
    let (gone, pool) = (Arc::clone(&target), other.pool.clone());
    let site = TestSite::with(&url, 1800, move || {
        let (id, pool) = (gone.get().unwrap().clone(), pool.clone());
        let deleted = async { pool.del::<i64, _>(id).await };
        tokio::task::block_in_place(|| Handle::current().block_on(deleted)).unwrap();
    });
    site.connected().await;
    let id = cookie(&site.get("/", None).await).unwrap();
    target.set(id.clone()).unwrap();
    let answer = site.ask(post("/away", &id)).await;
    assert_eq!((answer.status(), cookie(&answer)), (StatusCode::OK, None));
    let kept: i64 = site.pool.exists(&id).await.unwrap();
    assert_eq!(kept, 0);
    let page = site.get("/", Some(&id)).await;
    assert_ne!(cookie(&page).unwrap(), id);
}

#[tokio::test]
async fn the_number_of_active_sessions_costs_the_same_with_many() {
    let site = TestSite::new().await;
    let index = format!("{}sessions", site.prefix);
    for chunk in 0..50 {
        let living: Vec<_> = (0..1_000).map(|n| (9e12, format!("{chunk}-{n}"))).collect();
        let _: () = site
            .pool
            .zadd(&index, None, None, false, false, living)
            .await
            .unwrap();
    }
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(value(site.get("/look", None).await).await["active"], 50_000);
    }
    let each = began.elapsed() / 100;
    assert!(each < Duration::from_millis(20), "{each:?}");
}
