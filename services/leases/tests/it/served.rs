//! Nodes that serve the same queues, and what a client says to them: each request goes to the next one.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use testkit::{Database, Process, Program, Servers, wait_until};

/// For what takes a moment.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Served {
    pub(crate) nodes: Vec<Process>,
    pub(crate) database: Database,
    pub(crate) client: Client,
    next: AtomicUsize,
}

/// An answer, read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) media: String,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// A message as it was leased.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Leased {
    pub(crate) id: String,
    body: Box<RawValue>,
    pub(crate) token: String,
    pub(crate) receive_count: i32,
}

impl Leased {
    /// As it came, byte by byte.
    pub(crate) fn body(&self) -> &str {
        self.body.get()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Messages {
    messages: Vec<Leased>,
}

/// A node, not started.
pub(crate) fn node(servers: &Servers, name: &str, database_url: &str) -> Program {
    Program::new(name, env!("CARGO_BIN_EXE_leases"))
        .env("DATABASE_URL", database_url)
        .env("REDIS_URL", &servers.at.redis.url)
        .env("REDIS_PREFIX", testkit::redis_prefix())
        .env("RUST_LOG", "info")
}

/// Waits until a node is ready.
#[track_caller]
pub(crate) fn ready(node: &Process) -> impl Future<Output = ()> {
    wait_until("the node to be ready", LIMIT, async || {
        match node.ready().await {
            Ok((true, _)) => Ok(()),
            Ok((false, parts)) => Err(parts.to_string()),
            Err(error) => Err(error.to_string()),
        }
    })
}

/// A client that waits as long as a long poll takes.
pub(crate) fn client() -> Client {
    let client = Client::builder().timeout(Duration::from_secs(40)).build();
    client.unwrap()
}

impl Served {
    /// So many nodes on a database of their own.
    pub(crate) async fn by(count: usize) -> Self {
        let servers = Servers::shared();
        let database = Database::fresh(&servers).await;
        let mut nodes = Vec::new();
        for number in 1..=count {
            let node = node(&servers, &format!("leases-{number}"), &database.leases_url);
            nodes.push(node.start().await);
        }
        for node in &nodes {
            ready(node).await;
        }
        Self {
            nodes,
            database,
            client: client(),
            next: AtomicUsize::new(0),
        }
    }

    /// To the next node.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.nodes.len();
        self.to(next, method, path)
    }

    /// To this node.
    pub(crate) fn to(&self, node: usize, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.nodes[node].url() + path)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        answer(self.request(Method::POST, path).body(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        answer(self.request(Method::PUT, path).body(body)).await
    }

    pub(crate) async fn patch(&self, path: &str) -> Answer {
        answer(self.request(Method::PATCH, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }

    /// Pushes to a queue (`""` or `/queues/NAME`), and gives the id.
    pub(crate) async fn push(&self, queue: &str, body: &str) -> String {
        let answer = self
            .post(&format!("{queue}/"), body.to_owned())
            .await
            .is(201);
        let answer = answer.json();
        assert_eq!(answer.as_object().unwrap().len(), 1, "{answer}");
        answer["messageID"].as_str().unwrap().to_owned()
    }

    /// Pushes these numbers, in this order.
    pub(crate) async fn push_numbers(&self, queue: &str, numbers: impl Iterator<Item = u32>) {
        for number in numbers {
            self.push(queue, &number.to_string()).await;
        }
    }

    /// Leases with these parameters.
    pub(crate) async fn lease(&self, queue: &str, parameters: &str) -> Vec<Leased> {
        let answer = self.get(&format!("{queue}/?{parameters}")).await.is(200);
        messages(&answer)
    }

    /// Waits until a lease finds something.
    #[track_caller]
    pub(crate) fn lease_until(
        &self,
        queue: &str,
        parameters: &str,
    ) -> impl Future<Output = Vec<Leased>> {
        wait_until("a message to be leased", LIMIT, async move || {
            let leased = self.lease(queue, parameters).await;
            (!leased.is_empty()).then_some(leased)
        })
    }

    /// One number out of the database.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let sql = sqlx::AssertSqlSafe(format!("select ({sql})::bigint"));
        let count = sqlx::query_scalar(sql).fetch_one(&self.database.admin);
        count.await.unwrap()
    }

    /// The dead letters of a queue, once there are so many.
    #[track_caller]
    pub(crate) fn dead(&self, queue: &str, count: usize) -> impl Future<Output = Value> {
        wait_until("the dead letters", LIMIT, async move || {
            let answer = self.get(&format!("{queue}/dead-letters")).await.is(200);
            let list = answer.json();
            let found = list["deadLetters"].as_array().map_or(0, Vec::len);
            if found == count { Ok(list) } else { Err(list) }
        })
    }
}

pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let answer = request.send().await.unwrap();
    let media = answer.headers().get("content-type");
    let media = media.map(|media| media.to_str().unwrap().to_owned());
    Answer {
        status: answer.status(),
        media: media.unwrap_or_default(),
        text: answer.text().await.unwrap(),
    }
}

pub(crate) fn messages(answer: &Answer) -> Vec<Leased> {
    let read: Result<Messages, _> = serde_json::from_str(&answer.text);
    read.unwrap_or_else(|error| panic!("{error}: {answer:?}"))
        .messages
}

/// The bodies, in their order.
pub(crate) fn bodies(leased: &[Leased]) -> Vec<&str> {
    leased.iter().map(Leased::body).collect()
}

/// An order by ids.
pub(crate) fn these(ids: &[&str]) -> String {
    json!({ "ids": ids }).to_string()
}
