//! What a client reads when something is wrong. No Redis is there at all.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Request, StatusCode, header},
    response::Response,
};
use futures::{Stream, StreamExt, stream};

use crate::site::{TestSite, text, value};

/// Nobody listens there.
const NOWHERE: &str = "redis://:x@127.0.0.1:1/0";

fn media(response: &Response) -> &str {
    response
        .headers()
        .get(header::CONTENT_TYPE)
        .map_or("", |media| media.to_str().unwrap())
}

#[tokio::test]
async fn an_unknown_path_is_a_page_or_a_problem_for_whom_it_may_concern() {
    let site = TestSite::on(NOWHERE, 60);
    let page = site.get("/nowhere", None).await;
    assert_eq!(page.status(), StatusCode::NOT_FOUND);
    assert_eq!(media(&page), "text/html; charset=utf-8");
    assert!(
        text(page)
            .await
            .contains("There is nothing at this address.")
    );
    let problem = site.get("/api/nowhere", None).await;
    assert_eq!(problem.status(), StatusCode::NOT_FOUND);
    assert_eq!(media(&problem), "application/problem+json");
    assert_eq!(value(problem).await["status"], 404);
    let asked = Request::get("/nowhere").header(header::ACCEPT, "application/json");
    let problem = site.ask(asked.body(Body::empty()).unwrap()).await;
    assert_eq!(media(&problem), "application/problem+json");
}

#[tokio::test]
async fn a_wrong_method_is_answered_with_the_right_ones() {
    let site = TestSite::on(NOWHERE, 60);
    let answer = site
        .ask(Request::put("/form").body(Body::empty()).unwrap())
        .await;
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.headers()[header::ALLOW], "POST");
    assert_eq!(media(&answer), "text/html; charset=utf-8");
    let answer = site
        .ask(Request::get("/api/echo").body(Body::empty()).unwrap())
        .await;
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(media(&answer), "application/problem+json");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_or_not_its_length_is_said() {
    let site = TestSite::on(NOWHERE, 60);
    let post = || Request::post("/api/echo").header(header::CONTENT_TYPE, "application/json");
    let large = vec![b' '; 2 * 1024 * 1024];
    let said = post().header(header::CONTENT_LENGTH, large.len());
    let answer = site
        .ask(said.body(Body::from(large.clone())).unwrap())
        .await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(media(&answer), "application/problem+json");
    let chunks = large
        .chunks(10_000)
        .map(Bytes::copy_from_slice)
        .map(Ok::<_, Infallible>);
    let chunks = stream::iter(chunks.collect::<Vec<_>>());
    let answer = site
        .ask(post().body(Body::from_stream(chunks)).unwrap())
        .await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(
        value(answer).await["detail"]
            .as_str()
            .unwrap()
            .contains("1 MiB")
    );
}

/// Kilobytes without end, and how many bytes of them were read.
fn endless() -> (
    impl Stream<Item = Result<Bytes, Infallible>>,
    Arc<AtomicUsize>,
) {
    const KILOBYTE: &[u8] = &[b' '; 1024];
    let read = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&read);
    let stream = stream::repeat_with(move || {
        count.fetch_add(KILOBYTE.len(), Ordering::Relaxed);
        Ok(Bytes::from_static(KILOBYTE))
    });
    (stream, read)
}

#[tokio::test]
async fn a_body_is_read_to_its_end_though_the_answer_is_known_before() {
    let site = TestSite::on(NOWHERE, 60);
    let answer = async |request: axum::http::request::Builder, kilobytes: usize| {
        let (stream, read) = endless();
        let body = Body::from_stream(stream.take(kilobytes));
        let status = site.ask(request.body(body).unwrap()).await.status();
        assert_eq!(read.load(Ordering::Relaxed), kilobytes * 1024, "{status}");
        status
    };
    let json = |path| Request::post(path).header(header::CONTENT_TYPE, "application/json");
    assert_eq!(answer(json("/nowhere"), 900).await, StatusCode::NOT_FOUND);
    assert_eq!(
        answer(Request::put("/form"), 900).await,
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert_eq!(
        answer(json("/form"), 900).await,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    for path in ["/api/echo", "/form", "/nowhere"] {
        assert_eq!(
            answer(json(path), 5_000).await,
            StatusCode::PAYLOAD_TOO_LARGE,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_body_without_end_is_left_at_some_point() {
    let site = TestSite::on(NOWHERE, 60);
    let (stream, read) = endless();
    let post = Request::post("/api/echo").header(header::CONTENT_TYPE, "application/json");
    let answer = site
        .ask(post.body(Body::from_stream(stream)).unwrap())
        .await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let read = read.load(Ordering::Relaxed);
    assert!((8 << 20..9 << 20).contains(&read), "{read}");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_fault_of_ours() {
    let site = TestSite::on(NOWHERE, 60);
    let parts = [
        Ok(Bytes::from_static(b"message=")),
        Err(std::io::Error::other("gone")),
    ];
    let body = Body::from_stream(stream::iter(parts));
    let form = "application/x-www-form-urlencoded";
    let request = Request::post("/form")
        .header(header::CONTENT_TYPE, form)
        .body(body)
        .unwrap();
    assert_eq!(
        site.ask(request).await.status(),
        StatusCode::REQUEST_TIMEOUT
    );
}

#[tokio::test]
async fn a_panic_is_a_page_that_says_nothing_of_it() {
    let site = TestSite::on(NOWHERE, 60);
    let answer = site.get("/panic", None).await;
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let page = text(answer).await;
    assert!(
        page.contains("<!doctype html>") && !page.contains("on purpose"),
        "{page}"
    );
    assert_eq!(site.get("/look", None).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_error_of_a_library_is_said_in_our_words() {
    let site = TestSite::on(NOWHERE, 60);
    let answer = site.get("/bare", None).await;
    assert_eq!(answer.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(media(&answer), "text/html; charset=utf-8");
}

#[tokio::test]
async fn a_wrong_content_type_is_named() {
    let site = TestSite::on(NOWHERE, 60);
    let asked = Request::post("/form").header(header::CONTENT_TYPE, "multipart/form-data");
    let answer = site.ask(asked.body(Body::from("message=a")).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(
        text(answer)
            .await
            .contains("application/x-www-form-urlencoded")
    );
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let site = TestSite::on(NOWHERE, 60);
    for path in ["/look", "/nowhere", "/panic", "/static/unacked.css"] {
        let answer = site.get(path, None).await;
        let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok());
        assert_eq!(header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(header("referrer-policy"), Some("same-origin"), "{path}");
        let policy = header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'self'"), "{path}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}");
    }
}

#[tokio::test]
async fn a_static_file_is_kept_for_ever_under_its_hash_and_checked_otherwise() {
    let site = TestSite::on(NOWHERE, 60);
    let page = text(site.get("/nowhere", None).await).await;
    let url = page
        .split('"')
        .find(|part| part.starts_with("/static/unacked.css?v="))
        .unwrap();
    let hashed = site.get(url, None).await;
    assert_eq!(media(&hashed), "text/css; charset=utf-8");
    let cache = |answer: &Response| answer.headers()[header::CACHE_CONTROL].clone();
    assert_eq!(cache(&hashed), "public, max-age=31536000, immutable");
    let etag: HeaderValue = hashed.headers()[header::ETAG].clone();
    assert_eq!(
        cache(&site.get("/static/unacked.css", None).await),
        "no-cache"
    );
    assert_eq!(
        cache(&site.get("/static/unacked.css?v=other", None).await),
        "no-cache"
    );
    let again = Request::get("/static/unacked.css").header(header::IF_NONE_MATCH, etag);
    let again = site.ask(again.body(Body::empty()).unwrap()).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    for path in [
        "/static/nothing.css",
        "/static/..%2Fsrc%2Flib.rs",
        "/static/",
    ] {
        assert_eq!(
            site.get(path, None).await.status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_labs_modules_are_kept_for_ever_in_the_folder_of_their_version() {
    let site = TestSite::on(NOWHERE, 60);
    let folder = &web::static_files::urls().lab;
    let cache = |answer: &Response| answer.headers()[header::CACHE_CONTROL].clone();
    let script = site.get(&format!("{folder}/lab.js"), None).await;
    assert_eq!(media(&script), "text/javascript; charset=utf-8");
    assert_eq!(cache(&script), "public, max-age=31536000, immutable");
    // What one imports is beside it, at an address that changes with the version too.
    let mut asked = vec!["lab.js".to_owned()];
    let mut next = 0;
    while let Some(name) = asked.get(next).cloned() {
        next += 1;
        let answer = site.get(&format!("{folder}/{name}"), None).await;
        assert_eq!(answer.status(), StatusCode::OK, "{name}");
        for part in text(answer).await.split("from \"").skip(1) {
            let imported = part.split('"').next().unwrap();
            let imported = imported.strip_prefix("./").unwrap().to_owned();
            if !asked.contains(&imported) {
                asked.push(imported);
            }
        }
    }
    assert!(asked.len() > 8, "{asked:?}");
    // A page of another version still gets its script, but may not keep it under that address.
    let other = site.get("/static/lab-0123456789abcdef/lab.js", None).await;
    assert_eq!(other.status(), StatusCode::OK);
    assert_eq!(cache(&other), "no-cache");
    let etag = other.headers()[header::ETAG].clone();
    let again = Request::get("/static/lab-0/lab.js").header(header::IF_NONE_MATCH, etag);
    let again = site.ask(again.body(Body::empty()).unwrap()).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    for path in [
        format!("{folder}/package.json"),
        format!("{folder}/nothing.js"),
        "/static/other/lab.js".to_owned(),
    ] {
        assert_eq!(
            site.get(&path, None).await.status(),
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}
