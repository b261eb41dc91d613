//! Sizes (`"1GiB"`) and times (`"60s"`) as people write them.

use std::time::Duration;

/// Units of a size with their bytes: SI and IEC, as `dd` and `iperf3` users mean them.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

const TIME_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// What is allowed, for messages.
pub const SIZE_ALLOWED: &str =
    "a whole number with a unit B, kB, MB, GB, KiB, MiB, GiB or TiB, e.g. \"1GiB\"";
/// What is allowed, for messages.
pub const TIME_ALLOWED: &str = "a whole number with a unit ms, s, m or h, e.g. \"60s\"";

/// Splits `text` into digits and unit and multiplies; `None` if it is not that or too large.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '_')?;
    let (digits, unit) = text.split_at(digits_end);
    let value: u64 = digits.replace('_', "").parse().ok()?;
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim())?;
    value.checked_mul(*scale)
}

/// `"1GiB"` in bytes.
#[must_use]
pub fn size_bytes(text: &str) -> Option<u64> {
    scaled(text, SIZE_UNITS)
}

/// `"60s"`.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    scaled(text, TIME_UNITS).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("1GiB", Some(1 << 30)),
            ("1 GiB", Some(1 << 30)),
            ("0B", Some(0)),
            ("1_500kB", Some(1_500_000)),
            ("512", None),
            ("GiB", None),
            ("1gib", None),
            ("-1GiB", None),
            ("1.5GiB", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(size_bytes(text), bytes, "{text}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("60s"), Some(Duration::from_secs(60)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("2h"), Some(Duration::from_secs(7200)));
        assert_eq!(duration("60"), None);
        assert_eq!(duration("1d"), None);
    }
}
