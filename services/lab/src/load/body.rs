//! What a request of a load says: which run and which number it is, and letters up to its size.

use bytes::{Bytes, BytesMut};

use crate::run::RunId;
use crate::run::requests::Offered;

/// The work of a message that begins so fails at every attempt (`WORK_POISON_PREFIX`).
const POISON: &str = "poison:";

/// The JSON of a request. The same request has the same one at every try: the key must stand for one text.
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
            serde_json::from_slice(&body(&run, offered(7, true), 20, batch)).unwrap()
        };
        assert_eq!(read(1)["message"], "poison:r1 7 abcdefgh");
        let many = read(3);
        assert_eq!(many.as_array().unwrap().len(), 3);
        assert_eq!(many[2]["message"], "poison:r1 7 abcdefgh");
    }
}
