//! What a sign-up must be like: names, an address, a password; all that is wrong is said at once.
//!
//! `weak.txt` is a list of our own, written down from what every publication of leaked passwords begins
//! with: cores such as `password` and `qwerty`, and whole ones. It is not the copy of a leak, and shorter than
//! those, which is made up for by what is done with it: case, digits and signs around a core, and letters
//! written as digits (`P@ssw0rd2024!`) make no new password of it.

use std::{collections::HashSet, sync::LazyLock};

use lettre::Address;
use messaging::text::is_visible;
use serde::{Deserialize, Serialize};

/// Longest name, in characters.
pub(super) const NAME_MAX: usize = 100;
/// Longest address (RFC 5321), in characters, which are ASCII here.
pub(super) const EMAIL_MAX: usize = 254;
/// Shortest password, in characters ..
pub(super) const PASSWORD_MIN: usize = 10;
/// .. and longest: more is no better, and only costs.
pub(super) const PASSWORD_MAX: usize = 256;
/// So many characters around a core make it a password; fewer do not.
const MORE_MIN: usize = 7;
/// Shorter names and parts of addresses may be in a password by chance.
const NAME_IN_PASSWORD: usize = 3;

/// What somebody typed; nothing where the field was not there.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Typed {
    pub(super) first_name: String,
    pub(super) last_name: String,
    pub(super) email: String,
    pub(super) password: String,
}

impl Typed {
    /// The names of the fields.
    pub(super) const FIELDS: [&'static str; 4] = ["firstName", "lastName", "email", "password"];
}

/// A sign-up that may be stored.
#[derive(Clone)]
pub(super) struct Right {
    pub(super) first_name: String,
    pub(super) last_name: String,
    pub(super) email: String,
    pub(super) password: String,
}

/// A field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Wrong {
    pub(super) field: &'static str,
    pub(super) detail: String,
}

impl Wrong {
    pub(super) fn new(field: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { field, detail }
    }
}

/// All of it right, or everything that is wrong.
pub(super) fn check(typed: &Typed) -> Result<Right, Vec<Wrong>> {
    let mut wrong = Vec::new();
    let mut take = |field, checked: Result<&str, String>| match checked {
        Ok(right) => right.to_owned(),
        Err(detail) => {
            wrong.push(Wrong::new(field, detail));
            String::new()
        }
    };
    let right = Right {
        first_name: take("firstName", name("first name", &typed.first_name)),
        last_name: take("lastName", name("last name", &typed.last_name)),
        email: take("email", email(&typed.email)),
        password: take("password", password(typed)),
    };
    if wrong.is_empty() {
        Ok(right)
    } else {
        Err(wrong)
    }
}

fn name<'a>(what: &str, typed: &'a str) -> Result<&'a str, String> {
    let name = typed.trim();
    let chars = name.chars().count();
    if name.is_empty() {
        return Err(format!("The {what} is missing."));
    }
    if chars > NAME_MAX {
        return Err(format!(
            "The {what} has {chars} characters; at most {NAME_MAX} are allowed."
        ));
    }
    if name.chars().any(|char| char != ' ' && !is_visible(char)) {
        return Err(format!("The {what} has a character that cannot be seen."));
    }
    Ok(name)
}

fn email(typed: &str) -> Result<&str, String> {
    let email = typed.trim();
    if email.is_empty() {
        return Err("The address is missing.".to_owned());
    }
    if email.len() > EMAIL_MAX {
        return Err(format!(
            "The address is longer than {EMAIL_MAX} characters."
        ));
    }
    // Others need a mail server that knows them, and have several spellings of one.
    if !email.is_ascii() {
        return Err("The address has a character that is not ASCII.".to_owned());
    }
    let none = || "This is no mail address, such as ada@example.test.".to_owned();
    let address: Address = email.parse().map_err(|_| none())?;
    let plain = |part: &str| !part.contains(['"', '[', ' ', '\\']);
    let right = plain(address.user()) && plain(address.domain()) && address.domain().contains('.');
    if right { Ok(email) } else { Err(none()) }
}

fn password(typed: &Typed) -> Result<&str, String> {
    let password = &typed.password;
    let chars = password.chars().count();
    if password.is_empty() {
        return Err("The password is missing.".to_owned());
    }
    if chars < PASSWORD_MIN {
        return Err(format!(
            "The password has {chars} characters; at least {PASSWORD_MIN} are needed."
        ));
    }
    if chars > PASSWORD_MAX {
        return Err(format!(
            "The password has {chars} characters; at most {PASSWORD_MAX} are allowed."
        ));
    }
    let lower = password.to_lowercase();
    let user = typed.email.trim().split('@').next().unwrap_or_default();
    for (what, part) in [
        ("the part of the address before the @", user),
        ("the first name", typed.first_name.trim()),
        ("the last name", typed.last_name.trim()),
    ] {
        if part.chars().count() >= NAME_IN_PASSWORD && lower.contains(&part.to_lowercase()) {
            return Err(format!("The password contains {what}."));
        }
    }
    if is_weak(&lower) {
        return Err("This password is one of those that are tried first: a common word or row of keys with little around it.".to_owned());
    }
    Ok(password)
}

static WEAK: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    let words = include_str!("weak.txt")
        .lines()
        .filter(|line| !line.starts_with('#'));
    words.flat_map(str::split_whitespace).collect()
});

fn is_weak(lower: &str) -> bool {
    let plain = spelled(lower);
    let few = lower.chars().collect::<HashSet<_>>().len() <= 4;
    few || is_row(lower)
        || [lower, plain.as_str()]
            .into_iter()
            .any(|word| WEAK.contains(word) || repeats(word) || with_little_around(word))
}

/// Letters that are written as digits or signs, as letters.
fn spelled(lower: &str) -> String {
    let letter = |char| match char {
        '@' | '4' => 'a',
        '0' => 'o',
        '1' | '!' => 'i',
        '3' => 'e',
        '$' | '5' => 's',
        '7' => 't',
        other => other,
    };
    lower.chars().map(letter).collect()
}

/// The same again and again: `abcabcabcabc`.
fn repeats(word: &str) -> bool {
    let length = word.len();
    let is_unit = |unit: usize| {
        length.is_multiple_of(unit)
            && word.is_char_boundary(unit)
            && word
                .as_bytes()
                .chunks(unit)
                .all(|part| part == &word.as_bytes()[..unit])
    };
    (1..=length / 2)
        .filter(|unit| *unit <= 6 || WEAK.contains(word.get(..*unit).unwrap_or_default()))
        .any(is_unit)
}

/// Each character the next one of the last, up or down: `1234567890`, `lkjihgfedcba`.
fn is_row(word: &str) -> bool {
    let codes: Vec<i64> = word
        .chars()
        .map(|char| i64::from(u32::from(char)))
        .collect();
    [1, -1].into_iter().any(|step| {
        codes
            .windows(2)
            .filter(|pair| pair[1] - pair[0] != step)
            .count()
            <= 1
    })
}

/// A core of the list, and fewer than [`MORE_MIN`] other characters, wherever they are.
fn with_little_around(word: &str) -> bool {
    let places: Vec<usize> = word
        .char_indices()
        .map(|(place, _)| place)
        .chain([word.len()])
        .collect();
    let chars = places.len() - 1;
    let shortest = chars.saturating_sub(MORE_MIN - 1).max(4);
    (shortest..=chars).any(|length| {
        (0..=chars - length).any(|from| WEAK.contains(&word[places[from]..places[from + length]]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed() -> Typed {
        Typed {
            first_name: "Ada".to_owned(),
            last_name: "Lovelace".to_owned(),
            email: "ada.l@example.test".to_owned(),
            password: "correct horse battery".to_owned(),
        }
    }

    fn wrong(change: impl Fn(&mut Typed)) -> Vec<&'static str> {
        let mut typed = typed();
        change(&mut typed);
        let wrong = check(&typed).err().unwrap_or_default();
        wrong.into_iter().map(|wrong| wrong.field).collect()
    }

    #[test]
    fn what_is_right_is_trimmed_and_kept() {
        let right = check(&Typed {
            first_name: "  Jürgen Ó ".to_owned(),
            email: " Ada.L@Example.test ".to_owned(),
            ..typed()
        });
        let right = right.unwrap_or_else(|wrong| panic!("{wrong:?}"));
        assert_eq!(
            (right.first_name.as_str(), right.email.as_str()),
            ("Jürgen Ó", "Ada.L@Example.test")
        );
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let all = check(&Typed::default()).err().unwrap();
        assert_eq!(
            all.iter().map(|wrong| wrong.field).collect::<Vec<_>>(),
            Typed::FIELDS
        );
    }

    #[test]
    fn names_are_seen_and_not_too_long() {
        for name in [
            "",
            "  ",
            "a\u{0}b",
            "a\nb",
            "a\u{202e}b",
            "a\u{200b}",
            &"x".repeat(NAME_MAX + 1),
        ] {
            assert_eq!(
                wrong(|typed| typed.first_name = name.to_owned()),
                ["firstName"],
                "{name:?}"
            );
            assert_eq!(
                wrong(|typed| typed.last_name = name.to_owned()),
                ["lastName"],
                "{name:?}"
            );
        }
        for name in ["X", "\u{674e}", "<b>O'Neil</b>", &"ä".repeat(NAME_MAX)] {
            assert!(
                wrong(|typed| typed.first_name = name.to_owned()).is_empty(),
                "{name:?}"
            );
        }
    }

    #[test]
    fn an_address_is_one_that_a_mail_server_takes() {
        let long = format!("{}@{}.test", "a".repeat(60), "b.".repeat(100));
        for email in [
            "",
            "ada",
            "ada@",
            "@example.test",
            "ada@localhost",
            "a b@example.test",
            "ada@[127.0.0.1]",
            "\"a b\"@example.test",
            "jürgen@example.test",
            "ada@example.test\r\nBcc: x@y.test",
            &long,
        ] {
            assert_eq!(
                wrong(|typed| typed.email = email.to_owned()),
                ["email"],
                "{email:?}"
            );
        }
        for email in [
            "a@b.test",
            "Ada.L+tag@sub.Example.test",
            "r1-17@example.test",
        ] {
            assert!(
                wrong(|typed| typed.email = email.to_owned()).is_empty(),
                "{email:?}"
            );
        }
    }

    #[test]
    fn a_password_that_is_tried_first_is_refused() {
        for weak in [
            "password12",
            "Password123!",
            "P@ssw0rd2024",
            "qwertyuiop",
            "QWERTY123456",
            "1234567890",
            "0987654321",
            "aaaaaaaaaaaa",
            "abcabcabcabc",
            "iloveyou1234",
            "passwordpassword",
            "letmein!!!!",
            "abcdefghijkl",
            "monkeymonkey",
            "1q2w3e4r5t6y",
            "zaq12wsxcde3",
            "!!welcome1!!",
            "administrator",
            "short",
            &"x y".repeat(100),
        ] {
            assert_eq!(
                wrong(|typed| typed.password = weak.to_owned()),
                ["password"],
                "{weak}"
            );
        }
        for good in [
            "correct horse battery",
            "k8#vQz!2pLw",
            "monkey-tulip-harbour",
            "xkcd936isnotenough",
            "\u{1f40e}\u{1f50b}\u{1f4ce}\u{2713}qmzrtlk",
        ] {
            assert!(
                wrong(|typed| typed.password = good.to_owned()).is_empty(),
                "{good}"
            );
        }
    }

    #[test]
    fn a_password_has_neither_name_nor_address_in_it() {
        for own in ["my-LOVELACE-pw-7", "xx-ada-xx-31-zq", "Ada.L#77#qmzr"] {
            assert_eq!(
                wrong(|typed| typed.password = own.to_owned()),
                ["password"],
                "{own}"
            );
        }
    }

    #[test]
    fn the_list_is_lower_case_and_has_nothing_twice() {
        let words: Vec<&str> = include_str!("weak.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .flat_map(str::split_whitespace)
            .collect();
        assert_eq!(words.len(), WEAK.len(), "something is there twice");
        assert!(words.len() >= 1_000, "{}", words.len());
        assert!(
            words
                .iter()
                .all(|word| word.len() >= 4 && word.to_lowercase() == **word)
        );
    }
}
