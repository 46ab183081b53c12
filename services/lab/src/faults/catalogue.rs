//! Faults by their names `target-deed`: what each may be told, and whether an order can be obeyed at all.
//!
//! The list itself is in [`offered`].

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::{Fault, Means, Order, Which, offered};
use crate::load::length;
use crate::say::Usage;
use crate::stack::node::Service;
use crate::stack::servers::Which as Server;

/// What an argument may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A length of time, in milliseconds from .. to.
    Length(u64, u64),
    /// A whole number from .. to.
    Number(u64, u64),
    OneOf(&'static [&'static str]),
    Text,
}

/// An argument of a fault.
#[derive(Debug, Clone, Copy)]
pub struct Arg {
    pub name: &'static str,
    pub kind: Kind,
    /// What it is when it is not given.
    pub usual: &'static str,
    pub what: &'static str,
}

/// What a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strikes {
    Nodes(Service),
    /// Nodes of any service, as the arguments say.
    AnyNode,
    Server(Server),
    /// Nodes' links to it.
    Links(Server),
    /// What messages go through: there is one.
    Queue,
    /// Nodes' connections with the broker.
    Connections,
}

/// A fault as it is offered.
pub struct Entry {
    pub name: &'static str,
    pub what: &'static str,
    pub strikes: Strikes,
    pub args: &'static [Arg],
    /// On whom without further words.
    pub usual: Which,
    /// It is over as soon as it is injected: there is nothing to heal.
    pub instant: bool,
    /// It is in the broker's data, and outlives the programs.
    pub lasting: bool,
    pub fault: Box<dyn Fault>,
}

/// Why containers have no links that could be hurt.
pub const NO_PROXY: &str = "containers speak to the servers themselves, without a proxy";
/// Why nothing can be done to programs from inside the network.
pub const NO_HANDS: &str =
    "only Docker can do it: from the host with --compose, or by the service lab-docker";

/// From where a stack is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ground {
    /// By the `lab up` that runs it.
    Native,
    /// By whoever has Docker in his hands.
    Compose,
    /// From inside its network.
    Inside,
}

/// All of them.
pub fn catalogue() -> &'static [Entry] {
    static ALL: LazyLock<Vec<Entry>> = LazyLock::new(offered::all);
    &ALL
}

/// The one of this name.
pub fn find(name: &str) -> Result<&'static Entry, Usage> {
    if name.is_empty() {
        return Err(Usage(
            "no fault was named; `cargo lab fault list` names all".to_owned(),
        ));
    }
    let found = catalogue().iter().find(|entry| entry.name == name);
    found.ok_or_else(|| {
        Usage(format!(
            "there is no fault {name}; `cargo lab fault list` names all"
        ))
    })
}

impl Entry {
    pub(super) fn new(
        name: &'static str,
        what: &'static str,
        strikes: Strikes,
        fault: impl Fault + 'static,
    ) -> Self {
        Self {
            name,
            what,
            strikes,
            args: &[],
            usual: Which::Any,
            instant: false,
            lasting: false,
            fault: Box::new(fault),
        }
    }

    pub(super) fn with(mut self, args: &'static [Arg]) -> Self {
        self.args = args;
        self
    }

    pub(super) fn instant(mut self) -> Self {
        self.instant = true;
        self
    }

    pub(super) fn lasting(mut self) -> Self {
        self.lasting = true;
        self
    }

    pub(super) fn usually_all(mut self) -> Self {
        self.usual = Which::All;
        self
    }

    /// Whether it needs `lab up --faults`.
    pub fn needs_links(&self) -> bool {
        self.fault.means() == Means::Links
    }

    /// Whether one can say on which node.
    pub fn is_on_nodes(&self) -> bool {
        !matches!(self.strikes, Strikes::Server(_) | Strikes::Queue)
    }

    /// Whose nodes there must be, if those are not of each stack.
    pub fn beyond_main(&self) -> Option<Service> {
        match self.strikes {
            Strikes::Nodes(service) if !Service::MAIN.contains(&service) => Some(service),
            _ => None,
        }
    }

    /// Whether it has such an argument.
    pub fn takes(&self, argument: &str) -> bool {
        self.args.iter().any(|arg| arg.name == argument)
    }

    /// Whether it publishes: that is over at once, waits for its turn in the queue, and cannot be taken back.
    pub fn publishes(&self) -> bool {
        self.instant && self.strikes == Strikes::Queue
    }

    /// Whether both on the same would undo each other: two of one kind, or of one link.
    pub fn in_the_way(&self, other: &Self) -> bool {
        self.name == other.name || (self.needs_links() && self.strikes == other.strikes)
    }

    /// Why it cannot be done from there at all, if it cannot.
    pub fn not_from(&self, ground: Ground) -> Option<&'static str> {
        match (self.fault.means(), ground) {
            (_, Ground::Native) | (Means::Ports, _) | (Means::Programs, Ground::Compose) => None,
            (Means::Programs, Ground::Inside) => Some(NO_HANDS),
            (Means::Links, Ground::Compose | Ground::Inside) => Some(NO_PROXY),
        }
    }

    /// The same order with all its arguments, or why it can never be obeyed.
    pub fn check(&self, order: &Order) -> Result<Order, Usage> {
        let name = self.name;
        let wrong = |why: String| Usage(format!("{name}: {why}"));
        for given in order.args.keys() {
            if !self.args.iter().any(|arg| arg.name == given) {
                let known: Vec<&str> = self.args.iter().map(|arg| arg.name).collect();
                return Err(wrong(match &*known {
                    [] => format!("it has no argument {given}, nor any other"),
                    known => format!("it has no argument {given}; it has: {}", known.join(", ")),
                }));
            }
        }
        let mut args = BTreeMap::new();
        for arg in self.args {
            let value = order.args.get(arg.name).map_or(arg.usual, String::as_str);
            arg.check(value).map_err(wrong)?;
            args.insert(arg.name.to_owned(), value.to_owned());
        }
        let which = match (&order.which, self.strikes) {
            (Which::One(node), Strikes::Server(_) | Strikes::Queue) => {
                return Err(wrong(format!(
                    "it strikes no node, so it cannot be on {node}"
                )));
            }
            (Which::Usual, _) => self.usual.clone(),
            (which, _) => which.clone(),
        };
        let checked = Order {
            which,
            args,
            ..order.clone()
        };
        self.fault.check(&checked).map_err(|why| wrong(why.0))?;
        Ok(checked)
    }
}

impl Arg {
    fn check(&self, value: &str) -> Result<(), String> {
        let name = self.name;
        match self.kind {
            Kind::Text => Ok(()),
            Kind::OneOf(words) if words.contains(&value) => Ok(()),
            Kind::OneOf(words) => Err(format!(
                "{name} is {value:?}; right is one of: {}",
                words.join(", ")
            )),
            Kind::Number(min, max) => match value.parse() {
                Ok(number) if (min..=max).contains(&number) => Ok(()),
                _ => Err(format!(
                    "{name} is {value:?}; right is a number from {min} to {max}"
                )),
            },
            Kind::Length(min, max) => {
                let length = length::parse(value).map_err(|why| format!("{name}: {why}"))?;
                let range = u128::from(min)..=u128::from(max);
                if range.contains(&length.as_millis()) {
                    Ok(())
                } else {
                    Err(format!("{name} is {value}; right is {min}ms to {max}ms"))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn refused(order: &Order) -> String {
        let entry = find(&order.fault).unwrap();
        entry.check(order).unwrap_err().to_string()
    }

    #[test]
    fn each_has_its_own_name_and_usual_arguments_that_are_right() {
        let names: HashSet<&str> = catalogue().iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), catalogue().len());
        for entry in catalogue() {
            let checked = entry.check(&Order::new(entry.name)).unwrap();
            assert_eq!(checked.args.len(), entry.args.len(), "{}", entry.name);
            assert_ne!(checked.which, Which::Usual);
        }
    }

    #[test]
    fn what_can_be_done_to_containers_depends_on_who_does_it() {
        let why = |name: &str, ground| find(name).unwrap().not_from(ground);
        for entry in catalogue() {
            assert_eq!(entry.not_from(Ground::Native), None, "{}", entry.name);
        }
        for name in ["receiver-kill", "rabbitmq-restart", "rabbitmq-memory-alarm"] {
            assert_eq!(why(name, Ground::Compose), None, "{name}");
            assert_eq!(why(name, Ground::Inside), Some(NO_HANDS), "{name}");
        }
        for name in ["queue-limit", "work-fail", "fail-point"] {
            assert_eq!(why(name, Ground::Inside), None, "{name}");
        }
        assert_eq!(why("redis-link-cut", Ground::Compose), Some(NO_PROXY));
    }

    #[test]
    fn every_service_has_the_same_faults_of_its_nodes() {
        for service in Service::ALL {
            for deed in ["kill", "terminate", "pause"] {
                let entry = find(&format!("{}-{deed}", service.name())).unwrap();
                assert_eq!(entry.strikes, Strikes::Nodes(service));
                let main = Service::MAIN.contains(&service);
                assert_eq!(entry.beyond_main().is_none(), main, "{}", entry.name);
            }
        }
    }

    #[test]
    fn what_was_checked_is_right_again() {
        let order = Order::new("rabbitmq-link-slow").with("latency", "1s");
        let entry = find("rabbitmq-link-slow").unwrap();
        let checked = entry.check(&order).unwrap();
        assert_eq!(checked.args["jitter"], "100ms");
        assert_eq!(entry.check(&checked).unwrap(), checked);
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused_in_a_line() {
        let unknown = find("receiver-kil").err().unwrap().to_string();
        assert!(
            unknown.starts_with("there is no fault receiver-kil;"),
            "{unknown}"
        );
        let unnamed = find("").err().unwrap().to_string();
        assert!(unnamed.starts_with("no fault was named;"), "{unnamed}");
        for (order, why) in [
            (
                Order::new("redis-kill").with("x", "1"),
                "no argument x, nor any other",
            ),
            (
                Order::new("queue-limit").with("length", "1"),
                "it has: max-length, queue",
            ),
            (
                Order::new("queue-limit").with("max-length", "-1"),
                "right is a number",
            ),
            (
                Order::new("queue-limit").with("queue", "x"),
                "messages, messages.dead",
            ),
            (
                Order::new("rabbitmq-link-slow").with("latency", "200"),
                "no length of time",
            ),
            (
                Order::new("rabbitmq-link-slow").with("latency", "1ms"),
                "20ms to",
            ),
            (
                Order::new("rabbitmq-link-silent").with("direction", "left"),
                "both, up, down",
            ),
            (
                Order::new("work-fail").with("action", "explode"),
                "nack, reject",
            ),
            (
                Order::new("work-slow").with("delay-min", "9s"),
                "more than delay-max",
            ),
            (Order::new("fail-point").with("point", "x"), "no fail point"),
            (
                Order::new("redis-kill").on(Which::One("a".to_owned())),
                "cannot be on a",
            ),
        ] {
            let said = refused(&order);
            assert!(said.contains(why) && !said.contains('\n'), "{said}");
            assert!(said.starts_with(&format!("{}: ", order.fault)), "{said}");
        }
    }
}
