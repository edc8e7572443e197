//! `iop-node import`: submits the blocks of block files to the chain, one after the other.
//!
//! All headers are imported first (`headers.rs`). Then one thread finds, decodes and checks blocks without context;
//! the other, which owns the chain state, takes them from a short queue and has their signatures verified on all
//! cores ahead of their turn. A block that comes before its parent is remembered by its file position and read
//! again later.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use bitcoin::BlockHash;
use clap::Args;
use iop_consensus::params::Params;
use serde_json::json;

use super::blockfile::{Finder, Found, read_at};
use super::headers::Headers;
use super::progress::Progress;
use super::{OfflineArgs, Place, Stop, failed, note};
use crate::chain::checked::{CheckedBlock, Unsound};
use crate::chain::clock::now;
use crate::chain::index::Entry;
use crate::chain::state::ChainState;
use crate::chain::verdict::{BlockAccepted, Rejection, Stored};
use crate::failure::Failure;
use crate::output::print;

/// Maximum number of blocks queued between the two threads, and as many waiting for their turn: at most about 64
/// MB.
const QUEUE: usize = 8;

/// The arguments of `import`.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    offline: OfflineArgs,
    /// Do not run the scripts of this block and of those below it, once two weeks' work is on top [default: the
    /// network's; 0 for none]
    #[arg(long, value_name = "HASH")]
    assume_valid: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Block files: blk*.dat of IoP Core, or what `export` wrote
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// A file with at least one block of the network.
struct Source {
    path: PathBuf,
    file: File,
    /// Its size in bytes.
    length: u64,
    /// Total size of the files before it, bytes.
    before: u64,
}

/// Sent by the reading thread.
enum Item {
    Block {
        checked: Result<CheckedBlock, Unsound>,
        at: Location,
        /// Bytes of all files up to the block's end.
        done: u64,
    },
    /// Bytes of a file that are not blocks.
    Skipped {
        file: usize,
        bytes: u64,
    },
    Unreadable {
        file: usize,
        error: std::io::Error,
    },
}

#[derive(Debug, Clone, Copy)]
struct Location {
    file: usize,
    offset: u64,
}

/// The outcome for the blocks.
#[derive(Debug, Default)]
struct Counts {
    /// Blocks found in the files; those that came before their parent count once.
    blocks: u64,
    /// New blocks: stored, whether or not connected.
    new: u64,
    known: u64,
    refused: u64,
    /// Position and reason of the first refusal.
    first_refusal: Option<String>,
    transactions: u64,
    /// Inputs of new blocks, not counting coinbases.
    inputs: u64,
    skipped: u64,
}

/// Imports the files in the given order.
pub(crate) fn import(args: ImportArgs) -> Result<(), Failure> {
    let mut place = Place::new(args.offline)?;
    place.assume_valid(args.assume_valid.as_deref())?;
    let sources = open_sources(&args.files, &place.params)?;
    let stop = Stop::listen()?;
    let state = ChainState::load_with(place.params.clone(), Arc::new(place.open_or_make()?), place.options)
        .map_err(failed)?;
    let mut import = Import { state, sources, counts: Counts::default(), early: HashMap::new() };
    let seconds = import.run(&stop)?;
    import.report(args.json, seconds, stop.is_told())
}

/// Opens every file and finds its first block, before anything is changed.
fn open_sources(paths: &[PathBuf], params: &Params) -> Result<Vec<Source>, Failure> {
    let mut before = 0;
    let open = |path: &PathBuf| {
        let unreadable = |error| Failure::Failed(format!("{} cannot be read: {error}", path.display()));
        // Checked first: opening a named pipe would wait for a writer.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(Failure::Failed(format!("{} is not a regular file", path.display())));
        }
        let file = File::open(path).map_err(unreadable)?;
        let length = file.metadata().map_err(unreadable)?.len();
        let mut finder = Finder::new(&file, params.magic);
        if finder.next().map_err(unreadable)?.is_none() {
            return Err(Failure::Failed(no_block(path, params)));
        }
        // The reading thread starts from the beginning again.
        (&file).rewind().map_err(unreadable)?;
        before += length;
        Ok(Source { path: path.clone(), file, length, before: before - length })
    };
    paths.iter().map(open).collect()
}

/// Describes the beginning of a file without a block of this network.
fn no_block(path: &Path, params: &Params) -> String {
    let mut first = Vec::new();
    // A file that can no longer be read appears as empty here.
    let _ = File::open(path).and_then(|file| file.take(4).read_to_end(&mut first));
    let other = Params::NAMES.into_iter().filter_map(Params::by_name).find(|other| other.magic == first[..]);
    let found = match other {
        _ if first.is_empty() => "the file is empty".to_owned(),
        Some(other) => format!("it begins with {}, the magic of {}", spaced(&first), other.name),
        None => format!("it begins with {}", spaced(&first)),
    };
    format!(
        "{} holds no block of network {} (magic {}): {found}",
        path.display(),
        params.name,
        spaced(&params.magic)
    )
}

fn spaced(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// The reading thread: ends after the last file, or when the receiver is dropped.
fn read_all(sources: Vec<(File, u64)>, params: &Params, queue: &SyncSender<Item>) {
    for (file, (source, before)) in sources.into_iter().enumerate() {
        let mut finder = Finder::new(source, params.magic);
        loop {
            let item = match finder.next() {
                Ok(Some(Found { offset, block })) => Item::Block {
                    checked: CheckedBlock::new(block, params),
                    at: Location { file, offset },
                    done: before + finder.position(),
                },
                Ok(None) => break,
                Err(error) => Item::Unreadable { file, error },
            };
            let last = matches!(item, Item::Unreadable { .. });
            if queue.send(item).is_err() || last {
                return;
            }
        }
        if queue.send(Item::Skipped { file, bytes: finder.skipped }).is_err() {
            return;
        }
    }
}

struct Import {
    state: ChainState,
    sources: Vec<Source>,
    counts: Counts,
    /// Blocks that came before their parent, by that parent.
    early: HashMap<BlockHash, Vec<Location>>,
}

impl Import {
    /// Imports every block, or until told to stop. Returns the time taken.
    fn run(&mut self, stop: &Stop) -> Result<Duration, Failure> {
        let total = self.sources.iter().map(|source| source.length).sum();
        let mut progress = Progress::new("importing", total);
        let handles: Result<Vec<(File, u64)>, std::io::Error> =
            self.sources.iter().map(|source| Ok((source.file.try_clone()?, source.before))).collect();
        let handles = handles.map_err(failed)?;
        self.take_headers(stop)?;
        let params = self.state.params().clone();
        let (sender, queue) = sync_channel(QUEUE);
        std::thread::scope(|threads| {
            let reader = std::thread::Builder::new().name("reader".to_owned());
            let params = &params;
            reader.spawn_scoped(threads, move || read_all(handles, params, &sender)).map_err(failed)?;
            self.take_all(queue, stop, &mut progress)
        })?;
        self.state.flush().map_err(failed)?;
        self.state.storage().sync().map_err(failed)?;
        Ok(progress.end())
    }

    fn take_headers(&mut self, stop: &Stop) -> Result<(), Failure> {
        let mut headers = Headers::of(&mut self.state);
        for Source { path, file, .. } in &self.sources {
            let unreadable = |error| Failure::Failed(format!("{} cannot be read: {error}", path.display()));
            headers.take_file(file, stop).map_err(failed)?.map_err(unreadable)?;
            // The reading thread starts from the beginning again.
            (&*file).rewind().map_err(unreadable)?;
        }
        headers.give().map_err(failed)
    }

    fn take_all(
        &mut self,
        queue: Receiver<Item>,
        stop: &Stop,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let mut ahead = VecDeque::with_capacity(QUEUE);
        loop {
            self.look_ahead(&queue, &mut ahead);
            let Some(item) = ahead.pop_front() else { break };
            match item {
                Item::Block { checked, at, done } => {
                    self.counts.blocks += 1;
                    self.take(checked, at, stop)?;
                    progress.at(done, self.height(), self.counts.blocks);
                }
                Item::Skipped { file, bytes } if bytes > 0 => {
                    self.counts.skipped += bytes;
                    let path = self.sources[file].path.display();
                    note(&format!("iop-node: {path}: {bytes} bytes are no blocks of this network"));
                }
                Item::Skipped { .. } => {}
                Item::Unreadable { file, error } => {
                    let path = self.sources[file].path.display();
                    return Err(Failure::Failed(format!("{path} cannot be read: {error}")));
                }
            }
            if stop.is_told() {
                break;
            }
        }
        Ok(())
    }

    /// Takes all queued blocks, waiting for at least one unless the queue has ended, and starts verifying the
    /// signatures of those whose scripts will be run.
    fn look_ahead(&self, queue: &Receiver<Item>, ahead: &mut VecDeque<Item>) {
        while ahead.len() < QUEUE {
            let next = if ahead.is_empty() { queue.recv().ok() } else { queue.try_recv().ok() };
            let Some(item) = next else { return };
            if let Item::Block { checked: Ok(checked), .. } = &item
                && self.state.awaits_scripts(&checked.hash())
            {
                checked.begin_signatures();
            }
            ahead.push_back(item);
        }
    }

    /// Imports a block, and those that waited for it.
    fn take(
        &mut self,
        checked: Result<CheckedBlock, Unsound>,
        at: Location,
        stop: &Stop,
    ) -> Result<(), Failure> {
        let mut waited =
            self.offer(checked, at)?.and_then(|hash| self.early.remove(&hash)).unwrap_or_default();
        // Read one by one: a file may contain the same block any number of times.
        while let Some(at) = waited.pop() {
            if stop.is_told() {
                break;
            }
            let source = &self.sources[at.file];
            let block = read_at(&source.file, at.offset).map_err(|error| {
                Failure::Failed(format!("{} cannot be read: {error}", source.path.display()))
            })?;
            let checked = CheckedBlock::new(block, self.state.params());
            if let Some(hash) = self.offer(checked, at)? {
                waited.extend(self.early.remove(&hash).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Offers one block to the chain; returns its hash if its children can follow.
    fn offer(
        &mut self,
        checked: Result<CheckedBlock, Unsound>,
        at: Location,
    ) -> Result<Option<BlockHash>, Failure> {
        let hash = checked.as_ref().map_or_else(|unsound| unsound.hash, CheckedBlock::hash);
        // Before it is judged: a private chain may have a harder limit than its genesis meets.
        if self.is_genesis(&hash) {
            self.counts.known += 1;
            return Ok(Some(hash));
        }
        let checked = match checked {
            Ok(checked) => checked,
            Err(Unsound { error, .. }) => {
                self.refuse(&hash, at, &Rejection::Rule(error));
                return Ok(None);
            }
        };
        let parent = checked.block().header.prev_blockhash;
        let parent_entry = self.state.index().find(&parent).map(|id| self.state.index().get(id));
        if parent_entry.is_some_and(Entry::is_failed) {
            self.refuse(&hash, at, &Rejection::InvalidParent);
            return Ok(None);
        }
        if !parent_entry.is_some_and(|parent| parent.linked) {
            self.early.entry(parent).or_default().push(at);
            return Ok(None);
        }
        let block = checked.block().clone();
        let BlockAccepted { stored, verdict } =
            self.state.accept_checked(Ok(checked), true, now()).map_err(failed)?;
        if let Some(Err(rejection)) = verdict {
            self.refuse(&hash, at, &rejection);
            return Ok(None);
        }
        if stored == Stored::Now {
            self.counts.new += 1;
            self.counts.transactions += block.txdata.len() as u64;
            self.counts.inputs += block.txdata.iter().skip(1).map(|tx| tx.input.len() as u64).sum::<u64>();
        } else {
            self.counts.known += 1;
        }
        Ok(Some(hash))
    }

    fn is_genesis(&self, hash: &BlockHash) -> bool {
        let genesis = self.state.index().active_at(0).expect("genesis is always active");
        self.state.index().get(genesis).hash == *hash
    }

    fn refuse(&mut self, hash: &BlockHash, at: Location, rejection: &Rejection) {
        self.counts.refused += 1;
        let path = self.sources[at.file].path.display();
        self.counts.first_refusal.get_or_insert_with(|| {
            format!("{path}: block {hash} at byte {}: {} ({rejection})", at.offset, rejection.reason())
        });
    }

    fn height(&self) -> u32 {
        self.state.index().get(self.state.index().tip()).record.height
    }

    /// Reports the outcome; fails if a block was refused.
    fn report(&self, as_json: bool, time: Duration, interrupted: bool) -> Result<(), Failure> {
        let (counts, seconds) = (&self.counts, time.as_secs_f64());
        let early: usize = self.early.values().map(Vec::len).sum();
        let (height, tip) = (self.height(), self.state.index().get(self.state.index().tip()).hash);
        if as_json {
            let result = json!({
                "blocks": counts.blocks, "new": counts.new, "known": counts.known, "refused": counts.refused,
                "first_refusal": counts.first_refusal, "without_parent": early,
                "transactions": counts.transactions, "inputs": counts.inputs, "skipped_bytes": counts.skipped,
                "height": height, "tip": tip.to_string(), "seconds": seconds,
                "blocks_per_second": counts.blocks as f64 / seconds,
                "inputs_per_second": counts.inputs as f64 / seconds, "interrupted": interrupted,
            });
            print(&result.to_string())?;
        } else {
            let end = if interrupted { ", then told to stop" } else { "" };
            print(&format!(
                "{} blocks in {seconds:.1} s: {} new, {} known, {} refused, {early} without their parent{end}; \
                 the tip is {tip} at height {height}",
                counts.blocks, counts.new, counts.known, counts.refused
            ))?;
        }
        match &counts.first_refusal {
            Some(first) => Err(Failure::Failed(format!("{} blocks refused, first {first}", counts.refused))),
            None => Ok(()),
        }
    }
}
