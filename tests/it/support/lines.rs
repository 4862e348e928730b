//! What a process writes, line by line.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use serde_json::{Map, Value};

/// The lines of a pipe, gathered as they come.
pub struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Lines {
    pub fn of(pipe: impl Read + Send + 'static) -> Self {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let gathered = lines.clone();
        let reader = thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                gathered.lock().expect("nobody panics with it").push(line);
            }
        });
        Self { lines, reader: Some(reader) }
    }

    pub fn text(&self) -> String {
        self.lines.lock().expect("nobody panics with it").iter().map(|line| format!("{line}\n")).collect()
    }

    /// Each line as a JSON object, whichever format it has.
    pub fn json(&self) -> Vec<Value> {
        let lines = self.lines.lock().expect("nobody panics with it");
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| values_of_text(line))).collect()
    }

    /// Waits for the pipe's end.
    pub fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// A log line in text: the time, the level, the message, `name=value` and so on.
fn values_of_text(line: &str) -> Value {
    let words: Vec<&str> = line.split_whitespace().skip(2).collect();
    let is_pair = |word: &&str| word.contains('=');
    let message: Vec<&str> = words.iter().copied().take_while(|word| !is_pair(word)).collect();
    let pairs = words.iter().filter_map(|word| word.split_once('='));
    let mut values: Map<String, Value> =
        pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').into())).collect();
    values.insert("message".to_owned(), message.join(" ").into());
    Value::Object(values)
}
