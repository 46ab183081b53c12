//! The stack that the console shows, and how it is reached: the one that `lab up` runs, by its control socket; any other by
//! what flags or the environment say of it.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::faults::active::Notes;
use crate::faults::over_socket::{self, Ask};
use crate::faults::{Entry, beside, catalogue};
use crate::run::sight::{Elsewhere, Sight};
use crate::say::{Steps, Usage};
use crate::stack::control::{self, Request};
use crate::status::NodeCondition;

/// Why a stack without proxies has no links that could be hurt.
const NOT_KNOWN: &str = "whether this stack has proxies is not known: its `lab up` does not answer";
const NO_LINKS: &str = "this stack has no proxies; `lab up --faults` puts them in";

/// How long a page waits for the word of `lab up`.
const LIMIT: Duration = Duration::from_secs(1);

/// Where the stack is.
pub struct Ground {
    root: PathBuf,
    elsewhere: Elsewhere,
    /// Asked once: a stack keeps its proxies for life.
    links: OnceCell<bool>,
}

impl Ground {
    /// Without flags it is the stack in this folder.
    pub fn new(root: &Path, elsewhere: &Elsewhere) -> Self {
        Self {
            root: root.to_owned(),
            elsewhere: elsewhere.clone(),
            links: OnceCell::new(),
        }
    }

    /// Whether `lab up` runs it.
    pub fn is_native(&self) -> bool {
        self.elsewhere.compose.is_none() && self.elsewhere.gateway.is_none()
    }

    /// Where its parts are now.
    pub async fn sight(&self) -> Result<Sight> {
        Sight::find(&self.root, &self.elsewhere).await
    }

    /// What `lab up` knows of its nodes.
    pub async fn conditions(&self) -> Result<Vec<NodeCondition>> {
        let quiet = |_: &str| {};
        let nodes = control::ask(&self.root, &Request::Nodes, &quiet).await?;
        serde_json::from_value(nodes).context("the stack that runs is of another version")
    }

    /// What is broken on purpose.
    pub fn notes(&self) -> Notes {
        Notes::of(&self.elsewhere.notes(&self.root))
    }

    /// The flags by which a command reaches it.
    pub fn flags(&self) -> String {
        self.elsewhere.flags()
    }

    /// Does what is asked, as `lab fault` does. In a task of its own where it must not be left half way is the caller's.
    pub async fn fault(&self, ask: Ask) -> Result<Value> {
        let quiet = |_: &str| {};
        if self.is_native() {
            if control::connect(&self.root).await.is_none() {
                return Err(Usage(control::absence(&self.root)).into());
            }
            return control::ask(&self.root, &Request::Fault { ask }, &quiet).await;
        }
        let injector = beside::injector(&self.root, &self.elsewhere).await?;
        let injector = injector.context("nobody can reach this stack")?;
        over_socket::answer(&ask, &injector, false, &Steps::new(&quiet), pending()).await
    }

    /// Every fault there is, each with the reason why this stack cannot have it.
    pub async fn faults(&self) -> Vec<(&'static Entry, Option<&'static str>)> {
        let links = self.links().await;
        let why = |entry: &Entry| {
            if !self.is_native() {
                let ground = if self.elsewhere.compose.is_some() {
                    crate::faults::Ground::Compose
                } else {
                    crate::faults::Ground::Inside
                };
                return entry.not_from(ground);
            }
            match links {
                _ if !entry.needs_links() => None,
                Some(true) => None,
                Some(false) => Some(NO_LINKS),
                None => Some(NOT_KNOWN),
            }
        };
        catalogue()
            .iter()
            .map(|entry| (entry, why(entry)))
            .collect()
    }

    /// Whether it has proxies; none: nobody says, in time.
    async fn links(&self) -> Option<bool> {
        let ask = async || {
            let links = timeout(LIMIT, self.fault(Ask::Links)).await??;
            links["links"].as_bool().context("no answer")
        };
        let links: Result<&bool> = self.links.get_or_try_init(ask).await;
        links.ok().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::net::UnixListener;

    use super::*;
    use crate::run::tests::Root;

    #[tokio::test]
    async fn without_an_answer_of_lab_up_nobody_says_that_there_are_no_proxies() {
        let root = Root::new();
        std::fs::create_dir(&root.0).unwrap();
        let ground = Ground::new(&root.0, &Elsewhere::default());
        let why = async || {
            let faults = ground.faults().await;
            let cut = faults.iter().find(|(entry, _)| entry.needs_links());
            cut.unwrap().1
        };
        assert_eq!(why().await, Some(NOT_KNOWN));
        // it is there, and stopped: it takes connections and says nothing
        let _silent = UnixListener::bind(root.0.join("control.sock")).unwrap();
        let began = Instant::now();
        assert_eq!(why().await, Some(NOT_KNOWN));
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
