//! What faults ask over HTTP on any stack: the broker's management API, and nodes' second ports.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

use crate::stack::scene::api;

const LIMIT: Duration = Duration::from_secs(5);
const MANAGE_LIMIT: Duration = Duration::from_secs(10);

/// Nobody took what was asked for: it was not done.
#[derive(Debug)]
pub struct Refused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

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

/// Changes something through the management API; what is absent already counts as removed. An error is [`Refused`], or it is
/// not known whether it was done.
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
    let answer = match answer.map_err(reqwest::Error::without_url) {
        Err(error) if error.is_connect() => {
            let why = format!("nobody listens at the management API: {error:#}");
            return Err(Refused(why).into());
        }
        answer => answer?,
    };
    let status = answer.status();
    let gone = method == Method::DELETE && status == StatusCode::NOT_FOUND;
    if status.is_success() || gone {
        return Ok(());
    }
    let said = answer.text().await.unwrap_or_default();
    let path = path.join("/");
    let why = format!("the management API says {status} to {method} {path}: {said}");
    if status.is_client_error() {
        return Err(Refused(why).into());
    }
    bail!(why)
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_was_answered_with_no_or_met_nobody_was_refused_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::new();
        let ask = || manage(&client, &url, Method::POST, &["exchanges"], None);
        let answers = async |line: &str| {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 9]).await.unwrap();
            stream.write_all(line.as_bytes()).await.unwrap();
        };
        for (line, refused) in [
            (
                "HTTP/1.1 404 no\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                true,
            ),
            (
                "HTTP/1.1 500 no\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                false,
            ),
            ("", false),
        ] {
            let (told, ()) = tokio::join!(ask(), answers(line));
            assert_eq!(told.unwrap_err().is::<Refused>(), refused, "{line}");
        }
        drop(listener);
        assert!(ask().await.unwrap_err().is::<Refused>());
    }

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
