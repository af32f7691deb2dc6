//! Sizes for people. Beside each stands the exact figure, in a field that ends in `Bytes`.

const MI: u64 = 1 << 20;

/// Bytes as a Kubernetes quantity, rounded up to whole Mi: `0`, `247Mi`, `2Ti`.
///
/// A larger unit is used only when it loses nothing, as the API server itself writes quantities.
pub fn for_people(bytes: u64) -> String {
    let mut count = bytes.div_ceil(MI);
    if count == 0 {
        return "0".to_owned();
    }
    for unit in ["Mi", "Gi", "Ti", "Pi"] {
        if !count.is_multiple_of(1024) {
            return format!("{count}{unit}");
        }
        count /= 1024;
    }
    format!("{count}Ei")
}

#[cfg(test)]
mod tests {
    use super::for_people;

    #[test]
    fn rounds_up_and_loses_nothing() {
        let cases = [
            (0, "0"),
            (1, "1Mi"),
            (1 << 20, "1Mi"),
            ((1 << 20) + 1, "2Mi"),
            (1222 << 20, "1222Mi"),
            (1 << 30, "1Gi"),
            (2 << 40, "2Ti"),
            (u64::MAX, "16Ei"),
        ];
        for (bytes, text) in cases {
            assert_eq!(for_people(bytes), text, "{bytes} bytes");
        }
    }
}
