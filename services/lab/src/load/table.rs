//! A load in figures, for people.

use std::fmt::Write as _;
use std::time::Duration;

use super::lessees::Leases;
use super::processed::Processed;
use super::readers::Reads;
use super::{Latency, Progress, Summary, length};
use crate::say::{grouped, time};

/// One line while it runs.
pub fn progress(now: &Progress) -> String {
    let counts = &now.counts;
    let length = length::show(Duration::from_secs_f64(now.length.as_secs_f64().ceil()));
    let mut line = format!(
        "{:>5} s of {length}  offered {}  accepted {} ({}/s)  refused {}  unknown {}  in flight {}",
        now.elapsed.as_secs(),
        grouped(counts.offered),
        grouped(counts.accepted),
        number(now.accepted_rate),
        grouped(counts.refused),
        grouped(counts.unknown),
        now.in_flight,
    );
    if now.waiting > 0 {
        let _ = write!(line, "  waiting {}", grouped(now.waiting as u64));
    }
    if counts.retries > 0 {
        let _ = write!(line, "  retries {}", grouped(counts.retries));
    }
    line
}

/// All of it, at the end; without what the ledger knows if it cannot be read.
pub fn summary(summary: &Summary, processed: Option<&Processed>) -> String {
    let (load, counts) = (&summary.load, &summary.counts);
    let messages = match load.batch {
        1 => format!("a message of {} bytes each", load.size),
        batch => format!("{batch} messages of {} bytes each", load.size),
    };
    let mut lines = vec![format!(
        "Run {}: {} requests/s for {:.1} s{}, {messages}, seed {}",
        summary.run,
        load.rate,
        summary.offering_secs,
        if summary.stopped { " (stopped)" } else { "" },
        load.seed
    )];
    lines.push(String::new());
    let mut row = |name: &str, count: u64, note: &str| {
        lines.push(
            format!("{name:<10}{:>12}  {note}", grouped(count))
                .trim_end()
                .to_owned(),
        );
    };
    let rate = |rate: f64| format!("{}/s", number(rate));
    row("offered", counts.offered, &rate(summary.offered_rate));
    row("accepted", counts.accepted, &rate(summary.accepted_rate));
    let never = match counts.never_sent {
        0 => String::new(),
        never => format!(
            "{} of them never sent: no connection was free",
            grouped(never)
        ),
    };
    row("refused", counts.refused, &never);
    row("unknown", counts.unknown, "");
    row("retries", counts.retries, "");
    lines.push(String::new());
    let head = ["p50", "p90", "p99", "p99.9", "max"].map(|name| format!("{name:>10}"));
    lines.push(format!("{:<24}{}", "latency", head.concat()));
    let nothing = "nothing was accepted";
    let accepted = summary.accepted_us.as_ref();
    lines.push(
        latency("due to accepted", accepted)
            .unwrap_or_else(|| format!("{:<24}{nothing}", "due to accepted")),
    );
    lines.extend(summary.reads.as_ref().map(reads));
    lines.extend(summary.leases.as_ref().map(leases));
    if let Some(processed) = processed {
        lines.extend(latency(
            "accepted to processed",
            processed.processed_us.as_ref(),
        ));
        if processed.on_their_way > 0 {
            let (left, stored) = (processed.on_their_way, processed.stored);
            let (left, stored) = (grouped(left), grouped(stored));
            lines.push(format!(
                "{left} of {stored} messages are still on their way"
            ));
        }
    }
    lines.join("\n")
}

fn reads(reads: &Reads) -> String {
    let stale = match reads.stale_ms {
        0 => "no saved note was missing".to_owned(),
        ms => format!("a saved note was missing for {}", time(ms * 1_000)),
    };
    let (lists, states, failed) = (reads.lists, reads.states, reads.failed);
    let [lists, states, failed] = [lists, states, failed].map(grouped);
    format!(
        "\nread: the list {lists} times, single notes {states} times, {failed} reads failed; {stale}"
    )
}

fn leases(leases: &Leases) -> String {
    let all = [
        leases.leased,
        leases.confirmed,
        leases.refused,
        leases.unknown,
    ];
    let [leased, confirmed, refused, unknown] = all.map(grouped);
    let late = match leases.late {
        0 => String::new(),
        late => {
            let (late, taken) = (grouped(late), grouped(leases.late_taken));
            format!(", {late} late and {taken} of these taken")
        }
    };
    format!(
        "\nleased {leased} times; confirms: {confirmed} taken, {refused} refused, {unknown} unknown{late}"
    )
}

fn latency(name: &str, times: Option<&Latency>) -> Option<String> {
    let times = times?;
    let cells = [times.p50, times.p90, times.p99, times.p99_9, times.max];
    let cells = cells.map(|us| format!("{:>10}", time(us)));
    Some(format!("{name:<24}{}", cells.concat()))
}

fn number(rate: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is small and not negative"
    )]
    if rate >= 1_000.0 {
        grouped(rate.round() as u64)
    } else {
        format!("{rate:.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Counts, Plan};

    fn example() -> Summary {
        Summary {
            run: "r1".parse().unwrap(),
            load: Plan::default(),
            stopped: false,
            counts: Counts {
                offered: 1_500,
                accepted: 1_490,
                refused: 8,
                never_sent: 3,
                unknown: 2,
                retries: 12,
            },
            offering_secs: 30.0,
            answering_secs: 30.2,
            offered_rate: 50.0,
            accepted_rate: 49.3,
            accepted_us: Some(Latency {
                p50: 1_500,
                p90: 12_000,
                p99: 130_000,
                p99_9: 2_000_000,
                max: 2_500_000,
            }),
            reads: None,
            leases: None,
        }
    }

    #[test]
    fn the_table_is_one_glance() {
        let table = summary(&example(), None);
        let expected = "\
Run r1: 50 requests/s for 30.0 s, a message of 100 bytes each, seed 1

offered          1,500  50.0/s
accepted         1,490  49.3/s
refused              8  3 of them never sent: no connection was free
unknown              2
retries             12

latency                        p50       p90       p99     p99.9       max
due to accepted            1.50 ms   12.0 ms    130 ms    2.00 s    2.50 s";
        assert_eq!(table, expected);
    }

    #[test]
    fn what_went_on_beside_has_a_line() {
        let beside = Summary {
            reads: Some(Reads {
                lists: 1_200,
                stale_ms: 1_500,
                ..Reads::default()
            }),
            leases: Some(Leases {
                leased: 12,
                confirmed: 9,
                late: 2,
                ..Leases::default()
            }),
            ..example()
        };
        let table = summary(&beside, None);
        assert!(table.contains("read: the list 1,200 times"), "{table}");
        assert!(table.contains("missing for 1.50 s"), "{table}");
        assert!(
            table.ends_with("0 unknown, 2 late and 0 of these taken"),
            "{table}"
        );
    }

    #[test]
    fn times_to_processed_have_a_row_when_they_are_known() {
        let example = example();
        let mut processed = Processed {
            processed_us: example.accepted_us,
            stored: 1_490,
            on_their_way: 0,
        };
        let table = summary(&example, Some(&processed));
        assert!(
            table.ends_with("2.50 s") && table.contains("\naccepted to processed      1.50 ms"),
            "{table}"
        );
        processed.on_their_way = 1_200;
        let table = summary(&example, Some(&processed));
        let left = "\n1,200 of 1,490 messages are still on their way";
        assert!(table.ends_with(left), "{table}");
        let nothing = Summary {
            accepted_us: None,
            ..example
        };
        assert!(summary(&nothing, None).ends_with("nothing was accepted"));
    }
}
