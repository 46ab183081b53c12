//! For tests only: a vhost, a database and a key prefix per test, a proxy that cuts, processes
//! that can be killed, and a wait that says what it waited for.
//!
//! Tests run on the real servers. [`Servers::shared`] are those that `cargo lab test` started for
//! the whole run; they are never broken. A test that breaks servers starts its own with
//! [`Servers::start`].
//!
//! What goes wrong in setting up is a panic with the reason, since a test can do nothing about it;
//! what a test may want to see fail returns a `Result`.

#![warn(missing_docs)]

mod broker;
mod cleanup;
mod database;
mod process;
mod servers;
mod wait;

pub use broker::{Broker, QueueDepth};
pub use database::Database;
pub use process::{Process, Program};
pub use proxy::{Direction, Proxy};
pub use servers::{Addresses, Postgres, RabbitMq, Redis, Server, Servers};
pub use wait::{Seen, wait_until, wait_until_eq};

use std::path::PathBuf;

/// A prefix for the keys of one test in the shared Redis. They are left behind; the server goes
/// with the run.
pub fn redis_prefix() -> String {
    format!("test:{}:", name())
}

/// The program `lab`, as the build that made this test left it beside the test.
///
/// # Panics
/// If it is not there: then only a part of the workspace was built.
pub fn lab_binary() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let lab = test.ancestors().nth(2).map(|folder| folder.join("lab"));
    let lab = lab.filter(|lab| lab.is_file());
    lab.expect("lab is not built: run these tests with `cargo lab test`")
}

/// Letters and digits that nobody else uses.
fn name() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..12].to_owned()
}
