//! Found blocks that no disk has taken: noted where no room is needed, and tried again until the pool ends.
//!
//! Here: what a block's file waits for. Not here: the files ([`crate::spool`]), the note ([`crate::ledger`]).

use super::*;

/// Between two tries to write the file of a block that no disk has taken.
const WRITE_PAUSE: Duration = Duration::from_secs(1);

impl Blocks {
    /// Notes that nodes may have a block that is on no disk: a pool that is started again must not pay again what it pays.
    pub(super) fn note_off_disk(&self, found: &Found) {
        let noted = found.id().map_or(Ok(()), |id| self.ledger.note_off_disk(id));
        if let Err(trouble) = noted {
            error!(hash = %found.hash, "the found block is on no disk, and that cannot be noted: {trouble}");
        }
    }

    /// A file or the ledger has the block.
    pub(super) fn note_on_disk(&self, found: &Found) {
        let noted = found.id().map_or(Ok(()), |id| self.ledger.note_on_disk(&id));
        if let Err(trouble) = noted {
            warn!(hash = %found.hash, "the found block is on a disk now, and that cannot be noted: {trouble}");
        }
    }

    /// Tries again until the disk takes the block; gives its file.
    pub(super) async fn write_again(self: &Arc<Self>, found: &Arc<Found>) -> PathBuf {
        loop {
            tokio::time::sleep(WRITE_PAUSE).await;
            let (blocks, block) = (Arc::clone(self), Arc::clone(found));
            let written = tokio::task::spawn_blocking(move || {
                blocks.ledger.sync();
                blocks.spool.write(&block).and_then(|unfinished| blocks.spool.keep(unfinished, &block))
            });
            if let Ok(Ok(file)) = written.await {
                info!(height = found.height, hash = %found.hash, "the found block is on the disk now");
                self.note_on_disk(found);
                return file;
            }
        }
    }

    /// What a block of an earlier run that was on no disk still waits for, in words; none if the ledger has it now.
    pub(super) fn still_off_disk(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for id in self.ledger.off_disk() {
            let BlockId { height, hash } = id;
            if !self.ledger.has_stored(&id) {
                wrong.push(format!(
                    "the found block {hash} at height {height} was sent to nodes while the disk took nothing, and the \
                     ledger does not have it: what it pays would be paid again; put it back into \
                     found/{height}-{hash}.json from the earlier run's log, or, if it is in no chain, remove its line \
                     from ledger.durable"
                ));
            } else if let Err(trouble) = self.ledger.note_on_disk(&id) {
                wrong.push(trouble.to_string());
            }
        }
        wrong
    }

    /// Says what a block that is not answered when the pool ends waits for.
    pub(super) fn say_unanswered(&self) {
        let off_disk = self.ledger.off_disk();
        if off_disk.is_empty() {
            warn!("a found block is not answered yet; it is on disk and will be submitted at the next start");
        }
        for BlockId { height, hash } in off_disk {
            error!(
                height,
                %hash,
                "a found block is on no disk; put it back from this log before the next start, as said above"
            );
        }
    }
}
