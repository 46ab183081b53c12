//! Ports: finding free ones, who holds one that is taken, and who is connected to one.
//!
//! A server opens its port seconds after it was chosen, and many stacks may start at once (tests do). So a chosen port
//! is reserved by a name that the kernel gives to one process only and takes back when that process is gone.

use std::fs;
use std::net::{self, Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::{Context, Result, bail};

use super::process;

/// Below the range that the kernel uses for outgoing connections, so that no client takes a server's port while it restarts.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Whether something could listen here now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Keeps other stacks from choosing the port.
#[derive(Debug)]
pub struct Reserved {
    _name: UnixListener,
}

/// Reserves this port, if it is free and nobody else did.
pub fn reserve(port: u16) -> Option<Reserved> {
    let name = SocketAddr::from_abstract_name(format!("unacked-port-{port}")).ok()?;
    let reserved = Reserved {
        _name: UnixListener::bind_addr(&name).ok()?,
    };
    is_free(port).then_some(reserved)
}

/// A free loopback port, reserved.
pub fn free() -> Result<(u16, Reserved)> {
    for _ in 0..500 {
        let port = rand::random_range(RANGE);
        if let Some(reserved) = reserve(port) {
            return Ok((port, reserved));
        }
    }
    bail!(
        "no free port found between {} and {}",
        RANGE.start,
        RANGE.end
    )
}

/// Says who listens on a port, as well as the kernel tells us.
pub fn holder(port: u16) -> String {
    let found = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .find_map(|table| listener(&table, port));
    let Some((inode, uid)) = found else {
        return "another process".to_owned();
    };
    match owner(inode) {
        Some(who) => format!("{} (pid {})", who.program, who.pid),
        None => format!("a process of the user with id {uid}"),
    }
}

/// The inode and owner of the socket that listens on `port`, from a table of `/proc/net`.
fn listener(table: &str, port: u16) -> Option<(u64, u32)> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, hex) = fields.get(1)?.rsplit_once(':')?;
        let here = u16::from_str_radix(hex, 16).ok()? == port && *fields.get(3)? == LISTEN;
        here.then_some((fields.get(9)?.parse().ok()?, fields.get(7)?.parse().ok()?))
    })
}

fn owner(inode: u64) -> Option<process::Process> {
    let socket = format!("socket:[{inode}]");
    process::all().into_iter().find(|process| {
        let Ok(files) = fs::read_dir(format!("/proc/{}/fd", process.pid)) else {
            return false;
        };
        files.flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == socket.as_str())
        })
    })
}

/// The open connections that somebody here has accepted at this address, as the kernel lists them: the other ends' addresses.
///
/// The list has our ends: the others may stand in another one, as addresses of IPv6.
pub fn connections_to(address: net::SocketAddr) -> Result<Vec<String>> {
    let table = fs::read_to_string("/proc/net/tcp");
    let table = table.context("the kernel does not list its connections")?;
    Ok(established_to(&table, address))
}

fn established_to(table: &str, address: net::SocketAddr) -> Vec<String> {
    let net::SocketAddr::V4(address) = address else {
        return Vec::new();
    };
    // the table may be long: connections that are over stay in it for a minute
    let number = u32::from_ne_bytes(address.ip().octets());
    let wanted = format!("{number:08X}:{:04X}", address.port());
    let open = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        (local == wanted && state == "01").then(|| endpoint(remote))?
    });
    open.map(|client| client.to_string()).collect()
}

/// `0100007F:1F90`: the address in the machine's order of bytes, the port in the reader's.
fn endpoint(text: &str) -> Option<net::SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let address = u32::from_str_radix(address, 16).ok()?;
    let address = Ipv4Addr::from(address.to_ne_bytes());
    Some((address, u16::from_str_radix(port, 16).ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port));
        let pid = std::process::id();
        assert!(
            holder(port).ends_with(&format!("(pid {pid})")),
            "{}",
            holder(port)
        );
    }

    #[test]
    fn a_connection_is_not_a_listener() {
        let table = "head\n 0: 0100007F:1F90 0100007F:9C40 01 0:0 0:0 0 33 0 777 1\n 1: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 33 0 888 1\n";
        assert_eq!(listener(table, 8080), Some((888, 33)));
        assert_eq!(listener(table, 8081), None);
    }

    #[test]
    fn a_reserved_port_is_given_once() {
        let (port, reserved) = free().unwrap();
        assert!(reserve(port).is_none());
        drop(reserved);
        assert!(reserve(port).is_some());
    }

    #[test]
    fn connections_to_a_proxy_are_the_established_ones() {
        let table = "  sl  local_address rem_address   st tx_queue
   0: 0100007F:1F90 00000000:0000 0A 0
   1: 0100007F:C350 0100007F:1F90 01 0
   2: 0100007F:C351 0100007F:1F90 06 0
   3: 0100007F:1F90 0100007F:C350 01 0
";
        let proxy = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(established_to(table, proxy), ["127.0.0.1:50000"]);
    }
}
