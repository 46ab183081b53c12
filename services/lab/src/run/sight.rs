//! How a stack is seen from outside, by commands that only look.
//!
//! Where its gateway, its ledger, its broker and its nodes are: the native stack tells it over its control socket; any other is described by flags or the environment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use futures::future::join_all;
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::lookup_host;

pub use super::elsewhere::Elsewhere;
use super::{Facts, Job};
use crate::say::Usage;
use crate::stack::control::{self, Request};
use crate::stack::dir::{self, Secrets};
use crate::stack::node::Service;
use crate::stack::postgres;
use crate::status::Status;

const LIMIT: Duration = Duration::from_secs(3);

/// Where the parts of a stack are. It holds passwords.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    pub gateway: String,
    /// The database, as the role that reads both schemas and writes nothing. Empty: not known.
    pub auditor_url: String,
    /// The broker's management API, with user and password.
    pub management: Option<String>,
    pub vhost: String,
    pub nodes: Vec<NodeSight>,
    /// The secret of who may have receivers send dead letters back; none: not known.
    #[serde(default)]
    pub redrive_token: Option<String>,
    /// Where the mails of the stack are put down; none: nowhere that is known.
    #[serde(default)]
    pub mails: Option<PathBuf>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSight {
    pub name: String,
    pub service: Service,
    /// URL of its second port.
    pub ops: String,
    /// URL of its first port.
    pub address: String,
    /// The host behind which it was found, as `--nodes` has it.
    #[serde(default)]
    pub place: Option<String>,
}

impl NodeSight {
    /// Whether a node that was found behind this place is one of these. It is not, if all who are behind that place now are
    /// among these; else nobody knows.
    pub fn is_listed(all: &[Self], name: &str, place: Option<&str>) -> Result<bool, Usage> {
        if all.iter().any(|node| node.name == name) {
            return Ok(true);
        }
        let say = match place {
            Some(place) if all.iter().any(|node| node.place.as_deref() == Some(place)) => {
                return Ok(false);
            }
            Some(place) => format!("say where it was, too: --nodes {place}"),
            None => "say where it is, too: --nodes HOST:OPS:PORT".to_owned(),
        };
        Err(Usage(format!("{name} is not among --nodes; {say}")))
    }
}

impl Sight {
    /// Of a stack whose state is known.
    pub fn of(status: &Status, secrets: &Secrets) -> Result<Self> {
        let nodes = status.nodes.iter().map(|node| NodeSight {
            name: node.name.clone(),
            service: node.service,
            ops: node.ops.clone(),
            address: node.address.clone(),
            place: None,
        });
        Ok(Self {
            gateway: status.gateway.clone(),
            auditor_url: postgres::url_for(&status.postgres.url, "auditor", &secrets.auditor)?,
            management: status.rabbitmq.management.clone(),
            vhost: vhost_of(&status.rabbitmq.amqp)?,
            nodes: nodes.collect(),
            redrive_token: Some(secrets.redrive.clone()),
            mails: status.catcher.is_some().then(|| dir::mails(&status.dir)),
        })
    }

    /// Of the native stack in this folder. None running there is wrong usage.
    pub async fn native(root: &Path) -> Result<Self> {
        let quiet = |_: &str| {};
        let answer = control::ask(root, &Request::Status, &quiet).await;
        let answer = answer.map_err(|error| Usage(format!("{error:#}")))?;
        let status: Status =
            serde_json::from_value(answer).context("the stack that runs is of another version")?;
        let path = status.dir.join("secrets.json");
        let secrets =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::of(&status, &serde_json::from_slice(&secrets)?)
    }

    /// The stack that flags or the environment describe; without them the native one.
    pub async fn find(root: &Path, elsewhere: &Elsewhere) -> Result<Self> {
        match (elsewhere.project().await?, &elsewhere.gateway) {
            (Some(project), _) => project.sight().await,
            (None, Some(gateway)) => Self::given(gateway, elsewhere).await,
            (None, None) => Self::native(root).await,
        }
    }

    /// Of a stack that is described; each address behind a host's name is asked who it is.
    pub async fn given(gateway: &str, elsewhere: &Elsewhere) -> Result<Self> {
        let url: Option<Url> = gateway.parse().ok();
        if !url.is_some_and(|url| url.scheme() == "http" && url.has_host()) {
            return Err(Usage(format!(
                "{gateway:?} is no gateway: right is http://HOST:PORT"
            ))
            .into());
        }
        let mut nodes = Vec::new();
        for place in &elsewhere.nodes {
            nodes.extend(nodes_behind(place).await?);
        }
        Ok(Self {
            gateway: gateway.trim_end_matches('/').to_owned(),
            auditor_url: elsewhere.auditor_url.clone().unwrap_or_default(),
            management: elsewhere.management_url.clone(),
            vhost: elsewhere.vhost.clone(),
            nodes,
            redrive_token: elsewhere.redrive_token.clone(),
            mails: None,
        })
    }

    /// What the stack is now, as far as it tells: for the record of a run.
    pub async fn facts(&self) -> Facts {
        self.facts_of(Job::Messages).await
    }

    /// The same of those who have to do with this job.
    pub async fn facts_of(&self, job: Job) -> Facts {
        let mut facts = Facts::default();
        let nodes = || self.nodes.iter().filter(|node| job.has(node.service));
        for node in nodes() {
            let name = node.service.name().to_owned();
            *facts.counts.entry(name).or_default() += 1;
        }
        facts.add(join_all(nodes().map(tells)).await);
        let overview = self.ask_broker(&["overview"]).await;
        facts.broker_version = word(overview.as_ref(), "rabbitmq_version");
        if let Some(road) = job.road() {
            let queue = self.ask_broker(&["queues", &self.vhost, road]).await;
            facts.queue_type = word(queue.as_ref(), "type");
        }
        facts
    }

    async fn ask_broker(&self, path: &[&str]) -> Option<Value> {
        let mut url: Url = self.management.as_ref()?.parse().ok()?;
        url.path_segments_mut()
            .ok()?
            .pop_if_empty()
            .push("api")
            .extend(path);
        let answer = Client::new().get(url).timeout(LIMIT).send().await.ok()?;
        answer.error_for_status().ok()?.json().await.ok()
    }
}

/// What a node says of its guarantees and of its work; nothing, if it does not answer.
async fn tells(node: &NodeSight) -> (Value, Value) {
    let get = async |path: &str| -> Value {
        let request = Client::new().get(format!("{}{path}", node.ops));
        match request.timeout(LIMIT).send().await {
            // a node that is not ready says so with 503, and tells all the same
            Ok(answer) => answer.json().await.unwrap_or_default(),
            Err(_) => Value::Null,
        }
    };
    tokio::join!(get("/health/ready"), get("/ops/knobs"))
}

impl Facts {
    fn add(&mut self, told: Vec<(Value, Value)>) {
        let mut without = BTreeSet::new();
        for (health, knobs) in told {
            let names = health["without"].as_array().into_iter().flatten();
            without.extend(names.filter_map(|name| Some(name.as_str()?.to_owned())));
            for (name, value) in knobs.as_object().into_iter().flatten() {
                let value = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                self.settings.insert(name.clone(), value);
            }
        }
        self.without = without.into_iter().collect();
    }
}

fn word(answer: Option<&Value>, name: &str) -> Option<String> {
    Some(answer?[name].as_str()?.to_owned())
}

/// The vhost that an AMQP URL names: all that stands behind the host, `/` without anything.
pub fn vhost_of(amqp: &str) -> Result<String> {
    let url: Url = amqp.parse().context("the broker's URL cannot be read")?;
    Ok(match url.path().strip_prefix('/') {
        None | Some("") => "/".to_owned(),
        Some(name) => postgres::decode(name),
    })
}

async fn nodes_behind(place: &str) -> Result<Vec<NodeSight>> {
    let wrong = || Usage(format!("{place:?} is no node: right is HOST:OPS:PORT"));
    let (host, ops, port) = parts(place).ok_or_else(wrong)?;
    let found = lookup_host((host, ops)).await;
    let found = found.map_err(|error| Usage(format!("nobody knows the host {host}: {error}")))?;
    // one host may be listed once for each kind of socket
    let addresses: BTreeMap<_, _> = found.map(|address| (address.ip(), address)).collect();
    let mut nodes = Vec::new();
    for mut address in addresses.into_values() {
        let ops = format!("http://{address}");
        address.set_port(port);
        let live = who_is(&ops).await;
        let live = live.with_context(|| format!("{place}: no node answers at {ops}"))?;
        let field = |name: &str| live[name].as_str().unwrap_or_default().to_owned();
        nodes.push(NodeSight {
            name: field("node"),
            service: Service::from_str(&field("service"), false)
                .map_err(|_| Usage(format!("{ops} is no node of this stack")))?,
            ops,
            address: format!("http://{address}"),
            place: Some(place.to_owned()),
        });
    }
    ensure!(!nodes.is_empty(), "{place}: the name has no address");
    Ok(nodes)
}

pub async fn who_is(ops: &str) -> reqwest::Result<Value> {
    let request = Client::new().get(format!("{ops}/health/live"));
    let answer = request.timeout(LIMIT).send().await?;
    answer.error_for_status()?.json().await
}

fn parts(place: &str) -> Option<(&str, u16, u16)> {
    let (rest, port) = place.rsplit_once(':')?;
    let (host, ops) = rest.rsplit_once(':')?;
    Some((host, ops.parse().ok()?, port.parse().ok()?)).filter(|(host, _, _)| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_vhost_is_what_stands_behind_the_host() {
        for (url, vhost) in [
            ("amqp://u:p@h:5672/%2f", "/"),
            ("amqp://u:p@h:5672", "/"),
            ("amqp://u:p@h:5672/", "/"),
            ("amqp://u:p@h/test-1", "test-1"),
        ] {
            assert_eq!(vhost_of(url).unwrap(), vhost, "{url}");
        }
    }

    #[test]
    fn a_node_is_no_more_only_where_its_host_leads_to_others() {
        let node = |name: &str, place: &str| NodeSight {
            name: name.to_owned(),
            service: Service::Receiver,
            ops: String::new(),
            address: String::new(),
            place: Some(place.to_owned()),
        };
        let all = [node("receiver-a", "one:2:1"), node("receiver-b", "two:2:1")];
        let listed = |name, place| NodeSight::is_listed(&all, name, place);
        assert_eq!(listed("receiver-a", Some("three:2:1")), Ok(true));
        assert_eq!(listed("receiver-c", Some("two:2:1")), Ok(false));
        let elsewhere = listed("receiver-c", Some("three:2:1")).unwrap_err().0;
        assert!(elsewhere.contains("not among --nodes"), "{elsewhere}");
        assert!(elsewhere.ends_with("--nodes three:2:1"), "{elsewhere}");
        // of before places were noted
        listed("receiver-c", None).unwrap_err();
        NodeSight::is_listed(&[], "receiver-c", Some("two:2:1")).unwrap_err();
    }

    #[test]
    fn a_place_is_a_host_and_two_ports() {
        assert_eq!(parts("sender:9081:8081"), Some(("sender", 9081, 8081)));
        for wrong in [
            "sender",
            "sender:9081",
            ":1:2",
            "sender:x:1",
            "sender:1:99999",
        ] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_the_nodes_tell_is_put_together() {
        let mut facts = Facts::default();
        let knobs = json!({"delay_max_ms": 0, "failure_action": "nack"});
        facts.add(vec![
            (json!({"without": ["inbox"]}), Value::Null),
            (json!({"without": ["confirms", "inbox"]}), knobs),
            (Value::Null, Value::Null),
        ]);
        assert_eq!(facts.without, ["confirms", "inbox"]);
        let settings = [("delay_max_ms", "0"), ("failure_action", "nack")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(facts.settings, BTreeMap::from(settings));
    }

    #[tokio::test]
    async fn a_gateway_is_an_address() {
        for wrong in ["", "localhost:8080", "https://h", "http://", "ftp://h"] {
            let error = Sight::given(wrong, &Elsewhere::default())
                .await
                .unwrap_err();
            assert!(error.is::<Usage>(), "{wrong}: {error}");
        }
        let nothing = Elsewhere::default();
        let sight = Sight::given("http://127.0.0.1:8080/", &nothing).await;
        assert_eq!(sight.unwrap().gateway, "http://127.0.0.1:8080");
    }

    #[tokio::test]
    async fn where_no_stack_runs_nothing_can_be_seen() {
        let nowhere = std::env::temp_dir().join("lab-sight-nowhere");
        let error = Sight::native(&nowhere).await.unwrap_err();
        assert!(error.is::<Usage>(), "{error}");
    }
}
