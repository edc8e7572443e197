//! A home and devices over real sockets.
#![allow(clippy::unwrap_used)]

mod support;

use iop_mercury::net::Setup;
use iop_mercury::wire::{Answer, Code, Event, Request};
use support::{Device, Running};

#[tokio::test]
async fn a_device_registers_logs_in_and_is_gone_when_its_connection_is() {
    let home = Running::start(Setup::default()).await;
    let mut device = Device::at(&home).await;
    let Answer::About(about) = device.ask(Request::About).await else { panic!("who are you") };
    assert_eq!(about.network, support::NETWORK);
    let Answer::Refused(refusal) = device.ask(Request::Claim).await else { panic!("not logged in") };
    assert_eq!(refusal.code, Code::LogInFirst);
    device.register(&home).await;
    device.log_in(&home, &["chat"]).await;
    assert!(matches!(device.ask(Request::Claim).await, Answer::Hosting(..)));
    home.until("sessions", |sessions| sessions == 1).await;
    drop(device);
    home.until("sessions", |sessions| sessions == 0).await;
    home.until("connections", |connections| connections == 0).await;
}

#[tokio::test]
async fn two_homes_do_not_share_a_port() {
    let home = Running::start(Setup::default()).await;
    let mut listen = home.address.clone();
    listen.pop();
    let error = Running::beside(listen.clone()).await.err().unwrap().to_string();
    assert!(
        error.starts_with(&format!("cannot listen at {listen}: ")) && error.contains("in use"),
        "{error}"
    );
    // Also not where the other listens at all addresses of the machine.
    let port = listen.pop().unwrap();
    let any = "/ip4/0.0.0.0".parse::<libp2p::Multiaddr>().unwrap().with(port);
    assert!(Running::beside(any).await.is_err());
    let mut device = Device::resident(&home).await;
    assert!(matches!(device.ask(Request::Claim).await, Answer::Hosting(..)));
    let again = home.restart().await;
    Device::at(&again).await;
}

#[tokio::test]
async fn a_ninth_device_evicts_the_first_which_is_told_so() {
    let home = Running::start(Setup::default()).await;
    let mut first = Device::resident(&home).await;
    let mut others = Vec::new();
    for _ in 0..iop_mercury::limits::MAX_DEVICES {
        let mut device = Device::at(&home).await;
        device.key = iop_mercury::id::Key::from_secret(&first.key.secret());
        device.log_in(&home, &[]).await;
        others.push(device);
    }
    while first.events.is_empty() {
        first.ask(Request::About).await;
    }
    assert_eq!(first.events, [Event::Ended]);
    let Answer::Refused(refusal) = first.ask(Request::Claim).await else { panic!("its session has ended") };
    assert_eq!(refusal.code, Code::LogInFirst);
}

#[tokio::test]
async fn a_reservation_ends_with_its_session() {
    let home = Running::start(Setup::default()).await;
    let mut first = Device::resident(&home).await;
    assert!(first.reserve(&home).await);
    let mut others = Vec::new();
    for _ in 0..iop_mercury::limits::MAX_DEVICES {
        let mut device = Device::at(&home).await;
        device.key = iop_mercury::id::Key::from_secret(&first.key.secret());
        device.log_in(&home, &[]).await;
        others.push(device);
    }
    let before = home.figure("disconnected");
    first.drive_until(home.until("connections", |count| count == others.len() as u64)).await;
    assert_eq!(home.figure("disconnected"), before, "it did nothing wrong");
}

#[tokio::test]
async fn a_persona_is_found_through_another_home_and_again_after_it_has_moved() {
    let first = Running::start(Setup::default()).await;
    let peers = vec![first.address.clone()];
    let second = Running::start(Setup { peers, ..Setup::default() }).await;
    let mut device = Device::resident(&first).await;
    let persona = device.key.id();
    let mut seeker = support::seeker::Seeker::new(&second.address);
    assert_eq!(seeker.find(persona, first.id).await.addresses, [first.address.to_string()]);
    // It registers at the other home without telling the first.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    device.connect(&second).await;
    device.register(&second).await;
    assert_eq!(seeker.find(persona, second.id).await.addresses, [second.address.to_string()]);
}
