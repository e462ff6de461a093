//! What a writer of several runs asks, which bounds the memory of their encoders together.

use super::Encoder;

impl Encoder {
    /// Returns the number of tags that it knows.
    pub fn tags(&self) -> usize {
        self.tags.len()
    }

    /// Returns the size of the names of all tags, in bytes.
    pub fn tag_bytes(&self) -> usize {
        self.tag_bytes
    }

    /// Changes the allowed number of tags. Those that it knows stay, also beyond it.
    pub fn set_max_tags(&mut self, tags: usize) {
        self.max_tags = tags;
    }

    /// Changes the allowed size of the names of all tags, in bytes. Those that it knows stay, also beyond it.
    pub fn set_max_tag_bytes(&mut self, bytes: usize) {
        self.max_tag_bytes = bytes;
    }

    /// Drops the records since the last call, and gives the memory of their buffers back to the system.
    pub fn free_buffers(&mut self) {
        self.clear();
        (self.out, self.values) = (Vec::new(), Vec::new());
    }
}

#[cfg(test)]
mod tests {
    use crate::{EncodeError, Encoder, Summary};

    #[test]
    fn limits_that_change_hold_for_tags_that_are_new() {
        let mut encoder = Encoder::new();
        let add = |encoder: &mut Encoder, tag| encoder.add(0.0, 0, tag, Summary::Scalar(1.0));
        for tag in ["a", "bc"] {
            add(&mut encoder, tag).unwrap();
        }
        assert_eq!((encoder.tags(), encoder.tag_bytes()), (2, 3));
        encoder.set_max_tags(1);
        add(&mut encoder, "a").unwrap();
        assert!(matches!(add(&mut encoder, "d"), Err(EncodeError::TooManyTags { max: 1, .. })));
        encoder.set_max_tags(3);
        encoder.set_max_tag_bytes(3);
        assert!(matches!(add(&mut encoder, "d"), Err(EncodeError::TooManyTagBytes { max: 3, .. })));
        encoder.set_max_tag_bytes(4);
        add(&mut encoder, "d").unwrap();
        encoder.free_buffers();
        assert_eq!((encoder.bytes().len(), encoder.tags()), (0, 3));
    }
}
