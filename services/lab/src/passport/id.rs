//! Ids as people type them on a command line.

use uuid::Uuid;

fn read(text: &str, wanted: &str) -> Result<Uuid, String> {
    text.parse().map_err(|_| wanted.to_owned())
}

/// That of a message.
///
/// # Errors
/// It is none: says what is wanted, and where it is found.
pub fn message(text: &str) -> Result<Uuid, String> {
    let wanted = "an id of a message is wanted, a UUID such as 019a2c4e-7b1d-7c3a-9f02-5d6e8b4a1c20: `lab dead list` and the search at /lab/messages show them";
    read(text, wanted)
}

/// That of a redrive.
///
/// # Errors
/// The same.
pub fn redrive(text: &str) -> Result<Uuid, String> {
    let wanted = "an id of a redrive is wanted, a UUID as `lab dead list` shows it";
    read(text, wanted)
}

/// That of a message or of a redrive.
///
/// # Errors
/// The same.
pub fn either(text: &str) -> Result<Uuid, String> {
    let wanted = "an id of a message or of a redrive is wanted, a UUID as `lab dead list` shows it";
    read(text, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_id_is_told_in_words_of_ours() {
        let id = Uuid::nil();
        for parse in [message, redrive, either] {
            assert_eq!(parse(&id.to_string()), Ok(id));
            for wrong in ["abc", "nonsense", "3", ""] {
                let said = parse(wrong).unwrap_err();
                assert!(said.contains("is wanted"), "{said}");
            }
        }
    }
}
