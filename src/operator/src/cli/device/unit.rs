//! A systemd unit that puts stacks back before anything uses their devices, and a udev rule that
//! lets it prove that nothing did.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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
    let first = is_on_root(&args.state_dir);
    let unit = unit(
        &program.display().to_string(),
        &args.state_dir.display().to_string(),
        first,
        args.trust_powered_off,
    );
    if !first {
        eprintln!(
            "eratrack: {} is not on the root filesystem: give every mount of a tracked device the option x-systemd.after={UNIT} in /etc/fstab, or use a state directory that is",
            args.state_dir.display()
        );
    }
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
/// they were told before anybody could use them. So not when udev has events made up for devices that
/// were there before it, such as those of an initramfs without this rule: the kernel marks them with
/// `SYNTH_UUID` (Documentation/ABI/testing/sysfs-uevent).
fn rule() -> String {
    format!(
        "ACTION==\"add\", SUBSYSTEM==\"block\", KERNEL==\"dm-*\", ENV{{SYNTH_UUID}}==\"\", ATTR{{queue/iostats}}=\"1\", TAG+=\"{COUNTED}\"\n"
    )
}

/// Whether nothing need be mounted before the directory, or what will be it, can be read.
fn is_on_root(dir: &Path) -> bool {
    let there = dir.ancestors().find_map(|dir| std::fs::metadata(dir).ok());
    let root = std::fs::metadata("/").ok();
    there.zip(root).is_none_or(|(there, root)| there.dev() == root.dev())
}

/// After the volumes are there and their records can be read, before any of them is mounted. At
/// shutdown the order is turned round: it is stopped, and seals, once they are unmounted.
///
/// What needs a mount cannot come before all mounts: systemd would drop one job or the other.
fn unit(program: &str, state_dir: &str, first: bool, trust: bool) -> String {
    let trust = if trust { " --trust-powered-off" } else { "" };
    let target = if first { "local-fs-pre.target" } else { "local-fs.target" };
    let wants = if first { "Wants=local-fs-pre.target\n" } else { "" };
    format!(
        "[Unit]
Description=Changed-block tracking: put era back under its devices
Documentation=man:eratrack-device-restore(1)
DefaultDependencies=no
RequiresMountsFor={state_dir}
After=systemd-remount-fs.service lvm2-activation.service lvm2-monitor.service systemd-udev-settle.service
Wants=systemd-udev-settle.service
Before={target} remote-fs-pre.target kubelet.service shutdown.target
{wants}Conflicts=shutdown.target

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
        let text = unit("/usr/bin/eratrack", "/var/lib/eratrack", true, false);
        for line in [
            "Before=local-fs-pre.target",
            "RequiresMountsFor=/var/lib/eratrack",
            "ExecStart=/usr/bin/eratrack device restore --state-dir=/var/lib/eratrack\n",
            "ExecStop=/usr/bin/eratrack device seal --state-dir=/var/lib/eratrack\n",
        ] {
            assert!(text.contains(line), "{line}");
        }
        assert!(unit("/e", "/s", true, true).contains("--state-dir=/s --trust-powered-off\n"));
    }

    #[test]
    fn what_was_there_before_udev_is_not_said_to_have_been_counted_from_the_start() {
        assert!(rule().contains("ENV{SYNTH_UUID}==\"\", "), "{}", rule());
    }

    /// `systemd-analyze verify` finds a cycle else: the unit before all mounts, and after one.
    #[test]
    fn with_a_state_directory_that_is_mounted_it_is_not_before_all_mounts() {
        let text = unit("/e", "/var/lib/eratrack", false, false);
        assert!(!text.contains("local-fs-pre.target"), "{text}");
        assert!(
            text.contains("Before=local-fs.target") && text.contains("kubelet.service"),
            "{text}"
        );
        assert!(is_on_root(Path::new("/")) && is_on_root(Path::new("/no/such/directory")));
        assert!(!is_on_root(Path::new("/proc/sys/kernel")));
    }
}
