//! Sizes and durations as people write them.

use std::time::Duration;

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
