//! Values with their units, as people write them: `100/s`, `15s`, `256B`, `1s..3s`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::raw::{Text, Wrong};
use crate::load::length;
use crate::load::schedule::Rate;

fn wrong(text: &Text, why: impl Into<String>) -> Wrong {
    Wrong::at(text.referenced, why)
}

/// A whole number.
pub(super) fn number<N>(text: &Text, min: u64, max: u64) -> Result<N, Wrong>
where
    N: TryFrom<u64>,
{
    let value = &text.value;
    let digits = !value.is_empty() && value.bytes().all(|c| c.is_ascii_digit());
    let number: Option<u64> = value.parse().ok().filter(|_| digits);
    let range = if max == u64::MAX {
        format!("from {min}")
    } else {
        format!("from {min} to {max}")
    };
    number
        .filter(|number| (min..=max).contains(number))
        .and_then(|number| N::try_from(number).ok())
        .ok_or_else(|| {
            wrong(
                text,
                format!("{value:?} is not right: a whole number {range} is needed"),
            )
        })
}

/// A length of time.
pub(super) fn time(text: &Text, range: RangeInclusive<Duration>) -> Result<Duration, Wrong> {
    let time = length::parse(&text.value).map_err(|why| wrong(text, why.0))?;
    if !range.contains(&time) {
        let (from, to) = (length::show(*range.start()), length::show(*range.end()));
        return Err(wrong(
            text,
            format!("{} is not right: {from} to {to}", text.value),
        ));
    }
    Ok(time)
}

/// A shortest and a longest time: `1s..3s`, or one for both.
pub(super) fn times(text: &Text) -> Result<(Duration, Duration), Wrong> {
    let (from, to) = text
        .value
        .split_once("..")
        .unwrap_or((&text.value, &text.value));
    let read = |part: &str| length::parse(part).map_err(|why| wrong(text, why.0));
    let (from, to) = (read(from)?, read(to)?);
    if from > to {
        return Err(wrong(
            text,
            format!("{}: the first time is longer than the second", text.value),
        ));
    }
    if to > Duration::from_mins(10) {
        return Err(wrong(text, format!("{}: at most 10m", text.value)));
    }
    Ok((from, to))
}

/// Requests a second: `100/s`, `50..200/s`, `100x3/s`.
pub(super) fn rate(text: &Text) -> Result<Rate, Wrong> {
    let value = &text.value;
    let rate = value.strip_suffix("/s").ok_or_else(|| {
        wrong(
            text,
            format!("{value:?} is no rate: right is 100/s, 50..200/s or 100x3/s"),
        )
    })?;
    rate.parse()
        .map_err(|why: crate::say::Usage| wrong(text, why.0))
}

/// A size: `256B`, `4KiB`.
pub(super) fn bytes(text: &Text) -> Result<usize, Wrong> {
    let value = &text.value;
    let (digits, factor) = match (value.strip_suffix("KiB"), value.strip_suffix('B')) {
        (Some(digits), _) => (digits, 1024),
        (None, Some(digits)) => (digits, 1),
        (None, None) => ("", 1),
    };
    let plain = digits.bytes().all(|c| c.is_ascii_digit());
    let size: Option<usize> = digits.parse().ok().filter(|_| plain);
    size.and_then(|size| size.checked_mul(factor))
        .ok_or_else(|| wrong(text, format!("{value:?} is no size: right is 256B or 4KiB")))
}
