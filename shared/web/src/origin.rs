//! Where a request comes from: one of our own pages, or a foreign one.

use axum::http::{HeaderMap, HeaderValue, header};

/// What the browser says about the page that a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// One of ours.
    Own,
    /// A page of another site, or of another port of this one.
    Foreign,
    /// It does not say: an old browser, or no browser at all.
    Unsaid,
}

/// Reads `Sec-Fetch-Site` and `Origin`, which no page can forge. Both must be ours where both are
/// said.
pub fn origin(headers: &HeaderMap) -> Origin {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    let origin = headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
    let host = headers
        .get(header::HOST)
        .map_or(&b""[..], HeaderValue::as_bytes);
    // "none" is a person: a bookmark, the address bar.
    let site = site.map(|site| matches!(site, b"same-origin" | b"none"));
    let origin = origin.map(|origin| authority(origin).eq_ignore_ascii_case(host));
    match (site, origin) {
        (Some(false), _) | (_, Some(false)) => Origin::Foreign,
        (None, None) => Origin::Unsaid,
        _ => Origin::Own,
    }
}

/// `http://host:port` without what is before the host. "null" is nobody's.
fn authority(origin: &[u8]) -> &[u8] {
    let authority = origin
        .strip_prefix(b"http://")
        .or_else(|| origin.strip_prefix(b"https://"));
    authority.unwrap_or(b"null")
}

/// Whether two secrets are equal, in a time that does not tell where they differ.
pub fn equal(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let differs = one
        .iter()
        .zip(other)
        .fold(0, |differs, (a, b)| differs | (a ^ b));
    one.len() == other.len() && std::hint::black_box(differs) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&'static str, &'static str)]) -> Origin {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("127.0.0.1:8080"));
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        origin(&headers)
    }

    #[test]
    fn only_our_own_pages_are_ours() {
        assert_eq!(of(&[]), Origin::Unsaid);
        assert_eq!(of(&[("origin", "http://127.0.0.1:8080")]), Origin::Own);
        assert_eq!(of(&[("origin", "https://127.0.0.1:8080")]), Origin::Own);
        assert_eq!(of(&[("sec-fetch-site", "same-origin")]), Origin::Own);
        for foreign in [
            "null",
            "http://127.0.0.1:8081",
            "http://evil.example",
            "",
            "127.0.0.1:8080",
        ] {
            assert_eq!(of(&[("origin", foreign)]), Origin::Foreign, "{foreign}");
        }
        for site in ["cross-site", "same-site", "x"] {
            assert_eq!(of(&[("sec-fetch-site", site)]), Origin::Foreign, "{site}");
        }
        let both = [
            ("sec-fetch-site", "cross-site"),
            ("origin", "http://127.0.0.1:8080"),
        ];
        assert_eq!(of(&both), Origin::Foreign);
    }

    #[test]
    fn secrets_are_equal_when_all_of_them_is() {
        assert!(equal("abc", "abc"));
        assert!(!equal("abc", "abd") && !equal("abc", "ab") && !equal("", "a"));
    }
}
