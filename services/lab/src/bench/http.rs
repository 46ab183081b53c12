//! One connection of the load client: a request at a time, kept open for as long as the server keeps it.
//!
//! Without a pool and without retries, since both cost time that a benchmark would measure. Where the server closes the
//! connection after its answer, the next request opens another one, and its time counts.

use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONNECTION, HOST, HeaderValue};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A place that is asked again and again.
pub(super) struct Connection {
    address: SocketAddr,
    host: HeaderValue,
    open: Option<(SendRequest<Full<Bytes>>, Driver)>,
}

impl Connection {
    /// Not connected yet.
    pub(super) fn to(address: SocketAddr) -> Result<Self> {
        Ok(Self {
            address,
            host: HeaderValue::try_from(address.to_string())?,
            open: None,
        })
    }

    /// Sends one request and reads its answer to the end.
    pub(super) async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<Answer> {
        if let Ok(answer) = timeout(LIMIT, self.exchange(request)).await {
            return answer;
        }
        self.open = None;
        bail!("no answer within {} s", LIMIT.as_secs())
    }

    async fn exchange(&mut self, mut request: Request<Full<Bytes>>) -> Result<Answer> {
        request.headers_mut().insert(HOST, self.host.clone());
        let reused = self.open.is_some();
        let again = reused.then(|| request.clone());
        match self.once(request).await {
            // it was closed while nobody looked; a POST of ours carries a key, so it counts once
            Err(_) if reused => {
                self.open = None;
                let again = again.context("a request that was kept")?;
                self.once(again).await
            }
            answer => answer,
        }
    }

    async fn once(&mut self, request: Request<Full<Bytes>>) -> Result<Answer> {
        let (mut sender, mut driver) = match self.open.take() {
            Some(open) => open,
            None => connect(self.address).await?,
        };
        let mut over = false;
        let answer = {
            let talk = async {
                sender.ready().await?;
                let answer = sender.send_request(request).await?;
                let (head, body) = answer.into_parts();
                let body = body.collect().await?.to_bytes();
                Ok::<_, hyper::Error>(Answer {
                    status: head.status,
                    headers: head.headers,
                    body,
                })
            };
            tokio::pin!(talk);
            loop {
                tokio::select! {
                    biased;
                    answer = &mut talk => break answer?,
                    // the server closed; what it said is still to be read
                    _ = &mut driver, if !over => over = true,
                }
            }
        };
        // whoever says so closes, though it may not be seen yet
        let last = answer.headers.get(CONNECTION);
        let last = last.is_some_and(|word| word.as_bytes().eq_ignore_ascii_case(b"close"));
        if !over && !last && !sender.is_closed() {
            self.open = Some((sender, driver));
        }
        Ok(answer)
    }
}

async fn connect(address: SocketAddr) -> Result<(SendRequest<Full<Bytes>>, Driver)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    Ok((sender, Box::pin(driver)))
}

/// The address in `http://127.0.0.1:8080`.
pub(super) fn address(url: &str) -> Result<SocketAddr> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let rest = rest.trim_end_matches('/');
    rest.parse().with_context(|| format!("{url} is no address"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers each connection's requests with these, then closes it; tells how many connections there were.
    async fn serve(listener: TcpListener, connections: &[&[&str]]) {
        for answers in connections {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in *answers {
                let mut request = [0; 4096];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    }

    fn get() -> Request<Full<Bytes>> {
        Request::new(Full::new(Bytes::new()))
    }

    #[tokio::test]
    async fn a_connection_is_kept_and_replaced_when_it_was_closed() {
        const KEPT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
        const LAST: &str =
            "HTTP/1.1 202 Accepted\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = serve(listener, &[&[KEPT, LAST], &[KEPT], &[KEPT]]);
        let client = async {
            let mut connection = Connection::to(address).unwrap();
            let mut seen = Vec::new();
            for _ in 0..4 {
                let answer = connection.ask(get()).await.unwrap();
                seen.push((answer.status.as_u16(), answer.body.len()));
            }
            seen
        };
        let ((), seen) = tokio::join!(server, client);
        // the second said that it closes, the third closed without a word
        assert_eq!(seen, [(200, 2), (202, 0), (200, 2), (200, 2)]);
    }

    #[tokio::test]
    async fn where_nobody_listens_that_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut connection = Connection::to(address).unwrap();
        assert!(connection.ask(get()).await.is_err());
    }

    #[test]
    fn an_address_is_read_from_its_url() {
        assert_eq!(address("http://127.0.0.1:80/").unwrap().port(), 80);
        assert!(address("http://localhost").is_err());
    }
}
