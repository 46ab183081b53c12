//! Style sheets and scripts, inside the program: no network, no folder that could be missing.
//!
//! A page links to a file with the hash of its content, and such an address may be kept for ever;
//! without the hash, or with that of another version, a file is asked for again each time. The lab's
//! modules import each other, so theirs is one hash for all, in the name of their folder.

use std::{fmt::Write, sync::LazyLock};

use axum::{
    extract::{Path, RawQuery},
    http::{
        HeaderMap, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    },
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

use crate::error::Error;

struct File {
    name: &'static str,
    media: &'static str,
    content: &'static [u8],
}

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// One of a folder beside this one.
macro_rules! bytes {
    ($folder:literal, $name:literal, $media:expr) => {
        File {
            name: $name,
            media: $media,
            content: include_bytes!(concat!($folder, $name)),
        }
    };
}

static FILES: &[File] = &[
    bytes!("../static/", "bootstrap.min.css", CSS),
    bytes!("../static/", "bootstrap.LICENSE", TEXT),
    bytes!("../static/", "unacked.css", CSS),
    bytes!("../static/", "time.js", SCRIPT),
    bytes!("../static/", "send.js", SCRIPT),
    bytes!("../static/", "uplot.iife.min.js", SCRIPT),
    bytes!("../static/", "uplot.min.css", CSS),
    bytes!("../static/", "uplot.LICENSE", TEXT),
    bytes!("../static/", "live.js", SCRIPT),
    bytes!("../static/", "icon.svg", "image/svg+xml"),
];

static HASHES: LazyLock<Vec<String>> =
    LazyLock::new(|| FILES.iter().map(|file| hash(&[file])).collect());

/// What the lab's console shows moves by these: modules that import each other, without a build step.
static LAB: &[File] = &[
    bytes!("../static/lab/", "balance.js", SCRIPT),
    bytes!("../static/lab/", "charts.js", SCRIPT),
    bytes!("../static/lab/", "controls.js", SCRIPT),
    bytes!("../static/lab/", "dots.js", SCRIPT),
    bytes!("../static/lab/", "flow.js", SCRIPT),
    bytes!("../static/lab/", "lab.css", CSS),
    bytes!("../static/lab/", "lab.js", SCRIPT),
    bytes!("../static/lab/", "layout.js", SCRIPT),
    bytes!("../static/lab/", "live.js", SCRIPT),
    bytes!("../static/lab/", "model.js", SCRIPT),
    bytes!("../static/lab/", "moves.js", SCRIPT),
    bytes!("../static/lab/", "nodes.js", SCRIPT),
    bytes!("../static/lab/", "series.js", SCRIPT),
    bytes!("../static/lab/", "swap.js", SCRIPT),
    bytes!("../static/lab/", "words.js", SCRIPT),
];

static LAB_HASHES: LazyLock<Vec<String>> =
    LazyLock::new(|| LAB.iter().map(|file| hash(&[file])).collect());

/// Of all of them: a page must not mix the files of two versions.
static LAB_HASH: LazyLock<String> = LazyLock::new(|| hash(&LAB.iter().collect::<Vec<_>>()));

fn lab_folder() -> String {
    format!("/static/lab-{}", *LAB_HASH)
}

/// Of what they are called and what is in them, in their order.
fn hash(files: &[&File]) -> String {
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.name);
        hash.update([0]);
        hash.update(file.content.len().to_le_bytes());
        hash.update(file.content);
    }
    hash.finalize()[..8]
        .iter()
        .fold(String::new(), |mut hash, byte| {
            let _ = write!(hash, "{byte:02x}");
            hash
        })
}

/// The addresses that pages link to.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is the file of that name")]
pub struct Urls {
    pub bootstrap: String,
    pub unacked: String,
    pub time: String,
    pub send: String,
    pub live: String,
    pub icon: String,
    pub uplot: String,
    pub uplot_css: String,
    /// The folder of the lab's own files, without a slash at its end.
    pub lab: String,
}

/// The addresses, made once.
pub fn urls() -> &'static Urls {
    static URLS: LazyLock<Urls> = LazyLock::new(|| Urls {
        bootstrap: url("bootstrap.min.css"),
        unacked: url("unacked.css"),
        time: url("time.js"),
        send: url("send.js"),
        live: url("live.js"),
        icon: url("icon.svg"),
        uplot: url("uplot.iife.min.js"),
        uplot_css: url("uplot.min.css"),
        lab: lab_folder(),
    });
    &URLS
}

fn url(name: &str) -> String {
    let hash = FILES
        .iter()
        .position(|file| file.name == name)
        .map_or("", |at| &HASHES[at]);
    format!("/static/{name}?v={hash}")
}

pub(crate) async fn serve(
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let at = FILES
        .iter()
        .position(|file| file.name == name)
        .ok_or_else(Error::not_found)?;
    let asked = query.as_deref().and_then(|query| query.strip_prefix("v="));
    let fixed = asked == Some(&*HASHES[at]);
    Ok(answer(&FILES[at], &HASHES[at], fixed, &headers))
}

/// One of the lab's files. They import each other by relative addresses, so the hash is in the folder's name.
pub(crate) async fn serve_lab(
    Path((folder, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let version = folder.strip_prefix("lab-").ok_or_else(Error::not_found)?;
    let at = LAB
        .iter()
        .position(|file| file.name == name)
        .ok_or_else(Error::not_found)?;
    // A page of another version gets what is here, and may not keep it.
    let fixed = version == *LAB_HASH;
    Ok(answer(&LAB[at], &LAB_HASHES[at], fixed, &headers))
}

fn answer(file: &File, hash: &str, fixed: bool, headers: &HeaderMap) -> Response {
    let etag = format!("\"{hash}\"");
    let cache = if fixed {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let known = headers.get_all(IF_NONE_MATCH).iter().any(|tags| {
        let tags = tags.to_str().unwrap_or_default();
        tags == "*"
            || tags
                .split(',')
                .any(|tag| tag.trim().trim_start_matches("W/") == etag)
    });
    let about = [(ETAG, etag), (CACHE_CONTROL, cache.to_owned())];
    if known {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    (about, [(CONTENT_TYPE, file.media)], file.content).into_response()
}
