//! The first program of a guest, a shell script: it makes the host's files a root that can be written to without
//! changing them, mounts what every program expects, and loads the device-mapper targets.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

/// A program to run in a guest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    /// The program and its arguments.
    pub(crate) words: Vec<String>,
    /// Where it runs; the root when there is none.
    pub(crate) directory: Option<PathBuf>,
    /// What its environment has besides the usual.
    pub(crate) environment: Vec<(String, String)>,
}

/// The whole script: [`PRELUDE`], then `body`, then power off.
///
/// `share` is the directory of the host that the guest writes results to, seen there as `/share`.
pub(crate) fn script(share: &Path, body: &str) -> String {
    let share = quote(&share.to_string_lossy());
    format!(
        "#!/bin/sh\nshare={share}\n{PRELUDE}\n{body}\nsync\necho o > /proc/sysrq-trigger\nsleep 60\n"
    )
}

/// Runs one program, with a scratch disk mounted at `/scratch`; leaves what it printed in `/share/output`, then its exit
/// status in `/share/status`.
pub(crate) fn run(program: &Program) -> String {
    let mut line = String::from("env");
    for (name, value) in &program.environment {
        let _ = write!(line, " {}", quote(&format!("{name}={value}")));
    }
    for word in &program.words {
        let _ = write!(line, " {}", quote(word));
    }
    let directory = program.directory.as_deref().unwrap_or(Path::new("/"));
    RUN.replace("DIRECTORY", &quote(&directory.to_string_lossy())).replace("PROGRAM", &line)
}

/// As one word of the shell.
pub(crate) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

// The overlay's lower layer is the host, read-only: whatever a test does to its root is gone with the guest.
// The host's /tmp stays in sight: the target directory may lie there.
const PRELUDE: &str = r#"
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
kernel=$(uname -r)
modules=/usr/lib/uml/modules/$kernel
if [ "$1" != inside ]; then
    mount -t proc proc /proc
    mount -t tmpfs -o size=90% upper /mnt
    mkdir /mnt/upper /mnt/work /mnt/root
    insmod "$modules/kernel/fs/overlayfs/overlay.ko"
    mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root || exit 1
    cd /mnt/root
    mkdir .host
    pivot_root . .host
    exec chroot . /bin/sh "$0" inside
fi
umount -l /.host
rmdir /.host
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /share
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir -p /run/lock
mount -t hostfs -o "$share" none /share
mkdir -p /lib/modules
ln -sfn "$modules" "/lib/modules/$kernel"
[ -e "$modules/modules.dep.bin" ] || depmod "$kernel"
modprobe -a dm-era dm-snapshot dm-thin-pool dm-flakey dm-delay dm-crypt dm-log-writes loop
ip link set lo up
# There is no udevd here to answer device mapper's cookies or LVM's questions.
export DM_DISABLE_UDEV=1
mkdir -p /etc/lvm
cat > /etc/lvm/lvmlocal.conf <<'END'
activation { udev_sync=0 udev_rules=0 monitoring=0 }
devices { obtain_device_list_from_udev=0 use_devicesfile=0 external_device_info_source="none" }
global { use_lvmpolld=0 }
END
echo "guest: ready after $(cut -d' ' -f1 /proc/uptime) s"
"#;

// A real filesystem for scratch files: the root's upper layer is a tmpfs, which knows no direct I/O.
const RUN: &str = r"
mkfs.ext4 -q -F /dev/ubda && mkdir -p /scratch && mount /dev/ubda /scratch
(
    export TMPDIR=/scratch RUST_BACKTRACE=1
    cd DIRECTORY && exec PROGRAM
) </dev/null >/share/output 2>&1
echo $? > /share/status.new
mv /share/status.new /share/status
";

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn words_pass_the_shell_unchanged() {
        for word in ["plain", "two words", "it's", "$HOME `id` \"x\" \\", ""] {
            let script = format!("printf %s {}", quote(word));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }

    #[test]
    fn a_program_keeps_its_directory_environment_and_words() {
        let program = Program {
            words: vec!["echo".into(), "a b".into()],
            directory: Some("/x y".into()),
            environment: vec![("A".into(), "1 2".into())],
        };
        assert!(
            run(&program).contains("cd '/x y' && exec env 'A=1 2' 'echo' 'a b'\n"),
            "{}",
            run(&program)
        );
    }

    #[test]
    fn the_script_is_one_that_the_shell_can_read() {
        let text = script(Path::new("/a'b"), &run(&Program::default()));
        let status = Command::new("sh").args(["-n", "-c", &text]).status().unwrap();
        assert!(status.success(), "{text}");
    }
}
