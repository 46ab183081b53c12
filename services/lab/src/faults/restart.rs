//! A server is stopped softly and started again: over when it is injected.

use anyhow::Result;
use async_trait::async_trait;

use super::targets::Targets;
use super::{Active, Aim, Evidence, Fault, Look, Means, Order, Site};

/// An orderly restart.
#[derive(Debug)]
pub struct Restart {
    pub targets: Targets,
}

#[async_trait]
impl Fault for Restart {
    fn means(&self) -> Means {
        Means::Programs
    }

    async fn aim(&self, order: &Order, look: &dyn Look) -> Result<Aim> {
        self.targets.aim(order, look).await
    }

    async fn inject(&self, active: &Active, site: &Site) -> Result<()> {
        for name in &active.struck {
            site.harm.restart(&self.targets.named(name)).await?;
        }
        Ok(())
    }

    /// Only needed when whoever restarted it died on the way.
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
