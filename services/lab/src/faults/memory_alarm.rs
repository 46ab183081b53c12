//! The broker is short of memory and blocks everybody who publishes.

use anyhow::{Result, bail};
use async_trait::async_trait;
use serde_json::Value;

use super::{Active, Aim, Evidence, Fault, Look, Means, Order, Site};
use crate::say::Usage;

/// The alarm.
#[derive(Debug)]
pub struct MemoryAlarm;

#[async_trait]
impl Fault for MemoryAlarm {
    fn means(&self) -> Means {
        Means::Programs
    }

    async fn aim(&self, _order: &Order, look: &dyn Look) -> Result<Aim> {
        if flag(look).await?.happened() {
            return Err(Usage("the memory alarm is set already".to_owned()).into());
        }
        Ok(Aim {
            struck: vec!["RabbitMQ".to_owned()],
            before: Value::Null,
        })
    }

    async fn inject(&self, _active: &Active, site: &Site) -> Result<()> {
        site.harm.memory_alarm(true).await
    }

    async fn heal(&self, _active: &Active, site: &Site) -> Result<()> {
        site.harm.memory_alarm(false).await
    }

    async fn evidence(&self, _active: &Active, look: &dyn Look) -> Result<Evidence> {
        flag(look).await
    }
}

/// Asked of the broker at this moment; the flag `mem_alarm` in its list of nodes may be five seconds old.
pub(super) async fn flag(look: &dyn Look) -> Result<Evidence> {
    let check = look
        .broker(&["health", "checks", "local-alarms"])
        .await?
        .unwrap_or_default();
    let alarms = check["alarms"].as_array().into_iter().flatten();
    let memory = alarms.filter(|alarm| alarm["resource"] == "memory").count();
    Ok(match (check["status"].as_str(), memory) {
        (Some("ok"), _) => Evidence::NotSeen("the broker has no alarm".to_owned()),
        (Some(_), 1..) => Evidence::Seen("the broker has a memory alarm".to_owned()),
        (Some(_), 0) => Evidence::NotSeen(format!("the broker has no memory alarm: {check}")),
        (None, _) => bail!("the broker does not say which alarms it has: {check}"),
    })
}
