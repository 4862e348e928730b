//! Why connections end, are refused or can't be accepted: labels of counters, and causes and reasons in the access log.

labels! {
    /// Why a connection ended. Every accepted connection has exactly one.
    Cause {
        /// The client ended first, and both directions were delivered.
        ClientClosed = "client_closed",
        /// The backend ended first, and both directions were delivered.
        BackendClosed = "backend_closed",
        /// The client reset, or vanished.
        ClientReset = "client_reset",
        /// The backend reset, or vanished.
        BackendReset = "backend_reset",
        /// No byte moved in either direction for the idle timeout.
        IdleTimeout = "idle_timeout",
        /// The client had sent something, and no byte of an answer came for the first-byte timeout.
        FirstByteTimeout = "first_byte_timeout",
        /// One side had ended, and no byte moved for the half-closed timeout.
        HalfClosedTimeout = "half_closed_timeout",
        /// A health check took its backend out (`on_down: close`).
        BackendDown = "backend_down",
        /// Its backend is a backup, and one of a lower rank came back (`on_return: close_backups`).
        BackupClosed = "backup_closed",
        /// An operator ended it (`lb kill`).
        Operator = "operator",
        /// An operator removed its backend at once (`lb backend remove --force`).
        BackendRemoved = "backend_removed",
        /// No backend that was tried could be connected to.
        ConnectFailed = "connect_failed",
        /// The pool had no backend to try.
        NoBackend = "no_backend",
        /// Refused by a rule or limit.
        Rejected = "rejected",
        /// Mode http: the drain closed it between two requests.
        Drained = "drained",
        /// Mode http: closed between two requests, as a reload has given the listener other settings.
        Reloaded = "reloaded",
        /// Cut at the end of the drain time.
        DrainForced = "drain_forced",
        /// The balancer's fault: no file descriptor, no local port, a bug.
        Internal = "internal",
    }
}

labels! {
    /// Why an accepted connection was refused.
    Rejection {
        /// The listener's `deny` or `allow`.
        Denied = "denied",
        /// The listener's limit of connections for each client.
        ClientMaxConnections = "client_max_connections",
        /// The listener's limit of new connections a second for each client.
        ClientRate = "client_rate",
        /// A peer that may not send a PROXY header connected to a listener that requires one.
        UntrustedProxy = "untrusted_proxy",
        /// The PROXY header is malformed, or did not come in time.
        ProxyHeader = "proxy_header",
        /// The TLS ClientHello is malformed, or did not come in time.
        ClientHello = "client_hello",
        /// The TLS handshake failed.
        TlsHandshake = "tls_handshake",
        /// What the client sent decides for no route yet, and no more came in time.
        FirstBytes = "first_bytes",
        /// No route fits the client, and there is no pool for the rest.
        NoRoute = "no_route",
        /// A route leads to the client's server name, which doesn't resolve.
        ServerUnresolved = "server_unresolved",
        /// A route leads to the client's server name, which has only addresses of this machine or of its links.
        ServerLocal = "server_local",
        /// A route leads to the client's server name, and too many others are being looked up.
        ServerLookups = "server_lookups",
        /// The global limit of connections.
        MaxConnections = "max_connections",
        /// The listener's limit of connections.
        ListenerMaxConnections = "listener_max_connections",
        /// Every backend has as many connections as allowed, and there is no queue.
        BackendsFull = "backends_full",
        /// The queue for room on the backends is full.
        QueueFull = "queue_full",
        /// There was no room on the backends within the queue's timeout.
        QueueTimeout = "queue_timeout",
        /// The client left while it waited for room.
        LeftQueue = "left_queue",
    }
}

labels! {
    /// Why accept failed.
    AcceptError {
        /// The process or the system has no file descriptor left (EMFILE, ENFILE).
        NoFile = "no_file",
        /// The kernel has no memory for a socket (ENOBUFS, ENOMEM).
        NoMemory = "no_memory",
        /// Anything else.
        Other = "other",
    }
}
