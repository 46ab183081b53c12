//! The tokens by which an account is known: JSON Web Tokens, signed with HS256 and nothing else.
//!
//! A token that fits is true wherever it came from, on every node, without asking anybody: so its end
//! and everything that it says of itself are checked, and whether somebody has logged out with it is
//! asked of the table `revoked` ([`super::account`]).
//!
//! Keys change while nodes run: first every node is given the new key as `SIGNUP_KEY_OLD`, then the
//! new one as `SIGNUP_KEY` and the one of before as `SIGNUP_KEY_OLD`, and when the last token of before has
//! ended, none as `SIGNUP_KEY_OLD`. At no step is there a token that some node does not take.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use daemon::WrongSetting;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode, errors::Error,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const ISSUER: &str = "unacked-signup";
const AUDIENCE: &str = "unacked-account";
/// As long as the digest of HS256: a shorter key is easier to guess than the signature.
const KEY_MIN: usize = 32;
/// How far the clocks of nodes may be apart, in seconds.
pub(crate) const LEEWAY_SECS: u64 = 30;

/// The settings of tokens.
#[derive(Clone, clap::Args)]
pub struct TokenArgs {
    /// The key that signs tokens, 32 bytes or more, the same on all nodes; `openssl rand -base64 48` makes one
    #[arg(long, env = "SIGNUP_KEY", hide_env_values = true)]
    pub signup_key: Option<String>,
    /// A second key whose tokens are accepted too, while keys change: the new one first, and the old one once all nodes know the new one
    #[arg(long, env = "SIGNUP_KEY_OLD", hide_env_values = true)]
    pub signup_key_old: Option<String>,
    /// Seconds after which a token ends
    #[arg(long, env = "TOKEN_SECS", default_value_t = 43_200, value_parser = clap::value_parser!(u32).range(1..=31_536_000))]
    pub token_secs: u32,
}

/// Without the keys.
impl std::fmt::Debug for TokenArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenArgs")
            .field("token_secs", &self.token_secs)
            .finish_non_exhaustive()
    }
}

impl TokenArgs {
    /// What makes and reads tokens.
    pub(crate) fn tokens(&self) -> Result<Tokens, WrongSetting> {
        let key = self.signup_key.as_deref().unwrap_or_default();
        let old = self.signup_key_old.as_deref().filter(|old| !old.is_empty());
        let mut accepted = vec![long_enough("SIGNUP_KEY", key)?];
        if let Some(old) = old {
            accepted.push(long_enough("SIGNUP_KEY_OLD", old)?);
        }
        Ok(Tokens {
            key: EncodingKey::from_secret(key.as_bytes()),
            accepted: accepted.into_iter().map(DecodingKey::from_secret).collect(),
            life: Duration::from_secs(self.token_secs.into()),
        })
    }
}

fn long_enough<'a>(name: &'static str, key: &'a str) -> Result<&'a [u8], WrongSetting> {
    if key.len() < KEY_MIN {
        let right = "32 bytes or more, the same on all nodes, such as what `openssl rand -base64 48` prints";
        return Err(WrongSetting::secret(name, right));
    }
    Ok(key.as_bytes())
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    iss: String,
    aud: String,
    /// Whose account.
    pub(crate) sub: Uuid,
    /// Of this token alone.
    pub(crate) jti: Uuid,
    iat: i64,
    pub(crate) exp: i64,
}

impl Claims {
    /// When it ends.
    pub(crate) fn ends_at(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.exp, 0).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

/// A token, made.
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) ends_at: DateTime<Utc>,
}

/// Makes tokens and reads them.
#[derive(Clone)]
pub(crate) struct Tokens {
    key: EncodingKey,
    /// The one that signs, and the other one while keys change.
    accepted: Vec<DecodingKey>,
    pub(crate) life: Duration,
}

impl Tokens {
    /// A token for this account, from now on.
    pub(crate) fn issue(&self, user_id: Uuid, now: DateTime<Utc>) -> Result<Issued, Error> {
        let life = TimeDelta::from_std(self.life).unwrap_or(TimeDelta::MAX);
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: user_id,
            jti: Uuid::new_v4(),
            iat: now.timestamp(),
            exp: (now + life).timestamp(),
        };
        Ok(Issued {
            token: encode(&Header::new(Algorithm::HS256), &claims, &self.key)?,
            ends_at: claims.ends_at(),
        })
    }

    /// What it says, if it is one of ours and has not ended.
    pub(crate) fn read(&self, token: &str) -> Option<Claims> {
        let mut rules = Validation::new(Algorithm::HS256);
        rules.leeway = LEEWAY_SECS;
        rules.set_issuer(&[ISSUER]);
        rules.set_audience(&[AUDIENCE]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let mut keys = self.accepted.iter();
        keys.find_map(|key| decode::<Claims>(token, key, &rules).ok())
            .map(|read| read.claims)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEY: &str = "the first key, which has more than 32 bytes";
    const OTHER: &str = "the other key, which has more than 32 bytes";

    fn tokens(key: &str, old: Option<&str>) -> Tokens {
        args(Some(key), old)
            .tokens()
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn args(key: Option<&str>, old: Option<&str>) -> TokenArgs {
        TokenArgs {
            signup_key: key.map(str::to_owned),
            signup_key_old: old.map(str::to_owned),
            token_secs: 60,
        }
    }

    fn signed(claims: &serde_json::Value, algorithm: Algorithm) -> String {
        let key = EncodingKey::from_secret(KEY.as_bytes());
        encode(&Header::new(algorithm), claims, &key).unwrap()
    }

    #[test]
    fn a_key_is_32_bytes_or_more_and_is_not_repeated_where_it_is_refused() {
        for (key, old) in [
            (None, None),
            (Some("short"), None),
            (Some(KEY), Some("short")),
        ] {
            let said = args(key, old).tokens().err().unwrap().to_string();
            assert!(said.contains("openssl rand -base64 48"), "{said}");
            assert!(!said.contains("short"), "{said}");
        }
        assert!(args(Some(KEY), Some("")).tokens().is_ok(), "none is given");
        assert!(!format!("{:?}", args(Some(KEY), Some(OTHER))).contains("bytes"));
    }

    #[test]
    fn a_token_is_read_by_whoever_has_its_key() {
        let now = daemon::clock::now();
        let user = Uuid::now_v7();
        let issued = tokens(KEY, None).issue(user, now).unwrap();
        let read = |tokens: Tokens| tokens.read(&issued.token).map(|claims| claims.sub);
        assert_eq!(read(tokens(KEY, None)), Some(user));
        assert_eq!(read(tokens(OTHER, Some(KEY))), Some(user));
        assert_eq!(read(tokens(OTHER, None)), None);
        let again = tokens(KEY, None).issue(user, now).unwrap();
        assert_ne!(again.token, issued.token, "each has an id of its own");
    }

    #[test]
    fn everything_that_a_token_says_is_checked() {
        let reader = tokens(KEY, None);
        let now = daemon::clock::now().timestamp();
        let right = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": Uuid::now_v7(), "jti": Uuid::new_v4(),
                           "iat": now, "exp": now + 60});
        assert!(reader.read(&signed(&right, Algorithm::HS256)).is_some());
        for (claim, wrong) in [
            ("iss", json!("somebody")),
            ("aud", json!("something")),
            ("sub", json!("no uuid")),
            ("exp", json!(now - 60)),
            ("jti", json!(7)),
        ] {
            let mut claims = right.clone();
            claims[claim] = wrong;
            assert!(
                reader.read(&signed(&claims, Algorithm::HS256)).is_none(),
                "{claim}"
            );
            let _ = claims.as_object_mut().unwrap().remove(claim);
            assert!(
                reader.read(&signed(&claims, Algorithm::HS256)).is_none(),
                "no {claim}"
            );
        }
        for other in [Algorithm::HS384, Algorithm::HS512] {
            assert!(reader.read(&signed(&right, other)).is_none(), "{other:?}");
        }
        // {"alg":"none"}, and the claims without a signature.
        let token = signed(&right, Algorithm::HS256);
        let body = token.split('.').nth(1).unwrap();
        assert!(
            reader
                .read(&format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}."))
                .is_none()
        );
        let mut wild = token.clone();
        wild.replace_range(token.len() - 3.., "AAA");
        for wrong in ["", "..", "a.b.c", &wild] {
            assert!(reader.read(wrong).is_none(), "{wrong}");
        }
    }
}
