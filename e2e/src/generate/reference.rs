//! The reference of the command line, from what the binary says of itself.

use std::fmt::Write as _;

use crate::failure::Outcome;

const HEAD: &str = "\
<!-- Generated from the binary's own help by `cargo e2e generate`. -->
# The command line

`eratrack` is one binary: the controller, the agent, and commands for one machine.
";

/// Gives the help of a subcommand, named by its words.
type Help<'a> = dyn Fn(&[String]) -> Outcome<String> + 'a;

/// The page.
pub(crate) fn markdown(help: &Help) -> Outcome<String> {
    let mut page = HEAD.to_owned();
    chapter(&mut page, &[], help)?;
    Ok(page)
}

/// One command and, after it, its subcommands.
fn chapter(page: &mut String, words: &[String], help: &Help) -> Outcome {
    let text = help(words)?;
    let title = [&["eratrack".to_owned()], words].concat().join(" ");
    let body = text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    write!(page, "\n## {title}\n\n```\n{}\n```\n", body.trim())?;
    for command in subcommands(&text) {
        chapter(page, &[words, &[command]].concat(), help)?;
    }
    Ok(())
}

/// The names under "Commands:"; a line further in goes on with a description.
fn subcommands(help: &str) -> Vec<String> {
    let listed = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    let name = |line: &str| {
        let rest = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '))?;
        rest.split_whitespace().next().filter(|name| *name != "help").map(str::to_owned)
    };
    listed.filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "About\n\nUsage: eratrack <COMMAND>\n\nCommands:\n  agent   Runs\n          on\n  device  Looks\n  help    Print\n\nOptions:\n  -h\n";

    #[test]
    fn subcommands_are_the_names_in_the_list() {
        assert_eq!(subcommands(HELP), ["agent", "device"]);
        assert!(subcommands("Usage: eratrack agent\n").is_empty());
    }

    #[test]
    fn each_command_has_a_chapter() {
        let page = markdown(&|words| {
            Ok(if words.is_empty() { HELP.to_owned() } else { format!("of {words:?}   \n") })
        })
        .unwrap();
        assert!(page.contains("\n## eratrack\n\n```\nAbout\n"), "{page}");
        assert!(page.contains("\n## eratrack device\n\n```\nof [\"device\"]\n```\n"), "{page}");
    }
}
