//! The command-line arguments.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use iop_mercury::client::{Home, Settings, is_application};
use iop_mercury::id::Id;
use iop_mercury::limits::{MAX_ADDRESS, MAX_HOSTED, MAX_LABEL, MAX_NETWORK};
use iop_mercury::net::given::{is_bindable, is_peer, is_tellable};
use iop_mercury::wire::Hosting;
use libp2p::Multiaddr;

/// Mercury for a person: profiles, relations, messages, calls; and a home alone.
#[derive(Debug, Parser)]
#[command(name = "iop-mercury-cli", version)]
pub(crate) struct Cli {
    /// Where the persona is kept, one folder each [default: ~/.iop-mercury]; of `home`, the home's data
    /// [default: ~/.iop-mercury-home]
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) datadir: Option<PathBuf>,
    /// Results as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Of a home's owner: the home, if it is not the persona's own
    #[arg(long, value_name = "MULTIADDR", global = true, value_parser = home)]
    pub(crate) at: Option<Home>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes a persona
    New {
        /// The network's name
        #[arg(long, value_name = "NAME", default_value = "main")]
        network: String,
    },
    /// Prints the persona's id
    Id,
    /// Registers at a home
    Register {
        /// Where the home is, with its peer id
        #[arg(long, value_name = "MULTIADDR", value_parser = home)]
        home: Home,
        /// An invitation, where the home wants one
        #[arg(long, value_name = "HEX", value_parser = invitation)]
        invitation: Option<[u8; 16]>,
    },
    /// Asks the home for the proof that it hosts the persona
    Claim,
    /// Moves to another home; waiting mail is saved below DATADIR/mail first
    Move {
        /// Where the new home is, with its peer id
        #[arg(long, value_name = "MULTIADDR", value_parser = home)]
        to: Home,
        /// An invitation, where the new home wants one
        #[arg(long, value_name = "HEX", value_parser = invitation)]
        invitation: Option<[u8; 16]>,
    },
    /// Leaves the home; waiting mail is saved below DATADIR/mail first
    Unregister {
        /// Where the persona is to be found from now on
        #[arg(long, value_name = "MULTIADDR", value_parser = home)]
        to: Option<Home>,
    },
    /// Public profiles
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Pictures of profiles
    #[command(subcommand)]
    Picture(PictureCommand),
    /// Pictures and attachments that the home keeps
    #[command(subcommand)]
    Blob(BlobCommand),
    /// Asks somebody to relate
    Relate {
        /// Who
        id: Id,
        /// What kind of relation
        #[arg(long, default_value = "contact")]
        label: String,
        /// A line for the other person; homes can read it
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Prints requests that wait
    Requests,
    /// Accepts somebody's request
    Accept {
        /// Whose
        id: Id,
    },
    /// Throws somebody's request away
    Dismiss {
        /// Whose
        id: Id,
    },
    /// Prints relations
    Relations,
    /// Takes a relation back
    Revoke {
        /// To whom
        id: Id,
    },
    /// Sends a message
    Send {
        /// To whom
        id: Id,
        /// What it says
        text: String,
        /// A file that goes with it; may be repeated
        #[arg(long, value_name = "FILE")]
        attach: Vec<PathBuf>,
    },
    /// Takes mail and prints it
    Fetch {
        /// Where attachments are saved
        #[arg(long, value_name = "DIR")]
        save: Option<PathBuf>,
    },
    /// Prints attachments of mail that was taken, which were not got yet
    Attachments {
        /// Gets them, and saves them here
        #[arg(long, value_name = "DIR")]
        save: Option<PathBuf>,
    },
    /// Prints which related people are there, and for which applications
    Presence,
    /// Finds where somebody is hosted
    Find {
        /// Who
        id: Id,
    },
    /// Calls somebody: standard input goes to the other side, what comes from there to standard output
    Call {
        /// Whom
        id: Id,
        /// The application that is to answer
        #[arg(long, value_name = "NAME", value_parser = application)]
        application: String,
        #[command(flatten)]
        way: Way,
    },
    /// Waits for a call and takes it: standard input goes to the other side, what comes from there to standard output
    Answer {
        /// The application that answers
        #[arg(long, value_name = "NAME", value_parser = application)]
        application: String,
        #[command(flatten)]
        way: Way,
    },
    #[command(flatten)]
    Owner(OwnerCommand),
    /// Runs a home alone, or puts one back from a backup
    #[command(subcommand, name = "home")]
    HomeHost(HomeCommand),
}

/// The way that a call takes.
#[derive(Debug, Args)]
pub(crate) struct Way {
    /// Use the relay only, so that the other side does not see this device's address
    #[arg(long, conflicts_with = "listen")]
    relayed: bool,
    /// Listen here, so that the call can become a direct one
    #[arg(long, value_name = "MULTIADDR")]
    listen: Option<Multiaddr>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProfileCommand {
    /// Sets attributes of the persona's profile
    Set {
        /// NAME=VALUE; NAME= removes
        #[arg(value_name = "NAME=VALUE", required = true, value_parser = attribute)]
        attributes: Vec<(String, String)>,
    },
    /// Prints a profile
    Show {
        /// Whose [default: the persona's own]
        id: Option<Id>,
    },
    /// Takes the persona's profile back, for good
    Withdraw,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PictureCommand {
    /// Shows a picture in the persona's profile
    Set {
        /// The picture
        file: PathBuf,
        /// A smaller one
        #[arg(long, value_name = "FILE")]
        thumbnail: Option<PathBuf>,
    },
    /// Saves somebody's picture
    Get {
        /// Whose
        id: Id,
        /// Where to; never over another file
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BlobCommand {
    /// Prints them: hash, bytes, what each is
    List,
    /// Throws one away: who has not got it yet gets it no more
    Discard {
        /// Its hash
        #[arg(value_name = "HASH", value_parser = hash)]
        hash: [u8; 32],
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum OwnerCommand {
    /// Of a home's owner: makes an invitation
    Invite {
        /// For how long it holds
        #[arg(long, value_name = "SECONDS", default_value_t = 7 * 24 * 3600)]
        seconds: u64,
    },
    /// Of a home's owner: bans somebody
    Ban {
        /// Whom
        id: Id,
        /// Why, for the owner's list
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Of a home's owner: lets somebody come again
    Unban {
        /// Whom
        id: Id,
    },
    /// Of a home's owner: throws away all that the home keeps of somebody who is banned
    Expel {
        /// Whom
        id: Id,
    },
    /// Of a home's owner: prints who is banned
    Bans,
    /// Of a home's owner: prints figures
    Figures,
    /// Of a home's owner: lets the home copy all that it keeps
    Backup,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HomeCommand {
    /// Runs a home, its data and its key in DATADIR
    Run {
        /// Where it listens, such as /ip4/0.0.0.0/tcp/4878; may be repeated
        #[arg(long, value_name = "MULTIADDR", required = true, value_parser = bindable)]
        bind: Vec<Multiaddr>,
        /// Where others reach it, if not where it listens; may be repeated
        #[arg(long, value_name = "MULTIADDR", value_parser = tellable)]
        external: Vec<Multiaddr>,
        /// Other homes, with their peer ids, by which it enters the directory of homes; may be repeated
        #[arg(long, value_name = "MULTIADDR", value_parser = peer)]
        peer: Vec<Multiaddr>,
        /// The network's name
        #[arg(long, value_name = "NAME", default_value = "main", value_parser = network)]
        network: String,
        /// Whom it takes: open, invited or closed
        #[arg(long, value_name = "WHOM", default_value = "open")]
        hosting: Hosting,
        /// The persona that may invite, ban and back up
        #[arg(long, value_name = "ID")]
        owner: Option<Id>,
        /// How many personas it hosts
        #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = max_hosted)]
        max_hosted: usize,
    },
    /// Puts a home back from a copy that `backup` made
    Restore {
        /// The copy's folder
        backup: PathBuf,
    },
}

fn home(text: &str) -> Result<Home, String> {
    Home::parse(text).map_err(|error| error.to_string())
}

fn invitation(text: &str) -> Result<[u8; 16], String> {
    let mut code = [0; 16];
    hex::decode_to_slice(text, &mut code).map_err(|_| "32 hexadecimal digits expected".to_owned())?;
    Ok(code)
}

fn hash(text: &str) -> Result<[u8; 32], String> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).map_err(|_| "64 hexadecimal digits expected".to_owned())?;
    Ok(hash)
}

fn application(text: &str) -> Result<String, String> {
    if is_application(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("1 to {MAX_LABEL} visible characters expected"))
    }
}

fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("NAME=VALUE expected".to_owned()),
    }
}

/// The device settings for a command: only calls use other than the defaults.
pub(crate) fn settings(command: &Command) -> Settings {
    match command {
        Command::Call { way, .. } | Command::Answer { way, .. } => {
            Settings { listen: way.listen.clone(), direct: !way.relayed }
        }
        _ => Settings::default(),
    }
}

/// The path of a folder in the user's home directory.
pub(crate) fn default_folder(name: &str) -> Option<PathBuf> {
    std::env::var_os("HOME").filter(|home| !home.is_empty()).map(|home| PathBuf::from(home).join(name))
}

/// clap's error message without the usage and hint that follow it.
pub(crate) fn one_line(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is expected (see iop-mercury-cli --help)".to_owned();
    }
    let text = error.to_string();
    let complaint = text.split("\n\n").next().unwrap_or(&text);
    let complaint: Vec<&str> = complaint.split_whitespace().collect();
    let complaint = complaint.join(" ");
    format!("{} (see iop-mercury-cli --help)", complaint.strip_prefix("error: ").unwrap_or(&complaint))
}

fn bindable(text: &str) -> Result<Multiaddr, String> {
    multiaddr(text, is_bindable, "/ip4/0.0.0.0/tcp/4878")
}

fn tellable(text: &str) -> Result<Multiaddr, String> {
    multiaddr(text, is_tellable, "/ip4/192.0.2.1/tcp/4878")
}

fn peer(text: &str) -> Result<Multiaddr, String> {
    multiaddr(text, is_peer, "/ip4/192.0.2.1/tcp/4878/p2p/12D3Koo...")
}

fn multiaddr(text: &str, fits: fn(&Multiaddr) -> bool, example: &str) -> Result<Multiaddr, String> {
    let parsed = text.parse().ok().filter(|address| text.len() <= MAX_ADDRESS && fits(address));
    parsed.ok_or_else(|| format!("a multiaddress such as {example} expected"))
}

fn network(text: &str) -> Result<String, String> {
    if (1..=MAX_NETWORK).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err(format!("1 to {MAX_NETWORK} bytes expected"))
    }
}

fn max_hosted(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_HOSTED).contains(number));
    number.ok_or_else(|| format!("1 to {MAX_HOSTED} expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_agree_with_themselves() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_call_that_is_to_be_relayed_does_not_listen() {
        let call = |way: &[&str]| {
            let words = ["iop-mercury-cli", "answer", "--application", "chat"];
            Cli::try_parse_from(words.iter().chain(way)).map_err(|error| error.kind())
        };
        let listen = ["--listen", "/ip4/127.0.0.1/tcp/0"];
        assert!(call(&["--relayed"]).is_ok() && call(&listen).is_ok());
        let both = call(&["--relayed", listen[0], listen[1]]);
        assert_eq!(both.err(), Some(ErrorKind::ArgumentConflict));
    }

    #[test]
    fn a_home_is_run_with_addresses_and_names_that_it_can_use() {
        let home = |words: &[&str]| {
            let begin = ["iop-mercury-cli", "home", "run", "--bind", "/ip4/0.0.0.0/tcp/0"];
            Cli::try_parse_from(begin.iter().chain(words)).map(drop).map_err(|error| one_line(&error))
        };
        let peer = "/ip4/192.0.2.1/tcp/4878/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        assert_eq!(home(&["--peer", peer, "--external", "/ip4/192.0.2.1/tcp/4878"]), Ok(()));
        assert_eq!(home(&["--network", &"n".repeat(MAX_NETWORK)]), Ok(()));
        for (words, expected) in [
            (["--peer", "/ip4/192.0.2.1/tcp/4878"], "/p2p/12D3Koo... expected"),
            (["--external", "/ip4/0.0.0.0/tcp/4878"], "/ip4/192.0.2.1/tcp/4878 expected"),
            (["--bind", "/dns4/home/tcp/4878"], "/ip4/0.0.0.0/tcp/4878 expected"),
            (["--network", &"n".repeat(MAX_NETWORK + 1)], "1 to 32 bytes expected"),
            (["--network", ""], "1 to 32 bytes expected"),
        ] {
            let refused = home(&words).err().unwrap_or_default();
            assert!(refused.contains(expected), "{refused}");
        }
    }

    #[test]
    fn invitations_are_sixteen_bytes_in_hexadecimal() {
        assert_eq!(invitation(&format!("{}01", "0".repeat(30))).map(|code| code[15]), Ok(1));
        for wrong in
            ["", "00", &"0".repeat(31), &"0".repeat(33), &"g".repeat(32), &format!("+{}", "0".repeat(31))]
        {
            assert!(invitation(wrong).is_err(), "{wrong}");
        }
    }
}
