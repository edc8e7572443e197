//! The bare answerer: a program that only answers every submit with a verdict.
//!
//! Its time is the round trip itself: the system's sockets, the cores and the generator. Servers are compared with it
//! under the same load.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

/// The start of every line; then comes the id, which is copied into the answer.
const START: &[u8] = b"{\"id\":";

/// Serves until it is killed; prints its port.
pub(crate) fn run() -> io::Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        println!("{}", listener.local_addr()?.port());
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(serve(stream));
        }
    })
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut lines, mut answers) = (Vec::with_capacity(4096), Vec::new());
    while stream.read_buf(&mut lines).await? > 0 {
        let whole = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        lines[..whole].split_inclusive(|byte| *byte == b'\n').for_each(|line| answer(line, &mut answers));
        lines.drain(..whole);
        stream.write_all(&answers).await?;
        answers.clear();
    }
    Ok(())
}

fn answer(line: &[u8], answers: &mut Vec<u8>) {
    let rest = line.strip_prefix(START).unwrap_or_default();
    let id = rest.split(|byte| *byte == b',').next().unwrap_or_default();
    answers.extend_from_slice(START);
    answers.extend_from_slice(id);
    answers.extend_from_slice(b",\"result\":true,\"error\":null}\n");
}
