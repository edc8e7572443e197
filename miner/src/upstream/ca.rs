//! Whether a certificate is a CA's, that is, may sign others; and its name. Parses no more of it than needed.

/// DER tags: BOOLEAN, INTEGER, OBJECT IDENTIFIER, SEQUENCE, SET, and the certificate's own field 3, its extensions.
const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const EXTENSIONS: u8 = 0xa3;
/// The certificate's field 0, its version: absent from version 1.
const VERSION: u8 = 0xa0;
/// `id-ce-basicConstraints`, 2.5.29.19 (RFC 5280, 4.2.1.9).
const BASIC_CONSTRAINTS: [u8; 3] = [0x55, 0x1d, 0x13];
/// `id-at-commonName`, 2.5.4.3 (RFC 5280, appendix A.1).
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
/// Most characters of a name that are shown.
const MAX_NAME: usize = 64;

/// Whether its basic constraints mark it as a CA. One without them, or one that cannot be parsed, is none.
pub(super) fn is_ca(certificate: &[u8]) -> bool {
    let Some(constraints) = basic_constraints(certificate) else { return false };
    matches!(element(constraints), Some((BOOLEAN, [0xff], _)))
}

/// For a certificate of X.509 version 1: whether subject and issuer are the same. Only later versions have extensions,
/// and thus basic constraints.
pub(super) fn is_version_1(certificate: &[u8]) -> Option<bool> {
    let (is_version_1, issuer, subject) = names(certificate)?;
    is_version_1.then_some(issuer == subject)
}

/// The subject's common name, without unprintable characters.
pub(super) fn common_name(certificate: &[u8]) -> Option<String> {
    let (.., mut subject) = names(certificate)?;
    loop {
        let (relative, rest) = expect(SET, subject)?;
        let (attribute, _) = expect(SEQUENCE, relative)?;
        let (kind, value) = expect(OID, attribute)?;
        if kind == COMMON_NAME {
            let (_, name, _) = element(value)?;
            let name = String::from_utf8_lossy(name);
            return Some(name.chars().filter(|letter| !letter.is_control()).take(MAX_NAME).collect());
        }
        subject = rest;
    }
}

/// Whether it is of version 1, the issuer's name and the subject's.
fn names(certificate: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    let (certificate, _) = expect(SEQUENCE, certificate)?;
    let (fields, _) = expect(SEQUENCE, certificate)?;
    let (is_version_1, fields) = match element(fields)? {
        (VERSION, _, rest) => (false, rest),
        _ => (true, fields),
    };
    let (_serial, fields) = expect(INTEGER, fields)?;
    let (_algorithm, fields) = expect(SEQUENCE, fields)?;
    let (issuer, fields) = expect(SEQUENCE, fields)?;
    let (_validity, fields) = expect(SEQUENCE, fields)?;
    let (subject, _) = expect(SEQUENCE, fields)?;
    Some((is_version_1, issuer, subject))
}

/// The first element: its tag, its content, and the rest.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// The first element, which must have this tag.
fn expect(kind: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    element(der).filter(|(tag, ..)| *tag == kind).map(|(_, content, rest)| (content, rest))
}

/// The value of the basic constraints extension.
fn basic_constraints(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = expect(SEQUENCE, certificate)?;
    let (mut fields, _) = expect(SEQUENCE, certificate)?;
    let mut extensions = loop {
        let (tag, content, rest) = element(fields)?;
        if tag == EXTENSIONS {
            break expect(SEQUENCE, content)?.0;
        }
        fields = rest;
    };
    loop {
        let (extension, rest) = expect(SEQUENCE, extensions)?;
        let (name, value) = expect(OID, extension)?;
        if name == BASIC_CONSTRAINTS {
            // Between name and value there may be the critical flag.
            let (tag, content, rest) = element(value)?;
            let octets = if tag == BOOLEAN { element(rest)?.1 } else { content };
            return expect(SEQUENCE, octets).map(|(constraints, _)| constraints);
        }
        extensions = rest;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    fn certificate(is_ca: IsCa) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = is_ca;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn only_what_says_so_is_a_cas() {
        for (kind, expected) in [
            (IsCa::NoCa, false),
            (IsCa::ExplicitNoCa, false),
            (IsCa::Ca(BasicConstraints::Unconstrained), true),
            (IsCa::Ca(BasicConstraints::Constrained(0)), true),
        ] {
            assert_eq!(is_ca(&certificate(kind)), expected, "{kind:?}");
        }
    }

    #[test]
    fn what_is_cut_or_garbled_is_no_cas_and_no_panic() {
        let whole = certificate(IsCa::Ca(BasicConstraints::Unconstrained));
        assert!((0..whole.len()).all(|length| !is_ca(&whole[..length])));
        assert!((0..200).all(|length| common_name(&whole[..length]).is_none()));
        assert_eq!(common_name(&whole).as_deref(), Some("rcgen self signed cert"));
        for place in 0..whole.len() {
            for byte in [0, 0x30, 0x7f, 0x80, 0x84, 0xff] {
                let mut garbled = whole.clone();
                garbled[place] = byte;
                let _ = (is_ca(&garbled), is_version_1(&garbled), common_name(&garbled));
            }
        }
    }
}
