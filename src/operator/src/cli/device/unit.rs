//! A systemd unit that puts stacks back before anything uses their devices.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::DeviceError;

const NAME: &str = "eratrack-restore.service";

/// Where to put it, and what it does.
#[derive(Debug, Args)]
pub(crate) struct InstallUnitArgs {
    /// The directory of units
    #[arg(long, default_value = "/etc/systemd/system", value_name = "DIR")]
    dir: PathBuf,
    /// Print the unit and write nothing
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
    let text = unit(
        &program.display().to_string(),
        &args.state_dir.display().to_string(),
        args.trust_powered_off,
    );
    if args.dry_run {
        return write!(out, "{text}").map_err(DeviceError::Print);
    }
    let path = args.dir.join(NAME);
    std::fs::write(&path, text)
        .map_err(|source| DeviceError::Write { path: path.clone(), source })?;
    writeln!(
        out,
        "written: {}\nnow run: systemctl daemon-reload && systemctl enable {NAME}",
        path.display()
    )
    .map_err(DeviceError::Print)
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
