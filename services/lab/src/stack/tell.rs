//! What a stack tells of itself: the state of all its programs, and where its pages are.

use std::fmt::Write;

use futures::future::join_all;

use super::node::Service;
use super::servers::Which;
use super::{Running, Stack, dir, process};
use crate::status::{NodeCondition, NodeStatus, RabbitMqStatus, ServerStatus, Status};

impl Stack {
    /// What everything is doing now. All that is said to be ready is asked, at the same time.
    pub async fn status(&self) -> Status {
        let nodes: Vec<(Service, Running)> = self
            .nodes()
            .iter()
            .flat_map(|(service, running)| running.iter().map(|node| (*service, node.clone())))
            .collect();
        let looks = nodes.into_iter().map(|(service, node)| async move {
            NodeStatus::new(service, node.place, node.unit.look().await)
        });
        let console = async {
            let (port, unit) = self.console.as_ref()?;
            Some(ServerStatus {
                url: format!("http://127.0.0.1:{port}"),
                program: unit.look().await.into(),
            })
        };
        let catcher = async {
            let (port, unit) = self.catcher().clone()?;
            Some(ServerStatus {
                url: format!("smtp://127.0.0.1:{port}"),
                program: unit.look().await.into(),
            })
        };
        let (postgres, redis, rabbitmq, gateway, console, catcher, nodes) = tokio::join!(
            self.servers.look(Which::Postgres),
            self.servers.look(Which::Redis),
            self.servers.look(Which::RabbitMq),
            self.gateway.look(),
            console,
            catcher,
            join_all(looks),
        );
        // a scene that could not be read was not made
        let at = self
            .addresses()
            .unwrap_or_else(|_| self.servers.addresses.clone());
        Status {
            gateway: self.gateway.url(),
            gateway_pid: gateway.pid,
            gateway_state: gateway.doing,
            gateway_restarts: gateway.restarts,
            gateway_missing: gateway.missing,
            postgres: ServerStatus {
                url: at.database,
                program: postgres.into(),
            },
            redis: ServerStatus {
                url: at.redis,
                program: redis.into(),
            },
            rabbitmq: RabbitMqStatus {
                amqp: at.amqp,
                management: at.management,
                program: rabbitmq.into(),
            },
            console,
            catcher,
            own: self.own().collect(),
            nodes,
            dir: self.dir.root().to_owned(),
            pid: std::process::id(),
        }
    }

    /// What the stack knows of its nodes without asking them; cheap enough to be asked twice a second.
    pub fn conditions(&self) -> Vec<NodeCondition> {
        let nodes = self.nodes();
        let all = nodes
            .iter()
            .flat_map(|(service, running)| running.iter().map(|node| (*service, node)));
        all.map(|(service, node)| {
            let now = node.unit.condition();
            let pid = now.pid.and_then(|pid| i32::try_from(pid).ok());
            NodeCondition {
                name: node.place.name.clone(),
                service,
                ops: format!("http://127.0.0.1:{}", node.place.ops),
                frozen: pid.and_then(process::state) == Some('T'),
                doing: now.doing,
                restarts: now.restarts,
            }
        })
        .collect()
    }

    /// Where to look, for the person who started it, without secrets.
    pub fn pages(&self) -> String {
        let gateway = self.gateway.url();
        let broker = self
            .servers
            .addresses
            .management
            .as_deref()
            .map(without_secrets);
        let broker = match (broker, self.servers.unit(Which::RabbitMq)) {
            (None, _) => String::new(),
            (Some(broker), None) => format!("  Broker   {broker}/\n"),
            (Some(broker), Some(_)) => {
                let secrets = self.dir.root().join("secrets.json");
                format!(
                    "  Broker   {broker}/  (user lab, password in {})\n",
                    secrets.display()
                )
            }
        };
        let console = if self.console.is_some() {
            let token = &self.dir.secrets().console;
            format!("  Lab      {gateway}/lab  (to break something, sign in with {token})\n")
        } else {
            String::new()
        };
        let mut others = String::new();
        for (service, own) in self.own() {
            let title = match service {
                Service::Notes => "Notes",
                Service::Leases => "Leases",
                _ => "Sign-up",
            };
            let page = service.page();
            let _ = writeln!(
                others,
                "  {title:<8} {gateway}{page}  (at the root of its own port: {own}/)"
            );
        }
        if self.catcher().is_some() {
            let mails = dir::command(self.dir.root(), "mails");
            let _ = writeln!(others, "  Mails    `{mails}` shows those that were sent");
        }
        format!("  Send     {gateway}/\n  Results  {gateway}/received\n{others}{console}{broker}")
    }

    /// The services that have a port of the gateway to themselves, with its URL.
    fn own(&self) -> impl Iterator<Item = (Service, String)> {
        let own = self.gateway.own().iter();
        own.map(|(service, port)| (*service, format!("http://127.0.0.1:{port}")))
    }
}

fn without_secrets(url: &str) -> String {
    match url
        .split_once("://")
        .and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1)))
    {
        Some((scheme, rest)) => format!("{scheme}://{rest}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_secrets() {
        assert_eq!(
            without_secrets("http://u:p@127.0.0.1:1/x"),
            "http://127.0.0.1:1/x"
        );
        assert_eq!(
            without_secrets("http://127.0.0.1:1/x"),
            "http://127.0.0.1:1/x"
        );
    }
}
