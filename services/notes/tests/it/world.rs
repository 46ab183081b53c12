//! What a test has to itself: a database, a vhost, nodes of both roles; and a client.

use std::{collections::HashMap, path::Path, time::Duration};

use reqwest::{Client, Response, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use testkit::{Broker, Database, Process, Program, Servers, lab_binary, wait_until};
use uuid::Uuid;

pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// The program that is either role.
pub(crate) fn notes() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_notes"))
}

/// A database and a vhost that nobody else uses.
pub(crate) struct World {
    pub(crate) servers: Servers,
    pub(crate) database: Database,
    pub(crate) broker: Broker,
    pub(crate) redis_prefix: String,
    pub(crate) client: Client,
}

impl World {
    /// On the servers of the whole test run.
    pub(crate) async fn new() -> Self {
        Self::on(Servers::shared()).await
    }

    /// On servers of the test's own, which it may break.
    pub(crate) async fn own() -> Self {
        Self::on(Servers::start(&lab_binary()).await).await
    }

    async fn on(servers: Servers) -> Self {
        Self {
            database: Database::fresh(&servers).await,
            broker: Broker::vhost(&servers).await,
            redis_prefix: testkit::redis_prefix(),
            client: Client::builder()
                .timeout(Duration::from_secs(20))
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
            servers,
        }
    }

    fn node(&self, role: &str, name: &str) -> Program {
        Program::new(name, notes())
            .arg(role)
            .env("DATABASE_URL", &self.database.notes_url)
            .env("AMQP_URL", &self.broker.amqp_url)
            .env("REDIS_URL", &self.servers.at.redis.url)
            .env("REDIS_PREFIX", &self.redis_prefix)
            .env("HEARTBEAT_SECS", 2)
    }

    /// An API node, not started.
    pub(crate) fn api(&self, name: &str) -> Program {
        self.node("api", name)
    }

    /// A worker, not started.
    pub(crate) fn worker(&self, name: &str) -> Program {
        self.node("worker", name)
    }

    /// An API node and a worker, ready.
    pub(crate) async fn both(&self) -> (Process, Process) {
        let api = started(self.api("notes-1")).await;
        let worker = started(self.worker("worker-1")).await;
        (api, worker)
    }

    /// Posts a note once.
    pub(crate) async fn post(&self, url: &str, key: &str, content: &str) -> reqwest::Result<Said> {
        let request = self.client.post(format!("{url}/save"));
        let request = request.header("Idempotency-Key", key);
        said(request.json(&json!({ "content": content })).send().await?).await
    }

    /// Posts a note until the node says yes.
    pub(crate) async fn offer(&self, url: &str, content: &str) -> Uuid {
        let key = Uuid::new_v4().to_string();
        wait_until("a note to be accepted", LIMIT, async || {
            match self.post(url, &key, content).await {
                Ok(said) if said.status == StatusCode::ACCEPTED => Ok(said.id()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// What a path gives to a program.
    pub(crate) async fn get(&self, url: &str, path: &str) -> Said {
        let answer = self
            .client
            .get(format!("{url}{path}"))
            .send()
            .await
            .unwrap();
        said(answer).await.unwrap()
    }

    /// Waits until a note is in this state.
    pub(crate) async fn state(&self, url: &str, id: Uuid, state: &str) {
        wait_until(&format!("a note to be {state}"), LIMIT, async || {
            let said = self.get(url, &format!("/notes/{id}")).await;
            if said.body["state"] == state {
                Ok(())
            } else {
                Err(said)
            }
        })
        .await;
    }

    /// One number out of the database.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let sql = sqlx::AssertSqlSafe(format!("select ({sql})::bigint"));
        let count = sqlx::query_scalar(sql).fetch_one(&self.database.admin);
        count.await.unwrap()
    }

    /// Waits until each note that was accepted has an effect; then there are so many, and each has one.
    pub(crate) async fn saved_once(&self, accepted: usize) {
        wait_until("every note to be saved", 2 * LIMIT, async || {
            let left = self.count("select count(*) from notes.message left join notes.processed using (message_id) where processed.message_id is null").await
                + self.count("select count(*) from notes.outbox").await;
            if left == 0 { Ok(()) } else { Err(left) }
        })
        .await;
        let ids = "select message_id from notes.processed";
        let ids: Vec<Uuid> = sqlx::query_scalar(ids)
            .fetch_all(&self.database.admin)
            .await
            .unwrap();
        let mut effects: HashMap<Uuid, usize> = HashMap::new();
        for id in ids {
            *effects.entry(id).or_default() += 1;
        }
        let twice: Vec<_> = effects.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
        let messages = self.count("select count(*) from notes.message").await;
        assert_eq!(
            (effects.len(), messages),
            (accepted, i64::try_from(accepted).unwrap())
        );
    }
}

/// An answer, read.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Said {
    /// Of the note that was accepted.
    #[track_caller]
    pub(crate) fn id(&self) -> Uuid {
        self.body["id"].as_str().unwrap().parse().unwrap()
    }

    /// One header, as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The contents of a list, in order.
    #[track_caller]
    pub(crate) fn contents(&self) -> Vec<String> {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        let notes = self.body["notes"].as_array().unwrap().iter();
        let content = |note: &Value| note["content"].as_str().unwrap().to_owned();
        notes.map(content).collect()
    }
}

pub(crate) async fn said(response: Response) -> reqwest::Result<Said> {
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.text().await?;
    Ok(Said {
        status,
        headers,
        body: serde_json::from_str(&body).unwrap_or(Value::String(body)),
    })
}

/// Starts a node and waits until it is ready.
pub(crate) async fn started(program: Program) -> Process {
    let node = program.start().await;
    ready(&node).await;
    node
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
