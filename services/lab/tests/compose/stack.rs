//! The stack of `docker/docker-compose.yml` under a project and on ports of its own.
//!
//! One at a time: two stacks on one machine would measure each other. The images are built with `PROFILE=dev`; the first
//! build takes minutes, the next ones find the layers. Whatever happens to a test, dropping its stack takes containers,
//! volumes and images away; what a killed test left behind goes when the next one of this checkout starts.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Settings that the compose file hands on; a test starts from the defaults, not from what this shell has set.
const SETTINGS: &[&str] = &[
    "PROFILE",
    "QUEUE_TYPE",
    "SESSION_TTL_SECS",
    "SESSION_SECURE",
    "HEARTBEAT_SECS",
    "SHUTDOWN_SECS",
    "LOG",
    "OUTBOX_MAX",
    "PUBLISH_WINDOW",
    "WORK_DELAY_MAX_MS",
    "WORK_FAIL_ONE_IN",
    "WORK_MAX_FAILURES",
    "PREFETCH",
    "RETRY_HOLD_MS",
    "WORK_DELAY_MIN_MS",
    "WORK_FAILURE_ACTION",
    "WORK_POISON_PREFIX",
    "MAX_DELIVERIES",
    "INBOX_WINDOW_SECS",
    "RETRY",
    "RETRY_LADDER_MS",
    "WITHOUT",
    "FAIL_POINTS",
    "DATABASE_CONNECTIONS",
    "LAB_OPS",
    "AMQP_VHOST",
    "LAB_FOLDER",
    "COMPOSE_PROFILES",
    "NOTES_CACHE",
    "NOTES_CACHE_MS",
    "NOTES_PER_SECOND",
    "SIGNUP_KEY",
    "SIGNUP_KEY_OLD",
    "SMTP_URL",
    "SMTP_STARTTLS",
    "MAIL_FROM",
    "MAIL_ID",
];

/// The variables of the ports that are published, the gateway's first.
const PORTS: [&str; 6] = [
    "GATEWAY_PORT",
    "RABBITMQ_UI_PORT",
    "NOTES_PORT",
    "LEASES_PORT",
    "SIGNUP_PORT",
    "MAILS_PORT",
];

pub(crate) struct Stack {
    pub(crate) project: String,
    environment: Vec<(String, String)>,
    /// In the order of their variables.
    pub(crate) ports: [u16; PORTS.len()],
    _alone: MutexGuard<'static, ()>,
}

impl Stack {
    /// Two senders and three receivers, all ready.
    pub(crate) async fn up(settings: &[(&str, &str)]) -> Stack {
        let alone = ONE_AT_A_TIME.lock().await;
        let mut checkout = DefaultHasher::new();
        env!("CARGO_MANIFEST_DIR").hash(&mut checkout);
        let ports = free_ports();
        let mut environment: Vec<(String, String)> = PORTS
            .iter()
            .zip(ports)
            .map(|(name, port)| ((*name).to_owned(), port.to_string()))
            .collect();
        environment.extend(
            settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let stack = Stack {
            project: format!("unacked-test-{:08x}", checkout.finish() & 0xffff_ffff),
            environment,
            ports,
            _alone: alone,
        };
        stack.down();
        let started = Instant::now();
        stack.compose(&["build", "--build-arg", "PROFILE=dev"]);
        println!("images built in {:.1?}", started.elapsed());
        let started = Instant::now();
        stack.scale(2, 3).await;
        println!("stack up in {:.1?}", started.elapsed());
        stack
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[0])
    }

    /// Behind another port than the gateway's first.
    pub(crate) fn url_at(&self, port: &str, path: &str) -> String {
        let place = PORTS.iter().position(|name| *name == port);
        let port = self.ports[place.expect("a port that is published")];
        format!("http://127.0.0.1:{port}{path}")
    }

    /// Comes back when every new node is ready; the waiting is done on a thread of its own, so that traffic goes on.
    pub(crate) async fn scale(&self, sender: usize, receiver: usize) {
        let mut command = self.command(&[
            "up",
            "--detach",
            "--wait",
            "--no-build",
            "--no-recreate",
            &format!("--scale=sender={sender}"),
            &format!("--scale=receiver={receiver}"),
        ]);
        tokio::task::spawn_blocking(move || run(&mut command))
            .await
            .expect("the thread that waits for docker")
            .unwrap_or_else(|error| panic!("docker compose up: {error}"));
    }

    /// Waits until `count` messages of `run` were processed, each exactly once, and none was given up on.
    pub(crate) async fn processed(&self, run: &str, count: usize, limit: Duration) {
        let asked = Instant::now();
        let sql = format!(
            "select (select count(*) from sender.message where run = '{run}'),
                    count(*), count(distinct message_id),
                    (select count(*) from receiver.dead_letter)
             from receiver.processed where run = '{run}'"
        );
        let wanted = format!("{count}|{count}|{count}|0");
        loop {
            let found = self.column(&sql).join("");
            if found == wanted {
                println!("{count} processed after {:.1?} more", asked.elapsed());
                return;
            }
            assert!(
                asked.elapsed() < limit,
                "accepted|effects|messages with an effect|dead letters: {found}, not {wanted}"
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// The first column of what SQL gives, read by the superuser inside the Postgres container.
    pub(crate) fn column(&self, sql: &str) -> Vec<String> {
        let psql = ["psql", "-U", "postgres", "-d", "unacked", "-Atc", sql];
        let rows = self.compose(&[["exec", "-T", "postgres"].as_slice(), &psql].concat());
        rows.lines().map(str::to_owned).collect()
    }

    /// The ids of a service's running containers, or of all.
    pub(crate) fn containers(&self, service: &str) -> Vec<String> {
        let service = [service].into_iter().filter(|name| !name.is_empty());
        let arguments: Vec<&str> = ["ps", "-q"].into_iter().chain(service).collect();
        let ids = self.compose(&arguments);
        ids.lines().map(str::to_owned).collect()
    }

    pub(crate) fn compose(&self, arguments: &[&str]) -> String {
        self.try_compose(arguments)
            .unwrap_or_else(|error| panic!("docker compose {}: {error}", arguments[0]))
    }

    pub(crate) fn try_compose(&self, arguments: &[&str]) -> Result<String, String> {
        run(&mut self.command(arguments))
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../docker/docker-compose.yml"
        );
        let mut command = Command::new("docker");
        command.args(["compose", "-p", &self.project, "-f", file]);
        command.args(arguments);
        for name in SETTINGS {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn down(&self) {
        let down = [
            "--profile=*",
            "down",
            "-v",
            "-t",
            "3",
            "--rmi",
            "local",
            "--remove-orphans",
        ];
        if let Err(error) = self.try_compose(&down) {
            println!("docker compose down: {error}");
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = ["logs", "--no-color", "--tail", "40"];
            println!("{}", self.try_compose(&logs).unwrap_or_default());
        }
        self.down();
    }
}

pub(crate) fn docker(arguments: &[&str]) -> String {
    run(Command::new("docker").args(arguments))
        .unwrap_or_else(|error| panic!("docker {}: {error}", arguments[0]))
}

/// What it wrote, or why it failed.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said.lines().collect();
        let end = &lines[lines.len().saturating_sub(60)..];
        Err(format!("{}\n{}", output.status, end.join("\n")))
    }
}

/// Free a moment ago; all are held until all are known.
fn free_ports() -> [u16; PORTS.len()] {
    let listeners =
        [(); PORTS.len()].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("its address").port())
}
