//! A door: a port of loopback behind which a container is, whatever its address is by now.
//!
//! A container that is started again may get another address, and who watches it should not have to know. A door is open
//! until this process ends, to this machine only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::Project;

const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Opens one before a port of the container with this id.
#[expect(
    clippy::disallowed_methods,
    reason = "it is open for whoever holds its address, until the process ends"
)]
pub(super) async fn open(project: &Arc<Project>, id: &str, port: u16) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (project, id) = (Arc::clone(project), id.to_owned());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (project, id) = (Arc::clone(&project), id.clone());
            tokio::spawn(async move { pass(client, &project, &id, port).await });
        }
    });
    Ok(address)
}

/// Nobody behind the door: the client is hung up on.
async fn pass(mut client: TcpStream, project: &Arc<Project>, id: &str, port: u16) {
    for fresh in [false, true] {
        let Some(address) = project.address(id, fresh).await else {
            continue;
        };
        let connecting = TcpStream::connect((address, port));
        if let Ok(Ok(mut server)) = timeout(CONNECT_LIMIT, connecting).await {
            // small answers are not held back to be put together
            let _ = client.set_nodelay(true).and(server.set_nodelay(true));
            let _ = copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}
