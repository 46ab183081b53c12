//! Lengths of time as people write them: `500ms`, `30s`, `10m`, `1h`.

use std::time::Duration;

use crate::say::Usage;

const UNITS: [(&str, f64); 4] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3_600.0)];
const MAX: f64 = 7.0 * 24.0 * 3_600.0;

/// Reads a number with its unit.
pub fn parse(text: &str) -> Result<Duration, Usage> {
    let wrong = || {
        Usage(format!(
            "{text:?} is no length of time: right is 500ms, 30s, 10m or 1h"
        ))
    };
    let end = text.find(|c: char| c.is_ascii_lowercase());
    let (number, unit) = text.split_at(end.ok_or_else(wrong)?);
    let (_, unit) = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(wrong)?;
    let digits = number.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    let number: f64 = number.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
    let seconds = number * unit;
    if seconds > MAX {
        return Err(Usage(format!("{text} is too long: at most 168h")));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// The shortest way to write it.
pub fn show(length: Duration) -> String {
    let ms = length.as_millis();
    match ms {
        0 => "0s".to_owned(),
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        _ => format!("{ms}ms"),
    }
}

/// For `#[serde(with)]`: as text.
pub mod text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes it as [`super::show`] does.
    pub fn serialize<S: Serializer>(length: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&super::show(*length))
    }

    /// Reads it as [`super::parse`] does.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        super::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// For `#[serde(with)]`: as text, or nothing.
pub mod maybe {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    /// Writes it as [`super::show`] does.
    pub fn serialize<S: Serializer>(
        length: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        length.map(super::show).serialize(serializer)
    }

    /// Reads it as [`super::parse`] does.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::parse(&text).map_err(D::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_a_number_with_a_unit() {
        for (text, ms) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("1.5s", 1_500),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        for wrong in [
            "", "30", "s", "-1s", "1 s", "1e3s", "1d", "1.2.3s", "9999h", "3sec",
        ] {
            let error = parse(wrong).unwrap_err().to_string();
            assert!(error.contains(wrong) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn it_is_shown_as_it_can_be_read() {
        for text in ["500ms", "1500ms", "30s", "90s", "2m", "3h", "0s"] {
            assert_eq!(show(parse(text).unwrap()), text);
        }
    }
}
