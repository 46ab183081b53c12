//! What a stack tells of itself: the state of all its programs, and where its pages are.

use futures::future::join_all;

use super::node::Service;
use super::servers::Which;
use super::{Running, Stack};
use crate::status::{NodeStatus, RabbitMqStatus, ServerStatus, Status};

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
        let (postgres, redis, rabbitmq, gateway, nodes) = tokio::join!(
            self.servers.look(Which::Postgres),
            self.servers.look(Which::Redis),
            self.servers.look(Which::RabbitMq),
            self.gateway.look(),
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
            nodes,
            dir: self.dir.root().to_owned(),
            pid: std::process::id(),
        }
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
        format!("  Send     {gateway}/\n  Results  {gateway}/received\n{broker}")
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
