//! The simulated work gets slow, or fails: the knobs of receivers are turned while they run.
//!
//! A receiver that is started again has its settings of before: then the fault is over by itself.

use anyhow::Result;
use async_trait::async_trait;
use chaos::knobs::CRASHES;
use serde_json::{Map, Value, json};

use super::http::unless_it_died_of_it;
use super::site::Identity;
use super::targets::{choose, names};
use super::{Active, Aim, Evidence, Fault, Look, Order, Site, fail_point, last_words};
use crate::say::Usage;
use crate::stack::node::Service;
use crate::stack::strike::Target;

const KNOBS: &str = "/ops/knobs";

/// Which knobs are turned.
#[derive(Debug)]
pub enum Work {
    /// The range of its delay.
    Slow,
    /// It fails, and this is what the receiver does then; without: what the order says.
    Fail(Option<&'static str>),
}

impl Work {
    fn wanted(&self, order: &Order) -> Result<Map<String, Value>, Usage> {
        let mut wanted = Map::new();
        match self {
            Self::Slow => {
                let ms = |name: &str| {
                    let length = order.length(name)?;
                    Ok::<_, Usage>(json!(u64::try_from(length.as_millis()).unwrap_or(u64::MAX)))
                };
                wanted.insert("delay_min_ms".to_owned(), ms("delay-min")?);
                wanted.insert("delay_max_ms".to_owned(), ms("delay-max")?);
            }
            Self::Fail(action) => {
                let action = action.unwrap_or_else(|| order.text("action"));
                wanted.insert("fail_one_in".to_owned(), json!(order.number("one-in")?));
                wanted.insert("failure_action".to_owned(), json!(action));
            }
        }
        Ok(wanted)
    }

    /// Whether a receiver whose work fails dies of it.
    fn deadly(&self, order: &Order) -> bool {
        match self {
            Self::Slow => false,
            Self::Fail(action) => action.unwrap_or_else(|| order.text("action")) == "crash",
        }
    }
}

/// Whether a node's knobs stand so.
fn stand(knobs: &Value, wanted: &Map<String, Value>) -> bool {
    wanted.iter().all(|(name, value)| knobs[name] == *value)
}

#[async_trait]
impl Fault for Work {
    fn check(&self, order: &Order) -> Result<(), Usage> {
        let wanted = self.wanted(order)?;
        let (min, max) = (&wanted.get("delay_min_ms"), &wanted.get("delay_max_ms"));
        match (min.and_then(Value::as_u64), max.and_then(Value::as_u64)) {
            (Some(min), Some(max)) if min > max => {
                Err(Usage("delay-min is more than delay-max".to_owned()))
            }
            _ => Ok(()),
        }
    }

    async fn aim(&self, order: &Order, look: &dyn Look) -> Result<Aim> {
        let struck = names(&choose(order, look, &[Service::Receiver]).await?);
        let wanted = self.wanted(order)?;
        let mut before = Map::new();
        for name in &struck {
            let knobs = look.ops(name, KNOBS).await?;
            // then nobody could tell whether they were turned
            if stand(&knobs, &wanted) {
                let wanted = Value::Object(wanted);
                let why = format!("the knobs of {name} stand like that already: {wanted}");
                return Err(Usage(why).into());
            }
            let identity = look.identity(&Target::Node(name.clone())).await?;
            let identity = identity.ok_or_else(|| Usage(format!("{name} does not run")))?;
            let log = fail_point::log(look, name).await?;
            let noted = json!({"knobs": knobs, "identity": identity, "log": log});
            before.insert(name.clone(), noted);
        }
        Ok(Aim {
            struck,
            before: Value::Object(before),
        })
    }

    async fn inject(&self, active: &Active, site: &Site) -> Result<()> {
        let wanted = Value::Object(self.wanted(&active.order)?).to_string();
        for name in &active.struck {
            let told = site.harm.put_ops(name, KNOBS, wanted.clone()).await;
            if self.deadly(&active.order) {
                unless_it_died_of_it(told)?;
            } else {
                told?;
            }
        }
        Ok(())
    }

    async fn heal(&self, active: &Active, site: &Site) -> Result<()> {
        for name in &active.struck {
            let before: Value = active.noted(name)?;
            site.harm
                .put_ops(name, KNOBS, before["knobs"].to_string())
                .await?;
        }
        Ok(())
    }

    async fn evidence(&self, active: &Active, look: &dyn Look) -> Result<Evidence> {
        let wanted = self.wanted(&active.order)?;
        let mut each = Vec::new();
        for name in &active.struck {
            let before: Value = active.noted(name)?;
            let knobs = look.ops(name, KNOBS).await?;
            each.push(if stand(&knobs, &wanted) {
                Evidence::Seen(format!("{name}: its knobs stand at {knobs}"))
            } else {
                let was: Identity = serde_json::from_value(before["identity"].clone())?;
                let how = format!("its knobs stand at {knobs}");
                let died = self.deadly(&active.order).then(|| Died {
                    words: &[CRASHES],
                    log: before["log"].as_str(),
                });
                unarmed(name, &was, active, look, &how, died).await?
            });
        }
        Ok(Evidence::of_all(&each))
    }
}

/// How a node's log says that it died of what was set in it.
pub struct Died<'a> {
    /// All of them in one line.
    pub words: &'a [&'a str],
    /// What its log takes, see [`last_words::mute`].
    pub log: Option<&'a str>,
}

/// A node that has nothing of what was set in it: nobody set it, or it was started again since.
///
/// Whether it died of what was set, only its log tells; none: one does not die of it. (What was seen before is over with the
/// process that had it.)
pub async fn unarmed(
    name: &str,
    was: &Identity,
    active: &Active,
    look: &dyn Look,
    how: &str,
    died: Option<Died<'_>>,
) -> Result<Evidence> {
    let now = look.identity(&Target::Node(name.to_owned())).await?;
    let Some(now) = now.filter(|now| now != was) else {
        return Ok(Evidence::NotSeen(format!("{name}: {how}")));
    };
    let text = format!("{name}: {} is gone, {} runs; {how}", was.name, now.name);
    let Some(Died { words, log }) = died else {
        return Ok(Evidence::NotSeen(text));
    };
    let said = last_words::said(look, name, was, active.at, words).await?;
    let why = match (said, last_words::mute(log, true)) {
        (Some(true), _) => {
            let text = format!("{text}; its log says that it died of this");
            return Ok(Evidence::HealedBySelf(text));
        }
        (Some(false), None) => "its log does not say that it died of this".to_owned(),
        (Some(false), Some(mute)) => format!("of what it died cannot be told: {mute}"),
        (None, _) => "of what it died cannot be told from here".to_owned(),
    };
    Ok(Evidence::NotSeen(format!("{text}; {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knobs_stand_so_when_all_that_is_wanted_does() {
        let order = Order::new("work-fail")
            .with("one-in", "2")
            .with("action", "drop");
        let wanted = Work::Fail(None).wanted(&order).unwrap();
        let knobs = |one_in, action| json!({"delay_min_ms": 0, "delay_max_ms": 9, "fail_one_in": one_in, "failure_action": action});
        assert!(stand(&knobs(2, "drop"), &wanted));
        assert!(!stand(&knobs(2, "nack"), &wanted));
        assert!(!stand(&knobs(5, "drop"), &wanted));
        assert!(!stand(&Value::Null, &wanted));
    }

    #[test]
    fn a_delay_has_its_shortest_before_its_longest() {
        let order = |min, max| {
            Order::new("work-slow")
                .with("delay-min", min)
                .with("delay-max", max)
        };
        Work::Slow.check(&order("1s", "1s")).unwrap();
        Work::Slow.check(&order("2s", "1s")).unwrap_err();
    }
}
