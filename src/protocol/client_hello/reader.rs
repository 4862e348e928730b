//! Takes the pieces of a TLS structure from left to right (RFC 8446 section 3): numbers, and vectors behind their
//! length. `None` means that a piece runs over the end. It knows no structure's meaning.

pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        let (&number, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(number)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        let (&number, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u16::from_be_bytes(number))
    }

    /// A vector behind a length of one byte.
    pub(super) fn short_vector(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// A vector behind a length of two bytes.
    pub(super) fn long_vector(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// A vector behind a length of two bytes, after which nothing may follow.
    pub(super) fn last_long_vector(mut self) -> Option<Self> {
        let vector = self.long_vector()?;
        self.is_empty().then_some(Self::new(vector))
    }
}
