//! What is done to the program of a node or of a server: it is ended and stays dead, it is started anew, or it stands still
//! where it is, with its sockets open; what hangs looks like that.

use anyhow::Result;
use async_trait::async_trait;
use futures::future::join_all;

use super::targets::Targets;
use super::{Active, Aim, Evidence, Fault, Look, Means, Order, Site};
use crate::stack::strike::End;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It ends like this, and stays dead until it is healed.
    End(End),
    /// It is stopped softly and started again: over when it is injected.
    Restart,
    /// It is stopped where it is until it is healed.
    Pause,
}

/// A deed on programs.
#[derive(Debug)]
pub struct Program {
    pub targets: Targets,
    pub deed: Deed,
}

#[async_trait]
impl Fault for Program {
    fn means(&self) -> Means {
        Means::Programs
    }

    async fn aim(&self, order: &Order, look: &dyn Look) -> Result<Aim> {
        self.targets.aim(order, look).await
    }

    async fn inject(&self, active: &Active, site: &Site) -> Result<()> {
        let each = active.struck.iter().map(|name| async move {
            let target = self.targets.named(name);
            match self.deed {
                Deed::End(end) => site.harm.hold(&target, end).await,
                Deed::Restart => site.harm.restart(&target).await,
                Deed::Pause => site.harm.pause(&target).await,
            }
        });
        // all to their end: one that is dropped half way may still strike after the heal
        join_all(each).await.into_iter().collect()
    }

    /// After a restart only needed when whoever did it died on the way.
    async fn heal(&self, active: &Active, site: &Site) -> Result<()> {
        for name in &active.struck {
            let target = self.targets.named(name);
            match self.deed {
                Deed::End(_) | Deed::Restart => site.harm.release(&target).await?,
                // one that died meanwhile has nothing to go on with
                Deed::Pause if site.look.identity(&target).await?.is_none() => {}
                Deed::Pause => site.harm.resume(&target).await?,
            }
        }
        Ok(())
    }

    async fn evidence(&self, active: &Active, look: &dyn Look) -> Result<Evidence> {
        match self.deed {
            Deed::End(_) | Deed::Restart => self.targets.death(active, look).await,
            Deed::Pause => self.targets.stillness(active, look).await,
        }
    }
}
