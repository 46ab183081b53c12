//! What `lab fault` asks of the `lab up` that runs the stack, and how that answers.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::injector::{Healed, SEE_LIMIT};
use super::native::Native;
use super::{Active, Injector, Order, find};
use crate::load::length;
use crate::say::{Steps, Usage};
use crate::stack::Stack;

/// One question.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// Without a time it stays until it is healed.
    Inject {
        order: Order,
        #[serde(with = "length::maybe")]
        time: Option<Duration>,
    },
    /// Without an id: all.
    Heal {
        id: Option<String>,
    },
    Active,
    /// Whether there are proxies.
    Links,
}

/// Injects and heals on this stack.
pub fn injector(stack: &Arc<Stack>) -> Injector {
    Injector::new(Native::site(stack), stack.dir().root())
}

/// Does what is asked, on any stack. When `stop` comes first, what was injected is healed.
pub async fn answer(
    ask: &Ask,
    injector: &Injector,
    links: bool,
    steps: &Steps<'_>,
    stop: impl Future<Output = ()>,
) -> Result<Value> {
    match ask {
        Ask::Links => Ok(json!({ "links": links })),
        Ask::Active => {
            let mut seen = Vec::new();
            for active in injector.active()? {
                let now = match injector.look(&active).await {
                    Ok(evidence) => json!(evidence),
                    Err(error) => json!({"is": "unknown", "why": format!("{error:#}")}),
                };
                let mut active = serde_json::to_value(active)?;
                active["now"] = now;
                seen.push(active);
            }
            Ok(Value::Array(seen))
        }
        Ask::Heal { id } => heal(injector, id.as_deref(), steps).await,
        Ask::Inject { order, time } => {
            let begun = Instant::now();
            let mut active = injector.inject(order).await?;
            steps.done(begun, format!("{} injected", active.describe()));
            tokio::pin!(stop);
            let seen = tokio::select! {
                seen = hold(injector, &mut active, *time, steps) => seen,
                () = stop => Ok(After::Heal),
            };
            match seen {
                Ok(After::Keep) => Ok(json!({"id": active.id, "seen": active.seen})),
                Ok(After::Heal) => {
                    let healed = heal_one(injector, &active, steps).await?;
                    Ok(json!({"id": active.id, "seen": active.seen, "healed": healed}))
                }
                Err(error) => {
                    let undone = heal_one(injector, &active, steps).await;
                    undone.and(Err(error))
                }
            }
        }
    }
}

/// What to do with a fault that was seen.
enum After {
    Keep,
    Heal,
}

async fn hold(
    injector: &Injector,
    active: &mut Active,
    time: Option<Duration>,
    steps: &Steps<'_>,
) -> Result<After> {
    let begun = Instant::now();
    let evidence = injector.see(active, SEE_LIMIT).await?;
    if !evidence.happened() {
        bail!(
            "{} was injected and cannot be seen: {evidence}",
            active.describe()
        );
    }
    steps.done(begun, format!("seen: {evidence}"));
    if find(&active.order.fault)?.instant {
        return Ok(After::Heal);
    }
    let Some(time) = time else {
        steps.note(format!("`{}` heals it", injector.heal_command(&active.id)));
        return Ok(After::Keep);
    };
    sleep(time.saturating_sub(begun.elapsed())).await;
    Ok(After::Heal)
}

async fn heal(injector: &Injector, id: Option<&str>, steps: &Steps<'_>) -> Result<Value> {
    let mut active = injector.active()?;
    if let Some(id) = id {
        active.retain(|one| one.id == id);
        if active.is_empty() {
            return Err(Usage(format!("no fault {id} is active")).into());
        }
    }
    if active.is_empty() {
        steps.note("no fault is active");
    }
    let (mut healed, mut failed) = (Vec::new(), Vec::new());
    for one in active.into_iter().rev() {
        match heal_one(injector, &one, steps).await {
            Ok(how) => healed.push(json!({"id": one.id, "healed": how})),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    if failed.is_empty() {
        Ok(Value::Array(healed))
    } else {
        bail!("{}", failed.join("; "))
    }
}

async fn heal_one(injector: &Injector, active: &Active, steps: &Steps<'_>) -> Result<Healed> {
    let begun = Instant::now();
    let healed = injector.heal(active).await?;
    let by = if healed.by_itself {
        "over by itself"
    } else {
        "healed"
    };
    steps.done(begun, format!("{} {by}: {}", active.describe(), healed.how));
    Ok(healed)
}
