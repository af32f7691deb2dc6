//! The test binaries of the workspace: which there are, built by cargo.

use std::{env, path::PathBuf, process::Command};

use serde::Deserialize;

use super::libtest;
use crate::{failure::Outcome, paths, process};

/// What the name of a kernel test's target starts with.
const KERNEL: &str = "kernel_";

/// A test binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Binary {
    /// The package.
    pub(crate) package: String,
    /// The directory of the package: tests run in it.
    pub(crate) directory: PathBuf,
    /// The target, when it is a test target: a file in `tests/`.
    pub(crate) test: Option<String>,
    /// The binary.
    pub(crate) executable: PathBuf,
}

impl Binary {
    /// The name of one of its tests, unique in the workspace.
    pub(crate) fn full_name(&self, test: &str) -> String {
        match &self.test {
            Some(target) => format!("{}::{target}::{test}", self.package),
            None => format!("{}::{test}", self.package),
        }
    }

    /// Whether its ignored tests are kernel tests.
    pub(crate) fn is_kernel(&self) -> bool {
        self.test.as_ref().is_some_and(|it| it.starts_with(KERNEL))
    }

    /// The names of its tests; with `ignored`, of those marked so only.
    pub(crate) fn list(&self, ignored: bool) -> Result<Vec<String>, process::Error> {
        let mut command = Command::new(&self.executable);
        command.current_dir(&self.directory).args(["--list", "--format", "terse"]);
        if ignored {
            command.arg("--ignored");
        }
        process::output(&mut command).map(|list| libtest::names(&list))
    }
}

/// Cargo, the one that started us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::workspace());
    command
}

/// Builds every test binary of the workspace.
pub(crate) fn all() -> Outcome<Vec<Binary>> {
    build(&Workspace::read()?, &["--workspace".to_owned()])
}

/// Builds the binaries of the kernel tests; only one, if `filter` is its name.
pub(crate) fn kernel(filter: Option<&str>) -> Outcome<Vec<Binary>> {
    let workspace = Workspace::read()?;
    let mut chosen = workspace.kernel_tests();
    if let Some(one) = chosen.iter().position(|(_, target)| Some(target.as_str()) == filter) {
        chosen = vec![chosen.swap_remove(one)];
    }
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let arguments = chosen
        .into_iter()
        .flat_map(|(package, target)| ["-p".into(), package, "--test".into(), target]);
    build(&workspace, &arguments.collect::<Vec<String>>())
}

/// Builds the unit tests of the program of a package.
pub(crate) fn of_program(package: &str) -> Outcome<Binary> {
    let arguments = ["--package", package, "--bin", package].map(str::to_owned);
    let found = build(&Workspace::read()?, &arguments)?.into_iter().find(|it| it.test.is_none());
    found.ok_or_else(|| format!("cargo has built no tests of {package}").into())
}

/// Builds what cargo's arguments choose; the program of that name, a benchmark or not.
pub(crate) fn program(arguments: &[&str], name: &str) -> Outcome<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--message-format=json-render-diagnostics"]).args(arguments);
    let mut program = None;
    process::lines(&mut command, |line| program = Message::program(line, name).or(program.take()))?;
    program.ok_or_else(|| format!("cargo has built no program {name}").into())
}

fn build(workspace: &Workspace, arguments: &[String]) -> Outcome<Vec<Binary>> {
    let mut command = cargo();
    command.args(["test", "--no-run", "--message-format=json-render-diagnostics"]).args(arguments);
    let mut binaries = Vec::new();
    process::lines(&mut command, |line| binaries.extend(workspace.binary(line)))?;
    binaries.sort_by(|a, b| (&a.package, &a.test).cmp(&(&b.package, &b.test)));
    Ok(binaries)
}

/// What `cargo metadata` says.
#[derive(Deserialize)]
struct Workspace {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Target {
    fn is_test(&self) -> bool {
        self.kind.iter().any(|kind| kind == "test")
    }
}

/// A line that cargo prints while it builds.
#[derive(Deserialize)]
struct Message {
    package_id: Option<String>,
    target: Option<Target>,
    executable: Option<PathBuf>,
    profile: Option<Profile>,
}

impl Message {
    /// The program that a line says was built of the benchmark or binary.
    fn program(line: &str, name: &str) -> Option<PathBuf> {
        let message: Self = serde_json::from_str(line).ok()?;
        let target = message.target?;
        let ours =
            target.name == name && target.kind.iter().any(|kind| kind == "bench" || kind == "bin");
        message.executable.filter(|_| ours)
    }
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

impl Workspace {
    fn read() -> Outcome<Self> {
        let text =
            process::output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
        Ok(serde_json::from_str(&text)?)
    }

    fn kernel_tests(&self) -> Vec<(String, String)> {
        let of = |package: &Package| {
            let targets =
                package.targets.iter().filter(|it| it.is_test() && it.name.starts_with(KERNEL));
            targets.map(|target| (package.name.clone(), target.name.clone())).collect::<Vec<_>>()
        };
        self.packages.iter().flat_map(of).collect()
    }

    fn binary(&self, line: &str) -> Option<Binary> {
        let message: Message = serde_json::from_str(line).ok()?;
        message.profile.filter(|profile| profile.test)?;
        let (id, target, executable) = (message.package_id?, message.target?, message.executable?);
        let package = self.packages.iter().find(|package| package.id == id)?;
        let directory = package.manifest_path.parent()?.to_owned();
        let test = target.is_test().then_some(target.name);
        Some(Binary { package: package.name.clone(), directory, test, executable })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{"packages": [{"id": "path+file:///w/src/dm#eratrack-dm@0.1.0", "name": "eratrack-dm",
        "manifest_path": "/w/src/dm/Cargo.toml", "targets": [
            {"name": "eratrack_dm", "kind": ["lib"]},
            {"name": "kernel_lvm", "kind": ["test"]},
            {"name": "plans", "kind": ["test"]}]}]}"#;

    fn artifact(target: &str, kind: &str, test: bool) -> String {
        format!(
            r#"{{"reason": "compiler-artifact", "package_id": "path+file:///w/src/dm#eratrack-dm@0.1.0",
            "target": {{"name": "{target}", "kind": ["{kind}"]}}, "profile": {{"test": {test}}}, "executable": "/t/x"}}"#
        )
    }

    #[test]
    fn test_binaries_are_told_from_the_rest() {
        let workspace: Workspace = serde_json::from_str(METADATA).unwrap();
        let lvm = workspace.binary(&artifact("kernel_lvm", "test", true)).unwrap();
        assert!(lvm.is_kernel());
        assert_eq!(lvm.full_name("x::y"), "eratrack-dm::kernel_lvm::x::y");
        assert_eq!(lvm.directory, PathBuf::from("/w/src/dm"));
        let lib = workspace.binary(&artifact("eratrack_dm", "lib", true)).unwrap();
        assert!(!lib.is_kernel());
        assert_eq!(lib.full_name("x::y"), "eratrack-dm::x::y");
        assert_eq!(workspace.binary(&artifact("eratrack", "bin", false)), None);
        assert_eq!(workspace.binary(r#"{"reason": "build-finished", "success": true}"#), None);
    }

    #[test]
    fn a_program_is_told_from_the_rest() {
        assert_eq!(
            Message::program(&artifact("stall", "bench", false), "stall"),
            Some("/t/x".into())
        );
        assert_eq!(
            Message::program(&artifact("stall", "bin", false), "stall"),
            Some("/t/x".into())
        );
        assert_eq!(Message::program(&artifact("stall", "lib", false), "stall"), None);
        assert_eq!(Message::program(&artifact("other", "bench", true), "stall"), None);
    }

    #[test]
    fn kernel_tests_are_known_by_the_name_of_their_file() {
        let workspace: Workspace = serde_json::from_str(METADATA).unwrap();
        assert_eq!(workspace.kernel_tests(), [("eratrack-dm".to_owned(), "kernel_lvm".to_owned())]);
    }
}
