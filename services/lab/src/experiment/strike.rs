//! One fault after the other, or several at a time, as planned: injected, seen, held, healed, seen to be over.
//!
//! What was not seen is a doubt, never a pass.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio::time::{sleep, sleep_until};

use super::journal::FaultRecord;
use super::schedule::Planned;
use super::stage::Stage;
use crate::faults::injector::{NotUndone, SEE_LIMIT};
use crate::faults::{Acted, Active, Evidence, Healed, find};
use crate::run::sight::NodeSight;
use crate::say::Steps;

/// What cannot be done now may be possible a little later: a node that was struck is not back yet.
const TRY_LIMIT: Duration = Duration::from_secs(15);
/// A heal that failed is tried again for so long: what it asks may just be starting.
const HEAL_LIMIT: Duration = Duration::from_secs(30);
const EACH: Duration = Duration::from_millis(250);

/// What faults are struck with.
pub(super) struct Striker<'a> {
    pub(super) stage: &'a Stage,
    pub(super) nodes: &'a [NodeSight],
    /// The start of the run.
    pub(super) zero: Instant,
    pub(super) load_over: &'a Cell<bool>,
    /// How long nodes may take until they are ready again.
    pub(super) recovery: Duration,
    pub(super) steps: &'a Steps<'a>,
}

impl Striker<'_> {
    fn now(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits until it is due, and does all of it. One that is meant to come under load, and comes when that is over, proves
    /// nothing.
    pub(super) async fn strike(
        &self,
        planned: &Planned,
        due: Duration,
        under_load: bool,
    ) -> FaultRecord {
        sleep_until((self.zero + due).into()).await;
        let mut record = FaultRecord {
            fault: planned.order.fault.clone(),
            planned_ms: u64::try_from(due.as_millis()).unwrap_or(u64::MAX),
            ..FaultRecord::default()
        };
        if let Err(doubt) = self.do_and_undo(planned, under_load, &mut record).await {
            let doubt = format!("{}: {doubt}", record.fault);
            self.steps.note(format!("doubt: {doubt}"));
            record.doubt = Some(doubt);
        }
        record
    }

    async fn do_and_undo(
        &self,
        planned: &Planned,
        under_load: bool,
        record: &mut FaultRecord,
    ) -> Result<(), String> {
        let Struck {
            mut active,
            begun,
            load_over,
        } = self.inject(planned).await?;
        record.struck.clone_from(&active.struck);
        record.injected_ms = Some(self.ms(begun));
        let seen = self.see(&mut active, record).await;
        if let (Ok(()), Some(time)) = (&seen, planned.time) {
            sleep_until((begun + time).into()).await;
        }
        // also what was not seen is undone
        let healed = self.heal(&active).await;
        seen?;
        let healed = healed?;
        record.healed_ms = Some(self.now());
        self.steps.done(
            begun,
            format!("{} is over: {}", active.describe(), healed.how),
        );
        let by_itself = if healed.by_itself {
            "over by itself: "
        } else {
            ""
        };
        record.heal_evidence = Some(format!("{by_itself}{}", healed.how));
        self.acted(&active, record).await?;
        if under_load && load_over {
            return Err("the load was over before its turn came".to_owned());
        }
        let ready = self.stage.ready(self.nodes, self.recovery).await;
        ready.map_err(|why| format!("not everything was right again afterwards: {why}"))?;
        record.recovered_ms = Some(self.now());
        Ok(())
    }

    fn ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.zero).as_millis()).unwrap_or(u64::MAX)
    }

    async fn inject(&self, planned: &Planned) -> Result<Struck, String> {
        let first = Instant::now();
        loop {
            let (begun, load_over) = (Instant::now(), self.load_over.get());
            let injected = match self.stage.named(&planned.order) {
                Ok(order) => self.stage.injector().inject(&order).await,
                Err(error) => Err(error),
            };
            match injected {
                Ok(active) => {
                    self.steps.note(format!("{} injected", active.describe()));
                    return Ok(Struck {
                        active,
                        begun,
                        load_over,
                    });
                }
                Err(error) if first.elapsed() > TRY_LIMIT => {
                    return Err(format!("it could not be injected: {error:#}"));
                }
                Err(error) if error.is::<NotUndone>() => return Err(format!("{error:#}")),
                Err(_) => sleep(EACH).await,
            }
        }
    }

    async fn see(&self, active: &mut Active, record: &mut FaultRecord) -> Result<(), String> {
        let limit = match find(&active.order.fault) {
            // a message published once more waits for its turn in the queue
            Ok(entry) if entry.publishes() => self.recovery,
            _ => SEE_LIMIT,
        };
        match self.stage.injector().see(active, limit).await {
            Ok(evidence) if evidence.happened() => {
                self.steps.note(format!("seen: {evidence}"));
                record.evidence = Some(evidence.text().to_owned());
                Ok(())
            }
            Ok(Evidence::Partly(why) | Evidence::NotSeen(why)) => {
                Err(format!("it was injected and could not be seen: {why}"))
            }
            Ok(evidence) => Err(format!("it was injected and could not be seen: {evidence}")),
            Err(error) => Err(format!("it could not be seen: {error:#}")),
        }
    }

    /// What lay in wait and met nobody has harmed nobody.
    async fn acted(&self, active: &Active, record: &mut FaultRecord) -> Result<(), String> {
        let begun = Instant::now();
        let acted = loop {
            match self.stage.injector().acted(active).await {
                Ok(None) => return Ok(()),
                Ok(Some(acted)) => break acted,
                Err(error) if begun.elapsed() > TRY_LIMIT => {
                    return Err(format!(
                        "armed and seen; nobody knows whether it acted: {error:#}"
                    ));
                }
                Err(_) => sleep(EACH).await,
            }
        };
        let how = sure(acted)?;
        self.steps.note(&how);
        let evidence = record.evidence.get_or_insert_default();
        *evidence = format!("{evidence}; then {how}");
        Ok(())
    }

    async fn heal(&self, active: &Active) -> Result<Healed, String> {
        let begun = Instant::now();
        loop {
            match self.stage.injector().heal(active).await {
                Ok(healed) => return Ok(healed),
                Err(error) if begun.elapsed() > HEAL_LIMIT => {
                    return Err(format!("it could not be healed: {error:#}"));
                }
                Err(_) => sleep(EACH).await,
            }
        }
    }
}

/// How it acted; else the doubt.
fn sure(acted: Acted) -> Result<String, String> {
    match acted {
        Acted::Yes(how) => Ok(how),
        Acted::No(how) => Err(format!("armed and seen, but it did nothing ({how})")),
        Acted::CannotTell(how) => Err(format!(
            "armed and seen, but whether it acted cannot be told ({how})"
        )),
    }
}

/// What was injected, and how it was when that began: some faults take a while.
struct Struck {
    active: Active,
    begun: Instant,
    load_over: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_have_acted_is_no_doubt() {
        let how = || "the log says so".to_owned();
        assert_eq!(sure(Acted::Yes(how())), Ok(how()));
        for acted in [Acted::No(how()), Acted::CannotTell(how())] {
            let doubt = sure(acted).unwrap_err();
            assert!(doubt.ends_with("(the log says so)"), "{doubt}");
        }
    }
}
