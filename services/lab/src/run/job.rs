//! What a run is about: where its load goes, which nodes it needs, and which books say what became of it.
//!
//! Everything that is not the same for all services of the stack is answered here, once.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::RunId;
use crate::say::Usage;
use crate::stack::node::Service;

/// To whom a load goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Job {
    /// The senders, and through them the receivers.
    #[default]
    Messages,
    /// The API of the notes, and through it their workers.
    Notes,
    /// A lease queue of the run's own, with lessees of the load's own.
    Leases,
    /// The sign-up, and through it the senders of welcome mails.
    Signup,
}

/// Tables of one job, by their names with schemas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Books {
    /// What was accepted, and its column of when.
    pub accepted: &'static str,
    pub accepted_at: &'static str,
    /// What is not published yet; both sides have one where they do not share a schema.
    pub outboxes: &'static [&'static str],
    /// The effects, their growing number, and their column of when.
    pub effects: &'static str,
    pub newest: &'static str,
    pub processed_at: &'static str,
    /// The schema of those who work: failures, deliveries, dead letters.
    pub work: &'static str,
    /// The schema of those who accept: publications of theirs.
    pub accept: &'static str,
    /// What people call it by, and who has discarded a dead letter.
    pub called: &'static str,
    pub discarded_by: &'static str,
}

const MESSAGES: Books = Books {
    accepted: "sender.message",
    accepted_at: "accepted_at",
    outboxes: &["sender.outbox", "receiver.outbox"],
    effects: "receiver.processed",
    newest: "processed_id",
    processed_at: "processed_at",
    work: "receiver",
    accept: "sender",
    called: "'number ' || number",
    discarded_by: "discarded_by",
};
const NOTES: Books = Books {
    accepted: "notes.message",
    outboxes: &["notes.outbox"],
    effects: "notes.processed",
    work: "notes",
    accept: "notes",
    ..MESSAGES
};
const SIGNUP: Books = Books {
    accepted: "signup.account",
    accepted_at: "created_at",
    outboxes: &["signup.outbox"],
    effects: "signup.mail",
    newest: "mail_id",
    processed_at: "sent_at",
    work: "signup",
    accept: "signup",
    called: "'account ' || user_id",
    // who it was is not the auditor's to read
    discarded_by: "'somebody'",
};

impl Job {
    pub const ALL: [Self; 4] = [Self::Messages, Self::Notes, Self::Leases, Self::Signup];

    /// As in a file and after `--to`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Notes => "notes",
            Self::Leases => "leases",
            Self::Signup => "signup",
        }
    }

    /// Where a request is posted, behind the gateway.
    pub fn path(self, run: &RunId) -> String {
        match self {
            Self::Messages => "/api/messages".to_owned(),
            Self::Notes => "/notes/save".to_owned(),
            Self::Leases => format!("/leases/queues/{run}"),
            Self::Signup => "/signup/createUser".to_owned(),
        }
    }

    /// The nodes that an experiment has if it says nothing else.
    pub fn services(self) -> &'static [(Service, usize)] {
        match self {
            Self::Messages => &[(Service::Sender, 2), (Service::Receiver, 3)],
            Self::Notes => &[(Service::Notes, 1), (Service::NotesWorker, 2)],
            Self::Leases => &[(Service::Leases, 2)],
            Self::Signup => &[(Service::Signup, 1), (Service::SignupWelcome, 1)],
        }
    }

    /// Those who accept.
    pub fn accepts(self) -> Service {
        self.services()[0].0
    }

    /// Those who take from the queue and have the effects; none: that is done by the load itself.
    pub fn works(self) -> Option<Service> {
        self.services().get(1).map(|(service, _)| *service)
    }

    /// Whether nodes of this service have anything to do with it.
    pub fn has(self, service: Service) -> bool {
        self.services().iter().any(|(one, _)| *one == service)
    }

    /// The queue of its road on the broker; none: it uses no broker.
    pub fn road(self) -> Option<&'static str> {
        match self {
            Self::Messages => Some("messages"),
            Self::Notes => Some("notes"),
            Self::Leases => None,
            Self::Signup => Some("welcome"),
        }
    }

    /// Its tables; none: its record is the load's own.
    pub fn books(self) -> Option<&'static Books> {
        match self {
            Self::Messages => Some(&MESSAGES),
            Self::Notes => Some(&NOTES),
            Self::Leases => None,
            Self::Signup => Some(&SIGNUP),
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Job {
    type Err = Usage;

    fn from_str(word: &str) -> Result<Self, Usage> {
        Self::ALL
            .into_iter()
            .find(|job| job.word() == word)
            .ok_or_else(|| {
                let words = Self::ALL.map(Self::word).join(", ");
                Usage(format!("no load goes to {word:?}; right is one of {words}"))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_as_it_is_written() {
        for job in Job::ALL {
            assert_eq!(job.word().parse(), Ok(job));
            assert_eq!(
                serde_json::to_value(job).unwrap(),
                serde_json::json!(job.word())
            );
        }
        let wrong = "mails".parse::<Job>().unwrap_err().0;
        assert!(wrong.contains("messages, notes, leases, signup"), "{wrong}");
    }

    #[test]
    fn each_service_of_the_stack_belongs_to_one_job() {
        for service in Service::ALL {
            let jobs = Job::ALL.into_iter().filter(|job| job.has(service));
            assert_eq!(jobs.count(), 1, "{service:?}");
        }
    }
}
