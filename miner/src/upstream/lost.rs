//! The reason why a connection to a pool is over, or was not established.

use std::io;
use std::time::Duration;

use iop_stratum::client;
use iop_stratum::line::LineTooLong;

use super::PoolUrl;
use crate::job::Share;

#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("no TLS with it: {0}")]
    Tls(String),
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    #[error("the pool closed the connection")]
    Closed,
    #[error("the pool did not let us work within {} s", .0.as_secs_f32())]
    Handshake(Duration),
    #[error("nothing of use from the pool for {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error("no job from the pool for {} s", .0.as_secs_f32())]
    Idle(Duration),
    #[error("no new job from the pool for {} s", .0.as_secs_f32())]
    Aged(Duration),
    #[error("no answer to a share for {} s", .0.as_secs_f32())]
    Unanswered(Duration),
    #[error("every one of the last {0} shares was refused")]
    Refused(u32),
    #[error("its shares are too hard: one takes this machine more than a day")]
    Hopeless,
    #[error("the pool did not take a line for {} s", .0.as_secs_f32())]
    Stuck(Duration),
    #[error("the pool sent a {0}")]
    Line(#[from] LineTooLong),
    #[error(transparent)]
    Session(#[from] client::Error),
    #[error("the pool asks us to connect to {to}")]
    Moved { to: PoolUrl, wait: Duration },
    #[error("the pool sends us on more than {0} times in a row")]
    SentOn(u32),
}

impl Lost {
    /// Whether the pool was reachable but useless: connecting again is not likely to change that, so the next pool, if
    /// there is one, is tried however long the connection lasted.
    pub(super) fn is_useless(&self) -> bool {
        matches!(
            self,
            Self::Silent(_)
                | Self::Idle(_)
                | Self::Aged(_)
                | Self::Unanswered(_)
                | Self::Refused(_)
                | Self::Hopeless
        )
    }

    /// Whether the pool looks fine until it is used: checking again whether it is useful costs work.
    pub(super) fn is_seen_late(&self) -> bool {
        self.is_useless() && !matches!(self, Self::Idle(_))
    }
}

/// The message about a block that cannot be sent to its pool.
pub(super) fn lost_block(share: &Share) -> String {
    format!(
        "a block of job {} is lost: the connection to the pool that gave the job has ended",
        share.job.id()
    )
}
