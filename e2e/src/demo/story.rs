//! Telling what happens: each step, each command as one would type it, its real output indented, each check.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    cluster::{Helm, Kubectl, Node, Output},
    failure::Outcome,
    progress,
};

/// Where a story is told.
#[derive(Debug)]
enum Listener {
    /// Somebody who waits for the end of each sentence.
    Terminal,
    /// Who reads it when something went wrong.
    File(File),
}

/// A story while it is told.
#[derive(Debug)]
pub(crate) struct Story {
    listener: Listener,
    start: Instant,
}

impl Story {
    /// Told on standard output.
    pub(crate) fn on_terminal() -> Self {
        Self { listener: Listener::Terminal, start: Instant::now() }
    }

    /// Told to a file.
    pub(crate) fn in_file(path: &Path) -> Outcome<Self> {
        Ok(Self { listener: Listener::File(File::create(path)?), start: Instant::now() })
    }

    /// Begins a step.
    pub(crate) fn step(&mut self, title: &str) -> Outcome {
        let elapsed = progress::seconds(self.start.elapsed());
        self.print(&format!("\n== {title}   [{elapsed}]\n"))
    }

    /// Says a sentence.
    pub(crate) fn say(&mut self, text: &str) -> Outcome {
        self.print(&format!("{text}\n"))
    }

    /// Shows a file.
    pub(crate) fn show(&mut self, name: &str, text: &str) -> Outcome {
        self.print(&format!("\n  $ cat {name}\n{}", indented(text)))
    }

    /// Shows and runs kubectl, and expects success; its output.
    pub(crate) fn kubectl(&mut self, kubectl: &Kubectl, arguments: &[&str]) -> Outcome<String> {
        self.print(&format!("\n  $ {}\n", kubectl.shown(arguments)))?;
        self.output(kubectl.kubectl(arguments, None)?)
    }

    /// Shows a manifest and applies it.
    pub(crate) fn apply(&mut self, kubectl: &Kubectl, manifest: &str) -> Outcome {
        let arguments = ["apply", "-f", "-"];
        let command = kubectl.shown(&arguments);
        self.print(&format!("\n  $ {command} <<END\n{}  END\n", indented(manifest)))?;
        self.output(kubectl.kubectl(&arguments, Some(manifest))?).map(drop)
    }

    /// Shows and runs helm, and expects success.
    pub(crate) fn helm(&mut self, helm: &Helm, arguments: &[&str]) -> Outcome {
        self.print(&format!("\n  $ helm {}\n", arguments.join(" ")))?;
        let output = self.wait("helm is at work", || helm.helm(arguments))?;
        self.output(output).map(drop)
    }

    /// Shows and runs a script as root on the node, and expects success; its output.
    pub(crate) fn on_node(&mut self, node: &Node, script: &str) -> Outcome<String> {
        self.print(&format!("\n  {}\n", node.shown(script)))?;
        self.output(node.script(script)?)
    }

    /// Does something that takes time, and shows that.
    pub(crate) fn wait<T>(&mut self, what: &str, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        match self.listener {
            Listener::Terminal => progress::step(&format!("  {what}"), work),
            Listener::File(_) => {
                let start = Instant::now();
                let result = work()?;
                self.print(&format!("  {what}: {}\n", progress::seconds(start.elapsed())))?;
                Ok(result)
            }
        }
    }

    /// A check: tells that it holds, or is the error that it does not, with what was seen instead.
    pub(crate) fn check(&mut self, holds: bool, what: &str, seen: &str) -> Outcome {
        if !holds {
            return Err(format!("NOT TRUE: {what}\nseen: {seen}").into());
        }
        self.print(&format!("  ok: {what}\n"))
    }

    /// How long it has been told.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn output(&mut self, output: Output) -> Outcome<String> {
        self.print(&indented(&output.stdout))?;
        self.print(&indented(&output.stderr))?;
        output.ok()
    }

    fn print(&mut self, text: &str) -> Outcome {
        match &mut self.listener {
            Listener::Terminal => {
                let mut out = std::io::stdout().lock();
                out.write_all(text.as_bytes())?;
                out.flush()?;
            }
            Listener::File(file) => file.write_all(text.as_bytes())?,
        }
        Ok(())
    }
}

fn indented(text: &str) -> String {
    text.lines().flat_map(|line| ["  ", line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_does_not_hold_ends_the_story_and_tells_what_was_seen() {
        let path = std::env::temp_dir().join(format!("eratrack-story-{}", std::process::id()));
        let mut story = Story::in_file(&path).unwrap();
        story.check(true, "one is one", "").unwrap();
        let error = story.check(false, "one is two", "1").unwrap_err();
        assert_eq!(error.to_string(), "NOT TRUE: one is two\nseen: 1");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "  ok: one is one\n");
        std::fs::remove_file(path).unwrap();
    }
}
