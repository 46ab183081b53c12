//! What an experiment tells of itself while it runs.

use serde::{Deserialize, Serialize};

use super::journal::Sample;

/// What it is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nodes start.
    Starting,
    /// Load and faults.
    Loading,
    /// What is left is healed, and what is on its way is waited for.
    Draining,
    /// The ledger is read.
    Judging,
}

/// Something that is worth knowing at once.
#[derive(Debug, Clone, Copy)]
pub enum Seen<'a> {
    /// From now on it is at this.
    Phase(Phase),
    /// The counts of this second.
    Sample(&'a Sample),
}

/// Whoever wants to know.
pub type Watch<'a> = &'a (dyn Fn(Seen<'_>) + Send + Sync);
