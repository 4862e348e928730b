//! A terminal with a program in it, and what a person would see and press.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::harness::lacks;

use super::{wait_for, wait_until};

/// A pseudo-terminal, a program in it, and what a person would see.
pub struct Terminal {
    program: Child,
    keyboard: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    pub fn of(command: &mut Command, rows: u16, columns: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY);
        let ours = ours.unwrap_or_else(|error| lacks(&format!("a pseudo-terminal (/dev/ptmx: {error})")));
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let theirs = ptsname(&ours, Vec::new()).unwrap();
        let theirs = File::options().read(true).write(true).open(theirs.to_str().unwrap()).unwrap();
        set_size(&ours, rows, columns);
        let end = || Stdio::from(theirs.try_clone().unwrap());
        let program = command.env("TERM", "xterm-256color").stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let keyboard = File::from(ours);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let (mut output, shown) = (keyboard.try_clone().unwrap(), screen.clone());
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // An error is the end: nobody has the other side open any more.
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..length]);
            }
        });
        Self { program, keyboard, screen }
    }

    pub fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    pub fn line(&self, part: &str) -> String {
        self.text().lines().find(|line| line.contains(part)).unwrap_or_default().to_owned()
    }

    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    pub fn resize(&mut self, rows: u16, columns: u16) {
        self.screen.lock().unwrap().screen_mut().set_size(rows, columns);
        set_size(&self.keyboard, rows, columns);
        // No shell has given it the terminal, so the kernel doesn't tell it.
        self.signal(Signal::WINCH);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.program), signal).unwrap();
    }

    #[track_caller]
    pub fn wait_for(&self, part: &str) {
        wait_until(&format!("{part:?} on the screen"), || self.text().contains(part));
    }

    #[track_caller]
    pub fn wait_for_end(&mut self) -> ExitStatus {
        wait_for("the program ends", || self.program.try_wait().unwrap())
    }

    /// Whether it echoes and gives its program whole lines, as a shell leaves it.
    pub fn reads_lines(&self) -> bool {
        tcgetattr(&self.keyboard).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Whether the program has the whole screen, and the shell's is kept for later.
    pub fn is_taken(&self) -> bool {
        self.screen.lock().unwrap().screen().alternate_screen()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

fn set_size(terminal: impl std::os::fd::AsFd, ws_row: u16, ws_col: u16) {
    tcsetwinsize(terminal, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}
