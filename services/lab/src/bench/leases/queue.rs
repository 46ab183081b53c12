//! One queue of one node, as a client sees it: every answer must be the right one.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use tokio::task::JoinSet;

use super::CONNECTIONS;
use crate::bench::http::{Answer, Connection};

/// Messages of one request that fills or empties a queue.
const MANY: u64 = 1_000;
/// Longer than anything here takes.
pub(super) const HELD_MS: u64 = 3_600_000;
/// Connections that fill a queue.
const FEW: usize = 8;

/// A message in hand.
#[derive(Debug, Deserialize)]
pub(super) struct Leased {
    id: String,
    token: String,
}

#[derive(Deserialize)]
struct Leases {
    messages: Vec<Leased>,
}

/// One queue of one node.
pub(super) struct Queue {
    pub(super) node: SocketAddr,
    pub(super) path: String,
    /// Bytes of a body.
    pub(super) text: usize,
    body: Bytes,
}

impl Queue {
    pub(super) fn new(node: SocketAddr, path: &str, text: usize) -> Self {
        let letters: String = ('a'..='z').cycle().take(text).collect();
        Self {
            node,
            path: path.to_owned(),
            text,
            body: Bytes::from(format!("{{\"text\":\"{letters}\"}}")),
        }
    }

    /// Another one of the same node.
    pub(super) fn at(&self, path: &str) -> Self {
        Self {
            path: path.to_owned(),
            body: self.body.clone(),
            ..*self
        }
    }

    pub(super) async fn make(&self) -> Result<()> {
        let mut connection = Connection::to(self.node)?;
        let settings = Bytes::from_static(b"{\"lease_ms\":1000,\"max_receives\":0}");
        let made = connection
            .ask(request(Method::PUT, &self.path, settings)?)
            .await?;
        ensure!(
            made.status.is_success(),
            "no queue was made: {}",
            said(&made)
        );
        Ok(())
    }

    pub(super) async fn push(&self, connection: &mut Connection) -> Result<()> {
        let pushed = request(Method::POST, &self.path, self.body.clone())?;
        right(&connection.ask(pushed).await?, StatusCode::CREATED)
    }

    pub(super) async fn lease(
        &self,
        connection: &mut Connection,
        amount: usize,
        lease_ms: u64,
    ) -> Result<Vec<Leased>> {
        let path = format!("{}?amount={amount}&lease_ms={lease_ms}", self.path);
        let answer = connection
            .ask(request(Method::GET, &path, Bytes::new())?)
            .await?;
        right(&answer, StatusCode::OK)?;
        let leases: Leases = serde_json::from_slice(&answer.body)?;
        Ok(leases.messages)
    }

    pub(super) async fn confirm(
        &self,
        connection: &mut Connection,
        message: &Leased,
    ) -> Result<()> {
        let path = format!("{}/{}?token={}", self.path, message.id, message.token);
        let answer = connection
            .ask(request(Method::PATCH, &path, Bytes::new())?)
            .await?;
        right(&answer, StatusCode::NO_CONTENT)
    }

    /// So many more.
    pub(super) async fn fill(&self, count: u64) -> Result<()> {
        let path = format!("{}/batch", self.path);
        let shares = shares(count);
        let mut filling = JoinSet::new();
        for share in shares {
            let (node, path, body) = (self.node, path.clone(), self.body.clone());
            filling.spawn(async move {
                let mut connection = Connection::to(node)?;
                let mut left = share;
                while left > 0 {
                    let many = left.min(MANY);
                    left -= many;
                    let mut batch = Vec::from(*b"[");
                    for place in 0..many {
                        if place > 0 {
                            batch.push(b',');
                        }
                        batch.extend_from_slice(&body);
                    }
                    batch.push(b']');
                    let pushed = request(Method::POST, &path, batch.into())?;
                    right(&connection.ask(pushed).await?, StatusCode::CREATED)?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(filled) = filling.join_next().await {
            filled.context("a connection died")??;
        }
        Ok(())
    }

    /// Leases all that are ready, which must be so many, for long.
    pub(super) async fn take_all(&self, count: u64) -> Result<Vec<Leased>> {
        let mut connection = Connection::to(self.node)?;
        let mut all = Vec::new();
        loop {
            let many = usize::try_from(MANY)?;
            let mut taken = self.lease(&mut connection, many, HELD_MS).await?;
            if taken.is_empty() {
                break;
            }
            all.append(&mut taken);
        }
        let there = all.len() as u64;
        ensure!(
            there == count,
            "{there} of {count} messages could be leased"
        );
        Ok(all)
    }

    /// Has so many pushed, leased and confirmed.
    pub(super) async fn pass(&self, count: u64) -> Result<()> {
        let mut left = count;
        while left > 0 {
            let many = left.min(100 * MANY);
            left -= many;
            self.fill(many).await?;
            let all = self.take_all(many).await?;
            let mut lots: Vec<Vec<Leased>> = (0..CONNECTIONS).map(|_| Vec::new()).collect();
            for (place, message) in all.into_iter().enumerate() {
                lots[place % CONNECTIONS].push(message);
            }
            let mut confirming = JoinSet::new();
            for lot in lots {
                let queue = self.at(&self.path);
                confirming.spawn(async move {
                    let mut connection = Connection::to(queue.node)?;
                    for message in lot {
                        queue.confirm(&mut connection, &message).await?;
                    }
                    anyhow::Ok(())
                });
            }
            while let Some(confirmed) = confirming.join_next().await {
                confirmed.context("a connection died")??;
            }
        }
        Ok(())
    }
}

/// A part for each connection, of a number of messages.
fn shares(count: u64) -> Vec<u64> {
    let few = FEW as u64;
    (0..few)
        .map(|place| count / few + u64::from(place < count % few))
        .collect()
}

fn request(method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>> {
    Ok(Request::builder()
        .method(method)
        .uri(path)
        .body(Full::new(body))?)
}

fn right(answer: &Answer, wanted: StatusCode) -> Result<()> {
    ensure!(answer.status == wanted, "an answer was {}", said(answer));
    Ok(())
}

fn said(answer: &Answer) -> String {
    let body = String::from_utf8_lossy(&answer.body);
    format!(
        "{}: {}",
        answer.status,
        body.chars().take(200).collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_whole() {
        for count in [0, 1, 7, 8, 1_000_003] {
            let shares = shares(count);
            assert_eq!(shares.iter().sum::<u64>(), count);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
    }
}
