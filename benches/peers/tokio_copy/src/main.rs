//! The plain tokio proxy: accept, pick the next backend, `copy_bidirectional`, nothing else.
//! It stands for what anyone would write first; it knows no failure detection, limits, logs or drains.

use std::env;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// Worker threads: the same two that every other peer gets.
const WORKERS: usize = 2;
/// Pause after a failed accept (no file descriptors left), so that the loop can't spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

fn main() {
    let addresses: Vec<SocketAddr> = env::args()
        .skip(1)
        .map(|argument| argument.parse().unwrap_or_else(|_| usage()))
        .collect();
    let Some((listen, backends)) = addresses.split_first() else {
        usage()
    };
    if backends.is_empty() {
        usage()
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_io()
        .build()
        .expect("a runtime can be built");
    let (listen, backends) = (*listen, backends.to_vec());
    // On a worker of its own, as the main thread would have to wake a worker at each accept.
    let accepting = runtime.spawn(accept_loop(listen, backends));
    runtime.block_on(accepting).expect("the accept loop doesn't panic");
}

fn usage() -> ! {
    eprintln!("usage: tokio_copy LISTEN BACKEND [BACKEND...]");
    std::process::exit(2)
}

async fn accept_loop(listen: SocketAddr, backends: Vec<SocketAddr>) {
    let listener = TcpListener::bind(listen).await.unwrap_or_else(|error| {
        eprintln!("can't listen on {listen}: {error}");
        std::process::exit(1)
    });
    for backend in backends.into_iter().cycle() {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(relay(client, backend));
            }
            Err(_) => std::thread::sleep(ACCEPT_PAUSE),
        }
    }
}

async fn relay(mut client: TcpStream, backend: SocketAddr) {
    let Ok(mut backend) = TcpStream::connect(backend).await else {
        return;
    };
    // Nagle's delay would spoil small messages; without this the yardstick would be a straw man.
    let _ = client.set_nodelay(true);
    let _ = backend.set_nodelay(true);
    let _ = copy_bidirectional(&mut client, &mut backend).await;
}
