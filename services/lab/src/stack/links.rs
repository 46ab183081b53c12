//! Proxies between a node and its servers, there only with `lab up --faults`: places where a fault can make a link slow,
//! silent, refusing, or cut it.
//!
//! Each node has its own, so that one node's link can break while the others' stay whole. They are in the road of every
//! byte: benchmarks run without.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use proxy::Proxy;

use super::servers::{Addresses, Which};

/// The links of one node. They are reset when this is dropped.
#[derive(Debug)]
pub struct Links(BTreeMap<Which, Proxy>);

impl Links {
    /// One proxy before each server.
    pub async fn start(servers: &Addresses) -> Result<Self> {
        let mut links = BTreeMap::new();
        for which in Which::ALL {
            let url = servers.url(which);
            let target = proxy::target(url);
            let target = target.with_context(|| {
                format!("no proxy can stand before this URL of {}", which.title())
            })?;
            links.insert(which, Proxy::start(target).await?);
        }
        Ok(Self(links))
    }

    /// The proxy before a server.
    pub fn to(&self, which: Which) -> Option<&Proxy> {
        self.0.get(&which)
    }

    /// The same servers, but through the proxies.
    pub fn through(&self, servers: &Addresses) -> Addresses {
        let url = |which: Which| match self.to(which) {
            Some(proxy) => proxy.url(servers.url(which)),
            None => servers.url(which).to_owned(),
        };
        Addresses {
            database: url(Which::Postgres),
            redis: url(Which::Redis),
            amqp: url(Which::RabbitMq),
            management: servers.management.clone(),
        }
    }
}
