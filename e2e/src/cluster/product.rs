//! eratrack itself, as a user gets it: a static binary, an image from scratch, a chart.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Node, images, images::Image};
use crate::{failure::Outcome, paths, process, progress};

/// The namespace that eratrack is installed into.
pub(crate) const NAMESPACE: &str = "eratrack-system";

const REPOSITORY: &str = "localhost/eratrack";
const TAG: &str = "e2e";
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The images that a cluster runs, as files.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    /// The image of eratrack.
    pub(crate) image: PathBuf,
    /// Its size in bytes.
    pub(crate) image_bytes: u64,
    /// The image of the application that the demo watches.
    pub(crate) recorder: PathBuf,
}

impl Product {
    /// Builds the static binaries and writes the images.
    pub(crate) fn build() -> Outcome<Self> {
        progress::step("building eratrack's image: one static binary", || {
            let binaries = build_static(&["eratrack", "recorder"])?;
            let directory = paths::cache().join("images");
            fs::create_dir_all(&directory)?;
            let (image, recorder) =
                (directory.join("eratrack.tar"), directory.join("recorder.tar"));
            let image_bytes = eratrack(&binaries.join("eratrack"))?.write(&image)?;
            Image::recorder(&binaries.join("recorder"))?.write(&recorder)?;
            Ok(Self { image, image_bytes, recorder })
        })
    }

    /// Makes the images known to a node.
    pub(crate) fn import(&self, node: &Node) -> Outcome {
        node.import(&self.image)?;
        node.import(&self.recorder)
    }
}

/// The arguments that install the chart with this image.
pub(crate) fn install_arguments() -> Vec<String> {
    let set = |value: String| ["--set".to_owned(), value];
    let mut arguments: Vec<String> =
        ["install", "eratrack", "charts/eratrack", "--namespace", NAMESPACE, "--create-namespace"]
            .map(str::to_owned)
            .to_vec();
    arguments.extend(set(format!("image.repository={REPOSITORY}")));
    arguments.extend(set(format!("image.tag={TAG}")));
    arguments.extend(["--wait".to_owned(), "--timeout=180s".to_owned()]);
    arguments
}

/// eratrack as the image has it: one static program.
pub(crate) fn static_program() -> Outcome<PathBuf> {
    progress::step("building eratrack: one static binary", || {
        Ok(build_static(&["eratrack", "recorder"])?.join("eratrack"))
    })
}

fn eratrack(binary: &Path) -> Outcome<Image> {
    Ok(Image {
        name: format!("{REPOSITORY}:{TAG}"),
        programs: vec![("eratrack".to_owned(), images::static_program(binary)?)],
        links: Vec::new(),
        entrypoint: vec!["/eratrack".to_owned()],
    })
}

/// Builds members of the workspace so that they need no library; the directory of the binaries.
fn build_static(packages: &[&str]) -> Outcome<PathBuf> {
    let directory = paths::cache().join("static");
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::workspace());
    command.args(["build", "--quiet", "--release", "--target", TARGET, "--target-dir"]);
    command.arg(&directory).args(packages.iter().flat_map(|package| ["--package", package]));
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    process::run(&mut command)?;
    Ok(directory.join(TARGET).join("release"))
}
