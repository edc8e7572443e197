//! Malicious peers over real sockets: each harms only itself.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use iop_mercury::limits::{
    HANDSHAKE_TIME, MAX_ADDRESSES, MAX_ASKED, MAX_CONNECTIONS_OF_PEER, MAX_REFUSED, MAX_REQUESTS_OF_PEER,
    Rate, STREAMS_OF_CONNECTION,
};
use iop_mercury::net::quotas::Rates;
use iop_mercury::net::{Quotas, Setup};
use iop_mercury::wire::{Answer, Code, MAX_REQUEST, Request};
use libp2p::futures::FutureExt;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use support::raw::{Behaviour, Raw, RawDevice};
use support::stranger::{Misleader, Pest, Wanderer};
use support::{Device, ProtocolsEvent, Running};
use tokio::io::AsyncReadExt;

fn code(answer: Answer) -> Code {
    match answer {
        Answer::Refused(refusal) => refusal.code,
        other => panic!("{other:?}"),
    }
}

async fn serves_others(home: &Running) {
    let mut other = Device::resident(home).await;
    assert!(matches!(other.ask(Request::Claim).await, Answer::Hosting(..)));
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_so_is_one_byte_too_many() {
    let home = Running::start(Setup::default()).await;
    let mut device = RawDevice::at(&home, Behaviour::Whole).await;
    for (bytes, says) in [
        (Vec::new(), "not one value"),
        (vec![0xff; 100], "not one value"),
        (vec![0x9b, 0x40, 0, 0, 0, 0, 0, 0, 0], "not one value"),
        ([&[0x82, 0x18, 50, 0x81, 0x9b][..], &[0x7f; 8]].concat(), "not one value"),
        (vec![0x81; MAX_REQUEST], "not one value"),
        (vec![0x81; MAX_REQUEST + 1], "more than"),
        (vec![0; 3 * MAX_REQUEST], "more than"),
    ] {
        let length = bytes.len();
        match device.ask(Raw(bytes)).await {
            Some(Answer::Refused(refusal)) => {
                assert_eq!(refusal.code, Code::Malformed);
                assert!(refusal.reason.contains(says), "{length} bytes: {}", refusal.reason);
            }
            // The home stopped reading, and the rest of the request met a closed stream.
            None => assert!(length > MAX_REQUEST, "{length} bytes"),
            Some(other) => panic!("{other:?}"),
        }
    }
    serves_others(&home).await;
}

#[tokio::test]
async fn requests_that_are_half_sent_end_by_themselves_and_hold_up_nobody() {
    let home = Running::start(Setup::default()).await;
    let mut slow = RawDevice::at(&home, Behaviour::Half).await;
    let whole =
        iop_mercury::net::codec::Message::to_bytes(&iop_mercury::net::codec::Asked::Ok(Request::About));
    let half: Vec<_> = (0..STREAMS_OF_CONNECTION).map(|_| slow.send(Raw(whole[..1].to_vec()))).collect();
    serves_others(&home).await;
    for id in half {
        assert_eq!(slow.answer(id).await, None, "cut off by the home");
    }
    // Its streams are free again.
    slow.behave(Behaviour::Whole);
    assert!(matches!(slow.ask(Raw(whole)).await, Some(Answer::About(_))));
}

#[tokio::test]
async fn one_that_asks_too_fast_is_told_so_then_cut_off_and_others_are_not_concerned() {
    let mut quotas = Quotas { loopback: true, ..Quotas::default() };
    // No tokens come back, however long this takes.
    quotas.requests.of_peer = Rate { burst: 20, per_second: 0 };
    let home = Running::start(Setup { quotas, ..Setup::default() }).await;
    let mut flood = Device::at(&home).await;
    for number in 0..20 {
        assert!(matches!(flood.ask(Request::About).await, Answer::About(_)), "{number}");
    }
    assert_eq!(code(flood.ask(Request::About).await), Code::Later);
    serves_others(&home).await;
    let mut cut_off = false;
    for _ in 0..2 * MAX_REFUSED {
        let id = flood.send(Request::About);
        let Some(refused) = flood.answer(id).await else {
            cut_off = true;
            break;
        };
        assert_eq!(code(refused), Code::Later);
    }
    assert!(cut_off);
    serves_others(&home).await;
}

#[tokio::test]
async fn sessions_begin_and_change_at_a_rate_of_their_own() {
    let of_peer = Rate { burst: 5, per_second: 1 };
    let quotas = Quotas { sessions: Rates { of_peer, of_address: of_peer }, ..Quotas::default() };
    let home = Running::start(Setup { quotas, ..Setup::default() }).await;
    let mut device = Device::at(&home).await;
    for number in 0..5 {
        assert_eq!(device.ask(Request::LogOut).await, Answer::Done, "{number}");
    }
    assert_eq!(code(device.ask(Request::LogOut).await), Code::Later);
    assert_eq!(code(device.ask(Request::Announce(Vec::new())).await), Code::Later);
    assert!(matches!(device.ask(Request::About).await, Answer::About(_)), "others are not concerned");
}

#[tokio::test]
async fn who_is_there_is_asked_at_the_same_rate_and_costs_as_much_as_there_are_ids() {
    let of_peer = Rate { burst: 7, per_second: 0 };
    let quotas = Quotas { sessions: Rates { of_peer, of_address: of_peer }, ..Quotas::default() };
    let home = Running::start(Setup { quotas, ..Setup::default() }).await;
    // Takes one of the seven tokens.
    let mut device = Device::resident(&home).await;
    let ids = |count| Request::Presence(vec![device.key.id(); count]);
    let [one, few, most] = [1, 64, MAX_ASKED].map(ids);
    let nobody = Answer::Presence(Vec::new(), false);
    assert_eq!(device.ask(most.clone()).await, nobody, "takes four");
    assert_eq!(code(device.ask(most).await), Code::Later);
    assert_eq!(device.ask(few).await, nobody, "takes one");
    assert_eq!(device.ask(one.clone()).await, nobody, "takes the last one");
    assert_eq!(code(device.ask(one).await), Code::Later);
}

#[tokio::test]
async fn one_that_has_too_much_under_way_is_refused() {
    let home = Running::start(Setup::default()).await;
    // Unanswered calls stay in progress. They need a log-in, and related personas.
    let (mut caller, callee) = support::related(&home, &["chat"]).await;
    let calls: Vec<_> = (0..=iop_mercury::limits::MAX_CALLS_OF_CALLER)
        .map(|number| caller.call(callee.key.id(), "chat", u8::try_from(number).unwrap()))
        .collect();
    let last = caller.answer(*calls.last().unwrap()).await.unwrap();
    assert_eq!(code(last), Code::Full);
    for call in &calls[..calls.len() - 1] {
        assert_eq!(caller.answer(*call).await.map(code), Some(Code::NoAnswer), "after ten seconds");
    }
    const { assert!(MAX_REQUESTS_OF_PEER <= MAX_CONNECTIONS_OF_PEER * STREAMS_OF_CONNECTION) };
}

#[tokio::test]
async fn one_that_reads_nothing_is_forgotten_and_others_are_served() {
    let home = Running::start(Setup::default()).await;
    let (mut writer, mut reader) = support::related(&home, &[]).await;
    // Half a megabyte of mail, which the reader requests again and again.
    for number in 0..7 {
        let message = writer.message(reader.key.id(), number, 60 * 1024);
        assert_eq!(writer.ask(Request::Put(message)).await, Answer::Done);
    }
    assert!(matches!(reader.ask(Request::Fetch(0)).await, Answer::Mail(mail, false) if mail.len() == 7));
    let proxy = support::proxy::Proxy::start(&home.address).await;
    let mut slow = Device::new();
    slow.key = iop_mercury::id::Key::from_secret(&reader.key.secret());
    slow.connect_to(&home, proxy.address.clone()).await;
    slow.log_in(&home, &[]).await;
    proxy.stop_reading();
    // Twelve megabytes: more than socket buffers hold.
    for _ in 0..24 {
        slow.send(Request::Fetch(0));
    }
    slow.drive_until(home.until("requests_under_way", |count| count > 0)).await;
    serves_others(&home).await;
    slow.drive_until(home.until("requests_under_way", |count| count == 0)).await;
    serves_others(&home).await;
}

#[tokio::test]
async fn who_is_not_hosted_and_logged_in_reserves_nothing() {
    let home = Running::start(Setup::default()).await;
    let mut stranger = Device::at(&home).await;
    for _ in 0..50 {
        assert!(!stranger.reserve(&home).await);
    }
    let mut visitor = Device::at(&home).await;
    visitor.log_in(&home, &[]).await;
    assert!(!visitor.reserve(&home).await, "hosted elsewhere");
    assert_eq!(home.figure("reservations"), 0);
    let mut resident = Device::resident(&home).await;
    assert!(resident.reserve(&home).await);
    home.until("reservations", |count| count == 1).await;
}

#[tokio::test]
async fn circuits_are_for_calls_that_were_taken_and_once() {
    let home = Running::start(Setup::default()).await;
    let (mut caller, mut callee) = support::related(&home, &["chat"]).await;
    assert!(callee.reserve(&home).await);
    let callee_device = *callee.swarm.local_peer_id();
    for _ in 0..20 {
        assert!(!caller.open_circuit(&home, callee_device, &mut callee).await, "no call was taken");
    }
    assert_eq!(home.figure("circuits"), 0);
    let call = caller.call(callee.key.id(), "chat", 1);
    support::take_call(&mut caller, &mut callee, call).await;
    assert!(caller.open_circuit(&home, callee_device, &mut callee).await);
    home.until("circuits", |count| count == 1).await;
    assert!(!caller.open_circuit(&home, callee_device, &mut callee).await, "once");
    serves_others(&home).await;
}

#[tokio::test]
async fn a_thousand_idle_connections_are_kept_and_others_are_served() {
    let home = Running::start(Setup::default()).await;
    let idle = support::idle::connect(&home.address, 1_000).await;
    home.until("connections", |count| count == 1_000).await;
    serves_others(&home).await;
    assert!(home.figure("connections") >= 1_000);
    drop(idle);
    home.until("connections", |count| count == 0).await;
}

#[tokio::test]
async fn connections_beyond_those_of_a_peer_and_an_address_are_closed() {
    let quotas = Quotas { connections_of_address: 3, loopback: true, ..Quotas::default() };
    let home = Running::start(Setup { quotas, ..Setup::default() }).await;
    let three = support::idle::connect(&home.address, 3).await;
    let mut fourth = Device::new();
    fourth.swarm.dial(home.address.clone()).unwrap();
    let refused = |event: &SwarmEvent<ProtocolsEvent>| {
        matches!(event, SwarmEvent::OutgoingConnectionError { .. } | SwarmEvent::ConnectionClosed { .. })
    };
    fourth.until_any(refused).await;
    drop(three);
    home.until("connections", |count| count == 0).await;
    serves_others(&home).await;
    let home = Running::start(Setup::default()).await;
    let mut device = Device::at(&home).await;
    for _ in 1..MAX_CONNECTIONS_OF_PEER {
        device.connect_again(&home).await;
    }
    home.until("connections", |count| count == MAX_CONNECTIONS_OF_PEER as u64).await;
    device.dial_again(&home);
    device.until_any(|event| matches!(event, SwarmEvent::ConnectionClosed { .. })).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(matches!(device.ask(Request::About).await, Answer::About(_)), "the older ones are left");
}

#[tokio::test]
async fn sockets_that_say_nothing_keep_nobody_out() {
    let quotas = Quotas { pending: 4, ..Quotas::default() };
    let home = Running::start(Setup { quotas, ..Setup::default() }).await;
    let port = home.address.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(tokio::net::TcpStream::connect(("127.0.0.1", port.unwrap())).await.unwrap());
    }
    serves_others(&home).await;
    // Sooner than a handshake times out by itself.
    let mut piece = [0; 64];
    let said = tokio::time::timeout(HANDSHAKE_TIME / 2, silent[0].read(&mut piece)).await;
    assert!(matches!(said, Ok(Ok(0) | Err(_))), "the oldest gave way: {said:?}");
}

#[tokio::test]
async fn of_the_connections_from_an_address_so_many_are_kept_without_a_session() {
    let quotas = Quotas {
        without_session_of_address: 3,
        grace: Duration::from_secs(2),
        loopback: true,
        ..Quotas::default()
    };
    let home = Running::start(Setup { quotas, ..Setup::default() }).await;
    let mut resident = Device::resident(&home).await;
    let _idle = support::idle::connect(&home.address, 5).await;
    resident.drive_until(home.until("connections_refused", |count| count == 2)).await;
    resident.drive_until(home.until("connections", |count| count == 4)).await;
    assert!(matches!(resident.ask(Request::Claim).await, Answer::Hosting(..)));
}

#[tokio::test]
async fn who_lies_in_the_directory_makes_a_home_dial_nobody() {
    let victim = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut liar = Misleader::start(victim.local_addr().unwrap()).await;
    // A home that is reachable from outside dials nothing on its own machine, except the homes that its owner
    // named.
    let external = vec!["/ip4/8.8.8.8/tcp/4878".parse().unwrap()];
    let peers = vec![liar.address.clone()];
    let home = Running::start(Setup { external, peers: peers.clone(), ..Setup::default() }).await;
    let _resident = Device::resident(&home).await;
    tokio::select! {
        () = liar.until_put() => {}
        dialled = victim.accept() => panic!("{dialled:?}"),
    }
    let dialled = victim.accept().now_or_never();
    assert!(dialled.is_none(), "{dialled:?}");
    // A home that is only on this machine may have neighbours there.
    let home = Running::start(Setup { peers, ..Setup::default() }).await;
    let _resident = Device::resident(&home).await;
    support::within(victim.accept()).await.unwrap();
}

fn rates(burst: u32) -> Rates {
    let of_peer = Rate { burst, per_second: 1 };
    Rates { of_peer, of_address: Rate { burst: 10_000, per_second: 1 } }
}

#[tokio::test]
async fn one_that_looks_up_too_much_is_cut_off_and_others_are_not_concerned() {
    let quotas = Quotas { lookups: rates(50), loopback: true, ..Quotas::default() };
    let home = Running::start(Setup { quotas, ..Setup::default() }).await;
    let mut pest = Pest::at(&home).await;
    assert!(pest.look_up(20).await);
    let mut patient = Pest::at(&home).await;
    assert!(!pest.look_up(1_000).await);
    home.until("connections_ended", |count| count == 1).await;
    assert!(patient.look_up(10).await);
    serves_others(&home).await;
}

#[tokio::test]
async fn those_at_one_address_look_up_so_much_together() {
    let rate = Rate { burst: 50, per_second: 1 };
    let lookups = Rates { of_peer: rate, of_address: rate };
    let quotas = Quotas { lookups, loopback: true, ..Quotas::default() };
    let home = Running::start(Setup { quotas, ..Setup::default() }).await;
    let mut rest = true;
    for _ in 0..10 {
        rest &= Pest::at(&home).await.look_up(20).await;
    }
    assert!(!rest);
    home.until("connections_ended", |count| count > 0).await;
    serves_others(&home).await;
}

#[tokio::test]
async fn one_that_tells_who_it_is_without_end_is_cut_off() {
    let quotas = Quotas { introductions: rates(20), loopback: true, ..Quotas::default() };
    let home = Running::start(Setup { quotas, ..Setup::default() }).await;
    let mut pest = Pest::at(&home).await;
    assert!(pest.introduce_itself(10).await);
    // Once it is cut off it may connect again, or wait for an answer that does not come.
    let without_end = async {
        while pest.introduce_itself(100).await {}
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = without_end => unreachable!("it does not end"),
        () = home.until("connections_ended", |count| count > 0) => {}
    }
    serves_others(&home).await;
}

#[tokio::test]
async fn of_one_that_is_elsewhere_each_time_the_directory_tells_so_many_addresses_and_not_one_more() {
    let home = Running::start(Setup::default()).await;
    let mut wanderer = Wanderer::new(&home);
    for round in 0..5 {
        let first = 1 + round * MAX_ADDRESSES as u16;
        wanderer.come(first..first + MAX_ADDRESSES as u16).await;
    }
    let mut seeker = Pest::at(&home).await;
    let peer = wanderer.peer();
    let told = tokio::select! {
        told = seeker.look_for(peer) => told,
        () = wanderer.stay() => unreachable!("it stays"),
    };
    assert!((1..=MAX_ADDRESSES).contains(&told), "{told}");
}

#[tokio::test]
async fn one_that_reserves_without_end_is_cut_off() {
    let quotas = Quotas { relaying: rates(20), loopback: true, ..Quotas::default() };
    let home = Running::start(Setup { quotas, ..Setup::default() }).await;
    let mut stranger = Device::at(&home).await;
    for _ in 0..30 {
        assert!(!stranger.reserve(&home).await);
    }
    home.until("connections_ended", |count| count > 0).await;
    serves_others(&home).await;
}

#[tokio::test]
async fn strangers_reserve_so_often_from_an_address_and_who_is_hosted_there_is_not_concerned() {
    let relaying_of_strangers = Rate { burst: 20, per_second: 0 };
    let quotas = Quotas { relaying_of_strangers, loopback: true, ..Quotas::default() };
    let home = Running::start(Setup { quotas, ..Setup::default() }).await;
    let mut resident = Device::resident(&home).await;
    for _ in 0..3 {
        let mut stranger = Device::at(&home).await;
        for _ in 0..10 {
            assert!(!stranger.reserve(&home).await);
        }
    }
    resident.drive_until(home.until("connections_ended", |count| count > 0)).await;
    assert!(resident.reserve(&home).await);
}

#[tokio::test]
async fn one_that_asks_to_be_dialled_without_end_is_cut_off() {
    let quotas = Quotas { introductions: rates(20), loopback: true, ..Quotas::default() };
    let home = Running::start(Setup { quotas, ..Setup::default() }).await;
    let mut pest = RawDevice::speaking("/libp2p/autonat/1.0.0", &home, Behaviour::Whole).await;
    for _ in 0..30 {
        assert_eq!(pest.ask(Raw(vec![1, 0])).await, None, "no answer of a home");
    }
    home.until("connections_ended", |count| count > 0).await;
    serves_others(&home).await;
}

#[tokio::test]
async fn who_knocks_where_no_call_was_taken_has_lost_the_calls_that_were() {
    let home = Running::start(Setup::default()).await;
    let (mut caller, mut callee) = support::related(&home, &["chat"]).await;
    let mut other = Device::resident(&home).await;
    assert!(callee.reserve(&home).await && other.reserve(&home).await);
    let call = caller.call(callee.key.id(), "chat", 1);
    support::take_call(&mut caller, &mut callee, call).await;
    let elsewhere = *other.swarm.local_peer_id();
    assert!(!caller.open_circuit(&home, elsewhere, &mut other).await);
    let to = *callee.swarm.local_peer_id();
    assert!(!caller.open_circuit(&home, to, &mut callee).await);
    callee.drive_until(home.until("circuits", |count| count == 0)).await;
}

#[tokio::test]
async fn a_circuit_that_the_other_side_refuses_does_not_count() {
    let quotas = Quotas { circuits_of_persona: 1, ..Quotas::default() };
    let home = Running::start(Setup { quotas, ..Setup::default() }).await;
    let (mut caller, mut callee) = support::related(&home, &["chat"]).await;
    assert!(callee.reserve(&home).await);
    let listener = callee.listener.take().unwrap();
    assert!(callee.swarm.remove_listener(listener));
    for number in 1..=2 {
        assert!(support::circuit_of_call(&home, &mut caller, &mut callee, number).await.is_none());
    }
    assert!(callee.reserve(&home).await);
    let to = *callee.swarm.local_peer_id();
    assert!(caller.open_circuit(&home, to, &mut callee).await, "its permit holds");
    home.until("circuits", |count| count == 1).await;
}

#[tokio::test]
async fn circuits_are_counted_one_by_one_also_between_the_same_two() {
    let home = Running::start(Setup::default()).await;
    let (mut caller, mut callee) = support::related(&home, &["chat"]).await;
    assert!(callee.reserve(&home).await);
    let mut open = Vec::new();
    for number in 1..=3 {
        open.extend(support::circuit_of_call(&home, &mut caller, &mut callee, number).await);
    }
    assert_eq!(open.len(), 3);
    home.until("circuits", |count| count == 3).await;
    assert!(caller.swarm.close_connection(open[0]));
    callee.drive_until(caller.drive_until(home.until("circuits", |count| count == 2))).await;
    // The other side disconnects: the relay reports that twice.
    drop(callee);
    caller.drive_until(home.until("circuits", |count| count == 0)).await;
    serves_others(&home).await;
}

/// Two circuits may be open, and no more until one has ended.
async fn two_circuits(quotas: Quotas) {
    let home = Running::start(Setup { quotas, ..Setup::default() }).await;
    let (mut caller, mut callee) = support::related(&home, &["chat"]).await;
    assert!(callee.reserve(&home).await);
    let first = support::circuit_of_call(&home, &mut caller, &mut callee, 1).await.expect("the first");
    assert!(support::circuit_of_call(&home, &mut caller, &mut callee, 2).await.is_some());
    let before = home.figure("circuits_refused");
    assert!(support::circuit_of_call(&home, &mut caller, &mut callee, 3).await.is_none(), "a third");
    home.until("circuits_refused", |count| count == before + 1).await;
    assert_eq!(home.figure("circuits"), 2);
    assert!(caller.swarm.close_connection(first));
    callee.drive_until(caller.drive_until(home.until("circuits", |count| count == 1))).await;
    let to = *callee.swarm.local_peer_id();
    assert!(caller.open_circuit(&home, to, &mut callee).await, "its permit holds");
    home.until("circuits", |count| count == 2).await;
}

#[tokio::test]
async fn a_persona_opens_so_many_circuits_and_not_one_more() {
    two_circuits(Quotas { circuits_of_persona: 2, ..Quotas::default() }).await;
}

#[tokio::test]
async fn from_an_address_so_many_circuits_are_opened_and_not_one_more() {
    two_circuits(Quotas { circuits_of_address: 2, loopback: true, ..Quotas::default() }).await;
}
