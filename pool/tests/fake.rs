//! The fake node of the other tests: a request that it does not understand ends a test at once.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::{Chain, PATIENCE, wait_until};

#[test]
fn a_call_that_the_fake_node_does_not_know_fails_the_test_that_waits() {
    let node = Chain::new("devnet").serve(0);
    let mut stream = TcpStream::connect(node.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = r#"{"method":"nonsense","params":[],"id":1}"#;
    let length = body.len();
    write!(
        stream,
        "POST / HTTP/1.1\r\nhost: x\r\nauthorization: Basic dTpw\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("at fault"), "{answer}");
    let waited = std::panic::catch_unwind(|| wait_until("never", || false)).unwrap_err();
    let text = waited.downcast_ref::<String>().unwrap();
    assert!(text.contains("the fake node is at fault") && text.contains("nonsense"), "{text}");
}
