//! `lab experiment run` as people run it: an experiment and its twin, one that is interrupted, one that is killed, receivers
//! that are bad, and files that are wrong.

mod room;

use std::time::Duration;

use lab::audit::Verdict;
use lab::audit::class::Class;
use lab::experiment::journal::Outcome;
use lab::stack::{left_over, postgres};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::world::lab;
use room::{Room, said};

const LIMIT: Duration = Duration::from_mins(3);

const QUICK: &str = "
title: The work fails, and a receiver is killed
learn: What is acknowledged on arrival cannot be done again.
stack: { sender: 1, receiver: 2, settings: { WORK_DELAY_MAX_MS: 10, WORK_FAIL_ONE_IN: 4 } }
load: { rate: 40/s, for: 4s }
faults: [{ at: 1s, fault: receiver-kill, for: 1s }]
twin:
  without: [ack-after-commit]
  expect: { verdict: fail, class: lost }
";

/// Each lasts longer than anybody waits: one is in the broker's data, one stops a process.
const LONG: &str = "
title: Somebody loses patience
learn: What was broken on purpose is mended, whoever dies meanwhile.
stack: { sender: 1, receiver: 1, settings: { WORK_DELAY_MAX_MS: 10 } }
load: { rate: 20/s, for: 10m }
faults:
  - { at: 0s, fault: queue-limit, for: 9m }
  - { at: 1s, fault: receiver-pause, for: 9m }
";

/// A crash is armed at the passage of a delivery that never comes.
const NEVER: &str = "
title: Nobody dies
learn: What did not happen proves nothing.
stack: { sender: 1, receiver: 1, settings: { WORK_DELAY_MAX_MS: 10 } }
load: { rate: 20/s, for: 2s }
faults: [{ at: 0s, fault: fail-point, on: receiver-1, set: { point: settle.before_ack, action: crash@1000000 }, for: 1s }]
twin:
  without: [inbox]
  expect: { verdict: fail, class: duplicated }
";

/// One of each of the other services, as short as it can be.
const OTHERS: [(&str, &str); 3] = [
    (
        "stale",
        "
title: The worker cannot tell the cache
learn: A copy that expires is wrong for as long as its time to live.
stack: { notes: 1, notes-worker: 1, settings: { NOTES_CACHE_MS: 1000 } }
load: { to: notes, rate: 20/s, for: 6s, readers: 2 }
faults: [{ at: 1s, fault: redis-link-refuse, on: notes-worker-1, for: 4s }]
expect: { figures: { stale: \"< 2500ms\" } }
twin:
  settings: { NOTES_CACHE: truth }
  expect: { verdict: fail, figure: stale }
",
    ),
    (
        "late",
        "
title: A confirm comes late
learn: A token says whose confirm it is.
stack: { leases: 1 }
load: { to: leases, rate: 20/s, for: 3s, lessees: 4, late: 1/20, lease: 300ms }
twin:
  load: { confirm: id }
  expect: { verdict: fail, class: lost }
",
    ),
    (
        "mail",
        "
title: Nobody wrote down that the mail was taken
learn: A copy under the same Message-ID is the same mail.
load: { to: signup, rate: 3/s, for: 5s }
faults: [{ at: 500ms, fault: fail-point, on: signup-welcome-1, set: { point: welcome.after_smtp, action: crash@2 }, for: 2s }]
expect: { figures: { mail_copies: \">= 1\" } }
twin:
  settings: { MAIL_ID: random }
  expect: { verdict: fail, class: duplicated }
",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn notes_leases_and_mails_are_judged_like_messages_and_their_twins_fail() {
    let room = Room::new();
    let files = OTHERS.map(|(name, text)| room.file(&format!("{name}.yaml"), text));
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let (code, text) = room.run(&files).await;
    assert_eq!(code, 0, "{text}");
    let left = |kind: &str, verdict| {
        let left = room.left(kind);
        assert_eq!(left.journal.verdict(), verdict);
        assert_eq!(left.journal.outcome, Outcome::AsExpected);
        left
    };
    for (name, _) in OTHERS {
        let safe = left(name, Verdict::Pass);
        let right = safe.messages(Class::Ok) + safe.messages(Class::Recovered);
        assert!(right >= safe.journal.load.counts.accepted, "{name}");
    }
    let leases = room.left("late").journal.load.leases.unwrap();
    assert!(leases.late > 0 && leases.late_taken == 0, "{leases:?}");
    assert!(leases.leased >= leases.confirmed + leases.late);
    let reads = room.left("stale").journal.load.reads.unwrap();
    assert!(reads.lists > 0 && reads.failed == 0, "{reads:?}");
    assert!(room.left("mail").journal.audit.figures.mail_copies > Some(0));
    room.nothing_is_left();

    let (code, text) = room.run(&[&["--twin"], &*files].concat()).await;
    assert_eq!(code, 0, "{text}");
    let twins = OTHERS.map(|(name, _)| left(&format!("{name} (twin)"), Verdict::Fail));
    let [stale, late, mail] = &twins;
    // by the figure alone: every note is there
    assert_eq!(stale.journal.audit.verdict, Verdict::Pass);
    assert!(late.messages(Class::Lost) > 0 && mail.messages(Class::Duplicated) > 0);
    room.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_experiment_that_is_interrupted_leaves_nothing_and_the_next_one_passes() {
    let room = Room::new();
    let (quick, long) = (room.file("quick.yaml", QUICK), room.file("long.yaml", LONG));

    let (mut child, mut lines) = room.broken(&long, 2).await;
    signal(&child, Signal::SIGINT);
    let mut rest = Vec::new();
    while let Some(line) = timeout(LIMIT, lines.next_line()).await.unwrap().unwrap() {
        rest.push(line);
    }
    assert_eq!(child.wait().await.unwrap().code(), Some(130), "{rest:#?}");
    for fault in ["queue-limit", "receiver-pause"] {
        let healed = |line: &String| line.contains(fault) && line.contains(" healed: ");
        assert!(rest.iter().any(healed), "{rest:#?}");
    }
    room.nothing_is_left();

    let (code, text) = room.run(&[&quick]).await;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("PASS as expected"), "{text}");
    let safe = room.left("quick");
    safe.says(Verdict::Pass, Outcome::AsExpected);
    assert_eq!(safe.messages(Class::Ok), safe.journal.load.counts.accepted);
    let fault = &safe.journal.faults[0];
    assert!(fault.doubt.is_none() && fault.recovered_ms > fault.healed_ms);
    room.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_experiment_left_is_mended_and_its_successors_end_as_they_must() {
    let room = Room::new();
    let (quick, long) = (room.file("quick.yaml", QUICK), room.file("long.yaml", LONG));
    let (mut child, _) = room.broken(&long, 2).await;
    child.kill().await.unwrap();
    assert_eq!(room.notes(), 2);
    let mut heal = Command::new(lab());
    heal.arg("--lab-dir").arg(&room.root);
    let heal = heal.args(["fault", "heal", "--all"]).output().await;
    let text = said(&heal.unwrap());
    let pause = "over with the experiment that was killed\n";
    assert!(
        text.contains("receiver-pause on ") && text.contains(pause),
        "{text}"
    );
    assert_eq!(left_over(&room.own()), []);
    assert_eq!(room.notes(), 1, "the limit is still in the broker's data");

    let never = room.file("never.yaml", NEVER);
    let (code, text) = room.run(&["--twin", &quick, &never]).await;
    assert_eq!(code, 3, "{text}");
    let summary = "1 as expected, 0 not as expected, 1 inconclusive";
    assert!(text.contains(summary), "{text}");
    let twin = room.left("quick (twin)");
    twin.says(Verdict::Fail, Outcome::AsExpected);
    assert!(twin.messages(Class::Lost) > 0);
    let never = room.left("never (twin)");
    never.says(Verdict::Inconclusive, Outcome::Inconclusive);
    let reasons = never.journal.audit.reasons.join("\n");
    let nothing = [
        "but it did nothing (receiver-",
        "settle.before_ack was passed ",
    ];
    assert!(
        nothing.iter().all(|words| reasons.contains(words)),
        "{reasons}"
    );
    room.nothing_is_left();

    let mut reset = Command::new(lab());
    reset.arg("--lab-dir").arg(&room.root);
    let reset = reset.args(["reset", "--yes"]).output().await.unwrap();
    assert!(reset.status.success(), "{reset:?}");
    assert!(!room.root.exists() && !postgres::outside(&room.own()).exists());
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// One whose receiver does this with every message.
fn bad_receiver(action: &str, class: &str) -> String {
    format!(
        "
title: A receiver that does {action}
learn: The judge convicts whoever does not do the work.
stack: {{ sender: 1, receiver: 1, settings: {{ WORK_DELAY_MAX_MS: 0, WORK_FAIL_ONE_IN: 0 }} }}
load: {{ rate: 30/s, for: 2s }}
recovery: 5s
twin:
  settings: {{ WORK_FAIL_ONE_IN: 1, WORK_FAILURE_ACTION: {action} }}
  expect: {{ verdict: fail, class: {class} }}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_or_parks_or_acks_without_an_effect_is_convicted_by_the_right_class()
{
    let room = Room::new();
    let bad = [
        ("hang", Class::Stuck),
        ("park", Class::GivenUpWrongly),
        ("ack", Class::Lost),
    ];
    let files = bad.map(|(action, class)| {
        let text = bad_receiver(action, class.word());
        room.file(&format!("{action}.yaml"), &text)
    });
    let (code, text) = room.run(&["--twin", &files[0], &files[1], &files[2]]).await;
    assert_eq!(code, 0, "{text}");
    for (action, class) in bad {
        let left = room.left(&format!("{action} (twin)"));
        left.says(Verdict::Fail, Outcome::AsExpected);
        // nothing else is said of any message
        let audit = &left.journal.audit;
        assert_eq!(
            audit.classes.keys().collect::<Vec<_>>(),
            [&class],
            "{action}"
        );
        assert_eq!(left.messages(class), left.journal.load.counts.accepted);
        assert_eq!(left.journal.load.counts.accepted, 60);
        let culprit = &audit.culprits[0];
        assert!(culprit.class == class && !culprit.history.is_empty());
    }
    room.nothing_is_left();
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_said_with_its_place_before_anything_starts() {
    let room = Room::new();
    let wrong = |find: &str, put: &str| QUICK.replace(find, put);
    let files = [
        ("field", wrong("load:", "laod:"), "field.yaml:5:1: "),
        ("unit", wrong("40/s", "40"), "unit.yaml:5:15: "),
        ("rate", wrong("40/s", "0/s"), "rate.yaml:5:15: "),
        ("time", wrong("4s", "4"), "time.yaml:5:26: "),
        (
            "fault",
            wrong("receiver-kill", "reciever-kill"),
            "fault.yaml:6:27: ",
        ),
        ("late", wrong("at: 1s", "at: 5s"), "late.yaml:6:16: "),
        (
            "node",
            wrong("kill,", "kill, on: receiver-3,"),
            "node.yaml:6:46: ",
        ),
        (
            "setting",
            wrong("WORK_FAIL_ONE_IN", "WORK_FAILS"),
            "setting.yaml:4:69: ",
        ),
        ("value", wrong("_MS: 10", "_MS: soon"), "value.yaml:4:65: "),
        (
            "guarantee",
            wrong("ack-after-commit", "acks"),
            "guarantee.yaml:8:13: ",
        ),
        (
            "class",
            wrong("class: lost", "class: gone"),
            "class.yaml:9:35: ",
        ),
    ];
    for (name, text, place) in files {
        let file = room.file(&format!("{name}.yaml"), &text);
        let said = room.refused(&[&file]).await;
        assert!(said.contains(place), "{said}");
    }
    let quick = room.file("quick.yaml", QUICK);
    let without_stack = QUICK.lines().filter(|line| !line.starts_with("stack:"));
    let without_stack: Vec<&str> = without_stack.collect();
    let usual = room.file("usual.yaml", &without_stack.join("\n"));
    let alone = QUICK.split("twin:").next().unwrap();
    let alone = room.file("alone.yaml", alone);
    let nowhere = room.root.with_file_name("nowhere.yaml");
    for (arguments, why) in [
        (&[&*quick, "--max", "2"][..], "quick.yaml:4:"),
        // two senders and three receivers, unless the file says so
        (&[&*usual, "--max", "4"], "5 nodes are too many"),
        (&["--twin", &*alone], "has no twin"),
        (&[nowhere.to_str().unwrap()], "cannot read"),
        (
            &["no-such-experiment"],
            "no experiment \"no-such-experiment\"",
        ),
        // a good one beside a bad one does not start either
        (&[&*quick, "no-such-experiment"], "no experiment"),
    ] {
        let said = room.refused(arguments).await;
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
}
