//! Dead letters are sent back, as somebody does who has mended what failed: the receivers are asked, by their own API.
//!
//! It breaks nothing by itself; something else may strike in the middle of it. It is about what is parked when it begins.
//! Healing it is a cancel: what was sent back by then stays so, and the rest stays parked. A stack that stops in the middle
//! forgets it as a fault; the order goes on with the next receivers, as anybody's does.
//!
//! Evidence: dead letters that the receivers' ledger has as sent back by this order, which was named before anybody was asked.

use anyhow::Result;
use async_trait::async_trait;
use messaging::receive::redrive::{Selection, State};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::memory_alarm;
use super::{Active, Aim, Evidence, Fault, Look, Order, Site};
use crate::dead::read::{self, Sent};
use crate::dead::receivers::{Receivers, Refused};
use crate::say::Usage;

/// An order to send dead letters back.
#[derive(Debug)]
pub struct Redrive;

/// Has receivers begin it.
pub(super) async fn begin(
    receivers: &Receivers,
    id: Uuid,
    selection: &Selection,
    per_second: u32,
) -> Result<()> {
    let who = "a fault of the lab";
    let planned = receivers.plan(id, selection, per_second, who, false).await;
    planned.map_err(told)?;
    receivers.start(id).await.map_err(told)?;
    Ok(())
}

/// Has them end it; what they do not know has not begun.
pub(super) async fn cancel(receivers: &Receivers, id: Uuid) -> Result<()> {
    match receivers.cancel(id).await {
        Ok(_) => Ok(()),
        Err(refused) if refused.is_unknown() => Ok(()),
        Err(refused) => Err(told(refused)),
    }
}

fn told(refused: Refused) -> anyhow::Error {
    match refused {
        Refused::NoToken => Usage(refused.to_string()).into(),
        refused => refused.into(),
    }
}

/// Whose dead letters.
fn selection(order: &Order) -> Selection {
    let run = Some(order.text("run")).filter(|run| !run.is_empty());
    Selection {
        all: run.is_none(),
        run: run.map(str::to_owned),
        ..Selection::default()
    }
}

#[async_trait]
impl Fault for Redrive {
    async fn aim(&self, order: &Order, look: &dyn Look) -> Result<Aim> {
        if order.text("when") == "alarm" && !memory_alarm::flag(look).await?.happened() {
            return Err(Usage("the broker has no memory alarm yet".to_owned()).into());
        }
        let selection = selection(order);
        let mut database = PgConnection::connect(&look.auditor_url()?).await?;
        let parked = read::of_ours(&mut database, &selection).await?;
        database.close().await?;
        let of = match &selection.run {
            Some(run) => format!(" of the run {run}"),
            None => String::new(),
        };
        if parked == 0 {
            let why = format!("no dead letter{of} is parked: there is none to send back");
            return Err(Usage(why).into());
        }
        Ok(Aim {
            struck: vec![format!("dead letters{of}")],
            before: json!({ "redrive": Uuid::now_v7(), "selection": selection }),
        })
    }

    async fn inject(&self, active: &Active, site: &Site) -> Result<()> {
        let (id, selection) = (active.noted("redrive")?, active.noted("selection")?);
        let rate = u32::try_from(active.order.number("rate")?)?;
        site.harm.redrive(id, &selection, rate).await
    }

    async fn heal(&self, active: &Active, site: &Site) -> Result<()> {
        site.harm.cancel_redrive(active.noted("redrive")?).await
    }

    async fn evidence(&self, active: &Active, look: &dyn Look) -> Result<Evidence> {
        let id: Uuid = active.noted("redrive")?;
        let mut database = PgConnection::connect(&look.auditor_url()?).await?;
        let sent = read::sent(&mut database, id).await?;
        database.close().await?;
        Ok(sent.map_or_else(
            || Evidence::NotSeen(format!("the receivers know no redrive {id}")),
            |sent| seen(id, &sent),
        ))
    }
}

/// What the ledger shows of an order.
fn seen(id: Uuid, sent: &Sent) -> Evidence {
    let (state, all, back) = (sent.state.word(), sent.selected, sent.redriven);
    let effect = match sent.has_effect {
        0 => String::new(),
        some => format!(", {some} had their effect already"),
    };
    let text =
        format!("redrive {id} is {state}: {back} of {all} dead letters were sent back{effect}");
    match sent.state {
        State::Running if back > 0 => Evidence::Seen(text),
        State::Done if back > 0 => Evidence::HealedBySelf(text),
        State::Planned | State::Running | State::Done => Evidence::NotSeen(text),
        State::Cancelled => {
            let left = all - back - sent.has_effect;
            Evidence::NotSeen(format!("{text}, {left} were left as they were"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_seen_while_something_is_sent_back_and_told_with_its_shortfall() {
        let look = |state, redriven, has_effect| {
            let sent = Sent {
                state,
                selected: 9,
                redriven,
                has_effect,
            };
            seen(Uuid::nil(), &sent)
        };
        assert!(matches!(look(State::Planned, 0, 0), Evidence::NotSeen(_)));
        assert!(matches!(look(State::Running, 0, 2), Evidence::NotSeen(_)));
        assert!(matches!(look(State::Running, 1, 0), Evidence::Seen(_)));
        assert!(matches!(look(State::Done, 9, 0), Evidence::HealedBySelf(_)));
        assert!(matches!(look(State::Done, 0, 9), Evidence::NotSeen(_)));
        let cancelled = look(State::Cancelled, 4, 1);
        assert!(matches!(cancelled, Evidence::NotSeen(_)));
        let right = "is cancelled: 4 of 9 dead letters were sent back, 1 had their effect already, 4 were left as they were";
        assert!(cancelled.text().ends_with(right), "{cancelled}");
    }

    #[test]
    fn an_experiment_sends_back_its_own() {
        let all = selection(&Order::new("dead-letters-redrive"));
        assert!(all.all && all.run.is_none());
        let own = selection(&Order::new("dead-letters-redrive").with("run", "r1"));
        assert!(!own.all && own.run.as_deref() == Some("r1"));
    }
}
