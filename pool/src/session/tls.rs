//! TLS on a nonblocking socket: rustls itself does no I/O.
//!
//! Memory is bounded by the buffers of rustls: one incoming record, and `BUFFER` outgoing bytes.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use iop_mining::bans::{End, Offence};
use iop_mining::files;
use iop_mining::rarely::Rarely;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{InvalidMessage, ServerConfig, ServerConnection};
use tokio::net::TcpStream;
use tracing::warn;

use crate::config::ConfigError;

/// Bytes that may wait to be encrypted and sent: some notifies.
const BUFFER: usize = 16 * 1024;

/// The files of a server's TLS identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, as PEM.
    pub certificate: PathBuf,
    /// Its private key, as PEM, mode 0600.
    pub key: PathBuf,
}

/// Tells the operator of clients that speak plain TCP at the port for TLS, now and then: most often a machine
/// was given the wrong port or the wrong scheme.
#[derive(Debug, Default)]
pub struct PlainHint(Rarely);

impl PlainHint {
    /// Logs it, unless it was logged a moment ago.
    pub(super) fn say(&self, peer: SocketAddr) {
        if self.0.may_warn() {
            warn!(
                "{peer} seems to speak plain TCP at the port for TLS: stratum+ssl://… is for this port \
                 (stratum_tls_bind), stratum+tcp://… for the other one (stratum_bind)"
            );
        }
    }
}

/// The TLS configuration for new connections; it can be reloaded.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    config: Mutex<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read or used, the key is readable by others, or the key belongs to another certificate.
    pub fn load(files: TlsFiles) -> Result<Self, ConfigError> {
        let config = Mutex::new(read(&files)?);
        Ok(Self { files, config })
    }

    /// Reads the files again, for connections from now on.
    ///
    /// # Errors
    /// As [`Self::load`]; the old configuration then stays in use.
    pub fn reload(&self) -> Result<(), ConfigError> {
        let fresh = read(&self.files)?;
        *self.config.lock().expect("no panic while the lock is held") = fresh;
        Ok(())
    }

    /// The server's end of a new connection.
    #[must_use]
    pub fn accept(&self) -> Box<ServerConnection> {
        let config = Arc::clone(&self.config.lock().expect("no panic while the lock is held"));
        let mut connection = ServerConnection::new(config).expect("a configuration that was built is usable");
        connection.set_buffer_limit(Some(BUFFER));
        Box::new(connection)
    }
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, ConfigError> {
    const CERTIFICATE: &str = "TLS certificate file";
    const KEY: &str = "TLS key file";
    let text = files::read_text(&files.certificate, CERTIFICATE)?;
    let name = files.certificate.display();
    let wrong = |reason: &dyn std::fmt::Display| ConfigError(format!("{CERTIFICATE} {name}: {reason}"));
    let chain = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| wrong(&error))?;
    if chain.is_empty() {
        return Err(wrong(&"it holds no certificate, PEM expected (-----BEGIN CERTIFICATE-----)"));
    }
    let text = files::read_secret(&files.key, KEY)?;
    let name = files.key.display();
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
        .map_err(|_| ConfigError(format!("{KEY} {name}: it holds no private key, PEM expected")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| ConfigError(format!("{KEY} {name} does not fit {CERTIFICATE}: {error}")))?;
    Ok(Arc::new(config))
}

/// A socket as rustls writes to it: bytes it cannot take now are reported as `WouldBlock`.
struct Socket<'a>(&'a TcpStream);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends encrypted bytes. Returns whether some were taken.
pub fn flush(connection: &mut ServerConnection, stream: &TcpStream) -> io::Result<bool> {
    let mut progress = false;
    while connection.wants_write() {
        match connection.write_tls(&mut Socket(stream)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => progress = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(progress)
}

/// Decrypts what was read and hands it to `take` piece by piece.
///
/// # Errors
/// It is not TLS (an alert is ready to be sent), or `take` fails.
pub(super) fn decrypt(
    connection: &mut ServerConnection,
    mut bytes: &[u8],
    mut take: impl FnMut(&[u8]) -> Result<(), End>,
) -> Result<(), End> {
    let is_text = bytes.first().is_some_and(|first| first.is_ascii_graphic() || first.is_ascii_whitespace());
    while !bytes.is_empty() {
        let fed = connection.read_tls(&mut bytes).map_err(|error| error.to_string())?;
        let state = connection.process_new_packets().map_err(|error| refused(&error, is_text))?;
        let mut left = state.plaintext_bytes_to_read();
        let mut buffer = [0; 1024];
        while left > 0 {
            let count = connection.reader().read(&mut buffer).map_err(|error| error.to_string())?;
            if count == 0 {
                break;
            }
            left = left.saturating_sub(count);
            take(&buffer[..count])?;
        }
        if fed == 0 {
            return Err(End::new("closed by the other side", None));
        }
    }
    Ok(())
}

/// A peer that speaks TLS but does not trust our certificate, or shares no version or cipher with us, is
/// honest. One that begins with text where a record should begin speaks plain TCP.
fn refused(error: &rustls::Error, is_text: bool) -> End {
    let no_record = matches!(error, rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType));
    let is_honest = matches!(error, rustls::Error::AlertReceived(_) | rustls::Error::PeerIncompatible(_));
    let offence = if no_record && is_text { Offence::Plaintext } else { Offence::Nonsense };
    End::new(&format!("TLS: {error}"), (!is_honest).then_some(offence))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

    use super::*;

    fn server(versions: &[&'static SupportedProtocolVersion]) -> ServerConnection {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key);
        ServerConnection::new(Arc::new(config.unwrap())).unwrap()
    }

    /// A client that trusts no certificate.
    fn client(versions: &[&'static SupportedProtocolVersion]) -> ClientConnection {
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap()
    }

    /// Runs both sides until the server ends the connection.
    fn talk(server: &mut ServerConnection, client: &mut ClientConnection) -> End {
        loop {
            let (mut said, mut answered) = (Vec::new(), Vec::new());
            while client.write_tls(&mut said).unwrap() > 0 {}
            assert!(!said.is_empty(), "the client has nothing to say");
            if let Err(end) = decrypt(server, &said, |_| Ok(())) {
                return end;
            }
            while server.write_tls(&mut answered).unwrap() > 0 {}
            let mut answered = &*answered;
            while !answered.is_empty() && client.read_tls(&mut answered).unwrap() > 0 {
                let _ = client.process_new_packets(); // errors are sent as alerts
            }
        }
    }

    #[test]
    fn what_is_no_tls_is_an_offence_and_plain_tcp_is_known() {
        for (garbage, offence) in [
            (&b"{\"id\":1,\"method\":\"mining.subscribe\",\"params\":[]}\n"[..], Offence::Plaintext),
            (&[0x16, 3, 1, 0, 4, 1, 2, 3, 4][..], Offence::Nonsense),
        ] {
            let end = decrypt(&mut server(rustls::ALL_VERSIONS), garbage, |_| Ok(())).unwrap_err();
            assert_eq!(end.offence, Some(offence), "{}", end.reason);
        }
    }

    #[test]
    fn who_does_not_trust_us_or_shares_no_version_with_us_is_honest() {
        let (new, old) = (&[&rustls::version::TLS13], &[&rustls::version::TLS12]);
        for (servers, clients, expected) in [(new, new, "UnknownCA"), (new, old, "incompatible")] {
            let end = talk(&mut server(servers), &mut client(clients));
            assert!(end.offence.is_none() && end.reason.contains(expected), "{}", end.reason);
        }
    }
}
