//! What the table of homes (a Kademlia of homes alone) holds of a persona, and how it is believed.
//!
//! Here: the key and the value of a record: both halves of the hosting proof, and where the home is reached, each
//! signed. Not here: who puts and who searches. Anyone may put anything into the table: only what verifies counts.

use minicbor::{Decode, Encode};

use crate::body::{Contact, HomeAddress, Hosting, Registration};
use crate::envelope::{Envelope, EnvelopeError, Expected};
use crate::id::Id;

/// The protocol of the table.
pub const TABLE: &str = "/iop/mercury/kad/1";
/// Longest record, in bytes.
pub const MAX_RECORD: usize = 8 * 1024;

/// A record as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Record {
    /// The persona's half.
    #[n(0)]
    pub registration: Envelope,
    /// The home's half.
    #[n(1)]
    pub proof: Envelope,
    /// Where the home is reached.
    #[n(2)]
    pub contact: Envelope,
}

/// What a record says, believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Since when the home hosts the persona, in seconds since 1970.
    pub since: u64,
    /// The home.
    pub home: HomeAddress,
}

/// The key of a persona's record.
#[must_use]
pub fn key(persona: Id) -> Vec<u8> {
    persona.to_bytes().to_vec()
}

impl Record {
    /// As it travels.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        crate::cbor::to_vec(self)
    }
}

/// Reads a record, and believes nothing in it that is not signed by whom it is about.
///
/// # Errors
/// It is no record, or one that does not verify.
pub fn read(bytes: &[u8], persona: Id, network: &str, now: u64) -> Result<Found, EnvelopeError> {
    if bytes.len() > MAX_RECORD {
        return Err(EnvelopeError::TooLong(bytes.len()));
    }
    let record: Record = crate::cbor::from_slice(bytes).ok_or(EnvelopeError::Malformed)?;
    let expected = Expected { network, about: Some(persona), signer: None, now };
    let proof = record.proof.verify::<Hosting>(&expected)?;
    let home = proof.signer();
    let of_home = Expected { network, about: Some(home), signer: Some(home), now };
    // The persona's half was short-lived; the home counter-signed it while it held.
    let of_persona = Expected { signer: Some(persona), now: proof.issued(), ..of_home };
    let half = record.registration.verify::<Registration>(&of_persona)?;
    if *proof.body().registration != half.hash() {
        return Err(EnvelopeError::Body("the halves do not belong together"));
    }
    let contact = record.contact.verify::<Contact>(&of_home)?;
    let home = HomeAddress { home, addresses: contact.body().addresses.clone() };
    Ok(Found { since: proof.issued(), home })
}
