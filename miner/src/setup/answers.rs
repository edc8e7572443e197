//! The questions of setup, in order, and the validation of the answers.

use std::io::{self, BufRead, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use iop_consensus::address::Address;
use iop_consensus::license::key::has_wif_form;
use iop_consensus::params::Params;
use iop_mining::rpc::NodeAddress;
use iop_mining::{files, keys};

use super::talk::Talk;
use crate::device::{DeviceName, Machine};
use crate::devices;
use crate::upstream::{PoolUrl, Tls, TlsError};

/// Longest name of a machine at a pool, in bytes; together with an address it stays below the limit for a user.
const MAX_WORKER: usize = 60;
/// Most pools and most licenses that are asked for: a file with more is written in an editor.
const MOST: usize = 16;

/// All answers.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The chain.
    pub network: String,
    /// The source of work.
    pub source: Source,
    /// Address for machines, for a gateway.
    pub listen: Option<SocketAddr>,
    /// The devices; may be empty for a gateway.
    pub devices: Vec<DeviceName>,
    /// Physical cores to leave alone.
    pub spare_cores: usize,
}

/// The source of work.
#[derive(Clone, Debug)]
pub enum Source {
    /// Pools.
    Pool(Pool),
    /// A node of one's own.
    Node(Node),
}

/// Pools, and our user there.
#[derive(Clone, Debug)]
pub struct Pool {
    /// In order of preference.
    pub urls: Vec<String>,
    /// A file of certificates to trust in addition to the system's.
    pub tls_ca: Option<PathBuf>,
    /// Address and machine name.
    pub user: String,
    /// The password, which most pools ignore.
    pub password: String,
}

/// A node, and the licenses that sign.
#[derive(Clone, Debug)]
pub struct Node {
    /// The URL of its RPC.
    pub url: String,
    /// Its cookie file, if the URL has no password.
    pub cookie: Option<PathBuf>,
    /// Files with license keys.
    pub license_key_files: Vec<PathBuf>,
    /// The payout address; the signing license if `None`.
    pub payout: Option<String>,
}

/// Asks all questions.
pub(super) fn ask<I: BufRead, O: Write>(talk: &mut Talk<'_, I, O>) -> io::Result<Answers> {
    talk.say("pool: mine at a pool. solo: mine at your own node with your own license.")?;
    talk.say("gateway: this program serves your ASICs, and mines at a pool or solo itself.")?;
    let modes = ["pool", "solo", "gateway"];
    let mode = talk.ask("Mine how (pool, solo or gateway)", Some("pool"), |answer| one_of(answer, &modes))?;
    let gateway = mode == "gateway";
    let listen = gateway.then(|| listen(talk)).transpose()?;
    let from = match gateway {
        true => {
            talk.ask("Work from (pool or solo)", Some("pool"), |answer| one_of(answer, &["pool", "solo"]))?
        }
        false => mode,
    };
    let network = talk.ask(&format!("Network ({})", Params::NAMES.join(", ")), Some("main"), |answer| {
        one_of(answer, &Params::NAMES)
    })?;
    let params = Params::by_name(&network).expect("one of the names");
    let source = match &*from {
        "solo" => Source::Node(node(talk, &params)?),
        _ => Source::Pool(pool(talk, &params)?),
    };
    let (devices, spare_cores) = hardware(talk, gateway)?;
    Ok(Answers { network, source, listen, devices, spare_cores })
}

/// The address for ASICs. One that this machine does not have is rejected; any other obstacle to listening may be gone
/// later, such as a running gateway.
fn listen<I: BufRead, O: Write>(talk: &mut Talk<'_, I, O>) -> io::Result<SocketAddr> {
    let (address, trouble) =
        talk.ask("ADDRESS:PORT at which ASICs connect", Some("0.0.0.0:3333"), |answer| {
            let expected = format!("{answer:?} is no address: expected ADDRESS:PORT, such as 0.0.0.0:3333");
            let address = answer.parse::<SocketAddr>().map_err(|_| expected)?;
            match TcpListener::bind(address) {
                Ok(_) => Ok((address, None)),
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    Err(format!("{address}: no address of this machine ({error})"))
                }
                Err(error) => Ok((address, Some(error))),
            }
        })?;
    if let Some(error) = trouble {
        talk.say(&format!("  {address}: cannot be listened at now ({error}); see to it before you start"))?;
    }
    Ok(address)
}

fn one_of(answer: &str, names: &[&str]) -> Result<String, String> {
    let found = names.iter().find(|name| **name == answer);
    found.map(|name| (*name).to_owned()).ok_or_else(|| format!("{answer:?}: expected {}", names.join(" or ")))
}

fn pool<I: BufRead, O: Write>(talk: &mut Talk<'_, I, O>, params: &Params) -> io::Result<Pool> {
    let url = |answer: &str| {
        answer.parse::<PoolUrl>().map(|_| answer.to_owned()).map_err(|error| error.to_string())
    };
    let mut urls = vec![talk.ask("The pool, as stratum+tcp://HOST:PORT", None, url)?];
    while urls.len() < MOST {
        let more = talk.ask("Another pool for when these are away (empty: none)", Some(""), |answer| {
            if answer.is_empty() { Ok(None) } else { url(answer).map(Some) }
        })?;
        match more {
            Some(url) => urls.push(url),
            None => break,
        }
    }
    let speaks_tls = |url: &String| url.parse::<PoolUrl>().is_ok_and(|url| url.tls);
    let tls_ca = if urls.iter().any(speaks_tls) { certificates(talk)? } else { None };
    let address = talk.ask("Your address, which the pool pays", None, |answer| address(answer, params))?;
    let host = files::read(Path::new("/proc/sys/kernel/hostname"), 255).unwrap_or_default();
    let host = String::from_utf8(host).ok().and_then(|name| worker(name.trim()).ok());
    let worker =
        talk.ask("A name for this machine at the pool", Some(host.as_deref().unwrap_or("rig")), worker)?;
    let password = talk.ask("The pool's password; most take anything", Some("x"), |answer| {
        if answer.len() <= 127 { Ok(answer.to_owned()) } else { Err("expected at most 127 bytes".to_owned()) }
    })?;
    Ok(Pool { urls, tls_ca, user: format!("{address}.{worker}"), password })
}

/// The certificates to trust, if a pool speaks TLS.
fn certificates<I: BufRead, O: Write>(talk: &mut Talk<'_, I, O>) -> io::Result<Option<PathBuf>> {
    let question = "File with the pool's certificate or its CA's (PEM; empty: whom the system trusts)";
    let (file, tls) = talk.ask(question, Some(""), |answer| {
        let file = if answer.is_empty() { None } else { Some(absolute(answer)?) };
        match Tls::load(file.as_deref()) {
            Ok(tls) => Ok((file, tls)),
            // There is no flag to name here.
            Err(TlsError::File(path, reason)) => Err(format!("{path}: {reason}")),
            Err(error) => Err(error.to_string()),
        }
    })?;
    for line in tls.refused() {
        talk.say(&format!("  {line}"))?;
    }
    Ok(file)
}

fn address(answer: &str, params: &Params) -> Result<String, String> {
    if has_wif_form(answer) {
        return Err("that is a private key: expected an address, which anyone may know".to_owned());
    }
    let read = Address::parse(answer, &params.prefixes);
    read.map(|_| answer.to_owned()).map_err(|error| format!("{error} (network {})", params.name))
}

fn worker(answer: &str) -> Result<String, String> {
    let right = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    let fits = (1..=MAX_WORKER).contains(&answer.len()) && answer.chars().all(right);
    fits.then(|| answer.to_owned())
        .ok_or_else(|| format!("{answer:?}: expected 1 to {MAX_WORKER} letters, digits, - and _"))
}

fn node<I: BufRead, O: Write>(talk: &mut Talk<'_, I, O>, params: &Params) -> io::Result<Node> {
    let default = format!("http://127.0.0.1:{}", params.rpc_port);
    let url =
        talk.ask("Your node's RPC, as http://[USER:PASSWORD@]HOST[:PORT]", Some(&default), |answer| {
            let cookie = (!NodeAddress::has_password(answer)).then(|| PathBuf::from("."));
            NodeAddress::parse(answer, cookie, params.rpc_port).map(|_| answer.to_owned())
        })?;
    let cookie = if NodeAddress::has_password(&url) {
        None
    } else {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let usual = home.join(format!(".iop-node/{}/.cookie", params.name)).display().to_string();
        Some(talk.ask("The node's cookie file", Some(&usual), |answer| {
            let path = absolute(answer)?;
            files::read_text(&path, "cookie file")
                .map(|_| path)
                .map_err(|error| format!("{error}. It is in the node's folder while the node runs"))
        })?)
    };
    let mut license_key_files: Vec<PathBuf> = Vec::new();
    while license_key_files.len() < MOST {
        let (question, default) = match license_key_files.len() {
            0 => ("File with your license's key", None),
            _ => ("Another license's key file (empty: none)", Some("")),
        };
        let more = talk.ask(question, default, |answer| {
            if answer.is_empty() { Ok(None) } else { license(answer, params).map(Some) }
        })?;
        let Some((path, addresses)) = more else { break };
        for address in addresses {
            talk.say(&format!("  license {address}"))?;
        }
        license_key_files.push(path);
    }
    let usual = "the license that signs";
    let payout = talk.ask("The address that blocks pay", Some(usual), |answer| {
        if answer == usual { Ok(None) } else { address(answer, params).map(Some) }
    })?;
    Ok(Node { url, cookie, license_key_files, payout })
}

/// Parses a key file's path, and reads the licenses in it.
fn license(answer: &str, params: &Params) -> Result<(PathBuf, Vec<String>), String> {
    let path = absolute(answer)?;
    let keys =
        keys::load(std::slice::from_ref(&path), ("", None), params).map_err(|error| error.to_string())?;
    Ok((path, keys.iter().map(|key| key.address().to_base58(&params.prefixes)).collect()))
}

/// Makes a path absolute, so that it is right wherever the configuration file ends up.
fn absolute(answer: &str) -> Result<PathBuf, String> {
    std::path::absolute(answer).map_err(|error| format!("{answer:?}: {error}"))
}

/// Asks for the devices, and the number of cores to leave free.
fn hardware<I: BufRead, O: Write>(
    talk: &mut Talk<'_, I, O>,
    gateway: bool,
) -> io::Result<(Vec<DeviceName>, usize)> {
    talk.say("\nThis machine has:")?;
    let (listed, missing) = devices::list();
    for device in &listed {
        talk.say(&format!("  {:<12}{}", device.device, device.model))?;
    }
    if let Some(missing) = missing {
        talk.say(&format!("  {missing}"))?;
    }
    let none = if gateway { ", or none" } else { "" };
    let chosen = talk.ask(
        &format!("Mine with (separated by commas{none})"),
        Some(if gateway { "none" } else { "cpu" }),
        |answer| {
            if gateway && answer == "none" {
                return Ok(Vec::new());
            }
            let mut chosen: Vec<DeviceName> = Vec::new();
            for name in answer.split(',').map(str::trim) {
                if !listed.iter().any(|device| device.device == name) {
                    return Err(format!("{name:?} is none of these devices"));
                }
                let device = name.parse().map_err(|()| format!("{name:?} is no device"))?;
                if chosen.contains(&device) {
                    return Err(format!("{name} is named twice"));
                }
                chosen.push(device);
            }
            Ok(chosen)
        },
    )?;
    let cores = Machine::here().cores();
    if cores == 1 || !chosen.contains(&DeviceName::Cpu) {
        return Ok((chosen, 0));
    }
    let question = format!("How many of its {cores} cores to leave for other work");
    let spare = talk.ask(&question, Some("0"), |answer| {
        let spare = answer.parse::<usize>().ok().filter(|spare| *spare < cores);
        spare.ok_or_else(|| format!("{answer:?}: expected 0 to {}", cores - 1))
    })?;
    Ok((chosen, spare))
}
