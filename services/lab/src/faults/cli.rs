//! `lab fault`: breaks a part of the running stack on purpose, and mends it.

use std::future::pending;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::over_socket::{self, Ask};
use super::{Ground, Injector, NO_TIME, Order, Which, beside, find, left, list};
use crate::load::length;
use crate::run::sight::Elsewhere;
use crate::say::{self, Steps, Usage};
use crate::stack::control::{self, Request};
use crate::stack::dir;

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum FaultCommand {
    /// Name all faults: what each does, its arguments, and which this stack cannot have
    List {
        /// For scripts
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        elsewhere: Box<Elsewhere>,
    },
    /// Break something, show that it is broken, and mend it after a time
    Inject(Box<Inject>),
    /// Mend what is broken, and show that it is whole
    Heal {
        /// As `active` names it
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// All that is active
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        elsewhere: Box<Elsewhere>,
    },
    /// Show what is broken now, and how that is seen
    Active {
        /// For scripts
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        elsewhere: Box<Elsewhere>,
    },
}

/// What to break.
#[derive(Debug, Clone, Args)]
pub struct Inject {
    /// The fault, as `list` names it
    pub name: String,
    /// any, all, or the name of a node
    #[arg(long, value_name = "NODE")]
    pub on: Option<String>,
    /// Mend it after this time, such as 10s; without it, it stays until `heal`
    #[arg(long = "for", value_name = "TIME", value_parser = some_time)]
    pub time: Option<Duration>,
    /// An argument of the fault; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    pub args: Vec<(String, String)>,
    /// Chooses which node `any` is
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub elsewhere: Elsewhere,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("say it like latency=200ms")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Inject {
    fn order(&self) -> Result<Order, Usage> {
        let which = self.on.clone().map_or(Which::Usual, Which::from);
        let order = Order {
            fault: self.name.clone(),
            which,
            seed: self.seed.unwrap_or_else(rand::random),
            args: self.args.iter().cloned().collect(),
        };
        if order.args.len() != self.args.len() {
            return Err(Usage("an argument is given twice".to_owned()));
        }
        find(&order.fault)?.check(&order)
    }
}

/// Does it.
pub async fn run(root: &Path, command: &FaultCommand) -> Result<()> {
    match command {
        FaultCommand::List { json, elsewhere } => show_all(root, *json, elsewhere).await,
        FaultCommand::Inject(inject) => {
            let (order, time) = (inject.order()?, inject.time);
            let ask = Ask::Inject { order, time };
            let mut interrupt = signal(SignalKind::interrupt())?;
            if let Some(injector) = beside::injector(root, &inject.elsewhere).await? {
                let stop = async {
                    interrupt.recv().await;
                    say::line("Healing.");
                };
                let steps = Steps::new(&say::tell);
                let answer = over_socket::answer(&ask, &injector, false, &steps, stop);
                return answer.await.map(drop);
            }
            if control::connect(root).await.is_none() {
                return Err(Usage(control::absence(root)).into());
            }
            let stop = async {
                interrupt.recv().await;
                say::line("Healing. The end of this command would not keep it from being healed.");
            };
            let request = Request::Fault { ask };
            control::ask_until(root, &request, &say::tell, stop)
                .await
                .map(drop)
        }
        FaultCommand::Heal {
            id,
            all: _,
            elsewhere,
        } => {
            let id = id.clone();
            if let Some(injector) = beside::injector(root, elsewhere).await? {
                return here(&injector, &Ask::Heal { id }).await.map(drop);
            }
            if id.is_none() {
                left::heal_experiments(root).await?;
            }
            if control::connect(root).await.is_none() && dir::holder(root).is_none() {
                return left::heal(&dir::real(root), id.as_deref());
            }
            ask(root, Ask::Heal { id }, &say::tell).await.map(drop)
        }
        FaultCommand::Active { json, elsewhere } => {
            let active = match beside::injector(root, elsewhere).await? {
                Some(injector) => here(&injector, &Ask::Active).await?,
                None => ask(root, Ask::Active, &say::tell).await?,
            };
            say::line(if *json {
                serde_json::to_string_pretty(&active)?
            } else {
                table(&active)
            });
            Ok(())
        }
    }
}

/// By this process itself.
async fn here(injector: &Injector, ask: &Ask) -> Result<Value> {
    let steps = Steps::new(&say::tell);
    over_socket::answer(ask, injector, false, &steps, pending()).await
}

async fn ask(root: &Path, ask: Ask, tell: say::Tell<'_>) -> Result<Value> {
    if control::connect(root).await.is_none() {
        return Err(Usage(control::absence(root)).into());
    }
    control::ask(root, &Request::Fault { ask }, tell).await
}

fn table(active: &Value) -> String {
    let all = active.as_array().map(Vec::as_slice).unwrap_or_default();
    let lines = all.iter().map(|one| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let names = one["struck"].as_array().into_iter().flatten();
        let struck: Vec<String> = names.map(text).collect();
        let (id, at) = (text(&one["id"]), text(&one["at"]));
        let (is, why) = (text(&one["now"]["is"]), text(&one["now"]["why"]));
        let (struck, at) = (
            struck.join(", "),
            at.get(11..19).unwrap_or_default().to_owned(),
        );
        format!(
            "{id}  since {at} UTC on {struck}: {}: {why}",
            is.replace('-', " ")
        )
    });
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        "no fault is active".to_owned()
    } else {
        lines.join("\n")
    }
}

async fn show_all(root: &Path, json: bool, elsewhere: &Elsewhere) -> Result<()> {
    let native = elsewhere.compose.is_none() && elsewhere.gateway.is_none();
    let links = match control::connect(root).await {
        Some(_) if native => ask(root, Ask::Links, &say::tell).await?["links"].as_bool(),
        _ => None,
    };
    if json {
        let all = list::described(links);
        say::line(serde_json::to_string_pretty(&all).context("cannot write JSON")?);
        return Ok(());
    }
    let ground = match (&elsewhere.compose, &elsewhere.gateway) {
        (Some(_), _) => Ground::Compose,
        (None, Some(_)) => Ground::Inside,
        (None, None) => Ground::Native,
    };
    say::line(list::text(ground, links));
    Ok(())
}

/// A length of time that is one.
fn some_time(text: &str) -> Result<Duration, Usage> {
    let time = length::parse(text)?;
    if time.is_zero() {
        return Err(Usage(NO_TIME.to_owned()));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_takes_some_time() {
        assert_eq!(some_time("10s").unwrap(), Duration::from_secs(10));
        for none in ["0s", "0ms", "0.0s"] {
            assert_eq!(some_time(none).unwrap_err().to_string(), NO_TIME);
        }
    }
}
