//! Small files of a folder such as `/sys`, read with care: they may be missing, long, or no text.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest file that is read, in bytes: a page, the most that sysfs gives.
const MAX_BYTES: u64 = 4096;
/// Most entries of a folder that are looked at. A machine has some tens of sensors and a few thousand CPUs.
const MAX_ENTRIES: usize = 8192;

/// The text without white space around it; `None` where there is none.
pub(super) fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

/// A number.
pub(super) fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}

/// What is in a folder, in order of name; nothing where there is no folder.
pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().take(MAX_ENTRIES);
    let mut entries: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort();
    entries
}

/// The name of a file without its folder; empty where it is no text.
pub(super) fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
