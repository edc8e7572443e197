//! `mining.submit`: from parameters to a share that the owner can check.

use std::borrow::Cow;

use crate::fields::{Extranonce2, FieldError, JobId, NTime, Nonce, Span, VersionBits};
use crate::message::Params;

use super::fast;

/// The parameters `[user, job, extranonce2, ntime, nonce, version bits?]`, parsed, without the user.
pub(super) struct Fields {
    pub(super) job_id: JobId,
    pub(super) extranonce2: Extranonce2,
    pub(super) ntime: NTime,
    pub(super) nonce: Nonce,
    pub(super) version_bits: Option<VersionBits>,
}

impl Fields {
    /// From the general envelope's parameters; `widths` are those allowed for the extranonce2.
    pub(super) fn read(params: &Params<'_>, widths: Span) -> Result<Self, FieldError> {
        Self::from_texts(|index, field| params.text(index, field), widths, params.get(5).is_some())
    }

    /// From a line of the usual shape.
    pub(super) fn of_line(line: &fast::Line<'_>, widths: Span) -> Result<Self, FieldError> {
        Self::from_texts(|index, _| Ok(Cow::Borrowed(line.param(index))), widths, line.has_version_bits())
    }

    fn from_texts<'a>(
        text: impl Fn(usize, &'static str) -> Result<Cow<'a, str>, FieldError>,
        widths: Span,
        has_version_bits: bool,
    ) -> Result<Self, FieldError> {
        Ok(Self {
            job_id: JobId::new(&text(1, "job id")?)?,
            extranonce2: Extranonce2::parse(&text(2, "extranonce2")?, widths.min, widths.max)?,
            ntime: NTime::parse(&text(3, "ntime")?)?,
            nonce: Nonce::parse(&text(4, "nonce")?)?,
            version_bits: match has_version_bits {
                false => None,
                // Empty text stands for none.
                true => match &*text(5, "version bits")? {
                    "" => None,
                    bits => Some(VersionBits::parse(bits)?),
                },
            },
        })
    }
}
