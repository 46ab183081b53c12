//! Injectors that do less than they are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use async_trait::async_trait;
use lab::faults::Harm;
use lab::faults::site::LinkHarm;
use lab::stack::servers::Which as Server;
use lab::stack::strike::{End, Target};
use reqwest::Method;
use serde_json::Value;

/// An injector that does nothing.
pub(super) struct Nothing;

#[async_trait]
impl Harm for Nothing {
    async fn hold(&self, _: &Target, _: End) -> Result<()> {
        Ok(())
    }
    async fn release(&self, _: &Target) -> Result<()> {
        Ok(())
    }
    async fn restart(&self, _: &Target) -> Result<()> {
        Ok(())
    }
    async fn pause(&self, _: &Target) -> Result<()> {
        Ok(())
    }
    async fn resume(&self, _: &Target) -> Result<()> {
        Ok(())
    }
    async fn manage(&self, _: Method, _: &[&str], _: Option<Value>) -> Result<()> {
        Ok(())
    }
    async fn memory_alarm(&self, _: bool) -> Result<()> {
        Ok(())
    }
    async fn put_ops(&self, _: &str, _: &str, _: String) -> Result<()> {
        Ok(())
    }
    async fn link(&self, _: &str, _: Server, _: LinkHarm) -> Result<()> {
        Ok(())
    }
}

/// One that asks the management API once, and says that it has done so each time.
pub(super) struct Once {
    harm: Arc<dyn Harm>,
    done: AtomicBool,
}

impl Once {
    pub(super) fn of(harm: &Arc<dyn Harm>) -> Self {
        Self {
            harm: Arc::clone(harm),
            done: AtomicBool::new(false),
        }
    }
}

#[async_trait]
impl Harm for Once {
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
        if self.done.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.harm.manage(method, path, body).await
    }
    async fn memory_alarm(&self, on: bool) -> Result<()> {
        self.harm.memory_alarm(on).await
    }
    async fn put_ops(&self, node: &str, path: &str, body: String) -> Result<()> {
        self.harm.put_ops(node, path, body).await
    }
    async fn link(&self, node: &str, server: Server, harm: LinkHarm) -> Result<()> {
        self.harm.link(node, server, harm).await
    }
}
