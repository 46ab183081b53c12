//! The rules for the three other services, behind the common port and behind their own.

use reqwest::{Client, redirect::Policy};

use super::*;

/// The services with a port of their own.
const OTHERS: [Service; 3] = [Service::Notes, Service::Leases, Service::Signup];

/// A node that answers with its name, and the address and header as it got them.
async fn tells(name: &'static str, tasks: &mut JoinSet<()>) -> u16 {
    let answer = async move |uri: Uri, headers: HeaderMap| {
        let real = headers.get("x-real-ip").is_some();
        let key = headers.get("x-gateway-key").is_some();
        format!("{name} {uri} {real} {key}").into_response()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tasks.spawn(async move {
        let app = Router::new().fallback(answer);
        axum::serve(listener, app).await.unwrap();
    });
    port
}

/// A node that takes requests, and dies of each before it has answered. It counts those that it took, and those whose
/// client left first.
async fn dies(
    after: Duration,
    tasks: &mut JoinSet<()>,
) -> (u16, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (taken, left) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let counts = (Arc::clone(&taken), Arc::clone(&left));
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            if stream.read(&mut request).await.unwrap_or(0) == 0 {
                continue;
            }
            counts.0.fetch_add(1, Ordering::SeqCst);
            if matches!(timeout(after, stream.read(&mut request)).await, Ok(Ok(0))) {
                counts.1.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    (port, taken, left)
}

#[tokio::test]
async fn each_service_has_its_name_as_a_path_and_a_port_with_the_same_rules() {
    let mut tasks = JoinSet::new();
    let mut nodes = Vec::new();
    for service in OTHERS {
        nodes.push((service, vec![tells(service.name(), &mut tasks).await]));
    }
    let sender = tells("sender", &mut tasks).await;
    nodes.push((Service::Sender, vec![sender]));
    let gateway = Gateway::of(&nodes).await;
    let get = async |url: String| {
        let answer = client().get(&url).send().await.unwrap();
        assert!(answer.headers().contains_key("x-upstream-status"), "{url}");
        answer.text().await.unwrap()
    };
    let unled = Client::builder().redirect(Policy::none()).build().unwrap();
    for service in OTHERS {
        let name = service.name();
        for path in ["", "/", "/a%2Fb?x=1&y=%20", "?amount=10"] {
            let url = format!("{}/{name}{path}", gateway.url);
            assert_eq!(get(url).await, format!("{name} /{name}{path} true true"));
        }
        // another path that begins so
        let url = format!("{}/{name}x", gateway.url);
        assert_eq!(get(url).await, format!("sender /{name}x true true"));
        let own = format!("http://127.0.0.1:{}", gateway.own[&service]);
        for path in ["/", "/queues/a%2Fb?x=1", "/static/x", "/received", "/lab"] {
            let told = get(format!("{own}{path}")).await;
            assert_eq!(told, format!("{name} {path} true true"));
        }
        let moved = |path: String| {
            let (url, unled) = (format!("{own}{path}"), unled.clone());
            async move {
                let answer = unled.post(url).send().await.unwrap();
                let location = answer.headers().get("location").cloned();
                location.filter(|_| answer.status() == 307)
            }
        };
        for (path, root) in [("", "/"), ("/", "/"), ("?a=%0A", "/?a=%0A")] {
            let there = moved(format!("/{name}{path}")).await;
            assert_eq!(there.unwrap(), root, "{name}{path}");
        }
        let page = moved(format!("/{name}/queues?a=1")).await;
        if service == Service::Notes {
            assert_eq!(page, None, "the address of a note");
        } else {
            assert_eq!(page.unwrap(), "/queues?a=1");
        }
        for elsewhere in ["//example.test", "/%2Fexample.test", "x"] {
            assert_eq!(moved(format!("/{name}{elsewhere}")).await, None);
        }
        let large = client().post(&own).body("x".repeat(1024 * 1024 + 1));
        let problem = body(large, 413).await;
        assert_eq!(problem["title"], "Too large", "{problem}");
    }
}

#[tokio::test]
async fn only_what_counts_once_is_sent_to_a_second_node() {
    let mut tasks = JoinSet::new();
    let mut counts = BTreeMap::new();
    let mut nodes = Vec::new();
    for service in OTHERS {
        let at_once = Duration::ZERO;
        let (one, two) = (
            dies(at_once, &mut tasks).await,
            dies(at_once, &mut tasks).await,
        );
        nodes.push((service, vec![one.0, two.0]));
        counts.insert(service, [one.1, two.1]);
    }
    let gateway = Gateway::of(&nodes).await;
    let problem = "Whether it was done is not known";
    for (service, method, keyed, sent, words) in [
        (
            Service::Notes,
            "POST",
            false,
            2,
            "with the header Idempotency-Key",
        ),
        (
            Service::Notes,
            "POST",
            true,
            2,
            "with the same Idempotency-Key",
        ),
        (Service::Leases, "POST", false, 1, problem),
        (
            Service::Leases,
            "POST",
            true,
            1,
            "with the same Idempotency-Key",
        ),
        (Service::Leases, "PATCH", false, 1, problem),
        (Service::Leases, "GET", false, 2, ""),
        (Service::Signup, "POST", false, 1, problem),
        (Service::Signup, "GET", false, 2, ""),
    ] {
        let before = count(&counts[&service]);
        let own = format!("http://127.0.0.1:{}/", gateway.own[&service]);
        let prefix = format!("{}/{}/x", gateway.url, service.name());
        for url in [own, prefix] {
            let mut request = client().request(method.parse().unwrap(), &url);
            if keyed {
                request = request.header("Idempotency-Key", "k");
            }
            let told = body(request, 502).await;
            let detail = told["detail"].as_str().unwrap();
            assert!(detail.contains(words), "{method} {url}: {detail}");
            assert!(!detail.contains("runs here"), "{method} {url}: {detail}");
            assert_eq!(detail.contains("not known"), method != "GET", "{detail}");
        }
        let now = count(&counts[&service]);
        assert_eq!(now - before, 2 * sent, "{method} to {}", service.name());
    }
}

fn count(counts: &[Arc<AtomicUsize>]) -> usize {
    counts
        .iter()
        .map(|count| count.load(Ordering::SeqCst))
        .sum()
}

#[tokio::test]
async fn what_was_not_sent_yet_is_sent_to_a_node_that_is_there() {
    let mut tasks = JoinSet::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = listener.local_addr().unwrap().port();
    drop(listener);
    let lives = tells("leases", &mut tasks).await;
    let gateway = Gateway::of(&[(Service::Leases, vec![gone, lives])]).await;
    let url = format!("http://127.0.0.1:{}/", gateway.own[&Service::Leases]);
    let mut tried_both = 0;
    // which is asked first is chance
    for _ in 0..40 {
        let answer = client().post(&url).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let tried = answer.headers()["x-upstream-status"].to_str().unwrap();
        tried_both += usize::from(tried.contains(','));
    }
    assert!(tried_both > 0, "nothing was tried twice");
}

#[tokio::test]
async fn a_node_sees_that_a_client_leaves_while_it_waits() {
    let mut tasks = JoinSet::new();
    let (node, taken, left) = dies(LIMIT, &mut tasks).await;
    let gateway = Gateway::of(&[(Service::Leases, vec![node])]).await;
    let main = (port(&gateway.url), "/leases");
    for (port, path) in [main, (gateway.own[&Service::Leases], "/")] {
        let before = left.load(Ordering::SeqCst);
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let ask = format!("GET {path}?wait_ms=20000 HTTP/1.1\r\nHost: x\r\n\r\n");
        client.write_all(ask.as_bytes()).await.unwrap();
        wait_until("the node to be asked", LIMIT, async || {
            taken.load(Ordering::SeqCst) > before
        })
        .await;
        assert_eq!(left.load(Ordering::SeqCst), before, "it waits");
        drop(client);
        wait_until("the node to see it", LIMIT, async || {
            left.load(Ordering::SeqCst) > before
        })
        .await;
    }
}

#[tokio::test]
async fn a_service_that_was_not_started_is_said_to_be_so_with_how_to_start_it() {
    let gateway = Gateway::of(&[]).await;
    for service in OTHERS {
        let name = service.name();
        let how = format!("`cargo lab up --with {name}`");
        let own = format!("http://127.0.0.1:{}/", gateway.own[&service]);
        for url in [format!("{}/{name}", gateway.url), own] {
            let problem = body(client().get(&url), 502).await;
            let detail = problem["detail"].as_str().unwrap();
            assert!(
                detail.contains(&how) && detail.contains("--profile"),
                "{detail}"
            );
            let people = client().get(&url).header("Accept", "text/html,*/*");
            let page = page(people, 502).await;
            assert!(
                page.starts_with("<!doctype html>") && page.contains(&how),
                "{page}"
            );
            // the pages of the main job are behind the main port only
            let linked = page.contains("href=\"/received\"");
            assert_eq!(linked, url.starts_with(&gateway.url), "{url}");
        }
    }
    let page = page(client().get(&gateway.url), 502).await;
    assert!(!page.contains("--with"), "{page}");
}
