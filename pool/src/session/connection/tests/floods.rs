//! Bytes that make no request: they are charged all the same, and no other connection waits for them.

use super::*;

#[tokio::test]
async fn empty_lines_count_as_requests() {
    let mut stand = Stand::new().await;
    Arc::get_mut(&mut stand.pool.shared).unwrap().limits.requests_per_second = 8.0;
    let (connection, mut client) = stand.connect().await;
    client.write_all(&[b'\n'; 12 * 1024]).await.unwrap();
    let paused = async {
        while connection.lock().link.may_read() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, paused).await.expect("what comes next is read later");
}

/// Polled by hand: when a poll returns, the bytes that one turn read are gone.
#[tokio::test]
async fn who_always_has_something_to_read_gives_up_its_turn() {
    const SENT: usize = 160 * 1024;
    let stand = Stand::new().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2 * SENT as u32).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let (accepted, client) =
        tokio::join!(listener.accept(), TcpStream::connect(listener.local_addr().unwrap()));
    let connection = Connection::new(accepted.unwrap().0, None, stand.pool.connect());
    let unread = || rustix::io::ioctl_fionread(&connection.stream).unwrap();
    client.unwrap().write_all(&[b'\n'; SENT]).await.unwrap();
    wait_until("all is there", || unread() == SENT as u64);
    connection.stream.readable().await.unwrap();
    tokio::task::yield_now().await;
    // A task's turn has 128 budget steps; 18 reads are left, and 40 are due.
    for _ in 0..110 {
        tokio::task::consume_budget().await;
    }
    let seat = stand.pool.shared.round.seat(Arc::clone(&connection));
    let mut served = pin!(serve(seat, stand.stop.subscribe()));
    std::future::poll_fn(|context| std::task::Poll::Ready(served.as_mut().poll(context).is_pending())).await;
    assert!((1..SENT as u64).contains(&unread()), "others have a turn before all is read: {}", unread());
}
