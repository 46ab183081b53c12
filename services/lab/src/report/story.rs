//! The story of a run in plain words: what was tried, what broke, what became of the messages, and the verdict.

use std::fmt::Write as _;
use std::time::Duration;

use crate::audit::class::Class;
use crate::audit::{self, Verdict};
use crate::experiment::journal::{FaultRecord, Journal, Outcome};
use crate::load::{Summary, length};
use crate::run::Facts;
use crate::say::{grouped, time};

use super::Known;
use super::again::command;

/// The name of the run for people.
pub fn title(known: &Known) -> String {
    match &known.journal {
        Some(journal) if journal.twin => format!("{} (the unsafe twin)", journal.title),
        Some(journal) => journal.title.clone(),
        None => format!("A load of {} requests a second", rate(known)),
    }
}

fn rate(known: &Known) -> String {
    known
        .meta
        .load
        .as_ref()
        .map_or_else(|| "some".to_owned(), |load| load.rate.to_string())
}

/// The verdict in one sentence.
pub fn headline(known: &Known) -> String {
    let Some(audit) = &known.audit else {
        let audit = command(known, &format!("audit --run {}", known.meta.run));
        return format!("Not judged yet: `{audit}` says what became of the messages.");
    };
    match known.verdict().unwrap_or(audit.verdict) {
        Verdict::Fail if audit.verdict == Verdict::Pass => beyond(known),
        Verdict::Pass => {
            let settled = [Class::Ok, Class::Recovered, Class::Parked];
            let settled = settled.iter().map(|class| messages(audit, *class)).sum();
            match messages(audit, Class::Parked) {
                0 => format!(
                    "Each of {} was processed exactly once.",
                    plural(settled, "accepted message")
                ),
                parked => format!(
                    "Each of {} was dealt with exactly once; {} given up on, {}.",
                    plural(settled, "accepted message"),
                    if parked == 1 {
                        "1 was".to_owned()
                    } else {
                        format!("{} were", grouped(parked))
                    },
                    why_parked(known, audit),
                ),
            }
        }
        Verdict::Fail => {
            let wrong = audit.classes.iter().filter(|(class, _)| class.fails());
            let wrong =
                wrong.map(|(class, count)| format!("{} {}", grouped(count.messages), word(*class)));
            let wrong: Vec<String> = wrong.collect();
            format!(
                "Of {}: {}.",
                plural(audit.requests.messages, "offered message"),
                wrong.join(", ")
            )
        }
        Verdict::Inconclusive if !audit.saw() => {
            "What became of the messages could not be seen.".to_owned()
        }
        Verdict::Inconclusive => {
            "Nothing wrong was found, but it cannot be said for sure.".to_owned()
        }
    }
}

/// Poison had to be given up on; what else was, was only allowed.
fn why_parked(known: &Known, audit: &audit::Report) -> String {
    let poison = known.load.as_ref().map(|load| load.load.poison);
    match (audit.circumstances.dead_max, poison) {
        (0, _) => "as it had to be".to_owned(),
        (max, Some(0)) => format!("as was allowed of {} at most", grouped(max)),
        (max, _) => format!(
            "poison as it had to be, others as was allowed of {} at most",
            grouped(max)
        ),
    }
}

/// Every message is where it belongs, and still a limit of the experiment was not kept.
fn beyond(known: &Known) -> String {
    let expectations = known
        .journal
        .iter()
        .flat_map(|journal| &journal.expectations);
    let broken: Vec<String> = expectations
        .filter(|one| one.beyond)
        .map(|one| format!("{} is {}", one.what, one.found))
        .collect();
    format!(
        "Each message is where it belongs, but not within the limits: {}.",
        broken.join(", ")
    )
}

/// A class as it is said in a sentence.
pub fn word(class: Class) -> String {
    class.word().replace('-', " ")
}

/// Whether that is what the experiment was to show; none: it was a plain load.
pub fn outcome(journal: &Journal) -> String {
    let off = &journal.stack.without;
    match journal.outcome {
        Outcome::AsExpected if journal.twin => {
            let why = match off.as_slice() {
                [] => "it runs with an unsafe setting".to_owned(),
                off => format!("it runs without {}", off.join(", ")),
            };
            format!(
                "As expected: this is the unsafe twin, {why}. That the harm is found here is what gives the \
                 verdict on the safe one its meaning."
            )
        }
        Outcome::AsExpected => "As expected.".to_owned(),
        Outcome::NotAsExpected => {
            let missed = journal
                .expectations
                .iter()
                .filter(|expectation| !expectation.met);
            let missed = missed.map(|missed| {
                format!(
                    "{} was to be {}, and is {}",
                    missed.what, missed.wanted, missed.found
                )
            });
            let missed: Vec<String> = missed.collect();
            if missed.is_empty() {
                "Not as expected.".to_owned()
            } else {
                format!("Not as expected: {}.", missed.join("; "))
            }
        }
        Outcome::Inconclusive => {
            "The experiment shows nothing, neither good nor bad: what had to be seen was not seen."
                .to_owned()
        }
    }
}

/// What was tried, and what came of it: a paragraph each.
pub fn paragraphs(known: &Known) -> Vec<String> {
    let mut told = Vec::new();
    told.push(tried(known));
    if let Some(journal) = &known.journal {
        told.push(match journal.faults.len() {
            0 => "Nothing was broken on purpose.".to_owned(),
            1 => "One thing was broken on purpose:".to_owned(),
            many => format!("{many} times something was broken on purpose:"),
        });
    }
    told
}

/// What the clients heard and what became of it, after the faults.
pub fn ending(known: &Known) -> Vec<String> {
    let mut told = Vec::new();
    if let Some(load) = &known.load {
        told.push(answers(load));
    }
    if let Some(audit) = &known.audit {
        let circumstances = &audit.circumstances;
        told.push(match (circumstances.drained, circumstances.stuck) {
            (true, _) => "Then the system was left alone until nothing of the run was on its way any more.",
            (false, true) => "Then the system was left alone. Everything was healed and ready, and still nothing moved.",
            (false, false) => "When it was judged, something of the run was still on its way.",
        }.to_owned());
        let silence = u64::try_from(audit.figures.longest_silence_ms).unwrap_or(0);
        if silence >= 1_000 {
            told.push(format!(
                "The longest time in which messages waited and none was processed was {}.",
                time(silence * 1_000)
            ));
        }
        let journal = known.journal.as_ref();
        if journal.is_some_and(|journal| audit.audited_at > journal.ended_at) {
            told.push(format!(
                "The messages were audited again at {}; limits are as they were measured during the experiment.",
                audit.audited_at.format("%H:%M:%S UTC on %-d %B %Y")
            ));
        }
    }
    told
}

fn tried(known: &Known) -> String {
    let stack = stack(&known.meta.stack);
    let Some(load) = &known.load else {
        return format!("Requests were to be offered to {stack}. How that ended is not on file.");
    };
    let plan = &load.load;
    let each = match plan.batch {
        1 => format!("a message of {} bytes", plan.size),
        batch => format!("{batch} messages of {} bytes", plan.size),
    };
    let poison = match plan.poison {
        0 => String::new(),
        1 => " One of them was poison: its work fails at every attempt.".to_owned(),
        many => format!(
            " {} of them were poison: their work fails at every attempt.",
            grouped(many)
        ),
    };
    let offering = spell(load.offering_secs);
    format!(
        "For {offering}, {} requests a second, each with {each}, were offered to {stack}: {} in all.{poison}",
        plan.rate,
        grouped(load.counts.offered),
    )
}

/// `15 s`, `10 min`
fn spell(seconds: f64) -> String {
    let text = length::show(Duration::from_secs_f64(seconds.round()));
    let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let unit = match &text[digits.len()..] {
        "m" => "min",
        unit => unit,
    };
    format!("{digits} {unit}")
}

/// `2 senders and 3 receivers, without inbox`
pub fn stack(facts: &Facts) -> String {
    let counts = facts
        .counts
        .iter()
        .rev()
        .map(|(name, count)| plural(*count as u64, name));
    let counts: Vec<String> = counts.collect();
    let mut told = if counts.is_empty() {
        "a stack".to_owned()
    } else {
        counts.join(" and ")
    };
    if !facts.without.is_empty() {
        told = format!("{told}, without {}", facts.without.join(", "));
    }
    told
}

fn answers(load: &Summary) -> String {
    let counts = &load.counts;
    let mut told = match (counts.accepted, counts.refused, counts.unknown) {
        (_, 0, 0) => "All requests were accepted.".to_owned(),
        (accepted, refused, unknown) => format!(
            "Clients were told: {} accepted, {} definitely refused; of {} they never learned the outcome.",
            grouped(accepted),
            grouped(refused),
            plural(unknown, "request"),
        ),
    };
    match counts.retries {
        0 => {}
        1 => told.push_str(" Once one asked again, with the same key."),
        many => {
            let many = grouped(many);
            let _ = write!(told, " They asked again {many} times, with the same keys.");
        }
    }
    if load.stopped {
        told += " The load was stopped before its end.";
    }
    told
}

/// What became of one fault.
pub fn fault(record: &FaultRecord) -> String {
    let name = &record.fault;
    let Some(injected) = record.injected_ms else {
        let doubt = record
            .doubt
            .as_ref()
            .map_or_else(String::new, |why| format!(": {why}"));
        return format!("{name} was to strike and did not{doubt}.");
    };
    let mut told = match record.struck.as_slice() {
        [] => name.clone(),
        struck => format!("{name} struck {}", struck.join(", ")),
    };
    let _ = match &record.evidence {
        Some(evidence) => write!(told, "; seen: {evidence}."),
        None => write!(told, "; nobody saw that it did."),
    };
    let _ = match (record.healed_ms, &record.heal_evidence) {
        (None, _) => write!(told, " It was not healed."),
        (Some(at), Some(evidence)) => write!(told, " Healed at {}; seen: {evidence}.", since(at)),
        (Some(at), None) => write!(told, " Healed at {}.", since(at)),
    };
    if let Some(recovered) = record.recovered_ms {
        let wait = recovered.saturating_sub(record.healed_ms.unwrap_or(injected));
        let _ = match wait {
            0 => write!(told, " All was ready by then."),
            wait => write!(told, " All was ready again {} later.", time(wait * 1_000)),
        };
    }
    if let Some(doubt) = &record.doubt {
        let _ = write!(told, " In doubt: {doubt}.");
    }
    told
}

/// The name of the experiment, without what its kind of run adds for the twin.
pub fn experiment(known: &Known) -> &str {
    let kind = &known.meta.kind;
    kind.strip_suffix(" (twin)").unwrap_or(kind)
}

/// A time after the run's start.
pub fn since(ms: u64) -> String {
    match ms {
        0..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} min {:02} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

fn messages(audit: &audit::Report, class: Class) -> u64 {
    audit.classes.get(&class).map_or(0, |count| count.messages)
}

/// `1 message`, `2 messages`
pub fn plural(count: u64, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{} {noun}{s}", grouped(count))
}
