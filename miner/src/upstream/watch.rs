//! Whether a pool's connection is still worth having, and whether its job is still alive.

use std::collections::BTreeSet;
use std::time::Duration;

use iop_stratum::client::{MAX_UNANSWERED, SubmitId, Verdict};
use tokio::time::Instant;

/// Refusals as stale, one after the other, after which a job is given up. After a change of the chain's tip a
/// few shares are refused that were on their way: at twenty shares a second and half a second to the pool and
/// back, ten. A job that is dead in truth costs as many shares as this for nothing: at one share in ten
/// seconds, less than three minutes.
pub(super) const STALE_IN_A_ROW: u32 = 16;

/// What a connection was good for, and when.
///
/// Refusals, messages and pings show that somebody is there, not that there is something to mine: they do not
/// break the silence.
#[derive(Debug)]
pub(super) struct Watch {
    last_useful: Instant,
    /// Since when there is no job; `None` while there is one.
    without_job: Option<Instant>,
    /// Shares of the job at hand that have no verdict yet, bounded as the session bounds them.
    unanswered: BTreeSet<SubmitId>,
    /// Shares of the job at hand that were refused as stale since one was accepted.
    stale: u32,
}

impl Watch {
    /// Over a connection that is open since `now` and has no job yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { last_useful: now, without_job: Some(now), unanswered: BTreeSet::new(), stale: 0 }
    }

    /// The pool sent something that mining needs.
    pub(super) fn useful(&mut self, now: Instant) {
        self.last_useful = now;
    }

    /// The pool sent a job.
    pub(super) fn job(&mut self, now: Instant) {
        self.useful(now);
        self.without_job = None;
        self.unanswered.clear();
        self.stale = 0;
    }

    /// A share of the job at hand is on its way.
    pub(super) fn submitted(&mut self, id: SubmitId) {
        self.unanswered.insert(id);
        if self.unanswered.len() > MAX_UNANSWERED {
            self.unanswered.pop_first();
        }
    }

    /// The verdict on a share, of whichever job. Says whether the job at hand is to be dropped: too many of
    /// its shares in a row were stale. From then on there is no job.
    pub(super) fn verdict(&mut self, id: SubmitId, verdict: &Verdict, now: Instant) -> bool {
        let of_job = self.unanswered.remove(&id);
        match verdict {
            Verdict::Accepted => {
                self.useful(now);
                if of_job {
                    self.stale = 0;
                }
            }
            Verdict::Refused(refusal) if of_job && refusal.is_stale() => self.stale += 1,
            Verdict::Refused(_) => {}
        }
        let dead = self.without_job.is_none() && self.stale >= STALE_IN_A_ROW;
        if dead {
            self.without_job = Some(now);
        }
        dead
    }

    /// When nothing useful has come for so long.
    pub(super) fn silent_at(&self, limit: Duration) -> Instant {
        self.last_useful + limit
    }

    /// When there has been no job for so long, whatever else came. `None` while there is a job.
    pub(super) fn idle_at(&self, limit: Duration) -> Option<Instant> {
        self.without_job.map(|since| since + limit)
    }
}

#[cfg(test)]
mod tests {
    use iop_stratum::client::Refusal;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(180);

    fn refused(code: i32) -> Verdict {
        Verdict::Refused(Refusal { code: Some(code), text: "no".into() })
    }

    /// Submits and judges so many shares of the job at hand; says after how many the job was dropped.
    fn judge(watch: &mut Watch, ids: std::ops::Range<u64>, verdict: &Verdict, now: Instant) -> Vec<u64> {
        let judged = ids.map(|id| {
            watch.submitted(SubmitId(id));
            (id, watch.verdict(SubmitId(id), verdict, now))
        });
        judged.filter_map(|(id, dropped)| dropped.then_some(id)).collect()
    }

    #[test]
    fn a_job_is_dropped_once_after_sixteen_stale_shares_in_a_row() {
        let now = Instant::now();
        let mut watch = Watch::new(now);
        watch.job(now);
        assert!(judge(&mut watch, 1..16, &refused(21), now).is_empty());
        assert!(judge(&mut watch, 16..17, &Verdict::Accepted, now).is_empty());
        assert_eq!(judge(&mut watch, 17..60, &refused(21), now), [32]);
        watch.job(now);
        assert_eq!(judge(&mut watch, 60..90, &refused(21), now), [75]);
    }

    #[test]
    fn stale_shares_of_an_earlier_job_and_other_refusals_drop_nothing() {
        let now = Instant::now();
        let mut watch = Watch::new(now);
        watch.job(now);
        (1..100).for_each(|id| watch.submitted(SubmitId(id)));
        watch.job(now);
        assert!((1..100).all(|id| !watch.verdict(SubmitId(id), &refused(21), now)));
        assert!(judge(&mut watch, 100..200, &refused(23), now).is_empty());
    }

    #[test]
    fn only_what_is_of_use_breaks_the_silence_and_only_a_job_ends_idleness() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::new(start);
        assert_eq!((watch.silent_at(LIMIT), watch.idle_at(LIMIT)), (at(180), Some(at(180))));
        watch.useful(at(1));
        assert_eq!((watch.silent_at(LIMIT), watch.idle_at(LIMIT)), (at(181), Some(at(180))));
        watch.job(at(2));
        assert_eq!((watch.silent_at(LIMIT), watch.idle_at(LIMIT)), (at(182), None));
        judge(&mut watch, 1..3, &Verdict::Accepted, at(3));
        judge(&mut watch, 3..6, &refused(23), at(4));
        assert_eq!((watch.silent_at(LIMIT), watch.idle_at(LIMIT)), (at(183), None));
        judge(&mut watch, 6..100, &refused(21), at(5));
        assert_eq!((watch.silent_at(LIMIT), watch.idle_at(LIMIT)), (at(183), Some(at(185))));
        watch.useful(at(100));
        assert_eq!((watch.silent_at(LIMIT), watch.idle_at(LIMIT)), (at(280), Some(at(185))));
    }

    #[test]
    fn shares_without_an_answer_fill_no_memory() {
        let mut watch = Watch::new(Instant::now());
        (0..2 * MAX_UNANSWERED as u64).for_each(|id| watch.submitted(SubmitId(id)));
        assert_eq!(watch.unanswered.len(), MAX_UNANSWERED);
    }
}
