//! `lab mails`: what the catcher of the stack has taken.
//!
//! SMTP cannot be exactly once: a mail whose sender died after the server's yes is sent again, under the same Message-ID. So
//! mails are told by their Message-ID, with how often each came.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;

use anyhow::{Context, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use serde::Serialize;
use signup::catcher::Caught;

use crate::say::{self, plain};
use crate::stack::dir;

#[derive(Debug, Args)]
pub struct MailsArgs {
    /// How many, at most
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub newest: usize,
    /// For scripts: a list of all that is known of each
    #[arg(long)]
    pub json: bool,
}

/// A mail, however often it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Mail {
    /// When it came first.
    at: DateTime<Utc>,
    to: Vec<String>,
    subject: String,
    message_id: String,
    copies: usize,
}

/// Lists the newest. None there is no error.
pub fn run(root: &Path, args: &MailsArgs) -> Result<()> {
    let path = dir::mails(&dir::real(root));
    let mut mails = match File::open(&path) {
        Ok(file) => read(BufReader::new(file)).with_context(|| path.display().to_string())?,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    mails.reverse();
    let all = mails.len();
    mails.truncate(args.newest);
    if args.json {
        say::line(serde_json::to_string_pretty(&mails)?);
        return Ok(());
    }
    if all == 0 {
        let up = dir::command(root, "up --with signup");
        say::line(format!(
            "There are no mails in {}; `{up}` catches some.",
            path.display()
        ));
        return Ok(());
    }
    for mail in &mails {
        say::line(row(mail));
    }
    if all > mails.len() {
        say::line(format!(
            "{} of {all} mails; --newest {all} lists all",
            mails.len()
        ));
    }
    Ok(())
}

/// In the order in which they came first. A line that is being written is not there yet.
fn read(lines: impl BufRead) -> Result<Vec<Mail>> {
    let mut mails: Vec<Mail> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for line in lines.lines() {
        let Ok(caught) = serde_json::from_str::<Caught>(&line?) else {
            continue;
        };
        let place = *places
            .entry(caught.message_id.clone())
            .or_insert(mails.len());
        match mails.get_mut(place) {
            Some(mail) => mail.copies += 1,
            None => mails.push(Mail {
                at: caught.at,
                to: caught.to,
                subject: caught.subject,
                message_id: caught.message_id,
                copies: 1,
            }),
        }
    }
    Ok(mails)
}

fn row(mail: &Mail) -> String {
    let at = mail.at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let copies = match mail.copies {
        1 => String::new(),
        copies => format!("  came {copies} times"),
    };
    // others wrote them
    let [to, subject, id] =
        [&mail.to.join(", "), &mail.subject, &mail.message_id].map(|text| plain(text));
    format!("{at}  {to}  {subject:?}  <{id}>{copies}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(id: &str, to: &str) -> String {
        let caught = json!({"at": "2026-01-02T03:04:05.678Z", "message_id": id, "from": "a@x", "to": [to],
                            "subject": "Hello", "parts": []});
        format!("{caught}\n")
    }

    #[test]
    fn copies_under_one_id_are_one_mail_that_came_twice() {
        let text = [line("1@x", "b@x"), line("2@x", "c@x"), line("1@x", "b@x")].concat();
        let torn = format!("{text}{{\"at\": ");
        for text in [text, torn] {
            let mails = read(text.as_bytes()).unwrap();
            let told: Vec<_> = mails
                .iter()
                .map(|mail| (&*mail.message_id, mail.copies))
                .collect();
            assert_eq!(told, [("1@x", 2), ("2@x", 1)]);
            let said = row(&mails[0]);
            let right = r#"2026-01-02T03:04:05.678Z  b@x  "Hello"  <1@x>  came 2 times"#;
            assert_eq!(said, right);
            assert!(!row(&mails[1]).contains("times"));
        }
    }

    #[test]
    fn what_others_wrote_stays_in_its_line() {
        let mails = read(line("1@x", "b@x\n\u{1b}[2J").as_bytes()).unwrap();
        assert!(!row(&mails[0]).contains(['\n', '\u{1b}']));
    }
}
