//! Who may do what: everybody may look, and whoever signed in may do something.
//!
//! One signs in with a token. The session that begins then is the console's own: it is in the memory of this process, so it
//! needs no Redis and ends with it. Wrong tokens are limited, for each address and for all together; while the limit is
//! reached nobody's token is even looked at.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::COOKIE;
use axum::http::request::Parts;
use web::origin::equal;

/// How long one stays signed in.
const SESSION: Duration = Duration::from_hours(12);
/// So many are signed in at once; the oldest goes first.
const SESSIONS_MAX: usize = 100;
/// Wrong tokens in [`WINDOW`] from one address, and from all.
const WRONG_PER_ADDRESS: usize = 5;
const WRONG_IN_ALL: usize = 60;
const WINDOW: Duration = Duration::from_mins(1);
const NAME: &str = "unacked_console";

/// Who asks. The guard puts one into each request; without it nobody is signed in.
#[derive(Debug, Clone, Default)]
pub struct Visitor {
    /// Whether this browser showed the token.
    pub signed_in: bool,
    /// What each form of this visitor must send along, in the hidden field `csrf` or the header `X-CSRF-Token`; empty
    /// for one who is not signed in.
    pub csrf: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

/// What became of a token that was shown.
#[derive(Debug, PartialEq, Eq)]
pub enum Shown {
    /// It is right; the cookie to set.
    Right(String),
    Wrong,
    /// Too many were wrong: try again after so many seconds.
    TooMany(u32),
    /// This console was started without a token, so nobody can sign in.
    NoToken,
}

/// Who is signed in, and how many tokens were wrong. Clones share everything.
#[derive(Clone)]
pub struct Door(Arc<Inner>);

struct Inner {
    token: String,
    /// What is said of the cookie.
    flags: &'static str,
    sessions: Mutex<HashMap<String, Session>>,
    /// Of the last [`WINDOW`], oldest first.
    wrong: Mutex<VecDeque<(Instant, String)>>,
}

struct Session {
    csrf: String,
    began: Instant,
}

impl Door {
    /// With an empty token it stays closed. With `secure` the cookie travels over HTTPS only.
    pub fn new(token: String, secure: bool) -> Self {
        let flags = if secure {
            "HttpOnly; SameSite=Strict; Secure"
        } else {
            "HttpOnly; SameSite=Strict"
        };
        Self(Arc::new(Inner {
            token,
            flags,
            sessions: Mutex::default(),
            wrong: Mutex::default(),
        }))
    }

    /// Whether anybody can sign in.
    pub fn can_open(&self) -> bool {
        !self.0.token.is_empty()
    }

    /// Who sends these headers.
    pub fn visitor(&self, headers: &HeaderMap) -> Visitor {
        let mut sessions = lock(&self.0.sessions);
        sessions.retain(|_, session| session.began.elapsed() < SESSION);
        // an id of 256 random bits is found by its hash: how long that takes tells nothing of use
        let session = id(headers).and_then(|id| sessions.get(id));
        session.map_or_else(Visitor::default, |session| Visitor {
            signed_in: true,
            csrf: session.csrf.clone(),
        })
    }

    /// Somebody at this address shows a token.
    pub fn sign_in(&self, address: &str, token: &str) -> Shown {
        self.sign_in_at(address, token, Instant::now())
    }

    fn sign_in_at(&self, address: &str, token: &str, now: Instant) -> Shown {
        if !self.can_open() {
            return Shown::NoToken;
        }
        let mut wrong = lock(&self.0.wrong);
        while let Some((at, _)) = wrong.front()
            && now.duration_since(*at) >= WINDOW
        {
            wrong.pop_front();
        }
        let here = wrong.iter().filter(|(_, from)| from == address);
        let oldest_here = here.clone().next().map(|(at, _)| *at);
        let full = if wrong.len() >= WRONG_IN_ALL {
            wrong.front().map(|(at, _)| *at)
        } else if here.count() >= WRONG_PER_ADDRESS {
            oldest_here
        } else {
            None
        };
        if let Some(since) = full {
            let left = WINDOW.saturating_sub(now.duration_since(since));
            return Shown::TooMany(u32::try_from(left.as_secs()).unwrap_or(0) + 1);
        }
        if !equal(token, &self.0.token) {
            wrong.push_back((now, address.to_owned()));
            return Shown::Wrong;
        }
        let (id, csrf) = (secret(), secret());
        let mut sessions = lock(&self.0.sessions);
        if sessions.len() >= SESSIONS_MAX
            && let Some(oldest) = sessions.iter().min_by_key(|(_, one)| one.began)
        {
            let oldest = oldest.0.clone();
            sessions.remove(&oldest);
        }
        sessions.insert(id.clone(), Session { csrf, began: now });
        let (seconds, flags) = (SESSION.as_secs(), self.0.flags);
        Shown::Right(format!(
            "{NAME}={id}; Path=/lab; Max-Age={seconds}; {flags}"
        ))
    }

    /// Ends the session of these headers; gives the cookie that removes theirs.
    pub fn sign_out(&self, headers: &HeaderMap) -> String {
        if let Some(id) = id(headers) {
            lock(&self.0.sessions).remove(id);
        }
        format!("{NAME}=; Path=/lab; Max-Age=0; {}", self.0.flags)
    }
}

/// 256 bits.
fn secret() -> String {
    format!(
        "{:032x}{:032x}",
        rand::random::<u128>(),
        rand::random::<u128>()
    )
}

fn id(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter();
    let mut pairs = cookies
        .filter_map(|cookies| cookies.to_str().ok())
        .flat_map(|cookies| cookies.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(NAME)?.strip_prefix('='))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn with(cookie: &str) -> HeaderMap {
        let pair = cookie.split(';').next().unwrap();
        let both = format!("other=1; {pair}");
        HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(both).unwrap())])
    }

    #[test]
    fn whoever_shows_the_token_is_known_until_the_sign_out() {
        let door = Door::new("right".to_owned(), false);
        assert!(!door.visitor(&HeaderMap::new()).signed_in);
        assert_eq!(door.sign_in("a", "wrong"), Shown::Wrong);
        let Shown::Right(cookie) = door.sign_in("a", "right") else {
            panic!("not let in");
        };
        assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
        let visitor = door.visitor(&with(&cookie));
        assert!(visitor.signed_in && visitor.csrf.len() == 64);
        assert!(!door.visitor(&with("unacked_console=guess")).signed_in);
        door.sign_out(&with(&cookie));
        assert!(!door.visitor(&with(&cookie)).signed_in);
    }

    #[test]
    fn wrong_tokens_close_the_door_for_a_minute_even_to_the_right_one() {
        let door = Door::new("right".to_owned(), false);
        let now = Instant::now();
        for _ in 0..WRONG_PER_ADDRESS {
            assert_eq!(door.sign_in_at("a", "wrong", now), Shown::Wrong);
        }
        assert!(matches!(
            door.sign_in_at("a", "right", now),
            Shown::TooMany(61)
        ));
        // others are not shut out by one
        assert!(matches!(
            door.sign_in_at("b", "right", now),
            Shown::Right(_)
        ));
        assert!(matches!(
            door.sign_in_at("a", "right", now + WINDOW),
            Shown::Right(_)
        ));
        for n in 0..WRONG_IN_ALL {
            door.sign_in_at(&n.to_string(), "wrong", now + WINDOW);
        }
        let shown = door.sign_in_at("fresh", "right", now + WINDOW);
        assert!(matches!(shown, Shown::TooMany(_)), "{shown:?}");
    }

    #[test]
    fn without_a_token_nobody_gets_in() {
        let door = Door::new(String::new(), false);
        assert_eq!(door.sign_in("a", ""), Shown::NoToken);
    }

    #[test]
    fn sessions_are_bounded() {
        let door = Door::new("right".to_owned(), false);
        let cookies: Vec<Shown> = (0..=SESSIONS_MAX)
            .map(|_| door.sign_in("a", "right"))
            .collect();
        assert_eq!(lock(&door.0.sessions).len(), SESSIONS_MAX);
        let Some(Shown::Right(last)) = cookies.last() else {
            panic!("not let in");
        };
        assert!(door.visitor(&with(last)).signed_in);
    }
}
