//! An application that writes and syncs while dm-era's metadata fails, and what it was promised.

use std::fs;
use std::path::Path;

use eratrack_dm::{EraStatus, Host, HostError};
use eratrack_model::record::Record;
use kit::{Mount, Promised, Writer};

const WRITERS: usize = 4;
const MIB: u64 = 4;

/// As an agent notices it: at a boundary, or when it asks.
pub(crate) fn has_failed(host: &Host, record: &Record) -> bool {
    let boundary = host.boundary(record);
    let refused = matches!(boundary, Err(HostError::EraFailed { .. }));
    assert!(refused || boundary.is_ok(), "{boundary:?}");
    refused || host.status(record).unwrap() == EraStatus::Error
}

/// Writers, each of which ends at the first write or fsync that fails.
pub(crate) struct Load {
    mount: Mount,
    writers: Vec<Writer>,
}

impl Load {
    pub(crate) fn start(mount: Mount) -> Self {
        let writers: Vec<_> = (0..WRITERS).map(|_| Writer::start(mount.path(), MIB)).collect();
        let load = Self { mount, writers };
        load.advance();
        load
    }

    pub(crate) fn advance(&self) {
        for writer in &self.writers {
            writer.advance(10);
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.writers.iter().any(Writer::has_ended)
    }

    pub(crate) fn fails(&self) {
        kit::wait_for("a writer that fails", || self.has_failed().then_some(()));
    }

    /// Once era is out, every acknowledged record is there, at once or after the filesystem was
    /// mounted again, and the filesystem is whole.
    pub(crate) fn nothing_is_lost(self, kind: &str) {
        let Self { mut mount, writers } = self;
        let promised: Vec<_> = writers.into_iter().map(Writer::stop).collect();
        let alive = is_alive(mount.path());
        if !alive {
            mount = mount.again();
            assert!(is_alive(mount.path()), "it takes no writes after it was mounted again");
        }
        let records: u64 = promised.iter().map(|promised| promised.records).sum();
        let failed = promised.iter().filter_map(Promised::failure).count();
        println!("{kind}: {failed} of {WRITERS} writers failed, {records} records, alive: {alive}");
        for promised in promised {
            promised.verify_in(mount.path());
        }
        let writer = Writer::start(mount.path(), MIB);
        writer.advance(50);
        writer.stop_and_verify();
        mount.unmount_and_check(kind);
    }
}

/// Whether the filesystem takes writes.
fn is_alive(dir: &Path) -> bool {
    let probe = dir.join("probe");
    fs::write(&probe, "x").and_then(|()| fs::File::open(&probe)?.sync_all()).is_ok()
}
