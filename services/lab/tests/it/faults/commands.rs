//! `lab fault`, as people use it.

use std::path::Path;

use lab::stack::{clear_up, dir, postgres};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testkit::wait_until;
use tokio::process::Command;

use super::up::{Up, said, signal};
use super::{LIMIT, folder};
use crate::world::lab;

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_healed_whoever_dies_meanwhile_and_what_cannot_be_done_is_one_line() {
    let root = folder();
    let mut up = Up::start(&root, false).await;
    for (arguments, why) in [
        (
            &["inject", "receiver-kil"][..],
            "there is no fault receiver-kil",
        ),
        (
            &["inject", "receiver-kill", "--on", "nobody"],
            "there is no receiver nobody",
        ),
        (&["inject", "redis-kill", "--set", "x=1"], "no argument x"),
        (&["inject", "redis-kill", "--on", "a"], "cannot be on a"),
        (&["inject", "redis-link-cut"], "lab up --faults"),
        (&["heal", "nothing-1"], "no fault nothing-1 is active"),
    ] {
        let said = up.refused(arguments).await;
        assert!(said.contains(why), "{said}");
    }
    let list = said(&up.fault(&["list"]).await);
    assert!(list.contains("this stack has no proxies"), "{list}");
    assert_eq!(
        said(&up.fault(&["heal", "--all"]).await).trim(),
        "no fault is active"
    );

    load_asks_first(&up).await;

    // the command is told to end, and then another is killed
    for how in [Signal::SIGINT, Signal::SIGKILL] {
        let child = up
            .command(&["inject", "receiver-pause", "--for", "10m"])
            .spawn()
            .unwrap();
        wait_until("the pause to be seen", LIMIT, async || {
            let active = up.active().await;
            // by the command itself, which says so at once
            active.iter().any(|one| one["seen"].is_string())
        })
        .await;
        signal(child.id().unwrap(), how);
        let output = child.wait_with_output().await.unwrap();
        if how == Signal::SIGINT {
            let said = said(&output);
            assert!(
                said.contains("injected") && said.contains("seen: "),
                "{said}"
            );
            assert!(said.contains("healed: "), "{said}");
        }
        wait_until("nothing to be active", LIMIT, async || {
            let active = up.active().await;
            if active.is_empty() {
                Ok(())
            } else {
                Err(active)
            }
        })
        .await;
    }

    // one that ends with the programs, one in the broker's data, one that is stopped
    for fault in ["receiver-kill", "queue-limit", "sender-pause"] {
        let injected = said(&up.fault(&["inject", fault]).await);
        assert!(
            injected.contains("seen: ") && injected.contains("` heals it"),
            "{injected}"
        );
    }
    assert_eq!(up.active().await.len(), 3);
    up.child.kill().await.unwrap();
    let refused = up.refused(&["inject", "redis-kill"]).await;
    assert!(refused.contains("was killed"), "{refused}");
    let healed = said(&up.fault(&["heal", "--all"]).await);
    assert_eq!(healed.lines().count(), 3, "{healed}");
    assert!(
        healed.contains("queue-limit on queue messages: in the broker's data"),
        "{healed}"
    );
    assert_eq!(notes(&root), 1);
    drop(up);

    let up = Up::start(&root, true).await;
    assert!(
        up.said()
            .contains("the fault queue-limit on queue messages is over"),
        "{}",
        up.said()
    );
    assert_eq!(notes(&root), 0);
    let list = said(&up.fault(&["list"]).await);
    assert!(!list.contains("[needs"), "{list}");
    let injected = said(
        &up.fault(&["inject", "redis-link-silent", "--for", "1s", "--on", "all"])
            .await,
    );
    assert!(
        injected.contains("no answer through the proxy"),
        "{injected}"
    );
    assert!(injected.contains("healed: "), "{injected}");
    // a stack that ends leaves nothing
    said(&up.fault(&["inject", "queue-limit"]).await);
    let mut up = up;
    signal(up.child.id().unwrap(), Signal::SIGINT);
    assert!(up.child.wait().await.unwrap().success());
    assert_eq!(notes(&root), 0);
    assert!(dir::holder(&root).is_none());
    assert_eq!(clear_up(&root.canonicalize().unwrap()).await, 0);
    let _ = std::fs::remove_dir_all(postgres::outside(&root.canonicalize().unwrap()));
    std::fs::remove_dir_all(&root).unwrap();
    std::fs::remove_file(&up.log).unwrap();
    let refused = up.refused(&["inject", "redis-kill"]).await;
    assert!(refused.contains("no stack runs"), "{refused}");
}

/// A load on a stack that is broken is refused, unless that is meant; its table knows what came of it.
async fn load_asks_first(up: &Up) {
    let load = async |arguments: &[&str]| {
        let mut command = Command::new(lab());
        command.arg("--lab-dir").arg(&up.root).arg("load");
        command.args(["--total", "20", "--rate", "100"]);
        command.args(arguments).output().await.unwrap()
    };
    let slow = ["--set", "delay-min=1ms", "--set", "delay-max=5ms"];
    said(
        &up.fault(&[&["inject", "work-slow"], &slow[..]].concat())
            .await,
    );
    let refused = load(&[]).await;
    let why = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{why}");
    assert!(
        why.lines().count() == 1 && why.contains("work-slow on "),
        "{why}"
    );
    assert!(
        why.contains("fault heal --all") && why.contains("--despite-faults"),
        "{why}"
    );
    assert!(!up.root.join("runs").exists() && refused.stdout.is_empty());

    let table = said(&load(&["--despite-faults"]).await);
    assert!(table.contains("\naccepted to processed "), "{table}");
    let figures = said(&load(&["--despite-faults", "--json"]).await);
    let figures: Value = serde_json::from_str(&figures).unwrap();
    assert_eq!(figures["accepted"], 20);
    assert_eq!(
        (&figures["stored"], &figures["on_their_way"]),
        (&json!(20), &json!(0))
    );
    let times = ["p50", "p90", "p99", "p99_9", "max"];
    let times = times.map(|name| figures["processed_us"][name].as_u64().unwrap());
    assert!(times[0] > 0 && times.is_sorted(), "{figures}");
    said(&up.fault(&["heal", "--all"]).await);
}

/// How many faults are noted as active.
fn notes(root: &Path) -> usize {
    std::fs::read_dir(root.join("faults")).map_or(0, Iterator::count)
}
