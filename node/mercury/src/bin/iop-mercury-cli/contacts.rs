//! Profiles, pictures, relations and presence.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use iop_mercury::client::{Delivery, Device, folder};
use serde_json::json;

use crate::Failure;
use crate::args::{Command, PictureCommand, ProfileCommand};
use crate::show::Show;

/// Reads a file of at most `most` bytes.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    let wrong = |reason: String| Failure::Failed(format!("{}: {reason}", path.display()));
    // Otherwise opening a pipe without a writer would block.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(nonblocking).open(path);
    let file = file.map_err(|error| wrong(error.to_string()))?;
    if !file.metadata().is_ok_and(|about| about.is_file()) {
        return Err(wrong("a regular file is expected".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| wrong(error.to_string()))?;
    if bytes.len() as u64 > most {
        return Err(wrong(format!("more than {most} bytes")));
    }
    Ok(bytes)
}

/// Writes a new durable file, readable by its owner only; never overwrites one.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    folder::write_new(path, bytes).map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))
}

/// Reports it if the other side of a relation may not know yet; that is no failure.
fn delivered(what: &str, delivery: Delivery, show: Show) -> Result<(), Failure> {
    let (text, known) = match delivery {
        Delivery::Done => (what.to_owned(), true),
        Delivery::Later(error) => {
            (format!("{what}, but the other side does not know yet ({error}): do it again later"), false)
        }
    };
    show.one(&text, &json!({ "done": what, "delivered": known }))
}

/// Runs the command.
pub(crate) async fn person(command: Command, device: &Device, show: Show) -> Result<(), Failure> {
    match command {
        Command::Profile(command) => profile(command, device, show).await,
        Command::Picture(PictureCommand::Set { file, thumbnail }) => {
            use iop_mercury::limits::{MAX_PICTURE, MAX_THUMBNAIL};
            let picture = read(&file, MAX_PICTURE)?;
            let thumbnail = thumbnail.map(|file| read(&file, MAX_THUMBNAIL)).transpose()?;
            Ok(device.set_picture(&picture, thumbnail.as_deref()).await?)
        }
        Command::Picture(PictureCommand::Get { id, file }) => write_new(&file, &device.picture(id).await?),
        Command::Relate { id, label, note } => Ok(device.relate(id, &label, &note).await?),
        Command::Requests => show.wishes(&device.requests().await?),
        Command::Accept { id } => delivered("accepted", device.accept(id).await?, show),
        Command::Dismiss { id } => Ok(device.dismiss(id).await?),
        Command::Relations => show.relations(&device.relations().await?),
        Command::Revoke { id } => delivered("revoked", device.revoke(id).await?, show),
        Command::Presence => {
            let contacts = device.folder().state()?.contacts;
            let held: Vec<_> = contacts
                .iter()
                .filter(|one| one.standing == folder::Standing::Held)
                .map(|one| one.id)
                .collect();
            show.presence(&device.presence(&held).await?)
        }
        Command::Find { id } => show.home(&device.find(id).await?.address()),
        other => unreachable!("another file does {other:?}"),
    }
}

async fn profile(command: ProfileCommand, device: &Device, show: Show) -> Result<(), Failure> {
    match command {
        ProfileCommand::Set { attributes } => {
            let value = |value: String| (!value.is_empty()).then_some(value);
            let changes = attributes.into_iter().map(|(name, text)| (name, value(text))).collect();
            Ok(device.set_attributes(changes).await?)
        }
        ProfileCommand::Show { id: Some(id) } => show.profile(&device.profile(id).await?),
        ProfileCommand::Show { id: None } => match device.own_profile()? {
            Some(profile) => show.profile(&profile),
            None => Err(Failure::Failed("no profile yet: register at a home first".to_owned())),
        },
        ProfileCommand::Withdraw => Ok(device.withdraw_profile().await?),
    }
}
