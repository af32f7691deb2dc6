//! Keys in the tables of others. The kernel prints them to whoever may ask; tables end in messages
//! and logs.

use std::borrow::Cow;

/// What stands for a key.
const HIDDEN: &str = "-";
/// dm-integrity's parameters that may end in a key: `<parameter>:<algorithm>:<key>`.
const KEYED: [&str; 3] = ["internal_hash:", "journal_crypt:", "journal_mac:"];

/// A target's parameters without its keys. No table with such a target is ever one of ours.
pub(super) fn hide<'a>(kind: &str, params: &'a str) -> Cow<'a, str> {
    match kind {
        // `<cipher> <key> <iv offset> <device> …` (`crypt_ctr`, drivers/md/dm-crypt.c)
        "crypt" => words(params, |index, word| if index == 1 { HIDDEN } else { word }),
        "integrity" => words(params, |_, word| without_key(word)),
        _ => params.into(),
    }
}

fn words<'a>(params: &'a str, shown: impl Fn(usize, &'a str) -> &'a str) -> Cow<'a, str> {
    let words = params.split(' ').enumerate().map(|(index, word)| shown(index, word));
    words.collect::<Vec<_>>().join(" ").into()
}

fn without_key(word: &str) -> &str {
    let keyed = KEYED.iter().find_map(|parameter| word.strip_prefix(parameter));
    let key = keyed.and_then(|rest| rest.split_once(':')).map_or(0, |(_, key)| key.len() + 1);
    &word[..word.len() - key]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_left_out_and_the_rest_is_word_for_word() {
        let crypt = "aes-xts-plain64 00112233445566778899aabbccddeeff 0 8:0 4096 1 allow_discards";
        let hidden = "aes-xts-plain64 - 0 8:0 4096 1 allow_discards";
        assert_eq!(hide("crypt", crypt), hidden);
        assert_eq!(hide("crypt", "short"), "short");
        let integrity = "8:0 0 32 J 2 internal_hash:hmac(sha256):001122 journal_mac:crc32c";
        let hidden = "8:0 0 32 J 2 internal_hash:hmac(sha256) journal_mac:crc32c";
        assert_eq!(hide("integrity", integrity), hidden);
        assert_eq!(hide("linear", "8:0 2048"), "8:0 2048");
    }
}
