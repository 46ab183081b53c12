//! A fail point of a node is armed: at a named moment of the road it crashes, waits, errs or stands still.

use anyhow::{Context, Result};
use async_trait::async_trait;
use chaos::FailPoints;
use serde_json::{Map, Value, json};

use super::site::Identity;
use super::targets::{choose, names};
use super::work::unarmed;
use super::{Active, Aim, Evidence, Fault, Look, Order, Site};
use crate::say::Usage;
use crate::stack::node::Service;
use crate::stack::strike::Target;

const POINTS: &str = "/ops/fail-points";

/// An armed fail point.
#[derive(Debug)]
pub struct FailPoint;

/// What each point of a node is armed with.
async fn armed(look: &dyn Look, node: &str) -> Result<Map<String, Value>> {
    let points = look.ops(node, POINTS).await?;
    let points = points
        .as_array()
        .context("the node gave no list of fail points")?;
    let armed = points.iter().filter(|point| point["armed"].is_string());
    Ok(armed
        .filter_map(|point| Some((point["name"].as_str()?.to_owned(), point["armed"].clone())))
        .collect())
}

/// As a node reads it.
fn list(armed: &Map<String, Value>) -> String {
    let each = armed
        .iter()
        .map(|(name, action)| format!("{name}={}", action.as_str().unwrap_or_default()));
    each.collect::<Vec<_>>().join(",")
}

/// Who passes it.
fn service(point: &str) -> Service {
    if point.starts_with("submit.") || point.starts_with("relay.") {
        Service::Sender
    } else {
        Service::Receiver
    }
}

#[async_trait]
impl Fault for FailPoint {
    fn check(&self, order: &Order) -> Result<(), Usage> {
        let spec = format!("{}={}", order.text("point"), order.text("action"));
        let read = FailPoints::parse(&spec).map_err(|error| Usage(error.to_string()))?;
        let armed = read
            .status()
            .iter()
            .filter(|point| point.armed.is_some())
            .count();
        if armed == 1 {
            Ok(())
        } else {
            Err(Usage("a fail point is armed one at a time".to_owned()))
        }
    }

    async fn aim(&self, order: &Order, look: &dyn Look) -> Result<Aim> {
        let point = order.text("point");
        let struck = names(&choose(order, look, Some(service(point))).await?);
        let mut before = Map::new();
        for name in &struck {
            let armed = armed(look, name).await?;
            if armed.contains_key(point) {
                return Err(Usage(format!("{point} of {name} is armed already")).into());
            }
            let identity = look.identity(&Target::Node(name.clone())).await?;
            let identity = identity.ok_or_else(|| Usage(format!("{name} does not run")))?;
            before.insert(name.clone(), json!(identity));
        }
        Ok(Aim {
            struck,
            before: Value::Object(before),
        })
    }

    async fn inject(&self, active: &Active, site: &Site) -> Result<()> {
        let (point, action) = (active.order.text("point"), active.order.text("action"));
        for name in &active.struck {
            let mut all = armed(&*site.look, name).await?;
            all.insert(point.to_owned(), json!(action));
            site.harm.put_ops(name, POINTS, list(&all)).await?;
        }
        Ok(())
    }

    async fn heal(&self, active: &Active, site: &Site) -> Result<()> {
        for name in &active.struck {
            let mut all = armed(&*site.look, name).await?;
            all.remove(active.order.text("point"));
            site.harm.put_ops(name, POINTS, list(&all)).await?;
        }
        Ok(())
    }

    async fn evidence(&self, active: &Active, look: &dyn Look) -> Result<Evidence> {
        let point = active.order.text("point");
        let mut each = Vec::new();
        for name in &active.struck {
            let was: Identity = active.noted(name)?;
            each.push(match armed(look, name).await?.get(point) {
                Some(action) => {
                    let action = action.as_str().unwrap_or_default();
                    Evidence::Seen(format!("{name}: {point} is armed with {action}"))
                }
                None => unarmed(name, &was, look, &format!("{point} is not armed")).await?,
            });
        }
        Ok(Evidence::of_all(&each))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_point_that_there_is_can_be_armed() {
        let check = |point: &str, action: &str| {
            let order = Order::new("fail-point")
                .with("point", point)
                .with("action", action);
            FailPoint.check(&order).map_err(|error| error.to_string())
        };
        check("settle.before_ack", "crash@3").unwrap();
        assert!(
            check("nowhere", "crash")
                .unwrap_err()
                .contains("no fail point")
        );
        assert!(
            check("settle.before_ack", "boom")
                .unwrap_err()
                .contains("cannot be read")
        );
        check("settle.before_ack", "crash,submit.after_commit=error").unwrap_err();
        check("", "").unwrap_err();
    }
}
