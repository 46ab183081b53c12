//! `lab message`: a passport in a terminal.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use super::story::Passport;
use crate::run::sight::{Elsewhere, Sight};
use crate::say::{self, Usage};

/// Which message.
#[derive(Debug, Args)]
pub struct MessageArgs {
    /// Its id
    #[arg(value_name = "ID", value_parser = super::id::message)]
    pub id: Uuid,
    /// As JSON, for scripts
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub elsewhere: Elsewhere,
}

/// Tells all that is known of it.
pub async fn run(root: &Path, args: &MessageArgs) -> Result<()> {
    let sight = Sight::find(root, &args.elsewhere).await?;
    if sight.auditor_url.is_empty() {
        return Err(Usage("say where the ledger is: --auditor-url".to_owned()).into());
    }
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect(&sight.auditor_url)
        .await?;
    let passport = super::passport(&pool, args.id).await?;
    let Some(passport) = passport else {
        return Err(Usage(format!("nothing is on record of a message {}", args.id)).into());
    };
    if args.json {
        say::line(serde_json::to_string_pretty(&passport)?);
    } else {
        for line in lines(&passport) {
            say::line(line);
        }
    }
    Ok(())
}

/// A message's text may be long.
fn plain(text: &str) -> String {
    say::plain(&text.chars().take(200).collect::<String>())
}

fn lines(passport: &Passport) -> Vec<String> {
    let mut lines = vec![format!(
        "{} {}: {}",
        passport
            .number
            .map_or_else(|| "Message".to_owned(), |n| format!("Message {n}")),
        passport.message_id,
        passport.state.words()
    )];
    if let Some(text) = &passport.text {
        lines.push(format!("  text: {}", plain(text)));
    }
    for step in &passport.steps {
        let facts: Vec<String> = step
            .facts
            .shown()
            .map(|(name, value)| format!("{name} {}", plain(&value)))
            .collect();
        let node = step.node.as_deref().unwrap_or("-");
        let at = step.at.format("%Y-%m-%d %H:%M:%S%.3f");
        lines.push(format!(
            "{at}  {node}  {} ({})",
            step.what,
            facts.join(", ")
        ));
        if let Some(why) = &step.why {
            lines.push(format!("    {}", plain(why)));
        }
        if let Some(cause) = &step.then {
            let (what, sure) = (cause.what.words(), cause.sure.word());
            let from = match &*plain(&cause.from) {
                "" => String::new(),
                from => format!(": {from}"),
            };
            lines.push(format!("    then: {what} [{sure}{from}]"));
        }
    }
    lines
}
