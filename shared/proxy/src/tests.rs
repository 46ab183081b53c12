use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

async fn wait_until(what: &str, mut true_now: impl AsyncFnMut() -> bool) {
    let waited = timeout(LIMIT, async {
        while !true_now().await {
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited for {what}");
}

/// A server that sends back what it gets, and a proxy before it.
async fn echo() -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    Proxy::to(address.to_string()).await
}

async fn client(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

async fn said(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    heard(stream, text.len()).await
}

async fn heard(stream: &mut TcpStream, length: usize) -> String {
    let mut answer = vec![0; length];
    timeout(LIMIT, stream.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn bytes_go_through_and_are_counted() {
    let proxy = echo().await;
    let mut client = client(&proxy).await;
    assert_eq!(said(&mut client, "hello").await, "hello");
    assert_eq!((proxy.open(), proxy.accepted()), (1, 1));
    assert_eq!(proxy.bytes(Direction::Up), 5);
    wait_until("the way back", async || proxy.bytes(Direction::Down) == 5).await;
}

#[tokio::test]
async fn the_end_of_one_direction_is_passed_on() {
    let proxy = echo().await;
    let mut client = client(&proxy).await;
    client.write_all(b"last").await.unwrap();
    client.shutdown().await.unwrap();
    let mut rest = String::new();
    timeout(LIMIT, client.read_to_string(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rest, "last");
    wait_until("no connection", async || proxy.open() == 0).await;
}

#[tokio::test]
async fn a_cut_with_a_reset_is_seen_as_one() {
    let proxy = echo().await;
    let mut client = client(&proxy).await;
    said(&mut client, "hello").await;
    assert_eq!(proxy.cut_rst(), 1);
    let error = timeout(LIMIT, client.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    wait_until("no connection", async || proxy.open() == 0).await;
}

#[tokio::test]
async fn a_cut_with_an_end_is_seen_as_one_though_bytes_are_under_way() {
    let proxy = echo().await;
    let mut client = client(&proxy).await;
    said(&mut client, "hello").await;
    proxy.freeze(Direction::Up);
    client.write_all(&vec![0; 100_000]).await.unwrap();
    assert_eq!(proxy.cut_fin(), 1);
    let read = timeout(LIMIT, client.read(&mut [0; 1])).await.unwrap();
    assert_eq!(read.unwrap(), 0);
}

#[tokio::test]
async fn a_connection_after_a_cut_goes_through() {
    let proxy = echo().await;
    let mut first = client(&proxy).await;
    said(&mut first, "hello").await;
    proxy.cut_rst();
    let mut second = client(&proxy).await;
    assert_eq!(said(&mut second, "again").await, "again");
}

#[tokio::test]
async fn a_frozen_direction_keeps_everything_and_the_other_one_flows() {
    let proxy = echo().await;
    let mut client = client(&proxy).await;
    said(&mut client, "hello").await;
    proxy.freeze(Direction::Down);
    client.write_all(b"kept").await.unwrap();
    wait_until("the way up", async || proxy.bytes(Direction::Up) == 9).await;
    let early = timeout(Duration::from_millis(100), client.read_u8()).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(proxy.open(), 1);
    proxy.thaw();
    assert_eq!(heard(&mut client, 4).await, "kept");
}

#[tokio::test]
async fn a_connection_made_while_frozen_is_frozen_too() {
    let proxy = echo().await;
    proxy.freeze(Direction::Up);
    let mut client = client(&proxy).await;
    client.write_all(b"kept").await.unwrap();
    wait_until("a connection", async || proxy.open() == 1).await;
    assert_eq!(proxy.bytes(Direction::Up), 0);
    proxy.thaw();
    assert_eq!(heard(&mut client, 4).await, "kept");
}

#[tokio::test]
async fn a_stranded_connection_stays_silent_and_a_new_one_works() {
    let proxy = echo().await;
    let mut old = client(&proxy).await;
    said(&mut old, "hello").await;
    proxy.strand();
    old.write_all(b"lost").await.unwrap();
    let mut new = client(&proxy).await;
    assert_eq!(said(&mut new, "hello").await, "hello");
    proxy.thaw();
    let silent = timeout(Duration::from_millis(100), old.read_u8()).await;
    assert!(silent.is_err(), "{silent:?}");
    assert_eq!(proxy.open(), 2);
}

#[tokio::test]
async fn a_refused_connection_is_reset_and_open_ones_stay() {
    let proxy = echo().await;
    let mut open = client(&proxy).await;
    said(&mut open, "hello").await;
    proxy.refuse(true);
    let refused = async || TcpStream::connect(proxy.address()).await?.read_u8().await;
    assert!(timeout(LIMIT, refused()).await.unwrap().is_err());
    assert_eq!(said(&mut open, "still").await, "still");
    proxy.refuse(false);
    let mut back = client(&proxy).await;
    assert_eq!(said(&mut back, "back").await, "back");
    assert_eq!(proxy.accepted(), 3);
}

#[tokio::test]
async fn without_its_target_it_resets() {
    // Port 1 on loopback: nobody listens there.
    let proxy = Proxy::to("127.0.0.1:1").await;
    let mut client = client(&proxy).await;
    assert!(timeout(LIMIT, client.read_u8()).await.unwrap().is_err());
}

#[tokio::test]
async fn latency_is_felt_both_ways() {
    let proxy = echo().await;
    let mut client = client(&proxy).await;
    proxy.latency(Duration::from_millis(40));
    let began = tokio::time::Instant::now();
    said(&mut client, "hello").await;
    assert!(
        began.elapsed() >= Duration::from_millis(80),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn jitter_adds_another_time_to_each_piece_up_to_its_bound() {
    let mood = Mood {
        latency: Duration::from_millis(10),
        jitter: Duration::from_millis(20),
        ..Mood::default()
    };
    let delays: Vec<Duration> = (0..1_000).map(|piece| mood.delay(piece)).collect();
    let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
    assert!(
        (10..12).contains(&least.as_millis()) && (28..=30).contains(&most.as_millis()),
        "{least:?} to {most:?}"
    );
    assert_eq!(Mood::default().delay(7), Duration::ZERO);
}

#[tokio::test]
async fn healed_nothing_is_held_back() {
    let proxy = echo().await;
    let mut client = client(&proxy).await;
    said(&mut client, "hello").await;
    proxy.strand();
    proxy.freeze(Direction::Down);
    proxy.refuse(true);
    proxy.slow(LIMIT, LIMIT);
    proxy.heal();
    assert_eq!(said(&mut client, "back").await, "back");
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(said(&mut new, "new").await, "new");
}

#[tokio::test]
async fn a_dropped_proxy_resets_its_connections() {
    let proxy = echo().await;
    let mut client = client(&proxy).await;
    said(&mut client, "hello").await;
    let address = proxy.address();
    drop(proxy);
    assert!(timeout(LIMIT, client.read_u8()).await.unwrap().is_err());
    wait_until("a closed port", async || {
        TcpStream::connect(address).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn a_url_is_led_through_it() {
    let proxy = Proxy::to("127.0.0.1:1").await;
    let url = proxy.url("amqp://u:p@broker:5672/%2f");
    assert_eq!(url, format!("amqp://u:p@{}/%2f", proxy.address()));
}
