//! An experiment, understood: what its file asks for, and whether this stack can do it.
//!
//! Everything that can be found wrong is found here, before anything starts, with its line and column.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use messaging::guarantee::{Guarantee, Without};

use super::expect::{Expect, Figure, Limit};
use super::harm::Harm;
use super::raw::{self, Pairs, RawExpect, RawFile, RawLoad, RawTwin, Text, Wrong};
use super::settings::{self, Settings};
use super::units;
use crate::audit::Verdict;
use crate::audit::class::Class;
use crate::load::Plan;
use crate::load::plan::one_in;
use crate::run::Job;
use crate::say::Usage;
use crate::stack::dir;
use crate::stack::node::Service;

/// How long everything may take to be right again after the last heal.
const RECOVERY: Duration = Duration::from_mins(1);

/// One file.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// The file's name without its ending.
    pub name: String,
    /// Where it is; none: it came with the lab.
    pub path: Option<PathBuf>,
    /// As it stands there.
    pub text: String,
    pub title: String,
    pub learn: String,
    /// The number in the catalogue of experiments.
    pub proves: Option<u32>,
    /// Among those that a CI runs each time.
    pub fast: bool,
    pub safe: Setup,
    /// The same, made unsafe.
    pub twin: Option<Setup>,
}

/// A stack, what it gets to do, what is done to it, and what is expected of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    pub nodes: BTreeMap<Service, usize>,
    /// All of them, as nodes read them from their environment, but for defaults in which services differ
    /// ([`settings::own`]); without those that are switched off.
    pub settings: Settings,
    /// Only those that the file names.
    pub named: Settings,
    pub without: Without,
    pub load: Plan,
    pub harm: Harm,
    pub expect: Expect,
    pub recovery: Duration,
}

impl Experiment {
    /// Reads a file. At most `max` nodes.
    pub fn read(path: &Path, max: usize) -> Result<Self, Usage> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path)
            .map_err(|error| Usage(format!("cannot read {name}: {error}")))?;
        Self::parse(&name, &text, max).map(|one| Self {
            path: Some(dir::real(path)),
            ..one
        })
    }

    /// Understands the text of a file of this name, or says what is wrong with it: `FILE:LINE:COLUMN: ..`.
    pub fn parse(path: &str, text: &str, max: usize) -> Result<Self, Usage> {
        let wrong = |Wrong { line, column, why }| Usage(format!("{path}:{line}:{column}: {why}"));
        let raw = raw::read(text).map_err(wrong)?;
        let stem = Path::new(path).file_stem().unwrap_or_default();
        understand(&raw, max).map_err(wrong).map(|all| Self {
            name: stem.to_string_lossy().into_owned(),
            text: text.to_owned(),
            ..all
        })
    }
}

fn understand(raw: &RawFile, max: usize) -> Result<Experiment, Wrong> {
    let safe = Layers {
        file: raw,
        twin: None,
        max,
    }
    .setup()?;
    if safe.expect.verdict != Verdict::Pass
        || safe.expect.class.is_some()
        || safe.expect.figure.is_some()
    {
        let place = raw
            .expect
            .as_ref()
            .map_or(raw.title.referenced, |expect| expect.referenced);
        return Err(Wrong::at(place, "only the twin is expected to fail"));
    }
    let twin = raw.twin.as_ref().map(|twin| {
        let setup = Layers { file: raw, twin: Some(&twin.value), max }.setup()?;
        let same = Setup { expect: safe.expect.clone(), ..setup.clone() } == safe;
        if same {
            return Err(Wrong::at(twin.referenced, "the twin does not differ from what stands above"));
        }
        let (expect, place) = (&setup.expect, twin.value.expect.referenced);
        if expect.verdict != Verdict::Fail || (expect.class.is_none() && expect.figure.is_none()) {
            let why = "a twin is expected to fail, and by what: { verdict: fail, class: lost } or { verdict: fail, figure: .. }";
            return Err(Wrong::at(place, why));
        }
        Ok(setup)
    });
    Ok(Experiment {
        name: String::new(),
        path: None,
        text: String::new(),
        title: words(&raw.title)?,
        learn: words(&raw.learn)?,
        proves: raw
            .proves
            .as_ref()
            .map(|text| units::number(text, 1, 99))
            .transpose()?,
        fast: raw.fast.unwrap_or(false),
        safe,
        twin: twin.transpose()?,
    })
}

fn words(text: &Text) -> Result<String, Wrong> {
    let words = text.value.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.is_empty() {
        return Err(Wrong::at(text.referenced, "some words are needed here"));
    }
    Ok(words)
}

/// A file, and on top of it its twin.
struct Layers<'a> {
    file: &'a RawFile,
    twin: Option<&'a RawTwin>,
    max: usize,
}

impl Layers<'_> {
    fn setup(&self) -> Result<Setup, Wrong> {
        let load = self.load()?;
        let nodes = self.nodes(load.to)?;
        let (without, named, settings) = self.guarantees_and_settings(&nodes)?;
        let (faults, storm) = match self.twin {
            Some(twin) if twin.faults.is_some() || twin.storm.is_some() => {
                (&twin.faults, &twin.storm)
            }
            _ => (&self.file.faults, &self.file.storm),
        };
        let length = load.length.unwrap_or_default();
        let harm = Harm::understand(faults.as_ref(), storm.as_ref(), &nodes, length)?;
        let recovery = self
            .twin
            .and_then(|twin| twin.recovery.as_ref())
            .or(self.file.recovery.as_ref());
        Ok(Setup {
            nodes,
            settings,
            named,
            without,
            load,
            harm,
            expect: self.expect()?,
            recovery: recovery.map_or(Ok(RECOVERY), |text| {
                units::time(text, Duration::from_secs(5)..=Duration::from_mins(10))
            })?,
        })
    }

    /// Those that the load needs, and whoever else is asked for.
    fn nodes(&self, job: Job) -> Result<BTreeMap<Service, usize>, Wrong> {
        let stack = self.file.stack.as_ref();
        let mut nodes: BTreeMap<Service, usize> = job.services().iter().copied().collect();
        for service in Service::ALL {
            if let Some(text) = stack.and_then(|stack| stack.value.nodes(service)) {
                nodes.insert(service, units::number(text, 1, 1_000)?);
            }
        }
        let all: usize = nodes.values().sum();
        if all > self.max {
            let max = self.max;
            // without a word the usual number is asked for
            let place = stack.map_or(self.file.title.referenced, |stack| stack.referenced);
            return Err(Wrong::at(
                place,
                format!("{all} nodes are too many; at most {max} (--max)"),
            ));
        }
        Ok(nodes)
    }

    fn guarantees_and_settings(
        &self,
        nodes: &BTreeMap<Service, usize>,
    ) -> Result<(Without, Settings, Settings), Wrong> {
        let services: Vec<Service> = nodes.keys().copied().collect();
        let stack = self.file.stack.as_ref();
        let below = stack.and_then(|stack| stack.value.without.as_ref());
        let off = self.twin.and_then(|twin| twin.without.as_ref()).or(below);
        let mut last = None;
        let mut without = Vec::new();
        for name in off.into_iter().flatten() {
            let guarantee: Result<Guarantee, _> = name.value.parse();
            without.push(guarantee.map_err(|error| Wrong::at(name.referenced, error.to_string()))?);
            last = Some(name.referenced);
        }
        let without: Without = without.into_iter().collect();
        let none = Pairs::default();
        let below = stack
            .and_then(|stack| stack.value.settings.as_ref())
            .unwrap_or(&none);
        let above = self
            .twin
            .and_then(|twin| twin.settings.as_ref())
            .unwrap_or(&none);
        let (usual, mut named) = (settings::usual(&services), Settings::new());
        for (name, value) in below.under(above).0 {
            if !usual.contains_key(&name.value) {
                let known: Vec<&str> = usual.keys().map(String::as_str).collect();
                let why = format!(
                    "there is no setting {}; there are: {}",
                    name.value,
                    known.join(", ")
                );
                return Err(Wrong::at(name.referenced, why));
            }
            let alone = Settings::from([(name.value.clone(), value.value.clone())]);
            // a shortest time above the usual longest one is only wrong if nobody says another longest one
            if let Err(why) = settings::check(&services, &alone, "")
                && !why.contains("WORK_DELAY_M")
            {
                return Err(Wrong::at(value.referenced, why));
            }
            last = last.or(Some(value.referenced));
            named.insert(name.value, value.value);
        }
        settings::check(&services, &named, &without.to_string())
            .map_err(|why| Wrong::at(last.unwrap_or(self.file.title.referenced), why))?;
        let settings = usual.into_iter().chain(named.clone()).collect();
        Ok((without, named, settings))
    }

    fn load(&self) -> Result<Plan, Wrong> {
        let below = &self.file.load;
        let above = self.twin.and_then(|twin| twin.load.as_ref());
        let none = RawLoad::default();
        let (over, under) = (above.map_or(&none, |above| &above.value), &below.value);
        let place = above.map_or(below.referenced, |above| above.referenced);
        let usual = Plan::default();
        let or = |over: &Option<Text>, under: &Option<Text>| over.clone().or_else(|| under.clone());
        let needed = |text: Option<Text>, name: &str| {
            text.ok_or_else(|| Wrong::at(place, format!("the load says no `{name}`")))
        };
        let counted = |text: Option<Text>, usual| match text {
            Some(text) => units::number(&text, 0, u64::from(u32::MAX)),
            None => Ok(usual),
        };
        let day = Duration::from_hours(24);
        let said = |text: &Text, why: Usage| Wrong::at(text.referenced, why.0);
        let to = match or(&over.to, &under.to) {
            Some(text) => text.value.parse().map_err(|why| said(&text, why))?,
            None => usual.to,
        };
        let confirm = match or(&over.confirm, &under.confirm) {
            Some(text) => text.value.parse().map_err(|why| said(&text, why))?,
            None => usual.confirm,
        };
        let late = match or(&over.late, &under.late) {
            Some(text) => one_in(&text.value).map_err(|why| said(&text, why))?,
            None => usual.late,
        };
        let lessees = match or(&over.lessees, &under.lessees) {
            Some(text) => Some(units::number(&text, 1, 1_000)?),
            None => usual.lessees,
        };
        let plan = Plan {
            to,
            readers: counted(or(&over.readers, &under.readers), 0)?
                .try_into()
                .unwrap_or(usize::MAX),
            lessees,
            late,
            confirm,
            lease: or(&over.lease, &under.lease).map_or(Ok(usual.lease), |text| {
                units::time(&text, Duration::ZERO..=day)
            })?,
            max_receives: counted(
                or(&over.max_receives, &under.max_receives),
                usual.max_receives.into(),
            )?
            .try_into()
            .unwrap_or(u32::MAX),
            rate: units::rate(&needed(or(&over.rate, &under.rate), "rate")?)?,
            length: Some(units::time(
                &needed(or(&over.length, &under.length), "for")?,
                Duration::from_secs(1)..=day,
            )?),
            size: or(&over.size, &under.size).map_or(Ok(usual.size), |text| units::bytes(&text))?,
            poison: counted(or(&over.poison, &under.poison), 0)?,
            batch: counted(or(&over.batch, &under.batch), 1)?
                .try_into()
                .unwrap_or(u32::MAX),
            connections: counted(or(&over.connections, &under.connections), 200)?
                .try_into()
                .unwrap_or(usize::MAX),
            patience: or(&over.patience, &under.patience).map_or(Ok(usual.patience), |text| {
                units::time(&text, Duration::ZERO..=day)
            })?,
            ..usual
        };
        plan.schedule()
            .map_err(|why| Wrong::at(place, why.0.trim_start_matches("--")))?;
        Ok(plan)
    }

    fn expect(&self) -> Result<Expect, Wrong> {
        let (file, twin) = (
            self.file.expect.as_ref(),
            self.twin.map(|twin| &twin.expect),
        );
        let none = RawExpect::default();
        let below = file.map_or(&none, |expect| &expect.value);
        let above = twin.map_or(below, |twin| &twin.value);
        let verdict = match &above.verdict {
            None if self.twin.is_some() => Verdict::Fail,
            None => Verdict::Pass,
            Some(text) => match &*text.value {
                "pass" => Verdict::Pass,
                "fail" => Verdict::Fail,
                _ => {
                    return Err(Wrong::at(
                        text.referenced,
                        format!("{:?} is no verdict: right is pass or fail", text.value),
                    ));
                }
            },
        };
        let none = Pairs::default();
        let figures = below.figures.as_ref().unwrap_or(&none);
        let figures = figures.under(above.figures.as_ref().unwrap_or(&none));
        let limits = figures.0.iter().map(|(name, value)| {
            let figure =
                Figure::parse(&name.value).map_err(|why| Wrong::at(name.referenced, why))?;
            Limit::parse(figure, &value.value).map_err(|why| Wrong::at(value.referenced, why))
        });
        let limits = limits.collect::<Result<Vec<_>, _>>()?;
        let figure = above.figure.as_ref().map(|text| {
            let figure =
                Figure::parse(&text.value).map_err(|why| Wrong::at(text.referenced, why))?;
            if limits.iter().any(|limit| limit.figure == figure) {
                return Ok(figure);
            }
            Err(Wrong::at(
                text.referenced,
                format!(
                    "nothing limits {}, so it cannot be beyond its limit",
                    figure.name()
                ),
            ))
        });
        let class = above.class.as_ref().map(|text| {
            let failing = Class::ALL.into_iter().filter(|class| class.fails());
            let mut failing = failing
                .filter(|class| *class != Class::Stuck)
                .chain([Class::Stuck]);
            failing
                .clone()
                .find(|class| class.word() == text.value)
                .ok_or_else(|| {
                    let words: Vec<&str> = failing.by_ref().map(Class::word).collect();
                    Wrong::at(
                        text.referenced,
                        format!(
                            "{:?} is no class that fails: right is one of {}",
                            text.value,
                            words.join(", ")
                        ),
                    )
                })
        });
        let dead_max = above.dead_max.as_ref().or(below.dead_max.as_ref());
        Ok(Expect {
            verdict,
            dead_max: dead_max.map_or(Ok(0), |text| units::number(text, 0, u64::MAX))?,
            class: class.transpose()?,
            figure: figure.transpose()?,
            limits,
        })
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
