//! `lab matrix`: a small real part of it, what it refuses, and what it leaves when it is interrupted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use lab::matrix::result::Matrix;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::wait_until;
use tokio::process::Command;

use crate::world::lab;

const LIMIT: Duration = Duration::from_mins(3);

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("lab-matrix-{:016x}", rand::random::<u64>());
        Self(std::env::temp_dir().join(name))
    }

    fn matrix(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(lab());
        command
            .arg("--lab-dir")
            .arg(self.0.join("lab"))
            .arg("matrix")
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn output(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output: Output = self.matrix(arguments).output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Processes whose command line or environment names this folder.
fn of(folder: &Path) -> Vec<String> {
    let name = folder.display().to_string();
    let all = fs::read_dir("/proc").unwrap().flatten();
    let ours = all.filter(|entry| {
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let said = [read("cmdline"), read("environ")].concat();
        String::from_utf8_lossy(&said).contains(&name)
    });
    ours.map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[tokio::test]
async fn a_fault_passes_with_all_guarantees_and_fails_without_the_one_that_it_needs() {
    let folder = Folder::new();
    fs::create_dir_all(&folder.0).unwrap();
    let (json, picture) = (folder.path("matrix.json"), folder.path("matrix.svg"));
    let part = [
        "--only=receiver-dies-late",
        "--without=none,inbox",
        "--seed=3",
        "--json",
    ];
    let (code, out, told) = folder.output(&part).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("[  2/2]"), "{told}");
    let matrix: Matrix = serde_json::from_str(&out).unwrap();
    let (safe, damaged) = (&matrix.cells[0], &matrix.cells[1]);
    assert_eq!((&*safe.without, &*damaged.without), ("none", "inbox"));
    assert_eq!(safe.describe(), "PASS", "{safe:?}");
    assert_eq!(damaged.damage, ["duplicated"], "{damaged:?}");
    assert!(damaged.duplicated > 0 && damaged.lost == 0, "{damaged:?}");
    assert_eq!((matrix.seed, matrix.exit_code()), (3, 0));
    assert!(matrix.rabbitmq.is_some());
    assert_eq!(of(&folder.0), [""; 0], "nothing runs any more");

    // the same once more from the file, and once with a cell that is not as predicted
    fs::write(&json, &out).unwrap();
    let (code, out, _) = folder
        .output(&["--from", &json, "--picture", &picture])
        .await;
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("2 of 2 cells as predicted"), "{out}");
    assert!(fs::read_to_string(&picture).unwrap().contains("<svg"));
    let mut wrong = matrix;
    wrong.cells[1].damage = vec!["lost".to_owned()];
    wrong.cells[1].as_predicted = false;
    fs::write(&json, serde_json::to_string(&wrong).unwrap()).unwrap();
    let (code, out, _) = folder.output(&["--from", &json]).await;
    assert_eq!(code, Some(1), "{out}");
    let named = "receiver-dies-late, off: inbox: predicted duplicated, found FAIL: lost 0";
    assert!(out.contains(named), "{out}");
}

#[tokio::test]
async fn an_interrupted_matrix_heals_and_stops_everything() {
    let folder = Folder::new();
    fs::create_dir_all(&folder.0).unwrap();
    let child = folder
        .matrix(&["--only=receiver-absent", "--without=none"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let active = folder.0.join("lab/experiments/faults");
    wait_until("a fault to be active", LIMIT, async || {
        fs::read_dir(&active).is_ok_and(|files| files.count() > 0)
    })
    .await;
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap());
    kill(pid, Signal::SIGINT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(
        said.contains("Interrupted in receiver-absent with all guarantees"),
        "{said}"
    );
    assert!(said.contains("receiver-terminate"), "{said}");
    assert_eq!(fs::read_dir(&active).unwrap().count(), 0, "{said}");
    assert_eq!(of(&folder.0), [""; 0], "{said}");
}

#[tokio::test]
async fn what_cannot_be_done_is_said_before_anything_starts() {
    let folder = Folder::new();
    for (arguments, why) in [
        (
            &["--only=rain"][..],
            "there is no fault in the matrix \"rain\"; there are: ",
        ),
        (
            &["--without=drain"],
            "there is no column in the matrix \"drain\"; ",
        ),
        (
            &["--picture=/no/such/folder/x.svg"],
            "there is no folder /no/such/folder",
        ),
        (&["--from=/no/such/file"], "cannot read /no/such/file: "),
        (
            &["--from=/dev/null"],
            "/dev/null is not what `lab matrix --json` prints",
        ),
    ] {
        let (code, _, said) = folder.output(arguments).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(why), "{why}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(!folder.0.exists(), "{said}");
    }
}
