//! Every keyword of HAProxy that is known, and what becomes of it. Those of several words have a `_` between them.

use crate::import::treatment::Treatment::{Changes, Harmless, Partly, Translated};
use crate::import::treatment::{Row, row};

const OWN_PROCESS: &str = "how the process runs is up to who starts it";
const OWN_LOG: &str = "lb logs to where its `log` keys say, in its own format";
const OWN_SOCKETS: &str = "lb chooses how it waits and moves bytes";
const MONITORED: &str = "the admin server has metrics, health and a status page";
const BY_CONTENT: &str = "lb decides nothing by a request's content";
const RESPONSES: &str = "responses pass with the backend's own headers";
const TABLES: &str = "lb keeps no tables of clients but those of `per_client` and `source_hash`";
const TLS_DETAIL: &str = "it belongs to TLS: rustls has its own, safe choice";

/// Keywords of all sections.
pub const KEYWORDS: &[Row] = &[
    // What is translated.
    row("global defaults frontend backend listen", Translated("listeners, pools")),
    row("bind", Translated("listeners.*.bind")),
    row("mode", Translated("listeners.*.mode")),
    row(
        "default_backend use_backend",
        Translated("listeners.*.pool, listeners.*.routes (by req.ssl_sni, req.ssl_alpn, req.payload, req.len)"),
    ),
    row("acl", Translated("conditions by src and req.ssl_sni")),
    row(
        "tcp-request",
        Partly("listeners.*.allow and deny (accept, reject by src)", "clients are let in by their address alone"),
    ),
    row(
        "http-request",
        Partly("listeners.*.allow and deny (deny by src), http.set_headers (on all requests)", BY_CONTENT),
    ),
    row("server server-template default-server dispatch", Translated("pools.*.backends")),
    row("balance", Translated("pools.*.policy")),
    row("stick stick-table", Translated("pools.*.policy: source_hash (stick on src)")),
    row("retries option_redispatch", Translated("pools.*.attempts")),
    row("maxconn", Translated("max_connections, listeners.*.max_connections")),
    row("source", Translated("pools.*.source")),
    row("timeout_connect contimeout", Translated("pools.*.connect_timeout")),
    row(
        "timeout_client timeout_server timeout_tunnel clitimeout srvtimeout",
        Translated("listeners.*.timeouts.idle, http.timeouts.response_header"),
    ),
    row("timeout_client-fin timeout_server-fin", Translated("listeners.*.timeouts.half_closed")),
    row("timeout_http-request", Translated("listeners.*.timeouts.client_header")),
    row("timeout_http-keep-alive", Translated("listeners.*.http.timeouts.keep_alive")),
    row("timeout_queue", Translated("pools.*.queue.timeout")),
    row("timeout_check", Translated("pools.*.health_check.timeout")),
    row(
        "option_httpchk http-check option_tcp-check tcp-check option_mysql-check option_pgsql-check \
         option_redis-check option_smtpchk option_ldap-check option_ssl-hello-chk",
        Translated("pools.*.health_check"),
    ),
    row("option_forwardfor", Translated("listeners.*.http.set_headers")),
    row("option_allbackups", Translated("backup: true for all backups, in place of ranks")),
    row("option_tcpka option_clitcpka option_srvtcpka", Harmless("TCP keep-alive is on in any case")),
    row("stats monitor-uri", Translated("admin.bind, for a proxy that has nothing else")),
    row("nameserver resolvers hold", Translated("pools.*.resolve")),
    row("nbthread nbproc", Translated("workers")),
    row("hard-stop-after", Translated("drain.timeout")),
    row("grace", Translated("drain.grace")),
    row("ca-base crt-base", Translated("files of TLS")),
    row("setenv presetenv", Translated("values within the file")),
    row("disabled enabled", Translated("a disabled proxy is left out")),
    row(
        "http-reuse option_http-server-close option_httpclose option_forceclose",
        Translated("http.backend_keep_alive.idle_connections: 0, where connections to servers are closed"),
    ),
    // What nobody misses.
    row(
        "daemon user group uid gid chroot pidfile ulimit-n master-worker mworker-max-reloads cpu-map \
         cpu-policy thread-groups numa-cpu-mapping nosplice noepoll nopoll nokqueue noevports noreuseport \
         nogetaddrinfo node description id quiet debug zero-warning set-dumpable unsetenv resetenv localpeer \
         insecure-fork-wanted insecure-setuid-wanted strict-limits wurfl-data-file 51degrees-data-file \
         bind-process process-vary hard-stop close-spread-time pp2-never-send-local max-spread-checks \
         spread-checks busy-polling limited-quic harden.reject-privileged-ports.tcp \
         expose-experimental-directives expose-deprecated-directives h1-case-adjust h1-case-adjust-file \
         server-state-base server-state-file load-server-state-from-file server-state-file-name default-path \
         email-alert",
        Harmless(OWN_PROCESS),
    ),
    row(
        "log log-send-hostname log-tag log-format log-format-sd error-log-format option_httplog option_tcplog \
         option_dontlognull option_dontlog-normal option_logasap option_log-separate-errors \
         option_log-health-checks option_socket-stats option_httpslog capture declare unique-id-format no_log \
         option_clf",
        Harmless(OWN_LOG),
    ),
    row(
        "option_splice-auto option_splice-request option_splice-response option_tcp-smart-accept \
         option_tcp-smart-connect option_nolinger option_http-use-htx option_http-no-delay option_contstats \
         option_http-buffer-request option_prefer-last-server option_idle-close-on-response \
         option_h1-case-adjust-bogus-client option_h1-case-adjust-bogus-server option_http-tunnel \
         option_http-keep-alive option_http-pretend-keepalive option_http-use-proxy-header backlog fullconn \
         maxcompcpuusage maxcomprate maxconnrate maxpipes maxsessrate maxsslrate maxzlibmem hash-type \
         hash-balance-factor timeout_tarpit option_abortonclose option_persist option_independent-streams \
         clitcpka-cnt clitcpka-idle clitcpka-intvl srvtcpka-cnt srvtcpka-idle srvtcpka-intvl \
         max-session-srv-conns unix-bind http-errors guid",
        Harmless(OWN_SOCKETS),
    ),
    row(
        "errorfile errorfiles http-error option_http-ignore-probes",
        Harmless("errors of lb's own have a short text; those of backends pass as they are"),
    ),
    row(
        "accepted_payload_size resolve_retries timeout_resolve timeout_retry parse-resolv-conf",
        Harmless("names are resolved beside the traffic; answers of any size are read"),
    ),
    row(
        "ssl-default-* h2.* httpclient.* ssl-server-verify ssl-dh-param-file ssl-engine ssl-load-extra-files \
         ssl-load-extra-del-ext ssl-mode-async ssl-skip-self-issued-ca ssl-security-level ssl-propquery \
         ssl-provider key-base issuers-chain-path",
        Harmless(TLS_DETAIL),
    ),
    row(
        "peers peer table mailers mailer ring log-forward traces trace log-profile userlist crt-store load \
         program command cache total-max-size max-object-size max-age",
        Harmless("no traffic goes through this section itself"),
    ),
    row("stats-file anonkey", Harmless(MONITORED)),
    // What somebody may miss.
    row(
        "cookie appsession force-persist ignore-persist persist dynamic-cookie-key",
        Changes("lb has no sticky sessions by cookie; `policy: source_hash` keeps a client's backend"),
    ),
    row("compression filter", Changes("responses pass as the backend sends them")),
    row(
        "redirect",
        Changes("lb decides nothing by a request's content; `scheme https` for all is translated: http.redirect"),
    ),
    row(
        "use-server http-after-response monitor monitor-net option_http_proxy option_transparent \
         transparent option_checkcache option_http-restrict-req-hdr-names use-fcgi-app fcgi-app block reqadd \
         reqrep reqirep reqdel reqidel reqallow reqiallow reqdeny reqideny reqtarpit reqitarpit reqpass \
         reqipass",
        Changes(BY_CONTENT),
    ),
    row(
        "http-response rspadd rsprep rspirep rspdel rspidel rspdeny rspideny tcp-response \
         http-send-name-header unique-id-header",
        Changes(RESPONSES),
    ),
    row("errorloc errorloc302 errorloc303", Changes("errors of lb's own are a short text, and no redirect")),
    row("rate-limit", Changes("lb limits connections of a client (`per_client`), not those of a listener in a second")),
    row(
        "option_external-check external-check agent-check option_spop-check option_lb-agent-chk on-error",
        Changes("lb runs no programs; see `health_check` for what it asks"),
    ),
    row(
        "option_accept-invalid-http-request option_accept-invalid-http-response \
         option_accept-unsafe-violations-in-http-request option_accept-unsafe-violations-in-http-response",
        Changes("lb refuses requests that two readers could understand differently"),
    ),
    row("option_originalto", Changes("lb doesn't set X-Original-To")),
    row("lua-load lua-load-per-thread lua-prepend-path", Changes("lb runs no scripts")),
    row("retry-on", Changes("another server is tried only while none took a byte of the request")),
    row("clear", Changes(TABLES)),
    row("tune.*", Harmless("lb chooses how it waits and moves bytes")),
];

/// Parameters of `server`, and of `default-server` and `server-template`.
pub const SERVER_PARAMETERS: &[Row] = &[
    row("check", Translated("pools.*.health_check")),
    row("inter fastinter downinter rise fall port check-ssl check-sni", Translated("pools.*.health_check")),
    row("addr", Translated("check")),
    row("weight", Translated("weight")),
    row("backup", Translated("backup: a rank, as HAProxy uses one backup at a time")),
    row("disabled enabled", Translated("weight: 0 for disabled")),
    row("maxconn maxqueue", Translated("max_connections, pools.*.queue")),
    row("slowstart", Translated("pools.*.slow_start")),
    row("send-proxy send-proxy-v2", Translated("pools.*.send_proxy")),
    row("source", Translated("pools.*.source")),
    row("on-marked-down", Translated("pools.*.on_down: close, for shutdown-sessions")),
    row("on-marked-up", Translated("pools.*.on_return: close_backups")),
    row("observe error-limit", Translated("pools.*.failure_detection")),
    row("resolvers resolve-prefer", Translated("pools.*.resolve")),
    row("ssl verify ca-file crl-file crt sni verifyhost", Translated("pools.*.tls, and TLS of the check")),
    row(
        "init-addr resolve-opts resolve-net check-send-proxy tfo id pool-low-conn pool-max-conn \
         pool-purge-delay non-stick log-proto guid idle-ping max-reuse tcp-ut tcp-md5sig allow-0rtt ssl-reuse \
         tls-tickets ssl-min-ver ssl-max-ver ciphers ciphersuites curves sigalgs force-tlsv12 force-tlsv13 \
         sslv3 tlsv10 check-alpn check-proto set-proxy-v2-tlv-fmt minconn",
        Harmless("lb does it by itself, or has no need of it"),
    ),
    row("cookie", Changes("lb has no sticky sessions by cookie")),
    row("alpn npn proto ws", Changes("lb speaks HTTP/1.1 to backends, or passes TCP bytes")),
    row("send-proxy-v2-ssl send-proxy-v2-ssl-cn proxy-v2-options", Changes("the PROXY header has no fields of TLS")),
    row("agent-check agent-inter agent-addr agent-port agent-send", Changes("lb asks no agents for weights")),
    row(
        "track redir on-error namespace shard socks4 check-via-socks4 ca-names check-pool-conn-name \
         usesrc interface quic-cc-algo ca-verify-file crl-verify-file",
        Changes("lb has no such function"),
    ),
];

/// Parameters of `bind`.
pub const BIND_PARAMETERS: &[Row] = &[
    row("accept-proxy", Translated("proxy_protocol: required")),
    row("v4v6 v6only", Translated("bind")),
    row("maxconn", Translated("max_connections")),
    row(
        "name id process thread shards backlog mss tfo defer-accept user group mode uid gid level \
         severity-output nice tcp-ut expose-fd label guid-prefix default-crt tcp-md5sig guid",
        Harmless("it has no part in what clients see"),
    ),
    row(
        "ssl crt crt-list ca-file verify alpn crl-file ssl-min-ver force-tlsv13 no-tlsv12 strict-sni",
        Translated("listeners.*.tls"),
    ),
    row(
        "npn ciphers ciphersuites curves ecdhe no-sslv3 no-tlsv10 no-tlsv11 no-tls-tickets prefer-client-ciphers \
         tls-ticket-keys allow-0rtt ocsp-update sigalgs client-sigalgs",
        Harmless(TLS_DETAIL),
    ),
    row(
        "no-tlsv13 force-tlsv12 force-tlsv11 force-tlsv10 force-sslv3 ssl-max-ver",
        Changes("lb speaks TLS 1.2 and 1.3, or 1.3 alone"),
    ),
    row(
        "generate-certificates ca-sign-file ca-sign-pass crt-ignore-err ca-ignore-err ca-verify-file",
        Changes("lb has no such function"),
    ),
    row("accept-netscaler-cip transparent interface namespace proto quic-socket", Changes("lb has no such function")),
];

/// Parameters with values: how many words follow.
pub fn words_after(parameter: &str) -> usize {
    const NONE: &str = "check backup disabled enabled send-proxy send-proxy-v2 send-proxy-v2-ssl send-proxy-v2-ssl-cn \
        check-send-proxy check-ssl check-via-socks4 ssl no-ssl agent-check non-stick stick tfo allow-0rtt \
        accept-proxy v4v6 v6only defer-accept transparent strict-sni prefer-client-ciphers generate-certificates \
        ssl-reuse no-ssl-reuse tls-tickets no-tls-tickets no-check no-backup no-send-proxy no-verifyhost \
        no-tlsv10 no-tlsv11 no-tlsv12 no-tlsv13 no-sslv3 sslv3 tlsv10 tlsv11 tlsv12 force-tlsv10 force-tlsv11 \
        force-tlsv12 force-tlsv13 force-sslv3 ca-sign-none no-agent-check";
    usize::from(!NONE.split_whitespace().any(|name| name == parameter))
}
