//! The programs that a fault may strike, and how it is seen that one is dead or stands still.

use anyhow::Result;
use serde_json::{Map, Value};

use super::site::{Identity, Life};
use super::{Active, Aim, Evidence, Look, Order, Which};
use crate::run::sight::NodeSight;
use crate::say::Usage;
use crate::stack::node::Service;
use crate::stack::servers::Which as Server;
use crate::stack::strike::Target;

/// Programs of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Targets {
    Nodes(Service),
    Server(Server),
}

impl Targets {
    /// The program of this name.
    pub fn named(self, name: &str) -> Target {
        match self {
            Self::Nodes(_) => Target::Node(name.to_owned()),
            Self::Server(server) => Target::Server(server),
        }
    }

    /// Chooses, and notes which process each is now.
    pub async fn aim(self, order: &Order, look: &dyn Look) -> Result<Aim> {
        let struck = match self {
            Self::Server(server) => vec![server.title().to_owned()],
            Self::Nodes(service) => names(&choose(order, look, &[service]).await?),
        };
        let mut before = Map::new();
        for name in &struck {
            let identity = look.identity(&self.named(name)).await?;
            let identity = identity.ok_or_else(|| Usage(format!("{name} does not run")))?;
            before.insert(name.clone(), serde_json::to_value(identity)?);
        }
        Ok(Aim {
            struck,
            before: Value::Object(before),
        })
    }

    /// Dead is what the system says is gone and whose socket refuses.
    pub async fn death(self, active: &Active, look: &dyn Look) -> Result<Evidence> {
        let mut each = Vec::new();
        for name in &active.struck {
            let (target, before): (_, Identity) = (self.named(name), active.noted(name)?);
            let process = &before.name;
            let gone = look.life(&target, &before).await? == Life::Gone;
            each.push(match (gone, look.answers(&target).await?) {
                (false, _) => Evidence::NotSeen(format!("{name}: {process} runs")),
                (true, false) => {
                    Evidence::Seen(format!("{name}: {process} is gone, its socket refuses"))
                }
                (true, true) => {
                    let now = look.identity(&target).await?.map(|now| now.name);
                    let now = now.unwrap_or_else(|| "another process".to_owned());
                    Evidence::HealedBySelf(format!(
                        "{name}: {process} is gone, {now} takes connections"
                    ))
                }
            });
        }
        Ok(Evidence::of_all(&each))
    }

    /// Each still is the process that it was, and stands.
    pub async fn stillness(self, active: &Active, look: &dyn Look) -> Result<Evidence> {
        let mut each = Vec::new();
        for name in &active.struck {
            let before: Identity = active.noted(name)?;
            let process = &before.name;
            each.push(match look.life(&self.named(name), &before).await? {
                Life::Paused => Evidence::Seen(format!("{name}: {process} stands still")),
                Life::Runs => Evidence::NotSeen(format!("{name}: {process} runs")),
                // whoever was seen to stand still is over with it; else nobody knows what ended it
                Life::Gone => Evidence::NotSeen(format!("{name}: {process} is gone")),
            });
        }
        Ok(Evidence::of_all(&each))
    }
}

/// The nodes that an order means, of these services. Where nobody is named, and there are senders and receivers among them,
/// only those are meant: other services run beside them.
pub async fn choose(
    order: &Order,
    look: &dyn Look,
    services: &[Service],
) -> Result<Vec<NodeSight>> {
    let mut nodes = look.nodes().await?;
    nodes.retain(|node| services.contains(&node.service));
    let main = |node: &NodeSight| Service::MAIN.contains(&node.service);
    if !matches!(order.which, Which::One(_)) && nodes.iter().any(main) {
        nodes.retain(main);
    }
    let what = match services {
        [service] => service.name(),
        _ => "node",
    };
    Ok(order.choose(&nodes, |node| node.name.clone(), what)?)
}

/// Their names.
pub fn names(nodes: &[NodeSight]) -> Vec<String> {
    nodes.iter().map(|node| node.name.clone()).collect()
}
