//! Follows what a Rust test binary prints, as it comes.

use std::collections::BTreeMap;

use super::report::Verdict;

/// A test has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Its path in the binary.
    pub(crate) name: String,
    /// How.
    pub(crate) verdict: Verdict,
}

/// Reads the output of one test binary piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// The line that is not complete yet.
    line: String,
    /// Announced on a line of its own, or on one that other output has broken.
    running: Option<String>,
    /// Where output belongs once the tests are over.
    section: Option<String>,
    outputs: BTreeMap<String, String>,
}

impl Parser {
    /// Takes the next piece of output; returns the tests that it ends.
    pub(crate) fn feed(&mut self, text: &str) -> Vec<Ended> {
        self.line.push_str(text);
        let mut ended = Vec::new();
        while let Some(end) = self.line.find('\n') {
            let line: String = self.line.drain(..=end).collect();
            ended.extend(self.take_line(line.trim_end_matches(['\r', '\n'])));
        }
        ended
    }

    /// The test that has been announced and has not ended. With more than one thread this is not known.
    pub(crate) fn running(&self) -> Option<&str> {
        let unfinished = self.line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "));
        self.running.as_deref().or(unfinished.map(|(name, _)| name))
    }

    /// What each failed test printed; known when the binary has ended.
    pub(crate) fn outputs(&self) -> &BTreeMap<String, String> {
        &self.outputs
    }

    fn take_line(&mut self, line: &str) -> Option<Ended> {
        if let Some(name) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.section = Some(name.to_owned());
            return None;
        }
        if line == "failures:" || line.starts_with("test result: ") {
            self.section = None;
            return None;
        }
        if let Some(section) = &self.section {
            let output = self.outputs.entry(section.clone()).or_default();
            output.push_str(line);
            output.push('\n');
            return None;
        }
        self.take_test(line)
    }

    fn take_test(&mut self, line: &str) -> Option<Ended> {
        let announced = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "));
        let (name, rest) = match (announced, &self.running) {
            (Some((name, rest)), _) => (name.to_owned(), rest),
            (None, Some(name)) => (name.clone(), line),
            (None, None) => return None,
        };
        let name = name.trim_end_matches(" - should panic").to_owned();
        match verdict(rest) {
            Some(verdict) => {
                self.running = None;
                Some(Ended { name, verdict })
            }
            None => {
                self.running = Some(name);
                None
            }
        }
    }
}

/// The verdict stands at the end: a child of the test may have written to the same line before it.
fn verdict(rest: &str) -> Option<Verdict> {
    if rest.ends_with("FAILED") {
        Some(Verdict::Failed)
    } else if rest.starts_with("ignored") {
        Some(Verdict::Skipped)
    } else if rest.ends_with("ok") {
        Some(Verdict::Passed)
    } else {
        None
    }
}

/// The names in the answer to `--list --format terse`.
pub(crate) fn names(list: &str) -> Vec<String> {
    list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 4 tests
test a::works ... ok
test a::is_left_out ... ignored, kernel tier
test b::breaks - should panic ... FAILED
test c ... noise of a child
more noise ok

failures:

---- b::breaks stdout ----
thread 'b::breaks' panicked at src/b.rs:1:1:
test trap ... ok
note: run with

failures:
    b::breaks

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    fn ended(name: &str, verdict: Verdict) -> Ended {
        Ended { name: name.into(), verdict }
    }

    fn expected() -> Vec<Ended> {
        vec![
            ended("a::works", Verdict::Passed),
            ended("a::is_left_out", Verdict::Skipped),
            ended("b::breaks", Verdict::Failed),
            ended("c", Verdict::Passed),
        ]
    }

    #[test]
    fn reads_verdicts_and_outputs() {
        let mut parser = Parser::default();
        assert_eq!(parser.feed(OUTPUT), expected());
        let outputs: Vec<_> = parser.outputs().iter().collect();
        assert_eq!(outputs.len(), 1);
        assert_eq!(outputs[0].0, "b::breaks");
        assert!(
            outputs[0].1.contains("panicked at src/b.rs") && outputs[0].1.contains("test trap")
        );
    }

    #[test]
    fn pieces_of_any_size_give_the_same() {
        for size in [1, 2, 7] {
            let mut parser = Parser::default();
            let pieces: Vec<char> = OUTPUT.chars().collect();
            let ended: Vec<Ended> = pieces
                .chunks(size)
                .flat_map(|piece| parser.feed(&piece.iter().collect::<String>()))
                .collect();
            assert_eq!(ended, expected(), "in pieces of {size}");
        }
    }

    #[test]
    fn knows_what_is_running() {
        let mut parser = Parser::default();
        parser.feed("running 1 test\ntest slow::one ... ");
        assert_eq!(parser.running(), Some("slow::one"));
        parser.feed("noise\n");
        assert_eq!(parser.running(), Some("slow::one"));
        assert_eq!(parser.feed("ok\n").len(), 1);
        assert_eq!(parser.running(), None);
    }

    #[test]
    fn reads_a_list() {
        assert_eq!(names("a::b: test\nc: test\nd: benchmark\n"), ["a::b", "c"]);
    }
}
