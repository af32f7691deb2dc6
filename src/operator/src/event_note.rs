//! What both roles share of events: a note that the API server takes.

/// The longest note of an event, in bytes, that the API server takes.
pub(crate) const NOTE_MAX: usize = 1024;

/// The beginning of the note, if it is too long: an event that is refused tells nothing at all.
pub(crate) fn shortened(mut note: String) -> String {
    while note.len() > NOTE_MAX {
        note.pop();
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_cut_between_characters() {
        assert_eq!(shortened("a".to_owned()), "a");
        assert_eq!(shortened("ä".repeat(513)), "ä".repeat(512));
        assert_eq!(shortened(format!("{}ä", "a".repeat(1023))).len(), 1023);
    }
}
