//! The role that sends the welcome mails: takes them from the queue `welcome`, has a mail server take each,
//! and stores that it did.
//!
//! `deliver` is the work, [`messaging::receive`] everything around it; `smtp` is the way to the mail
//! server, `mail` what is written and its table. It has no pages: what became of a mail is on the page of its account.

pub mod config;
mod deliver;
mod mail;
mod numbers;
mod smtp;

use std::{process::ExitCode, sync::Arc};

use broker_part::receiving::{ReceiveSettings, Receiving, retry};
use daemon::{lifecycle::Lifecycle, ops::Told, process::Process};
use messaging::{
    guarantee::Guarantee,
    receive::{self, processor::Policy},
    watching::Watching,
};
use tokio::net::TcpListener;

use deliver::Deliver;

pub use config::Config;
pub use smtp::{MailId, SmtpArgs, Starttls};

use crate::ROAD;

/// Sends mails until a signal, and gives the exit code: 0 clean, 1 failed, 2 a wrong setting.
pub fn main_with(config: &Config) -> ExitCode {
    let start = |ops_listener, lifecycle: &Lifecycle| run(config, ops_listener, lifecycle);
    config.process.run_unseen(&config.ops_listen, start)
}

/// Starts the role on the lifecycle. Servers that are away are waited for in the background.
///
/// # Errors
/// A wrong setting.
pub fn run(
    config: &Config,
    ops_listener: TcpListener,
    lifecycle: &Lifecycle,
) -> anyhow::Result<()> {
    let process = config.process.begin("signup-welcome")?;
    messaging::numbers::register_receiver(ROAD);
    numbers::register();
    let Process {
        node,
        parts,
        fail_points,
        database,
        ..
    } = process.clone();
    let broker = config.broker(&node.name)?;
    let without = &config.broker.without;
    let stopping = lifecycle.stopping();

    let part = parts.part("smtp");
    part.starting("no mail was sent yet");
    let deliver = Arc::new(Deliver {
        server: config.smtp.server()?,
        mail_id: config.smtp.mail_id,
        node: node.name.clone(),
        fail_points,
        part,
        stop: stopping.clone(),
        tally: Arc::default(),
    });
    database.migrate_until_done(vec![receive::migrator(), sqlx::migrate!()], lifecycle);
    let policy = Policy {
        max_failures: config.work_max_failures,
        max_deliveries: config.max_deliveries,
        retry: retry(&process, &broker, &config.retry, lifecycle),
    };
    let settings = ReceiveSettings {
        broker,
        road: ROAD,
        prefetch: config.prefetch,
        policy,
        without,
        inbox: &config.inbox,
        watching: Watching::nobody(),
    };
    let receiving = Receiving::new(&process, &deliver, settings, lifecycle);
    let rabbitmq = broker_part::follow(parts.part("rabbitmq"), receiving.links.clone(), stopping);
    lifecycle.spawn("broker state", rabbitmq);
    receiving.start(&process, lifecycle);

    // Without a mail server the mails wait here, which is what this role is for.
    let told = Told {
        ready_needs: &["postgres", "rabbitmq"],
        without: without.iter().map(Guarantee::name).collect(),
        knobs: None,
        shared_knobs: None,
        settings: config.all.clone(),
    };
    process.watch_and_tell(ops_listener, told, lifecycle);
    if without.has(Guarantee::Drain) {
        process.end_at_once(lifecycle);
    }
    without.tell();
    if config.smtp.mail_id == MailId::Random {
        tracing::warn!(
            "every mail gets an id of its own: nobody can tell that one that came twice is one"
        );
    }
    Ok(())
}
