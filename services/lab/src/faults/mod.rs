//! Harm that is done on purpose: what there is to do, how it is done, undone, and seen.
//!
//! A fault is one deed on one kind of target, such as `receiver-kill`. Each knows how to be injected, healed, and seen:
//! its evidence is a look at the stack that does not ask who injected it, so a fault that did not happen is not taken for
//! one that did. The types keep that: [`Fault::evidence`] gets [`Look`], which changes nothing, and never [`Harm`].
//!
//! In order: the order is checked ([`mod@catalogue`]), the target is chosen and what is there before is written to disk
//! ([`active`]), the harm is done, the evidence is looked for until it is there; later the harm is undone, and the evidence
//! looked for until it is gone; only then the file is removed. What can go wrong between two lines: whoever did it dies.
//! Then the file says what to undo, and `lab up` or `lab fault heal --all` does it.

pub mod active;
pub mod appended;
pub mod beside;
pub mod catalogue;
pub mod cli;
pub mod close_connection;
pub mod compose;
pub mod duplicate_publish;
pub mod evidence;
pub mod fail_point;
pub mod http;
pub mod injector;
pub mod inside;
pub mod last_words;
pub mod left;
pub mod link;
mod list;
pub mod memory_alarm;
pub mod native;
pub mod offered;
pub mod order;
pub mod over_socket;
mod probe;
pub mod program;
pub mod queue_limit;
pub mod queue_unbind;
pub mod redrive;
pub mod site;
pub mod targets;
pub mod work;

use anyhow::Result;
use async_trait::async_trait;
use serde_json::Value;

pub use active::Active;
pub use catalogue::{Entry, Ground, catalogue, find};
pub use evidence::{Acted, Evidence};
pub use injector::{Healed, Injector};
pub use order::{Order, Which};
pub use site::{Harm, Look, Site};

use crate::say::Usage;

/// Why a fault is not for no time at all: it would be healed as soon as it is seen.
pub const NO_TIME: &str = "a fault for no time is none: right is 10s or 500ms; without a time it stays until it is healed";

/// What an order means on the stack as it is now.
#[derive(Debug, Clone)]
pub struct Aim {
    /// Names of what is struck.
    pub struck: Vec<String>,
    /// What is there before: the evidence compares with it, and healing restores it.
    pub before: Value,
}

/// What a fault is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// What servers and nodes offer on their ports.
    Ports,
    /// A hand on their programs.
    Programs,
    /// A proxy in each link.
    Links,
}

/// One kind of harm.
#[async_trait]
pub trait Fault: Send + Sync {
    /// What it is done with.
    fn means(&self) -> Means {
        Means::Ports
    }

    /// Looks at the arguments, beyond what the catalogue says of each.
    fn check(&self, _order: &Order) -> Result<(), Usage> {
        Ok(())
    }

    /// Chooses what is struck, and looks at it. What cannot be done on this stack is [`Usage`].
    async fn aim(&self, order: &Order, look: &dyn Look) -> Result<Aim>;

    /// Does it.
    async fn inject(&self, active: &Active, site: &Site) -> Result<()>;

    /// Undoes it; may be called again, and after the harm is over.
    async fn heal(&self, active: &Active, site: &Site) -> Result<()>;

    /// Whether the harm can be seen now.
    async fn evidence(&self, active: &Active, look: &dyn Look) -> Result<Evidence>;

    /// Of what lies in wait, such as an armed fail point: whether somebody walked into it, also after it was healed. None:
    /// it does not lie in wait.
    async fn acted(&self, _active: &Active, _look: &dyn Look) -> Result<Option<Acted>> {
        Ok(None)
    }
}
