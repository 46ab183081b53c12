//! Load, faults, verdicts and experiments on containers: by `lab` on the host, which drives Docker, and by the services
//! `lab` and `lab-docker` of the compose file, where the host has no Rust.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::stack::{Stack, docker};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("unacked-compose-{:08x}", rand::random::<u32>());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a folder for runs");
        Self(folder)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }

    /// What the newest run is on record with.
    fn journal(&self, kind: &str) -> Value {
        let runs = fs::read_dir(self.0.join("runs")).expect("there are runs");
        let journals = runs.filter_map(|run| {
            let text = fs::read(run.ok()?.path().join("journal.json")).ok()?;
            serde_json::from_slice(&text).ok()
        });
        let found = journals.filter(|journal: &Value| journal["audit"]["kind"] == kind);
        found.last().unwrap_or_else(|| panic!("no run of {kind}"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn experiment(name: &str) -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ours = here.join("tests/compose").join(name);
    let path = if ours.exists() {
        ours
    } else {
        here.join("experiments").join(name)
    };
    path.to_str().expect("a path in UTF-8").to_owned()
}

fn text(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{out}{err}")
}

fn state(container: &str) -> String {
    docker(&["inspect", "-f", "{{.State.Status}}", container])
}

/// Runs it and wants this exit code.
fn wants(code: i32, mut command: Command) -> String {
    let begun = Instant::now();
    let output = command.output().expect("it can be started");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{said}");
    println!(
        "{:.1?}: {:?}\n{said}",
        begun.elapsed(),
        command.get_args().collect::<Vec<_>>()
    );
    said
}

impl Stack {
    /// `lab` on the host.
    fn lab(&self, folder: &Folder, arguments: &[&str]) -> Command {
        let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"));
        lab.args(["--lab-dir", folder.path()]).args(arguments);
        lab.arg(format!("--compose={}", self.project));
        lab
    }

    /// A service of the compose file that is `lab`.
    fn inside(&self, folder: &Folder, service: &str, arguments: &[&str]) -> Command {
        let run = ["run", "--rm", "-T", service];
        let mut lab = self.command(&[&run, arguments].concat());
        lab.env("LAB_FOLDER", folder.path());
        lab
    }

    /// The vhosts of the broker.
    fn vhosts(&self) -> String {
        self.compose(&[
            "exec",
            "-T",
            "rabbitmq",
            "rabbitmqctl",
            "-q",
            "--no-table-headers",
            "list_vhosts",
        ])
    }
}

#[tokio::test]
async fn the_host_breaks_and_judges_containers() {
    let stack = Stack::up(&[("WORK_DELAY_MAX_MS", "100")]).await;
    let folder = Folder::new();
    a_killed_container_stays_dead_until_it_is_healed(&stack, &folder);

    let before = stack.containers("receiver").len();
    let [killed, failed, restarted] = [
        "receiver-killed.yaml",
        "failed-work.yaml",
        "broker-restart.yaml",
    ]
    .map(experiment);
    wants(
        0,
        stack.lab(
            &folder,
            &["experiment", "run", &killed, &failed, &restarted],
        ),
    );
    wants(
        0,
        stack.lab(&folder, &["experiment", "run", "--twin", &failed]),
    );
    for (kind, verdict) in [
        ("receiver-killed", "PASS"),
        ("failed-work", "PASS"),
        ("broker-restart", "PASS"),
        ("failed-work (twin)", "FAIL"),
    ] {
        assert_eq!(folder.journal(kind)["audit"]["verdict"], verdict, "{kind}");
    }
    let fault = &folder.journal("receiver-killed")["faults"][0];
    assert!(
        fault["evidence"]
            .as_str()
            .is_some_and(|seen| seen.contains("its socket refuses")),
        "{fault}"
    );
    assert!(fault["recovered_ms"].is_u64(), "{fault}");
    let lost = &folder.journal("failed-work (twin)")["audit"]["classes"]["lost"]["messages"];
    assert!(lost.as_u64().is_some_and(|lost| lost > 0), "{lost}");

    // what was before is there again, and works
    assert_eq!(stack.containers("receiver").len(), before);
    assert_eq!(stack.vhosts(), "/");
    for receiver in stack.containers("receiver") {
        let environment = docker(&["inspect", "-f", "{{json .Config.Env}}", &receiver]);
        assert!(
            environment.contains("WORK_DELAY_MAX_MS=100\""),
            "{environment}"
        );
        assert!(!environment.contains("WITHOUT="), "{environment}");
    }
    wants(
        0,
        stack.lab(&folder, &["load", "--rate", "20", "--for", "2s"]),
    );
    assert!(wants(0, stack.lab(&folder, &["audit"])).starts_with("PASS"));

    let link = folder.0.join("link.yaml");
    let text = fs::read_to_string(&killed).expect("an experiment");
    fs::write(
        &link,
        text.replace("receiver-kill, on: receiver-2", "redis-link-refuse"),
    )
    .expect("a file");
    let link = link.to_str().expect("a path in UTF-8");
    let said = wants(2, stack.lab(&folder, &["experiment", "run", link]));
    assert!(
        said.contains("link.yaml:11:22: redis-link-refuse: containers speak"),
        "{said}"
    );
}

/// Although the compose file has containers restarted.
fn a_killed_container_stays_dead_until_it_is_healed(stack: &Stack, folder: &Folder) {
    let said = wants(
        0,
        stack.lab(folder, &["fault", "inject", "receiver-kill", "--seed", "1"]),
    );
    assert!(
        said.contains("its socket refuses") && said.contains("fault heal receiver-kill-"),
        "{said}"
    );
    let all = stack.compose(&["ps", "-aq", "receiver"]);
    let dead: Vec<&str> = all.lines().filter(|one| state(one) == "exited").collect();
    assert_eq!(dead.len(), 1, "{said}");
    let active = wants(0, stack.lab(folder, &["fault", "active"]));
    assert!(active.contains(": seen: "), "{active}");
    // nothing begins on a stack that is broken
    let file = experiment("receiver-killed.yaml");
    let said = wants(2, stack.lab(folder, &["experiment", "run", &file]));
    assert!(
        said.contains("is still active") && said.contains("fault heal --all"),
        "{said}"
    );
    let said = wants(0, stack.lab(folder, &["fault", "heal", "--all"]));
    assert!(said.contains("healed: "), "{said}");
    assert_eq!(state(dead[0]), "running");

    // what was done to a container is over with it
    let kill = ["fault", "inject", "receiver-kill"];
    wants(0, stack.lab(folder, &kill));
    let scale = format!("--scale=receiver={}", all.lines().count());
    let anew = ["up", "--detach", "--wait", "--no-build", "--no-deps"];
    let anew = [&anew[..], &["--force-recreate", &scale, "receiver"]].concat();
    stack.compose(&anew);
    let said = wants(0, stack.lab(folder, &["fault", "heal", "--all"]));
    assert!(said.contains("is no more: "), "{said}");
    let said = wants(0, stack.lab(folder, &["fault", "heal", "--all"]));
    assert!(said.contains("no fault is active"), "{said}");
}

#[tokio::test]
async fn without_rust_on_the_host_the_services_do_it() {
    let stack = Stack::up(&[("WORK_DELAY_MAX_MS", "100")]).await;
    let folder = Folder::new();
    let begun = Instant::now();
    stack.compose(&["build", "--build-arg", "PROFILE=dev", "lab", "lab-docker"]);
    println!("images of the lab built in {:.1?}", begun.elapsed());

    let load = ["load", "--rate", "20", "--for", "3s", "--run", "inside"];
    let said = wants(0, stack.inside(&folder, "lab", &load));
    assert!(
        said.contains("docker compose -f docker/docker-compose.yml run --rm lab audit"),
        "{said}"
    );
    let said = wants(0, stack.inside(&folder, "lab", &["audit"]));
    assert!(said.starts_with("PASS"), "{said}");
    // the host's folder has it, and it is its owner's
    assert!(folder.0.join("runs/inside/requests.log").is_file());

    let limit = ["fault", "inject", "queue-limit", "--for", "1s"];
    let said = wants(0, stack.inside(&folder, "lab", &limit));
    assert!(
        said.contains("has a maximum length") && said.contains("healed"),
        "{said}"
    );
    let said = wants(
        2,
        stack.inside(&folder, "lab", &["fault", "inject", "receiver-kill"]),
    );
    assert!(said.contains("only Docker can do it"), "{said}");

    fs::copy(
        experiment("failed-work.yaml"),
        folder.0.join("failed-work.yaml"),
    )
    .expect("a copy");
    let run = ["experiment", "run", "failed-work.yaml"];
    let said = wants(2, stack.inside(&folder, "lab", &run));
    assert!(
        said.contains("failed-work.yaml:9:3: ")
            && said.contains("--scale sender=1 --scale receiver=2"),
        "{said}"
    );
    stack.scale(1, 2).await;
    wants(0, stack.inside(&folder, "lab", &run));
    let journal = folder.journal("failed-work");
    assert_eq!(journal["audit"]["verdict"], "PASS");
    assert!(
        journal["audit"]["figures"]["failures"].as_u64() > Some(0),
        "{}",
        journal["audit"]["figures"]
    );
    // the work is as it was
    for receiver in stack.containers("receiver") {
        let ask = "exec 3<>/dev/tcp/127.0.0.1/9082; printf 'GET /ops/knobs HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
        let knobs = docker(&["exec", &receiver, "bash", "-c", ask]);
        assert!(knobs.contains("\"delay_max_ms\":100,"), "{knobs}");
    }

    let kill = ["fault", "inject", "receiver-kill", "--for", "1s"];
    let said = wants(0, stack.inside(&folder, "lab-docker", &kill));
    assert!(
        said.contains("its socket refuses") && said.contains("healed"),
        "{said}"
    );
    stack.processed("inside", 60, Duration::from_mins(1)).await;
}
