//! The stack of `docker/docker-compose.yml`, as whoever may use Docker sees it: its containers, their addresses, and what
//! Docker can do to them.
//!
//! Docker is spoken to through its own command, so that its settings (contexts, sockets, hosts) are what they are for the
//! person at the keyboard. Containers are reached by their addresses on the project's network. A machine that runs Docker
//! itself has a way there; Docker Desktop and rootless Docker have none, and then the service `lab-docker`, which is on that
//! network, does the same from there.

mod container;
pub mod docker;
mod door;
mod project;

pub use container::{Container, ports, server};
pub use project::Project;
