//! `lab dead` dies in the middle of a redrive: nothing is lost and nothing is done twice, and afterwards it says how it stands.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::{Process, wait_until};
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::{
    redrive::{
        EFFECTS, MESSAGES, PARKED, TOKEN, WAITING, counts, ended, have_effects, parked, receiver,
        start,
    },
    up::{folder, said},
    world::{World, lab},
};

const LIMIT: Duration = Duration::from_mins(1);
const REDRIVEN: &str = "select coalesce(sum(redriven), 0) from receiver.redrive";

/// The command on a stack that consists of one receiver, in a folder of its own.
struct Dead {
    root: PathBuf,
    gateway: String,
    ledger: String,
}

impl Dead {
    fn on(world: &World, receiver: &Process) -> Self {
        Self {
            root: folder(),
            gateway: receiver.url(),
            ledger: world.database.auditor_url.clone(),
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(lab());
        command.arg("--lab-dir").arg(&self.root).arg("dead");
        command.args(arguments).args(["--gateway", &self.gateway]);
        command.env("LAB_AUDITOR_URL", &self.ledger);
        command.env("REDRIVE_TOKEN", TOKEN).kill_on_drop(true);
        command
    }

    /// Its exit code, and all that it said.
    async fn says(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = self.command(arguments);
        let output = command.stdin(Stdio::null()).output().await.unwrap();
        (output.status.code(), said(&output))
    }

    /// One that goes on, with nobody who answers it.
    fn begins(&self, arguments: &[&str]) -> Going {
        let output = self.root.with_extension("said");
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped());
        let child = command.stdout(File::create(&output).unwrap()).spawn();
        Going {
            child: child.unwrap(),
            output,
        }
    }
}

struct Going {
    child: Child,
    output: PathBuf,
}

impl Going {
    async fn ends_by(mut self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
        let status = self.child.wait().await.unwrap();
        assert!(!status.success(), "{status}");
        fs::remove_file(&self.output).unwrap();
    }
}

/// The one order that there is.
async fn order(world: &World) -> Uuid {
    let id = sqlx::query_scalar("select redrive_id from receiver.redrive");
    id.fetch_one(&world.database.admin).await.unwrap()
}

/// 400 dead letters, 100 of them with an effect, and a redrive of all of them that has lost its command.
async fn abandoned(world: &World, dead: &Dead, signal: Signal) -> String {
    let ids = parked(world, 400, "x").await;
    have_effects(world, &ids[..100]).await;
    let going = dead.begins(&["redrive", "--all", "--yes", "--rate", "20"]);
    wait_until("some to be sent back", LIMIT, async || {
        world.count(REDRIVEN).await >= 20
    })
    .await;
    going.ends_by(signal).await;
    let id = order(world).await.to_string();
    let running = "select count(*) from receiver.redrive where state = 'running'";
    assert_eq!(world.count(running).await, 1, "it was in the middle");
    let (code, text) = dead.says(&["list"]).await;
    assert_eq!(code, Some(0), "{text}");
    let stands = format!("redrive {id}  running: ");
    assert!(
        text.contains(&stands) && text.contains(" of 400 sent back, "),
        "{text}"
    );
    id
}

#[tokio::test]
async fn a_redrive_whose_command_is_killed_goes_on_and_loses_and_doubles_nothing() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    let dead = Dead::on(&world, &receiver);
    let id = abandoned(&world, &dead, Signal::SIGKILL).await;
    ended(&receiver, &id).await;
    counts(&world, MESSAGES, 400).await;
    counts(&world, WAITING, 0).await;
    assert_eq!(world.count(EFFECTS).await, 400);
    assert_eq!(world.count(PARKED).await, 0);
    let (code, text) = dead.says(&["show", &id]).await;
    assert_eq!(code, Some(0), "{text}");
    let right = [
        "400 selected: 100 already have an effect",
        "done: 300 of 400 sent back, 100 had their effect, 0 left",
        "300 processed, 0 parked again, 0 on their way",
    ];
    assert!(right.iter().all(|line| text.contains(line)), "{text}");
}

#[tokio::test]
async fn a_redrive_whose_command_is_interrupted_goes_on_until_it_is_cancelled() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    let dead = Dead::on(&world, &receiver);
    let id = abandoned(&world, &dead, Signal::SIGINT).await;
    let (code, text) = dead.says(&["redrive", "--cancel", &id]).await;
    assert_eq!(code, Some(0), "{text}");
    let redriven = world.count(REDRIVEN).await;
    let decided = world
        .count("select redriven + has_effect + gone from receiver.redrive")
        .await;
    assert!((20..400).contains(&decided), "{decided}");
    let left = 400 - decided;
    let right = format!("cancelled: {redriven} of 400 sent back, ");
    assert!(text.contains(&right), "{text}");
    assert!(text.contains(&format!(", {left} left")), "{text}");
    assert_eq!(world.count(PARKED).await, left);
    counts(&world, EFFECTS, 100 + redriven).await;
    counts(&world, WAITING, 0).await;
    assert_eq!(world.count(MESSAGES).await, 100 + redriven);
    let (_, text) = dead.says(&["list"]).await;
    assert!(text.contains(&format!("redrive {id}  {right}")), "{text}");
}

#[tokio::test]
async fn a_command_that_dies_at_its_question_leaves_a_plan_and_nothing_else() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    let dead = Dead::on(&world, &receiver);
    parked(&world, 50, "x").await;
    let asking = dead.begins(&["redrive", "--all"]);
    wait_until("it to ask", LIMIT, async || {
        let said = fs::read_to_string(&asking.output).unwrap();
        said.contains("Send them back?")
    })
    .await;
    asking.ends_by(Signal::SIGKILL).await;
    let planned = order(&world).await.to_string();
    let (_, text) = dead.says(&["list"]).await;
    let right = format!("redrive {planned}  planned: 0 of 50 sent back, ");
    assert!(
        text.contains(&right) && text.contains(", 50 left"),
        "{text}"
    );
    assert_eq!(world.count(PARKED).await, 50);
    assert_eq!(world.count(WAITING).await, 0);

    // the next command sends them back; what was planned finds nothing left to do
    let (code, text) = dead
        .says(&["redrive", "--all", "--yes", "--rate", "1000"])
        .await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("done: 50 of 50 sent back"), "{text}");
    assert!(text.contains("of no run"), "{text}");
    start(&receiver, &planned).await;
    let late = ended(&receiver, &planned).await;
    assert_eq!((&late["redriven"], &late["gone"]), (&0.into(), &50.into()));
    counts(&world, EFFECTS, 50).await;
    counts(&world, WAITING, 0).await;
    assert_eq!(world.count(MESSAGES).await, 50);
}

#[tokio::test]
async fn what_is_not_parked_or_not_there_is_said_and_nothing_is_done_nor_left() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    let dead = Dead::on(&world, &receiver);
    let ids = parked(&world, 2, "x").await;
    let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    let (kept, gone) = (&*ids[0], &*ids[1]);
    let (confirm, one) = ("--confirm", "discard 1");
    let (code, text) = dead.says(&["discard", gone, confirm, one]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("1 discarded"), "{text}");

    let unknown = "00000000-0000-7000-8000-000000000000";
    let none = format!("There is no dead letter of message {unknown}");
    let decided = format!("The dead letter of message {gone} was discarded already at ");
    let (cancel, fits) = ("--cancel", "1 dead letter fits, and that is not");
    let cases: [(&[&str], &str); 11] = [
        (&["redrive", unknown, "--yes"], &none),
        (&["redrive", kept, unknown, "--yes"], &none),
        (&["redrive", gone, "--dry-run"], &decided),
        (&["discard", unknown, confirm, "discard 0"], &none),
        (&["discard", gone, confirm, one], &decided),
        (&["discard", "--all", confirm, "discard 2"], fits),
        (&["discard", "--run", "r", confirm, "discard 0"], "No dead"),
        (&["redrive", cancel, unknown], "there is no redrive"),
        (&["redrive", cancel, "abc"], "an id of a redrive is wanted"),
        (&["list", "abc"], "an id of a message is wanted"),
        (&["show", "abc"], "an id of a message or of a redrive"),
    ];
    for (arguments, right) in cases {
        let (code, text) = dead.says(arguments).await;
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
        assert!(text.contains(right), "{arguments:?}: {text}");
    }
    // that a filter fits nothing is no mistake
    let (code, text) = dead.says(&["redrive", "--run", "r", "--yes"]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("No dead letter fits"), "{text}");
    let orders = "select count(*) from receiver.redrive";
    assert_eq!(world.count(orders).await, 0);
    assert_eq!(world.count(PARKED).await, 1);

    // nobody answers
    let (code, text) = dead.says(&["redrive", "--all"]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("Nothing was sent back."), "{text}");
    let (_, text) = dead.says(&["list"]).await;
    let right = "given up before it began: nothing of 1 was sent back";
    assert!(text.contains(right), "{text}");
    assert_eq!(world.count(PARKED).await, 1);
}

/// Whoever sends messages may name their run as no run of the lab is named.
#[tokio::test]
async fn a_run_of_others_has_no_record_to_be_audited_by() {
    let world = World::new().await;
    let receiver = receiver(&world, "receiver-1").await;
    let dead = Dead::on(&world, &receiver);
    parked(&world, 1, "x").await;
    let named = sqlx::query("update receiver.dead_letter set run = 'runP'");
    named.execute(&world.database.admin).await.unwrap();
    let (code, text) = dead.says(&["redrive", "--run", "runP", "--yes"]).await;
    assert_eq!(code, Some(3), "{text}");
    let right = "Audit of run runP:\nINCONCLUSIVE: its load has no record here";
    assert!(text.contains(right), "{text}");
}
