//! The end of a working connection that is left: it still sends late finds for its pool, and receives their verdicts.

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::Connection;
use crate::job::Share;
use crate::upstream::Timing;
use crate::upstream::lost::Lost;

impl Connection {
    /// Receives the last verdicts while another pool is in use; for a limited time, it still sends the shares from
    /// `found`.
    pub(in crate::upstream) async fn farewell(mut self, mut found: mpsc::Receiver<Share>) {
        self.dispatcher = None;
        self.place.aside = true;
        let Timing { farewell, late_finds, .. } = self.place.manner.timing;
        let until = Instant::now() + late_finds;
        if timeout(farewell, self.last_words(&mut found, until)).await.is_err() {
            debug!("{}: left before every share had its verdict", self.place.url);
        }
        found.close();
        while let Ok(share) = found.try_recv() {
            self.lose(&share);
        }
        self.abandon();
    }

    /// Sends shares until a given time, and goes on until every share has its verdict.
    async fn last_words(&mut self, found: &mut mpsc::Receiver<Share>, until: Instant) -> Result<(), Lost> {
        // Lines after the one that redirected us are already buffered but not handled.
        let here = self.read(0);
        self.read_on(here)?;
        loop {
            self.send().await?;
            if Instant::now() >= until {
                found.close(); // later shares are returned to their sender
            }
            if found.is_closed() && found.is_empty() && self.submitted.is_empty() {
                return Ok(());
            }
            let waits = !found.is_closed();
            tokio::select! {
                received = self.receive() => self.read_on(received)?,
                Some(share) = found.recv(), if self.takes_shares() => self.submit(share),
                () = sleep_until(until), if waits => {}
            }
        }
    }

    /// Handles the buffered lines. A further redirect is ignored: we are leaving anyway.
    fn read_on(&mut self, mut received: Result<(), Lost>) -> Result<(), Lost> {
        while let Err(Lost::Moved { .. }) = received {
            received = self.read(0);
        }
        received
    }
}
