//! A node or a server is killed, or asked to stop, and stays dead until it is healed.

use anyhow::Result;
use async_trait::async_trait;

use super::targets::Targets;
use super::{Active, Aim, Evidence, Fault, Look, Means, Order, Site};
use crate::stack::strike::End;

/// The end of a program.
#[derive(Debug)]
pub struct Kill {
    pub targets: Targets,
    pub end: End,
}

#[async_trait]
impl Fault for Kill {
    fn means(&self) -> Means {
        Means::Programs
    }

    async fn aim(&self, order: &Order, look: &dyn Look) -> Result<Aim> {
        self.targets.aim(order, look).await
    }

    async fn inject(&self, active: &Active, site: &Site) -> Result<()> {
        let holds = active
            .struck
            .iter()
            .map(|name| async move { site.harm.hold(&self.targets.named(name), self.end).await });
        futures::future::try_join_all(holds).await.map(drop)
    }

    async fn heal(&self, active: &Active, site: &Site) -> Result<()> {
        for name in &active.struck {
            site.harm.release(&self.targets.named(name)).await?;
        }
        Ok(())
    }

    async fn evidence(&self, active: &Active, look: &dyn Look) -> Result<Evidence> {
        self.targets.death(active, look).await
    }
}
