//! The injector that does nothing: for integration tests, and for the unit tests of the injector's own.

use anyhow::Result;
use async_trait::async_trait;
use lab::faults::Harm;
use lab::faults::site::LinkHarm;
use lab::stack::servers::Which as Server;
use lab::stack::strike::{End, Target};
use messaging::receive::redrive::Selection;
use reqwest::Method;
use serde_json::Value;
use uuid::Uuid;

/// An injector that does nothing, but perhaps on a release.
#[derive(Default)]
pub(crate) struct Nothing {
    pub(crate) on_release: Option<Box<OnRelease>>,
}

pub(crate) type OnRelease = dyn Fn(&Target) -> Result<()> + Send + Sync;

#[async_trait]
impl Harm for Nothing {
    async fn hold(&self, _: &Target, _: End) -> Result<()> {
        Ok(())
    }
    async fn release(&self, target: &Target) -> Result<()> {
        self.on_release.as_ref().map_or(Ok(()), |on| on(target))
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
    async fn redrive(&self, _: Uuid, _: &Selection, _: u32) -> Result<()> {
        Ok(())
    }
    async fn cancel_redrive(&self, _: Uuid) -> Result<()> {
        Ok(())
    }
    async fn link(&self, _: &str, _: Server, _: LinkHarm) -> Result<()> {
        Ok(())
    }
}
