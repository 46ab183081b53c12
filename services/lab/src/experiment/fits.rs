//! Whether an experiment can be played on a stack that is there already, before anything of it starts.
//!
//! What cannot is said with its line and column, as all else that is wrong with a file; and where other settings would do,
//! with the line that starts the stack so.

use serde_saphyr::{Location, Spanned};

use super::file::{Experiment, Setup};
use super::harm::Harm;
use super::raw::{self, RawFault, RawFile, RawStorm, RawTwin, Wrong};
use super::stage::told::{KNOBS, Told, names};
use crate::faults::fail_point::untold;
use crate::faults::{Ground, Order, find};
use crate::say::Usage;
use crate::stack::node::Service;

/// A stack that is there.
#[derive(Debug, Clone)]
pub enum Place {
    /// Of its own.
    Native,
    /// Whose containers can be made anew.
    Compose,
    /// Whose nodes are as they are.
    Inside(Box<Told>),
}

impl Place {
    fn ground(&self) -> Ground {
        match self {
            Self::Native => Ground::Native,
            Self::Compose => Ground::Compose,
            Self::Inside(_) => Ground::Inside,
        }
    }
}

/// Refuses what cannot be played there; `path` is how the file is called.
pub fn check(path: &str, experiment: &Experiment, twin: bool, place: &Place) -> Result<(), Usage> {
    let wrong = |Wrong { line, column, why }| Usage(format!("{path}:{line}:{column}: {why}"));
    let raw = raw::read(&experiment.text).map_err(wrong)?;
    let setup = match &experiment.twin {
        Some(setup) if twin => setup,
        _ => &experiment.safe,
    };
    let file = Layers {
        raw: &raw,
        twin: raw.twin.as_ref().map(|twin| &twin.value).filter(|_| twin),
    };
    if place.ground() != Ground::Native {
        file.main_only(setup).map_err(wrong)?;
    }
    file.faults(place.ground()).map_err(wrong)?;
    file.told(setup, place.ground()).map_err(wrong)?;
    match place {
        Place::Native | Place::Compose => Ok(()),
        Place::Inside(told) => file.nodes(setup, told).map_err(wrong),
    }
}

struct Layers<'a> {
    raw: &'a RawFile,
    twin: Option<&'a RawTwin>,
}

impl Layers<'_> {
    /// The faults that are played, one after the other or drawn.
    fn harm(&self) -> (&Option<Spanned<Vec<RawFault>>>, &Option<Spanned<RawStorm>>) {
        match self.twin {
            Some(twin) if twin.faults.is_some() || twin.storm.is_some() => {
                (&twin.faults, &twin.storm)
            }
            _ => (&self.raw.faults, &self.raw.storm),
        }
    }

    /// Containers of the other services are those of profiles, and cannot be made anew by settings of an experiment.
    fn main_only(&self, setup: &Setup) -> Result<(), Wrong> {
        let mut others = setup
            .nodes
            .keys()
            .filter(|one| !Service::MAIN.contains(one));
        let Some(other) = others.next() else {
            return Ok(());
        };
        let (stack, load) = (self.raw.stack.as_ref(), self.raw.load.referenced);
        let place = stack.map_or(load, |stack| stack.referenced);
        let why = format!(
            "it needs nodes of {}: it is played on the native stack only",
            other.name()
        );
        Err(Wrong::at(place, why))
    }

    fn faults(&self, ground: Ground) -> Result<(), Wrong> {
        let (faults, storm) = self.harm();
        let timed = faults.iter().flat_map(|faults| &faults.value);
        let drawn = storm.iter().flat_map(|storm| &storm.value.faults.value);
        for name in timed.map(|fault| &fault.fault).chain(drawn) {
            let entry = find(&name.value).map_err(|why| Wrong::at(name.referenced, why.0))?;
            if let Some(why) = entry.not_from(ground) {
                return Err(Wrong::at(name.referenced, format!("{}: {why}", entry.name)));
            }
        }
        Ok(())
    }

    /// What would be a doubt for sure.
    fn told(&self, setup: &Setup, ground: Ground) -> Result<(), Wrong> {
        let (faults, storm) = self.harm();
        let orders: Vec<Order> = match &setup.harm {
            Harm::Faults(faults) => faults.iter().map(|timed| timed.order.clone()).collect(),
            Harm::Storm(storm) => {
                let usual = storm.faults.iter().map(|name| {
                    let order = Order::new(name);
                    find(name)
                        .and_then(|entry| entry.check(&order))
                        .unwrap_or(order)
                });
                usual.collect()
            }
        };
        let timed = faults.iter().flat_map(|faults| &faults.value);
        let drawn = storm.iter().flat_map(|storm| &storm.value.faults.value);
        for (name, order) in timed.map(|fault| &fault.fault).chain(drawn).zip(&orders) {
            if let Some(why) = untold(order, ground) {
                return Err(Wrong::at(
                    name.referenced,
                    format!("{}: {why}", order.fault),
                ));
            }
        }
        Ok(())
    }

    fn nodes(&self, setup: &Setup, told: &Told) -> Result<(), Wrong> {
        // a node that is started again has its own settings again
        let turned = !dies(setup);
        let other: Vec<_> = setup
            .settings
            .iter()
            .filter(|(name, value)| told.setting(name) != value.as_str())
            .filter(|(name, _)| !(turned && KNOBS.iter().any(|(knob, _)| knob == name)))
            .collect();
        let off: Vec<&str> = told.without.iter().map(String::as_str).collect();
        let wanted_off = names(setup);
        if other.is_empty() && told.counts == setup.nodes && off == wanted_off {
            return Ok(());
        }
        let stack = self.raw.stack.as_ref();
        let place = match other.first() {
            Some((name, _)) => self.setting(name),
            None if off != wanted_off => self.without(),
            None => stack.map(|stack| stack.referenced),
        };
        let place = place.unwrap_or(self.raw.title.referenced);
        let mut pairs: Vec<String> = other
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if off != wanted_off {
            pairs.push(format!("WITHOUT={}", wanted_off.join(",")));
        }
        pairs.push("docker compose -f docker/docker-compose.yml up -d".to_owned());
        let scales = setup
            .nodes
            .iter()
            .map(|(service, count)| format!("--scale {}={count}", service.name()));
        pairs.extend(scales);
        let line = pairs.join(" ");
        Err(Wrong::at(
            place,
            format!("the stack is another one; this makes it right: {line}"),
        ))
    }

    /// Where a setting is named.
    fn setting(&self, name: &str) -> Option<Location> {
        let below = self.raw.stack.as_ref();
        let below = below.and_then(|stack| stack.value.settings.as_ref());
        let above = self.twin.and_then(|twin| twin.settings.as_ref());
        let mut pairs = above.into_iter().chain(below).flat_map(|pairs| &pairs.0);
        let found = pairs.find(|(one, _)| one.value == name);
        found.map(|(one, _)| one.referenced)
    }

    fn without(&self) -> Option<Location> {
        let below = self.raw.stack.as_ref();
        let below = below.and_then(|stack| stack.value.without.as_ref());
        let above = self.twin.and_then(|twin| twin.without.as_ref());
        let mut names = above.or(below).into_iter().flatten();
        names.next().map(|name| name.referenced)
    }
}

/// Whether nodes of it end, and come back with the settings that they were started with.
fn dies(setup: &Setup) -> bool {
    let crashes = setup.settings["WORK_FAILURE_ACTION"] == "crash";
    crashes
        || match &setup.harm {
            Harm::Faults(faults) => faults.iter().any(|one| {
                let order = &one.order;
                let action = order.text("action");
                order.fault == "work-crash" || action.starts_with("crash")
            }),
            Harm::Storm(storm) => {
                let deadly = ["work-crash", "fail-point"];
                storm.faults.iter().any(|name| deadly.contains(&&**name))
            }
        }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::experiment::settings;

    const FILE: &str = "title: t\nlearn: l\nstack:\n  sender: 1\n  receiver: 2\n  settings: { WORK_FAIL_ONE_IN: 0, PREFETCH: 3 }\nload: { rate: 9/s, for: 9s }\nfaults:\n  - { at: 1s, fault: FAULT, for: 1s }\n";

    fn told() -> Told {
        let mut settings = settings::usual(&Service::MAIN);
        settings.insert("PREFETCH".to_owned(), "3".to_owned());
        Told {
            counts: BTreeMap::from([(Service::Sender, 1), (Service::Receiver, 2)]),
            settings,
            ..Told::default()
        }
    }

    fn fits(text: &str, told: &Told) -> Result<(), String> {
        let experiment = Experiment::parse("x.yaml", text, 16).unwrap();
        let place = Place::Inside(Box::new(told.clone()));
        check("x.yaml", &experiment, false, &place).map_err(|why| why.0)
    }

    #[test]
    fn the_work_may_be_another_since_it_can_be_changed_while_it_goes_on() {
        assert_eq!(
            fits(&FILE.replace("FAULT", "queue-unbind"), &told()),
            Ok(())
        );
        // but not for nodes that come back as they were
        let crash = FILE.replace("FAULT", "work-crash");
        let said = fits(&crash, &told()).unwrap_err();
        assert_eq!(
            said,
            "x.yaml:6:15: the stack is another one; this makes it right: WORK_FAIL_ONE_IN=0 \
             docker compose -f docker/docker-compose.yml up -d --scale sender=1 --scale receiver=2"
        );
    }

    #[test]
    fn other_settings_and_other_nodes_are_refused_with_the_line_that_makes_them() {
        let text = FILE.replace("FAULT", "queue-unbind");
        let mut other = told();
        other
            .settings
            .insert("PREFETCH".to_owned(), "16".to_owned());
        let said = fits(&text, &other).unwrap_err();
        assert!(said.starts_with("x.yaml:6:"), "{said}");
        assert!(said.contains(": PREFETCH=3 docker compose"), "{said}");
        let mut more = told();
        more.counts.insert(Service::Receiver, 3);
        let said = fits(&text, &more).unwrap_err();
        assert!(
            said.ends_with("--scale sender=1 --scale receiver=2"),
            "{said}"
        );
        let mut off = told();
        off.without.insert("inbox".to_owned());
        let said = fits(&text, &off).unwrap_err();
        assert!(said.contains(": WITHOUT= docker"), "{said}");
    }

    #[test]
    fn what_is_not_of_the_main_job_is_played_on_the_native_stack_only() {
        let text = "title: t\nlearn: l\nload: { to: leases, rate: 9/s, for: 9s }\n";
        let leases = Experiment::parse("x.yaml", text, 16).unwrap();
        check("x.yaml", &leases, false, &Place::Native).unwrap();
        for place in [Place::Compose, Place::Inside(Box::new(told()))] {
            let said = check("x.yaml", &leases, false, &place).unwrap_err().0;
            assert!(
                said.starts_with("x.yaml:3:7: it needs nodes of leases"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_fault_that_needs_more_than_there_is_is_refused_with_its_place() {
        let experiment = |fault: &str| {
            let text = FILE.replace("FAULT", fault);
            Experiment::parse("x.yaml", &text, 16).unwrap()
        };
        let killed = experiment("receiver-kill");
        check("x.yaml", &killed, false, &Place::Native).unwrap();
        check("x.yaml", &killed, false, &Place::Compose).unwrap();
        let inside = Place::Inside(Box::new(told()));
        let said = check("x.yaml", &killed, false, &inside).unwrap_err().0;
        assert!(
            said.starts_with("x.yaml:9:22: receiver-kill: only Docker"),
            "{said}"
        );
        let armed = experiment("fail-point");
        check("x.yaml", &armed, false, &Place::Compose).unwrap();
        let said = check("x.yaml", &armed, false, &inside).unwrap_err().0;
        assert!(
            said.starts_with("x.yaml:9:22: fail-point: whether a node died of it cannot be told"),
            "{said}"
        );
        let parks = experiment("fail-point, set: { action: park }");
        check("x.yaml", &parks, false, &inside).unwrap();
        let link = experiment("redis-link-slow");
        let said = check("x.yaml", &link, false, &Place::Compose)
            .unwrap_err()
            .0;
        assert!(
            said.starts_with("x.yaml:9:22: redis-link-slow: containers"),
            "{said}"
        );
    }
}
