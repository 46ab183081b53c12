//! `lab bench --short`: every scenario works, and what it writes is complete. No figure means anything here.

use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::process::Command;

use crate::world::lab;

/// Goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("lab-bench-{:016x}", rand::random::<u64>());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    async fn bench(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(lab());
        command.arg("--lab-dir").arg(&self.0).arg("bench");
        let command = command.args(arguments).stdin(Stdio::null());
        command.current_dir(&self.0).output().await.unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn the_short_form_measures_every_scenario() {
    let folder = Folder::new();
    let output = folder
        .bench(&["--short", "--yes", "--json", "-", "--write", "page.md"])
        .await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["failures"], Value::Array(Vec::new()), "{told}");

    let figures = json["figures"].as_array().unwrap();
    for scenario in [
        "client",
        "raw",
        "commit",
        "accept",
        "page",
        "drain",
        "pipeline",
        "live",
        "mission",
        "growth",
        "search",
        "leases",
        "footprint",
    ] {
        let of: Vec<&Value> = figures
            .iter()
            .filter(|figure| figure["scenario"] == scenario)
            .collect();
        assert!(!of.is_empty(), "{scenario}: {told}");
        let measured = |figure: &&Value| figure["median"].as_f64().is_some_and(|value| value > 0.0);
        assert!(of.iter().any(measured), "{scenario}: {of:?}");
    }
    for ratio in [
        "pipeline/raw",
        "pipeline-arrays/raw",
        "drain/raw-consume",
        "drain-most/drain",
        "accept/commit",
        "accept/commit-500",
        "accept-alone-p50/commit-p50",
        "watched/unwatched",
        "announcing/silent",
        "mission/theory",
        "client/pipeline",
        "growth-accept",
        "growth-audit",
        "growth-sessions",
        "growth-lease",
        "passed-lease",
        "search-far",
    ] {
        let value = json["ratios"][ratio].as_f64();
        assert!(value.is_some_and(|value| value > 0.0), "{ratio}: {told}");
    }
    let budget = &json["cpu_us"]["pipeline, one message a request: highest rate held"];
    for process in ["sender", "receiver", "postgres", "rabbitmq", "gateway"] {
        assert!(budget[process].is_number(), "{process}: {budget}");
    }
    let used: f64 = budget
        .as_object()
        .unwrap()
        .values()
        .filter_map(Value::as_f64)
        .sum();
    assert!(used > 0.0, "{budget}");

    let page = fs::read_to_string(folder.0.join("page.md")).unwrap();
    for part in [
        "# Benchmarks",
        "RabbitMQ",
        "pipeline/raw",
        "## drain",
        "cores",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(told.contains("pipeline/raw"), "{told}");
}

#[tokio::test]
async fn what_cannot_be_measured_is_refused_before_anything_starts() {
    let folder = Folder::new();
    for arguments in [
        &["--only", "nothing"][..],
        &["--only", "vacuum", "--short"],
        &["--rounds", "0", "--short"],
        &["--short", "--json", "/nowhere/at/all.json"],
        // a debug build, and no checkout to make another one of
        &[],
    ] {
        if arguments.is_empty() && !cfg!(debug_assertions) {
            continue;
        }
        let output = folder.bench(arguments).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(!told.trim().is_empty(), "{arguments:?}");
        assert!(
            !folder.0.join("bench").exists(),
            "{arguments:?}: something began"
        );
    }
}
