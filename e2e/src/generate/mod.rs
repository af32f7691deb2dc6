//! The files of the repository that are made from code: written, or compared with what they should be.
//!
//! Definitions and reasons come from the API crate, the manifests from the chart, the command reference from the binary.

#[cfg(test)]
mod documented_tests;
mod reference;

use std::{collections::BTreeMap, env, fs, io, path::Path, process::Command};

use crate::{
    failure::Outcome,
    paths, process, progress,
    setup::{self, Tools},
};

/// Contents by path from the root of the repository.
type Files = BTreeMap<String, String>;

/// Writes what is generated; with `check`, fails if a file is not what would be written.
pub(crate) fn run(check: bool) -> Outcome {
    setup::packages()?;
    let tools = setup::tools()?;
    if check {
        return compare(&generate(&tools)?);
    }
    // The chart renders the definitions, so they must be in place before it does.
    write(&definitions()?)?;
    write(&generate(&tools)?)
}

fn generate(tools: &Tools) -> Outcome<Files> {
    let mut files = definitions()?;
    let reference =
        progress::step("asking the binary for its help", || reference::markdown(&help))?;
    files.insert("docs/cli.md".to_owned(), reference);
    files.extend(manual()?);
    for (path, arguments) in MANIFESTS {
        files.insert(path.to_owned(), manifest(tools, arguments)?);
    }
    Ok(files)
}

/// What the API crate defines.
fn definitions() -> Outcome<Files> {
    let mut command =
        cargo(&["run", "--quiet", "--package", "eratrack-api", "--example", "generated_files"]);
    let json = progress::step("asking the API crate for its definitions", || {
        process::output(&mut command)
    })?;
    Ok(serde_json::from_str(&json)?)
}

/// What the binary says of itself, to whoever asks: neither the terminal's width nor the environment's values show.
fn help(words: &[String]) -> Outcome<String> {
    let mut command = cargo(&["run", "--quiet", "--package", "eratrack", "--"]);
    let ours = env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.as_encoded_bytes().starts_with(b"ERATRACK_"));
    for name in ours {
        command.env_remove(name);
    }
    Ok(process::output(command.env("COLUMNS", "100").args(words).arg("--help"))?)
}

/// The manual's pages, by their paths.
fn manual() -> Outcome<Files> {
    let dir = paths::target().join("man");
    let _ = fs::remove_dir_all(&dir);
    let mut command = cargo(&["run", "--quiet", "--package", "eratrack", "--", "man"]);
    process::output(command.arg(&dir))?;
    let mut pages = Files::new();
    for entry in fs::read_dir(&dir)? {
        let entry = entry?;
        let path = format!("docs/man/{}", entry.file_name().to_string_lossy());
        pages.insert(path, fs::read_to_string(entry.path())?);
    }
    Ok(pages)
}

/// The chart as it is with nothing chosen, for those who apply without Helm. Namespace and definitions are files of
/// their own: deleting what was installed must delete neither, nor what users wrote with them.
const MANIFESTS: [(&str, &[&str]); 3] = [
    (
        "manifests/namespace.yaml",
        &["--set", "namespace.create=true", "--show-only", "templates/namespace.yaml"],
    ),
    ("manifests/install.yaml", &["--set", "crds.install=false", "--no-hooks"]),
    ("manifests/uninstall.yaml", &["--show-only", "templates/uninstall.yaml"]),
];

fn manifest(tools: &Tools, arguments: &[&str]) -> Outcome<String> {
    let mut helm = Command::new(tools.helm());
    helm.current_dir(paths::workspace()).args(["template", "eratrack", "charts/eratrack"]);
    helm.args(["--namespace", "eratrack-system"]).args(arguments);
    Ok(process::output(&mut helm)?)
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::workspace()).args(arguments);
    command
}

fn write(files: &Files) -> Outcome {
    for (path, contents) in files {
        if committed(path)?.as_ref() != Some(contents) {
            let file = paths::workspace().join(path);
            fs::create_dir_all(file.parent().unwrap_or(Path::new("/")))?;
            fs::write(&file, contents)?;
            println!("written: {path}");
        }
    }
    Ok(())
}

fn compare(files: &Files) -> Outcome {
    let mut differences = Vec::new();
    for (path, contents) in files {
        differences.extend(difference(path, committed(path)?.as_deref(), contents));
    }
    if differences.is_empty() {
        println!("{} generated files are up to date", files.len());
        return Ok(());
    }
    Err(format!(
        "generated files are not up to date; run `cargo e2e generate`:\n{}",
        differences.join("\n")
    )
    .into())
}

/// Names the file and the first line that differs.
fn difference(path: &str, committed: Option<&str>, generated: &str) -> Option<String> {
    let Some(committed) = committed else { return Some(format!("  {path} is missing")) };
    if committed == generated {
        return None;
    }
    let (is, shall): (Vec<&str>, Vec<&str>) =
        (committed.lines().collect(), generated.lines().collect());
    let line = is.iter().zip(&shall).take_while(|(is, shall)| is == shall).count();
    let shown =
        |lines: &[&str]| lines.get(line).map_or("(the end)".to_owned(), |text| format!("{text:?}"));
    Some(format!("  {path} line {}: is {}, should be {}", line + 1, shown(&is), shown(&shall)))
}

fn committed(path: &str) -> Outcome<Option<String>> {
    match fs::read_to_string(paths::workspace().join(path)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {path}: {error}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_can_be_deleted_and_mounts_nothing_of_a_node() {
        let install = committed("manifests/install.yaml").unwrap().unwrap();
        for word in ["kind: Namespace", "kind: CustomResourceDefinition", "hostPath:"] {
            assert!(!install.contains(word), "{word}");
        }
        let uninstall = committed("manifests/uninstall.yaml").unwrap().unwrap();
        assert!(
            uninstall.contains("kind: Job") && uninstall.contains("- uninstall"),
            "{uninstall}"
        );
    }

    #[test]
    fn the_same_is_no_difference() {
        assert_eq!(difference("a", Some("x\ny\n"), "x\ny\n"), None);
    }

    #[test]
    fn a_difference_names_file_and_line() {
        let text = difference("crds/a.yaml", Some("x\ny\n"), "x\nz\n").unwrap();
        assert_eq!(text, "  crds/a.yaml line 2: is \"y\", should be \"z\"");
        assert_eq!(
            difference("a", Some("x\n"), "x\ny\n").unwrap(),
            "  a line 2: is (the end), should be \"y\""
        );
        assert_eq!(difference("a", None, "x").unwrap(), "  a is missing");
    }
}
