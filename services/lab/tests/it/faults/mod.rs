//! Faults, on a stack of their own: what is injected is seen, what is healed is seen to be over, and what was not injected
//! is not seen.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use lab::faults::{Entry, catalogue};

mod commands;
mod every;
mod harms;
mod nothing;
mod own;
mod scene;
mod undone;
mod up;

const LIMIT: Duration = Duration::from_mins(2);
/// Enough for statistics of the broker that are five seconds old.
const NOT_SEEN: Duration = Duration::from_secs(6);

/// All faults but those of nodes that other services have.
fn of_each_stack() -> impl Iterator<Item = &'static Entry> {
    catalogue()
        .iter()
        .filter(|entry| entry.beyond_main().is_none())
}

fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("unacked-{}", uuid::Uuid::new_v4().simple()))
}

fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
