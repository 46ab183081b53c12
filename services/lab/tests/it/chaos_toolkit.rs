//! The real Chaos Toolkit runs the example under `docs/` against a real lab.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tokio::process::Command;

use crate::served::Served;

struct Run {
    output: Output,
    /// What the toolkit wrote down.
    journal: Value,
}

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
}

async fn chaos(program: &Path, lab: &Served, experiment: &str, twin: &str) -> Run {
    let journal = lab.root.join("chaos.json");
    let _ = fs::remove_file(&journal);
    let output = Command::new(program)
        .args(["--no-version-check", "run", "--journal-path"])
        .arg(&journal)
        .arg(checkout().join("docs/chaos-toolkit/experiment.yaml"))
        .current_dir(&lab.root)
        .env("LAB_URL", &lab.url)
        .env("LAB_EXPERIMENT", experiment)
        .env("LAB_TWIN", twin)
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .await
        .unwrap();
    let journal = fs::read(&journal).unwrap_or_else(|_| panic!("no journal: {output:?}"));
    Run {
        output,
        journal: serde_json::from_slice(&journal).unwrap(),
    }
}

#[tokio::test]
async fn the_example_completes_with_a_pass_and_deviates_with_a_fail() {
    let program = lab::test::chaos_toolkit::ensure(checkout()).await.unwrap();
    let lab = Served::start().await;

    let safe = chaos(&program, &lab, "quick", "false").await;
    assert_eq!(safe.output.status.code(), Some(0), "{:?}", safe.output);
    assert_eq!(safe.journal["status"], "completed");
    assert_eq!(safe.journal["deviated"], false);
    let run = &safe.journal["run"];
    assert_eq!(run[0]["output"]["status"], 202, "{run}");
    assert_eq!(run[1]["output"]["body"]["verdict"], "PASS", "{run}");
    assert_eq!(
        safe.journal["rollbacks"][0]["output"]["body"]["state"],
        "done"
    );

    let twin = chaos(&program, &lab, "quick", "true").await;
    assert_eq!(twin.output.status.code(), Some(1), "{:?}", twin.output);
    assert_eq!(twin.journal["deviated"], true);
    let body = &twin.journal["run"][1]["output"]["body"];
    assert_eq!(
        (&body["verdict"], &body["twin"]),
        (&"FAIL".into(), &true.into()),
        "{body}"
    );
    assert_eq!(body["outcome"], "AsExpected", "{body}");

    // what could not even be started is not taken for a success
    let none = chaos(&program, &lab, "nobody", "false").await;
    assert_eq!(none.output.status.code(), Some(1), "{:?}", none.output);
    assert_eq!(none.journal["deviated"], true);

    assert_eq!(lab.end().await, Some(0));
}

#[test]
fn the_example_names_an_experiment_that_there_is() {
    let example =
        fs::read_to_string(checkout().join("docs/chaos-toolkit/experiment.yaml")).unwrap();
    let named = example
        .split("key: LAB_EXPERIMENT, default: ")
        .nth(1)
        .unwrap();
    let named = named.split(' ').next().unwrap();
    let file = checkout().join(format!("services/lab/experiments/{named}.yaml"));
    assert!(file.is_file(), "{}", file.display());
}
