//! Sizes and durations as people read and write them.

use wbuild_store::Space;
pub use wbuild_supply::units::{parse_duration, parse_size};

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

/// A number of things: `1 case`, `2 cases`.
pub fn count(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
