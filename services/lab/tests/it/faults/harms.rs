//! An injector that does nothing.

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
