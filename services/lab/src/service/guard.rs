//! Who may ask: programs and people of this machine.
//!
//! Every page in a browser here can send requests to loopback. Two rules keep foreign pages out. The name in `Host` must be
//! one of loopback: a foreign name that was made to point here (DNS rebinding) would pass for our own origin otherwise. And
//! what is not a mere look must not come from a page of another origin. That foreign pages cannot read answers is the
//! browser's business: nothing here allows it.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use web::Error;
use web::origin::{Origin, origin};

/// The layer.
pub async fn guard(request: Request, next: Next) -> Response {
    match check(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check(method: &Method, headers: &HeaderMap) -> Result<(), Error> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() || !host.is_some_and(is_loopback) {
        let detail = "The lab answers to 127.0.0.1, [::1] and localhost only; the header Host names another place.";
        return Err(Error::new(StatusCode::MISDIRECTED_REQUEST, detail));
    }
    let looks = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if !looks && origin(headers) == Origin::Foreign {
        let detail = "This came from a page of another origin; nothing was done.";
        return Err(Error::forbidden(detail));
    }
    Ok(())
}

/// A name or an address of this machine, with or without a port.
pub fn is_loopback(host: &str) -> bool {
    let (name, rest) = match host.strip_prefix('[') {
        Some(inside) => match inside.split_once(']') {
            Some((name, rest)) if name.parse().is_ok_and(|ip: Ipv6Addr| ip.is_loopback()) => {
                ("localhost", rest)
            }
            _ => return false,
        },
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port = |rest: &str| {
        let digits = rest.strip_prefix(':');
        digits.is_some_and(|digits| digits.parse::<u16>().is_ok())
    };
    let here = name.eq_ignore_ascii_case("localhost")
        || name.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback());
    here && (rest.is_empty() || port(rest))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_loopback_is_here() {
        for here in [
            "127.0.0.1",
            "127.0.0.1:8090",
            "127.1.2.3:1",
            "localhost",
            "LocalHost:80",
            "[::1]",
            "[::1]:8090",
        ] {
            assert!(is_loopback(here), "{here}");
        }
        for elsewhere in [
            "",
            ":8090",
            "evil.example",
            "evil.example:8090",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1:8090@evil.example",
            "127.0.0.1:",
            "127.0.0.1:x",
            "10.0.0.1:8090",
            "0.0.0.0",
            "::1",
            "[::2]:8090",
            "[::1",
            "[::1]x",
            "localhost.",
        ] {
            assert!(!is_loopback(elsewhere), "{elsewhere}");
        }
    }

    fn status(method: &Method, pairs: &[(&'static str, &'static str)]) -> Option<StatusCode> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        check(method, &headers).err().map(|error| error.status())
    }

    #[test]
    fn a_foreign_page_may_look_and_not_touch() {
        let host = ("host", "127.0.0.1:8090");
        let foreign = [host, ("origin", "http://evil.example")];
        let next_door = [host, ("origin", "http://127.0.0.1:8080")];
        let cross = [host, ("sec-fetch-site", "cross-site")];
        for headers in [foreign, next_door, cross] {
            for method in [Method::POST, Method::DELETE, Method::PUT] {
                let refused = status(&method, &headers);
                assert_eq!(refused, Some(StatusCode::FORBIDDEN), "{headers:?}");
            }
            assert_eq!(status(&Method::GET, &headers), None);
        }
        assert_eq!(status(&Method::POST, &[host]), None);
        let own = [host, ("origin", "http://127.0.0.1:8090")];
        assert_eq!(status(&Method::POST, &own), None);
    }

    #[test]
    fn a_name_that_was_made_to_point_here_is_not_ours() {
        let rebound = [("host", "evil.example"), ("origin", "http://evil.example")];
        for method in [Method::GET, Method::POST] {
            let refused = status(&method, &rebound);
            assert_eq!(refused, Some(StatusCode::MISDIRECTED_REQUEST));
        }
        let twice = [("host", "127.0.0.1"), ("host", "evil.example")];
        assert!(status(&Method::GET, &twice).is_some());
        assert!(status(&Method::GET, &[]).is_some());
    }
}
