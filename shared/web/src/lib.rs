//! What every page and every API of a service has in common.
//!
//! A request passes, from outside to inside ([`wrap`]): security headers, one net for errors
//! ([`error`]: a page for people, problem details for programs), the limit on bodies, the session,
//! and a catch for panics. A handler then reads what was sent through [`form`] or [`json`], which
//! say precisely what is wrong with it, and who sent it through [`session::Visit`]; it answers with
//! a page that extends `base.html` and shows a [`chrome::Chrome`].
//!
//! Nothing here keeps a request waiting: a Redis that is away costs a page its session, no more.

#![warn(missing_docs)]

// Templates name things as the services do, which compile base.html too.
extern crate self as web;

pub mod chrome;
pub mod error;
pub mod form;
pub mod head;
pub mod headers;
pub mod json;
pub mod live;
pub mod numbers;
pub mod origin;
pub mod session;
pub mod show;
pub mod static_files;

mod accept;
mod body;
mod site;
mod together;
mod under;
mod wrap;

pub use accept::wants_json;
pub use error::Error;
pub use site::{About, Site};
pub use together::{Together, together};
pub use under::Under;
pub use wrap::{wrap, wrap_api};

/// A template, drawn.
pub fn page(template: &impl askama::Template) -> Result<axum::response::Html<String>, Error> {
    Ok(axum::response::Html(template.render()?))
}
