//! The way to the mail server: one connection for one mail, and what its words mean for the mail.
//!
//! Which word was said at which step decides. "No such mailbox" about the recipient is about this mail, and
//! so is "try later", also about who writes: a server that has had enough of us for now has the mail wait. A server that is
//! not there, that goes silent before it has the mail, that has no TLS, or refuses for good what `MAIL_FROM` says, says
//! nothing about this mail: whoever runs it can mend that, and no mail is lost meanwhile.
//!
//! When the whole mail is on its way and no answer comes, nobody knows whether it was taken. To ask again may mean a
//! second copy, so that is counted as this mail's failure: nobody gets copies without end.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use axum::http::Uri;
use clap::ValueEnum;
use daemon::WrongSetting;
use lettre::{
    Address,
    message::Mailbox,
    transport::smtp::{
        Error,
        authentication::{Credentials, Mechanism},
        client::{AsyncSmtpConnection, Certificate, TlsParameters},
        commands::{Data, Mail, Rcpt},
        extension::ClientId,
    },
};
use percent_encoding::percent_decode_str;
use tokio::time::timeout;

/// How long connecting, with TLS and the password, may take ..
const OPEN_LIMIT: Duration = Duration::from_secs(20);
/// .. how long one word of the server ..
const WORD_LIMIT: Duration = Duration::from_secs(20);
/// .. and its yes to the whole mail, which it may look at first: as long as RFC 5321 (4.5.3.2.6) gives it, since who
/// leaves earlier makes a copy.
const YES_LIMIT: Duration = Duration::from_mins(10);
/// Begins each certificate of a PEM file.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// The settings of the mail server.
#[derive(Clone, clap::Args)]
pub struct SmtpArgs {
    /// The mail server: smtp://HOST:PORT, or with USER:PASSWORD@ before the host; smtps:// for TLS from the first byte on
    #[arg(long, env = "SMTP_URL", hide_env_values = true)]
    pub smtp_url: String,
    /// Whether a connection with smtp:// goes over to TLS: if the server offers it, or always, or never. With a password, and a
    /// server that is not on this machine, it must be: required
    #[arg(
        long,
        env = "SMTP_STARTTLS",
        value_enum,
        default_value = "opportunistic"
    )]
    pub smtp_starttls: Starttls,
    /// A PEM file of certificates: TLS with servers whose certificate one of them has signed is fine too, beside those that
    /// the public authorities have signed
    #[arg(long, env = "SMTP_CA_FILE")]
    pub smtp_ca_file: Option<PathBuf>,
    /// Who writes the mails: "Unacked <welcome@example.test>"
    #[arg(
        long,
        env = "MAIL_FROM",
        default_value = "Unacked <welcome@example.test>"
    )]
    pub mail_from: String,
    /// What a mail is known by: its message's id, the same however often it is sent; or a new one each time, with which
    /// nobody can tell that a mail that came twice is one (the unsafe alternative, for an experiment)
    #[arg(long, env = "MAIL_ID", value_enum, default_value = "message")]
    pub mail_id: MailId,
}

/// Without the URL, which may hold a password.
impl std::fmt::Debug for SmtpArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmtpArgs")
            .field("smtp_starttls", &self.smtp_starttls)
            .field("smtp_ca_file", &self.smtp_ca_file)
            .field("mail_from", &self.mail_from)
            .field("mail_id", &self.mail_id)
            .finish_non_exhaustive()
    }
}

/// Whether a plain connection goes over to TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Starttls {
    /// Never.
    Off,
    /// If the server offers it.
    Opportunistic,
    /// Nothing is sent without.
    Required,
}

/// What the Message-ID is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MailId {
    /// The message's id.
    Message,
    /// Nothing: it is another one each time.
    Random,
}

/// A mail server, checked once at start.
#[derive(Clone)]
pub(crate) struct Server {
    host: String,
    port: u16,
    /// TLS from the first byte on.
    at_once: bool,
    starttls: Starttls,
    tls: TlsParameters,
    credentials: Option<Credentials>,
    pub(crate) from: Mailbox,
}

impl SmtpArgs {
    /// The mail server of these settings.
    pub(crate) fn server(&self) -> Result<Server, WrongSetting> {
        let wrong = || {
            let right = "smtp://USER:PASSWORD@HOST:PORT, USER:PASSWORD@ only where the server wants it, or smtps://";
            WrongSetting::secret("SMTP_URL", right)
        };
        let url: Uri = self.smtp_url.parse().map_err(|_| wrong())?;
        let at_once = match url.scheme_str() {
            Some("smtp") => false,
            Some("smtps") => true,
            _ => return Err(wrong()),
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(wrong());
        }
        let authority = url.authority().ok_or_else(wrong)?;
        let (who, place) = match authority.as_str().rsplit_once('@') {
            None => (None, authority.as_str()),
            Some((who, place)) => (Some(who), place),
        };
        // One that is no number is no port, and nobody may take the usual one for it.
        let port = place.strip_prefix(authority.host()).unwrap_or_default();
        if !port.is_empty() && authority.port_u16().is_none() {
            return Err(wrong());
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(wrong());
        }
        let credentials = match who {
            None => None,
            Some(who) => {
                let (user, password) = who.split_once(':').ok_or_else(wrong)?;
                let plain = |text| {
                    percent_decode_str(text)
                        .decode_utf8()
                        .ok()
                        .map(String::from)
                };
                let user = plain(user).ok_or_else(wrong)?;
                Some(Credentials::new(user, plain(password).ok_or_else(wrong)?))
            }
        };
        // "If the server offers it" is no help: who listens on the way takes the offer out.
        let plain = !at_once && self.smtp_starttls != Starttls::Required;
        if credentials.is_some() && plain && !on_this_machine(&host) {
            let why = "there is a password in SMTP_URL, which would go over a plain link; right is required, or smtps:// in SMTP_URL";
            return Err(WrongSetting::because("SMTP_STARTTLS", why));
        }
        let tls = self.tls(&host)?;
        let from = self.mail_from.parse().ok();
        let from = from.filter(|_| !self.mail_from.contains(char::is_control));
        let from = from.ok_or_else(|| {
            let right = "Unacked <welcome@example.test>, a name and an address";
            WrongSetting::new("MAIL_FROM", self.mail_from.clone(), right)
        })?;
        Ok(Server {
            port: authority
                .port_u16()
                .unwrap_or(if at_once { 465 } else { 25 }),
            at_once,
            starttls: self.smtp_starttls,
            tls,
            credentials,
            from,
            host,
        })
    }

    /// How TLS is spoken with this host, and with whom.
    fn tls(&self, host: &str) -> Result<TlsParameters, WrongSetting> {
        let mut tls = TlsParameters::builder(host.to_owned());
        let mut setting = "SMTP_URL";
        if let Some(file) = &self.smtp_ca_file {
            setting = "SMTP_CA_FILE";
            let wrong = |why| WrongSetting::because(setting, format!("{}: {why}", file.display()));
            let pem = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
            // What has none is read without an error, as none.
            if !String::from_utf8_lossy(&pem).contains(CERTIFICATE) {
                return Err(wrong(format!("it has no {CERTIFICATE}")));
            }
            let certificates = Certificate::from_pem(&pem);
            tls = tls.add_root_certificate(certificates.map_err(|error| wrong(words(&error)))?);
        }
        tls.build().map_err(|error| {
            let why = format!("TLS cannot be spoken so: {}", words(&error));
            WrongSetting::because(setting, why)
        })
    }
}

/// By its name or its address; a name is not asked about.
fn on_this_machine(host: &str) -> bool {
    let address = host.parse::<IpAddr>().ok();
    host.eq_ignore_ascii_case("localhost")
        || address.is_some_and(|address| address.to_canonical().is_loopback())
}

/// Why a mail was not taken, as far as is known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotSent {
    /// It says nothing about the mail: the server is away, or does not want us.
    #[error("the mail server does not do it: {0}")]
    Away(String),
    /// Not this mail, not now.
    #[error("the mail server says later: {0}")]
    Later(String),
    /// Not this mail, ever.
    #[error("the mail server refuses it: {0}")]
    Never(String),
    /// It was sent whole, and what came of it nobody said.
    #[error("whether the mail server has taken it is not known: {0}")]
    Unknown(String),
}

/// What the server's words are about.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Who writes: the same for all mails.
    Sender,
    /// Whom to, and what.
    Mail,
}

impl Server {
    /// Sends a mail; when this says yes, the server has taken it. Dropped after the last byte: nobody knows whether it has.
    pub(crate) async fn send(&self, to: &Address, mail: &[u8]) -> Result<(), NotSent> {
        let mut connection = timeout(OPEN_LIMIT, self.open())
            .await
            .map_err(|_| NotSent::Away(format!("not reached within {OPEN_LIMIT:?}")))?
            .map_err(|error| NotSent::Away(words(&error)))?;
        let taken = self.hand_over(&mut connection, to, mail).await;
        // Whatever it says to that: the mail is taken, or is not. Without waiting for long, since nothing depends on it.
        let _ = timeout(Duration::from_secs(1), connection.quit()).await;
        taken
    }

    async fn open(&self) -> Result<AsyncSmtpConnection, Error> {
        let hello = ClientId::default();
        let server = (self.host.as_str(), self.port);
        let mut connection = AsyncSmtpConnection::connect_tokio1(
            server,
            Some(OPEN_LIMIT),
            &hello,
            self.at_once.then(|| self.tls.clone()),
            None,
        )
        .await?;
        let upgrades = match self.starttls {
            _ if self.at_once => false,
            Starttls::Off => false,
            Starttls::Opportunistic => connection.can_starttls(),
            // Where the server has no TLS, an error then.
            Starttls::Required => true,
        };
        if upgrades {
            connection.starttls(self.tls.clone(), &hello).await?;
        }
        if let Some(credentials) = &self.credentials {
            let ways = [Mechanism::Plain, Mechanism::Login];
            connection.auth(&ways, credentials).await?;
        }
        Ok(connection)
    }

    async fn hand_over(
        &self,
        connection: &mut AsyncSmtpConnection,
        to: &Address,
        mail: &[u8],
    ) -> Result<(), NotSent> {
        let from = Mail::new(Some(self.from.email.clone()), Vec::new());
        within(WORD_LIMIT, Step::Sender, connection.command(from)).await?;
        let to = Rcpt::new(to.clone(), Vec::new());
        within(WORD_LIMIT, Step::Mail, connection.command(to)).await?;
        within(WORD_LIMIT, Step::Mail, connection.command(Data)).await?;
        match timeout(YES_LIMIT, connection.message(mail)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) if error.status().is_some() => Err(meaning(Step::Mail, &error)),
            Ok(Err(error)) => Err(NotSent::Unknown(words(&error))),
            Err(_) => Err(NotSent::Unknown(format!("no answer within {YES_LIMIT:?}"))),
        }
    }
}

async fn within<T>(
    limit: Duration,
    step: Step,
    said: impl Future<Output = Result<T, Error>>,
) -> Result<(), NotSent> {
    match timeout(limit, said).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(meaning(step, &error)),
        Err(_) => Err(NotSent::Away(format!("no answer within {limit:?}"))),
    }
}

fn meaning(step: Step, error: &Error) -> NotSent {
    let said = words(error);
    match (step, error.status().map(u16::from)) {
        (Step::Mail, Some(code)) if about_the_mail(code) && code >= 500 => NotSent::Never(said),
        (_, Some(code)) if about_the_mail(code) && code < 500 => NotSent::Later(said),
        _ => NotSent::Away(said),
    }
}

/// Neither that it closes down (421) nor that it wants a password, or another one.
fn about_the_mail(code: u16) -> bool {
    !matches!(code, 421 | 530 | 534 | 535 | 538)
}

/// An error with its cause, without the addresses that a server may repeat.
fn words(error: &Error) -> String {
    let mut said = error.to_string();
    if let Some(cause) = std::error::Error::source(error) {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    let word = |word: &str| {
        if word.contains('@') {
            "(address)".to_owned()
        } else {
            word.to_owned()
        }
    };
    said.split_whitespace()
        .map(word)
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(300)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(url: &str) -> SmtpArgs {
        SmtpArgs {
            smtp_url: url.to_owned(),
            smtp_starttls: Starttls::Opportunistic,
            smtp_ca_file: None,
            mail_from: "Unacked <welcome@example.test>".to_owned(),
            mail_id: MailId::Message,
        }
    }

    #[test]
    fn a_server_is_named_by_a_url() {
        let server = args("smtp://127.0.0.1:1025").server().unwrap();
        assert_eq!((server.host.as_str(), server.port), ("127.0.0.1", 1025));
        assert!(server.credentials.is_none() && !server.at_once);
        let server = args("smtps://me%40x:p%3Aw@mail.example.test")
            .server()
            .unwrap();
        assert_eq!(server.port, 465);
        assert!(server.at_once);
        let right = Credentials::new("me@x".to_owned(), "p:w".to_owned());
        assert_eq!(server.credentials, Some(right));
        for wrong in [
            "",
            "mail",
            "http://mail",
            "smtp://",
            "smtp://me@mail",
            "smtp://mail/x",
            "smtp://mail?tls=required",
        ] {
            let said = args(wrong).server().err().map(|error| error.to_string());
            assert!(
                said.is_some_and(|said| said.contains("SMTP_URL")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_password_leaves_this_machine_by_tls_only() {
        let started = |url: &str, starttls| {
            let args = SmtpArgs {
                smtp_starttls: starttls,
                ..args(url)
            };
            args.server().map(drop).map_err(|error| error.to_string())
        };
        for starttls in [Starttls::Off, Starttls::Opportunistic] {
            let said = started("smtp://me:hidden@mail.example.test", starttls).unwrap_err();
            assert!(said.contains("SMTP_STARTTLS"), "{said}");
            assert!(!said.contains("hidden"), "{said}");
            for fine in [
                "smtp://mail.example.test",
                "smtps://me:hidden@mail.example.test",
                "smtp://me:hidden@localhost:1025",
                "smtp://me:hidden@127.0.0.1:1025",
                "smtp://me:hidden@[::1]:1025",
            ] {
                assert_eq!(started(fine, starttls), Ok(()), "{fine}");
            }
        }
        let required = started("smtp://me:hidden@mail.example.test", Starttls::Required);
        assert_eq!(required, Ok(()));
    }

    #[test]
    fn a_wrong_setting_and_a_debug_line_repeat_no_password() {
        let args = args("smtp://me:secret@mail:x");
        let said = args.server().err().unwrap().to_string();
        assert!(
            !said.contains("secret") && !format!("{args:?}").contains("secret"),
            "{said}"
        );
    }
}
