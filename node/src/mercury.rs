//! The Mercury relay hosted by the node.
//!
//! Lives here: its settings, its key file, and one run of it. Its thread has low priority, steps aside for blocks
//! (`aside.rs`), and is restarted when a run ends (`supervised.rs`). Does not live here: the relay itself
//! (`iop-mercury`). Data goes: flags and file -> [`MercurySettings`] -> [`start`] -> a thread, until [`Hosted`] is
//! dropped.

mod aside;
mod supervised;

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use iop_mercury::client::folder::write_secret;
use iop_mercury::home::{Home, Settings as HomeSettings};
use iop_mercury::id::{Id, Key};
use iop_mercury::limits::{MAX_ADDRESS, MAX_ADDRESSES, MAX_HOSTED, MAX_NETWORK};
use iop_mercury::multiaddr::Multiaddr;
use iop_mercury::net::given::{is_bindable, is_peer, is_tellable};
use iop_mercury::net::{Host, Quotas, Setup};
use iop_mercury::store::{Store, free_space};
use iop_mercury::wire::Hosting;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::open_files;
use crate::settings::read_secret;
pub(crate) use supervised::Watched;
use supervised::{Hosted, Stop, stopped};

/// The relay's directory in the data directory.
const FOLDER: &str = "mercury";
/// The file in it with the home's secret in hex.
const KEY: &str = "home.key";
/// The database in it.
const STORE: &str = "store";
/// The directory in it for backups that the owner requests.
const BACKUPS: &str = "backups";
/// The nice value of its threads: everything else on the machine has priority.
#[cfg(target_os = "linux")]
const NICE: i32 = 19;

/// Default number of hosted personas: what they may store fits on a usual disk.
const DEFAULT_HOSTED: usize = 1_000;
/// Warn if less disk space than this is free, bytes: the chain's database is on the same disk.
const LITTLE_SPACE: u64 = 5 << 30;

/// The options as given, by flags or by the file; flags take precedence.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) bind: Vec<String>,
    pub(crate) external: Vec<String>,
    pub(crate) peers: Vec<String>,
    pub(crate) hosting: Option<String>,
    pub(crate) owner: Option<String>,
    pub(crate) max_hosted: Option<usize>,
}

/// The validated settings.
#[derive(Debug)]
pub(crate) struct MercurySettings {
    bind: Vec<Multiaddr>,
    external: Vec<Multiaddr>,
    peers: Vec<Multiaddr>,
    hosting: Hosting,
    owner: Option<Id>,
    max_hosted: usize,
}

impl MercurySettings {
    /// Validates the options. `None` if no address to listen on is given.
    pub(crate) fn from_given(given: &Given, network: &str) -> Result<Option<Self>, Failure> {
        let hosting = given.hosting.as_deref().map_or(Ok(Hosting::Open), str::parse);
        let hosting = hosting.map_err(|error| Failure::Usage(format!("mercury_hosting is {error}")))?;
        let owner = given.owner.as_deref().map(|text| {
            text.parse().map_err(|error| Failure::Usage(format!("mercury_owner '{text}' is {error}")))
        });
        let max_hosted = given.max_hosted.unwrap_or(DEFAULT_HOSTED);
        if !(1..=MAX_HOSTED).contains(&max_hosted) {
            return Err(Failure::Usage(format!(
                "mercury_max_hosted is {max_hosted}, 1 to {MAX_HOSTED} expected"
            )));
        }
        let settings = Self {
            max_hosted,
            bind: addresses(&given.bind, "mercury_bind", is_bindable, "/ip4/0.0.0.0/tcp/4878")?,
            external: addresses(&given.external, "mercury_external", is_tellable, "/ip4/192.0.2.1/tcp/4878")?,
            peers: addresses(
                &given.peers,
                "mercury_peer",
                is_peer,
                "/ip4/192.0.2.1/tcp/4878/p2p/12D3Koo...",
            )?,
            hosting,
            owner: owner.transpose()?,
        };
        if settings.bind.is_empty() {
            return Ok(None);
        }
        if network.len() > MAX_NETWORK {
            return Err(Failure::Usage(format!(
                "Mercury takes networks with names of at most {MAX_NETWORK} bytes, '{network}' is longer"
            )));
        }
        Ok(Some(settings))
    }
}

/// Parses multiaddresses of a kind, limited in number so that all can be announced.
fn addresses(
    given: &[String],
    what: &str,
    fits: impl Fn(&Multiaddr) -> bool,
    example: &str,
) -> Result<Vec<Multiaddr>, Failure> {
    if given.len() > MAX_ADDRESSES {
        return Err(Failure::Usage(format!(
            "{what} is given {} times, at most {MAX_ADDRESSES} expected",
            given.len()
        )));
    }
    let parse =
        |text: &String| text.parse().ok().filter(|address| text.len() <= MAX_ADDRESS && fits(address));
    given
        .iter()
        .map(|text| {
            parse(text).ok_or_else(|| {
                Failure::Usage(format!("{what} is '{text}', a multiaddress such as {example} expected"))
            })
        })
        .collect()
}

/// Starts the relay in its own thread; returns once it listens, or has failed and will be retried. It pauses while
/// `validating` is true.
///
/// # Errors
/// When its directory or key cannot be used.
pub(crate) fn start(
    settings: MercurySettings,
    datadir: &Path,
    network: &str,
    validating: watch::Receiver<bool>,
) -> Result<Hosted, Failure> {
    let folder = datadir.join(FOLDER);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(|error| Failure::Failed(format!("{} cannot be made: {error}", folder.display())))?;
    let key = home_key(&folder.join(KEY))?;
    let home = HomeSettings {
        network: network.to_owned(),
        hosting: settings.hosting,
        max_hosted: settings.max_hosted,
        owner: settings.owner,
        addresses: Vec::new(),
        backups: folder.join(BACKUPS),
    };
    let quotas = quotas();
    warn_of_a_full_disk(&folder);
    info!(home = %key.id(), hosting = ?settings.hosting, "Mercury");
    let setup = Setup { external: settings.external, peers: settings.peers, quotas };
    let (bind, store) = (settings.bind, folder.join(STORE));
    let life = move |stop: Stop, watched: &Watched, begun: &dyn Fn()| {
        let key = Key::from_secret(&key.secret());
        let (runtime, host) = begin(&store, key, home.clone(), bind.clone(), setup.clone())?;
        watched.is_up(host.handle());
        begun();
        runtime.spawn(aside::step_aside(validating.clone()));
        // If the store fails the run ends: an unreachable home is better than one that forgets what it confirmed.
        runtime.block_on(host.run(stopped(stop))).map_err(|error| error.to_string())
    };
    Hosted::start(lower_priority, life)
        .map_err(|error| Failure::Failed(format!("Mercury's thread cannot be started: {error}")))
}

/// Quotas with as many connections as the chain can spare.
fn quotas() -> Quotas {
    let (quotas, limit) = (Quotas::default(), open_files::limit());
    let connections = open_files::connections(limit, quotas.connections);
    if connections < quotas.connections {
        warn!(
            "Mercury takes {connections} connections, not {}: the system's limit of open files is {}",
            quotas.connections,
            limit.unwrap_or(u64::MAX)
        );
    }
    Quotas { connections, ..quotas }
}

fn warn_of_a_full_disk(folder: &Path) {
    // If the system does not tell, there is nothing to warn of.
    if let Some(free) = free_space(folder).filter(|free| *free < LITTLE_SPACE) {
        warn!(
            "{} MiB are free at {}: what Mercury keeps may fill the disk that the chain needs",
            free >> 20,
            folder.display()
        );
    }
}

/// Opens the store and starts a home that listens.
fn begin(
    store: &Path,
    key: Key,
    home: HomeSettings,
    bind: Vec<Multiaddr>,
    setup: Setup,
) -> Result<(Runtime, Host), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let store = Store::open(store).map_err(|error| error.to_string())?;
    let home = Home::new(Arc::new(store), key, home).map_err(|error| error.to_string())?;
    // Sockets and timers belong to the runtime that is entered.
    let entered = runtime.enter();
    let host = Host::new(bind, home, setup).map_err(|error| error.to_string())?;
    drop(entered);
    Ok((runtime, host))
}

/// The home's secret; created at the first start.
fn home_key(path: &Path) -> Result<Key, Failure> {
    if path.symlink_metadata().is_err() {
        if path.with_file_name(STORE).exists() {
            warn!(
                "{} is gone: this becomes another home, and the people that it hosts must register anew; end the node and \
                 put the file back to keep them",
                path.display()
            );
        }
        let key = Key::generate()
            .map_err(|error| Failure::Failed(format!("the system gives no random numbers: {error}")))?;
        write_secret(path, &key.secret()).map_err(|error| Failure::Failed(error.to_string()))?;
        return Ok(key);
    }
    let text = read_secret(path)?;
    let mut secret = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.as_bytes(), &mut *secret)
        .map_err(|_| Failure::Usage(format!("{} holds no key, 64 hex digits expected", path.display())))?;
    Ok(Key::from_secret(&secret))
}

/// On Linux "this process" (PID 0) means this thread here, and threads it starts inherit the value.
#[cfg(target_os = "linux")]
fn lower_priority() {
    use rustix::process::{getpriority_process, setpriority_process};
    let set = getpriority_process(None).and_then(|has| setpriority_process(None, has.max(NICE)));
    if let Err(error) = set {
        warn!("Mercury's thread cannot have nice value {NICE}: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {
    warn!("Mercury's thread has no lower priority on this system");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(change: impl FnOnce(&mut Given)) -> Result<Option<MercurySettings>, String> {
        let mut given = Given { bind: vec!["/ip4/127.0.0.1/tcp/0".to_owned()], ..Given::default() };
        change(&mut given);
        MercurySettings::from_given(&given, "devnet").map_err(|failure| match failure {
            Failure::Usage(text) => text,
            Failure::Failed(text) => panic!("no usage: {text}"),
        })
    }

    #[test]
    fn without_an_address_nothing_is_hosted() {
        assert!(given(|given| given.bind.clear()).expect("nothing is wrong").is_none());
        let settings = given(|_| {}).expect("all is well").expect("hosted");
        assert_eq!((settings.hosting, settings.owner, settings.max_hosted), (Hosting::Open, None, 1_000));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_was_expected() {
        for (wrong, line) in [
            (
                given(|given| given.bind = vec!["127.0.0.1:4878".into()]),
                "mercury_bind is '127.0.0.1:4878', a multi",
            ),
            (given(|given| given.bind = vec!["/ip4/127.0.0.1/udp/1".into()]), "mercury_bind is"),
            (given(|given| given.bind = vec!["/ip4/127.0.0.1/tcp/70000".into()]), "mercury_bind is"),
            (
                given(|given| given.bind = vec!["/ip4/127.0.0.1/tcp/1".into(); 9]),
                "mercury_bind is given 9 times",
            ),
            (given(|given| given.external = vec!["/ip4/0.0.0.0/tcp/1".into()]), "mercury_external is"),
            (given(|given| given.external = vec!["/ip4/192.0.2.1/tcp/0".into()]), "mercury_external is"),
            (given(|given| given.peers = vec!["/ip4/192.0.2.1/tcp/1".into()]), "mercury_peer is"),
            (
                given(|given| given.hosting = Some("maybe".into())),
                "mercury_hosting is 'maybe', open, invited",
            ),
            (given(|given| given.max_hosted = Some(0)), "mercury_max_hosted is 0, 1 to 10000"),
            (given(|given| given.max_hosted = Some(10_001)), "mercury_max_hosted is 10001, 1 to 10000"),
            (given(|given| given.owner = Some("../me".into())), "mercury_owner '../me' is no id"),
        ] {
            let text = wrong.expect_err(line);
            assert!(text.starts_with(line) && text.contains("expected"), "{text}");
        }
    }

    #[test]
    fn the_key_is_made_once_and_kept_from_others() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(KEY);
        let made = home_key(&path).expect("made").id();
        assert_eq!(home_key(&path).expect("read").id(), made);
        let mode = std::fs::metadata(&path).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
        assert!(home_key(&path).is_err(), "others may read it");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        std::fs::write(&path, "abc\n").expect("written");
        assert!(home_key(&path).is_err(), "never made anew over what is there");
    }
}
