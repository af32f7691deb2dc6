//! How much room dm-era's metadata needs.

use std::io::{self, Write};

use clap::Args;
use era_metadata::sizing::{self, Sizing};
use eratrack_api::Granularity;
use eratrack_model::units::Bytes;

use super::DeviceError;
use crate::cli::size;

/// What is to be tracked.
#[derive(Debug, Args)]
pub(crate) struct SizeArgs {
    /// The size of the device to be tracked (1Ti)
    #[arg(long, value_parser = size::parse, value_name = "SIZE")]
    device: Bytes,
    /// The size of a tracked block, a power of two from 4Ki to 1Gi
    #[arg(long, default_value_t, value_name = "SIZE")]
    granularity: Granularity,
    /// How many eras may wait to be merged at once
    #[arg(long, default_value_t = sizing::DEFAULT_UNDIGESTED, value_name = "COUNT")]
    undigested: u32,
}

/// Tells it.
pub(super) fn run(args: &SizeArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let (device, granularity) = (args.device.0, args.granularity.bytes());
    let sizing = sizing::required(device.div_ceil(512), granularity / 512, args.undigested)
        .map_err(DeviceError::Size)?;
    print_size(&sizing, out).map_err(DeviceError::Print)
}

fn print_size(sizing: &Sizing, out: &mut impl Write) -> io::Result<()> {
    let Sizing { device_blocks, array, writesets, space_maps, spare } = *sizing;
    writeln!(out, "tracked blocks  {device_blocks:>12}")?;
    writeln!(out, "bytes needed    {:>12}", sizing.bytes())?;
    writeln!(out, "4 KiB blocks    {:>12}", sizing.total())?;
    writeln!(out, "  era array     {array:>12}")?;
    writeln!(out, "  writesets     {writesets:>12}")?;
    writeln!(out, "  space maps    {space_maps:>12}")?;
    writeln!(out, "  spare         {spare:>12}")
}

#[cfg(test)]
mod tests {
    use super::super::DeviceCommand;
    use super::super::testing::parse;
    use super::*;

    #[test]
    fn the_room_for_a_tebibyte() {
        let DeviceCommand::Size(args) = parse(&["size", "--device", "1Ti", "--granularity", "2Mi"])
        else {
            panic!("not size")
        };
        let mut out = Vec::new();
        run(&args, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("tracked blocks        524288\nbytes needed         7"), "{text}");

        let DeviceCommand::Size(args) = parse(&["size", "--device", "8Ti", "--granularity", "4Ki"])
        else {
            panic!("not size")
        };
        let text = crate::exit::chain(&run(&args, &mut Vec::new()).unwrap_err());
        assert!(text.contains("choose a larger granularity"), "{text}");
    }
}
