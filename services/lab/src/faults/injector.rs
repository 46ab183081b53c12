//! Does what is ordered, step by step, and looks at what came of it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use super::active::{Active, Notes};
use super::catalogue::Strikes;
use super::http::Refused;
use super::{Acted, Entry, Evidence, Ground, Order, Site, find};
use crate::run::sight::Elsewhere;
use crate::say::Usage;
use crate::stack::strike::Target;

/// How long the evidence of a harm may take to show.
pub const SEE_LIMIT: Duration = Duration::from_secs(15);
/// How long a heal may take: a broker that starts again needs the longest.
pub const HEAL_LIMIT: Duration = Duration::from_mins(2);
/// A node that was just started again answers within this time.
const START_LIMIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A single look that takes longer has seen nothing.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// How a fault ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Healed {
    /// What was seen.
    pub how: String,
    /// It was over before it was healed.
    pub by_itself: bool,
}

/// A harm failed, and what was done of it is still there: it must not be tried once more.
#[derive(Debug)]
pub struct NotUndone(String);

impl fmt::Display for NotUndone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotUndone {}

/// Injects, looks and heals, on one stack. What is active it knows from the disk only, so that it may come and go.
#[derive(Clone)]
pub struct Injector {
    site: Site,
    notes: Notes,
    root: PathBuf,
    elsewhere: Elsewhere,
    ground: Ground,
}

impl Injector {
    /// For the stack whose folder this is.
    pub fn new(site: Site, root: &Path) -> Self {
        Self {
            site,
            notes: Notes::of(root),
            root: root.to_owned(),
            elsewhere: Elsewhere::default(),
            ground: Ground::Native,
        }
    }

    /// The same for another kind of stack: people name it when they heal.
    #[must_use]
    pub fn of(mut self, elsewhere: &Elsewhere, root: &Path) -> Self {
        self.elsewhere = elsewhere.clone();
        self.ground = if elsewhere.compose.is_some() {
            Ground::Compose
        } else {
            Ground::Inside
        };
        root.clone_into(&mut self.root);
        self
    }

    /// What heals it, as people say it.
    pub fn heal_command(&self, id: &str) -> String {
        self.elsewhere
            .command(&self.root, &format!("fault heal {id}"))
    }

    /// What is active, oldest first.
    pub fn active(&self) -> Result<Vec<Active>> {
        self.notes.all()
    }

    /// Does the harm; whether it happened, [`Injector::see`] says. An order that cannot be obeyed is [`Usage`], and
    /// nothing was done then; after any other error what was done in part is undone.
    pub async fn inject(&self, order: &Order) -> Result<Active> {
        let entry = find(&order.fault)?;
        let order = entry.check(order)?;
        if let Some(why) = entry.not_from(self.ground) {
            return Err(Usage(format!("{}: {why}", entry.name)).into());
        }
        let aim = timeout(LOOK_LIMIT, entry.fault.aim(&order, &*self.site.look)).await;
        let aim = aim.unwrap_or_else(|_| Err(anyhow!("what it is aimed at does not answer")));
        let aim = aim.with_context(|| format!("{} cannot be injected", order.fault));
        let mut active = Active::new(order, aim.map_err(usage_first)?);
        if self.ground == Ground::Inside {
            let nodes = self.site.look.nodes().await?.into_iter();
            active.places = nodes
                .filter(|node| active.struck.contains(&node.name))
                .filter_map(|node| Some((node.name, node.place?)))
                .collect();
        }
        for other in self.notes.all()? {
            let same = other.struck.iter().any(|name| active.struck.contains(name));
            if same && find(&other.order.fault)?.in_the_way(entry) {
                let (what, id) = (other.describe(), &other.id);
                let heal = self.heal_command(id);
                return Err(Usage(format!("{what} is active already; `{heal}` ends it")).into());
            }
        }
        self.notes.write(&active)?;
        if let Err(error) = entry.fault.inject(&active, &self.site).await {
            let failed = format!("{} failed: {error:#}", active.describe());
            if entry.publishes() && error.is::<Refused>() {
                self.notes.remove(&active.id)?;
                bail!("{failed}; nothing was published");
            }
            let left = match self.heal(&active).await {
                Ok(seen) if entry.publishes() => {
                    format!("what was published cannot be undone: {}", seen.how)
                }
                Ok(_) => bail!("{failed}; it was undone"),
                Err(error) => format!("and could not be undone: {error:#}"),
            };
            return Err(NotUndone(format!("{failed}; {left}")).into());
        }
        Ok(active)
    }

    /// One look. What cannot be seen is an error.
    pub async fn look(&self, active: &Active) -> Result<Evidence> {
        let entry = find(&active.order.fault)?;
        let look = async {
            let Parted { left, gone } = self.part(active).await?;
            let mut each = gone;
            if each.is_empty() || !left.struck.is_empty() {
                each.push(entry.fault.evidence(&left, &*self.site.look).await?);
            }
            Ok::<_, anyhow::Error>(Evidence::of_all(&each))
        };
        let evidence = timeout(LOOK_LIMIT, look)
            .await
            .context("a look takes too long")??;
        Ok(match evidence {
            // it was there, and nobody healed it
            Evidence::NotSeen(text) if active.seen.is_some() => Evidence::HealedBySelf(text),
            evidence => evidence,
        })
    }

    /// Of what lies in wait: whether somebody walked into it. What cannot be asked is an error.
    pub async fn acted(&self, active: &Active) -> Result<Option<Acted>> {
        let entry = find(&active.order.fault)?;
        let acted = entry.fault.acted(active, &*self.site.look);
        timeout(LOOK_LIMIT, acted)
            .await
            .context("a look takes too long")?
    }

    /// Those that were struck and still are there, dead or alive, and a word for each other: its container was made anew,
    /// or scaled away. Where that cannot be asked, nothing is known, so it is an error.
    async fn part(&self, active: &Active) -> Result<Parted> {
        let entry = find(&active.order.fault)?;
        let (mut left, mut gone) = (active.clone(), Vec::new());
        left.struck.clear();
        for name in &active.struck {
            let target = match entry.strikes {
                Strikes::Nodes(_) | Strikes::AnyNode | Strikes::Links(_) => {
                    Target::Node(name.clone())
                }
                Strikes::Server(server) => Target::Server(server),
                Strikes::Queue | Strikes::Connections => {
                    left.struck.push(name.clone());
                    continue;
                }
            };
            let place = active.places.get(name).map(String::as_str);
            let listed = self.site.look.listed(&target, place).await;
            if listed.with_context(|| format!("whether {name} still is there is unknown"))? {
                left.struck.push(name.clone());
            } else {
                let text = format!("{name} is no more: what was done to it is over with it");
                gone.push(match active.seen {
                    Some(_) => Evidence::HealedBySelf(text),
                    None => Evidence::NotSeen(text),
                });
            }
        }
        Ok(Parted { left, gone })
    }

    /// Looks until the harm shows, for so long at most, and notes what was seen.
    pub async fn see(&self, active: &mut Active, limit: Duration) -> Result<Evidence> {
        let begun = Instant::now();
        loop {
            let seen = self.look(active).await;
            if let Ok(evidence) = &seen
                && evidence.happened()
            {
                active.seen = Some(evidence.text().to_owned());
                // one that was healed meanwhile needs no note
                if self.notes.all()?.iter().any(|note| note.id == active.id) {
                    self.notes.write(active)?;
                }
                return seen;
            }
            if begun.elapsed() > limit {
                return Ok(match seen {
                    Ok(evidence) => evidence,
                    Err(error) => Evidence::NotSeen(format!("{error:#}")),
                });
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Undoes it, looks until it is over, and forgets it.
    pub async fn heal(&self, active: &Active) -> Result<Healed> {
        let entry = find(&active.order.fault)?;
        let parted = self.part(active).await;
        let parted = parted.with_context(|| format!("{} cannot be healed", active.describe()))?;
        let all_gone = parted.left.struck.is_empty() && !parted.gone.is_empty();
        let before = self.look(active).await;
        let by_itself = all_gone || matches!(before, Ok(Evidence::HealedBySelf(_)));
        let mut over = by_itself;
        let begun = Instant::now();
        loop {
            let healing = entry.fault.heal(&parted.left, &self.site);
            let healing = timeout(HEAL_LIMIT, healing).await;
            let healed = healing
                .map_err(anyhow::Error::from)
                .and_then(|healed| healed);
            match healed {
                Ok(()) => break,
                // one that is over has nothing that could be undone
                Err(_) if over => break,
                // a node that is just started again will answer
                Err(error) if begun.elapsed() < START_LIMIT && !error.is::<Usage>() => {
                    sleep(LOOK_EVERY).await;
                }
                Err(error) => {
                    let why = format!("{} cannot be healed", active.describe());
                    return Err(error.context(why));
                }
            }
            over = matches!(self.look(active).await, Ok(Evidence::HealedBySelf(_)));
        }
        loop {
            let seen = self.look(active).await;
            match seen {
                // what is done at once has nothing to undo, even if less of it is seen than was ordered
                Ok(evidence)
                    if evidence.over()
                        || (entry.instant && matches!(evidence, Evidence::Partly(_))) =>
                {
                    self.notes.remove(&active.id)?;
                    let how = evidence.text().to_owned();
                    // what is over as soon as it is done nobody healed, however soon it was looked at
                    let by_itself = by_itself || entry.instant;
                    return Ok(Healed { how, by_itself });
                }
                seen if begun.elapsed() > HEAL_LIMIT => {
                    let why =
                        seen.map_or_else(|error| format!("{error:#}"), |seen| seen.to_string());
                    bail!("{} was healed and is still seen: {why}", active.describe());
                }
                _ => sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Heals what is active, the newest first, and says what came of each.
    pub async fn heal_all(&self) -> Result<Vec<(Active, Result<Healed>)>> {
        let mut done = Vec::new();
        for active in self.notes.all()?.into_iter().rev() {
            let healed = self.heal(&active).await;
            done.push((active, healed));
        }
        Ok(done)
    }

    /// Heals what outlives the programs, in the broker's data, and forgets the rest: for a stack whose programs are new.
    pub async fn clear(&self) -> Result<Vec<(Active, Result<Healed>)>> {
        let mut done = Vec::new();
        for active in self.notes.all()? {
            let lasting = find(&active.order.fault).is_ok_and(|entry: &Entry| entry.lasting);
            if lasting {
                let healed = self.heal(&active).await;
                done.push((active, healed));
            } else {
                self.notes.remove(&active.id)?;
                let how = "it ended with the programs it struck".to_owned();
                done.push((
                    active,
                    Ok(Healed {
                        how,
                        by_itself: true,
                    }),
                ));
            }
        }
        Ok(done)
    }
}

/// Those that were struck.
struct Parted {
    /// The fault on those that still are there.
    left: Active,
    /// What is seen of the others.
    gone: Vec<Evidence>,
}

/// Context is put before an error, but its kind decides the exit code.
fn usage_first(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Usage>() {
        Some(usage) => usage.clone().into(),
        None => error,
    }
}

#[cfg(test)]
#[path = "injector_tests.rs"]
mod tests;
