//! Which addresses are admitted, and which are not any more.

use iop_mining::bans::{BAD_RUN, HOPELESS_RUN};

use super::*;

const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(9, 9, 9, 8));

#[test]
fn an_address_that_comes_too_often_waits_and_others_do_not() {
    let stand = Stand::with_job(8, 0, 1.0);
    let come = |ip| listener::seat(&stand.shared, ip).map(drop);
    let mut comes = (0..100_000).map(|number| (number, come(STRANGER)));
    let (admitted, refused) = comes.find(|(_, come)| come.is_err()).unwrap();
    assert!(admitted >= stand.shared.settings.max_per_address, "{admitted}: as many as there may be at once");
    assert_eq!(refused.unwrap_err(), "too many new connections a second from 9.9.9.9");
    assert_eq!(come(OTHER), Ok(()));
}

#[test]
fn long_runs_of_bad_shares_ban_an_address_and_end_their_connection_only() {
    let stand = Stand::with_job(8, 0, 1.0);
    let (mut bad, told) = stand.worker_from(STRANGER);
    let (mut good, other) = stand.worker_from(STRANGER);
    let is_banned = || stand.shared.bans.count(Instant::now()) > 0;
    for number in 1..=HOPELESS_RUN {
        assert!(!bad.machine.is_hopeless(), "{number}");
        assert_eq!(bad.submit(&told, &[0; 5], told.ntime, 0, None), 20);
        assert!(!is_banned() || number >= 4 * BAD_RUN, "{number}");
    }
    assert!(bad.machine.is_hopeless() && listener::seat(&stand.shared, STRANGER).is_err());
    let share = (0..).find(|nonce| good.submit(&other, &[0; 4], other.ntime, *nonce, None) == 0);
    assert!(share.is_some() && !good.machine.is_hopeless(), "who is here may stay");
    assert!(listener::seat(&stand.shared, OTHER).is_ok());
}

#[test]
fn who_is_subscribed_is_told_at_the_end_to_come_again() {
    let stand = Stand::with_job(8, 0, 1.0);
    let ((mut machine, _), mut stranger) = (stand.worker(), stand.connect());
    let last = Snapshot { ends: true, ..Snapshot::clone(&stand.shared.snapshots.borrow()) };
    stand.publish.send_replace(Arc::new(last));
    let said = stand.tell(&mut machine);
    assert_eq!((methods(&said), &said[0]["params"]), (vec!["client.reconnect"], &json!([])));
    assert_eq!(stand.tell(&mut stranger), Vec::<Value>::new(), "it would not understand");
    assert!(machine.machine.is_leaving().is_some() && stranger.machine.is_leaving().is_some());
}
