//! What a test has to itself.

use std::{path::Path, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use testkit::{Broker, Database, Process, Program, Proxy, Servers, wait_until};

use crate::{
    check::{Audit, audit},
    load::client,
};

/// The one program that is every service here.
pub(crate) fn lab() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lab"))
}

/// A database and a vhost that nobody else uses.
pub(crate) struct World {
    pub(crate) servers: Servers,
    pub(crate) database: Database,
    pub(crate) broker: Broker,
    pub(crate) redis_prefix: String,
}

impl World {
    /// On the servers of the whole test run.
    pub(crate) async fn new() -> Self {
        Self::on(Servers::shared()).await
    }

    /// On servers of the test's own, which it may break.
    pub(crate) async fn own() -> Self {
        Self::on(Servers::start(lab()).await).await
    }

    /// On these.
    pub(crate) async fn on(servers: Servers) -> Self {
        Self {
            database: Database::fresh(&servers).await,
            broker: Broker::vhost(&servers).await,
            redis_prefix: testkit::redis_prefix(),
            servers,
        }
    }

    fn node(&self, service: &str, name: &str, database: &str) -> Program {
        Program::new(name, lab())
            .arg(service)
            .env("DATABASE_URL", database)
            .env("AMQP_URL", &self.broker.amqp_url)
            .env("REDIS_URL", &self.servers.at.redis.url)
            .env("REDIS_PREFIX", &self.redis_prefix)
            .env("HEARTBEAT_SECS", 2)
    }

    /// A node of one of the three other services, by its words on the command line; not started.
    pub(crate) fn other(&self, words: &[&str], name: &str) -> Program {
        let database = match words[0] {
            "notes" => &self.database.notes_url,
            "leases" => &self.database.leases_url,
            _ => &self.database.signup_url,
        };
        let node = self.node(words[0], name, database);
        let node = node.env("SIGNUP_KEY", "of thirty-two bytes, or some more");
        let node = node.env("SMTP_URL", "smtp://127.0.0.1:1");
        words[1..].iter().fold(node, |node, word| node.arg(*word))
    }

    /// A sender, not started.
    pub(crate) fn sender(&self, name: &str) -> Program {
        self.node("sender", name, &self.database.sender_url)
    }

    /// A receiver without delay and without failures, not started.
    pub(crate) fn receiver(&self, name: &str) -> Program {
        self.node("receiver", name, &self.database.receiver_url)
            .env("WORK_DELAY_MAX_MS", 0)
            .env("WORK_FAIL_ONE_IN", 0)
    }

    /// The checker's word on everything so far.
    pub(crate) async fn audit(&self) -> Audit {
        audit(&self.database.admin).await
    }

    /// Waits until nothing waits in the outbox and every message has an effect or is parked.
    #[track_caller]
    pub(crate) fn drained(&self, limit: Duration) -> impl Future<Output = Audit> {
        wait_until(
            "every accepted message to be accounted for",
            limit,
            async || {
                let audit = self.audit().await;
                if audit.is_drained() {
                    Ok(audit)
                } else {
                    Err(audit)
                }
            },
        )
    }

    /// One number out of the database.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let sql = sqlx::AssertSqlSafe(format!("select ({sql})::bigint"));
        let (count,): (i64,) = sqlx::query_as(sql)
            .fetch_one(&self.database.admin)
            .await
            .unwrap();
        count
    }

    /// Gives the queues of this pattern a policy, instead of another one of this name.
    pub(crate) async fn policy(&self, name: &str, pattern: &str, definition: Value) {
        let policy = json!({"pattern": pattern, "apply-to": "queues", "definition": definition});
        let path = ["policies", &self.broker.vhost, name];
        let done = self.broker.manage(Method::PUT, &path, Some(policy));
        done.await.unwrap();
    }

    /// Takes a policy away.
    pub(crate) async fn no_policy(&self, name: &str) {
        let path = ["policies", &self.broker.vhost, name];
        let all = self.broker.manage(Method::GET, &path[..2], None);
        let all = all.await.unwrap();
        let mut there = all.as_array().unwrap().iter();
        if there.any(|policy| policy["name"] == name) {
            let done = self.broker.manage(Method::DELETE, &path, None);
            done.await.unwrap();
        }
    }

    /// Has the broker refuse every further message: the queue counts as full.
    pub(crate) async fn fill_up(&self) {
        let full = json!({"max-length": 0, "overflow": "reject-publish"});
        self.policy("full", "^messages$", full).await;
    }

    /// Undoes [`World::fill_up`].
    pub(crate) async fn make_room(&self) {
        self.no_policy("full").await;
    }
}

/// A node behind its own proxies, which a test may cut.
pub(crate) struct Linked {
    pub(crate) node: Process,
    pub(crate) rabbitmq: Proxy,
    pub(crate) postgres: Proxy,
}

/// Which links of a node go through a proxy: all that matter on the road.
pub(crate) async fn linked(world: &World, program: Program, database_url: &str) -> Linked {
    let rabbitmq = Proxy::to(address(&world.broker.amqp_url)).await;
    let postgres = Proxy::to(address(database_url)).await;
    let node = program
        .env("AMQP_URL", rabbitmq.url(&world.broker.amqp_url))
        .env("DATABASE_URL", postgres.url(database_url))
        .start()
        .await;
    Linked {
        node,
        rabbitmq,
        postgres,
    }
}

/// The HOST:PORT of a URL.
pub(crate) fn address(url: &str) -> String {
    let after_at = url.rsplit_once('@').map_or(url, |(_, rest)| rest);
    after_at.split('/').next().unwrap_or_default().to_owned()
}

/// Waits until a node is ready.
#[track_caller]
pub(crate) fn ready(node: &Process) -> impl Future<Output = ()> {
    let limit = Duration::from_mins(1);
    wait_until("the node to be ready", limit, async || {
        match node.ready().await {
            Ok((true, _)) => Ok(()),
            Ok((false, parts)) => Err(parts.to_string()),
            Err(error) => Err(error.to_string()),
        }
    })
}

/// Waits until a node says that a part is in this state.
#[track_caller]
pub(crate) fn part(
    node: &Process,
    part: &str,
    state: &str,
    limit: Duration,
) -> impl Future<Output = ()> {
    let what = format!("{} to say that {part} is {state}", node.name());
    let (part, state) = (part.to_owned(), state.to_owned());
    async move {
        wait_until(&what, limit, async || {
            let (_, body) = node.ready().await.map_err(|error| error.to_string())?;
            let now: &Value = &body["parts"][&part]["state"];
            if *now == json!(state) {
                Ok(())
            } else {
                Err(body.to_string())
            }
        })
        .await;
    }
}

/// Waits until a number of a node is this large.
#[track_caller]
pub(crate) fn reaches(
    node: &Process,
    metric: &str,
    least: f64,
    limit: Duration,
) -> impl Future<Output = ()> {
    let what = format!("{metric} of {} to reach {least}", node.name());
    let metric = metric.to_owned();
    async move {
        wait_until(&what, limit, async || match node.metric(&metric).await {
            Ok(now) if now >= least => Ok(()),
            Ok(now) => Err(now.to_string()),
            Err(error) => Err(error.to_string()),
        })
        .await;
    }
}

/// Turns knobs of a receiver.
pub(crate) async fn turn(receiver: &Process, change: Value) {
    let url = receiver.ops_url() + "/ops/knobs";
    let answer = client().put(url).json(&change).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{change}");
}
