//! systemd's side of sd_notify(3): a datagram socket that hears how a service does.

use std::collections::HashMap;
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;
use std::time::Duration;

use super::files::Folder;
use super::{PATIENCE, wait_for};

/// Messages to NOTIFY_SOCKET.
pub struct Notifications {
    socket: UnixDatagram,
    folder: Folder,
    heard: Mutex<Vec<Message>>,
}

/// The assignments of one message.
pub type Message = HashMap<String, String>;

impl Notifications {
    pub fn new() -> Self {
        let folder = Folder::new();
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("the folder is writable");
        socket.set_read_timeout(Some(Duration::from_millis(1))).expect("not zero");
        Self { socket, folder, heard: Mutex::default() }
    }

    /// For the variable NOTIFY_SOCKET.
    pub fn path(&self) -> String {
        self.folder.path().join("notify").display().to_string()
    }

    /// All messages so far, in their order.
    pub fn heard(&self) -> Vec<Message> {
        let mut heard = self.heard.lock().expect("nobody panics with it");
        let mut bytes = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            heard.push(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
        }
        heard.clone()
    }

    /// Waits for the first message after `position` that has this assignment; gives where the next one begins, and it.
    #[track_caller]
    pub fn wait_for(&self, position: usize, name: &str, value: &str) -> (usize, Message) {
        let is_it = |message: &Message| message.get(name).is_some_and(|is| is == value);
        wait_for(&format!("{name}={value} within {PATIENCE:?}"), || {
            let heard = self.heard();
            let at = heard.iter().skip(position).position(is_it)? + position;
            Some((at + 1, heard[at].clone()))
        })
    }
}
