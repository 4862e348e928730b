//! Every directive of nginx that is known, and what becomes of it.

use crate::import::treatment::Treatment::{Changes, Harmless, Partly, Translated};
use crate::import::treatment::{Row, row};

const MONITORED: &str = "the admin server has metrics, health and a status page";
const OWN_LOG: &str = "lb logs to where its `log` keys say, in its own format";
const OWN_PROCESS: &str = "how the process runs is up to who starts it";
const OWN_SOCKETS: &str = "lb chooses how it waits and moves bytes";
const BUFFERS: &str = "lb streams, and buffers no whole request or response";
const COMPRESSION: &str = "responses pass as the backend sends them, uncompressed if it doesn't compress";
const CACHE: &str = "lb has no cache: each request goes to a backend";
const STATIC: &str = "lb serves no files";
const OTHER_PROTOCOL: &str = "lb speaks HTTP/1 to backends, or passes TCP bytes";
const REWRITE: &str = "lb changes no URL";
const RESPONSES: &str = "responses pass with the backend's own headers";
const AUTHENTICATION: &str = "lb asks no client who it is";
const RATES: &str = "lb limits connections of a client (`per_client`), not requests or bytes";
const SCRIPTS: &str = "lb runs no scripts";
const TLS_DETAIL: &str = "it belongs to TLS: rustls has its own, safe choice";

/// Directives of all blocks.
pub const DIRECTIVES: &[Row] = &[
    // What is translated.
    row("http stream events server upstream include", Translated("listeners, pools")),
    row(
        "location",
        Partly("listeners.*.pool, for the one that most requests fit", "its requests go where all others go"),
    ),
    row("listen", Translated("listeners.*.bind, listeners.*.proxy_protocol")),
    row("server_name", Translated("the listener's name; $server_name in headers")),
    row("proxy_pass", Translated("listeners.*.pool")),
    row("map", Translated("listeners.*.routes (by what ssl_preread tells); Connection by $http_upgrade")),
    row("ssl_preread", Translated("listeners.*.routes")),
    row("set", Translated("the backend's address in proxy_pass, where the value is fixed")),
    row("proxy_set_header", Translated("listeners.*.http.set_headers")),
    row("proxy_connect_timeout", Translated("pools.*.connect_timeout")),
    row("proxy_read_timeout", Translated("listeners.*.http.timeouts.response_header, listeners.*.timeouts.idle")),
    row("proxy_timeout", Translated("listeners.*.timeouts.idle")),
    row(
        "preread_timeout client_header_timeout proxy_protocol_timeout",
        Translated("listeners.*.timeouts.client_header"),
    ),
    row(
        "keepalive_timeout",
        Translated("listeners.*.http.timeouts.keep_alive; in upstream: http.backend_keep_alive.idle_timeout"),
    ),
    row("keepalive", Translated("listeners.*.http.backend_keep_alive.idle_connections")),
    row("proxy_next_upstream proxy_next_upstream_tries", Translated("pools.*.attempts")),
    row("least_conn ip_hash hash random", Translated("pools.*.policy")),
    row("proxy_protocol", Translated("pools.*.send_proxy")),
    row("proxy_bind", Translated("pools.*.source")),
    row("resolver", Translated("pools.*.resolve, for names that nginx itself resolves again")),
    row("allow deny", Translated("listeners.*.allow, listeners.*.deny")),
    row("limit_conn_zone", Translated("what `limit_conn` counts")),
    row(
        "limit_conn",
        Partly("listeners.*.per_client.max_connections (stream)", "in http it counts requests, lb connections"),
    ),
    row("set_real_ip_from real_ip_header", Translated("listeners.*.trusted_proxies (real_ip_header proxy_protocol)")),
    row("access_log", Translated("listeners.*.access_log, for off")),
    row("large_client_header_buffers", Translated("listeners.*.http.max_header_bytes")),
    row("worker_processes", Translated("workers")),
    row("worker_connections", Translated("max_connections, for all workers together")),
    row("worker_shutdown_timeout", Translated("drain.timeout")),
    row("tcp_nodelay", Translated("listeners.*.tcp.nodelay, pools.*.tcp.nodelay")),
    row(
        "return stub_status",
        Partly(
            "admin.bind, for a server of health and status pages alone; http.redirect, for all requests to https",
            "lb answers no requests itself",
        ),
    ),
    // What nobody misses.
    row(
        "log_format error_log open_log_file_cache log_subrequest log_not_found rewrite_log \
         log_escape_non_ascii",
        Harmless(OWN_LOG),
    ),
    row(
        "user daemon master_process pid lock_file worker_priority worker_cpu_affinity worker_rlimit_nofile \
         worker_rlimit_core working_directory env load_module pcre_jit timer_resolution debug_points \
         ssl_engine thread_pool worker_aio_requests worker_rlimit_sigpending",
        Harmless(OWN_PROCESS),
    ),
    row(
        "use multi_accept accept_mutex accept_mutex_delay debug_connection devpoll_events kqueue_changes \
         sendfile sendfile_max_chunk tcp_nopush aio aio_write directio directio_alignment postpone_output \
         reset_timedout_connection lingering_close lingering_time lingering_timeout proxy_socket_keepalive \
         read_ahead output_buffers chunked_transfer_encoding msie_padding msie_refresh max_ranges \
         proxy_send_lowat disable_symlinks",
        Harmless(OWN_SOCKETS),
    ),
    row(
        "proxy_buffering proxy_request_buffering proxy_buffers proxy_buffer_size proxy_busy_buffers_size \
         proxy_max_temp_file_size proxy_temp_file_write_size proxy_temp_path client_body_buffer_size \
         client_header_buffer_size client_body_temp_path client_body_in_file_only \
         client_body_in_single_buffer connection_pool_size request_pool_size preread_buffer_size \
         proxy_downstream_buffer proxy_upstream_buffer fastcgi_temp_path uwsgi_temp_path scgi_temp_path \
         variables_hash_max_size variables_hash_bucket_size server_names_hash_max_size \
         server_names_hash_bucket_size map_hash_max_size map_hash_bucket_size types_hash_max_size \
         types_hash_bucket_size proxy_headers_hash_max_size proxy_headers_hash_bucket_size \
         subrequest_output_buffer_size",
        Harmless(BUFFERS),
    ),
    row(
        "client_max_body_size",
        Harmless("lb has no limit of a body's size: what nginx lets pass passes, and larger ones too"),
    ),
    row(
        "client_body_timeout send_timeout proxy_send_timeout",
        Harmless("`timeouts.idle` bounds the time without a byte in either direction"),
    ),
    row(
        "keepalive_requests keepalive_time keepalive_disable keepalive_min_timeout",
        Harmless("a kept connection serves any number of requests"),
    ),
    row("proxy_http_version", Harmless("lb speaks HTTP/1.1 to backends")),
    row(
        "types default_type charset charset_types source_charset override_charset etag if_modified_since \
         open_file_cache open_file_cache_valid open_file_cache_min_uses open_file_cache_errors index \
         autoindex autoindex_exact_size autoindex_localtime autoindex_format server_name_in_redirect \
         port_in_redirect absolute_redirect server_tokens fastcgi_buffers fastcgi_buffer_size \
         recursive_error_pages uwsgi_buffers",
        Harmless("it concerns pages that nginx itself makes"),
    ),
    row(
        "merge_slashes ignore_invalid_headers underscores_in_headers",
        Harmless("paths and headers pass as the client sent them"),
    ),
    row("status_zone zone api status state", Harmless(MONITORED)),
    row("resolver_timeout", Harmless("names are resolved beside the traffic; no client waits for it")),
    row("proxy_next_upstream_timeout", Harmless("`connect_timeout` and `attempts` bound the time of all attempts")),
    row("proxy_half_close", Harmless("each direction ends by itself, always")),
    row("proxy_requests proxy_responses", Harmless("it concerns UDP")),
    row("real_ip_recursive", Harmless("it only says how real_ip_header is read")),
    row(
        "limit_conn_log_level limit_conn_status limit_req_log_level limit_req_status limit_req_dry_run \
         limit_conn_dry_run",
        Harmless("lb resets the connections of a client that has too many, and counts them"),
    ),
    row("limit_req_zone limit_zone", Harmless("it only defines what `limit_req` uses")),
    row(
        "proxy_cache_path proxy_cache_key proxy_cache_valid proxy_cache_methods proxy_cache_min_uses \
         proxy_cache_lock proxy_cache_lock_timeout proxy_cache_lock_age proxy_cache_use_stale \
         proxy_cache_bypass proxy_no_cache proxy_cache_revalidate proxy_cache_background_update \
         proxy_cache_convert_head proxy_cache_purge proxy_store_access proxy_cache_max_range_offset",
        Harmless("it only says how `proxy_cache` works"),
    ),
    row(
        "gzip_types gzip_comp_level gzip_min_length gzip_proxied gzip_vary gzip_buffers gzip_http_version \
         gzip_disable gzip_window gzip_hash gzip_no_buffer brotli_comp_level brotli_types brotli_min_length \
         brotli_buffers brotli_window zstd_comp_level zstd_types zstd_min_length",
        Harmless("it only says how `gzip on` works"),
    ),
    row(
        "ssl_session_cache ssl_session_timeout ssl_session_tickets ssl_session_ticket_key ssl_buffer_size \
         ssl_dhparam ssl_ecdh_curve ssl_ciphers ssl_prefer_server_ciphers ssl_conf_command ssl_stapling \
         ssl_stapling_verify ssl_stapling_file ssl_trusted_certificate ssl_early_data ssl_handshake_timeout \
         proxy_ssl_session_reuse proxy_ssl_ciphers proxy_ssl_protocols proxy_ssl_verify_depth \
         proxy_ssl_conf_command ssl_verify_depth ssl_reject_handshake http2_max_concurrent_streams \
         http2_body_preread_size http2_chunk_size http2_recv_timeout http2_idle_timeout http2_max_field_size \
         http2_max_header_size http2_max_requests http2_recv_buffer_size http2_push_preload http3 quic_retry \
         quic_gso",
        Harmless(TLS_DETAIL),
    ),
    row(
        "gzip_* brotli_* zstd_* proxy_cache_* fastcgi_cache_* limit_req_* limit_conn_* ssl_* proxy_ssl_* \
         http2_* quic_* sub_filter_* charset_* check_* rtmp_* autoindex_* open_file_* aio_* \
         vhost_traffic_status*",
        Harmless("it only says how a function works that is listed if it is on"),
    ),
    // What somebody may miss.
    row("gzip gunzip gzip_static brotli brotli_static zstd image_filter", Changes(COMPRESSION)),
    row("proxy_cache proxy_store fastcgi_cache slice", Changes(CACHE)),
    row(
        "root alias try_files random_index dav_methods create_full_put_path dav_access mp4 flv ssi \
         xslt_stylesheet concat empty_gif",
        Changes(STATIC),
    ),
    row(
        "fastcgi_pass uwsgi_pass scgi_pass grpc_pass memcached_pass fastcgi_param uwsgi_param fastcgi_index \
         fastcgi_split_path_info grpc_set_header grpc_read_timeout grpc_send_timeout fastcgi_read_timeout \
         uwsgi_read_timeout rtmp mail",
        Changes(OTHER_PROTOCOL),
    ),
    row("rewrite", Changes("paths pass unchanged; of all requests to https it is translated: http.redirect")),
    row("proxy_method proxy_set_body break", Changes(REWRITE)),
    row(
        "fastcgi_* uwsgi_* scgi_* grpc_* memcached_*",
        Harmless("it belongs to a protocol of backends, which is listed"),
    ),
    row("*_by_lua *_by_lua_block *_by_lua_file lua_* js_* perl_* modsecurity* passenger* pagespeed*", Changes(SCRIPTS)),
    row(
        "auth_* secure_link* geoip* more_* image_filter* xslt_* dav_* otel_* opentracing* zipkin*",
        Changes("lb has no such function"),
    ),
    row("if", Changes("lb decides nothing by a request's content")),
    row(
        "add_header add_trailer expires proxy_hide_header proxy_pass_header proxy_ignore_headers \
         proxy_cookie_domain proxy_cookie_path proxy_cookie_flags more_set_headers more_clear_headers \
         more_set_input_headers sub_filter sub_filter_once sub_filter_types sub_filter_last_modified \
         addition_types add_before_body add_after_body userid",
        Changes(RESPONSES),
    ),
    row(
        "proxy_redirect",
        Changes("Location and Refresh pass as the backend sends them; harmless: `default` with the client's Host"),
    ),
    row(
        "error_page proxy_intercept_errors",
        Changes("errors of backends pass as they are, lb's own have a short text"),
    ),
    row(
        "auth_basic auth_basic_user_file auth_request auth_request_set auth_jwt satisfy secure_link \
         secure_link_md5 valid_referers limit_except internal",
        Changes(AUTHENTICATION),
    ),
    row("limit_req limit_rate limit_rate_after proxy_limit_rate proxy_upload_rate proxy_download_rate", Changes(RATES)),
    row(
        "geo split_clients geoip_country geoip_city geoip2 perl perl_set js_import js_include js_path js_set \
         js_content js_access js_preread js_filter js_header_filter js_body_filter lua_package_path \
         lua_package_cpath lua_shared_dict lua_code_cache set_by_lua_block set_by_lua set_by_lua_file \
         access_by_lua_block access_by_lua access_by_lua_file content_by_lua_block content_by_lua \
         content_by_lua_file rewrite_by_lua_block rewrite_by_lua rewrite_by_lua_file init_by_lua_block \
         init_by_lua init_by_lua_file init_worker_by_lua_block init_worker_by_lua_file \
         header_filter_by_lua_block header_filter_by_lua body_filter_by_lua_block log_by_lua_block \
         log_by_lua_file balancer_by_lua_block balancer_by_lua_file preread_by_lua_block \
         ssl_certificate_by_lua_block modsecurity modsecurity_rules_file modsecurity_rules",
        Changes(SCRIPTS),
    ),
    row(
        "sticky sticky_cookie_insert ntlm queue least_time health_check check match check_http_send \
         check_http_expect_alive fair",
        Changes("the translation knows no such choice of a backend or check; see `policy` and `health_check`"),
    ),
    row(
        "mirror mirror_request_body proxy_ignore_client_abort post_action proxy_force_ranges \
         proxy_pass_request_headers proxy_pass_request_body echo",
        Changes("each request goes to one backend, with all that the client sent"),
    ),
    row(
        "ssl_certificate ssl_certificate_key ssl_protocols ssl_client_certificate ssl_verify_client ssl_crl ssl_alpn",
        Translated("listeners.*.tls"),
    ),
    row("ssl_password_file ssl_ocsp ssl", Changes("lb has no such function; TLS is ended by `listen … ssl`")),
    row("http2 http2_push", Harmless("clients speak HTTP/1.1, as those of HTTP/2 can")),
    row(
        "proxy_ssl proxy_ssl_verify proxy_ssl_trusted_certificate proxy_ssl_server_name proxy_ssl_name \
         proxy_ssl_certificate proxy_ssl_certificate_key proxy_ssl_crl",
        Translated("pools.*.tls"),
    ),
    row("proxy_ssl_password_file", Changes("lb reads keys without a password")),
    row("pass mgmt otel_exporter otel_trace opentracing", Changes("lb has no such function")),
];

/// Parameters of `server` in an upstream.
pub const SERVER_PARAMETERS: &[Row] = &[
    row("weight", Translated("weight, 256 at most")),
    row("max_conns", Translated("max_connections, exact over all workers")),
    row("max_fails fail_timeout", Translated("pools.*.failure_detection: of all servers of the pool")),
    row("backup", Translated("backup: true")),
    row("down drain", Translated("weight: 0")),
    row("slow_start", Translated("pools.*.slow_start")),
    row("service", Translated("address: srv:_service._tcp.name")),
    row("resolve", Translated("nothing: lb resolves all names again")),
    row("route sid id", Changes("lb has no sticky sessions by cookie")),
];

/// Parameters of `listen`.
pub const LISTEN_PARAMETERS: &[Row] = &[
    row("proxy_protocol", Translated("proxy_protocol: required")),
    row("so_keepalive", Translated("tcp.keepalive")),
    row("default_server default", Translated("which server of an address is translated")),
    row("ipv6only", Translated("bind: *:port, for off")),
    row(
        "reuseport backlog rcvbuf sndbuf deferred bind fastopen accept_filter setfib",
        Harmless("lb has a socket for each worker, and the system's buffers"),
    ),
    row("http2 spdy", Harmless("clients speak HTTP/1.1, as those of HTTP/2 can")),
    row("ssl", Translated("listeners.*.tls")),
    row("quic udp", Changes("lb passes on TCP")),
];
