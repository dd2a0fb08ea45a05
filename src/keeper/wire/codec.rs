//! Bytes and back: little endian, lengths before contents, nothing else.
//!
//! Reading is total: whatever the bytes are, the answer is a value or an error, never a panic, and
//! no more memory is taken than the bytes themselves account for.

use super::WireError;

/// Appends values to a buffer.
pub(in crate::keeper) struct Writer<'a>(pub(in crate::keeper) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(in crate::keeper) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(in crate::keeper) fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub(in crate::keeper) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(in crate::keeper) fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(in crate::keeper) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Contents beyond 4 GiB cannot be written; the limit on messages lies far below.
    pub(in crate::keeper) fn bytes(&mut self, value: &[u8]) {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.u32(length);
        self.0.extend_from_slice(value);
    }

    pub(in crate::keeper) fn list<T>(
        &mut self,
        values: &[T],
        mut write: impl FnMut(&mut Self, &T),
    ) {
        self.u32(u32::try_from(values.len()).unwrap_or(u32::MAX));
        for value in values {
            write(self, value);
        }
    }

    pub(in crate::keeper) fn option<T>(
        &mut self,
        value: Option<T>,
        write: impl FnOnce(&mut Self, T),
    ) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// Takes values off the front of a message.
pub(in crate::keeper) struct Reader<'a>(pub(in crate::keeper) &'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(in crate::keeper) fn u8(&mut self) -> Result<u8, WireError> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(in crate::keeper) fn bool(&mut self) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(WireError::Value { what: "a yes or no", value: other.into() }),
        }
    }

    pub(in crate::keeper) fn u32(&mut self) -> Result<u32, WireError> {
        self.take().map(u32::from_le_bytes)
    }

    pub(in crate::keeper) fn i32(&mut self) -> Result<i32, WireError> {
        self.take().map(i32::from_le_bytes)
    }

    pub(in crate::keeper) fn u64(&mut self) -> Result<u64, WireError> {
        self.take().map(u64::from_le_bytes)
    }

    pub(in crate::keeper) fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let length = usize::try_from(self.u32()?).map_err(|_| WireError::Short)?;
        let (head, rest) = self.0.split_at_checked(length).ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    pub(in crate::keeper) fn text(&mut self) -> Result<String, WireError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| WireError::Text)
    }

    /// Elements are read until the announced number is there or the bytes end, so that a number made
    /// up by the sender reserves nothing.
    pub(in crate::keeper) fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let count = self.u32()?;
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(read(self)?);
        }
        Ok(values)
    }

    pub(in crate::keeper) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, WireError>,
    ) -> Result<Option<T>, WireError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }
}
