//! The scenario that it all began with: two HTTP servers, ten GETs by curl, one server dies and comes back.

use std::net::SocketAddr;

use crate::support::{Folder, Lb, get, output_of, python_http_server, python_http_server_at, required, wait_until};

/// Ten GETs by curl, one process each: who answered.
fn curl_ten_times(address: SocketAddr) -> Vec<String> {
    let curl = required("curl");
    (0..10).map(|_| output_of(&curl, &["-sSf", "--max-time", "10", &format!("http://{address}/")])).collect()
}

#[test]
fn ten_gets_alternate_and_a_dead_server_is_missed_by_nobody() {
    let folder = Folder::new();
    let one = python_http_server(folder.path(), "one");
    let two = python_http_server(folder.path(), "two");
    let lb = Lb::in_front_of(&[one.address(), two.address()])
        .set("failure_detection.ejection", "500ms")
        .set("connect_timeout", "1s")
        .start();
    assert_eq!(curl_ten_times(lb.address()), ["one", "two"].repeat(5));

    let address = two.stop();
    for number in 1..=100 {
        assert_eq!(get(lb.address(), "/").body, "one", "GET {number} after the server's death");
    }
    assert_eq!(lb.state_of(address), "ejected");

    let two = python_http_server_at(address, folder.path(), "two");
    wait_until("the server is used again", || get(lb.address(), "/").body == "two");
    assert_eq!(lb.state_of(address), "up");
    let again = curl_ten_times(lb.address());
    assert_eq!(again.iter().filter(|answer| *answer == "two").count(), 5, "shared equally again: {again:?}");
    drop((one, two));
}
