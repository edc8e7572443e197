//! The bare sender: a program that only writes the same bytes to many sockets, one after another.
//!
//! No program that sends from one core through the system's sockets does less, so the pool is compared with it. It
//! prints its port; the first connection says how many others to wait for and the line to write, then a byte per round.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

/// Serves one controlling connection.
pub(crate) fn run() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    println!("{}", listener.local_addr()?.port());
    let (mut control, _) = listener.accept()?;
    control.set_nodelay(true)?;
    let count = read_number(&mut control)?;
    let mut line = vec![0; read_number(&mut control)? as usize];
    control.read_exact(&mut line)?;
    let mut sockets = Vec::new();
    for _ in 0..count {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        sockets.push(socket);
    }
    control.write_all(b"!")?;
    let mut go = [0];
    while control.read(&mut go)? == 1 {
        sockets.iter_mut().try_for_each(|socket| socket.write_all(&line))?;
    }
    Ok(())
}

fn read_number(from: &mut TcpStream) -> io::Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

/// Orders `count` copies of a line per round.
pub(crate) fn order(control: &mut TcpStream, count: usize, line: &[u8]) -> io::Result<()> {
    control.set_nodelay(true)?;
    control.write_all(&(count as u32).to_be_bytes())?;
    control.write_all(&(line.len() as u32).to_be_bytes())?;
    control.write_all(line)
}
