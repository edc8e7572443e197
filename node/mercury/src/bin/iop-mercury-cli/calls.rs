//! Calls between standard input and output at both ends.

use std::io::{Read, Write};
use std::pin::{Pin, pin};
use std::time::Duration;

use iop_mercury::client::{CallStream, Device, Told};
use iop_mercury::id::Id;
use libp2p::futures::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::Failure;
use crate::args::Command;
use crate::homes::settle;

/// Bytes per read.
const PIECE: usize = 64 * 1024;
/// How long a relayed call stays open after both ends have finished: when one end disconnects, a relay drops what
/// it has not forwarded to the other.
const LINGER: Duration = Duration::from_secs(1);

/// Runs the command. It ends in order whenever it is told to, also before there is a call.
pub(crate) async fn person(
    command: Command,
    device: &Device,
    told: mpsc::Receiver<Told>,
) -> Result<(), Failure> {
    let mut stop = pin!(stopped());
    tokio::select! {
        settled = settle(device) => settled?,
        () = &mut stop => return Ok(()),
    }
    match command {
        Command::Call { id, application, .. } => call(device, id, &application, stop).await,
        Command::Answer { application, .. } => answer(device, told, application, stop).await,
        other => unreachable!("another file does {other:?}"),
    }
}

/// Calls a persona.
async fn call(
    device: &Device,
    id: Id,
    application: &str,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), Failure> {
    let stream = tokio::select! {
        stream = device.call(id, application) => stream?,
        () = &mut stop => return Ok(()),
    };
    talk(device, stream, stop).await
}

/// Waits for a call from any related person, and accepts the first.
async fn answer(
    device: &Device,
    mut told: mpsc::Receiver<Told>,
    application: String,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), Failure> {
    let applications = [application];
    tokio::select! {
        entered = device.log_in(&applications) => entered?,
        () = &mut stop => return Ok(()),
    }
    eprintln!("waiting for a call");
    loop {
        let event = tokio::select! {
            event = told.recv() => event,
            () = &mut stop => return Ok(()),
        };
        match event {
            Some(Told::Call(call)) => {
                let from = call.from;
                let accepted = tokio::select! {
                    accepted = call.accept() => accepted,
                    () = &mut stop => return Ok(()),
                };
                match accepted {
                    Ok(stream) => return talk(device, stream, stop).await,
                    Err(error) => tracing::warn!("the call of {from} came to nothing: {error}"),
                }
            }
            Some(Told::Ended) => return Err(Failure::Failed("the home has ended the session".to_owned())),
            Some(Told::Lost) => tracing::warn!("the home is lost; it is tried again"),
            Some(_) => {}
            None => return Err(Failure::Failed("the device has been stopped".to_owned())),
        }
    }
}

/// Ready when the program is told to end. Counts from this call on, not only from when it is awaited. Must be
/// called within a tokio runtime.
pub(crate) fn stopped() -> impl Future<Output = ()> {
    let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    async move {
        let [terminated, interrupted] = signals.map(received);
        tokio::select! {
            () = terminated => {}
            () = interrupted => {}
        }
    }
}

/// Ready when this signal comes.
async fn received(signal: std::io::Result<Signal>) {
    match signal {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    }
}

/// Reads standard input in pieces, on its own thread, since reading blocks.
fn input() -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (pieces, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut piece = vec![0; PIECE];
        loop {
            let read = match std::io::stdin().read(&mut piece) {
                Ok(0) => return,
                Ok(count) => Ok(piece[..count].to_vec()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = read.is_err();
            if pieces.blocking_send(read).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// Writes standard output on its own thread, since a slow reader would block everything else. The outcome is sent
/// when everything is written.
fn output() -> (mpsc::Sender<Vec<u8>>, oneshot::Receiver<std::io::Result<()>>) {
    let (sender, mut pieces) = mpsc::channel::<Vec<u8>>(4);
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        let mut write = || {
            while let Some(piece) = pieces.blocking_recv() {
                let mut out = std::io::stdout().lock();
                out.write_all(&piece)?;
                out.flush()?;
            }
            Ok(())
        };
        let _ = ended.send(write()); // the call may have ended
    });
    (sender, end)
}

/// Transfers data in both directions until both ends have finished, or the program is told to end.
async fn talk(
    device: &Device,
    stream: CallStream,
    stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), Failure> {
    eprintln!("{} {} {}", if stream.direct { "direct" } else { "relayed" }, stream.other, stream.application);
    let (peer, relayed) = (stream.peer(), !stream.direct);
    let (mut from, mut to) = stream.split();
    let mut input = input();
    let up = async {
        let mut said = Ok(());
        while let Some(piece) = input.recv().await {
            said = async {
                to.write_all(&piece?).await?;
                to.flush().await
            }
            .await;
            if said.is_err() {
                break;
            }
        }
        let closed = to.close().await;
        // An end that accepts nothing more, or has gone, may have sent something before: that is output first.
        Ok::<_, std::io::Error>(said.and(closed))
    };
    let (output, written) = output();
    let down = async move {
        let mut piece = vec![0; PIECE];
        loop {
            let count = from.read(&mut piece).await?;
            if count == 0 {
                return Ok(());
            }
            // It accepts nothing more after a write failed; the reason is reported below.
            let taken = output.send(piece[..count].to_vec()).await;
            taken.map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        }
    };
    let both = async {
        let said = tokio::try_join!(up, down).and_then(|(said, ())| said);
        written.await.unwrap_or_else(|_| Err(std::io::Error::other("standard output is not written")))?;
        if relayed && said.is_ok() {
            tokio::time::sleep(LINGER).await;
        }
        said
    };
    let done = tokio::select! {
        done = both => done,
        () = stop => Ok(()),
    };
    let _ = device.hang_up(peer).await; // a device that has been stopped has hung up
    match done {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::Read),
        Err(error) => Err(Failure::Failed(format!("the call broke off: {error}"))),
    }
}
