//! Records on their way to the peer: a buffer that many connections use in turn, and that keeps its size.

/// Bytes that are to be sent. Filled at its end, emptied as a whole.
#[derive(Debug)]
pub struct Records {
    /// All of it is initialized: what is beyond `length` is from the last use.
    buffer: Vec<u8>,
    length: usize,
}

impl Records {
    /// Empty, with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { buffer: vec![0; capacity], length: 0 }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    pub fn clear(&mut self) {
        self.length = 0;
    }

    pub(super) fn spare(&mut self) -> &mut [u8] {
        &mut self.buffer[self.length..]
    }

    /// `length` bytes of what is spare have been written.
    pub(super) fn add(&mut self, length: usize) {
        self.length += length;
    }

    /// Makes room for `spare` bytes more.
    pub(super) fn reserve(&mut self, spare: usize) {
        let needed = self.length + spare;
        if self.buffer.len() < needed {
            self.buffer.resize(needed, 0);
        }
    }
}
