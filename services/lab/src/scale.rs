//! `lab scale`: more or fewer nodes while messages flow.

use std::path::Path;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::say;
use crate::stack::Plan;
use crate::stack::control::{self, Request};
use crate::stack::node::Service;
use crate::up;

/// `receiver=5`
pub fn parse(text: &str) -> Result<(Service, usize), String> {
    let shape = "say it like receiver=5";
    let (name, count) = text.split_once('=').ok_or(shape)?;
    let service = Service::from_str(name, false).map_err(|_| {
        let names = Service::ALL.map(Service::name).join(", ");
        format!("there is no service `{name}`: right is one of {names}")
    })?;
    Ok((service, up::count(count)?))
}

/// Comes back when the nodes that came are ready and those that went have finished.
pub async fn run(root: &Path, wanted: &[(Service, usize)]) -> Result<()> {
    let nodes: Plan = wanted.iter().copied().collect();
    ensure!(
        nodes.len() == wanted.len(),
        "the same service is named twice"
    );
    control::ask(root, &Request::Scale { nodes }, &say::tell).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_and_a_number() {
        assert_eq!(parse("receiver=5"), Ok((Service::Receiver, 5)));
        assert_eq!(parse("notes-worker=3"), Ok((Service::NotesWorker, 3)));
        assert!(parse("receiver").unwrap_err().contains("receiver=5"));
        assert!(parse("sendr=1").unwrap_err().contains("sender, receiver,"));
        assert!(parse("sender=-1").unwrap_err().contains("0 to 64"));
    }
}
