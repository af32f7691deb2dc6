//! Sizes as Kubernetes writes them with binary suffixes: `64Ki`, `1Gi`, `4096`.

use eratrack_model::units::Bytes;

/// A size that could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no size: give digits with one of the suffixes Ki, Mi, Gi, Ti or none, such as 64Ki"
)]
pub(crate) struct BadSize(String);

/// Parses a size in bytes; for clap's `value_parser`.
pub(crate) fn parse(text: &str) -> Result<Bytes, BadSize> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        "Ti" => 40,
        _ => return Err(BadSize(text.into())),
    };
    let count = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift));
    count.map(Bytes).ok_or_else(|| BadSize(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let good = [
            ("0", 0),
            ("4096", 4096),
            ("64Ki", 65536),
            ("1Mi", 1 << 20),
            ("1Gi", 1 << 30),
            ("2Ti", 2 << 40),
        ];
        for (text, bytes) in good {
            assert_eq!(parse(text), Ok(Bytes(bytes)), "{text}");
        }
        for text in
            ["", "Ki", "-1", "1K", "1 Ki", "1.5Gi", "99999999999999999999", "17000000Ti", "64KB"]
        {
            assert_eq!(parse(text), Err(BadSize(text.into())));
        }
    }
}
