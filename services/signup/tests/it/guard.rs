//! A mail server that wants TLS and a password, in front of one that has neither.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivatePkcs8KeyDer},
};

/// Who may send, as it stands in `SMTP_URL`: the user `me@x` with the password `p:w` ..
pub(crate) const USER: &str = "me%40x:p%3Aw";
/// .. and as a client says it: a zero before each of the two, in base64 (RFC 4616).
const MAY_SEND: &str = "AUTH PLAIN AG1lQHgAcDp3";

/// When TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begins {
    AtOnce,
    ByStarttls,
}

/// A guard, and what it was told before TLS began.
pub(crate) struct Guard {
    pub(crate) address: SocketAddr,
    /// The certificate of who signed its own.
    pub(crate) authority: PathBuf,
    plain: Arc<Mutex<Vec<String>>>,
}

impl Guard {
    /// In front of this server, with a certificate for this name.
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    pub(crate) async fn before(mail: SocketAddr, begins: Begins, name: &str) -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = authority.self_signed(&key).unwrap().pem();
        let file = std::env::temp_dir().join(format!("guard-{}.pem", uuid::Uuid::new_v4()));
        std::fs::write(&file, pem).unwrap();
        let signs = Issuer::new(authority, key);

        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let own = own.signed_by(&key, &signs).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], key.into())
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(tls));

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let guard = Self {
            address: listener.local_addr().unwrap(),
            authority: file,
            plain: Arc::default(),
        };
        let plain = Arc::clone(&guard.plain);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (tls, plain) = (tls.clone(), Arc::clone(&plain));
                // A client that leaves, or does not believe the certificate, ends its own conversation only.
                tokio::spawn(async move { converse(client, &tls, begins, &plain, mail).await });
            }
        });
        guard
    }

    /// What was said without TLS, by all clients.
    pub(crate) fn plain(&self) -> Vec<String> {
        self.plain.lock().unwrap().clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.authority);
    }
}

async fn converse(
    client: TcpStream,
    tls: &TlsAcceptor,
    begins: Begins,
    plain: &Mutex<Vec<String>>,
    mail: SocketAddr,
) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    if begins == Begins::ByStarttls {
        say(&mut client, "220 guard").await?;
        loop {
            let line = line(&mut client).await?;
            let answer = match line.split(' ').next() {
                Some("EHLO") => "250-guard\r\n250 STARTTLS",
                Some("STARTTLS") => "220 go on",
                _ => "530 5.7.0 not without TLS",
            };
            plain.lock().unwrap().push(line);
            say(&mut client, answer).await?;
            if answer.starts_with("220") {
                break;
            }
        }
    }
    let mut client = BufReader::new(tls.accept(client.into_inner()).await?);
    if begins == Begins::AtOnce {
        say(&mut client, "220 guard").await?;
    }
    loop {
        let line = line(&mut client).await?;
        let answer = match line.split(' ').next() {
            Some("EHLO") => "250-guard\r\n250 AUTH PLAIN LOGIN",
            _ if line == MAY_SEND => "235 2.7.0 come in",
            Some("AUTH") => "535 5.7.8 nobody of that name and password",
            _ => "530 5.7.0 log in first",
        };
        say(&mut client, answer).await?;
        if answer.starts_with("235") {
            break;
        }
    }
    let mut server = BufReader::new(TcpStream::connect(mail).await?);
    line(&mut server).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

async fn say(to: &mut (impl AsyncWrite + Unpin), words: &str) -> std::io::Result<()> {
    to.write_all(format!("{words}\r\n").as_bytes()).await?;
    to.flush().await
}

async fn line<S: AsyncRead + Unpin>(from: &mut BufReader<S>) -> std::io::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line).await? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}
