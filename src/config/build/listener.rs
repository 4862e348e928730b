//! The rules of a listener.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use crate::config::address::BindAddress;
use crate::config::file::File;
use crate::config::file::listener::{ListenerSpec, ModeSpec};
use crate::config::file::units::OneOrMany;
use crate::config::listener::{ListenerConfig, Mode, ProxyProtocol};
use crate::lifecycle::ClientLimits;

use super::block::Block;
use super::http::build_http;
use super::pool::build_tcp;
use super::pool_name::build_pool_name;
use super::route::build_routes;
use super::tls_server::build_tls_server;

/// `bound` are the addresses of all listeners so far, each with the path of its key.
pub fn build_listener(
    name: &str,
    spec: &ListenerSpec,
    file: &File,
    bound: &mut HashMap<BindAddress, String>,
    root: &mut Block<'_>,
) -> ListenerConfig {
    let mut block = root.named("listeners", name);
    let bind = build_bind(&spec.bind, bound, &mut block);
    let trusted_proxies = block.networks("trusted_proxies", &spec.trusted_proxies);
    // Both modes' keys are checked in either mode, so that a mistake doesn't show up only when the mode changes.
    let http = build_http(spec, &trusted_proxies, &mut block.inner("http"));
    let routes = build_routes(spec, file, &mut block);
    let mode = match spec.mode {
        ModeSpec::Tcp => Mode::Tcp { routes },
        ModeSpec::Http => Mode::Http(http),
    };
    let pool = build_pool_name(spec, file, &mut block);
    if spec.proxy_protocol != ProxyProtocol::Off && spec.trusted_proxies.is_empty() {
        let message = "is set, but no peer may send a header: list the proxies in front in `trusted_proxies`, such as \
                       [10.0.0.0/8]";
        block.problem("proxy_protocol", message);
    }
    let (allow, deny) = (block.networks("allow", &spec.allow), block.networks("deny", &spec.deny));
    let tls = build_tls_server(spec, &mut block.inner("tls"));
    let mut timeouts = block.inner("timeouts");
    ListenerConfig {
        name: name.to_owned(),
        bind,
        mode,
        pool,
        max_connections: NonZeroUsize::new(spec.max_connections),
        idle_timeout: timeouts.limit("idle", spec.timeouts.idle),
        half_closed_timeout: timeouts.limit("half_closed", spec.timeouts.half_closed),
        client_header_timeout: timeouts.positive("client_header", spec.timeouts.client_header),
        proxy_protocol: spec.proxy_protocol,
        tls,
        trusted_proxies,
        allow,
        deny,
        per_client: ClientLimits {
            max_connections: NonZeroUsize::new(spec.per_client.max_connections),
            connections_per_second: NonZeroUsize::new(spec.per_client.connections_per_second),
        },
        tcp: build_tcp(&spec.tcp),
        access_log: spec.access_log,
    }
}

fn build_bind(bind: &OneOrMany, bound: &mut HashMap<BindAddress, String>, block: &mut Block<'_>) -> Vec<BindAddress> {
    if bind.0.is_empty() {
        block.problem("bind", "is missing: add the address to listen on, such as 0.0.0.0:8080");
    }
    let mut addresses = Vec::new();
    for (index, text) in bind.0.iter().enumerate() {
        let key = if bind.0.len() == 1 { "bind".to_owned() } else { format!("bind[{index}]") };
        let Some(address) = block.parsed::<BindAddress>(&key, text) else { continue };
        if !address.is_chosen_by_kernel()
            && let Some(other) = bound.insert(address.of_socket(), block.path(&key))
        {
            let message = format!("`{text}` is already bound by `{}`; remove one", block.report.shown(&other));
            block.problem(&key, message);
        }
        addresses.push(address);
    }
    addresses
}
