//! What honest clients notice of thousands of idle attackers on their listener: how long each takes with and without
//! them, in turn. `cargo bench --bench attackers` prints it (docs/internals/faults.md); it needs 10,000 open files a
//! process (ulimit -Hn).

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

const ATTACKERS: usize = 5_000;
const HONEST: u32 = 100;
/// Each honest client connects, asks and leaves this often.
const PERIOD: Duration = Duration::from_millis(100);
/// Of one measurement.
const SPAN: Duration = Duration::from_secs(10);
/// Alone and attacked in turn.
const ROUNDS: usize = 5;
const QUESTION: &[u8] = b"a question of an honest client";
const HEADER: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n";
const RECEIVE_BUFFER: u32 = 4096;

/// Ends with the program.
struct Balancer(Child);

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What clients send first, after the header: one asks for the pool that answers, one for the pool that never stops
/// sending.
struct Hellos {
    answered: Vec<u8>,
    flooded: Vec<u8>,
}

fn main() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> io::Result<()> {
    let hellos = Hellos { answered: hello("curl.example.com")?, flooded: hello("shop.example.com")? };
    let (answering, flooding) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    let edge = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut balancer = balancer(edge, answering.local_addr()?, flooding.local_addr()?)?;
    tokio::spawn(accept(answering, |stream| async move { answer(stream).await }));
    tokio::spawn(accept(flooding, |stream| async move { flood(stream).await }));
    while TcpStream::connect(edge).await.is_err() {
        assert!(balancer.0.try_wait()?.is_none(), "lb did not start");
        sleep(Duration::from_millis(10)).await;
    }
    println!("{HONEST} honest clients, each once in {PERIOD:?}, a connection each time; {ATTACKERS} idle attackers");
    println!("| round | alone p50 | p99 | attacked p50 | p99 | p99, times | attackers that held on |");
    println!("|---|---|---|---|---|---|---|");
    for round in 1..=ROUNDS {
        // Now one first, now the other: else whatever changes with time would look like the attackers' doing.
        let ((alone, (attacked, held)), order) = if round % 2 == 1 {
            let alone = honest(edge, &hellos.answered).await?;
            ((alone, under_attack(edge, &hellos).await?), "alone first")
        } else {
            let attacked = under_attack(edge, &hellos).await?;
            ((honest(edge, &hellos.answered).await?, attacked), "attacked first")
        };
        let [(alone50, alone99), (attacked50, attacked99)] =
            [alone, attacked].map(|times| (at(&times, 50), at(&times, 99)));
        let ratio = attacked99.as_secs_f64() / alone99.as_secs_f64();
        println!(
            "| {round}, {order} | {alone50:.0?} | {alone99:.0?} | {attacked50:.0?} | {attacked99:.0?} \
             | {ratio:.2} | {held} |"
        );
    }
    Ok(())
}

/// How long the honest ones took, and how many attackers were there to the end.
async fn under_attack(edge: SocketAddr, hellos: &Hellos) -> io::Result<(Vec<Duration>, usize)> {
    let attackers = attack(edge, hellos).await?;
    let times = honest(edge, &hellos.answered).await?;
    let held = attackers.iter().filter(|stream| is_open(stream)).count();
    drop(attackers);
    // Nothing of them may be left in what comes next.
    sleep(Duration::from_secs(2)).await;
    Ok((times, held))
}

/// The recorded ClientHello for this server name.
fn hello(server_name: &str) -> io::Result<Vec<u8>> {
    let vectors = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/client-hellos.jsonl"))?;
    let mut vectors = vectors.lines().map(serde_json::from_str::<serde_json::Value>);
    let vector = vectors.find_map(|vector| vector.ok().filter(|vector| vector["server_name"] == server_name));
    let vector = vector.expect("a recorded hello of that name");
    let hex = vector["hex"].as_str().expect("a text");
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    Ok((0..hex.len()).step_by(2).map(byte).collect())
}

/// One listener for all of them, which wants a PROXY header and then a ClientHello.
fn balancer(edge: SocketAddr, answering: SocketAddr, flooding: SocketAddr) -> io::Result<Balancer> {
    let config = format!(
        "log: {{access: 'off', level: warn}}\nadmin: {{bind: 'off'}}\nlisteners:\n  edge:\n    bind: '{edge}'\n\
         \x20   max_connections: 8000\n    proxy_protocol: required\n    trusted_proxies: [127.0.0.1]\n\
         \x20   timeouts: {{client_header: 1h, idle: 1h}}\n\
         \x20   routes: [{{sni: shop.example.com, pool: flooding}}, {{sni: '*', pool: answering}}]\n\
         pools:\n  answering: {{backends: ['{answering}']}}\n  flooding: {{backends: ['{flooding}']}}\n"
    );
    let lb = env!("CARGO_BIN_EXE_lb");
    let mut child = Command::new(lb).args(["-c", "/dev/stdin"]).stdin(Stdio::piped()).spawn()?;
    child.stdin.take().expect("piped").write_all(config.as_bytes())?;
    Ok(Balancer(child))
}

async fn accept<F: Future<Output = io::Result<()>> + Send + 'static>(listener: TcpListener, serve: fn(TcpStream) -> F) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream));
    }
}

/// Sends back what comes.
async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await?;
    Ok(())
}

/// Sends without end.
async fn flood(mut stream: TcpStream) -> io::Result<()> {
    loop {
        stream.write_all(&[0; 4096]).await?;
    }
}

/// A quarter each: silent; half a header; a header and half a hello; all of both, and never reading what comes.
async fn attack(edge: SocketAddr, hellos: &Hellos) -> io::Result<Vec<TcpStream>> {
    let half_a_hello = [HEADER, &hellos.answered[..hellos.answered.len() / 2]].concat();
    let whole = [HEADER, &hellos.flooded].concat();
    let kinds = [&b""[..], &HEADER[..HEADER.len() / 2], &half_a_hello, &whole];
    let mut attackers = Vec::with_capacity(ATTACKERS);
    for number in 0..ATTACKERS {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        let mut stream = socket.connect(edge).await?;
        stream.write_all(kinds[number % kinds.len()]).await?;
        attackers.push(stream);
    }
    // Those who never read have to be stuck.
    sleep(Duration::from_secs(2)).await;
    Ok(attackers)
}

/// Whether the balancer has it still: there is something to read, or nothing yet, but no end.
fn is_open(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0; 1]) {
        Ok(read) => read > 0,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// How long each question of the honest clients took, from before the connect to the last byte of the answer, sorted.
async fn honest(edge: SocketAddr, hello: &[u8]) -> io::Result<Vec<Duration>> {
    let (first, asked) = ([HEADER, hello, QUESTION].concat(), hello.len() + QUESTION.len());
    let mut clients = JoinSet::new();
    for number in 0..HONEST {
        let first = first.clone();
        clients.spawn(async move {
            // Spread over the period.
            sleep(PERIOD * number / HONEST).await;
            let (mut ticks, mut times) = (interval(PERIOD), Vec::new());
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            let end = Instant::now() + SPAN;
            while Instant::now() < end {
                ticks.tick().await;
                let started = Instant::now();
                let mut stream = TcpStream::connect(edge).await?;
                stream.write_all(&first).await?;
                let mut answer = vec![0; asked];
                timeout(SPAN, stream.read_exact(&mut answer)).await??;
                times.push(started.elapsed());
            }
            io::Result::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(one) = clients.join_next().await {
        times.extend(one??);
    }
    times.sort();
    Ok(times)
}

fn at(sorted: &[Duration], percent: usize) -> Duration {
    sorted[sorted.len() * percent / 100]
}
