//! `lb demo`: two small HTTP servers that log their requests, and the balancer in front of them.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Args;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Overrides, Source};
use crate::server;
use crate::telemetry::{LogTarget, LogWriter, LogWriterOptions, Severity, escaped, rfc3339};

use super::client::{self, Ask};
use super::error::CliError;

const LISTEN: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:9900";
const SERVERS: [&str; 2] = ["127.0.0.1:3001", "127.0.0.1:3002"];

/// The demo's end waits so long for whoever reads its output.
const LAST_LINES_TIME: Duration = Duration::from_secs(2);

#[derive(Args, Clone, Debug)]
pub(super) struct DemoArgs {
    /// Send N GETs, show which server answered each, and exit; exit code 0 only if they were shared equally
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    requests: Option<u32>,
    /// Run only one of the demo's servers, on this address: it logs each request, and answers with its address
    #[arg(long, value_name = "ADDR", conflicts_with = "requests")]
    server: Option<SocketAddr>,
}

pub(super) fn demo(args: &DemoArgs) -> Result<(), CliError> {
    let output = Output::start().map_err(CliError::Demo)?;
    let result = match args.server {
        Some(address) => serve_alone(address, output.clone()).map_err(CliError::Demo),
        None => balance(args.requests, &output),
    };
    output.0.flush(LAST_LINES_TIME);
    result
}

/// Standard output. The servers and the balancer wait for nobody who doesn't read it.
#[derive(Clone)]
struct Output(Arc<LogWriter>);

impl Output {
    fn start() -> io::Result<Self> {
        let writer = LogWriter::start(LogWriterOptions {
            thread: "demo-output",
            title: "standard output",
            gathering: Duration::ZERO,
            target: LogTarget::Stdout,
        })?;
        Ok(Self(Arc::new(writer)))
    }

    /// Writes a line, or several.
    fn line(&self, text: fmt::Arguments<'_>) {
        self.0.write(Severity::Info, format!("{text}\n").as_bytes());
    }
}

fn balance(requests: Option<u32>, output: &Output) -> Result<(), CliError> {
    let servers = start_servers(output).map_err(CliError::Demo)?;
    let listen = free_address(LISTEN, output).map_err(CliError::Demo)?;
    let admin = free_address(ADMIN, output).map_err(CliError::Demo)?;
    let flags = Overrides {
        listen: vec![listen.to_string()],
        mode: Some("http".to_owned()),
        backend: servers.iter().map(SocketAddr::to_string).collect(),
        admin: Some(admin.to_string()),
        access_log: Some("off".to_owned()),
        log_level: Some("warn".to_owned()),
        ..Overrides::default()
    };
    let source = Source { flags, ..Source::default() };
    let loaded = source.load()?;
    output.line(format_args!("servers:  {} and {}", servers[0], servers[1]));
    output.line(format_args!("balancer: {listen} (round robin, http mode: it adds the headers that are shown below)"));
    output.line(format_args!("admin:    http://{admin}/"));
    let running = server::start(source, &loaded)?;
    let Some(requests) = requests else {
        output.line(format_args!("\ntry:      for i in 1 2 3 4; do curl http://{listen}/; done"));
        output.line(format_args!(
            "          curl 'http://{listen}/[1-10]'      ten GETs over one connection, five to each server"
        ));
        output.line(format_args!("          curl http://{admin}/metrics"));
        output.line(format_args!("          {} status --admin {admin}", this_program()));
        output.line(format_args!("Each line below is a request that reached a server. Ctrl-C stops.\n"));
        running.until_stopped();
        return Ok(());
    };
    output.line(format_args!("\nsending {requests} GETs to http://{listen}/\n"));
    let shares = send(requests, &listen, &servers, output);
    running.stop();
    let shares = shares.map_err(CliError::DemoRequest)?;
    output.line(format_args!("\nanswered by {}: {}, by {}: {}", servers[0], shares[0], servers[1], shares[1]));
    if shares[0].abs_diff(shares[1]) > requests % 2 {
        return Err(CliError::UnequalShares);
    }
    Ok(())
}

/// How this program is called: by its path where it was, as `cargo run` does, and it is not where a shell looks.
fn this_program() -> String {
    std::env::args().next().filter(|name| name.contains('/')).unwrap_or_else(|| "lb".to_owned())
}

/// The wanted address, or one with a free port if that is in use.
fn free_address(wanted: &str, output: &Output) -> io::Result<SocketAddr> {
    bind_or_free(wanted, output)?.local_addr()
}

fn bind_or_free(wanted: &str, output: &Output) -> io::Result<std::net::TcpListener> {
    std::net::TcpListener::bind(wanted).or_else(|_| {
        let other = std::net::TcpListener::bind("127.0.0.1:0")?;
        output.line(format_args!("{wanted} is taken, using {} instead", other.local_addr()?));
        Ok(other)
    })
}

/// Starts both servers, on a thread that runs as long as the process.
fn start_servers(output: &Output) -> io::Result<Vec<SocketAddr>> {
    let listeners = SERVERS.iter().map(|wanted| bind_or_free(wanted, output)).collect::<io::Result<Vec<_>>>()?;
    let addresses = listeners.iter().map(std::net::TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let output = output.clone();
    std::thread::Builder::new().name("demo-servers".to_owned()).spawn(move || {
        runtime.block_on(async {
            let serving = listeners.into_iter().map(|listener| tokio::spawn(serve(listener, output.clone())));
            for server in serving.collect::<Vec<_>>() {
                let _ = server.await;
            }
        });
    })?;
    Ok(addresses)
}

/// Runs one server until SIGTERM or SIGINT. They are handled, as a container's first process would ignore them else.
fn serve_alone(address: SocketAddr, output: Output) -> io::Result<()> {
    let listener = std::net::TcpListener::bind(address)?;
    output.line(format_args!("server:   {}", listener.local_addr()?));
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            served = serve(listener, output) => served,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    })
}

async fn serve(listener: std::net::TcpListener, output: Output) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let server = listener.local_addr()?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, client) = listener.accept().await?;
        let output = output.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            show(server, client, &request, &output);
            async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!("{server}\n"))))) }
        });
        tokio::spawn(async move {
            // An error means that a client has left early.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// Logs a request as a server behind a balancer does: the client and the host are in the balancer's headers.
fn show(server: SocketAddr, peer: SocketAddr, request: &Request<Incoming>, output: &Output) {
    let header = |name: &str| request.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let time = rfc3339(SystemTime::now());
    let client = header("x-real-ip").unwrap_or_else(|| peer.ip().to_string().into());
    let headers: Vec<String> = ["Host", "X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto"]
        .iter()
        .map(|name| format!("{name}: {}", header(name).unwrap_or("-".into())))
        .collect();
    let (request, headers) = (format!("{} {}  from {client}", request.method(), request.uri()), headers.join(", "));
    output.line(format_args!("server {server}  {time}  {}\n    {}", escaped(&request), escaped(&headers)));
}

/// Sends the GETs one after the other, each on its own connection, and counts the answers of each server.
fn send(requests: u32, balancer: &SocketAddr, servers: &[SocketAddr], output: &Output) -> io::Result<[u32; 2]> {
    let mut shares = [0, 0];
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        for number in 1..=requests {
            let (_, body) = client::send_request(&balancer.to_string(), Ask::new(Method::GET, "/"), None).await?;
            let answer = String::from_utf8_lossy(&body);
            let by = servers.iter().position(|server| answer.trim_end() == server.to_string());
            let by = by.ok_or_else(|| io::Error::other(format!("an answer from neither server: {answer}")))?;
            output.line(format_args!("GET {number:>4}  answered by {}", servers[by]));
            shares[by] += 1;
        }
        Ok(shares)
    })
}
