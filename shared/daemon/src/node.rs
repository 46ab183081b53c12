//! One running copy of a service: its name, its colour, since when it runs.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{WrongSetting, clock};

const NAME_MAX: usize = 40;

/// Who this process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What people see. Two processes may carry the same name; `id` tells them apart.
    pub name: String,
    /// `sender`, `receiver`, ..
    pub service: &'static str,
    /// New for each process.
    pub id: Uuid,
    /// When this process started.
    pub started_at: DateTime<Utc>,
}

/// The settings that name a node.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct NodeArgs {
    /// This node's name, shown on the pages: letters, digits and "-_.", at most 40
    /// [default: the service's name and four random hex digits]
    #[arg(long, env = "NODE_NAME")]
    pub node_name: Option<String>,
}

impl NodeArgs {
    /// The node that these settings describe, started now.
    pub fn node(&self, service: &'static str) -> Result<Node, WrongSetting> {
        let id = Uuid::new_v4();
        let name = match &self.node_name {
            Some(name) if is_name(name) => name.clone(),
            Some(name) => {
                let right = "letters, digits and \"-_.\", 1 to 40 of them";
                return Err(WrongSetting::new("NODE_NAME", name, right));
            }
            None => format!("{service}-{:04x}", id.as_u128() & 0xffff),
        };
        Ok(Node {
            name,
            service,
            id,
            started_at: clock::now(),
        })
    }
}

fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=NAME_MAX).contains(&name.len()) && name.chars().all(fits)
}

impl Node {
    /// This node's colour, 1 to 8.
    pub fn colour(&self) -> u8 {
        colour(&self.name)
    }
}

/// The colour of the node of this name, 1 to 8: the same on every page and in every process.
///
/// FNV-1a, because names that differ only in a last digit, as the native stack gives them, then
/// get different colours.
pub fn colour(name: &str) -> u8 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = name.bytes().fold(0x811c_9dc5, step);
    u8::try_from(hash % 8).unwrap_or(0) + 1
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn named(name: &str) -> Result<Node, WrongSetting> {
        NodeArgs {
            node_name: Some(name.to_owned()),
        }
        .node("sender")
    }

    #[test]
    fn a_node_without_a_name_gets_the_services_and_four_hex_digits() {
        let node = NodeArgs::default().node("sender").unwrap();
        let digits = node.name.strip_prefix("sender-").unwrap();
        assert!(
            digits.len() == 4 && digits.chars().all(|c| c.is_ascii_hexdigit()),
            "{digits}"
        );
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        assert_eq!(named("sender-1.b_C").unwrap().name, "sender-1.b_C");
        for name in ["", "two words", "<b>", "é", &"x".repeat(41)] {
            assert_eq!(named(name).unwrap_err().name(), "NODE_NAME");
        }
    }

    #[test]
    fn neighbours_differ_in_colour() {
        let colours: HashSet<_> = (1..=8).map(|n| colour(&format!("receiver-{n}"))).collect();
        assert_eq!(colours, (1..=8).collect());
    }

    #[test]
    fn a_colour_never_changes() {
        assert_eq!(colour("sender-1"), colour("sender-1"));
        assert_eq!(colour(""), 6);
    }
}
