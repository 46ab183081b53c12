//! Files that are wrong, each in one place, and what is said of them.

use super::*;

const HEAD: &str = "title: t\nlearn: l\nload: { rate: 10/s, for: 20s }\n";

fn parse(text: &str) -> Result<Experiment, String> {
    Experiment::parse("dir/some-name.yaml", text, 5).map_err(|wrong| wrong.0)
}

/// Line 4 on.
fn with(rest: &str) -> Result<Experiment, String> {
    parse(&format!("{HEAD}{rest}"))
}

fn time(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_small_file_is_enough_and_what_it_does_not_say_is_usual() {
    let one = with("").unwrap();
    assert_eq!(
        (one.name.as_str(), one.fast, one.proves),
        ("some-name", false, None)
    );
    assert_eq!(one.twin, None);
    let safe = one.safe;
    assert_eq!(
        safe.nodes,
        BTreeMap::from([(Service::Sender, 2), (Service::Receiver, 3)])
    );
    assert_eq!(safe.settings, settings::usual(&Service::MAIN));
    assert_eq!(
        (safe.expect.verdict, safe.expect.dead_max),
        (Verdict::Pass, 0)
    );
    assert_eq!(
        (safe.harm, safe.recovery),
        (Harm::Faults(Vec::new()), RECOVERY)
    );
}

#[test]
fn a_twin_is_the_same_but_for_what_it_says() {
    let one = with(
        "stack: { sender: 1, receiver: 1, settings: { PREFETCH: 7, HEARTBEAT_SECS: 2 } }\n\
         faults: [{ at: 1s, fault: receiver-kill, for: 2s }]\n\
         expect: { figures: { redelivered: \"< 3\", refused: \"<= 0\" } }\n\
         twin:\n  without: [inbox]\n  settings: { PREFETCH: 9 }\n  load: { rate: 20/s }\n  recovery: 30s\n  \
         expect: { verdict: fail, figure: redelivered }\n",
    )
    .unwrap();
    let (safe, twin) = (one.safe, one.twin.unwrap());
    assert_eq!(safe.without, Without::default());
    assert_eq!(twin.without.to_string(), "inbox");
    assert_eq!(
        (&*safe.named["PREFETCH"], &*twin.named["PREFETCH"]),
        ("7", "9")
    );
    assert_eq!(twin.named["HEARTBEAT_SECS"], "2");
    assert_eq!((&twin.nodes, &twin.harm), (&safe.nodes, &safe.harm));
    assert_eq!(twin.load.length, Some(time(20)));
    assert_ne!(twin.load.rate, safe.load.rate);
    assert_eq!((safe.recovery, twin.recovery), (RECOVERY, time(30)));
    assert_eq!(twin.expect.figure, Some(Figure::Redelivered));
    assert_eq!(twin.expect.limits, safe.expect.limits);
}

#[test]
fn what_is_wrong_is_named_with_its_place_in_one_line() {
    for (rest, said) in [
        // fields and their kinds
        ("colour: red\n", "4:1: "),
        ("stack: { senders: 2 }\n", "4:10: "),
        ("fast: perhaps\n", "4:7: "),
        (
            "proves: twelve\n",
            "4:9: \"twelve\" is not right: a whole number from 1 to 99",
        ),
        // nodes
        (
            "stack: { sender: 0 }\n",
            "4:18: \"0\" is not right: a whole number from 1",
        ),
        (
            "stack: { sender: 3, receiver: 3 }\n",
            "4:8: 6 nodes are too many; at most 5 (--max)",
        ),
        // guarantees and settings
        (
            "stack: { without: [index] }\n",
            "4:20: \"index\" is not a guarantee",
        ),
        (
            "stack: { settings: { PREFECTH: 3 } }\n",
            "4:22: there is no setting PREFECTH",
        ),
        (
            "stack: { settings: { NODE_NAME: x } }\n",
            "4:22: there is no setting NODE_NAME",
        ),
        ("stack: { settings: { PREFETCH: 0 } }\n", "4:32: "),
        ("stack: { without: [persistence] }\n", "4:20: "),
        // faults
        (
            "faults: [{ at: 1s, fault: receiver-kil, for: 1s }]\n",
            "4:27: there is no fault receiver-kil",
        ),
        (
            "faults: [{ at: 1, fault: receiver-kill, for: 1s }]\n",
            "4:16: ",
        ),
        (
            "faults: [{ at: 21s, fault: receiver-kill, for: 1s }]\n",
            "4:16: the load is over by then",
        ),
        (
            "faults: [{ at: 1s, fault: receiver-kill }]\n",
            "4:27: receiver-kill lasts until it is healed",
        ),
        (
            "faults: [{ at: 1s, fault: redis-restart, for: 1s }]\n",
            "4:47: redis-restart is over as soon as it is done",
        ),
        (
            "faults: [{ at: 1s, fault: receiver-kill, on: sender-1, for: 1s }]\n",
            "4:46: there is no sender-1 to strike",
        ),
        (
            "faults: [{ at: 1s, fault: receiver-kill, on: receiver-4, for: 1s }]\n",
            "4:46: there is no receiver-4 to strike",
        ),
        (
            "faults: [{ at: 1s, fault: redis-kill, on: receiver-1, for: 1s }]\n",
            "4:43: redis-kill strikes no node",
        ),
        (
            "faults: [{ at: 1s, fault: queue-limit, set: { max-length: many }, for: 1s }]\n",
            "4:59: ",
        ),
        (
            "faults: [{ at: 1s, fault: fail-point, set: { point: nowhere }, for: 1s }]\n",
            "4:53: ",
        ),
        (
            "faults:\n  - { at: 1s, fault: redis-kill, for: 5s }\n  - { at: 6s, fault: redis-kill, for: 1s }\n",
            "6:11: redis-kill is active at that time already",
        ),
        // storms
        (
            "storm: { for: 21s, faults: [redis-kill] }\n",
            "4:15: the storm is longer than the load",
        ),
        (
            "storm: { for: 20s, faults: [] }\n",
            "4:28: a storm needs faults",
        ),
        (
            "storm: { for: 20s, faults: [redis-kill, redis-kill] }\n",
            "4:41: redis-kill stands here twice",
        ),
        (
            "storm: { for: 20s, hold: 3s..2s, faults: [redis-kill] }\n",
            "4:26: 3s..2s: the first time is longer",
        ),
        (
            "storm: { for: 5s, hold: 9s, faults: [redis-kill] }\n",
            "4:37: 1 kinds of faults have no room",
        ),
        (
            "faults: []\nstorm: { for: 5s, faults: [redis-kill] }\n",
            "5:8: there are faults already",
        ),
        // expectations
        (
            "expect: { verdict: maybe }\n",
            "4:20: \"maybe\" is no verdict",
        ),
        (
            "expect: { verdict: fail, class: lost }\n",
            "4:9: only the twin is expected to fail",
        ),
        (
            "expect: { figures: { speed: \"< 1\" } }\n",
            "4:22: there is no figure \"speed\"",
        ),
        (
            "expect: { figures: { recovery: \"< 1\" } }\n",
            "4:32: recovery is \"< 1\"; right is something like",
        ),
        // twins
        (
            "twin: { expect: { verdict: fail, class: lost } }\n",
            "4:7: the twin does not differ",
        ),
        (
            "twin: { without: [inbox], expect: { verdict: pass } }\n",
            "4:35: a twin is expected to fail, and by what",
        ),
        (
            "twin: { without: [inbox], expect: { class: ok } }\n",
            "4:44: \"ok\" is no class that fails",
        ),
        (
            "twin: { without: [inbox], expect: { figure: recovery } }\n",
            "4:45: nothing limits recovery",
        ),
    ] {
        let wrong = with(rest).expect_err(rest);
        let place = format!("dir/some-name.yaml:{said}");
        assert!(
            wrong.starts_with(&place),
            "{rest}\nwanted {place}\nfound  {wrong}"
        );
        assert!(!wrong.contains('\n'), "{wrong}");
    }
}

#[test]
fn a_load_says_how_much_and_how_long() {
    for (load, said) in [
        ("{ for: 5s }", "3:7: the load says no `rate`"),
        ("{ rate: 5/s }", "3:7: the load says no `for`"),
        ("{ rate: 5, for: 5s }", "3:15: \"5\" is no rate"),
        ("{ rate: 5/s, for: 5 }", "3:25: "),
        ("{ rate: 5/s, for: 5s, size: 3 }", "3:35: \"3\" is no size"),
        (
            "{ rate: 5/s, for: 5s, poison: 26 }",
            "3:7: poison 26: there are 25 requests only",
        ),
    ] {
        let wrong = parse(&format!("title: t\nlearn: l\nload: {load}\n")).unwrap_err();
        let place = format!("dir/some-name.yaml:{said}");
        assert!(
            wrong.starts_with(&place),
            "{load}\nwanted {place}\nfound  {wrong}"
        );
    }
    let wrong = parse("title: ' '\nlearn: l\nload: { rate: 1/s, for: 5s }\n").unwrap_err();
    assert_eq!(wrong, "dir/some-name.yaml:1:8: some words are needed here");
}
