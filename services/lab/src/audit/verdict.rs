//! The judgement: from what is known of a message to its class, and from all classes to a verdict. Pure functions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::class::{Class, DOMAIN, Rule, rules};
use crate::run::requests::Answer;
use crate::say::grouped;

/// What the client was told of a message's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Accepted,
    Refused,
    Unknown,
    /// Nobody was told anything: the load never offered it.
    Nobody,
}

impl From<Answer> for Told {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Accepted => Self::Accepted,
            Answer::Refused => Self::Refused,
            Answer::Unknown => Self::Unknown,
        }
    }
}

/// What the sender stored of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    None,
    /// Nothing, but another message of the same request.
    Others,
    One,
    /// The same place of the same request under several ids.
    Many,
}

/// How many effects a message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effects {
    None,
    One,
    Many,
}

impl Effects {
    /// From their number.
    pub fn of(count: u32) -> Self {
        match count {
            0 => Self::None,
            1 => Self::One,
            _ => Self::Many,
        }
    }
}

/// What the records say of one message: one place in one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    pub told: Told,
    pub rows: Rows,
    pub effects: Effects,
    pub parked: bool,
    pub poison: bool,
}

/// What is known beside the records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circumstances {
    /// Nothing is on its way any more.
    pub drained: bool,
    /// Something is, everything was healed with evidence, all nodes are ready, and nothing has moved for long.
    pub stuck: bool,
    /// Why the lab cannot be sure: what it could not observe, inject or heal; traffic of others.
    pub doubts: Vec<String>,
    /// Promises that were broken whatever became of the messages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<String>,
    /// So many messages may be given up on without being poison.
    pub dead_max: u64,
}

/// The outcome of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    Pass,
    Fail,
    Inconclusive,
}

impl Verdict {
    /// What the program ends with.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Fail => 1,
            Self::Inconclusive => 3,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Inconclusive => "INCONCLUSIVE",
        })
    }
}

/// The class of a message.
pub fn judge(facts: &Facts, circumstances: &Circumstances) -> Class {
    rule(facts, circumstances).class
}

/// The row of the table that decides.
pub fn rule(facts: &Facts, circumstances: &Circumstances) -> &'static Rule {
    static DECIDED: LazyLock<Vec<&Rule>> = LazyLock::new(decide);
    let place = values(*facts, circumstances)
        .iter()
        .zip(DOMAIN)
        .fold(0, |place, (value, (_, values))| {
            place * values.len() + value
        });
    DECIDED[place]
}

/// Every combination, decided once: a million messages are looked up.
fn decide() -> Vec<&'static Rule> {
    let count: usize = DOMAIN.iter().map(|(_, values)| values.len()).product();
    (0..count)
        .map(|mut place| {
            let mut values = [0; DOMAIN.len()];
            for (value, (_, domain)) in values.iter_mut().zip(DOMAIN).rev() {
                *value = place % domain.len();
                place /= domain.len();
            }
            let decides = rules().iter().find(|rule| rule.matches(&values));
            decides.unwrap_or_else(|| panic!("classes.csv has no rule for {values:?}"))
        })
        .collect()
}

/// As places in the domain of each column.
fn values(facts: Facts, circumstances: &Circumstances) -> [usize; DOMAIN.len()] {
    let drained = match (circumstances.drained, circumstances.stuck) {
        (true, _) => 1,
        (false, true) => 2,
        (false, false) => 0,
    };
    [
        facts.told as usize,
        facts.rows as usize,
        facts.effects as usize,
        usize::from(facts.parked),
        usize::from(facts.poison),
        drained,
    ]
}

/// How many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub messages: u64,
    /// Requests whose gravest message this is. Without those that are not in the load's record.
    pub requests: u64,
}

/// How many there are of each class; absent: none.
pub type Counts = BTreeMap<Class, Count>;

/// What was given up on counts as parked while it is within what is allowed.
pub fn allow(counts: &mut Counts, dead_max: u64) {
    let few = |wrong: &&mut Count| wrong.messages <= dead_max;
    if counts
        .get_mut(&Class::GivenUpWrongly)
        .as_ref()
        .is_some_and(few)
    {
        let allowed = counts.remove(&Class::GivenUpWrongly).unwrap_or_default();
        let parked = counts.entry(Class::Parked).or_default();
        parked.messages += allowed.messages;
        parked.requests += allowed.requests;
    }
}

/// The verdict and its reasons. `counts` is what [`allow`] left.
pub fn verdict(counts: &Counts, circumstances: &Circumstances) -> (Verdict, Vec<String>) {
    let of = |class| counts.get(&class).map_or(0, |count| count.messages);
    let failing = Class::ALL
        .into_iter()
        .filter(|class| class.fails() && of(*class) > 0);
    let mut reasons: Vec<String> = failing.map(|class| said(of(class), class)).collect();
    reasons.extend(circumstances.broken.iter().cloned());
    let fails = !reasons.is_empty();
    let mut doubts = circumstances.doubts.clone();
    if counts.keys().all(|class| *class == Class::Refused) {
        doubts.push("no load got through: there is nothing to judge".to_owned());
    }
    if circumstances.stuck && of(Class::Stuck) == 0 {
        let what =
            "something is still on its way long after everything was healed, and nobody knows what";
        doubts.push(what.to_owned());
    }
    if !circumstances.drained && !circumstances.stuck {
        doubts.push(match of(Class::Pending) {
            0 => "the system was not quiet: something may still be on its way".to_owned(),
            pending => said(pending, Class::Pending),
        });
    }
    let verdict = match (fails, doubts.is_empty()) {
        (true, _) => Verdict::Fail,
        (false, false) => Verdict::Inconclusive,
        (false, true) => Verdict::Pass,
    };
    reasons.append(&mut doubts);
    (verdict, reasons)
}

fn said(count: u64, class: Class) -> String {
    let messages = if count == 1 {
        "message is"
    } else {
        "messages are"
    };
    let word = class.word().replace('-', " ");
    format!("{} {messages} {word}: {}", grouped(count), class.sentence())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::made::drained;

    fn counts(classes: &[(Class, u64)]) -> Counts {
        let count = |messages| Count {
            messages,
            requests: messages,
        };
        classes
            .iter()
            .map(|(class, n)| (*class, count(*n)))
            .collect()
    }

    fn of(classes: &[(Class, u64)], circumstances: &Circumstances) -> Verdict {
        verdict(&counts(classes), circumstances).0
    }

    #[test]
    fn the_values_of_a_history_are_those_of_the_table() {
        let tolds = [Told::Accepted, Told::Refused, Told::Unknown, Told::Nobody];
        let names = ["accepted", "refused", "unknown", "nobody"];
        assert_eq!(tolds.map(|told| DOMAIN[0].1[told as usize]), names);
        let rows = [Rows::None, Rows::Others, Rows::One, Rows::Many];
        let names = ["none", "others", "one", "many"];
        assert_eq!(rows.map(|rows| DOMAIN[1].1[rows as usize]), names);
        let effects = [0, 1, 2].map(Effects::of);
        let names = ["none", "one", "many"];
        assert_eq!(effects.map(|effects| DOMAIN[2].1[effects as usize]), names);
        assert_eq!(DOMAIN[3].1, ["no", "yes"]);
        assert_eq!(DOMAIN[4].1, ["no", "yes"]);
        assert_eq!(DOMAIN[5].1, ["no", "yes", "stuck"]);
    }

    #[test]
    fn looking_up_gives_what_walking_down_the_table_gives() {
        let mut seen = 0;
        for told in [Told::Accepted, Told::Refused, Told::Unknown, Told::Nobody] {
            for rows in [Rows::None, Rows::Others, Rows::One, Rows::Many] {
                for effects in [0, 1, 2].map(Effects::of) {
                    for bits in 0..16 {
                        let facts = Facts {
                            told,
                            rows,
                            effects,
                            parked: bits & 1 > 0,
                            poison: bits & 2 > 0,
                        };
                        let circumstances = Circumstances {
                            drained: bits & 4 > 0,
                            stuck: bits & 8 > 0,
                            ..Circumstances::default()
                        };
                        let values = values(facts, &circumstances);
                        let first = rules().iter().find(|rule| rule.matches(&values)).unwrap();
                        assert_eq!(rule(&facts, &circumstances), first);
                        seen += 1;
                    }
                }
            }
        }
        assert_eq!(seen, 768);
    }

    #[test]
    fn one_of_what_is_wrong_is_enough_to_fail_whatever_else_there_is() {
        for class in Class::ALL {
            let all_but = [
                (Class::Ok, 1_000_000),
                (Class::Recovered, 5),
                (Class::Refused, 5),
            ];
            let mut classes = all_but.to_vec();
            classes.push((class, 1));
            let right = if class.fails() {
                Verdict::Fail
            } else {
                Verdict::Pass
            };
            assert_eq!(of(&classes, &drained()), right, "{class}");
            let doubtful = Circumstances {
                doubts: vec!["the fault was not seen".to_owned()],
                ..drained()
            };
            let right = if class.fails() {
                Verdict::Fail
            } else {
                Verdict::Inconclusive
            };
            assert_eq!(of(&classes, &doubtful), right, "{class}");
        }
    }

    #[test]
    fn nothing_to_judge_and_nothing_quiet_are_no_pass() {
        assert_eq!(of(&[], &drained()), Verdict::Inconclusive);
        assert_eq!(
            of(&[(Class::Refused, 9)], &drained()),
            Verdict::Inconclusive
        );
        let busy = Circumstances::default();
        assert_eq!(of(&[(Class::Ok, 9)], &busy), Verdict::Inconclusive);
        assert_eq!(
            of(&[(Class::Ok, 9), (Class::Pending, 1)], &busy),
            Verdict::Inconclusive
        );
        assert_eq!(
            of(&[(Class::Ok, 9), (Class::Lost, 1)], &busy),
            Verdict::Fail
        );
        let stuck = Circumstances {
            stuck: true,
            ..busy
        };
        assert_eq!(
            of(&[(Class::Ok, 9), (Class::Stuck, 1)], &stuck),
            Verdict::Fail
        );
        // such as a push of unknown outcome that nobody ever leased
        assert_eq!(of(&[(Class::Ok, 9)], &stuck), Verdict::Inconclusive);
    }

    #[test]
    fn a_broken_promise_fails_although_each_message_is_right() {
        let broken = Circumstances {
            broken: vec!["two holders at one time".to_owned()],
            ..drained()
        };
        let (verdict, reasons) = verdict(&counts(&[(Class::Ok, 9)]), &broken);
        assert_eq!(verdict, Verdict::Fail);
        assert_eq!(reasons, ["two holders at one time"]);
    }

    #[test]
    fn as_many_as_are_allowed_may_be_given_up_on_and_not_one_more() {
        for (wrong, dead_max, right) in [
            (1, 0, Verdict::Fail),
            (1, 1, Verdict::Pass),
            (3, 2, Verdict::Fail),
            (3, 3, Verdict::Pass),
        ] {
            let mut counts = counts(&[
                (Class::Ok, 9),
                (Class::GivenUpWrongly, wrong),
                (Class::Parked, 2),
            ]);
            allow(&mut counts, dead_max);
            assert_eq!(
                verdict(&counts, &drained()).0,
                right,
                "{wrong} of {dead_max}"
            );
            if right == Verdict::Pass {
                assert_eq!(counts[&Class::Parked].messages, wrong + 2);
            }
        }
    }

    #[test]
    fn reasons_say_what_and_how_many() {
        let circumstances = Circumstances {
            doubts: vec!["receiver-1 does not answer".to_owned()],
            ..Circumstances::default()
        };
        let counts = counts(&[(Class::Lost, 1), (Class::Pending, 1_234), (Class::Ok, 1)]);
        let (_, reasons) = verdict(&counts, &circumstances);
        assert!(reasons[0].starts_with("1 message is lost: "), "{reasons:?}");
        assert_eq!(reasons[1], "receiver-1 does not answer");
        assert!(
            reasons[2].starts_with("1,234 messages are pending: "),
            "{reasons:?}"
        );
    }
}
