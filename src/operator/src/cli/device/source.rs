//! Whose metadata is read: that of a stack of this machine, or an image.

use std::path::{Path, PathBuf};

use clap::Args;
use era_metadata::{BlockSource, View};
use eratrack_dm::Host;
use eratrack_model::record::Record;

use super::machine::MachineArgs;
use super::offline::{self, SnapshotArgs};
use super::progress::Meter;
use super::watched::Watched;
use super::{DeviceError, target};

/// Where the metadata is.
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    /// The stack: its name, or any device of it. Its metadata is read while it is in use, from a snapshot that is taken for
    /// that and dropped, or from the one that `hold` took
    #[arg(
        value_name = "DEVICE",
        required_unless_present = "image",
        conflicts_with_all = ["image", "metadata_snapshot"]
    )]
    device: Option<String>,
    /// Read this metadata instead: an image file, or the device that it is on (as root)
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    #[command(flatten)]
    snapshot: SnapshotArgs,
    #[command(flatten)]
    machine: MachineArgs,
}

impl SourceArgs {
    /// Whether it is a stack's.
    pub(super) fn is_stack(&self) -> bool {
        self.device.is_some()
    }

    /// The stack that is meant; none if an image is.
    pub(super) fn stack(&self) -> Result<Option<(Host, Record)>, DeviceError> {
        let Some(named) = &self.device else { return Ok(None) };
        let host = self.machine.host()?;
        let record = target::record(&host, named)?;
        Ok(Some((host, record)))
    }

    /// Reads the metadata, whichever it is; the meter shows how far that is.
    pub(super) fn read<T>(
        &self,
        meter: Meter,
        read: impl FnOnce(&dyn BlockSource, View) -> T,
    ) -> Result<T, DeviceError> {
        if let Some((host, record)) = self.stack()? {
            let read = |source: &dyn BlockSource, view| read(&Watched::new(source, meter), view);
            return Ok(host.read_snapshot(&record, read)?);
        }
        self.read_image(meter, read)
    }

    /// Reads the image.
    pub(super) fn read_image<T>(
        &self,
        meter: Meter,
        read: impl FnOnce(&dyn BlockSource, View) -> T,
    ) -> Result<T, DeviceError> {
        let view = self.snapshot.view();
        let source = offline::open(self.image(), view)?;
        Ok(read(&Watched::new(&source, meter), view))
    }

    /// What the metadata is called in messages.
    pub(super) fn name(&self) -> PathBuf {
        self.device.as_ref().map_or_else(|| self.image().to_owned(), PathBuf::from)
    }

    fn image(&self) -> &Path {
        self.image.as_deref().unwrap_or(Path::new(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        source: SourceArgs,
    }

    fn parse(words: &[&str]) -> Result<SourceArgs, String> {
        let cli = Cli::try_parse_from([&["x"], words].concat());
        cli.map(|cli| cli.source).map_err(|error| error.to_string())
    }

    #[test]
    fn the_snapshot_is_the_superblocks_or_the_one_named() {
        let view =
            |more: &[&str]| parse(&[&["--image", "a.img"], more].concat()).unwrap().snapshot.view();
        assert_eq!(view(&[]), View::Live);
        assert_eq!(view(&["--metadata-snapshot"]), View::Held);
        assert_eq!(view(&["--metadata-snapshot=17"]), View::HeldAt(17));
    }

    #[test]
    fn it_is_one_of_both() {
        assert_eq!(parse(&["data"]).unwrap().name(), Path::new("data"));
        assert!(parse(&[]).unwrap_err().contains("<DEVICE>"));
        assert!(parse(&["data", "--image", "a"]).unwrap_err().contains("cannot be used with"));
        assert!(parse(&["data", "--metadata-snapshot"]).unwrap_err().contains("cannot be used"));
    }
}
