//! Sizes and durations as people read and write them.

use std::time::Duration;

use wbuild_store::Space;

/// Bytes with a decimal unit: `12.3 MB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    // 999.95 would be rounded to 1000.0.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Milliseconds as seconds: `1.2s`.
pub fn seconds(ms: u64) -> String {
    format!("{}.{}s", ms / 1000, ms % 1000 / 100)
}

/// How long ago, coarsely: `3 days`.
pub fn age(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..=59 => (seconds, "second"),
        60..=3_599 => (seconds / 60, "minute"),
        3_600..=86_399 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Reads `500MB`, `10gb`, `2GiB`, `1024`, `1.5g`: decimal units, or binary ones with an `i`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        "ti" | "tib" => 1 << 40,
        _ => {
            return Err(format!("unknown unit {unit:?}; use kB, MB, GB, TB or KiB, MiB, GiB, TiB"));
        }
    };
    let error = || "expected a size such as 500MB or 10GiB".to_owned();
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(|| "the size is too large".to_owned());
    }
    let value: f64 = number.parse().map_err(|_| error())?;
    let bytes = value * factor as f64;
    // Beyond 2^53 a fraction no longer says anything.
    if bytes.is_finite() && bytes < 9e15 { Ok(bytes as u64) } else { Err(error()) }
}

/// Reads a size, or a share of the disk: `50GB`, `30%`.
pub fn parse_space(text: &str) -> Result<Space, String> {
    match text.strip_suffix('%') {
        None => parse_size(text).map(Space::Bytes),
        Some(number) => match number.trim().parse() {
            Ok(percent @ 0..=100) => Ok(Space::Percent(percent)),
            _ => Err("expected a share from 0% to 100%".to_owned()),
        },
    }
}

/// The same for a ceiling. Other builders take 0 for none, so it is not taken for nothing here.
pub fn parse_ceiling(text: &str) -> Result<Space, String> {
    match parse_space(text)? {
        Space::Bytes(0) | Space::Percent(0) => {
            Err("a limit of 0 would keep nothing; 100% is no limit".to_owned())
        }
        space => Ok(space),
    }
}

/// Reads `90s`, `30m`, `24h`, `1h30m`, `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let error = || "expected a duration such as 90s, 30m, 24h, 1h30m or 7d".to_owned();
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let split = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
        let (number, after) = rest.split_at(split);
        let unit = after.chars().next().ok_or_else(error)?;
        let seconds: u64 = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return Err(error()),
        };
        let count: u64 = number.parse().map_err(|_| error())?;
        let part = count.checked_mul(seconds).ok_or_else(error)?;
        total = total.checked_add(part).ok_or_else(error)?;
        rest = &after[unit.len_utf8()..];
    }
    if text.is_empty() { Err(error()) } else { Ok(Duration::from_secs(total)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, want) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_951, "1.0 MB"),
            (12_345_678, "12.3 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size(bytes), want);
        }
        for (text, want) in [
            ("0", 0),
            ("500MB", 500_000_000),
            ("10gb", 10_000_000_000),
            ("2GiB", 2 << 30),
            ("1.5k", 1500),
            ("7 b", 7),
        ] {
            assert_eq!(parse_size(text), Ok(want), "{text}");
        }
        for bad in ["", "x", "1 parsec", "-1", "1.2.3", "99999999999999TB", "."] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn spaces() {
        for (text, want) in [
            ("50GB", Space::Bytes(50_000_000_000)),
            ("30%", Space::Percent(30)),
            ("100 %", Space::Percent(100)),
        ] {
            assert_eq!(parse_space(text), Ok(want), "{text}");
            assert_eq!(parse_ceiling(text), Ok(want), "{text}");
        }
        for bad in ["", "%", "101%", "-1%", "1.5%", "x"] {
            assert!(parse_space(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_space("0"), Ok(Space::Bytes(0)));
        assert!(parse_ceiling("0").is_err() && parse_ceiling("0%").is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(seconds(0), "0.0s");
        assert_eq!(seconds(1_290), "1.2s");
        assert_eq!(seconds(61_000), "61.0s");
        assert_eq!(age(1), "1 second");
        assert_eq!(age(7_300), "2 hours");
        assert_eq!(age(900_000), "10 days");
        for (text, want) in [("90s", 90), ("1h30m", 5400), ("7d", 604_800), ("0s", 0)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(want)), "{text}");
        }
        for bad in ["", "1", "h", "1x", "1h30", "99999999999999999999s", "9999999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
