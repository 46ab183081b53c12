//! What is secret in the folder of a stack; made once, and kept.

use serde::{Deserialize, Serialize};

/// Passwords made once per folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Secrets {
    pub postgres: String,
    pub sender: String,
    pub receiver: String,
    pub auditor: String,
    pub redis: String,
    pub rabbitmq: String,
    pub erlang_cookie: String,
    /// Of what the lab itself keeps. Folders of an earlier build have none from here on; opening one makes them.
    #[serde(default)]
    pub lab: String,
    /// Of who may send dead letters back.
    #[serde(default)]
    pub redrive: String,
    /// What one signs in with at the console.
    #[serde(default)]
    pub console: String,
    #[serde(default)]
    pub notes: String,
    #[serde(default)]
    pub leases: String,
    #[serde(default)]
    pub signup: String,
    /// What sign-up signs its tokens with.
    #[serde(default)]
    pub signup_key: String,
}

impl Secrets {
    pub(super) fn new() -> Self {
        Self {
            postgres: secret(),
            sender: secret(),
            receiver: secret(),
            auditor: secret(),
            redis: secret(),
            rabbitmq: secret(),
            erlang_cookie: secret(),
            lab: secret(),
            redrive: secret(),
            console: secret(),
            notes: secret(),
            leases: secret(),
            signup: secret(),
            signup_key: secret(),
        }
    }

    /// The roles of the database but the superuser, each with its password.
    pub fn of_roles(&self) -> [(&'static str, &str); 7] {
        [
            ("sender", &self.sender),
            ("receiver", &self.receiver),
            ("notes", &self.notes),
            ("leases", &self.leases),
            ("signup", &self.signup),
            ("auditor", &self.auditor),
            ("lab", &self.lab),
        ]
    }

    /// Makes what a folder of an earlier build has not; true if there was any.
    pub(super) fn complete(&mut self) -> bool {
        let later = [
            &mut self.lab,
            &mut self.redrive,
            &mut self.console,
            &mut self.notes,
            &mut self.leases,
            &mut self.signup,
            &mut self.signup_key,
        ];
        let missing: Vec<_> = later
            .into_iter()
            .filter(|secret| secret.is_empty())
            .collect();
        let any = !missing.is_empty();
        for empty in missing {
            *empty = secret();
        }
        any
    }
}

fn secret() -> String {
    format!("{:032x}", rand::random::<u128>())
}
