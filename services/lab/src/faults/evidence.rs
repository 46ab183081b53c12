//! What a look at a stack says about a fault.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Of one look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is", content = "why")]
pub enum Evidence {
    /// The harm is there.
    Seen(String),
    /// It is not.
    NotSeen(String),
    /// It is there on some of those that were struck and not on others: neither done nor undone.
    Partly(String),
    /// It left a trace, and is over, without anybody's healing.
    HealedBySelf(String),
}

/// Whether somebody walked into what lay in wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acted {
    Yes(String),
    No(String),
    /// It may have been that, and nobody here can tell.
    CannotTell(String),
}

impl Acted {
    /// Of several that were struck: one that did nothing decides.
    pub fn of_all(each: &[Self]) -> Self {
        let texts: Vec<&str> = each
            .iter()
            .map(|(Self::Yes(text) | Self::No(text) | Self::CannotTell(text))| &**text)
            .collect();
        let text = texts.join("; ");
        if each.is_empty() || each.iter().any(|one| matches!(one, Self::No(_))) {
            Self::No(text)
        } else if each.iter().any(|one| matches!(one, Self::CannotTell(_))) {
            Self::CannotTell(text)
        } else {
            Self::Yes(text)
        }
    }
}

impl Evidence {
    /// It is there, or was.
    pub fn happened(&self) -> bool {
        matches!(self, Self::Seen(_) | Self::HealedBySelf(_))
    }

    /// In words.
    pub fn text(&self) -> &str {
        match self {
            Self::Seen(text)
            | Self::NotSeen(text)
            | Self::Partly(text)
            | Self::HealedBySelf(text) => text,
        }
    }

    /// It is not there, or no more.
    pub fn over(&self) -> bool {
        matches!(self, Self::NotSeen(_) | Self::HealedBySelf(_))
    }

    /// Of several that were struck.
    pub fn of_all(each: &[Self]) -> Self {
        let texts: Vec<&str> = each.iter().map(Self::text).collect();
        let text = texts.join("; ");
        let any = |which: fn(&Self) -> bool| each.iter().any(which);
        let not_seen = any(|one| matches!(one, Self::NotSeen(_)));
        if any(|one| matches!(one, Self::Partly(_))) {
            return Self::Partly(text);
        }
        match (any(|one| matches!(one, Self::Seen(_))), not_seen) {
            (true, true) => Self::Partly(text),
            (true, false) => Self::Seen(text),
            (false, false) if !each.is_empty() => Self::HealedBySelf(text),
            (false, _) => Self::NotSeen(text),
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_the_harm_is_there_while_it_is_on_one() {
        use Evidence::{HealedBySelf, NotSeen, Partly, Seen};
        let text = String::new;
        let of = |each: &[fn(String) -> Evidence]| {
            Evidence::of_all(&each.iter().map(|one| one(text())).collect::<Vec<_>>())
        };
        assert!(matches!(of(&[Seen, Seen]), Seen(_)));
        assert!(matches!(of(&[Seen, HealedBySelf]), Seen(_)));
        assert!(matches!(of(&[HealedBySelf, HealedBySelf]), HealedBySelf(_)));
        assert!(matches!(of(&[Seen, NotSeen]), Partly(_)));
        assert!(matches!(of(&[Partly, Seen]), Partly(_)));
        assert!(matches!(of(&[HealedBySelf, NotSeen]), NotSeen(_)));
        assert!(matches!(of(&[NotSeen, NotSeen]), NotSeen(_)));
        assert!(matches!(of(&[]), NotSeen(_)));
    }

    #[test]
    fn of_several_that_lay_in_wait_each_must_have_acted() {
        use Acted::{CannotTell, No, Yes};
        let of = |each: &[fn(String) -> Acted]| {
            Acted::of_all(
                &each
                    .iter()
                    .map(|one| one(String::new()))
                    .collect::<Vec<_>>(),
            )
        };
        assert!(matches!(of(&[Yes, Yes]), Yes(_)));
        assert!(matches!(of(&[Yes, CannotTell]), CannotTell(_)));
        assert!(matches!(of(&[CannotTell, No]), No(_)));
        assert!(matches!(of(&[]), No(_)));
    }
}
