//! A text that may be sent: trimmed, not too long, and with something to see. Whoever accepts messages asks for no less.

/// Longest text, in characters.
pub const TEXT_MAX: usize = 10_000;

/// A text that may be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(String);

/// Why a text may not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Nothing of it would be seen.
    #[error("The message is empty.")]
    Empty,
    /// It is longer than [`TEXT_MAX`].
    #[error("The message has {chars} characters; at most {TEXT_MAX} are allowed.")]
    TooLong {
        /// So long.
        chars: usize,
    },
    /// PostgreSQL has no such text.
    #[error("The message has a NUL character, which cannot be stored.")]
    Nul,
}

impl TextError {
    /// The same of what is called otherwise, such as `content`.
    pub fn about(&self, what: &str) -> String {
        self.to_string().replacen("message", what, 1)
    }
}

impl Text {
    /// Trims and checks it.
    ///
    /// # Errors
    /// Why not.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        let text = text.trim();
        let chars = text.chars().count();
        match () {
            () if text.contains('\0') => Err(TextError::Nul),
            () if !text.contains(is_visible) => Err(TextError::Empty),
            () if chars > TEXT_MAX => Err(TextError::TooLong { chars }),
            () => Ok(Self(text.to_owned())),
        }
    }

    /// As it is stored and sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether anything is seen of it.
///
/// Not of a space, a control character, one of those that Unicode calls default ignorable (joiners,
/// marks of direction, fillers, selectors, tags), an anchor of annotations or the blank pattern of
/// Braille.
pub fn is_visible(char: char) -> bool {
    let invisible = char.is_whitespace()
        || char.is_control()
        || matches!(
            char,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{2800}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        );
    !invisible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_trimmed_and_checked() {
        assert_eq!(Text::parse("  hi\n").unwrap().as_str(), "hi");
        assert_eq!(Text::parse(" \t\n"), Err(TextError::Empty));
        assert_eq!(Text::parse("a\0b"), Err(TextError::Nul));
        assert_eq!(Text::parse("\0"), Err(TextError::Nul));
        assert!(Text::parse(&"ä".repeat(TEXT_MAX)).is_ok());
        assert_eq!(
            Text::parse(&"ä".repeat(TEXT_MAX + 1)),
            Err(TextError::TooLong {
                chars: TEXT_MAX + 1
            })
        );
    }

    #[test]
    fn what_is_wrong_is_said_of_what_it_is_called() {
        assert_eq!(TextError::Empty.about("content"), "The content is empty.");
        let long = TextError::TooLong { chars: 10_001 }.about("content");
        assert_eq!(
            long,
            "The content has 10001 characters; at most 10000 are allowed."
        );
    }

    #[test]
    fn a_text_of_which_nothing_is_seen_is_empty() {
        for nothing in [
            "\u{200b}",
            "\u{feff}",
            " \u{2060}\u{200c}\n\u{200d} ",
            "\u{ad}",
            "\u{200e}\u{200f}\u{202e}\u{2069}\u{61c}",
            "\u{3164}\u{115f}\u{ffa0}\u{2800}",
            "\u{fe0f}\u{e0041}\u{180e}",
            "\u{1}\u{7f}\u{85}",
        ] {
            assert_eq!(Text::parse(nothing), Err(TextError::Empty), "{nothing:?}");
        }
        for seen in [
            "\u{feff}a\u{200b}",
            "\u{1f469}\u{200d}\u{1f4bb}",
            "\u{301}",
            "\u{fffd}",
            ".",
        ] {
            assert_eq!(Text::parse(seen).unwrap().as_str(), seen);
        }
    }
}
