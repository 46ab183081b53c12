//! One stack for all tests of this program, as `lab up` starts it.

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

const START_LIMIT: Duration = Duration::from_mins(2);

/// The one program that is everything here.
pub(crate) fn lab() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lab"))
}

/// Where the gateway listens.
pub(crate) fn gateway() -> &'static str {
    static GATEWAY: LazyLock<String> = LazyLock::new(start);
    &GATEWAY
}

/// Its shell takes it down when its standard input ends, and that ends with this process, however
/// that ends.
fn start() -> String {
    let dir = std::env::temp_dir().join(format!("unacked-browser-{}", std::process::id()));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let script = r#"
        mkdir -p "$1"
        "$0" --lab-dir "$1" up --sender 2 --receiver 2 --port "$2" --yes > "$1.log" 2>&1 &
        cat > /dev/null
        "$0" --lab-dir "$1" down; "$0" --lab-dir "$1" reset --yes; rm -rf "$1" "$1.log"
    "#;
    #[expect(clippy::zombie_processes, reason = "it ends after this process")]
    let mut shell = Command::new("sh")
        .args(["-c", script])
        .args([lab().as_os_str(), dir.as_os_str()])
        .arg(port.to_string())
        .env("WORK_DELAY_MAX_MS", "100")
        .env("WORK_FAIL_ONE_IN", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    // Open until this process ends, whatever happens to `shell`.
    std::mem::forget(shell.stdin.take());
    let log = dir.with_extension("log");
    let began = Instant::now();
    loop {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        if said.contains("ready after") {
            return format!("http://127.0.0.1:{port}");
        }
        assert!(
            began.elapsed() < START_LIMIT,
            "the stack does not start:\n{said}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A text that no other test writes.
pub(crate) fn unique(text: &str) -> String {
    format!("{text} {}", uuid::Uuid::new_v4().simple())
}
