//! The wait of a long poll for a template: what its id says of the client's template, and when that is out of date.
//!
//! The id is all that is remembered of a template: [`Id`] -> text in the answer -> the client's next request -> [`Id`]
//! -> [`wait_for_change`]. What the next template contains is decided elsewhere.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::time::Duration;

use bitcoin::BlockHash;

use super::Context;
use crate::template::{Contents, Template};

/// A long poll on an unchanged tip is answered after this if the mempool has changed (Core's minute)...
const MEMPOOL_WAIT: Duration = Duration::from_secs(60);
/// ...and is checked again this often.
const STEP: Duration = Duration::from_secs(10);
/// How often the clock is compared with the end of a template's time, where it has one, and peers are counted.
const CLOCK_STEP: Duration = Duration::from_secs(1);
/// Stands for the mempool in the id of an empty template.
const EMPTY: &str = "e";

/// A template, as a long poll's id names it: the tip's hash, `TIME-` if there is a latest time, and the mempool's
/// change counter, or `e` if the template is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Id {
    tip: BlockHash,
    /// The latest time of its block, where another time has other bits.
    max_time: Option<u32>,
    /// The mempool's change counter; `None` if the template is empty.
    mempool_changes: Option<u64>,
}

impl Id {
    /// The id of a template that was made as of this many changes of the mempool.
    pub(super) fn of(template: &Template, contents: Contents, mempool_changes: u64) -> Self {
        Self {
            tip: template.previous,
            max_time: template.max_time,
            // Different from the full template's, so that the client's next poll is answered with that at once.
            mempool_changes: (contents != Contents::Empty).then_some(mempool_changes),
        }
    }
}

impl Display for Id {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.tip)?;
        if let Some(time) = self.max_time {
            write!(f, "{time}-")?;
        }
        match self.mempool_changes {
            Some(changes) => write!(f, "{changes}"),
            None => f.write_str(EMPTY),
        }
    }
}

impl FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (tip, rest) = text.split_at_checked(64).ok_or(())?;
        let (max_time, changes) = match rest.split_once('-') {
            Some((time, changes)) => (Some(time.parse().map_err(drop)?), changes),
            None => (None, rest),
        };
        let mempool_changes = match changes {
            EMPTY => None,
            changes => Some(changes.parse().map_err(drop)?),
        };
        Ok(Self { tip: tip.parse().map_err(drop)?, max_time, mempool_changes })
    }
}

/// Why a long poll returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// There is a new tip: the answer is usually an empty template, which is available at once.
    NewTip,
    /// Another reason, or there was nothing to wait for.
    Other,
}

/// Returns when the tip differs from the template's, when a minute has passed and the mempool has changed, when the
/// template's time is over, when the last peer is gone, or when the node stops. An empty template is not waited on:
/// the full one is next. Nor is an id that is none of ours.
pub(super) async fn wait_for_change(context: &Context, id: &str) -> Woken {
    let Ok(id) = id.parse::<Id>() else { return Woken::Other };
    let mut published = context.chain.published();
    let latest = published.clone();
    if id.mempool_changes.is_none() && latest.borrow().tip == id.tip {
        return Woken::Other;
    }
    let mut shutdown = context.shutdown.subscribe();
    let mut wait = MEMPOOL_WAIT;
    let mut over = std::pin::pin!(is_over(context, id.max_time));
    loop {
        tokio::select! {
            biased; // a new tip counts more than an old one's end
            _ = published.wait_for(|now| now.tip != id.tip) => return Woken::NewTip,
            _ = shutdown.wait_for(|stop| *stop) => return Woken::Other,
            () = &mut over => return Woken::Other,
            () = tokio::time::sleep(wait) => {
                if Some(latest.borrow().mempool_changes) != id.mempool_changes {
                    return Woken::Other;
                }
                wait = STEP;
            }
        }
    }
}

/// Returns once blocks made now are later than `max_time`, by the clock that templates go by, or no peer tells of
/// new blocks any more.
async fn is_over(context: &Context, max_time: Option<u32>) {
    // A stopped chain thread ends the poll in another way.
    while !is_alone(context) && max_time.is_none_or(|time| context.chain.now() <= u64::from(time)) {
        tokio::time::sleep(CLOCK_STEP).await;
    }
}

/// Whether there should be peers and are none.
pub(super) fn is_alone(context: &Context) -> bool {
    !context.params.mine_on_demand && context.net.as_ref().is_none_or(|net| net.connection_count() == 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written_and_what_is_none_is_refused() {
        let tip: BlockHash = "ab".repeat(32).parse().unwrap();
        for (max_time, mempool_changes, end) in [
            (None, Some(17), "17"),
            (None, None, "e"),
            (Some(1_700_001_200), Some(0), "1700001200-0"),
            (Some(1_700_001_200), None, "1700001200-e"),
        ] {
            let id = Id { tip, max_time, mempool_changes };
            assert_eq!(id.to_string(), format!("{tip}{end}"));
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for wrong in ["", "e", "x17", "17-", "-17", "4294967296-1", "1-1-1", "18446744073709551616", "é"] {
            assert_eq!(format!("{tip}{wrong}").parse::<Id>().is_err(), wrong != "e", "{wrong}");
        }
        for wrong in ["", "ab", &"x".repeat(64), &"é".repeat(40)] {
            assert!(wrong.parse::<Id>().is_err(), "{wrong}");
        }
    }
}
