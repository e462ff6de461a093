//! Data of any depth.

use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

/// A deserializer without a limit: lists in lists, or maps in maps.
pub(crate) struct Endless {
    pub(crate) levels: usize,
    pub(crate) key: Option<&'static str>,
}

impl<'de> Deserializer<'de> for Endless {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match (self.levels, self.key) {
            (0, _) => visitor.visit_i64(1),
            (_, None) => visitor.visit_seq(Inner(Some(self))),
            (_, Some(_)) => visitor.visit_map(Inner(Some(self))),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Inner(Option<Endless>);

impl<'de> SeqAccess<'de> for Inner {
    type Error = de::value::Error;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Self::Error> {
        let Some(Endless { levels, key }) = self.0.take() else { return Ok(None) };
        seed.deserialize(Endless { levels: levels - 1, key }).map(Some)
    }
}

impl<'de> MapAccess<'de> for Inner {
    type Error = de::value::Error;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Self::Error> {
        let Some(Endless { key: Some(key), .. }) = &self.0 else { return Ok(None) };
        seed.deserialize(de::value::StrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Self::Error> {
        let Some(Endless { levels, key }) = self.0.take() else { return Err(de::Error::custom("no value")) };
        seed.deserialize(Endless { levels: levels - 1, key })
    }
}
