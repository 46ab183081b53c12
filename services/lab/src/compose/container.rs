//! One container of a stack, as Docker describes it, and what it is by the words of the compose file.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::stack::node::Service;
use crate::stack::servers::Which as Server;

/// What the names of Compose's labels begin with.
pub(super) const LABEL: &str = "com.docker.compose";

/// One container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    /// The service of the compose file that it is one of.
    pub service: String,
    /// Which one of that service.
    pub number: u32,
    pub running: bool,
    pub paused: bool,
    /// The host's number of its first process.
    pub pid: i64,
    /// When that was started.
    pub started: String,
    /// On the project's network, while it runs.
    pub address: Option<IpAddr>,
    pub environment: BTreeMap<String, String>,
    hostname: String,
    /// The compose files that it was started with, separated by commas.
    pub(super) files: String,
    /// The folder that they were read in.
    pub(super) folder: String,
}

impl Container {
    /// From what `docker inspect` tells of it.
    pub(super) fn read(told: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let label = |name: &str| text(&told["Config"]["Labels"][format!("{LABEL}.{name}")]);
        let environment = told["Config"]["Env"].as_array().into_iter().flatten();
        let environment = environment.filter_map(|pair| {
            let (name, value) = pair.as_str()?.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        let networks = told["NetworkSettings"]["Networks"].as_object();
        let mut networks = networks.into_iter().flatten();
        let address = networks.find_map(|(_, network)| network["IPAddress"].as_str()?.parse().ok());
        Ok(Self {
            id: text(&told["Id"]),
            service: label("service"),
            number: label("container-number")
                .parse()
                .context("a container without a number")?,
            running: told["State"]["Running"] == true && told["State"]["Restarting"] != true,
            paused: told["State"]["Paused"] == true,
            pid: told["State"]["Pid"].as_i64().unwrap_or(0),
            started: text(&told["State"]["StartedAt"]),
            address,
            environment: environment.collect(),
            hostname: text(&told["Config"]["Hostname"]),
            files: label("project.config_files"),
            folder: label("project.working_dir"),
        })
    }

    /// What a node in it calls itself; see `docker/entrypoint`.
    pub fn node(&self) -> String {
        let named = self.environment.get("NODE_NAME");
        let short = self.hostname.get(..6).unwrap_or(&self.hostname);
        named
            .cloned()
            .unwrap_or_else(|| format!("{}-{short}", self.service))
    }

    /// The service of ours that runs in it, if one does.
    pub fn role(&self) -> Option<Service> {
        Service::ALL
            .into_iter()
            .find(|service| service.name() == self.service)
    }

    /// As people call it.
    pub fn short(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// One of its environment.
    pub(super) fn variable(&self, name: &str) -> Result<&str> {
        let found = self.environment.get(name).map(String::as_str);
        found.with_context(|| format!("the container of {} has no {name}", self.service))
    }
}

/// The first port, of those that have one, and the one of health and metrics.
pub fn ports(service: Service) -> (u16, u16) {
    match service {
        Service::Sender => (8081, 9081),
        Service::Receiver => (8082, 9082),
        Service::Notes => (8084, 9084),
        Service::Leases => (8085, 9085),
        Service::Signup => (8086, 9086),
        Service::NotesWorker => (0, 9087),
        Service::SignupWelcome => (0, 9088),
    }
}

/// The name of a server's service in the compose file, and its port.
pub fn server(which: Server) -> (&'static str, u16) {
    match which {
        Server::RabbitMq => ("rabbitmq", 5672),
        Server::Postgres => ("postgres", 5432),
        Server::Redis => ("redis", 6379),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told() -> Value {
        json!({
            "Id": "0123456789abcdef",
            "State": {"Running": true, "Paused": false, "Restarting": false, "Pid": 77, "StartedAt": "t1"},
            "Config": {
                "Hostname": "0123456789ab",
                "Env": ["AMQP_URL=amqp://u:p=q@rabbitmq:5672/%2f"],
                "Labels": {
                    "com.docker.compose.service": "sender",
                    "com.docker.compose.container-number": "2",
                    "com.docker.compose.project.config_files": "/a/b.yml",
                    "com.docker.compose.project.working_dir": "/a",
                },
            },
            "NetworkSettings": {"Networks": {"unacked_default": {"IPAddress": "172.18.0.5"}}},
        })
    }

    #[test]
    fn a_container_is_read_from_what_docker_tells() {
        let one = Container::read(&told()).unwrap();
        assert_eq!(
            (one.service.as_str(), one.number, one.pid),
            ("sender", 2, 77)
        );
        assert!(one.running && !one.paused);
        assert_eq!(one.address, Some(IpAddr::from([172, 18, 0, 5])));
        assert_eq!(
            one.environment["AMQP_URL"],
            "amqp://u:p=q@rabbitmq:5672/%2f"
        );
        assert_eq!(one.role(), Some(Service::Sender));
        // as docker/entrypoint makes it
        assert_eq!(one.node(), "sender-012345");
    }

    #[test]
    fn one_that_is_dead_or_about_to_be_started_again_does_not_run() {
        let mut dead = told();
        dead["NetworkSettings"]["Networks"]["unacked_default"]["IPAddress"] = json!("");
        dead["State"]["Restarting"] = json!(true);
        let one = Container::read(&dead).unwrap();
        assert!(!one.running);
        assert_eq!(one.address, None);
    }
}
