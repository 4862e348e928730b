"""Envoy's configuration, as JSON (which it reads like YAML)."""

import json

TYPE = "type.googleapis.com/envoy.extensions"


def text(mode, port, backends):
    """One listener, one static cluster. Defaults that already suit: reuse_port, 1 MiB buffers a connection."""
    return json.dumps(
        {
            "static_resources": {
                "listeners": [
                    {
                        "name": "front",
                        "address": socket_address("127.0.0.1", port),
                        "tcp_backlog_size": 4096,
                        "filter_chains": [{"filters": [tcp_proxy() if mode == "tcp" else http_manager()]}],
                    }
                ],
                "clusters": [cluster(backends)],
            },
            # Nobody reads its many counters here; not creating them is the documented saving.
            "stats_config": {"stats_matcher": {"reject_all": True}},
        },
        indent=1,
    )


def socket_address(host, port):
    return {"socket_address": {"address": host, "port_value": int(port)}}


def tcp_proxy():
    return {
        "name": "tcp",
        "typed_config": {
            "@type": f"{TYPE}.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "front",
            "cluster": "backends",
            "idle_timeout": "3600s",
        },
    }


def http_manager():
    """Host is passed on; the other three are set by name, since `use_remote_address` puts an address of this
    machine's own in X-Forwarded-For where the client comes from loopback."""
    client = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"
    headers = {"X-Real-IP": client, "X-Forwarded-For": client, "X-Forwarded-Proto": "http"}
    return {
        "name": "http",
        "typed_config": {
            "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "front",
            "codec_type": "HTTP1",
            "generate_request_id": False,
            "route_config": {
                "virtual_hosts": [
                    {
                        "name": "all",
                        "domains": ["*"],
                        "request_headers_to_add": [
                            {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
                            for key, value in headers.items()
                        ],
                        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backends", "timeout": "0s"}}],
                    }
                ]
            },
            "http_filters": [
                {
                    "name": "router",
                    "typed_config": {
                        "@type": f"{TYPE}.filters.http.router.v3.Router",
                        "suppress_envoy_headers": True,
                    },
                }
            ],
        },
    }


def cluster(backends):
    endpoints = [
        {"endpoint": {"address": socket_address(*address.rsplit(":", 1))}} for address in backends
    ]
    # The default circuit breaker stops at 1,024 connections: too few for the idle load.
    thresholds = {"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}
    return {
        "name": "backends",
        "type": "STATIC",
        "connect_timeout": "2s",
        "lb_policy": "ROUND_ROBIN",
        "circuit_breakers": {"thresholds": [thresholds]},
        "load_assignment": {
            "cluster_name": "backends",
            "endpoints": [{"lb_endpoints": endpoints}],
        },
    }
