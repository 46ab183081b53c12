//! What is asked for: a fault, on whom, with which seed and arguments.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::load::length;
use crate::say::Usage;

/// On whom.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Which {
    /// One of those that can be struck, by the seed.
    Any,
    All,
    /// The node of this name.
    One(String),
    /// As the catalogue says.
    #[default]
    Usual,
}

impl From<String> for Which {
    fn from(text: String) -> Self {
        match &*text {
            "any" => Self::Any,
            "all" => Self::All,
            "" => Self::Usual,
            _ => Self::One(text),
        }
    }
}

impl From<Which> for String {
    fn from(which: Which) -> Self {
        which.to_string()
    }
}

impl FromStr for Which {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.to_owned().into())
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any",
            Self::All => "all",
            Self::One(name) => name,
            Self::Usual => "",
        })
    }
}

/// A fault that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    pub fault: String,
    #[serde(default)]
    pub which: Which,
    /// Chooses where there is a choice: the same seed chooses the same.
    #[serde(default)]
    pub seed: u64,
    #[serde(default)]
    pub args: BTreeMap<String, String>,
}

impl Order {
    /// On whom it usually is, with the usual arguments.
    pub fn new(fault: &str) -> Self {
        Self {
            fault: fault.to_owned(),
            which: Which::Usual,
            seed: 0,
            args: BTreeMap::new(),
        }
    }

    /// On these.
    #[must_use]
    pub fn on(mut self, which: Which) -> Self {
        self.which = which;
        self
    }

    /// With this argument.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.args.insert(name.to_owned(), value.to_owned());
        self
    }

    /// An argument; the order was checked, so it is there.
    pub fn text(&self, name: &str) -> &str {
        self.args.get(name).map_or("", String::as_str)
    }

    /// An argument that is a length of time.
    pub fn length(&self, name: &str) -> Result<Duration, Usage> {
        length::parse(self.text(name))
    }

    /// An argument that is a whole number.
    pub fn number(&self, name: &str) -> Result<u64, Usage> {
        let text = self.text(name);
        text.parse()
            .map_err(|_| Usage(format!("{name} is {text:?}, not a whole number")))
    }

    /// Those of `all` that the order means: `all` must be in an order that is the same each time.
    pub fn choose<T: Clone>(
        &self,
        all: &[T],
        name: impl Fn(&T) -> String,
        what: &str,
    ) -> Result<Vec<T>, Usage> {
        if all.is_empty() {
            return Err(Usage(format!("there is no {what} to strike")));
        }
        match &self.which {
            Which::All => Ok(all.to_vec()),
            Which::Any | Which::Usual => {
                let count = u64::try_from(all.len()).unwrap_or(u64::MAX);
                let nth = usize::try_from(mixed(self.seed) % count).unwrap_or(0);
                Ok(vec![all[nth].clone()])
            }
            Which::One(wanted) => {
                let found = all.iter().find(|one| name(one) == *wanted);
                let names: Vec<String> = all.iter().map(&name).collect();
                let found = found.ok_or_else(|| {
                    let names = names.join(", ");
                    Usage(format!("there is no {what} {wanted}; there are: {names}"))
                })?;
                Ok(vec![found.clone()])
            }
        }
    }
}

/// So that seeds 0, 1, 2 do not simply count (the finaliser of splitmix64).
fn mixed(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(which: Which, seed: u64) -> Result<Vec<&'static str>, Usage> {
        let mut order = Order::new("receiver-kill").on(which);
        order.seed = seed;
        order.choose(&["a", "b", "c"], |name| (*name).to_owned(), "receiver")
    }

    #[test]
    fn the_seed_chooses_and_chooses_the_same_again() {
        let all: Vec<_> = (0..50)
            .map(|seed| chosen(Which::Any, seed).unwrap())
            .collect();
        let again: Vec<_> = (0..50)
            .map(|seed| chosen(Which::Any, seed).unwrap())
            .collect();
        assert_eq!(all, again);
        for name in ["a", "b", "c"] {
            assert!(all.contains(&vec![name]), "{name} is never chosen");
        }
    }

    #[test]
    fn all_or_one_by_its_name() {
        assert_eq!(chosen(Which::All, 1).unwrap(), ["a", "b", "c"]);
        assert_eq!(chosen("b".to_owned().into(), 1).unwrap(), ["b"]);
        let unknown = chosen("d".to_owned().into(), 1).unwrap_err().to_string();
        assert_eq!(unknown, "there is no receiver d; there are: a, b, c");
        let nobody = Order::new("x").choose::<&str>(&[], |name| (*name).to_owned(), "receiver");
        assert_eq!(
            nobody.unwrap_err().to_string(),
            "there is no receiver to strike"
        );
    }
}
