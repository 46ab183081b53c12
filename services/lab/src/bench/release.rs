//! Only a release build says how fast something is: a debug build has one made, and becomes it.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::say::{self, Usage};
use crate::test::cargo::cargo;

/// Whether this is one.
pub(super) const HERE: bool = !cfg!(debug_assertions);

/// Builds one, and goes on as that program with the same arguments. Comes back only with an error.
pub(super) async fn become_one(checkout: Option<&Path>) -> Result<()> {
    let Some(checkout) = checkout else {
        return Err(Usage(
            "this is a debug build, and no checkout is here to build another one: \
             `cargo build --release`, or --debug-ok to measure it all the same"
                .to_owned(),
        )
        .into());
    };
    say::complain("A benchmark needs a release build: cargo build --release --bin lab");
    // --bin from the root takes the features of the whole workspace, as the alias does
    let mut build = cargo(
        checkout,
        &[
            "build",
            "--release",
            "--bin",
            "lab",
            "--message-format=json-render-diagnostics",
        ],
    );
    let output = build.stdout(Stdio::piped()).stderr(Stdio::inherit());
    let output = output.spawn()?.wait_with_output().await;
    let output = output.context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the release build failed");
    }
    let program = program(&String::from_utf8_lossy(&output.stdout));
    let program = program.context("cargo did not say which program it built")?;
    let error = Command::new(&program)
        .args(std::env::args_os().skip(1))
        .exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

/// What cargo says that it built.
fn program(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "lab")
        .find_map(|message| Some(message["executable"].as_str()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_says_which_program_it_built() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"lab","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"lab","kind":["bin"]},"executable":"/x/target/release/lab"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(program(messages), Some("/x/target/release/lab".into()));
        assert_eq!(program("{}\nnothing"), None);
    }
}
