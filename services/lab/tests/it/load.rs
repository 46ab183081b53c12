//! Clients that post messages, and repeat with the same key until they are told yes.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::{StreamExt, stream};
use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

/// What one post came to.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .timeout(Duration::from_secs(15))
        .build()
        .unwrap()
}

/// Posts one message once.
pub(crate) async fn post(url: &str, key: &str, text: &str) -> reqwest::Result<Answer> {
    let response = client()
        .post(format!("{url}/api/messages"))
        .header("Idempotency-Key", key)
        .json(&json!({"message": text}))
        .send()
        .await?;
    let status = response.status();
    let body = response.text().await?;
    Ok(Answer {
        status,
        body: serde_json::from_str(&body).unwrap_or(Value::String(body)),
    })
}

/// Posts `count` messages, `at_once` at a time, to the nodes in turn; each is repeated, at the next
/// node, until one says yes. `pace` is the shortest time between two posts of one client.
pub(crate) async fn offer(urls: &[String], count: usize, at_once: usize, pace: Duration) {
    offer_counted(urls, count, at_once, pace, &AtomicUsize::new(0)).await;
}

/// As [`offer`], counting those that were told yes.
pub(crate) async fn offer_counted(
    urls: &[String],
    count: usize,
    at_once: usize,
    pace: Duration,
    accepted: &AtomicUsize,
) {
    let turn = AtomicUsize::new(0);
    stream::iter(0..count)
        .for_each_concurrent(at_once, |n| {
            let turn = &turn;
            async move {
                let key = Uuid::new_v4().to_string();
                let text = format!("message {n}");
                loop {
                    let url = &urls[turn.fetch_add(1, Ordering::Relaxed) % urls.len()];
                    let answer = post(url, &key, &text).await;
                    match &answer {
                        Ok(answer) if answer.status == StatusCode::ACCEPTED => break,
                        Ok(answer) if answer.status.is_client_error() => panic!("{answer:?}"),
                        _ => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                }
                accepted.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(pace).await;
            }
        })
        .await;
}
