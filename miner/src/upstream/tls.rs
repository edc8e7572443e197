//! TLS to a pool: the trusted certificates, and the messages about untrusted ones.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use super::ca::{common_name, is_ca, is_version_1};

/// Longest certificate file, in bytes: all CAs that browsers trust take a fifth of that.
const MAX_FILE: u64 = 1024 * 1024;
/// Most unusable certificates that are reported individually.
const MAX_REFUSED: usize = 10;

/// The reason why no pool can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate file is unusable: path and reason.
    #[error("--tls-ca {0}: {1}")]
    File(String, String),
    /// There is no trusted certificate at all.
    #[error(
        "this system trusts no CA (on Debian and Ubuntu, the package ca-certificates is missing): name the pool's CA or its certificate with --tls-ca"
    )]
    Nobody,
}

/// Trusted certificates.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    refused: Vec<String>,
}

impl Tls {
    /// Trusts the system's CAs and, if a file of certificates (PEM) is given, those in it: CAs, or the very
    /// certificates that pools show. One that is not a CA's stands only for itself, whatever its key has signed.
    /// Unusable ones are [reported](Self::refused), and the others are trusted all the same.
    ///
    /// # Errors
    /// The file cannot be read, none of it can be used, or no certificate is trusted.
    pub fn load(own: Option<&Path>) -> Result<Self, TlsError> {
        let (verifier, refused) = Verifier::load(own)?;
        let provider = Arc::clone(&verifier.provider);
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has all that the default versions need")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config), refused })
    }

    /// The file's unusable certificates: a line for each of the first ones, and one that counts the others.
    #[must_use]
    pub fn refused(&self) -> &[String] {
        &self.refused
    }

    /// Starts TLS on a connection to this host.
    ///
    /// # Errors
    /// In words for the user.
    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| format!("{host} is no name of a host"))?;
        let connected = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await;
        connected.map_err(|error| words(&error, host))
    }
}

/// The usable certificates of a file.
struct Own {
    pinned: Vec<CertificateDer<'static>>,
    /// A line for each unusable one.
    refused: Vec<String>,
}

/// Reads the certificates of a file, and adds those of CAs to the roots.
fn certificates(path: &Path, roots: &mut RootCertStore) -> Result<Own, String> {
    let text = iop_mining::files::read(path, MAX_FILE)?;
    let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| error.to_string())?;
    if certificates.is_empty() {
        return Err("it holds no certificate, PEM expected (-----BEGIN CERTIFICATE-----)".to_owned());
    }
    let mut own = Own { pinned: Vec::new(), refused: Vec::new() };
    for (number, certificate) in certificates.into_iter().enumerate() {
        match trust(&certificate, roots) {
            Ok(()) => own.pinned.push(certificate),
            Err(reason) => {
                let name = common_name(&certificate).map(|name| format!(" ({name})")).unwrap_or_default();
                own.refused.push(format!("certificate {}{name} cannot be used: {reason}", number + 1));
            }
        }
    }
    match own.refused.first() {
        Some(first) if own.pinned.is_empty() => Err(first.clone()),
        _ => Ok(own),
    }
}

/// Adds a CA's certificate to the roots. Roots from before 1996 are not marked as CAs, and can be nothing else: a
/// certificate as old that is signed by another, or shown by a pool, is refused by everyone.
fn trust(certificate: &CertificateDer<'static>, roots: &mut RootCertStore) -> Result<(), String> {
    match is_version_1(certificate) {
        Some(signed_by_itself) if !signed_by_itself => {
            return Err("it is of X.509 version 1 and signed by another, version 3 expected".to_owned());
        }
        Some(_) => {}
        None => {
            ParsedCertificate::try_from(certificate).map_err(|error| error.to_string())?;
            if !is_ca(certificate) {
                return Ok(());
            }
        }
    }
    roots.add(certificate.clone()).map_err(|error| error.to_string())
}

/// Trusts certificates signed by a CA, and also the very certificates that were given: `openssl req -x509`, the usual
/// way to make one's own, marks it as a CA's, which is refused as a host's.
#[derive(Debug)]
struct Verifier {
    /// `None` if no CA is trusted.
    by_ca: Option<Arc<WebPkiServerVerifier>>,
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Also returns lines about unusable certificates.
    fn load(own: Option<&Path>) -> Result<(Self, Vec<String>), TlsError> {
        let mut roots = RootCertStore::empty();
        // System certificates that cannot be read are not trusted: nothing else can be done about them.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let (mut pinned, mut refused) = (Vec::new(), Vec::new());
        if let Some(path) = own {
            let path_name = path.display();
            let found = certificates(path, &mut roots);
            let found = found.map_err(|reason| TlsError::File(path_name.to_string(), reason))?;
            pinned = found.pinned;
            refused.extend(found.refused.iter().take(MAX_REFUSED).map(|line| format!("{path_name}: {line}")));
            if let more @ 1.. = found.refused.len().saturating_sub(MAX_REFUSED) {
                refused.push(format!("{path_name}: {more} certificates more cannot be used"));
            }
        }
        let provider = Arc::new(ring::default_provider());
        if roots.is_empty() && pinned.is_empty() {
            return Err(TlsError::Nobody);
        }
        let by_ca = (!roots.is_empty()).then(|| {
            let verifier =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            verifier.build().expect("there are roots, and no lists of what is revoked")
        });
        Ok((Self { by_ca, pinned, provider }, refused))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.pinned.iter().any(|pinned| pinned == shown) {
            verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
            return Ok(ServerCertVerified::assertion());
        }
        match &self.by_ca {
            Some(by_ca) => by_ca.verify_server_cert(shown, chain, name, ocsp, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A description of the error for users who know nothing about certificates but have to act.
fn words(error: &io::Error, host: &str) -> String {
    use CertificateError::{BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext};
    use CertificateError::{
        NotValidYet, NotValidYetContext, UnknownIssuer, UnsupportedSignatureAlgorithmForPublicKeyContext,
    };
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    match tls {
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the pool closed the connection; does it speak TLS at this port?".to_owned()
        }
        None => error.to_string(),
        Some(Error::InvalidMessage(_)) => {
            "it does not speak TLS at this port; stratum+tcp:// is without".to_owned()
        }
        Some(Error::InvalidCertificate(wrong)) => match wrong {
            // The others occur if the signer has the name of a trusted CA but another key.
            UnknownIssuer | BadSignature | UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                "nobody whom we trust has signed its certificate; name the CA, or the certificate, with --tls-ca"
                    .to_owned()
            }
            NotValidForName | NotValidForNameContext { .. } => {
                format!("its certificate is for another host than {host}")
            }
            Expired | ExpiredContext { .. } => {
                "its certificate has expired, or this machine's clock is wrong".to_owned()
            }
            NotValidYet | NotValidYetContext { .. } => {
                "its certificate is not valid yet, or this machine's clock is wrong".to_owned()
            }
            other => format!("its certificate cannot be used: {other:?}"),
        },
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;

    fn begin_of(year: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(year * 31_556_952 - 1970 * 31_556_952))
    }

    #[test]
    fn a_signer_with_the_name_of_a_trusted_one_is_trusted_by_nobody() {
        let (folder, name) = (tempfile::tempdir().unwrap(), ServerName::try_from("localhost").unwrap());
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let trusted = authority.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let path = folder.path().join("trusted.pem");
        std::fs::write(&path, trusted.pem()).unwrap();
        let (verifier, _) = Verifier::load(Some(&path)).unwrap();
        for kind in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519] {
            let (other, key) = (KeyPair::generate_for(kind).unwrap(), KeyPair::generate().unwrap());
            let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            let signed = params.signed_by(&key, &Issuer::new(authority.clone(), other)).unwrap();
            let shown = verifier.verify_server_cert(signed.der(), &[], &name, &[], begin_of(2026));
            let error = io::Error::other(shown.map(drop).unwrap_err());
            assert!(words(&error, "localhost").contains("--tls-ca"), "{error}");
        }
    }

    #[test]
    fn a_clock_that_is_wrong_matters_for_what_a_ca_signed_and_not_for_a_certificate_that_is_known() {
        let (folder, keys) = (tempfile::tempdir().unwrap(), [(); 3].map(|()| KeyPair::generate().unwrap()));
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let (own, ca) = (params.self_signed(&keys[0]).unwrap(), authority.self_signed(&keys[1]).unwrap());
        let mut dated = params.clone();
        (dated.not_before, dated.not_after) =
            (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2040, 1, 1));
        let [_, ca_key, key] = keys;
        let signed = dated.signed_by(&key, &Issuer::new(authority, ca_key)).unwrap();
        let path = folder.path().join("trusted.pem");
        std::fs::write(&path, own.pem() + &ca.pem()).unwrap();
        let (verifier, _) = Verifier::load(Some(&path)).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let verify = |shown: &CertificateDer<'_>, year: u64| {
            verifier.verify_server_cert(shown, &[], &name, &[], begin_of(year)).map(drop)
        };
        for (year, expected) in [(1970, false), (2026, true), (2100, false)] {
            assert!(verify(own.der(), year).is_ok());
            assert_eq!(verify(signed.der(), year).is_ok(), expected, "{year}");
        }
    }
}
