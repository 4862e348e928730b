//! systemd's side of sd_notify(3): a datagram socket that hears how a service does.

use std::collections::HashMap;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::files::Folder;
use super::wait_for;

/// Messages to NOTIFY_SOCKET, taken as they come: a sender waits while the queue is full.
pub struct Notifications {
    folder: Folder,
    heard: Arc<Mutex<Vec<Message>>>,
}

/// The assignments of one message.
pub type Message = HashMap<String, String>;

impl Notifications {
    pub fn new() -> Self {
        let (folder, heard) = (Folder::new(), Arc::default());
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("the folder is writable");
        let notifications = Self { folder, heard: Arc::clone(&heard) };
        // It ends with the test process.
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length) = socket.recv(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                let pairs = text.lines().filter_map(|line| line.split_once('='));
                let message = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(message);
            }
        });
        notifications
    }

    /// For the variable NOTIFY_SOCKET.
    pub fn path(&self) -> String {
        self.folder.path().join("notify").display().to_string()
    }

    /// All messages so far, in their order.
    pub fn heard(&self) -> Vec<Message> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the first message from `position` on that has this assignment; gives where the next one begins, and
    /// it.
    #[track_caller]
    pub fn wait_for(&self, position: usize, name: &str, value: &str) -> (usize, Message) {
        let is_it = |message: &Message| message.get(name).is_some_and(|is| is == value);
        wait_for(&format!("{name}={value}"), || {
            let heard = self.heard();
            let at = heard.iter().skip(position).position(is_it)? + position;
            Some((at + 1, heard[at].clone()))
        })
    }
}
