//! A systemd unit that puts stacks back before anything uses their devices, and a udev rule that
//! lets it prove that nothing did.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use eratrack_dm::machine::COUNTED;

use super::DeviceError;

const UNIT: &str = "eratrack-restore.service";
const RULE: &str = "59-eratrack.rules";

/// Where to put it, and what it does.
#[derive(Debug, Args)]
pub(crate) struct InstallUnitArgs {
    /// The directory of units
    #[arg(long, default_value = "/etc/systemd/system", value_name = "DIR")]
    dir: PathBuf,
    /// The directory of udev's rules
    #[arg(long, default_value = "/etc/udev/rules.d", value_name = "DIR")]
    rules_dir: PathBuf,
    /// Print the files and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Have the unit run `restore --trust-powered-off`
    #[arg(long)]
    trust_powered_off: bool,
    /// The machine's directory for records and metadata
    #[arg(
        long,
        env = "ERATRACK_METADATA_DIR",
        default_value = "/var/lib/eratrack",
        value_name = "DIR"
    )]
    state_dir: PathBuf,
    /// The program that the unit runs; without this, this one
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// Writes the unit, or prints it.
pub(super) fn run(args: &InstallUnitArgs, out: &mut impl Write) -> Result<(), DeviceError> {
    let program = args.program.clone().map_or_else(std::env::current_exe, Ok);
    let program =
        program.map_err(|source| DeviceError::Open { path: "/proc/self/exe".into(), source })?;
    let unit = unit(
        &program.display().to_string(),
        &args.state_dir.display().to_string(),
        args.trust_powered_off,
    );
    let files = [(args.dir.join(UNIT), unit), (args.rules_dir.join(RULE), rule())];
    for (path, text) in files {
        if args.dry_run {
            write!(out, "# {}\n{text}", path.display()).map_err(DeviceError::Print)?;
            continue;
        }
        std::fs::write(&path, text)
            .map_err(|source| DeviceError::Write { path: path.clone(), source })?;
        writeln!(out, "written: {}", path.display()).map_err(DeviceError::Print)?;
    }
    if args.dry_run {
        return Ok(());
    }
    let enable = format!("systemctl daemon-reload && systemctl enable {UNIT}");
    writeln!(out, "now run: {enable} && udevadm control --reload").map_err(DeviceError::Print)
}

/// Since Linux 5.18 device-mapper devices count requests only when told to; the tag proves that
/// they were told before anybody could use them.
fn rule() -> String {
    format!(
        "ACTION==\"add\", SUBSYSTEM==\"block\", KERNEL==\"dm-*\", ATTR{{queue/iostats}}=\"1\", TAG+=\"{COUNTED}\"\n"
    )
}

/// After the volumes are there and their records can be read, before any of them is mounted. At
/// shutdown the order is turned round: it is stopped, and seals, once they are unmounted.
fn unit(program: &str, state_dir: &str, trust: bool) -> String {
    let trust = if trust { " --trust-powered-off" } else { "" };
    format!(
        "[Unit]
Description=Changed-block tracking: put era back under its devices
Documentation=man:eratrack-device-restore(1)
DefaultDependencies=no
RequiresMountsFor={state_dir}
After=systemd-remount-fs.service lvm2-activation.service lvm2-monitor.service systemd-udev-settle.service
Wants=systemd-udev-settle.service
Before=local-fs-pre.target remote-fs-pre.target kubelet.service shutdown.target
Wants=local-fs-pre.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={program} device restore --state-dir={state_dir}{trust}
ExecStop={program} device seal --state-dir={state_dir}
# What could not be sealed is said in the journal; it is no reason to hold up a shutdown.
SuccessExitStatus=4
TimeoutSec=300

[Install]
WantedBy=local-fs.target
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_runs_before_anything_is_mounted_and_seals_after() {
        let text = unit("/usr/bin/eratrack", "/var/lib/eratrack", false);
        for line in [
            "Before=local-fs-pre.target",
            "RequiresMountsFor=/var/lib/eratrack",
            "ExecStart=/usr/bin/eratrack device restore --state-dir=/var/lib/eratrack\n",
            "ExecStop=/usr/bin/eratrack device seal --state-dir=/var/lib/eratrack\n",
        ] {
            assert!(text.contains(line), "{line}");
        }
        assert!(unit("/e", "/s", true).contains("--state-dir=/s --trust-powered-off\n"));
    }
}
