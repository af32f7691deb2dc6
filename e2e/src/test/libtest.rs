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
    running: Option<Running>,
    /// Where output belongs once the tests are over.
    section: Option<String>,
    outputs: BTreeMap<String, String>,
}

/// A test that was announced; what it or its children print goes between the announcement and the verdict.
#[derive(Debug)]
struct Running {
    name: String,
    /// The last that looked like a verdict. It counts once something else begins: a child may print "ok" as well.
    seen: Option<Verdict>,
}

impl Parser {
    /// Takes the next piece of output; returns the tests that it ends.
    pub(crate) fn feed(&mut self, text: &str) -> Vec<Ended> {
        self.line.push_str(text);
        let mut ended = Vec::new();
        while let Some(end) = self.line.find('\n') {
            let line: String = self.line.drain(..=end).collect();
            self.take_line(line.trim_end_matches(['\r', '\n']), &mut ended);
        }
        ended
    }

    /// The test that has been announced and has not ended. With more than one thread this is not known.
    pub(crate) fn running(&self) -> Option<&str> {
        let unfinished = announced(&self.line).map(|(name, _)| name);
        unfinished.or(self.running.as_ref().map(|running| running.name.as_str()))
    }

    /// What each failed test printed; known when the binary has ended.
    pub(crate) fn outputs(&self) -> &BTreeMap<String, String> {
        &self.outputs
    }

    fn take_line(&mut self, line: &str, ended: &mut Vec<Ended>) {
        if line == "failures:" || line.starts_with("test result: ") {
            self.section = None;
            ended.extend(self.settle());
        } else if let Some(name) = title(line) {
            self.section = Some(name.to_owned());
        } else if let Some(section) = &self.section {
            let output = self.outputs.entry(section.clone()).or_default();
            output.push_str(line);
            output.push('\n');
        } else if let Some((name, rest)) = announced(line) {
            ended.extend(self.settle());
            self.announce(name, rest, ended);
        } else if let Some(running) = &mut self.running {
            running.seen = ending(line).or(running.seen);
        }
    }

    fn announce(&mut self, name: &str, rest: &str, ended: &mut Vec<Ended>) {
        let name = name.to_owned();
        match verdict(rest) {
            Some(verdict) => ended.push(Ended { name, verdict }),
            None => self.running = Some(Running { name, seen: ending(rest) }),
        }
    }

    /// Whatever was running has ended as it last looked.
    fn settle(&mut self) -> Option<Ended> {
        let Running { name, seen } = self.running.take()?;
        seen.map(|verdict| Ended { name, verdict })
    }
}

/// The name of a test, and what follows it.
fn announced(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some((name.trim_end_matches(" - should panic"), rest))
}

/// The name over the output of a failed test.
fn title(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

/// A verdict and nothing else.
fn verdict(rest: &str) -> Option<Verdict> {
    match rest {
        "ok" => Some(Verdict::Passed),
        "FAILED" => Some(Verdict::Failed),
        _ if rest.starts_with("ignored") => Some(Verdict::Skipped),
        _ => None,
    }
}

/// What may be a verdict after other output on the same line.
fn ending(line: &str) -> Option<Verdict> {
    if line.ends_with("FAILED") {
        Some(Verdict::Failed)
    } else if line.ends_with("ok") {
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
        assert_eq!(parser.feed("ok\n\ntest result: ok. 1 passed\n").len(), 1);
        assert_eq!(parser.running(), None);
    }

    #[test]
    fn what_a_child_prints_is_no_verdict() {
        let mut parser = Parser::default();
        assert_eq!(parser.feed("test a ... the child is ok\nstill ok\n"), []);
        assert_eq!(parser.running(), Some("a"));
        assert_eq!(
            parser.feed("FAILED\ntest b ... ok\n"),
            [ended("a", Verdict::Failed), ended("b", Verdict::Passed)]
        );
    }

    #[test]
    fn reads_a_list() {
        assert_eq!(names("a::b: test\nc: test\nd: benchmark\n"), ["a::b", "c"]);
    }
}
