//! Flags that describe a stack which this program did not start.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::Args;

use crate::compose::Project;
use crate::stack::dir;

/// A stack that this program did not start.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "A stack that `lab up` did not start")]
pub struct Elsewhere {
    /// The stack of Docker Compose with this name, driven by Docker [default, without a name: unacked]
    #[arg(
        long,
        env = "LAB_COMPOSE",
        value_name = "PROJECT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "unacked"
    )]
    pub compose: Option<String>,
    /// The compose file, where Docker cannot say it
    #[arg(long, env = "LAB_COMPOSE_FILE", hide = true, value_name = "FILE")]
    pub compose_file: Option<PathBuf>,
    /// URL of its gateway
    #[arg(
        long,
        env = "LAB_GATEWAY",
        value_name = "URL",
        conflicts_with = "compose"
    )]
    pub gateway: Option<String>,
    /// URL of its database, as a role that may read both schemas
    #[arg(
        long,
        env = "LAB_AUDITOR_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub auditor_url: Option<String>,
    /// URL of its broker's management API, with user and password
    #[arg(
        long,
        env = "LAB_MANAGEMENT_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub management_url: Option<String>,
    /// The vhost that it uses
    #[arg(long, env = "LAB_VHOST", value_name = "NAME", default_value = "/")]
    pub vhost: String,
    /// The receivers' secret of who may have them send dead letters back; without it nobody here may
    #[arg(
        long,
        env = "REDRIVE_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub redrive_token: Option<String>,
    /// Where its nodes are: a host name with the ops port and the first port; every address behind the name is a node
    #[arg(
        long,
        env = "LAB_NODES",
        value_name = "HOST:OPS:PORT",
        value_delimiter = ','
    )]
    pub nodes: Vec<String>,
}

impl Elsewhere {
    /// The stack of Docker Compose that is meant, if one is.
    pub async fn project(&self) -> Result<Option<Arc<Project>>> {
        match &self.compose {
            Some(name) => Project::find(name, self.compose_file.clone())
                .await
                .map(Some),
            None => Ok(None),
        }
    }

    /// Where the notes of what is broken on purpose are: each stack has its own.
    pub fn notes(&self, root: &Path) -> PathBuf {
        match &self.compose {
            Some(name) => root.join("compose").join(name),
            None => root.to_owned(),
        }
    }

    /// How to say a command about this stack, see [`dir::command`].
    pub fn command(&self, root: &Path, rest: &str) -> String {
        format!("{}{}", dir::command(root, rest), self.flags())
    }

    /// What a command says of this stack, with a space before each flag; empty: nothing needs to be said. Never a
    /// password: URLs that hold one are the variables that the lab reads too.
    pub fn flags(&self) -> String {
        if dir::is_service() {
            // its environment says it
            return String::new();
        }
        let file = self.compose_file.as_ref().map_or_else(String::new, |file| {
            format!(" --compose-file {}", dir::quoted(&file.to_string_lossy()))
        });
        match (self.compose.as_deref(), &self.gateway) {
            (Some("unacked"), _) => format!(" --compose{file}"),
            (Some(name), _) => format!(" --compose={}{file}", dir::quoted(name)),
            (None, Some(gateway)) => self.described(gateway),
            (None, None) => String::new(),
        }
    }

    fn described(&self, gateway: &str) -> String {
        let mut flags = format!(" --gateway {}", dir::quoted(gateway));
        if self.auditor_url.is_some() {
            flags += " --auditor-url \"$LAB_AUDITOR_URL\"";
        }
        if self.management_url.is_some() {
            flags += " --management-url \"$LAB_MANAGEMENT_URL\"";
        }
        if self.vhost != "/" {
            let _ = write!(flags, " --vhost {}", dir::quoted(&self.vhost));
        }
        if !self.nodes.is_empty() {
            let _ = write!(flags, " --nodes {}", dir::quoted(&self.nodes.join(",")));
        }
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_its_stack_and_no_password() {
        let there = |compose: Option<&str>, gateway: Option<&str>| Elsewhere {
            compose: compose.map(str::to_owned),
            gateway: gateway.map(str::to_owned),
            auditor_url: Some("postgres://auditor:hidden@h/unacked".to_owned()),
            vhost: "my own".to_owned(),
            nodes: vec!["s:9081:8081".to_owned(), "r:9082:8082".to_owned()],
            ..Elsewhere::default()
        };
        for (elsewhere, flags) in [
            (Elsewhere::default(), ""),
            (there(Some("unacked"), None), " --compose"),
            (there(Some("mine"), None), " --compose=mine"),
            (
                there(None, Some("http://h:8080")),
                " --gateway http://h:8080 --auditor-url \"$LAB_AUDITOR_URL\" --vhost 'my own' --nodes s:9081:8081,r:9082:8082",
            ),
        ] {
            assert_eq!(elsewhere.flags(), flags);
        }
        let of_a_file = Elsewhere {
            compose_file: Some("/a/compose.yml".into()),
            ..there(Some("mine"), None)
        };
        let flags = " --compose=mine --compose-file /a/compose.yml";
        assert_eq!(of_a_file.flags(), flags);
    }
}
