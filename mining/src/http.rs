//! Connections to a program's HTTP API: their number and their lifetime, and who gives way when there are too
//! many.
//!
//! Not here: paths and answers, which are a [`Service`] of the program. Each connection has its own task.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

/// Wait after a failed accept, for example because too many files are open.
const RETRY: Duration = Duration::from_millis(100);

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Concurrent connections. Further ones wait, the first of them accepted.
    pub connections: usize,
    /// Time for a request's line and headers, including the idle time before them.
    pub header_time: Duration,
    /// Time for a whole connection: a slow reader loses its place, and clients reconnect.
    pub connection_time: Duration,
    /// Most bytes of a request's line and headers. hyper supports no less than 8 KiB.
    pub header_bytes: usize,
    /// Time for pending answers to finish at the end.
    pub end_time: Duration,
}

/// Connections that have not sent a whole request yet, by their order. Where places run out the oldest one
/// gives way, so that whoever sends nothing, or a byte now and then, keeps nobody who asks away.
#[derive(Debug, Default)]
struct Newcomers(Mutex<BTreeMap<u64, oneshot::Sender<()>>>);

impl Newcomers {
    /// Adds one; it must leave when it is told to.
    fn add(&self, number: u64) -> oneshot::Receiver<()> {
        let (leave, told) = oneshot::channel();
        self.lock().insert(number, leave);
        told
    }

    /// One has sent a request or is gone: it is told nothing any more.
    fn remove(&self, number: u64) {
        self.lock().remove(&number);
    }

    /// Tells the oldest one, if there is any, to leave.
    fn close_oldest(&self) {
        let oldest = self.lock().pop_first();
        if let Some((_, leave)) = oldest {
            let _ = leave.send(()); // in vain if it is just leaving
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<()>>> {
        self.0.lock().expect("no panic while the lock is held")
    }
}

/// Serves until `stop` ends. `complain` is told of connections that cannot be taken.
///
/// # Panics
/// The limits allow fewer header bytes than hyper supports.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    limits: Limits,
    stop: impl Future<Output = ()>,
    complain: impl Fn(&io::Error),
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_buf_size(limits.header_bytes);
    // A client that half-closes after its request, as nc does, still waits for the answer.
    protocol.half_close(true);
    let mut stop = pin!(stop);
    let places = Arc::new(Semaphore::new(limits.connections));
    let newcomers = Arc::new(Newcomers::default());
    let connections = GracefulShutdown::new();
    for number in 0u64.. {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                complain(&error);
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        if places.available_permits() == 0 {
            newcomers.close_oldest();
        }
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place.expect("the semaphore is never closed"),
            () = &mut stop => break,
        };
        let told = newcomers.add(number);
        let (service, waiting) = (service.clone(), Arc::clone(&newcomers));
        let service = service_fn(move |request: Request<Incoming>| {
            waiting.remove(number);
            service.call(request)
        });
        let connection = connections.watch(protocol.serve_connection(TokioIo::new(stream), service));
        let newcomers = Arc::clone(&newcomers);
        tokio::spawn(async move {
            tokio::select! {
                // A failure of one connection concerns no other.
                _ = tokio::time::timeout(limits.connection_time, connection) => {}
                Ok(()) = told => {}
            }
            newcomers.remove(number);
            drop(place);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(limits.end_time, connections.shutdown()).await; // remaining ones are cut off
}
