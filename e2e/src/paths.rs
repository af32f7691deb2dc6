//! Where things are: the workspace, and what the harness keeps under `target/e2e`.

use std::{
    env, io,
    path::{Path, PathBuf},
};

/// The root of the workspace that this harness was compiled in.
pub(crate) fn workspace() -> &'static Path {
    let member = Path::new(env!("CARGO_MANIFEST_DIR"));
    member.parent().unwrap_or(member)
}

/// This very program, to be started again. Cargo may have built it anew meanwhile, under the same name.
pub(crate) fn program() -> io::Result<PathBuf> {
    let running = env::current_exe()?;
    let name = running.to_string_lossy();
    // As the kernel names a file that is no more (proc.5, /proc/pid/exe).
    Ok(name.strip_suffix(" (deleted)").map_or_else(|| running.clone(), PathBuf::from))
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(chosen) => workspace().join(chosen),
        None => workspace().join("target"),
    }
}

/// What the harness keeps between runs: built tools, journals, images, logs.
pub(crate) fn cache() -> PathBuf {
    target().join("e2e")
}

/// Logs of the last run, by guest or component: what CI keeps when a run has failed.
pub(crate) fn logs() -> PathBuf {
    cache().join("logs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_has_its_manifest_and_this_member() {
        assert!(workspace().join("Cargo.lock").is_file());
        assert!(workspace().join("e2e/Cargo.toml").is_file());
        assert!(cache().starts_with(target()));
    }
}
