//! The seed's own commands, as curl sends them.

use std::time::Duration;

use serde_json::Value;
use testkit::wait_until;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::world::{LIMIT, World};

/// What `curl -X POST 127.0.0.1:8080/save -d '{"content":"something"}'` writes, but for the port.
const SAVE: &str = "POST /save HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nContent-Length: 23\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n{\"content\":\"something\"}";
/// What `curl -X GET 127.0.0.1:8080/` writes.
const GET: &str =
    "GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";

/// Sends these bytes; the head of the answer and its body.
async fn exchange(url: &str, request: &str) -> (String, Value) {
    let address = url.strip_prefix("http://").unwrap();
    let port = address.rsplit(':').next().unwrap();
    let mut link = TcpStream::connect(address).await.unwrap();
    link.write_all(request.replace("PORT", port).as_bytes())
        .await
        .unwrap();
    let read = async {
        let mut said = Vec::new();
        loop {
            link.read_buf(&mut said).await.unwrap();
            let text = String::from_utf8_lossy(&said).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && let Ok(body) = serde_json::from_str(body)
            {
                return (head.to_ascii_lowercase(), body);
            }
        }
    };
    timeout(Duration::from_secs(10), read).await.unwrap()
}

#[tokio::test]
async fn the_commands_of_the_seed_save_a_note_and_get_it_back() {
    let world = World::new().await;
    let (api, _worker) = world.both().await;
    let (head, saved) = exchange(&api.url(), SAVE).await;
    assert!(head.starts_with("http/1.1 202 "), "{head}");
    let id = saved["id"].as_str().unwrap();
    assert!(
        head.contains(&format!("\r\nlocation: /notes/{id}")),
        "{head}"
    );
    wait_until("the note to be given back", LIMIT, async || {
        let (head, all) = exchange(&api.url(), GET).await;
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert!(
            head.contains("\r\ncontent-type: application/json"),
            "{head}"
        );
        match all["notes"].as_array().unwrap().as_slice() {
            [] => Err("nothing"),
            [note] => {
                assert_eq!(
                    (&note["content"], &note["id"]),
                    (&"something".into(), &id.into())
                );
                Ok(())
            }
            more => panic!("{more:?}"),
        }
    })
    .await;
}
