//! Pools that a listener and its routes name.

use crate::config::file::File;
use crate::config::file::listener::ListenerSpec;
use crate::config::yaml::listed;

use super::block::Block;

/// The listener's pool. If there is only one, it need not be named.
pub fn build_pool_name(spec: &ListenerSpec, file: &File, block: &mut Block<'_>) -> Option<String> {
    if let Some(pool) = &spec.pool {
        check_pool("pool", pool, file, block);
        return Some(pool.clone());
    }
    // In the long form, a listener with routes and no pool refuses clients without a route.
    if !spec.routes.is_empty() && !block.report.short_form {
        return None;
    }
    if file.pools.len() == 1 {
        return file.pools.keys().next().cloned();
    }
    if file.pools.is_empty() {
        let message = "no backends configured; add `backends: [127.0.0.1:3001]` or give --backend 127.0.0.1:3001";
        block.report.problem("backends", message);
    } else if !block.has_problem_in("routes") {
        let known = listed(file.pools.keys());
        block.problem("pool", format!("is missing: choose one of the pools: {known}"));
    }
    None
}

/// Reports a name that no pool has, unless the pool is missing because of a problem that was reported already.
pub fn check_pool(key: &str, name: &str, file: &File, block: &mut Block<'_>) {
    let is_reported = |path: &str| block.report.knows_problem_at(path);
    if !file.pools.contains_key(name) && !is_reported("pools") && !is_reported(&format!("pools.{name}")) {
        let known = listed(file.pools.keys());
        block.problem(key, format!("there is no pool `{name}`; the pools are: {known}"));
    }
}
