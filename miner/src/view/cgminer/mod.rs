//! The cgminer API, as monitors use it on port 4028: one request and one reply per connection.
//!
//! Here: connections and their limits. Not here: the two forms of requests ([`request`]) and of replies ([`reply`]),
//! and their contents ([`commands`]). Written from the interface's published description; it contains no code of
//! cgminer. There is no password: a client that can connect may read everything; only this machine's programs may
//! change anything.

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

/// Concurrent connections; further ones wait.
const MAX_CONNECTIONS: usize = 32;
/// Time for a request, from accepting the connection to the last byte.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// Silence that ends a request without a mark of its end: a text without a line end. Clients that send such requests
/// write them in one piece.
const PAUSE: Duration = Duration::from_millis(200);
/// Time for the reply.
const REPLY_TIME: Duration = Duration::from_secs(10);
/// Time for a client to close after the reply, so that one that has sent too much does not lose the reply to a reset.
const END_TIME: Duration = Duration::from_secs(1);
/// Wait after a failed accept, for example because too many files are open.
const RETRY: Duration = Duration::from_millis(100);

/// Serves while it is polled.
pub(super) async fn serve(listener: TcpListener, watched: Watched) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (places, turn) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), Arc::new(Semaphore::new(1)));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (watched, turn) = (watched.clone(), Arc::clone(&turn));
                tokio::spawn(async move {
                    // A failure of one connection concerns no other.
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

/// Handles a connection from its first byte to its end.
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
        // One at a time and on a blocking thread: with a thousand devices it takes milliseconds, and this thread
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
    // The result does not matter, even if the client does not close in time.
    let _ =
        timeout(END_TIME, async { while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {} }).await;
    Ok(())
}

/// Reads a request, or enough of it to see that it is too long.
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
                // Incomplete JSON will be continued.
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
