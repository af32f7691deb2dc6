//! A target's checkpoint while copies are made, and who has written to the target meanwhile.

use eratrack_dm::machine::MachineError;
use eratrack_model::units::SECTOR_BYTES;

use crate::checkpoint::{Checkpoint, CheckpointFile};
use crate::error::ReplicaError;
use crate::proof::{Proof, Witness};
use crate::target::Target;

/// What is written down of a target, and what was seen of it then.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: CheckpointFile,
    checkpoint: Option<Checkpoint>,
    witness: Option<Witness>,
    /// What was seen when it was opened, or when something was last written down.
    seen: Option<Proof>,
    /// Bytes that we have written since.
    ours: u64,
    /// Once it could not be told who had written, a later look proves nothing.
    doubtful: bool,
}

impl Ledger {
    pub(crate) fn new(
        file: CheckpointFile,
        checkpoint: Option<Checkpoint>,
        witness: Option<Witness>,
        seen: Option<Proof>,
    ) -> Self {
        Self { file, checkpoint, witness, seen, ours: 0, doubtful: false }
    }

    pub(crate) fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// So many bytes were written or made zero.
    pub(crate) fn wrote(&mut self, bytes: u64) {
        self.ours += bytes;
    }

    /// Bytes that we have written since something was last written down.
    pub(crate) fn ours(&self) -> u64 {
        self.ours
    }

    /// Everything is copied again: what was written before is of no account.
    pub(crate) fn begin_anew(&mut self) {
        self.doubtful = false;
    }

    /// Writes it down, durably; what it speaks of must be flushed. Until the next time not more than `ahead` bytes are
    /// written. Fails if somebody else has written to the target meanwhile, and has the next copy be one of everything.
    pub(crate) fn note(
        &mut self,
        target: &Target,
        checkpoint: Checkpoint,
        ahead: u64,
    ) -> Result<(), ReplicaError> {
        let (proof, alone) = self.look()?;
        self.doubtful |= self.witness.is_some() && proof.is_none();
        let proof = proof.filter(|_| !self.doubtful);
        let ahead = ahead.div_ceil(SECTOR_BYTES);
        let proof = proof.map(|proof| Proof { ahead, ..proof });
        self.write(Checkpoint { proof, ..checkpoint })?;
        if alone { Ok(()) } else { Err(ReplicaError::Written { path: target.path().to_owned() }) }
    }

    fn write(&mut self, checkpoint: Checkpoint) -> Result<(), ReplicaError> {
        self.file.write(&checkpoint).map_err(ReplicaError::Checkpoint)?;
        self.checkpoint = Some(checkpoint);
        Ok(())
    }

    /// What is seen now, if it proves anything, and whether nobody else has written.
    fn look(&mut self) -> Result<(Option<Proof>, bool), MachineError> {
        let Some(witness) = &self.witness else { return Ok((None, true)) };
        let now = witness.see()?;
        let (before, ours) = (self.seen.take(), self.ours / SECTOR_BYTES);
        (self.seen, self.ours) = (now.clone(), 0);
        let (Some(before), Some(now)) = (before, now) else { return Ok((None, true)) };
        Ok(match now.sectors.checked_sub(before.sectors) {
            Some(grown) if grown == ours => (Some(now), true),
            Some(grown) if grown > ours => (None, false),
            // It does not count all that is written, so what it says of others is worth nothing.
            Some(_) | None => (None, true),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::tests::checkpoint;
    use crate::target::tests::{machine, open};
    use eratrack_dm::machine::Machine;
    use std::fs;
    use std::path::Path;

    struct Scene {
        root: tempfile::TempDir,
        target: Target,
        ledger: Ledger,
    }

    fn count(root: &Path, sectors: u64) {
        let stat = format!("0 0 0 0 0 0 {sectors} 0 0 0 0 0 0 0 0 0 0\n");
        fs::write(root.join("sys/dev/block/253:3/stat"), stat).unwrap();
    }

    /// What the device has counted before, and a ledger of it.
    fn scene(counted: u64) -> Scene {
        let (root, machine) = machine();
        let block = root.path().join("sys/dev/block/253:3");
        fs::create_dir_all(block.join("queue")).unwrap();
        fs::create_dir_all(root.path().join("proc/sys/kernel/random")).unwrap();
        let boot = "9e107d9d-372b-4b5a-a9f1-7d0c4f3b2a10\n";
        fs::write(root.path().join("proc/sys/kernel/random/boot_id"), boot).unwrap();
        fs::write(block.join("queue/iostats"), "1\n").unwrap();
        fs::write(block.join("diskseq"), "12\n").unwrap();
        count(root.path(), counted);
        let target = open(&machine, &root.path().join("target"), 4096).unwrap();
        let file = CheckpointFile::of(root.path(), target.path());
        let witness = Witness::new(&Machine::new(root.path()), "253:3".parse().unwrap(), None);
        let seen = witness.see().unwrap();
        let ledger = Ledger::new(file, None, Some(witness), seen);
        Scene { root, target, ledger }
    }

    #[test]
    fn what_we_write_ourselves_is_proof_and_says_how_much_may_follow() {
        let mut scene = scene(100);
        scene.ledger.wrote(4096);
        count(scene.root.path(), 108);
        scene.ledger.note(&scene.target, checkpoint(), 1 << 20).unwrap();
        let noted = scene.ledger.checkpoint().unwrap().proof.clone().unwrap();
        assert_eq!((noted.sectors, noted.ahead), (108, 2048));
        assert_eq!(scene.ledger.ours(), 0, "from here on it is counted anew");
    }

    #[test]
    fn one_sector_of_somebody_elses_has_all_copied_again() {
        let mut scene = scene(100);
        scene.ledger.wrote(4096);
        count(scene.root.path(), 109);
        let error = scene.ledger.note(&scene.target, checkpoint(), 0).unwrap_err();
        assert!(matches!(error, ReplicaError::Written { .. }), "{error}");
        let written = scene.ledger.file.read().unwrap().unwrap();
        assert_eq!(written.proof, None, "also for whoever comes next");
    }

    #[test]
    fn a_device_that_does_not_count_all_proves_nothing() {
        let mut scene = scene(100);
        scene.ledger.wrote(4096);
        count(scene.root.path(), 104);
        scene.ledger.note(&scene.target, checkpoint(), 0).unwrap();
        assert_eq!(scene.ledger.checkpoint().unwrap().proof, None);
        scene.ledger.wrote(4096);
        count(scene.root.path(), 112);
        scene.ledger.note(&scene.target, checkpoint(), 0).unwrap();
        assert_eq!(scene.ledger.checkpoint().unwrap().proof, None, "nor later");
        scene.ledger.begin_anew();
        scene.ledger.note(&scene.target, checkpoint(), 0).unwrap();
        assert!(scene.ledger.checkpoint().unwrap().proof.is_some(), "until all is copied again");
    }
}
