//! What is done to the stack: faults, each at its time, or a storm of them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_saphyr::Spanned;

use super::raw::{RawFault, RawStorm, Text, Wrong};
use super::units;
use crate::faults::catalogue::Strikes;
use crate::faults::{Entry, Order, Which, find};
use crate::load::length::show;
use crate::stack::node::Service;

/// What is done to the stack.
#[derive(Debug, Clone, PartialEq)]
pub enum Harm {
    Faults(Vec<Timed>),
    Storm(Storm),
}

/// A fault with its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Timed {
    pub at: Duration,
    pub order: Order,
    /// None: it is over as soon as it is done.
    pub time: Option<Duration>,
}

/// Faults by chance, one at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Storm {
    pub length: Duration,
    /// Shortest and longest time from one fault's end to the next one.
    pub pause: (Duration, Duration),
    /// Shortest and longest time of a fault that is not over by itself.
    pub hold: (Duration, Duration),
    pub faults: Vec<String>,
}

impl Harm {
    /// Understands what a file says of it, for a stack with so many nodes and a load that takes so long.
    pub(super) fn understand(
        faults: Option<&Spanned<Vec<RawFault>>>,
        storm: Option<&Spanned<RawStorm>>,
        nodes: &BTreeMap<Service, usize>,
        load: Duration,
    ) -> Result<Self, Wrong> {
        match (faults, storm) {
            (Some(_), Some(storm)) => Err(Wrong::at(
                storm.referenced,
                "there are faults already; a storm is instead of them",
            )),
            (None, None) => Ok(Self::Faults(Vec::new())),
            (None, Some(storm)) => self::storm(storm, nodes, load).map(Self::Storm),
            (Some(faults), None) => {
                let each = faults.value.iter().map(|fault| timed(fault, nodes, load));
                let all = each.collect::<Result<Vec<_>, _>>()?;
                apart(&all, faults)?;
                Ok(Self::Faults(all))
            }
        }
    }
}

fn known(name: &Text) -> Result<&'static Entry, Wrong> {
    find(&name.value).map_err(|why| Wrong::at(name.referenced, why.0))
}

fn timed(
    raw: &RawFault,
    nodes: &BTreeMap<Service, usize>,
    length: Duration,
) -> Result<Timed, Wrong> {
    let entry = known(&raw.fault)?;
    has_nodes(&raw.fault, entry, nodes)?;
    let at = units::time(&raw.at, Duration::ZERO..=Duration::from_hours(24))?;
    if at > length {
        let length = show(length);
        return Err(Wrong::at(
            raw.at.referenced,
            format!("the load is over by then: it takes {length}"),
        ));
    }
    let mut order = Order::new(entry.name);
    for (name, value) in raw.set.iter().flat_map(|set| &set.0) {
        order = order.with(&name.value, &value.value);
        // a single one that is wrong is named with its place; of several, it may be how they go together
        if let Err(why) = entry.check(&order)
            && raw.set.as_ref().is_some_and(|set| set.0.len() == 1)
        {
            return Err(Wrong::at(value.referenced, why.0));
        }
    }
    if let Some(on) = &raw.on {
        order = order.on(on.value.clone().into());
        targets(on, entry, nodes)?;
    }
    let place = raw
        .set
        .as_ref()
        .and_then(|set| Some(set.0.first()?.0.referenced));
    order = entry
        .check(&order)
        .map_err(|why| Wrong::at(place.unwrap_or(raw.fault.referenced), why.0))?;
    let time = match (&raw.time, entry.instant) {
        (Some(text), true) => {
            return Err(Wrong::at(
                text.referenced,
                format!(
                    "{} is over as soon as it is done: it takes no time",
                    entry.name
                ),
            ));
        }
        (None, false) => {
            return Err(Wrong::at(
                raw.fault.referenced,
                format!(
                    "{} lasts until it is healed: say after which time, with `for`",
                    entry.name
                ),
            ));
        }
        (Some(text), false) => Some(units::time(
            text,
            Duration::from_millis(100)..=Duration::from_mins(10),
        )?),
        (None, true) => None,
    };
    Ok(Timed { at, order, time })
}

/// Some faults strike nodes that are not in every stack.
fn has_nodes(name: &Text, entry: &Entry, nodes: &BTreeMap<Service, usize>) -> Result<(), Wrong> {
    match entry.strikes {
        Strikes::Nodes(service) if !nodes.contains_key(&service) => {
            let (fault, service) = (entry.name, service.name());
            let why = format!("{fault}: there is no {service} in this stack");
            Err(Wrong::at(name.referenced, why))
        }
        _ => Ok(()),
    }
}

/// `any`, `all`, or a node by its service and its place: `receiver-1`.
fn targets(on: &Text, entry: &Entry, nodes: &BTreeMap<Service, usize>) -> Result<(), Wrong> {
    let wrong = |why: String| Err(Wrong::at(on.referenced, why));
    let services: &[Service] = match &entry.strikes {
        Strikes::Nodes(service) => std::slice::from_ref(service),
        Strikes::AnyNode | Strikes::Links(_) | Strikes::Connections => &Service::ALL,
        Strikes::Server(_) | Strikes::Queue => &[],
    };
    let which = Which::from(on.value.clone());
    let Which::One(name) = which else {
        return Ok(());
    };
    if services.is_empty() {
        return wrong(format!(
            "{} strikes no node, so it cannot be on {name}",
            entry.name
        ));
    }
    match nth(&name) {
        Some((service, place))
            if services.contains(&service) && nodes.get(&service) >= Some(&place) =>
        {
            Ok(())
        }
        _ => {
            let there = services
                .iter()
                .filter_map(|one| Some((one.name(), nodes.get(one)?)));
            let names = there.map(|(name, count)| format!("{name}-1 to {name}-{count}"));
            let names: Vec<String> = names.collect();
            wrong(format!(
                "there is no {name} to strike; right is any, all, or one of {}",
                names.join(", ")
            ))
        }
    }
}

/// Which service, and which of its nodes, counted from 1.
pub(super) fn nth(name: &str) -> Option<(Service, usize)> {
    let (service, place) = name.rsplit_once('-')?;
    let service = Service::ALL.into_iter().find(|one| one.name() == service)?;
    Some((service, place.parse().ok().filter(|place| *place > 0)?))
}

/// Two faults that would undo each other are not active at the same time on the same.
fn apart(all: &[Timed], raw: &Spanned<Vec<RawFault>>) -> Result<(), Wrong> {
    let end = |one: &Timed| one.at + one.time.unwrap_or_default();
    for (place, later) in all.iter().enumerate() {
        for earlier in &all[..place] {
            let meet = earlier.at <= end(later) && later.at <= end(earlier);
            if meet && clash(&earlier.order, &later.order) {
                let why = format!(
                    "{} is active at that time already, on the same",
                    earlier.order.fault
                );
                return Err(Wrong::at(raw.value[place].at.referenced, why));
            }
        }
    }
    Ok(())
}

/// What the injector would refuse, or, where chance chooses the node, might refuse.
fn clash(one: &Order, other: &Order) -> bool {
    let apart = match (&one.which, &other.which) {
        (Which::One(one), Which::One(other)) => nth(one) != nth(other),
        _ => false,
    };
    let entries = (find(&one.fault), find(&other.fault));
    !apart && matches!(entries, (Ok(one), Ok(other)) if one.in_the_way(other))
}

fn storm(
    raw: &Spanned<RawStorm>,
    nodes: &BTreeMap<Service, usize>,
    load: Duration,
) -> Result<Storm, Wrong> {
    let storm = &raw.value;
    let length = units::time(
        &storm.length,
        Duration::from_secs(1)..=Duration::from_hours(24),
    )?;
    if length > load {
        let load = show(load);
        return Err(Wrong::at(
            storm.length.referenced,
            format!("the storm is longer than the load, which takes {load}"),
        ));
    }
    let range = |text: &Option<Text>, usual| text.as_ref().map_or(Ok(usual), units::times);
    let seconds = |from, to| (Duration::from_secs(from), Duration::from_secs(to));
    let (pause, hold) = (
        range(&storm.pause, seconds(1, 3))?,
        range(&storm.hold, seconds(2, 5))?,
    );
    let mut faults: Vec<String> = Vec::new();
    for name in &storm.faults.value {
        let entry = known(name)?;
        has_nodes(name, entry, nodes)?;
        if faults.iter().any(|fault| *fault == entry.name) {
            return Err(Wrong::at(
                name.referenced,
                format!("{} stands here twice", entry.name),
            ));
        }
        faults.push(entry.name.to_owned());
    }
    let place = storm.faults.referenced;
    if faults.is_empty() {
        return Err(Wrong::at(place, "a storm needs faults"));
    }
    // as if each took the longest: else some kind might not have its turn
    let room: Duration = faults
        .iter()
        .map(|name| pause.1 + longest(name, hold.1))
        .sum();
    if room > length {
        let (count, length) = (faults.len(), show(length));
        return Err(Wrong::at(
            place,
            format!("{count} kinds of faults have no room in a storm of {length}"),
        ));
    }
    Ok(Storm {
        length,
        pause,
        hold,
        faults,
    })
}

/// How long a fault of a storm may take: one that is over as soon as it is done is not held.
fn longest(name: &str, hold: Duration) -> Duration {
    match find(name) {
        Ok(entry) if entry.instant => Duration::ZERO,
        _ => hold,
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::Experiment;

    /// What is said of this harm, after a load of a minute.
    fn said(harm: &str) -> Result<(), String> {
        let text = format!("title: t\nlearn: l\nload: {{ rate: 1/s, for: 60s }}\n{harm}\n");
        Experiment::parse("x.yaml", &text, 16)
            .map(drop)
            .map_err(|wrong| wrong.0)
    }

    /// Two faults, one second apart, each for five seconds where it takes time.
    fn two(first: &str, second: &str) -> Result<(), String> {
        said(&format!(
            "faults: [{{ at: 1s, fault: {first} }}, {{ at: 2s, fault: {second} }}]"
        ))
    }

    #[test]
    fn what_the_injector_would_refuse_is_refused_before() {
        for (first, second) in [
            // of one kind, on what may be the same node
            ("receiver-kill, for: 5s", "receiver-kill, for: 5s"),
            (
                "receiver-kill, on: all, for: 5s",
                "receiver-kill, on: receiver-1, for: 5s",
            ),
            (
                "receiver-kill, on: any, for: 5s",
                "receiver-kill, on: receiver-1, for: 5s",
            ),
            // of one link
            (
                "rabbitmq-link-silent, on: receiver-1, for: 5s",
                "rabbitmq-link-slow, on: receiver-1, for: 5s",
            ),
            (
                "rabbitmq-link-slow, on: all, for: 5s",
                "rabbitmq-link-cut, on: receiver-1",
            ),
        ] {
            let wrong = two(first, second).unwrap_err();
            let name = first.split(',').next().unwrap();
            let right = format!(": {name} is active at that time already");
            assert!(wrong.contains(&right), "{first} {second}: {wrong}");
        }
        for (first, second) in [
            (
                "receiver-kill, on: receiver-1, for: 5s",
                "receiver-kill, on: receiver-2, for: 5s",
            ),
            (
                "receiver-kill, on: receiver-1, for: 5s",
                "receiver-pause, on: receiver-1, for: 5s",
            ),
            (
                "rabbitmq-link-slow, on: receiver-1, for: 5s",
                "postgres-link-slow, on: receiver-1, for: 5s",
            ),
            (
                "rabbitmq-link-slow, on: receiver-1, for: 5s",
                "rabbitmq-link-cut, on: receiver-2",
            ),
        ] {
            assert_eq!(two(first, second), Ok(()), "{first} {second}");
        }
    }

    #[test]
    fn what_strikes_nodes_that_are_not_there_is_refused_alone_and_in_a_storm() {
        let absent = said("faults: [{ at: 1s, fault: leases-kill, for: 5s }]").unwrap_err();
        assert!(
            absent.contains("there is no leases in this stack"),
            "{absent}"
        );
        let storm = "storm: { for: 20s, faults: [redis-kill, notes-worker-pause] }";
        let absent = said(storm).unwrap_err();
        assert!(absent.contains("there is no notes-worker"), "{absent}");
        let beside = "stack: { notes-worker: 1 }\n";
        assert_eq!(said(&format!("{beside}{storm}")), Ok(()));
    }

    #[test]
    fn every_kind_has_room_in_a_storm_even_if_each_takes_the_longest() {
        let storm = |length: u64, other: &str| {
            said(&format!(
                "storm: {{ for: {length}s, pause: 1s..3s, hold: 2s..5s, faults: [redis-kill, {other}] }}"
            ))
        };
        assert_eq!(storm(16, "redis-pause"), Ok(()));
        // what is over at once is not held
        assert_eq!(storm(11, "rabbitmq-close-connection"), Ok(()));
        storm(10, "rabbitmq-close-connection").unwrap_err();
        let wrong = storm(15, "redis-pause").unwrap_err();
        assert!(
            wrong.contains("2 kinds of faults have no room in a storm of 15s"),
            "{wrong}"
        );
    }
}
