//! Emptying of buffers that one owner fills again for every batch: the events of a batch, the lines and texts of a sink.
//!
//! A buffer keeps its memory from one batch to the next, so that a steady stream allocates nothing. It keeps 1 MiB at most, so that
//! one large batch does not hold its memory for ever.

/// Most bytes that a buffer keeps from one batch to the next. What a larger batch needed is returned to the system. At
/// that size, taking it again costs far less than writing the batch.
const KEPT_BYTES: usize = 1 << 20;

/// Empties a buffer, which keeps at most 1 MiB.
pub fn empty<T>(buffer: &mut Vec<T>) {
    buffer.clear();
    buffer.shrink_to(KEPT_BYTES / size_of::<T>().max(1));
}

/// Empties a text, which keeps at most 1 MiB.
pub(crate) fn empty_text(text: &mut String) {
    text.clear();
    text.shrink_to(KEPT_BYTES);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_keeps_a_mebibyte_at_most_whatever_it_holds() {
        let mut bytes = vec![0_u8; 100 << 20];
        let mut words = vec![0_u64; 10 << 20];
        let mut small = Vec::<u64>::with_capacity(100);
        let mut text = "x".repeat(3 << 20);
        let mut nothing = vec![(); 1 << 40];
        empty(&mut bytes);
        empty(&mut words);
        empty(&mut small);
        empty(&mut nothing);
        empty_text(&mut text);
        assert!(bytes.capacity() <= 1 << 20 && words.capacity() <= 1 << 17 && text.capacity() <= 1 << 20);
        assert!(small.capacity() >= 100, "a small one stays as it is");
        assert!(bytes.is_empty() && words.is_empty() && nothing.is_empty() && text.is_empty());
    }
}
