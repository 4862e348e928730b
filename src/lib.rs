//! `lb`: a layer-4 TCP load balancer that can inject HTTP/1 headers.
//!
//! The modules stand on floors, and one imports only from lower floors (ARCHITECTURE.md; checked by a test):
//! `cli` > `server` > `admin`, `proxy` > `balancer` > `backends`, `relay`, `access_log` > `config` > `protocol`, `net`,
//! `lifecycle`, `telemetry`, `tls`, `file_watch`. The macro of `labels` is for all of them.

#[macro_use]
mod labels;

pub(crate) mod access_log;
pub(crate) mod admin;
pub(crate) mod backends;
pub(crate) mod balancer;
pub mod cli;
pub(crate) mod config;
pub(crate) mod file_watch;
pub(crate) mod import;
pub(crate) mod lifecycle;
pub(crate) mod net;
pub(crate) mod protocol;
pub(crate) mod proxy;
#[cfg(test)]
mod reference;
pub(crate) mod relay;
pub(crate) mod server;
pub(crate) mod telemetry;
pub(crate) mod tls;

/// What the benches, and the fuzz targets of configurations and TLS, use of the modules. No interface for anybody else.
#[doc(hidden)]
pub mod bench {
    pub mod access_log {
        pub use crate::access_log::{Attempt, Entry};
    }
    pub mod backends {
        pub use crate::backends::{AdminState, Endpoint, Pool};
    }
    pub mod balancer {
        pub use crate::balancer::{Balancer, PickRequest};
    }
    pub mod config {
        pub use crate::config::{Loaded, Policy, PoolConfig, Problems, RelayMode, Source};
    }
    pub mod import {
        pub use crate::import::{Format, Import, MAX_BYTES, Surroundings};
    }
    pub mod lifecycle {
        pub use crate::lifecycle::{ConnectionIds, Cutter, IdleTimeouts};
    }
    pub mod net {
        pub use crate::net::{
            DialOptions, ListenAddress, ListenSocket, Purpose, Source, Target, TcpOptions, Transport,
            bind_listen_sockets, dial, local_address,
        };
    }
    pub mod relay {
        pub use crate::relay::{Limits, Meter, Pipes, RelayResources, Start, Tally, WorkerPipe, run};
    }
    pub mod telemetry {
        pub use crate::telemetry::ByteCounters;
    }
    pub mod tls {
        pub use crate::tls::{MAX_OVERHEAD_BYTES, MAX_PLAINTEXT_BYTES, Records, Session};
    }
}
