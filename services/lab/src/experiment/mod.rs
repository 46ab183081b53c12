//! Experiments: a load, faults and an expectation in one file; and the same once more, made unsafe.
//!
//! In order: the file is read (`raw.rs`) and understood (`file.rs`, `harm.rs`) before anything starts; the faults are
//! planned from the seed (`schedule.rs`); the stack gets nodes, a vhost and a database of its own (`stage/`); load and
//! faults run, and somebody counts (`runner.rs`, `strike.rs`, `sampler.rs`); what is left is drained and audited, compared
//! with what was expected (`expect.rs`), and put down (`journal.rs`).

pub mod catalogue;
pub mod cli;
pub mod expect;
pub mod file;
pub mod fits;
pub mod harm;
pub mod journal;
pub mod list;
mod raw;
pub mod runner;
pub(crate) mod sampler;
pub mod schedule;
pub mod settings;
pub mod stage;
mod strike;
mod units;
pub mod watch;
