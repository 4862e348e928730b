//! `--watch`: the file is followed, however it is replaced.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::{Folder, Lb, Server, greeting, wait_until};

fn yaml(server: &Server) -> String {
    format!("listen: 127.0.0.1:0\nbackends: ['{}']\n", server.address())
}

/// Waits until a reload has brought the backend of this name.
#[track_caller]
fn wait_for_backend(lb: &Lb, name: &str) {
    wait_until(&format!("{name} serves"), || greeting(lb.address()) == name);
}

#[test]
fn a_watched_file_that_is_written_anew_is_followed_and_a_broken_one_is_not() {
    let servers = ["one", "two", "three"].map(Server::greeting);
    let lb = Lb::with_config(&yaml(&servers[0])).with(&["--watch"]).start();
    assert_eq!(greeting(lb.address()), "one");
    lb.rewrite(&yaml(&servers[1]));
    wait_for_backend(&lb, "two");
    lb.rewrite("listen: nowhere\n");
    wait_until("the failure is shown", || lb.reloads("failure") == 1.0);
    assert_eq!(lb.api("/api/v1/status")["last_reload"]["result"], "failure");
    assert_eq!(greeting(lb.address()), "two");
    lb.rewrite(&yaml(&servers[2]));
    wait_for_backend(&lb, "three");
    assert_eq!((lb.reloads("success"), lb.reloads("failure")), (2.0, 1.0), "each change once");
}

#[test]
fn a_watched_file_that_another_is_renamed_over_is_followed() {
    let (one, two) = (Server::greeting("one"), Server::greeting("two"));
    let lb = Lb::with_config(&(yaml(&one) + "watch: true\n")).start();
    let fresh = lb.folder().join("fresh.yaml");
    fs::write(&fresh, yaml(&two) + "watch: true\n").unwrap();
    fs::rename(&fresh, lb.config_file()).unwrap();
    wait_for_backend(&lb, "two");
    // Gone for a while, as while an editor saves: nothing happens until it is there again.
    fs::remove_file(lb.config_file()).unwrap();
    fs::write(&fresh, yaml(&one) + "watch: false\n").unwrap();
    fs::rename(&fresh, lb.config_file()).unwrap();
    wait_for_backend(&lb, "one");
    assert_eq!(lb.reloads("failure"), 0.0);
}

/// What kubelet does with a ConfigMap: the file is a link to `..data/lb.yaml`, and `..data` a link to a folder, which
/// is replaced by a rename.
fn publish(volume: &Path, version: &str, yaml: &str) {
    let folder = volume.join(version);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("lb.yaml"), yaml).unwrap();
    symlink(version, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
}

#[test]
fn a_watched_config_map_is_followed_through_its_links() {
    let (one, two) = (Server::greeting("one"), Server::greeting("two"));
    let volume = Folder::new();
    publish(volume.path(), "..2026_01_01", &yaml(&one));
    symlink("..data/lb.yaml", volume.path().join("lb.yaml")).unwrap();
    let file = volume.path().join("lb.yaml").display().to_string();
    let lb = Lb::with_arguments(&["-c", &file, "--watch", "--admin", "127.0.0.1:0"]).start();
    assert_eq!(greeting(lb.address()), "one");
    publish(volume.path(), "..2026_01_02", &yaml(&two));
    fs::remove_dir_all(volume.path().join("..2026_01_01")).unwrap();
    wait_for_backend(&lb, "two");
    assert_eq!((lb.reloads("success"), lb.reloads("failure")), (1.0, 0.0));
}
