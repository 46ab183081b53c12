//! What faults ask over HTTP on any stack: the broker's management API, and nodes' second ports.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

use crate::stack::scene::api;

const LIMIT: Duration = Duration::from_secs(5);
const MANAGE_LIMIT: Duration = Duration::from_secs(10);

/// Asks the management API. `None`: there is no such thing.
pub async fn broker(client: &Client, management: &str, path: &[&str]) -> Result<Option<Value>> {
    let request = client.get(api(management, path)?).timeout(LIMIT);
    let answer = request.send().await.map_err(reqwest::Error::without_url)?;
    if answer.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let (status, path) = (answer.status(), path.join("/"));
    // a health check that fails says so by its status, and in its body what fails
    let failed_check = path.starts_with("health/") && status.is_server_error();
    ensure!(
        status.is_success() || failed_check,
        "the management API says {status} to {path}"
    );
    Ok(Some(
        answer.json().await.map_err(reqwest::Error::without_url)?,
    ))
}

/// Changes something through the management API; what is absent already counts as removed.
pub async fn manage(
    client: &Client,
    management: &str,
    method: Method,
    path: &[&str],
    body: Option<Value>,
) -> Result<()> {
    let mut request = client.request(method.clone(), api(management, path)?);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.timeout(MANAGE_LIMIT).send().await;
    let answer = answer.map_err(reqwest::Error::without_url)?;
    let status = answer.status();
    let gone = method == Method::DELETE && status == StatusCode::NOT_FOUND;
    let said = answer.text().await.unwrap_or_default();
    ensure!(
        status.is_success() || gone,
        "the management API says {status} to {method} {}: {said}",
        path.join("/")
    );
    Ok(())
}

/// Asks a node at the URL of its second port.
pub async fn ops(client: &Client, node: &str, ops: &str, path: &str) -> Result<Value> {
    let url = format!("{ops}{path}");
    let answer = client.get(url).timeout(LIMIT).send().await?;
    let status = answer.status();
    if status == StatusCode::NOT_FOUND && path.starts_with("/ops/") {
        bail!("{node} has no {path}: it was started without LAB_OPS=true");
    }
    ensure!(status.is_success(), "{node} says {status} to {path}");
    Ok(answer.json().await?)
}

/// Puts something there.
pub async fn put_ops(
    client: &Client,
    node: &str,
    ops: &str,
    path: &str,
    body: String,
) -> Result<()> {
    let url = format!("{ops}{path}");
    let answer = client.put(url).body(body).timeout(LIMIT).send().await?;
    let status = answer.status();
    if !status.is_success() {
        let why = answer.text().await.unwrap_or_default();
        bail!("{node} says {status} to {path}: {}", why.trim());
    }
    Ok(())
}

/// What a node is told may end it before it can answer. Then no answer is no failure: what became of it, its log tells.
pub fn unless_it_died_of_it(told: Result<()>) -> Result<()> {
    match told {
        Err(error) if is_unanswered(&error) => Ok(()),
        told => told,
    }
}

/// It was asked, and ended the connection instead of an answer.
fn is_unanswered(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<reqwest::Error>()
        .is_some_and(|error| error.is_request() && !error.is_connect() && !error.is_timeout())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn only_who_was_asked_and_did_not_answer_may_have_died_of_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::new();
        let tell = || put_ops(&client, "receiver-1", &url, "/ops/knobs", String::new());
        let dies = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 9]).await.unwrap();
        };
        let (told, ()) = tokio::join!(tell(), dies);
        assert!(told.is_err());
        unless_it_died_of_it(told).unwrap();
        drop(listener);
        unless_it_died_of_it(tell().await).unwrap_err();
        unless_it_died_of_it(Err(anyhow::anyhow!("it says 400"))).unwrap_err();
    }
}
