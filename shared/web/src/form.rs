//! A form that was sent, read strictly: what is not understood is refused, never guessed.
//!
//! The usual decoders replace broken UTF-8, keep the last of two equal fields, or turn `a[]=x` into
//! a list; each of those would store something the sender did not write.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
};
use percent_encoding::percent_decode;

use crate::{body, error::Error};

/// The body of a form, not yet taken apart.
#[derive(Debug)]
pub struct FormBody(Bytes);

impl<S: Send + Sync> FromRequest<S> for FormBody {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        body::read(request, "application/x-www-form-urlencoded")
            .await
            .map(Self)
    }
}

impl FormBody {
    /// Whether it is an object of JSON by its beginning, which that of no form of ours is.
    pub fn begins_like_json(&self) -> bool {
        self.0.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
    }

    /// The fields, if they are among these and each is there at most once.
    pub fn fields(&self, known: &[&'static str]) -> Result<Form, Error> {
        Form::parse(&self.0, known)
    }
}

/// The fields of a form.
#[derive(Debug, PartialEq, Eq)]
pub struct Form(Vec<(&'static str, String)>);

impl Form {
    fn parse(body: &[u8], known: &[&'static str]) -> Result<Self, Error> {
        let mut fields: Vec<(&'static str, String)> = Vec::new();
        for pair in body
            .split(|byte| *byte == b'&')
            .filter(|pair| !pair.is_empty())
        {
            let split = pair
                .iter()
                .position(|byte| *byte == b'=')
                .unwrap_or(pair.len());
            let value = pair.get(split + 1..).unwrap_or_default();
            let name = decode(&pair[..split])
                .ok_or_else(|| Error::bad_request("The name of a field is not valid UTF-8."))?;
            let Some(name) = known.iter().find(|known| **known == name) else {
                let name: String = name.chars().take(40).collect();
                let known = known.join("\" and \"");
                let detail = format!("The form has no field \"{name}\", only \"{known}\".");
                return Err(Error::bad_request(detail));
            };
            if fields.iter().any(|(earlier, _)| earlier == name) {
                let detail = format!("The field \"{name}\" is there more than once.");
                return Err(Error::bad_request(detail));
            }
            let value = decode(value).ok_or_else(|| {
                Error::bad_request(format!("The field \"{name}\" is not valid UTF-8."))
            })?;
            fields.push((name, value));
        }
        Ok(Self(fields))
    }

    /// A field that may be missing.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.as_str())
    }

    /// A field that must be there.
    pub fn need(&self, name: &str) -> Result<&str, Error> {
        self.get(name)
            .ok_or_else(|| Error::bad_request(format!("The field \"{name}\" is missing.")))
    }
}

/// A `%` that no two hexadecimal digits follow stands for itself, as the URL standard says.
fn decode(encoded: &[u8]) -> Option<String> {
    let spaced: Vec<u8> = encoded
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    String::from_utf8(percent_decode(&spaced).collect()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["message", "key"];

    fn refused(body: &str) -> String {
        Form::parse(body.as_bytes(), KNOWN)
            .unwrap_err()
            .detail()
            .to_owned()
    }

    #[test]
    fn a_form_is_read_as_it_was_written() {
        let form = Form::parse(b"message=a+b%2B%C3%A4%0D%0A%26=%&key=", KNOWN).unwrap();
        assert_eq!(form.get("message"), Some("a b+\u{e4}\r\n&=%"));
        assert_eq!(form.get("key"), Some(""));
        let form = Form::parse(b"&message&&", KNOWN).unwrap();
        assert_eq!((form.get("message"), form.get("key")), (Some(""), None));
        assert!(form.need("key").is_err());
    }

    #[test]
    fn what_is_not_understood_is_refused_with_the_reason() {
        let unknown = "The form has no field \"message[]\", only \"message\" and \"key\".";
        assert_eq!(refused("message[]=x"), unknown);
        assert_eq!(refused("message%5B%5D=x"), unknown);
        assert_eq!(
            refused("message=a&message=b"),
            "The field \"message\" is there more than once."
        );
        assert_eq!(
            refused("message=%ff"),
            "The field \"message\" is not valid UTF-8."
        );
        assert_eq!(refused("%ff=a"), "The name of a field is not valid UTF-8.");
        assert!(Form::parse(b"message=\xff", KNOWN).is_err());
    }

    #[test]
    fn a_replacement_character_that_was_really_sent_is_kept() {
        let form = Form::parse("message=%EF%BF%BD".as_bytes(), KNOWN).unwrap();
        assert_eq!(form.get("message"), Some("\u{fffd}"));
    }
}
