//! `lb import`, and `-c` with a file of nginx or HAProxy: exit codes, the list of what is left out, what is refused.

use std::process::Output;

use crate::support::{Folder, Lb, Server, case, connect, run_to_end, short_read, told};

/// The eight files, and the seed's; what is left out of each that changes traffic.
const CASES: [(&str, &[&str]); 9] = [
    ("seed.conf", &[]),
    ("kube-api-stream.conf", &[]),
    ("cluster-install.cfg", &[]),
    ("galera-one-writer.cfg", &[]),
    ("mail-stream.conf", &[]),
    ("sni-map.conf", &[]),
    ("mqtt-tls.conf", &[]),
    ("http-headers.conf", &[]),
    ("consul-srv.cfg", &[]),
];

fn texts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// `lb` with these arguments in a folder that has these files: exit code, output, errors.
fn lb(files: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String, String) {
    let folder = Folder::new();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    texts(&run_to_end(folder.path(), arguments, &[]))
}

/// The lines of the heading under its two titles: what changes traffic, what is harmless.
fn left_out(yaml: &str) -> [Vec<&str>; 2] {
    let under = |title: &str| {
        let after = yaml.lines().skip_while(|line| !line.starts_with(title)).skip(1);
        after.map_while(|line| line.strip_prefix("#   ")).collect()
    };
    [under("# Left out, and it changes traffic:"), under("# Left out, harmless:")]
}

#[test]
fn each_file_becomes_an_lb_yaml_that_is_valid() {
    for (name, expected) in CASES {
        let text = case(name);
        let (code, yaml, errors) = lb(&[(name, &text)], &["import", name]);
        assert_eq!(code, Some(if expected.is_empty() { 0 } else { 3 }), "{name}: {errors}");
        let [changes, _] = left_out(&yaml);
        assert_eq!(changes.len(), expected.len(), "{name}: {changes:?}");
        for (line, expected) in changes.iter().zip(expected) {
            assert!(line.starts_with(&format!("{name}:{expected}")), "{name}: {line}");
        }
        // Its certificate is on another machine.
        let valid = if name == "mqtt-tls.conf" { 2 } else { 0 };
        assert_eq!(lb(&[("lb.yaml", &yaml)], &["check"]).0, Some(valid), "{name}:\n{yaml}");
        let checked = lb(&[(name, &text)], &["check", "-c", name]);
        assert_eq!(checked.0, Some(if expected.is_empty() { valid } else { 2 }), "{name}: {}", checked.2);
    }
}

const ONE_SERVER: &str = "events {}
http {
  gzip on;
  client_max_body_size 1m;
  server {
    listen 127.0.0.1:8080;
    location / { proxy_pass http://127.0.0.1:3001; }
  }
}
";

#[test]
fn what_changes_traffic_is_listed_first_with_its_line_and_refused_where_it_counts() {
    let files = [("nginx.conf", ONE_SERVER)];
    let (code, yaml, errors) = lb(&files, &["import", "nginx.conf"]);
    let [changes, harmless] = left_out(&yaml);
    assert_eq!(code, Some(3), "{errors}");
    assert!(changes[0].starts_with("nginx.conf:3: gzip on: ") && changes.len() == 1, "{changes:?}");
    assert!(harmless[0].starts_with("nginx.conf:4: client_max_body_size 1m: "), "{harmless:?}");
    assert!(errors.starts_with("left out: nginx.conf:3: gzip on: "), "{errors}");
    let (code, yaml, _) = lb(&files, &["import", "nginx.conf", "--strict"]);
    assert_eq!((code, yaml.as_str()), (Some(3), ""));
    for arguments in [["check", "-c", "nginx.conf"], ["run", "-c", "nginx.conf"]] {
        let (code, _, errors) = lb(&files, &arguments);
        assert_eq!(code, Some(2));
        assert!(errors.contains("error: nginx.conf:3: `gzip on` would be left out, which changes traffic"), "{errors}");
        assert!(errors.contains("lb import nginx.conf -o lb.yaml"), "{errors}");
    }
}

#[test]
fn it_writes_to_a_file_and_overrides_win_over_a_file_of_nginx() {
    let folder = Folder::new();
    let server = Server::greeting("hello");
    let text = "stream { server { listen 127.0.0.1:8080; proxy_pass 127.0.0.1:1; } }";
    let file = folder.write("nginx.conf", text).display().to_string();
    let output = run_to_end(folder.path(), &["import", &file, "-o", "made.yaml"], &[]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
    assert!(std::fs::read_to_string(folder.path().join("made.yaml")).unwrap().contains("127.0.0.1:8080"));
    let backend = server.address().to_string();
    let lb = Lb::with_arguments(&["-c", &file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let lb = lb.with(&["--backend", &backend]).start();
    assert_eq!(short_read(&mut connect(lb.address())), "hello");
}

#[test]
fn a_reload_reads_a_file_of_nginx_again() {
    let (one, two) = (Server::greeting("one"), Server::greeting("two"));
    let folder = Folder::new();
    let text =
        |server: &Server| format!("stream {{ server {{ listen 127.0.0.1:1; proxy_pass {}; }} }}", server.address());
    let file = folder.write("nginx.conf", text(&one)).display().to_string();
    let lb = Lb::with_arguments(&["-c", &file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).start();
    assert_eq!(short_read(&mut connect(lb.address())), "one");
    folder.write("nginx.conf", text(&two));
    let (status, said) = lb.post("/api/v1/reload");
    assert_eq!(status, 200, "{said}");
    assert_eq!(short_read(&mut connect(lb.address())), "two");
    lb.assert_all_ended();
}

#[test]
fn includes_are_read_from_the_files_own_folder_and_errors_name_them() {
    let main = "http { include conf.d/*.conf; include mime.types; }\n";
    let server = "server {\n listen 127.0.0.1:8080;\n location / { proxy_pass http://127.0.0.1:3001; }\n}\n";
    let (code, yaml, errors) =
        lb(&[("etc/nginx.conf", main), ("etc/conf.d/a.conf", server)], &["import", "etc/nginx.conf"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(yaml.contains("127.0.0.1:3001") && yaml.contains("nginx.conf:1: include mime.types: "), "{yaml}");
    let broken =
        [("etc/nginx.conf", main), ("etc/conf.d/a.conf", server), ("etc/conf.d/b.conf", "upstream x {\n a;\n")];
    let (code, _, errors) = lb(&broken, &["import", "etc/nginx.conf"]);
    assert_eq!(code, Some(2));
    assert!(errors.starts_with("error: etc/conf.d/b.conf:1: this block has no `}`"), "{errors}");
    let itself = [("nginx.conf", "include nginx.conf;\n")];
    let (code, _, errors) = lb(&itself, &["import", "nginx.conf"]);
    assert_eq!(code, Some(2));
    assert!(errors.contains("more than 10 includes in each other"), "{errors}");
    let absent = [("nginx.conf", "include gone.conf;\nstream { server { listen 1; proxy_pass 127.0.0.1:2; } }\n")];
    let (code, yaml, _) = lb(&absent, &["import", "nginx.conf"]);
    assert_eq!(code, Some(3));
    assert!(left_out(&yaml)[0][0].starts_with("nginx.conf:1: include gone.conf: gone.conf can't be read"), "{yaml}");
}

#[test]
fn variables_of_the_environment_are_put_into_haproxy_cfg() {
    let text = "listen x\n  bind 127.0.0.1:8080\n  server a \"${LB_TEST_HOST}:3001\"\n  timeout server 0\n";
    let folder = Folder::new();
    folder.write("haproxy.cfg", text);
    let output = run_to_end(folder.path(), &["import", "haproxy.cfg"], &[("LB_TEST_HOST", "127.0.0.9")]);
    let (code, yaml, errors) = texts(&output);
    assert_eq!(code, Some(0), "{errors}");
    assert!(yaml.contains("127.0.0.9:3001") && yaml.contains("idle: off"), "{yaml}");
}

#[test]
fn what_is_neither_or_passes_nothing_on_is_refused_with_a_line() {
    let none = "http {\n  server {\n    listen 80;\n    root /var/www;\n  }\n}\n";
    for (text, expected) in [
        ("listen: 127.0.0.1:1\nbackends: [127.0.0.1:2]\n", "error: file:1: is neither an nginx.conf nor a haproxy.cfg"),
        ("", "error: file:1: is neither an nginx.conf nor a haproxy.cfg"),
        ("http {\n  server {\n    listen \"80;\n", "error: file:3: this \" is not closed"),
        ("global\nlisten a\n  bind 'x\n", "error: file:3: this ' is not closed"),
        (none, "error: file:2: nothing in it can run under lb: server { … }: "),
    ] {
        let (code, yaml, errors) = lb(&[("file", text)], &["import", "file"]);
        assert_eq!((code, yaml.as_str()), (Some(2), ""), "{text}");
        assert!(errors.starts_with(expected), "{errors}");
    }
    // What lb finds wrong with the result, it says of the line that it came from.
    let loops = "events {}\nstream {\n  server { listen 127.0.0.1:9; proxy_pass 127.0.0.1:9; }\n}\n";
    let (code, _, errors) = lb(&[("file", loops)], &["import", "file"]);
    assert_eq!(code, Some(2));
    assert!(errors.starts_with("error: file:3: as lb.yaml, ") && errors.contains("leads back"), "{errors}");
}

#[test]
fn nobody_is_let_in_where_it_is_not_known_whom_haproxy_refuses() {
    let server = Server::greeting("hello");
    let text = format!(
        "frontend f\n  bind 127.0.0.1:1\n  tcp-request connection reject if !{{ src -f /friends.lst }}\n  \
         default_backend b\nbackend b\n  server a {}\n",
        server.address()
    );
    let (code, yaml, errors) = lb(&[("haproxy.cfg", &text)], &["import", "haproxy.cfg"]);
    assert_eq!(code, Some(3));
    assert!(errors.contains("haproxy.cfg:3: ") && errors.contains("from here on nobody is let in"), "{errors}");
    let folder = Folder::new();
    let file = folder.write("lb.yaml", yaml).display().to_string();
    let lb = Lb::with_arguments(&["-c", &file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).start();
    assert_eq!(told(&lb.address().to_string()), "");
    assert_eq!(server.accepted(), 0);
}
