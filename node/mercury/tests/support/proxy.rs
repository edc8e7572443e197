//! A proxy of one connection that can stop reading what the home sends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

pub struct Proxy {
    pub address: Multiaddr,
    stopped: Arc<AtomicBool>,
}

impl Proxy {
    pub async fn start(home: &Multiaddr) -> Self {
        let port = home.iter().find_map(|part| match part {
            Protocol::Tcp(port) => Some(port),
            _ => None,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        tokio::spawn(async move {
            let (device, _) = listener.accept().await.unwrap();
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(16 * 1024).unwrap();
            let home = socket.connect(([127, 0, 0, 1], port.unwrap()).into()).await.unwrap();
            let (mut from_home, mut to_home) = home.into_split();
            let (mut from_device, mut to_device) = device.into_split();
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut from_device, &mut to_home).await;
            });
            let mut buffer = vec![0; 4096];
            loop {
                if stop.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
                match from_home.read(&mut buffer).await {
                    Ok(read) if read > 0 => to_device.write_all(&buffer[..read]).await.unwrap(),
                    _ => return,
                }
            }
        });
        Self { address: address.parse().unwrap(), stopped }
    }

    pub fn stop_reading(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}
