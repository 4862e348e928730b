//! Reloads by the hundred while clients come, go and stay: nobody notices, and nothing is left of them.

use crate::support::{Lb, Load, allow_open_files, free_port, open_files, resident_bytes, wait_until};

/// Malloc's own ups and downs; a reload that kept a listener and a pool (10 KiB in a debug build) would pass it.
const MOST_GROWTH: u64 = 2 << 20;

#[test]
fn a_hundred_reloads_under_load_are_noticed_by_nobody_and_leave_nothing_behind() {
    const SESSIONS: usize = 50;
    allow_open_files(2_000);
    let (one, two) = (Load::server(), Load::server());
    let (web, more) = (free_port(), free_port());
    // Every other reload adds a listener and a backend, and changes the listener, the pool and the first backend.
    let config = |round: usize| {
        let (one, two) = (one.address(), two.address());
        let (idle, weight) = (60 + round, 1 + round % 3);
        let further = [String::new(), format!("  more: {{bind: '{more}'}}\n")][round % 2].clone();
        let backends =
            [format!("'{two}'"), format!("{{address: '{one}', weight: {weight}}}, '{two}'")][round % 2].clone();
        format!(
            "log: {{access: 'off'}}\nlisteners:\n  web: {{bind: '{web}', timeouts: {{idle: {idle}s}}}}\n{further}\
             pools:\n  app: {{backends: [{backends}], connect_timeout: {idle}s}}\n"
        )
    };
    let lb = Lb::with_config(&config(0)).start();
    let warm_up = Load::on(web, 4, SESSIONS);
    for round in 0..20 {
        lb.reload_with(&config(round + 1));
    }
    warm_up.goes_on(200);
    warm_up.end();
    wait_until("no connection is active", || lb.metrics().sum("connections_active", &[]) == 0.0);
    let (files, memory) = (open_files(lb.pid()).others, resident_bytes(lb.pid()));
    let load = Load::on(web, 4, SESSIONS);
    load.goes_on(1);
    for round in 0..100 {
        lb.reload_with(&config(round + 1));
        load.goes_on(2);
    }
    let visits = load.end();
    assert!(visits > 200);
    wait_until("no connection is active", || lb.metrics().sum("connections_active", &[]) == 0.0);
    let metrics = lb.metrics();
    assert_eq!(metrics.sum("connections_rejected_total", &[]), 0.0);
    assert_eq!(metrics.sum("retries_total", &[]), 0.0);
    assert_eq!((lb.reloads("success"), lb.reloads("failure")), (120.0, 0.0));
    wait_until("no more files are open", || open_files(lb.pid()).others <= files);
    let grown = resident_bytes(lb.pid()).saturating_sub(memory);
    assert!(grown < MOST_GROWTH, "100 reloads left {grown} bytes");
}
