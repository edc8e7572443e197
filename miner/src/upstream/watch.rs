//! Whether a pool's connection is still useful, and whether its job is still alive.

use std::collections::{BTreeSet, VecDeque};

use iop_stratum::client::{MAX_UNANSWERED, SubmitId, Verdict};
use tokio::time::Instant;

use super::Timing;
use super::lost::Lost;

/// Consecutive refusals as stale after which a job is given up. After a change of the chain's tip the shares in flight
/// are refused: ten, at twenty shares a second and half a second to the pool and back. A job that is really dead costs
/// this many shares in vain: at one share in ten seconds, less than three minutes.
pub(super) const STALE_IN_A_ROW: u32 = 16;

/// Consecutive refusals of any kind after which a connection is given up, if they took [`Timing::refused`]: another
/// pool may take the shares, or the same one after a new login.
const REFUSED_IN_A_ROW: u32 = 16;
/// The same for machines that find few shares, if the refusals took [`FEW_LONGER`] times as long.
const FEW_REFUSED: u32 = 4;
const FEW_LONGER: u32 = 10;

/// Shares sent over a connection of which one should have been accepted. After a change of the tip two or three may be
/// refused without fault.
const FRUITLESS: u32 = 4;

/// How useful a connection was, and when.
///
/// Only shares that were found and sent count, never those that were expected: a slow machine, or one with bad luck, is
/// not the pool's fault. Refusals, messages and pings show that the pool is reachable, not that there is something to
/// mine: they do not break the silence.
#[derive(Debug)]
pub(super) struct Watch {
    last_useful: Instant,
    /// Since when there is no job; `None` while there is one.
    without_job: Option<Instant>,
    /// When the newest job came; `None` before the first.
    newest_job: Option<Instant>,
    /// Shares of the current job without a verdict, with the same bound as in the session.
    unanswered: BTreeSet<SubmitId>,
    /// Shares of the current job refused as stale since the last accepted one.
    stale: u32,
    /// Shares of any job sent since the last verdict, and when: the oldest ones, oldest first.
    waiting: VecDeque<(SubmitId, Instant)>,
    /// Refusals since the last acceptance, and when the first of them came.
    refused: (u32, Instant),
    /// Since when its jobs are too hard for this machine; `None` while they are not.
    hopeless: Option<Instant>,
    /// Number of shares sent, and whether one was accepted.
    sent: u32,
    accepted: bool,
}

impl Watch {
    /// For a connection opened at `now`, without a job yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last_useful: now,
            without_job: Some(now),
            newest_job: None,
            unanswered: BTreeSet::new(),
            stale: 0,
            waiting: VecDeque::new(),
            refused: (0, now),
            hopeless: None,
            sent: 0,
            accepted: false,
        }
    }

    /// The pool sent something that mining needs.
    pub(super) fn useful(&mut self, now: Instant) {
        self.last_useful = now;
    }

    /// The pool sent a job.
    pub(super) fn job(&mut self, now: Instant) {
        self.useful(now);
        self.without_job = None;
        self.newest_job = Some(now);
        self.unanswered.clear();
        self.stale = 0;
    }

    /// The pool sent a job that is as good as none.
    pub(super) fn no_job(&mut self, now: Instant) {
        self.without_job.get_or_insert(now);
    }

    /// Sets whether a share of the job is practically out of reach for this machine.
    pub(super) fn hopeless(&mut self, hopeless: bool, now: Instant) {
        self.hopeless = hopeless.then(|| self.hopeless.unwrap_or(now));
    }

    /// A share was sent; `of_job` if it is of the current job.
    pub(super) fn submitted(&mut self, id: SubmitId, of_job: bool, now: Instant) {
        self.sent = self.sent.saturating_add(1);
        // The oldest one matters: it stays if there is no room.
        if self.waiting.len() < MAX_UNANSWERED {
            self.waiting.push_back((id, now));
        }
        if of_job {
            self.unanswered.insert(id);
            if self.unanswered.len() > MAX_UNANSWERED {
                self.unanswered.pop_first();
            }
        }
    }

    /// Handles the verdict on a share of any job. Returns whether the current job is to be dropped: too many of its
    /// shares in a row were stale. From then on there is no job.
    pub(super) fn verdict(&mut self, id: SubmitId, verdict: &Verdict, now: Instant) -> bool {
        let of_job = self.unanswered.remove(&id);
        // Earlier shares are no longer waited for either: a pool may answer in any order, or lose one.
        while self.waiting.front().is_some_and(|(waiting, _)| *waiting <= id) {
            self.waiting.pop_front();
        }
        match verdict {
            Verdict::Accepted => {
                self.useful(now);
                self.accepted = true;
                self.refused.0 = 0;
                if of_job {
                    self.stale = 0;
                }
            }
            Verdict::Refused(refusal) => {
                let since = if self.refused.0 == 0 { now } else { self.refused.1 };
                self.refused = (self.refused.0.saturating_add(1), since);
                if of_job && refusal.is_stale() {
                    self.stale += 1;
                }
            }
        }
        let dead = self.without_job.is_none() && self.stale >= STALE_IN_A_ROW;
        if dead {
            self.without_job = Some(now);
        }
        dead
    }

    /// Whether all work for the pool over this connection was in vain: a pool that closes connections, or redirects us,
    /// before a limit is reached would otherwise be used for ever.
    pub(super) fn is_fruitless(&self) -> bool {
        self.sent >= FRUITLESS && !self.accepted
    }

    /// The time until which the connection is good if nothing more comes, and the error then. If there are `others` to
    /// switch to, more is demanded of a pool.
    pub(super) fn deadline(&self, timing: &Timing, others: bool) -> (Instant, Lost) {
        let Timing { silence, job_age, answer, first_job, .. } = *timing;
        let idle = if others && self.newest_job.is_none() { first_job.min(silence) } else { silence };
        let since = |since: Option<Instant>, limit, lost| since.map(|since| (since + limit, lost));
        let sent = self.waiting.front().map(|(_, sent)| *sent);
        [
            since(self.without_job, idle, Lost::Idle(idle)),
            since(self.newest_job.filter(|_| others), job_age, Lost::Aged(job_age)),
            since(sent, answer, Lost::Unanswered(answer)),
            self.refused_at(timing).map(|at| (at, Lost::Refused(self.refused.0))),
            since(self.hopeless.filter(|_| others), silence, Lost::Hopeless),
        ]
        .into_iter()
        .flatten()
        .fold((self.last_useful + silence, Lost::Silent(silence)), |first, other| {
            if other.0 < first.0 { other } else { first }
        })
    }

    fn refused_at(&self, timing: &Timing) -> Option<Instant> {
        let (count, since) = self.refused;
        match count {
            REFUSED_IN_A_ROW.. => Some(since + timing.refused),
            FEW_REFUSED.. => Some(since + timing.refused * FEW_LONGER),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use iop_stratum::client::Refusal;

    use super::*;

    fn refused(code: i32) -> Verdict {
        Verdict::Refused(Refusal { code: Some(code), text: "no".into() })
    }

    /// Submits and judges a range of shares of the current job; returns after how many the job was dropped.
    fn judge(watch: &mut Watch, ids: std::ops::Range<u64>, verdict: &Verdict, now: Instant) -> Vec<u64> {
        let judged = ids.map(|id| {
            watch.submitted(SubmitId(id), true, now);
            (id, watch.verdict(SubmitId(id), verdict, now))
        });
        judged.filter_map(|(id, dropped)| dropped.then_some(id)).collect()
    }

    /// Seconds after `start` at which the pool is left, and the reason.
    fn left(watch: &Watch, others: bool, start: Instant) -> (u64, String) {
        let (at, lost) = watch.deadline(&Timing::default(), others);
        ((at - start).as_secs(), format!("{lost:?}").split('(').next().unwrap_or_default().to_owned())
    }

    fn lost(seconds: u64, why: &str) -> (u64, String) {
        (seconds, why.to_owned())
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
        (1..100).for_each(|id| watch.submitted(SubmitId(id), true, now));
        watch.job(now);
        assert!((1..100).all(|id| !watch.verdict(SubmitId(id), &refused(21), now)));
        assert!(judge(&mut watch, 100..200, &refused(23), now).is_empty());
    }

    #[test]
    fn only_what_is_of_use_breaks_the_silence_and_only_a_job_ends_idleness() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::new(start);
        assert_eq!(left(&watch, false, start), lost(180, "Silent"));
        watch.useful(at(1));
        assert_eq!(left(&watch, false, start), lost(180, "Idle"));
        assert_eq!(
            left(&watch, true, start),
            lost(30, "Idle"),
            "where there are others, a job has to come soon"
        );
        watch.job(at(2));
        assert_eq!(left(&watch, true, start), lost(182, "Silent"));
        judge(&mut watch, 1..3, &Verdict::Accepted, at(3));
        judge(&mut watch, 3..6, &refused(23), at(4));
        assert_eq!(left(&watch, true, start), lost(183, "Silent"));
        judge(&mut watch, 6..100, &refused(21), at(5));
        watch.submitted(SubmitId(100), false, at(5));
        watch.verdict(SubmitId(100), &Verdict::Accepted, at(6));
        assert_eq!(left(&watch, false, start), lost(185, "Idle"));
    }

    #[test]
    fn a_pool_that_takes_shares_of_an_old_job_for_long_is_left_where_there_is_another() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::new(start);
        watch.job(at(10));
        for second in 11..1000 {
            judge(&mut watch, second..second + 1, &Verdict::Accepted, at(second));
        }
        assert_eq!(left(&watch, true, start), lost(550, "Aged"));
        assert_eq!(left(&watch, false, start), lost(1179, "Silent"));
        watch.job(at(1000));
        judge(&mut watch, 1000..1001, &Verdict::Accepted, at(1400));
        assert_eq!(left(&watch, true, start), lost(1540, "Aged"));
    }

    #[test]
    fn a_share_without_an_answer_is_waited_for_a_minute_unless_a_later_one_was_answered() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::new(start);
        watch.job(at(100));
        watch.submitted(SubmitId(1), true, at(101));
        watch.submitted(SubmitId(2), false, at(102));
        watch.submitted(SubmitId(3), true, at(103));
        assert_eq!(left(&watch, false, start), lost(161, "Unanswered"));
        watch.verdict(SubmitId(2), &refused(23), at(104));
        assert_eq!(left(&watch, false, start), lost(163, "Unanswered"));
        watch.verdict(SubmitId(1), &Verdict::Accepted, at(105));
        watch.verdict(SubmitId(3), &Verdict::Accepted, at(105));
        assert_eq!(left(&watch, false, start), lost(285, "Silent"));
    }

    #[test]
    fn a_pool_that_refuses_everything_is_left_also_where_there_is_no_other() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::new(start);
        watch.job(at(1000));
        judge(&mut watch, 1..4, &refused(23), at(1000));
        assert_eq!(left(&watch, true, at(1000)), lost(180, "Silent"));
        judge(&mut watch, 4..5, &refused(21), at(1001));
        // Few shares of a slow machine: the silence comes first, unless the pool sends jobs.
        watch.job(at(1599));
        assert_eq!(left(&watch, true, at(1000)), lost(600, "Refused"));
        judge(&mut watch, 5..17, &refused(23), at(1010));
        for others in [true, false] {
            assert_eq!(left(&watch, others, at(1000)), lost(60, "Refused"));
        }
        judge(&mut watch, 17..18, &Verdict::Accepted, at(1011));
        assert_eq!(left(&watch, true, at(1000)), lost(191, "Silent"));
    }

    #[test]
    fn jobs_that_are_too_hard_count_as_none_where_there_is_another_pool() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::new(start);
        for seconds in [10, 20] {
            watch.job(at(seconds));
            watch.hopeless(true, at(seconds));
        }
        assert_eq!(left(&watch, true, start), lost(190, "Hopeless"));
        assert_eq!(left(&watch, false, start), lost(200, "Silent"));
        watch.hopeless(false, at(20));
        assert_eq!(left(&watch, true, start), lost(200, "Silent"));
    }

    #[test]
    fn shares_without_an_answer_fill_no_memory_and_the_oldest_is_not_forgotten() {
        let start = Instant::now();
        let mut watch = Watch::new(start);
        watch.job(start + Duration::from_secs(100));
        for id in 0..2 * MAX_UNANSWERED as u64 {
            watch.submitted(SubmitId(id), true, start + Duration::from_millis(id));
        }
        assert_eq!((watch.unanswered.len(), watch.waiting.len()), (MAX_UNANSWERED, MAX_UNANSWERED));
        assert_eq!(left(&watch, false, start), lost(60, "Unanswered"));
    }
}
