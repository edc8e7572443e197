//! `mining.submit`: from parameters to a share that the owner can judge.

use crate::fields::{Extranonce2, FieldError, JobId, NTime, Nonce, SERVER_EXTRANONCE2_SIZE, VersionBits};
use crate::message::Params;

/// The parameters `[user, job, extranonce2, ntime, nonce, version bits?]`, read but for the user.
pub(super) struct Fields {
    pub(super) job_id: JobId,
    pub(super) extranonce2: Extranonce2,
    pub(super) ntime: NTime,
    pub(super) nonce: Nonce,
    pub(super) version_bits: Option<VersionBits>,
}

impl Fields {
    pub(super) fn read(params: &Params<'_>) -> Result<Self, FieldError> {
        let width = SERVER_EXTRANONCE2_SIZE;
        Ok(Self {
            job_id: JobId::new(&params.text(1, "job id")?)?,
            extranonce2: Extranonce2::parse(&params.text(2, "extranonce2")?, width, width)?,
            ntime: NTime::parse(&params.text(3, "ntime")?)?,
            nonce: Nonce::parse(&params.text(4, "nonce")?)?,
            version_bits: match params.get(5) {
                None => None,
                Some(_) => Some(VersionBits::parse(&params.text(5, "version bits")?)?),
            },
        })
    }
}
