//! A listener's routes: which pool serves a TLS client, by the server name in its ClientHello.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::config;
use crate::protocol::client_hello::ServerNamePattern;

use super::upstream::Upstream;

/// Patterns and their pools, the best match first.
pub(super) struct Routes(Vec<(ServerNamePattern, Arc<Upstream>)>);

impl Routes {
    pub(super) fn new(routes: &[config::Route], upstream_of: &impl Fn(&str) -> Arc<Upstream>) -> Self {
        let mut routes: Vec<_> = routes.iter().map(|route| (route.sni.clone(), upstream_of(&route.pool))).collect();
        routes.sort_by_key(|(pattern, _)| Reverse(pattern.rank()));
        Self(routes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn find(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.0.iter().find(|(pattern, _)| pattern.matches(name)).map(|(_, upstream)| upstream)
    }
}
