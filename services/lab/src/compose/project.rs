//! A project of Docker Compose: its containers as Docker describes them now, and how they are reached.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use reqwest::Url;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::container::{Container, LABEL, ports, server};
use super::docker::{docker, inspect, run};
use super::door;
use crate::run::sight::{NodeSight, Sight, vhost_of};
use crate::say::Usage;
use crate::stack::node::Service;
use crate::stack::servers::Which as Server;

/// How long what was looked at may be used again where it need not be of this moment.
const FRESH: Duration = Duration::from_millis(500);
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// The gateway's port in its container.
const GATEWAY: u16 = 8080;
const MANAGEMENT: u16 = 15672;
/// The variable with the secret of who may have receivers send dead letters back.
const TOKEN: &str = "REDRIVE_TOKEN";

/// All containers of one stack.
pub struct Project {
    name: String,
    /// Instead of the file that it was started with.
    file: Option<PathBuf>,
    seen: Mutex<Option<(Instant, Vec<Container>)>>,
    doors: Mutex<HashMap<(String, u16), SocketAddr>>,
    /// As nodes used it when somebody looked last.
    vhost: std::sync::Mutex<String>,
}

impl Project {
    /// The project of this name. None there is wrong usage.
    pub async fn find(name: &str, file: Option<PathBuf>) -> Result<Arc<Self>> {
        let project = Self {
            name: name.to_owned(),
            file,
            seen: Mutex::default(),
            doors: Mutex::default(),
            vhost: std::sync::Mutex::default(),
        };
        let containers = project.look().await?;
        let nodes = containers.iter().any(|one| one.role().is_some());
        if !nodes {
            let named = if name == "unacked" {
                String::new()
            } else {
                format!("-p {name} ")
            };
            return Err(Usage(format!(
                "there is no stack {name} of Docker Compose here; \
                 `docker compose {named}-f docker/docker-compose.yml up -d --build` starts it"
            ))
            .into());
        }
        Ok(Arc::new(project))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the messages are on the broker.
    pub fn vhost(&self) -> String {
        let vhost = self.vhost.lock();
        vhost.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All containers as they are now, those that are stopped too, in the order of services and their numbers.
    pub async fn look(&self) -> Result<Vec<Container>> {
        let of = format!("label={LABEL}.project={}", self.name);
        // not those of `docker compose run`
        let kept = format!("label={LABEL}.oneoff=False");
        let ids = docker(&[
            "ps",
            "-aq",
            "--no-trunc",
            "--filter",
            &of,
            "--filter",
            &kept,
        ])
        .await?;
        let ids: Vec<&str> = ids.lines().collect();
        let told = inspect(&ids).await?;
        let mut all = told
            .iter()
            .map(Container::read)
            .collect::<Result<Vec<_>>>()?;
        all.sort_by(|a, b| (&a.service, a.number).cmp(&(&b.service, b.number)));
        *self.seen.lock().await = Some((Instant::now(), all.clone()));
        Ok(all)
    }

    /// Where a container is; `fresh`: as of now.
    pub(super) async fn address(&self, id: &str, fresh: bool) -> Option<IpAddr> {
        let all = if fresh {
            self.look().await
        } else {
            self.lately().await
        };
        all.ok()?.iter().find(|one| one.id == id)?.address
    }

    /// The same, perhaps as of a moment ago.
    async fn lately(&self) -> Result<Vec<Container>> {
        let seen = self.seen.lock().await.clone();
        match seen {
            Some((at, all)) if at.elapsed() < FRESH => Ok(all),
            _ => self.look().await,
        }
    }

    /// The container of a service that has only one.
    pub async fn one(&self, service: &str) -> Result<Container> {
        let found = self
            .look()
            .await?
            .into_iter()
            .find(|one| one.service == service);
        found.with_context(|| format!("the stack {} has no container of {service}", self.name))
    }

    /// The container in which the node of this name is.
    pub async fn of_node(&self, name: &str) -> Result<Container> {
        let all = self.look().await?;
        let found = all
            .into_iter()
            .find(|one| one.role().is_some() && one.node() == name);
        found.ok_or_else(|| Usage(format!("there is no node {name}")).into())
    }

    async fn door(self: &Arc<Self>, id: &str, port: u16) -> Result<SocketAddr> {
        let mut doors = self.doors.lock().await;
        let key = (id.to_owned(), port);
        if let Some(address) = doors.get(&key) {
            return Ok(*address);
        }
        let address = door::open(self, id, port).await?;
        doors.insert(key, address);
        Ok(address)
    }

    /// All nodes, those that are dead too.
    pub async fn nodes(self: &Arc<Self>) -> Result<Vec<NodeSight>> {
        let mut nodes = Vec::new();
        for one in self.lately().await? {
            let Some(service) = one.role() else { continue };
            let (first, second) = ports(service);
            nodes.push(NodeSight {
                name: one.node(),
                service,
                ops: format!("http://{}", self.door(&one.id, second).await?),
                address: format!("http://{}", self.door(&one.id, first).await?),
                place: None,
            });
        }
        Ok(nodes)
    }

    /// The stack, as commands that only look see it.
    pub async fn sight(self: &Arc<Self>) -> Result<Sight> {
        let gateway = self.one("gateway").await?;
        let gateway = gateway.address.map(|ip| SocketAddr::new(ip, GATEWAY));
        let gateway = gateway.ok_or_else(|| Usage("the gateway does not run".to_owned()))?;
        let connected = timeout(CONNECT_LIMIT, TcpStream::connect(gateway)).await;
        if !matches!(connected, Ok(Ok(_))) {
            return Err(Usage(format!(
                "the gateway's container does not answer at {gateway}: where Docker keeps its network apart (Docker Desktop, \
                 rootless Docker), `docker compose -f docker/docker-compose.yml run --rm lab-docker ..` does the same inside of it"
            ))
            .into());
        }
        let all = self.look().await?;
        let sender = all.iter().find(|one| one.service == Service::Sender.name());
        let vhost = match sender {
            Some(sender) => vhost_of(sender.variable("AMQP_URL")?)?,
            None => "/".to_owned(),
        };
        let noted = self.vhost.lock();
        noted
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&vhost);
        Ok(Sight {
            gateway: format!("http://{gateway}"),
            auditor_url: self.auditor_url().await?,
            management: Some(self.management().await?),
            vhost,
            nodes: self.nodes().await?,
            redrive_token: self.redrive_token().await?,
            mails: None,
        })
    }

    /// The database, for the role that only reads.
    pub async fn auditor_url(self: &Arc<Self>) -> Result<String> {
        let postgres = self.one("postgres").await?;
        let door = self.door(&postgres.id, server(Server::Postgres).1).await?;
        let mut url: Url = format!("postgres://{door}").parse()?;
        url.set_path(postgres.variable("POSTGRES_DB")?);
        with_user(url, "auditor", postgres.variable("AUDITOR_PASSWORD")?)
    }

    /// The secret of who may have receivers send dead letters back; none: nobody may.
    pub async fn redrive_token(&self) -> Result<Option<String>> {
        let all = self.look().await?;
        let mut receivers = all
            .iter()
            .filter(|one| one.role() == Some(Service::Receiver));
        let token = receivers.find_map(|one| one.environment.get(TOKEN).cloned());
        Ok(token.filter(|token| !token.is_empty()))
    }

    /// The broker's management API, with user and password.
    pub async fn management(self: &Arc<Self>) -> Result<String> {
        let rabbitmq = self.one("rabbitmq").await?;
        let url: Url = format!("http://{}", self.door(&rabbitmq.id, MANAGEMENT).await?).parse()?;
        let user = rabbitmq.variable("RABBITMQ_DEFAULT_USER")?;
        with_user(url, user, rabbitmq.variable("RABBITMQ_DEFAULT_PASS")?)
    }

    /// Makes so many nodes with these settings (none: not set), in new containers, and leaves all else as it is.
    pub async fn remake(
        &self,
        counts: &BTreeMap<Service, usize>,
        settings: &BTreeMap<String, Option<String>>,
    ) -> Result<()> {
        let all = self.look().await?;
        let first = all.first().context("the stack is gone")?;
        // the passwords that the servers were made with, whatever this shell says
        let mut environment = passwords(&all);
        environment.extend(settings.clone());
        let environment: Vec<_> = environment.into_iter().collect();
        let files: Vec<String> = match &self.file {
            Some(file) => vec![file.display().to_string()],
            None => first.files.split(',').map(str::to_owned).collect(),
        };
        let mut arguments = vec!["compose", "-p", &self.name];
        for file in &files {
            arguments.extend(["-f", file]);
        }
        if self.file.is_none() {
            arguments.extend(["--project-directory", &first.folder]);
        }
        arguments.extend([
            "up",
            "--detach",
            "--no-deps",
            "--no-build",
            "--force-recreate",
        ]);
        let scales: Vec<String> = counts
            .iter()
            .map(|(service, count)| format!("--scale={}={count}", service.name()))
            .collect();
        arguments.extend(scales.iter().map(String::as_str));
        arguments.extend(counts.keys().map(|service| service.name()));
        run(&arguments, &environment).await?;
        self.look().await.map(drop)
    }
}

/// What the compose file asks for by these names, as the containers have it.
fn passwords(all: &[Container]) -> BTreeMap<String, Option<String>> {
    let mut found = BTreeMap::new();
    for (service, theirs, ours) in [
        ("postgres", "POSTGRES_PASSWORD", "POSTGRES_PASSWORD"),
        ("postgres", "SENDER_PASSWORD", "SENDER_PASSWORD"),
        ("postgres", "RECEIVER_PASSWORD", "RECEIVER_PASSWORD"),
        ("postgres", "NOTES_PASSWORD", "NOTES_PASSWORD"),
        ("postgres", "LEASES_PASSWORD", "LEASES_PASSWORD"),
        ("postgres", "SIGNUP_PASSWORD", "SIGNUP_PASSWORD"),
        ("postgres", "AUDITOR_PASSWORD", "AUDITOR_PASSWORD"),
        ("postgres", "LAB_PASSWORD", "LAB_PASSWORD"),
        ("redis", "REDISCLI_AUTH", "REDIS_PASSWORD"),
        ("rabbitmq", "RABBITMQ_DEFAULT_PASS", "RABBITMQ_PASSWORD"),
        ("receiver", TOKEN, TOKEN),
        ("signup", "SIGNUP_KEY", "SIGNUP_KEY"),
    ] {
        let of = all.iter().find(|one| one.service == service);
        if let Some(value) = of.and_then(|one| one.environment.get(theirs)) {
            found.insert(ours.to_owned(), Some(value.clone()));
        }
    }
    found
}

fn with_user(mut url: Url, user: &str, password: &str) -> Result<String> {
    let set = url
        .set_username(user)
        .and_then(|()| url.set_password(Some(password)));
    set.map_err(|()| anyhow::anyhow!("a URL has no place for a user"))?;
    Ok(url.into())
}
