//! Sizes, durations, modes and numbers as people write and read them.

use std::time::Duration;

const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// Parses a size such as `4MiB`, `64k` or `65536`; units are powers of 1024.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim_start();
    let power = if unit.is_empty() {
        0
    } else {
        UNITS
            .iter()
            .position(|name| unit.eq_ignore_ascii_case(name) || unit.eq_ignore_ascii_case(&name[..1]))
            .ok_or_else(|| format!("{unit:?} is no unit of size; use B, KiB, MiB, GiB or TiB"))?
    };
    let number: u64 = number.parse().map_err(|_| "a size is a whole number and a unit, such as 4MiB".to_owned())?;
    number.checked_mul(1 << (10 * power)).ok_or_else(|| format!("{text} is more than 64 bits can count"))
}

/// Parses a duration such as `5s`, `250ms` or `1m30s`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; a duration is a number and a unit, such as 5s"))
}

/// A duration, or `none` for no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeout(pub(crate) Option<Duration>);

/// Parses a duration or `none`.
pub(crate) fn parse_timeout(text: &str) -> Result<Timeout, String> {
    if text == "none" {
        return Ok(Timeout(None));
    }
    parse_duration(text).map(|duration| Timeout(Some(duration))).map_err(|error| format!("{error}, or none"))
}

/// Parses a share of the ring such as `80%`.
pub(crate) fn parse_percent(text: &str) -> Result<u8, String> {
    match text.strip_suffix('%').unwrap_or(text).trim_end().parse() {
        Ok(percent @ 1..=100) => Ok(percent),
        _ => Err("a share of the ring is a whole number from 1% to 100%".to_owned()),
    }
}

/// Parses permission bits as `chmod` takes them.
pub(crate) fn parse_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).map_err(|_| "permission bits are octal digits, such as 600 or 640".to_owned())
}

/// Parses a number, decimal or `0x…`.
pub(crate) fn parse_number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "a whole number of at most 64 bits, decimal or 0x…".to_owned())
}

/// Parses a rate: records a second, a fraction if need be.
pub(crate) fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        // Beyond a billion the interval is below the clock's resolution.
        Ok(rate) if rate > 0.0 && rate <= 1e9 => Ok(rate),
        _ => Err("a rate is a number above 0 and at most 1000000000 records a second".to_owned()),
    }
}

/// Writes bytes with the unit that leaves one to four digits before the point.
pub(crate) fn bytes(count: u64) -> String {
    let mut power = UNITS.len().min((count.max(1).ilog2() / 10) as usize + 1) - 1;
    // What rounds to 1024.0 of a unit is one of the next.
    if power + 1 < UNITS.len() && count as f64 / (1u64 << (10 * power)) as f64 >= 1023.95 {
        power += 1;
    }
    let scale = 1u64 << (10 * power);
    if count.is_multiple_of(scale) {
        format!("{} {}", count / scale, UNITS[power])
    } else {
        format!("{:.1} {}", count as f64 / scale as f64, UNITS[power])
    }
}

/// Writes a number with a comma at every thousand.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i != 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes a number and its noun, which takes an `s` unless it is one.
pub(crate) fn plural(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// Writes a part as percent of the whole.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    match part as f64 * 100.0 / whole.max(1) as f64 {
        0.0 => "0 %".to_owned(),
        share if share < 0.1 => "<0.1 %".to_owned(),
        share if share < 10.0 => format!("{share:.1} %"),
        share => format!("{share:.0} %"),
    }
}

/// Writes a duration with three digits or so.
pub(crate) fn seconds(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 1.0 {
        "<1 ms".to_owned()
    } else if ms < 1000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.1} s", ms / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_in_any_case() {
        for (text, size) in [
            ("4096", 4096),
            ("0", 0),
            ("1b", 1),
            ("4KiB", 4096),
            ("4 kib", 4096),
            ("4k", 4096),
            ("4MiB", 4 << 20),
            ("2G", 2 << 30),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for text in ["", "MiB", "4MB", "-1", "1.5MiB", "4MiBs", "99999999999999999999", "16777216TiB", "4µ", "é"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit_and_timeouts_may_be_none() {
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_timeout("none"), Ok(Timeout(None)));
        assert_eq!(parse_timeout("250ms"), Ok(Timeout(Some(Duration::from_millis(250)))));
        for text in ["5", "", "s", "-1s", "never"] {
            assert!(parse_timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn modes_numbers_and_rates() {
        assert_eq!(parse_mode("640"), Ok(0o640));
        assert!(parse_mode("888").is_err() && parse_mode("rw").is_err());
        assert_eq!(parse_number("0xff"), Ok(255));
        assert_eq!(parse_number("18446744073709551615"), Ok(u64::MAX));
        assert!(parse_number("18446744073709551616").is_err() && parse_number("").is_err());
        assert_eq!((parse_percent("80%"), parse_percent("1"), parse_percent("100 %")), (Ok(80), Ok(1), Ok(100)));
        for text in ["0%", "101%", "", "%", "x%", "50.5%", "-1%"] {
            assert!(parse_percent(text).is_err(), "{text}");
        }
        assert_eq!(parse_rate("0.5"), Ok(0.5));
        for text in ["0", "-1", "inf", "NaN", "x", "2e9"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!((bytes(0), bytes(1023), bytes(1024)), ("0 B".into(), "1023 B".into(), "1 KiB".into()));
        assert_eq!((bytes(1536), bytes(u64::MAX)), ("1.5 KiB".into(), "16777216.0 TiB".into()));
        assert_eq!(bytes((1 << 20) - 16), "1.0 MiB");
        assert_eq!((count(0), count(999), count(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
        assert_eq!((percent(0, 9), percent(1, 2), percent(1, 1 << 20)), ("0 %".into(), "50 %".into(), "<0.1 %".into()));
        assert_eq!((plural(1, "record"), plural(2, "record")), ("1 record".into(), "2 records".into()));
    }
}
