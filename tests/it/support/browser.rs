//! A real browser, headless: Chromium through chromedriver, by the few commands of WebDriver that the tests need.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::files::Folder;
use super::origin::{Message, Reader};
use super::packages::required;
use super::ports::free_port;
use super::programs::Program;

/// A browser takes its time to start on a busy machine.
const LONGEST_COMMAND: Duration = Duration::from_secs(60);

/// A browser with one tab. Dropping it ends it.
pub struct Browser {
    /// chromedriver.
    driver: Program,
    session: String,
    _profile: Folder,
}

impl Browser {
    /// Opens a page in a window of this size.
    #[track_caller]
    pub fn open(url: &str, width: u32, height: u32) -> Self {
        let profile = Folder::new();
        let address = free_port();
        let mut command = Command::new(required("chromedriver"));
        command.arg(format!("--port={}", address.port())).current_dir(profile.path());
        // Chromium counts on a home that it may write to.
        command.env("HOME", profile.path());
        let driver = Program::serving_at(address, &mut command).ended_by(Signal::TERM);
        let arguments = [
            "--headless".to_owned(),
            // Root has no other choice, and what is loaded is our own.
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--no-proxy-server".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--hide-scrollbars".to_owned(),
            format!("--user-data-dir={}", profile.path().join("profile").display()),
        ];
        let options = json!({"binary": required("chromium"), "args": arguments});
        // Certificates are of the test's own authority.
        let (logs, insecure) = (json!({"browser": "ALL"}), true);
        let wanted = json!({"goog:chromeOptions": options, "goog:loggingPrefs": logs, "acceptInsecureCerts": insecure});
        let answer = send(address, "POST", "/session", &json!({"capabilities": {"alwaysMatch": wanted}}));
        let session = answer["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {answer}")).to_owned();
        let browser = Self { driver, session, _profile: profile };
        browser.resize(width, height);
        browser.devtools(
            "Emulation.setEmulatedMedia",
            &json!({"features": [{"name": "prefers-color-scheme", "value": "light"}]}),
        );
        browser.command("POST", "/url", &json!({"url": url}));
        browser
    }

    /// Gives the page this room, however small a window of the browser may be.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// The value of a JavaScript expression.
    #[track_caller]
    pub fn value(&self, expression: &str) -> Value {
        self.command("POST", "/execute/sync", &json!({"script": format!("return {expression}"), "args": []}))
    }

    /// The text that a person sees in the first element that a selector finds; empty: there is none.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        self.value(&format!("document.querySelector({})?.innerText ?? ''", json!(selector)))
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// How many elements a selector finds.
    #[track_caller]
    pub fn count(&self, selector: &str) -> u64 {
        self.value(&format!("document.querySelectorAll({}).length", json!(selector))).as_u64().unwrap()
    }

    /// Clicks the first element that a selector finds, as a person would: it must be in sight, with nothing over it.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        let found = self.command("POST", "/element", &json!({"using": "css selector", "value": selector}));
        let id = found.as_object().and_then(|keys| keys.values().next()).and_then(Value::as_str).expect("an element");
        self.command("POST", &format!("/element/{id}/click"), &json!({}));
    }

    /// What the console has shown since the last call, errors and warnings of the browser included.
    #[track_caller]
    pub fn console(&self) -> Vec<String> {
        let entries = self.command("POST", "/se/log", &json!({"type": "browser"}));
        let text = |entry: &Value| format!("{} {}", entry["level"], entry["message"]);
        entries.as_array().expect("a list").iter().map(text).collect()
    }

    /// Writes what is in sight as PNG.
    pub fn screenshot(&self, path: &Path) {
        let encoded = self.command("GET", "/screenshot", &Value::Null);
        fs::write(path, from_base64(encoded.as_str().expect("a text"))).expect("the path is writable");
    }

    fn devtools(&self, command: &str, parameters: &Value) {
        self.command("POST", "/goog/cdp/execute", &json!({"cmd": command, "params": parameters}));
    }

    #[track_caller]
    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        send(self.driver.address(), method, &format!("/session/{}{path}", self.session), body)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Only so does chromedriver take the browser along. The test may be panicking already.
        let _ = exchange(self.driver.address(), "DELETE", &format!("/session/{}", self.session), "");
    }
}

/// One command; fails unless it works.
#[track_caller]
fn send(driver: SocketAddr, method: &str, path: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = exchange(driver, method, path, &body).unwrap_or_else(|| panic!("{method} {path}: no answer"));
    let value = serde_json::from_str::<Value>(&answer.text()).expect("WebDriver speaks JSON")["value"].take();
    assert_eq!(answer.status(), 200, "{method} {path} {body}: {value}");
    value
}

fn exchange(driver: SocketAddr, method: &str, path: &str, body: &str) -> Option<Message> {
    let mut stream = TcpStream::connect(driver).ok()?;
    stream.set_read_timeout(Some(LONGEST_COMMAND)).ok()?;
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {driver}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).ok()?;
    Reader::of(stream).message(true)
}

/// RFC 4648, 4; what is no digit is skipped.
fn from_base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<u8> = text.bytes().filter_map(digit).collect();
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for four in digits.chunks(4) {
        let bits = four.iter().fold(0, |bits, digit| bits << 6 | u32::from(*digit)) << (6 * (4 - four.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
    }
    bytes
}
