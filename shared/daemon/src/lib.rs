//! What every long-running process of the project needs, and nothing about messages.
//!
//! A service's life, in order: its settings are read ([`settings`]), it learns who it is
//! ([`node`]) and how to speak ([`telemetry`]); a [`lifecycle`] is made, on which everything that
//! runs is spawned; [`database`] and [`redis`] are opened, whether or not the servers are there;
//! [`monitor`] keeps [`parts`] true; [`http`] serves the pages and, on a second port, [`ops`].
//!
//! Postgres, Redis or the broker may be absent at start or leave at any time. That is a state in
//! [`parts`], never a reason to exit. Only wrong settings, a migration that cannot apply, and a
//! background task that dies end a process.

#![warn(missing_docs)]

pub mod clock;
pub mod database;
pub mod http;
pub mod lifecycle;
pub mod metrics;
pub mod monitor;
pub mod node;
pub mod ops;
pub mod parts;
pub mod process;
pub mod redis;
pub mod settings;
pub mod tally;
pub mod telemetry;

pub use metrics::metrics_handle;
pub use settings::WrongSetting;
