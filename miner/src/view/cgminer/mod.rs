//! The cgminer API, as monitors speak it at port 4028: one request in a connection, one reply, the end.
//!
//! Here: connections and their limits. Not here: the two forms of requests ([`request`]) and of replies ([`reply`]),
//! what they say ([`commands`]). Written after the interface's published description; nothing of cgminer is in it.
//! There is no password: who reaches the address reads all of it; only this machine's programs may change anything.

mod commands;
mod records;
mod reply;
mod request;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use super::Watched;
use request::{MAX_REQUEST, Request, is_json, is_whole};

/// Connections at a time; the next wait.
const MAX_CONNECTIONS: usize = 32;
/// Time for a request, from the first moment to the last byte.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Silence that ends a request which does not say itself that it is whole: a text without a line end. The clients
/// that send such write it in one piece.
const PAUSE: Duration = Duration::from_millis(200);
/// Time for the reply.
const REPLY_TIME: Duration = Duration::from_secs(10);
/// Time for a client to hang up after the reply, so that no reset takes it away from one that has sent too much.
const END_TIME: Duration = Duration::from_secs(1);
/// Wait after a connection could not be taken, as when there are too many open files.
const RETRY: Duration = Duration::from_millis(100);

/// Serves for as long as it is polled.
pub(super) async fn serve(listener: TcpListener, watched: Watched) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (places, turn) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), Arc::new(Semaphore::new(1)));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (watched, turn) = (watched.clone(), Arc::clone(&turn));
                tokio::spawn(async move {
                    // What a client does to its connection concerns nobody else.
                    let _ = converse(stream, peer, watched, &turn).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!("a connection to the cgminer API cannot be taken: {error}");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// A connection from its first byte to its end.
async fn converse(
    mut stream: TcpStream,
    peer: SocketAddr,
    watched: Watched,
    turn: &Semaphore,
) -> io::Result<()> {
    let bytes = timeout(REQUEST_TIME, read(&mut stream)).await??;
    if bytes.is_empty() {
        return Ok(());
    }
    let privileged = peer.ip().to_canonical().is_loopback();
    let reply = {
        // One at a time and on a thread of its own: with a thousand devices it takes milliseconds, and this thread
        // carries shares to the pool.
        let _turn = turn.acquire().await.expect("the semaphore is never closed");
        spawn_blocking(move || {
            let request = Request::parse(&bytes);
            let now = watched.clock.now();
            commands::answer(&request.asked, &watched, privileged, now).encode(request.json, now)
        })
        .await
        .map_err(io::Error::other)?
    };
    timeout(REPLY_TIME, async {
        stream.write_all(&reply).await?;
        stream.shutdown().await
    })
    .await??;
    let mut rest = vec![0; MAX_REQUEST];
    // As long as it takes: whether the client hangs up in time makes no difference.
    let _ =
        timeout(END_TIME, async { while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {} }).await;
    Ok(())
}

/// A request, or as much as it takes to see that it is too long.
async fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; MAX_REQUEST];
    while bytes.len() <= MAX_REQUEST && !is_whole(&bytes) {
        let reading = stream.read(&mut buffer);
        let read = if bytes.is_empty() {
            reading.await?
        } else {
            match timeout(PAUSE, reading).await {
                Ok(read) => read?,
                // JSON that breaks off is on its way.
                Err(_) if is_json(&bytes) => continue,
                Err(_) => break,
            }
        };
        match read {
            0 => break,
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(bytes)
}
