//! Injectors that do less than they are told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use anyhow::{Result, bail};
use async_trait::async_trait;
use lab::faults::Harm;
use lab::faults::http::Refused;
use lab::faults::site::LinkHarm;
use lab::stack::servers::Which as Server;
use lab::stack::strike::{End, Target};
use messaging::receive::redrive::Selection;
use reqwest::Method;
use serde_json::Value;
use uuid::Uuid;

/// What comes of an order to the management API.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deed {
    /// What was ordered.
    Do,
    /// Nothing, but it says that it was done.
    Feign,
    /// Nothing, and it says so.
    Refuse,
    /// It is done, and no answer comes.
    BreakOff,
}

/// One that obeys the first orders to the management API so, and all else as it should.
pub(super) struct Manages {
    harm: Arc<dyn Harm>,
    deeds: Mutex<VecDeque<Deed>>,
}

impl Manages {
    pub(super) fn of(harm: &Arc<dyn Harm>, deeds: &[Deed]) -> Self {
        Self {
            harm: Arc::clone(harm),
            deeds: Mutex::new(deeds.iter().copied().collect()),
        }
    }
}

#[async_trait]
impl Harm for Manages {
    async fn hold(&self, target: &Target, end: End) -> Result<()> {
        self.harm.hold(target, end).await
    }
    async fn release(&self, target: &Target) -> Result<()> {
        self.harm.release(target).await
    }
    async fn restart(&self, target: &Target) -> Result<()> {
        self.harm.restart(target).await
    }
    async fn pause(&self, target: &Target) -> Result<()> {
        self.harm.pause(target).await
    }
    async fn resume(&self, target: &Target) -> Result<()> {
        self.harm.resume(target).await
    }
    async fn manage(&self, method: Method, path: &[&str], body: Option<Value>) -> Result<()> {
        let deed = self.deeds.lock().unwrap().pop_front();
        match deed.unwrap_or(Deed::Do) {
            Deed::Do => self.harm.manage(method, path, body).await,
            Deed::Feign => Ok(()),
            Deed::Refuse => Err(Refused("the management API says no".to_owned()).into()),
            Deed::BreakOff => {
                self.harm.manage(method, path, body).await?;
                bail!("no answer came")
            }
        }
    }
    async fn memory_alarm(&self, on: bool) -> Result<()> {
        self.harm.memory_alarm(on).await
    }
    async fn put_ops(&self, node: &str, path: &str, body: String) -> Result<()> {
        self.harm.put_ops(node, path, body).await
    }
    async fn redrive(&self, id: Uuid, selection: &Selection, per_second: u32) -> Result<()> {
        self.harm.redrive(id, selection, per_second).await
    }
    async fn cancel_redrive(&self, id: Uuid) -> Result<()> {
        self.harm.cancel_redrive(id).await
    }
    async fn link(&self, node: &str, server: Server, harm: LinkHarm) -> Result<()> {
        self.harm.link(node, server, harm).await
    }
}
