//! A person's home, commands of a home's owner, and running a home alone.

use std::path::Path;
use std::sync::Arc;

use iop_mercury::client::folder::{read_secret, write_secret};
use iop_mercury::client::{ClientError, Device, Page};
use iop_mercury::home::{Home, Settings};
use iop_mercury::id::Key;
use iop_mercury::net::{Host, Setup};
use iop_mercury::store::{Store, restore};
use iop_mercury::wire::Code;
use libp2p::Multiaddr;
use serde_json::json;

use crate::Failure;
use crate::args::{Command, HomeCommand, OwnerCommand};
use crate::calls::stopped;
use crate::contacts::write_new;
use crate::letters::{as_lines, attachments_of};
use crate::show::Show;

/// How often mail is fetched again that arrived while a home was being left.
const MAX_ROUNDS: usize = 8;

/// Runs the command.
pub(crate) async fn person(command: Command, device: &Device, show: Show) -> Result<(), Failure> {
    match command {
        Command::Register { home, invitation } => {
            let untaken = device.register(&home, invitation).await?;
            if untaken > 0 {
                tracing::warn!("the home did not take {untaken} relations");
            }
            show.home(&device.own_home()?.address())
        }
        Command::Claim => {
            device.claim().await?;
            show.home(&device.own_home()?.address())
        }
        Command::Move { to, invitation } => {
            let old = device.own_home()?;
            if old.id != to.id {
                keep_mail(device, &old).await?;
            }
            let moved = device.move_to(&to, invitation).await?;
            if moved.unproven > 0 {
                tracing::warn!("the new home did not take {} relations", moved.unproven);
            }
            if moved.left.is_err() {
                leave(device, &old).await?;
            }
            show.home(&device.own_home()?.address())
        }
        Command::Unregister { to } => {
            let old = device.own_home()?;
            keep_mail(device, &old).await?;
            device.unregister(to.map(|home| home.address())).await?;
            for home in device.left()?.iter().filter(|home| home.id == old.id) {
                leave(device, home).await?;
            }
            Ok(())
        }
        other => unreachable!("another file does {other:?}"),
    }
}

/// Completes what earlier runs could not: a move, a profile, telling homes that they were left. What still fails is
/// reported, and retried later.
pub(crate) async fn settle(device: &Device) -> Result<(), Failure> {
    if let Err(error) = device.settle().await {
        tracing::warn!("what was begun earlier is not finished: {error}");
    }
    for home in device.left()? {
        leave(device, &home).await?;
    }
    Ok(())
}

/// Saves the mail of a home that was left, and tells it so; repeats while new mail arrives.
async fn leave(device: &Device, home: &iop_mercury::client::Home) -> Result<(), Failure> {
    for _ in 0..MAX_ROUNDS {
        let upto = keep_mail(device, home).await?;
        match device.depart(home, upto).await {
            Err(ClientError::Refused(refusal)) if refusal.code == Code::Superseded => {}
            Err(error) if error.is_of_home() => {
                tracing::warn!("the home {} does not know yet that it was left: {error}", home.id);
                return Ok(());
            }
            // Another program moved the persona back there.
            Err(error @ ClientError::Wrong(_)) => {
                tracing::warn!("{error}");
                return Ok(());
            }
            result => return Ok(result?),
        }
    }
    tracing::warn!("the home {} does not know yet that it was left: more mail waits there", home.id);
    Ok(())
}

/// Saves waiting mail, which is deleted with the home's data. Returns the number of the last item; `None` if the
/// home will never provide any.
async fn keep_mail(device: &Device, home: &iop_mercury::client::Home) -> Result<Option<u64>, Failure> {
    let folder = device.folder().path().join("mail");
    let mut upto = 0;
    loop {
        let page: Page = match device.fetch_from(home).await {
            Ok(page) => page,
            Err(error) if error.is_of_home() => {
                tracing::warn!("mail that may wait at the home is not saved: {error}");
                return Ok((!has_banned(&error)).then_some(upto));
            }
            Err(error) => return Err(error.into()),
        };
        upto = upto.max(page.upto());
        if !page.items.is_empty() {
            save_page(&page, &folder)?;
            device.keep_attachments(&page)?;
        }
        match device.acknowledge(&page).await {
            Err(error) if error.is_of_home() => {
                tracing::warn!("the home does not know that its mail was saved: {error}");
                return Ok(Some(upto));
            }
            result => result?,
        }
        if !page.more {
            return Ok(Some(upto));
        }
    }
}

/// Saves a page, and prints where. Its attachments can be downloaded later: leaving a home does not wait for them.
fn save_page(page: &Page, folder: &Path) -> Result<(), Failure> {
    private_folder(folder).map_err(|error| Failure::Failed(format!("{}: {error}", folder.display())))?;
    let name = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let file = folder.join(format!("{}.jsonl", name.map_or(0, |since| since.as_nanos())));
    write_new(&file, as_lines(page).as_bytes())?;
    let attached = attachments_of(page).len();
    if attached > 0 {
        tracing::warn!("of the mail {attached} attachments can be got with `attachments --save`");
    }
    tracing::warn!("waiting mail was saved as {}", file.display());
    Ok(())
}

/// Whether a home has banned the person: its mail cannot be fetched, and must not keep anyone there. Any other
/// refusal may change, when the home's clock is right or it has room; until then no mail is given up. A home that
/// does not host the person has no mail.
fn has_banned(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused(refusal) if refusal.code == Code::Closed)
}

/// Runs a command of a home's owner.
pub(crate) async fn owner(
    command: OwnerCommand,
    device: &Device,
    at: Option<iop_mercury::client::Home>,
    show: Show,
) -> Result<(), Failure> {
    let home = match at {
        Some(home) => home,
        None => device.own_home()?,
    };
    match command {
        OwnerCommand::Invite { seconds } => {
            let code = hex::encode(device.invite(&home, seconds).await?);
            show.one(&code, &json!({ "invitation": code }))
        }
        OwnerCommand::Ban { id, reason } => Ok(device.ban(&home, id, Some(&reason)).await?),
        OwnerCommand::Unban { id } => Ok(device.ban(&home, id, None).await?),
        OwnerCommand::Expel { id } => Ok(device.expel(&home, id).await?),
        OwnerCommand::Bans => {
            for (id, reason) in device.bans(&home).await? {
                let value = json!({ "id": id.to_string(), "reason": reason });
                show.one(format!("{id} {reason}").trim_end(), &value)?;
            }
            Ok(())
        }
        OwnerCommand::Figures => {
            let figures = device.figures(&home).await?;
            if show.json {
                let all: serde_json::Map<_, _> =
                    figures.into_iter().map(|(name, value)| (name, json!(value))).collect();
                return show.one("", &json!(all));
            }
            figures.iter().try_for_each(|(name, value)| show.one(&format!("{name} {value}"), &json!(null)))
        }
        OwnerCommand::Backup => {
            let name = device.back_up(&home).await?;
            show.one(&name, &json!({ "backup": name }))
        }
    }
}

/// Runs a home alone.
pub(crate) async fn host(command: HomeCommand, folder: &Path, show: Show) -> Result<(), Failure> {
    match command {
        HomeCommand::Restore { backup } => {
            let cannot =
                |error: &dyn std::fmt::Display| Failure::Failed(format!("{}: {error}", folder.display()));
            private_folder(folder).map_err(|error| cannot(&error))?;
            restore(&backup, &folder.join("store")).map_err(|error| Failure::Failed(error.to_string()))?;
            if !folder.join("home.key").exists() {
                tracing::warn!("put the home's home.key into {} too: it is in no backup", folder.display());
            }
            Ok(())
        }
        HomeCommand::Run { bind, external, peer, network, hosting, owner, max_hosted } => {
            let key = home_key(folder)?;
            let settings = Settings {
                network,
                hosting,
                max_hosted,
                owner,
                addresses: Vec::new(),
                backups: folder.join("backups"),
            };
            let setup = Setup { external, peers: peer, ..Setup::default() };
            run(bind, setup, key, settings, folder, show).await
        }
    }
}

/// Creates a directory that only its owner can enter.
fn private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn home_key(folder: &Path) -> Result<Key, Failure> {
    private_folder(folder).map_err(|error| Failure::Failed(format!("{}: {error}", folder.display())))?;
    let path = folder.join("home.key");
    if !path.exists() {
        if folder.join("store").exists() {
            tracing::warn!(
                "{} is gone: this becomes another home, and the people that it hosts must register anew; end it and put \
                 the file back to keep them",
                path.display()
            );
        }
        let key = Key::generate().map_err(|error| Failure::Failed(error.to_string()))?;
        write_secret(&path, &key.secret())?;
    }
    Ok(Key::from_secret(&*read_secret(&path)?))
}

async fn run(
    bind: Vec<Multiaddr>,
    setup: Setup,
    key: Key,
    settings: Settings,
    folder: &Path,
    show: Show,
) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
    let store = Store::open(&folder.join("store")).map_err(|error| failed(&error))?;
    let home = Home::new(Arc::new(store), key, settings).map_err(|error| failed(&error))?;
    let id = home.id();
    let host = Host::new(bind, home, setup).map_err(|error| failed(&error))?;
    let mut handle = host.handle();
    let shown = tokio::spawn(async move {
        let addresses: Vec<_> = handle.addresses().await.iter().map(ToString::to_string).collect();
        let value = json!({ "home": id.to_string(), "addresses": addresses });
        show.one(&addresses.join("\n"), &value)
    });
    let done = host.run(stopped()).await.map_err(|error| failed(&error));
    shown.abort();
    done
}
