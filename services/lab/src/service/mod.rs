//! `lab serve`: the lab over HTTP. Experiments are started, watched, stopped and judged by requests, one at a time, on the
//! stage that `lab experiment run` has too.
//!
//! A request passes the guard ([`guard`]): it must be meant for this machine, and what changes something must not come from
//! a foreign page. The API ([`api`], `start.rs`) writes what is wanted into the [`book`], and the director ([`director`]) does it: it opens
//! the stage, plays, and closes the stage again when nobody has wanted anything for a while. The book knows the runs of this
//! process; older ones are read from their folders ([`shelf`]).
//!
//! The director is not a task: it is what the main function waits for, so that a signal can stop it wherever it is, and the
//! stage is still there to be healed.

pub mod api;
pub mod book;
pub mod director;
pub mod guard;
pub mod offers;
pub mod shelf;
pub mod shown;
pub mod start;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use daemon::lifecycle::Lifecycle;
use daemon::node::NodeArgs;
use daemon::telemetry::{self, TelemetryArgs};
use daemon::{WrongSetting, http};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::say::{self, Steps, Usage};
use crate::stack::install::{self, NGINX};
use crate::stack::servers::Given;
use crate::stack::{dir, ports};
use crate::up::Ends;
use api::App;
use book::Book;
use director::Director;

/// How long requests that have begun may take once the last run was told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Files of experiments to offer beside those that come with the lab, by their names without the ending
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The port on 127.0.0.1; 0 is any free one
    #[arg(
        long,
        default_value_t = 8090,
        env = "LAB_SERVICE_PORT",
        value_name = "N"
    )]
    pub port: u16,
    /// The most nodes that an experiment may ask for
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub max: usize,
    /// Install missing server programs without asking
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Serves until it is told to stop; then a run that is going on is healed and stopped first.
pub async fn run(root: &Path, args: &ServeArgs) -> Result<ExitCode> {
    if let Err(wrong) = begin_log(&args.telemetry) {
        return Ok(wrong.report());
    }
    let offers = offers::all(&args.files, args.max)?;
    let listener = listen(args.port).await?;
    let address = listener.local_addr()?;
    let mut ends = Ends::new()?;
    let mut needed = Given::default().needed();
    needed.push(NGINX);
    let steps = Steps::new(&say::tell);
    tokio::select! {
        installed = install::ensure_installed(&needed, args.yes, &steps) => installed?,
        () = ends.next() => return Ok(ExitCode::SUCCESS),
    }
    dir::make_folder(root, 0o711)?;
    let root = root.canonicalize()?;

    let (life, book) = (Lifecycle::new(STOP_LIMIT), Arc::new(Book::default()));
    // one run at a time, so one order at a time
    let (orders, mut ordered) = mpsc::channel(1);
    let app = App::new(
        root.clone(),
        offers,
        Arc::clone(&book),
        orders,
        life.clone(),
    );
    http::serve_patiently(api::PATIENCE, listener, api::router(app), &life);
    say::line(format!(
        "The lab's experiments are at http://{address}/lab/api/experiments\nCtrl-C heals and stops what runs."
    ));
    let (mut director, stopping) = (Director::new(root, Arc::clone(&book)), life.stopping());
    tokio::select! {
        () = director.direct(&mut ordered) => {}
        () = ends.next() => {}
        () = stopping.cancelled() => {}
    }
    book.close();
    if director.is_on_stage() {
        say::line("Healing and stopping. Ctrl-C again kills everything at once.");
    }
    tokio::select! {
        () = director.close() => {}
        () = ends.next() => {
            say::line("Killing everything.");
            director.abort().await;
        }
    }
    // only now, so that whoever waits for a verdict hears what became of the run
    book.interrupt("the lab's service was stopped");
    life.stop();
    Ok(life.finish().await)
}

fn begin_log(args: &TelemetryArgs) -> Result<(), WrongSetting> {
    telemetry::init(args, &NodeArgs::default().node("lab")?)
}

async fn listen(port: u16) -> Result<TcpListener, Usage> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    listener.map_err(|_| {
        let who = ports::holder(port);
        Usage(format!(
            "port {port} is taken by {who}; end it or choose another with --port"
        ))
    })
}
