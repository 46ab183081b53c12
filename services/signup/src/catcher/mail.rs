//! A mail that was caught, taken apart.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A mail that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caught {
    pub at: DateTime<Utc>,
    /// As in its header, without the brackets.
    pub message_id: String,
    /// Of the envelope.
    pub from: String,
    /// Of the envelope.
    pub to: Vec<String>,
    pub subject: String,
    /// Type and content of each part that is no multipart.
    pub parts: Vec<Part>,
}

/// A part of a mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Such as `text/plain`.
    pub media: String,
    pub content: String,
}

impl Caught {
    /// The content of the first part of this type.
    pub fn part(&self, media: &str) -> Option<&str> {
        let mut parts = self.parts.iter();
        let found = parts.find(|part| part.media == media);
        found.map(|part| part.content.as_str())
    }
}

/// A mail as we write them: no more of the format is understood than that.
pub(super) fn read(mail: &str, from: String, to: Vec<String>) -> Caught {
    let (head, body) = mail.split_once("\r\n\r\n").unwrap_or((mail, ""));
    let mut parts = Vec::new();
    take_apart(head, body, &mut parts);
    Caught {
        at: daemon::clock::now(),
        message_id: header(head, "message-id")
            .trim_matches(['<', '>'])
            .to_owned(),
        from,
        to,
        subject: header(head, "subject"),
        parts,
    }
}

fn take_apart(head: &str, body: &str, parts: &mut Vec<Part>) {
    let kind = header(head, "content-type");
    let media = kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let boundary = kind
        .split(';')
        .find_map(|rest| rest.trim().strip_prefix("boundary="));
    if let Some(boundary) = boundary {
        let between = format!("--{}", boundary.trim_matches('"'));
        // What is before the first and after the last is nothing.
        for part in body
            .split(&between)
            .skip(1)
            .take_while(|part| !part.starts_with("--"))
        {
            let part = part.strip_prefix("\r\n").unwrap_or(part);
            let (head, body) = part.split_once("\r\n\r\n").unwrap_or((part, ""));
            take_apart(head, body, parts);
        }
        return;
    }
    let content = match header(head, "content-transfer-encoding")
        .to_ascii_lowercase()
        .as_str()
    {
        "quoted-printable" => quoted_printable(body),
        "base64" => base64(body),
        _ => body.as_bytes().to_vec(),
    };
    let content = String::from_utf8_lossy(&content).replace("\r\n", "\n");
    parts.push(Part {
        media,
        content: content.trim_end().to_owned(),
    });
}

/// Its value with its continuation lines; empty where there is none.
fn header(head: &str, name: &str) -> String {
    let mut found: Option<String> = None;
    for line in head.lines() {
        if let (Some(value), true) = (&mut found, line.starts_with([' ', '\t'])) {
            value.push(' ');
            value.push_str(line.trim());
        } else if found.is_some() {
            break;
        } else if let Some((named, value)) = line.split_once(':')
            && named.trim().eq_ignore_ascii_case(name)
        {
            found = Some(value.trim().to_owned());
        }
    }
    found.unwrap_or_default()
}

fn quoted_printable(text: &str) -> Vec<u8> {
    let joined = text.replace("=\r\n", "");
    let mut rest = joined.as_bytes();
    let mut plain = Vec::with_capacity(rest.len());
    while let Some((&byte, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .and_then(|code| std::str::from_utf8(code).ok());
        let code = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        if let (b'=', Some(code)) = (byte, code) {
            plain.push(code);
            rest = &after[2..];
        } else {
            plain.push(byte);
            rest = after;
        }
    }
    plain
}

fn base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut plain = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for six in text.bytes().filter_map(value) {
        bits = (bits << 6) | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            plain.push(u8::try_from((bits >> count) & 0xff).unwrap_or_default());
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_of_several_parts_is_taken_apart() {
        let mail = "Subject: Hi\r\n there\r\nMessage-ID: <7@x>\r\nContent-Type: multipart/alternative;\r\n \
                    boundary=\"b\"\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\
                    Content-Transfer-Encoding: quoted-printable\r\n\r\nJ=C3=BCrgen=\r\n!\r\n\r\n\
                    --b\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\nPGI+aGk8\r\nL2I+\r\n\
                    --b--\r\n";
        let caught = read(mail, "a@x".to_owned(), vec!["b@x".to_owned()]);
        assert_eq!(
            (caught.subject.as_str(), caught.message_id.as_str()),
            ("Hi there", "7@x")
        );
        assert_eq!(caught.part("text/plain"), Some("J\u{fc}rgen!"));
        assert_eq!(caught.part("text/html"), Some("<b>hi</b>"));
        assert_eq!(caught.part("text/csv"), None);
    }

    #[test]
    fn a_mail_of_one_part_is_that_part() {
        let caught = read("Subject: x\r\n\r\nplain\r\n", String::new(), Vec::new());
        assert_eq!(caught.parts.len(), 1);
        assert_eq!(caught.parts[0].content, "plain");
    }
}
