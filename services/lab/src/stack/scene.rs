//! Nodes that one experiment has to itself, on servers that go on running: a vhost, a database and settings of its own.
//!
//! Order: the nodes of before are killed (nothing they hold is needed any more), what they used is removed, the new vhost
//! and database are made, nodes are started, and the gateway's list is written. What can go wrong between two lines: a
//! scene that is half made. The next one removes it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use reqwest::{Client, Method, Url};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::install::{self, PSQL};
use super::node::Service;
use super::servers::Addresses;
use super::{Plan, Stack, postgres, stop_nodes};
use crate::faults::http;
use crate::run::sight::vhost_of;
use crate::say::Steps;

/// What an experiment asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scene {
    /// Names of lower-case letters, digits and `-`; made, and removed afterwards.
    pub vhost: String,
    pub database: String,
    /// Settings of the nodes, as they read them from their environment.
    pub settings: BTreeMap<String, String>,
    /// Those in which the nodes of a service differ from others; they come first.
    pub own: BTreeMap<Service, BTreeMap<String, String>>,
    pub nodes: Plan,
}

impl Scene {
    /// The servers as its nodes see them.
    pub fn addresses(&self, servers: &Addresses) -> Result<Addresses> {
        let mut addresses = servers.clone();
        addresses.database = with_path(&servers.database, &self.database)?;
        addresses.amqp = with_path(&servers.amqp, &self.vhost)?;
        Ok(addresses)
    }

    fn check(&self, servers: &Addresses) -> Result<()> {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        for name in [&self.vhost, &self.database] {
            ensure!(
                !name.is_empty() && name.bytes().all(plain),
                "{name:?} cannot name a scene"
            );
        }
        // both are removed in the end
        let url: Url = servers.database.parse()?;
        let own = postgres::decode(url.path().trim_start_matches('/'));
        let theirs = [
            &*own,
            postgres::DATABASE,
            "postgres",
            "template0",
            "template1",
        ];
        ensure!(
            !theirs.contains(&&*self.database),
            "a scene needs a database of its own, and {} is the stack's",
            self.database
        );
        ensure!(
            self.vhost != vhost_of(&servers.amqp)?,
            "a scene needs a vhost of its own, and {} is the stack's",
            self.vhost
        );
        Ok(())
    }
}

impl Stack {
    /// Replaces the nodes by those of a new scene, and comes back when they are ready.
    pub async fn fresh(&self, mut scene: Scene, steps: &Steps<'_>) -> Result<()> {
        scene.check(&self.servers.addresses)?;
        let _changing = self.changing.lock().await;
        self.end_scene(steps).await?;
        let prefix = format!("{}:", scene.database);
        scene
            .settings
            .entry("REDIS_PREFIX".to_owned())
            .or_insert(prefix);
        let (plan, vhost) = (scene.nodes.clone(), scene.vhost.clone());
        let addresses = scene.addresses(&self.servers.addresses)?;
        // from here on the next one removes it
        *self.scene() = Some(scene);
        self.make_vhost(&vhost).await?;
        let (psql, secrets) = (install::path(&PSQL)?, self.dir.secrets());
        postgres::prepare_database(&addresses.database, &psql, secrets).await?;
        let grown = self.grow(&plan, steps).await;
        let routed = self.route().await;
        grown.and(routed)
    }

    /// Kills the nodes and removes the vhost and the database of the scene, if there is one.
    pub async fn clear(&self, steps: &Steps<'_>) -> Result<()> {
        let _changing = self.changing.lock().await;
        let ended = self.end_scene(steps).await;
        // its nodes are gone either way
        let routed = self.route().await;
        ended.and(routed)
    }

    async fn end_scene(&self, steps: &Steps<'_>) -> Result<()> {
        let nodes = std::mem::take(&mut *self.nodes());
        let scene = self.scene().clone();
        let nodes: Vec<_> = nodes.into_values().flatten().collect();
        match scene {
            // the nodes of the stack itself may have work in hand that somebody wants
            None => stop_nodes(nodes, steps).await,
            Some(scene) => {
                for node in &nodes {
                    drop(node.unit.kill().await);
                }
                drop(nodes);
                self.held().clear();
                let path = ["vhosts", scene.vhost.as_str()];
                self.manage(Method::DELETE, &path, None).await?;
                drop_database(&self.servers.addresses.database, &scene.database).await?;
                // only now: what could not be removed is tried again
                *self.scene() = None;
            }
        }
        Ok(())
    }

    /// Removes the scenes of a `lab` that was killed: every vhost and database here that is not the stack's own.
    pub async fn remove_left_scenes(&self) -> Result<()> {
        let management = self.servers.addresses.management.as_deref();
        let management = management.context("the broker's management API is not known")?;
        let ask = Client::new().get(api(management, &["vhosts"])?);
        let answer = ask.timeout(MANAGE_LIMIT).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status);
        let vhosts: Vec<Value> = answer.map_err(reqwest::Error::without_url)?.json().await?;
        let names = vhosts.iter().filter_map(|vhost| vhost["name"].as_str());
        for name in names.filter(|name| *name != "/") {
            self.manage(Method::DELETE, &["vhosts", name], None).await?;
        }
        let server = &self.servers.addresses.database;
        let mut connection = PgConnection::connect(&with_path(server, "postgres")?).await?;
        let ask =
            "select datname::text from pg_database where not datistemplate and datname <> all($1)";
        let ours = [postgres::DATABASE, "postgres"].map(str::to_owned);
        let left: Vec<(String,)> = sqlx::query_as(ask)
            .bind(&ours[..])
            .fetch_all(&mut connection)
            .await?;
        connection.close().await?;
        for (name,) in left {
            drop_database(server, &name).await?;
        }
        Ok(())
    }

    async fn make_vhost(&self, vhost: &str) -> Result<()> {
        self.manage(Method::PUT, &["vhosts", vhost], Some(json!({})))
            .await?;
        let url: Url = self.servers.addresses.amqp.parse()?;
        let user = postgres::decode(url.username());
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        let path = ["permissions", vhost, &user];
        self.manage(Method::PUT, &path, Some(all)).await
    }

    /// Changes something through the broker's management API; what is absent already counts as removed.
    pub async fn manage(&self, method: Method, path: &[&str], body: Option<Value>) -> Result<()> {
        let management = self.servers.addresses.management.as_deref();
        let management = management.context("the broker's management API is not known")?;
        http::manage(&Client::new(), management, method, path, body).await
    }

    pub(super) async fn route(&self) -> Result<()> {
        self.gateway.route(&self.routes()).await
    }
}

const MANAGE_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// An address below `/api`; the segments are not escaped yet.
pub fn api(management: &str, path: &[&str]) -> Result<Url> {
    let mut url: Url = management
        .parse()
        .context("the management API's URL cannot be read")?;
    let segments = url.path_segments_mut();
    let mut segments =
        segments.map_err(|()| anyhow::anyhow!("the management API's URL has no path"))?;
    segments.pop_if_empty().push("api").extend(path);
    drop(segments);
    Ok(url)
}

fn with_path(url: &str, path: &str) -> Result<String> {
    let mut url: Url = url.parse().context("a server's URL cannot be read")?;
    url.set_path(path);
    Ok(url.into())
}

async fn drop_database(server: &str, name: &str) -> Result<()> {
    let mut connection = PgConnection::connect(&with_path(server, "postgres")?).await?;
    let statement = format!(
        "drop database if exists \"{}\" with (force)",
        name.replace('"', "\"\"")
    );
    sqlx::query(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(database: &str, vhost: &str) -> Addresses {
        Addresses {
            database: format!("postgres://postgres:x@127.0.0.1:1/{database}"),
            redis: "redis://:x@127.0.0.1:2/0".to_owned(),
            amqp: format!("amqp://lab:x@127.0.0.1:3/{vhost}"),
            management: None,
        }
    }

    #[test]
    fn a_scene_has_its_own_vhost_and_database() {
        let servers = servers("unacked", "%2f");
        let scene = Scene {
            vhost: "e1".to_owned(),
            database: "e1-db".to_owned(),
            ..Scene::default()
        };
        let seen = scene.addresses(&servers).unwrap();
        assert_eq!(seen.database, "postgres://postgres:x@127.0.0.1:1/e1-db");
        assert_eq!(seen.amqp, "amqp://lab:x@127.0.0.1:3/e1");
        assert_eq!(seen.redis, servers.redis);
    }

    #[test]
    fn what_is_the_stacks_own_is_no_scene() {
        let named = |vhost: &str, database: &str| {
            let scene = Scene {
                vhost: vhost.to_owned(),
                database: database.to_owned(),
                ..Scene::default()
            };
            scene.check(&servers("ledger", "own"))
        };
        named("e1", "e1").unwrap();
        for wrong in [
            "unacked",
            "postgres",
            "template1",
            "ledger",
            "",
            "a\"b",
            "A",
        ] {
            assert!(named("e1", wrong).is_err(), "{wrong}");
        }
        for wrong in ["own", "", "/", "A"] {
            assert!(named(wrong, "e1").is_err(), "{wrong}");
        }
    }
}
