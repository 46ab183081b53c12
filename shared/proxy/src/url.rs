//! Only as much of URLs as a proxy needs.

use std::net::SocketAddr;

/// The host and port of a URL; the port may be left out where everybody knows it.
pub fn target(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let (_, host, _) = parts(rest)?;
    if port_of(host).is_some() {
        return Some(host.to_owned());
    }
    let port = match scheme {
        "amqp" => 5672,
        "postgres" | "postgresql" => 5432,
        "redis" => 6379,
        "http" => 80,
        _ => return None,
    };
    Some(format!("{host}:{port}"))
}

pub(crate) fn through(url: &str, address: SocketAddr) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let (user, _, path) = parts(rest)?;
    Some(format!("{scheme}://{user}{address}{path}"))
}

/// What stands before the host, the host with its port, and what stands behind it.
fn parts(rest: &str) -> Option<(&str, &str, &str)> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rfind('@').map_or(0, |at| at + 1);
    let (user, host) = authority.split_at(host);
    (!host.is_empty()).then_some((user, host, path))
}

fn port_of(host: &str) -> Option<u16> {
    // An IPv6 address stands in brackets and has colons of its own.
    let (_, port) = host.rsplit_once(':')?;
    port.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_leads_to_its_server() {
        for (url, host) in [
            ("amqp://u:p@broker:5671/%2f", Some("broker:5671")),
            ("amqp://u:p@broker/%2f", Some("broker:5672")),
            ("postgres://u:p%40x@10.0.0.1/db?x=1", Some("10.0.0.1:5432")),
            ("redis://:p@[::1]:7/0", Some("[::1]:7")),
            ("redis://cache", Some("cache:6379")),
            ("ftp://h", None),
            ("amqp:///x", None),
            ("nonsense", None),
        ] {
            assert_eq!(target(url).as_deref(), host, "{url}");
        }
    }
}
