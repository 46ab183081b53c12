//! What `lab` says about a stack: of settings that the services would refuse, of what hangs or dies
//! while it runs, and of what is left when `lab up` itself is killed.

use std::process::Stdio;

use nix::sys::signal::Signal;
use testkit::wait_until;
use tokio::process::Command;

use crate::{
    up::{LIMIT, Stack, folder, said, signal},
    world::lab,
};

#[tokio::test]
async fn up_refuses_wrong_settings_before_anything_starts() {
    for (name, value) in [
        ("WORK_DELAY_MAX_MS", "abc"),
        ("PREFETCH", "0"),
        ("PUBLISH_WINDOW", "1"),
        ("FAIL_POINTS", "nowhere=crash"),
        ("LOG", "info=loud=x"),
        ("LAB_REDIS_URL", "http://:secret@h"),
        ("LAB_DATABASE_URL", "secret"),
        ("LAB_AMQP_URL", "secret"),
        ("LAB_PORT", "high"),
    ] {
        let folder = folder();
        let output = Command::new(lab())
            .arg("--lab-dir")
            .arg(&folder)
            .arg("up")
            .env(name, value)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        let start = format!("wrong setting {name}");
        assert!(said.starts_with(&start), "{name}: {said}");
        assert_eq!(said.lines().count(), 1, "{name}: {said}");
        assert!(!said.contains("secret"), "{name}: {said}");
        assert!(!folder.exists(), "{name}: something began");
    }
}

#[tokio::test]
async fn what_hangs_dies_or_is_left_behind_is_told() {
    let mut stack = Stack::up(1, 1, &[]).await;
    let before = stack.status().await.unwrap();
    let servers = ["postgres", "redis", "rabbitmq"];
    for server in servers {
        assert_eq!(before[server]["state"], "ready", "{before}");
        signal(&before[server]["pid"], Signal::SIGSTOP);
    }
    let paused = stack.status().await.unwrap();
    let table = said(&stack.lab(&["status"]).await);
    for server in servers {
        signal(&before[server]["pid"], Signal::SIGCONT);
        assert_eq!(paused[server]["state"], "unready", "{paused}");
        assert_eq!(paused[server]["missing"], "it does not answer", "{paused}");
    }
    assert_eq!(paused["gateway_state"], "ready", "{paused}");
    let lines = table.lines().filter(|line| line.contains(" unready "));
    assert!(lines.count() >= servers.len(), "{table}");
    wait_until("all servers to be ready", LIMIT, async || {
        let status = stack.status().await.unwrap();
        servers
            .iter()
            .all(|server| status[server]["state"] == "ready")
    })
    .await;

    let receiver = &before["nodes"][1];
    assert_eq!(receiver["service"], "receiver", "{before}");
    signal(&receiver["pid"], Signal::SIGKILL);
    let name = receiver["name"].as_str().unwrap();
    let line = format!("{name} ended (signal 9), started again (restart 1)\n");
    stack.says(&line).await;

    stack.up.kill().await.unwrap();
    for command in ["status", "down"] {
        let output = stack.lab(&[command]).await;
        let said = said(&output);
        assert_eq!(output.status.success(), command == "down", "{said}");
        assert!(said.contains(" was killed"), "{said}");
        assert!(said.contains(" processes "), "{said}");
        let folder = stack.folder.canonicalize().unwrap();
        let hint = format!("`cargo lab --lab-dir {} down`", folder.display());
        assert_eq!(said.contains(&hint), command == "status", "{said}");
    }
    let nothing = said(&stack.lab(&["status"]).await);
    assert!(nothing.contains("no stack runs in"), "{nothing}");
    stack.reset().await;
}
