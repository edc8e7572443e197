//! Messages: sending, and fetching with attachments.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use iop_mercury::client::seal::{ATTACHMENT_OVERHEAD, Attachment, Letter, MAX_ATTACHMENTS};
use iop_mercury::client::{Device, Page, Received, SENT_TIME};
use iop_mercury::id::Id;
use iop_mercury::limits::{CHUNK, MAX_BLOBS};
use serde_json::{Value, json};

use crate::Failure;
use crate::args::BlobCommand;
use crate::contacts::{read, write_new};
use crate::show::{Show, tame, tame_lines};

/// Maximum number of file names tried for an attachment.
const MAX_NAMES: usize = 1000;

/// Sends a message. Everything that can be refused without the files is checked before they are uploaded and use up
/// the quota.
pub(crate) async fn send(device: &Device, to: Id, text: String, files: &[PathBuf]) -> Result<(), Failure> {
    device.check_relation(to)?;
    if files.len() > MAX_ATTACHMENTS {
        let given = files.len();
        return Err(Failure::Usage(format!("{given} attachments, at most {MAX_ATTACHMENTS} expected")));
    }
    let (mut all, mut size) = (Vec::new(), 0);
    for file in files {
        let bytes = read(file, MAX_BLOBS - ATTACHMENT_OVERHEAD as u64)?;
        let name = file.file_name().map_or("attachment".into(), |name| name.to_string_lossy());
        size += (bytes.len() + ATTACHMENT_OVERHEAD) as u64;
        if size > MAX_BLOBS {
            return Err(Failure::Failed(format!(
                "attachments of {size} bytes, at most {MAX_BLOBS} expected"
            )));
        }
        all.push((name.into_owned(), bytes));
    }
    Ok(device.send_files(to, text, &all).await?)
}

/// Fetches all mail: each page is printed, then the home deletes it. Attachments are saved afterwards, so that no
/// letter has to wait for another's attachments.
pub(crate) async fn fetch(device: &Device, save: Option<&Path>, show: Show) -> Result<(), Failure> {
    let mut attached = Vec::new();
    loop {
        let page = device.fetch().await?;
        show_page(&page, show)?;
        device.keep_attachments(&page)?;
        device.acknowledge(&page).await?;
        attached.extend(attachments_of(&page));
        if !page.more {
            break;
        }
    }
    match save {
        Some(folder) => save_all(device, &attached, folder, show).await,
        None => Ok(()),
    }
}

fn show_page(page: &Page, show: Show) -> Result<(), Failure> {
    for item in &page.items {
        match item {
            Received::Letter { from, letter, .. } => show.one(&text(*from, letter), &as_json(item))?,
            Received::Accepted(id) => show.one(&format!("{id} accepts"), &as_json(item))?,
            Received::Revoked(id) => show.one(&format!("{id} takes the relation back"), &as_json(item))?,
            Received::Refused(reason) => tracing::warn!("mail thrown away: {reason}"),
        }
    }
    Ok(())
}

/// The attachments of a page, with their senders.
pub(crate) fn attachments_of(page: &Page) -> Vec<(Id, Attachment)> {
    let mut all = Vec::new();
    for item in &page.items {
        if let Received::Letter { from, letter, .. } = item {
            all.extend(letter.attachments.iter().map(|one| (*from, one.clone())));
        }
    }
    all
}

/// Saves attachments, and prints where. One that cannot be downloaded is reported, which is no failure: it is kept
/// for later, with the others of its sender, so that they do not delay those of other senders.
pub(crate) async fn save_all(
    device: &Device,
    attached: &[(Id, Attachment)],
    folder: &Path,
    show: Show,
) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)
        .map_err(|error| Failure::Failed(format!("{}: {error}", folder.display())))?;
    let mut failed = HashSet::new();
    for (from, attachment) in attached {
        if failed.contains(from) {
            continue;
        }
        match get(device, attachment, folder).await? {
            Some(file) => show_attachment(*from, attachment, Some(&file), show)?,
            None => drop(failed.insert(*from)),
        }
    }
    Ok(())
}

/// Downloads and saves an attachment, and removes it from those kept.
async fn get(device: &Device, attachment: &Attachment, folder: &Path) -> Result<Option<PathBuf>, Failure> {
    match device.attachment(attachment).await {
        Ok(bytes) => {
            let file = keep(folder, &attachment.name, &bytes)?;
            device.forget_attachment(attachment)?;
            Ok(Some(file))
        }
        Err(error) => {
            let name = tame(&attachment.name);
            tracing::warn!(
                "the attachment {name} is not to be had now: {error}; `attachments --save` tries again"
            );
            Ok(None)
        }
    }
}

fn show_attachment(
    from: Id,
    attachment: &Attachment,
    file: Option<&Path>,
    show: Show,
) -> Result<(), Failure> {
    let text = match file {
        Some(file) => tame(&file.display().to_string()),
        None => format!("{} ({} bytes)", tame(&attachment.name), attachment.blob.size),
    };
    // JSON has no other text than Unicode.
    let file = file.map(|file| file.display().to_string());
    let value = json!({ "kind": "attachment", "from": from.to_string(), "name": attachment.name,
        "size": attachment.blob.size, "file": file });
    show.one(&format!("{from}: {text}"), &value)
}

/// Prints the attachments that were not downloaded with their mail, or downloads them and prints where they are.
pub(crate) async fn attachments(device: &Device, save: Option<&Path>, show: Show) -> Result<(), Failure> {
    let kept = device.kept_attachments()?;
    match save {
        Some(folder) => {
            let all: Vec<_> = kept.into_iter().map(|one| (one.from, one.attachment)).collect();
            save_all(device, &all, folder, show).await
        }
        None => kept.iter().try_for_each(|one| show_attachment(one.from, &one.attachment, None, show)),
    }
}

/// The persona's own blobs: lists them, or deletes one.
pub(crate) async fn blobs(command: BlobCommand, device: &Device, show: Show) -> Result<(), Failure> {
    if let BlobCommand::Discard { hash } = command {
        return Ok(device.discard(hash).await?);
    }
    let state = device.folder().state()?;
    let profile = device.own_profile()?;
    let shown = |hash: &[u8; 32]| {
        let profile = profile.as_ref()?.body();
        let names = [("picture", &profile.picture), ("thumbnail", &profile.thumbnail)];
        names.iter().find(|(_, blob)| blob.is_some_and(|blob| *blob.hash == *hash)).map(|(name, _)| *name)
    };
    for (blob, chunks) in device.blobs().await? {
        let sent = state.sent.iter().find(|one| one.hash == blob.hash);
        let until = sent.map(|sent| sent.at.saturating_add(SENT_TIME));
        let what = shown(&blob.hash).or(sent.map(|_| "attachment"));
        let hash = hex::encode(&blob.hash[..]);
        let name = sent.map(|sent| sent.name.as_str());
        let whole = u64::from(chunks) >= blob.size.div_ceil(CHUNK as u64);
        let text = [what, name, (!whole).then_some("not complete")];
        let text: Vec<_> = text.into_iter().flatten().map(tame).collect();
        let value = json!({ "hash": hash, "size": blob.size, "complete": whole, "what": what, "name": name,
            "until": until });
        show.one(format!("{hash} {} {}", blob.size, text.join(" ")).trim_end(), &value)?;
    }
    Ok(())
}

/// Formats a page as lines of JSON.
pub(crate) fn as_lines(page: &Page) -> String {
    page.items.iter().map(|item| format!("{}\n", as_json(item))).collect()
}

fn text(from: Id, letter: &Letter) -> String {
    let named =
        |one: &Attachment| format!("\n  {} ({} bytes, see `attachments`)", tame(&one.name), one.blob.size);
    let attachments: String = letter.attachments.iter().map(named).collect();
    format!("{from}: {}{attachments}", tame_lines(&letter.text))
}

fn as_json(item: &Received) -> Value {
    match item {
        Received::Letter { from, sent, letter } => {
            let attachment = |one: &Attachment| json!({ "name": one.name, "size": one.blob.size });
            let attachments: Vec<_> = letter.attachments.iter().map(attachment).collect();
            json!({ "kind": "message", "from": from.to_string(), "sent": sent, "text": letter.text,
                "attachments": attachments })
        }
        Received::Accepted(id) => json!({ "kind": "accepted", "from": id.to_string() }),
        Received::Revoked(id) => json!({ "kind": "revoked", "from": id.to_string() }),
        Received::Refused(reason) => json!({ "kind": "refused", "reason": reason }),
    }
}

/// Saves an attachment under a name that is not a path and not in use.
fn keep(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
    let cannot = |error: std::io::Error| Failure::Failed(format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(cannot)?;
    let name = file_name(name);
    let free = (0..MAX_NAMES)
        .map(|number| folder.join(if number == 0 { name.clone() } else { format!("{number}-{name}") }))
        .find(|path| std::fs::symlink_metadata(path).is_err());
    let path = free.ok_or_else(|| Failure::Failed(format!("{}: too many {name}", folder.display())))?;
    write_new(&path, bytes)?;
    Ok(path)
}

/// Makes a file name of a stranger's name: no separators, no leading dot, no control characters, limited length.
fn file_name(name: &str) -> String {
    let tamed: String =
        name.chars().map(|one| if one.is_control() || "/\\:".contains(one) { '_' } else { one }).collect();
    let mut end = tamed.len().min(200);
    while !tamed.is_char_boundary(end) {
        end -= 1;
    }
    let tamed = tamed[..end].trim_start_matches('.');
    if tamed.is_empty() { "attachment".to_owned() } else { tamed.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn attachments_are_saved_in_their_folder_whatever_they_are_called_and_never_over_another() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("saved");
        for name in ["a.png", "../a.png", "/etc/passwd", "..", ".bashrc", "a\n", &"é".repeat(300), "a.png"] {
            let path = keep(&folder, name, b"x").map_err(|error| format!("{error:?}")).unwrap();
            assert_eq!(path.parent(), Some(folder.as_path()), "{name}");
            assert!(!path.file_name().unwrap().to_str().unwrap().starts_with('.'));
            let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 8);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
