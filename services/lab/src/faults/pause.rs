//! A node or a server is stopped where it is, with its sockets open, until it is healed: what hangs looks like this.

use anyhow::Result;
use async_trait::async_trait;

use super::site::{Identity, Life};
use super::targets::Targets;
use super::{Active, Aim, Evidence, Fault, Look, Means, Order, Site};

/// A pause.
#[derive(Debug)]
pub struct Pause {
    pub targets: Targets,
}

#[async_trait]
impl Fault for Pause {
    fn means(&self) -> Means {
        Means::Programs
    }

    async fn aim(&self, order: &Order, look: &dyn Look) -> Result<Aim> {
        self.targets.aim(order, look).await
    }

    async fn inject(&self, active: &Active, site: &Site) -> Result<()> {
        for name in &active.struck {
            site.harm.pause(&self.targets.named(name)).await?;
        }
        Ok(())
    }

    async fn heal(&self, active: &Active, site: &Site) -> Result<()> {
        for name in &active.struck {
            let target = self.targets.named(name);
            // one that died meanwhile has nothing to go on with
            if site.look.identity(&target).await?.is_some() {
                site.harm.resume(&target).await?;
            }
        }
        Ok(())
    }

    async fn evidence(&self, active: &Active, look: &dyn Look) -> Result<Evidence> {
        let mut each = Vec::new();
        for name in &active.struck {
            let before: Identity = active.noted(name)?;
            let process = &before.name;
            each.push(match look.life(&self.targets.named(name), &before).await? {
                Life::Paused => Evidence::Seen(format!("{name}: {process} stands still")),
                Life::Runs => Evidence::NotSeen(format!("{name}: {process} runs")),
                // whoever was seen to stand still is over with it; else nobody knows what ended it
                Life::Gone => Evidence::NotSeen(format!("{name}: {process} is gone")),
            });
        }
        Ok(Evidence::of_all(&each))
    }
}
