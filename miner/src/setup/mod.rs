//! `iop-miner setup`: questions, a short measurement, and a configuration file for `iop-miner run`.
//!
//! Here: the questions and the errors in answers. Not here: reading and writing lines (`talk`), the format of the file
//! (`file`), the validation of flags: the command line that the file stands for validates them again.
//! Path: answers → [`Answers`] → measurement → file.

mod answers;
mod file;
mod talk;

pub use answers::{Answers, Node, Pool, Source};

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::bench;
use crate::choice;
use crate::device::{DeviceName, Machine};
use crate::dispatcher::VERSIONS;
use crate::stats::HashRate;
use talk::Talk;

/// Settings of `setup`.
#[derive(Clone, Debug)]
pub struct SetupSettings {
    /// The file to write.
    pub out: PathBuf,
    /// How long to measure each device.
    pub measure: Duration,
}

/// Asks, measures, writes.
///
/// # Errors
/// The input ends before all questions are answered, or the file or the questions cannot be written.
pub fn run(settings: &SetupSettings, input: &mut impl BufRead, out: &mut impl Write) -> io::Result<()> {
    let mut talk = Talk { input, out };
    let shown = settings.out.display();
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", settings.out.display()));
    check_place(&settings.out).map_err(named)?;
    talk.say("This asks what to mine for, measures, and writes a file for iop-miner run.")?;
    talk.say("An empty answer takes what is in brackets.\n")?;
    let replace = settings.out.exists();
    if replace && !talk.confirm(&format!("{shown} is there already. Replace it? (yes or no)"))? {
        return talk.say("Nothing is changed.");
    }
    let answers = answers::ask(&mut talk)?;
    let measured = measure(&mut talk, &answers, settings.measure)?;
    write(&settings.out, &file::text(&answers, &measured), replace).map_err(named)?;
    talk.say(&format!("\n{shown} is written. Start with: iop-miner run --config {shown}"))
}

/// Measures each device as it will mine, and prints the results; a device that fails is reported, and may be repaired
/// later.
fn measure<I: BufRead, O: Write>(
    talk: &mut Talk<'_, I, O>,
    answers: &Answers,
    duration: Duration,
) -> io::Result<Vec<String>> {
    if answers.devices.is_empty() {
        return Ok(Vec::new());
    }
    talk.say(&format!("\nMeasuring for {} s each:", duration.as_secs()))?;
    let (mut lines, mut sum) = (Vec::new(), 0.0);
    for &device in &answers.devices {
        let measured = match device {
            DeviceName::Cpu => {
                let threads = Machine::here().threads(answers.spare_cores);
                bench::measure(choice::auto(), threads, VERSIONS as usize, duration)
            }
            DeviceName::OpenCl(platform, number) => {
                bench::measure_opencl(platform, number, VERSIONS as usize, duration)
            }
        };
        let line = match measured {
            Ok(done) => {
                sum += done.hashes_per_second;
                let rate = HashRate(done.hashes_per_second);
                let threads = bench::many(done.threads, "thread");
                format!("{device}: {rate} with kernel {} on {threads}", done.kernel)
            }
            Err(error) => format!("{device} does not work: {error}"),
        };
        talk.say(&format!("  {line}"))?;
        lines.push(line);
    }
    if lines.len() > 1 {
        lines.push(format!("all together: {}", HashRate(sum)));
        talk.say(&format!("  all together: {}", HashRate(sum)))?;
    }
    Ok(lines)
}

/// Checks that the file can be written. Done before any question.
fn check_place(path: &Path) -> io::Result<()> {
    let is_folder = path.as_os_str().as_encoded_bytes().ends_with(b"/");
    if is_folder || std::fs::metadata(path).map_or(path.is_symlink(), |there| !there.is_file()) {
        return Err(io::Error::other("it is no file, and one cannot take its place"));
    }
    let unfinished = unfinished(path);
    let _ = std::fs::remove_file(&unfinished); // left over from a killed process with the same id
    open_new(&unfinished)?;
    std::fs::remove_file(&unfinished)
}

/// A temporary name next to the file.
fn unfinished(path: &Path) -> PathBuf {
    path.with_extension(format!("{}.new", std::process::id()))
}

/// Creates a file for its owner only: it may contain a password.
fn open_new(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Writes the file; an existing one is replaced atomically.
fn write(path: &Path, text: &str, replace: bool) -> io::Result<()> {
    if !replace {
        return open_new(path)?.write_all(text.as_bytes());
    }
    let unfinished = unfinished(path);
    let done = open_new(&unfinished)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| std::fs::rename(&unfinished, path));
    if done.is_err() {
        // An incomplete file is of no use.
        let _ = std::fs::remove_file(&unfinished);
    }
    done
}

#[cfg(all(test, unix))]
mod tests;
