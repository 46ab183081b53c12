//! What a request of a load says: which run and which number it is, and letters up to its size.

use bytes::{Bytes, BytesMut};
use serde_json::json;

use crate::run::requests::Offered;
use crate::run::{Job, RunId};

/// The work of a message that begins so fails at every attempt (`WORK_POISON_PREFIX`).
const POISON: &str = "poison:";

/// Long, on no list, and with nothing of a name or an address in it.
const PASSWORD: &str = "correct 7 horses battery";
/// Where nobody has an address.
const HOST: &str = "@example.test";

/// The JSON of a request. The same request has the same one at every try: the key must stand for one text.
pub(super) fn request(to: Job, run: &RunId, offered: Offered, size: usize, batch: u32) -> Bytes {
    let (key, number) = (run.key(offered.number), offered.number);
    let one = match to {
        Job::Messages => return body(run, offered, size, batch),
        Job::Notes => json!({"content": text(run, offered, size)}),
        Job::Leases => json!({"run": run, "number": number, "text": text(run, offered, size)}),
        Job::Signup => json!({
            "firstName": "Ada",
            "lastName": format!("Load {number}"),
            "email": format!("{key}{HOST}"),
            "password": PASSWORD,
        }),
    };
    one.to_string().into()
}

/// Which request of the run a mail to this address belongs to; none: it is not of this run.
pub(crate) fn number_of_address(run: &RunId, address: &str) -> Option<u64> {
    run.number_of(address.strip_suffix(HOST)?)
}

/// Whether the work on this text of a lease fails at every attempt.
pub(crate) fn is_poison(text: &str) -> bool {
    text.starts_with(POISON)
}

/// The same of messages: one, or an array of several.
pub(crate) fn body(run: &RunId, offered: Offered, size: usize, batch: u32) -> Bytes {
    let text = text(run, offered, size);
    let one = br#"{"message":""}"#.len() + text.len();
    let mut body = BytesMut::with_capacity((one + 1) * batch as usize + 1);
    let add = |body: &mut BytesMut| {
        // the text is letters, digits, '-', ':' and spaces: nothing to escape
        body.extend_from_slice(br#"{"message":""#);
        body.extend_from_slice(text.as_bytes());
        body.extend_from_slice(br#""}"#);
    };
    if batch == 1 {
        add(&mut body);
    } else {
        body.extend_from_slice(b"[");
        for n in 0..batch {
            if n > 0 {
                body.extend_from_slice(b",");
            }
            add(&mut body);
        }
        body.extend_from_slice(b"]");
    }
    body.freeze()
}

/// The run and the number, then letters up to the size; a size too small for the name cuts it.
fn text(run: &RunId, offered: Offered, size: usize) -> String {
    let number = offered.number;
    let (mark, name) = if offered.poison {
        (POISON, size.saturating_sub(POISON.len()))
    } else {
        ("", size)
    };
    let mut text = format!("{mark}{run} {number} ");
    text.truncate(mark.len() + name);
    let missing = size.saturating_sub(text.len());
    text.extend(('a'..='z').cycle().take(missing));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(number: u64, poison: bool) -> Offered {
        Offered {
            number,
            due_us: 0,
            messages: 1,
            poison,
        }
    }

    #[test]
    fn a_text_is_as_long_as_wanted_and_says_whose_it_is() {
        let run: RunId = "r1".parse().unwrap();
        for size in 1..300 {
            assert_eq!(text(&run, offered(12, false), size).len(), size);
        }
        for size in 7..300 {
            let poison = text(&run, offered(12, true), size);
            assert!(
                poison.starts_with("poison:") && poison.len() == size,
                "{poison}"
            );
        }
        assert_eq!(text(&run, offered(12, true), 1), "poison:");
        assert_eq!(text(&run, offered(12, false), 10), "r1 12 abcd");
    }

    #[test]
    fn a_body_is_json_with_as_many_messages_as_wanted() {
        let run: RunId = "r1".parse().unwrap();
        let read = |batch| -> serde_json::Value {
            serde_json::from_slice(&request(Job::Messages, &run, offered(7, true), 20, batch))
                .unwrap()
        };
        assert_eq!(read(1)["message"], "poison:r1 7 abcdefgh");
        let many = read(3);
        assert_eq!(many.as_array().unwrap().len(), 3);
        assert_eq!(many[2]["message"], "poison:r1 7 abcdefgh");
    }

    #[test]
    fn each_service_is_told_what_it_takes_and_whose_it_is() {
        let run: RunId = "r1".parse().unwrap();
        let said = |to, poison| -> serde_json::Value {
            serde_json::from_slice(&request(to, &run, offered(7, poison), 20, 1)).unwrap()
        };
        assert_eq!(said(Job::Notes, false)["content"], "r1 7 abcdefghijklmno");
        let lease = said(Job::Leases, true);
        assert_eq!((&lease["run"], &lease["number"]), (&json!("r1"), &json!(7)));
        assert!(is_poison(lease["text"].as_str().unwrap()));
        let account = said(Job::Signup, false);
        let address = account["email"].as_str().unwrap();
        assert_eq!(number_of_address(&run, address), Some(7));
        assert_eq!(number_of_address(&"r2".parse().unwrap(), address), None);
        assert_eq!(
            number_of_address(&run, "r1-0000000007@elsewhere.test"),
            None
        );
    }
}
