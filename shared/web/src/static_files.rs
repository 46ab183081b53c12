//! Style sheets and scripts, inside the program: no network, no folder that could be missing.
//!
//! A page links to a file with the hash of its content, and such an address may be kept for ever;
//! without the hash, or with that of another version, a file is asked for again each time.

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

static FILES: [File; 7] = [
    File {
        name: "bootstrap.min.css",
        media: CSS,
        content: include_bytes!("../static/bootstrap.min.css"),
    },
    File {
        name: "bootstrap.LICENSE",
        media: TEXT,
        content: include_bytes!("../static/bootstrap.LICENSE"),
    },
    File {
        name: "unacked.css",
        media: CSS,
        content: include_bytes!("../static/unacked.css"),
    },
    File {
        name: "time.js",
        media: SCRIPT,
        content: include_bytes!("../static/time.js"),
    },
    File {
        name: "send.js",
        media: SCRIPT,
        content: include_bytes!("../static/send.js"),
    },
    File {
        name: "live.js",
        media: SCRIPT,
        content: include_bytes!("../static/live.js"),
    },
    File {
        name: "icon.svg",
        media: "image/svg+xml",
        content: include_bytes!("../static/icon.svg"),
    },
];

static HASHES: LazyLock<[String; 7]> = LazyLock::new(|| {
    FILES.each_ref().map(|file| {
        Sha256::digest(file.content)[..8]
            .iter()
            .fold(String::new(), |mut hash, byte| {
                let _ = write!(hash, "{byte:02x}");
                hash
            })
    })
});

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
    let (file, hash) = (&FILES[at], &HASHES[at]);
    let etag = format!("\"{hash}\"");
    let asked = query.as_deref().and_then(|query| query.strip_prefix("v="));
    let cache = if asked == Some(hash) {
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
        return Ok((StatusCode::NOT_MODIFIED, about).into_response());
    }
    Ok((about, [(CONTENT_TYPE, file.media)], file.content).into_response())
}
