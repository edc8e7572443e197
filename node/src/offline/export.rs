//! `iop-node export`: writes the active chain to a block file, for `import` and for IoP Core's `-loadblock`.
//!
//! A file is written atomically: under another name, then renamed. A pipe or device is written to directly. `-` is
//! stdout.

use std::fs::{File, Metadata};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bitcoin::consensus::encode::serialize;
use clap::Args;

use super::blockfile::frame;
use super::progress::Progress;
use super::{OfflineArgs, Place, Stop, failed, note};
use crate::chain::state::ChainState;
use crate::failure::Failure;

/// The arguments of `export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    offline: OfflineArgs,
    /// First height; 0 is genesis
    #[arg(long, value_name = "HEIGHT", default_value = "0")]
    from: u32,
    /// Last height [default: the tip]
    #[arg(long, value_name = "HEIGHT")]
    to: Option<u32>,
    /// The file to write, which takes the place of an old one; - is stdout
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Writes the blocks of the active chain between two heights, both included.
pub(crate) fn export(args: ExportArgs) -> Result<(), Failure> {
    let to_stdout = args.file.as_os_str() == "-";
    if to_stdout && io::stdout().is_terminal() {
        return Err(Failure::Usage("stdout is a terminal: a file or a pipe expected".to_owned()));
    }
    let place = Place::new(args.offline)?;
    let state = ChainState::load_with(place.params.clone(), Arc::new(place.open()?), place.options)
        .map_err(failed)?;
    let tip = state.index().get(state.index().tip()).record.height;
    let to = args.to.unwrap_or(tip);
    if args.from > to || to > tip {
        return Err(Failure::Usage(format!(
            "heights {} to {to} asked for, an ascending range up to the tip at {tip} expected",
            args.from
        )));
    }
    let stop = Stop::listen()?;
    let cannot =
        |error: io::Error| Failure::Failed(format!("{} cannot be written: {error}", args.file.display()));
    let written = if to_stdout {
        write(&state, args.from, to, &stop, &mut BufWriter::new(io::stdout().lock()))
    } else {
        write_to(&state, args.from, to, &stop, &args.file)
    };
    let written = written.map_err(cannot)?;
    match written {
        Some(bytes) => note(&format!("{} blocks, {bytes} bytes", to - args.from + 1)),
        None => return Err(Failure::Failed("told to stop: the export is not whole".to_owned())),
    }
    Ok(())
}

/// Writes to `path`: directly to a pipe or device, replacing a regular file; a link is followed.
fn write_to(state: &ChainState, from: u32, to: u32, stop: &Stop, path: &Path) -> io::Result<Option<u64>> {
    match std::fs::metadata(path) {
        Ok(there) if there.is_dir() => Err(io::Error::from(io::ErrorKind::IsADirectory)),
        Ok(there) if is_stdout(&there) => {
            write(state, from, to, stop, &mut BufWriter::new(io::stdout().lock()))
        }
        Ok(there) if there.is_file() => write_beside(state, from, to, stop, &path.canonicalize()?),
        Ok(_) => {
            let sink = File::options().write(true).open(path)?;
            write(state, from, to, stop, &mut BufWriter::new(sink))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.read_link() {
            // The target of a link may not exist yet; circular links give another error.
            Ok(target) => write_to(state, from, to, stop, &path.with_file_name("").join(target)),
            Err(_) => write_beside(state, from, to, stop, path),
        },
        Err(error) => Err(error),
    }
}

/// `/dev/stdout` may be a file that the parent process has written to, and will write to again.
fn is_stdout(there: &Metadata) -> bool {
    rustix::fs::fstat(io::stdout()).is_ok_and(|own| (own.st_dev, own.st_ino) == (there.dev(), there.ino()))
}

/// Writes to a file of another name and renames it.
fn write_beside(state: &ChainState, from: u32, to: u32, stop: &Stop, path: &Path) -> io::Result<Option<u64>> {
    let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
    let mut beside = name.to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = path.with_file_name(beside);
    let mut file = BufWriter::new(File::create_new(&beside)?);
    let done = write(state, from, to, stop, &mut file).and_then(|written| {
        let Some(bytes) = written else { return Ok(None) };
        file.get_ref().sync_all()?;
        std::fs::rename(&beside, path)?;
        Ok(Some(bytes))
    });
    if !matches!(done, Ok(Some(_))) {
        let _ = std::fs::remove_file(&beside);
    }
    done
}

/// Writes the blocks and returns the number of bytes; `None` when told to stop.
fn write(
    state: &ChainState,
    from: u32,
    to: u32,
    stop: &Stop,
    out: &mut impl Write,
) -> io::Result<Option<u64>> {
    let magic = state.params().magic;
    let mut progress = Progress::new("exporting", u64::from(to - from) + 1);
    let mut bytes = 0;
    for (done, height) in (1..).zip(from..=to) {
        if stop.is_told() {
            return Ok(None);
        }
        let id = state.index().active_at(height).expect("the range ends at the tip");
        let hash = state.index().get(id).hash;
        let block = state.storage().block(&hash).map_err(io::Error::other)?;
        let block = block.ok_or_else(|| {
            io::Error::other(format!("the block at height {height} is not kept any more: it was pruned"))
        })?;
        let block = serialize(&block);
        out.write_all(&frame(magic, block.len()))?;
        out.write_all(&block)?;
        bytes += (super::blockfile::FRAME + block.len()) as u64;
        progress.at(done, height, done);
    }
    out.flush()?;
    Ok(Some(bytes))
}
