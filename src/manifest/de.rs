//! serde's view of the tree.
//!
//! A number or boolean whose usual form is not the text that stands there (`1.10`, `0x10`) is given as
//! that text to who asks for anything, and as the value to who asks for a number.

use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{self, Deserialize, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::report::Place;
use super::tree::{Entry, Node, Scalar, Value};

/// Reads a value out of the tree.
pub(super) fn read<'de, T: Deserialize<'de>>(node: &'de Node) -> Result<T, Unfit> {
    T::deserialize(node)
}

/// A value that does not fit its type; the schema finds nearly all of them before.
#[derive(Debug)]
pub(super) struct Unfit {
    pub(super) message: String,
    pub(super) place: Option<Place>,
}

impl fmt::Display for Unfit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Unfit {}

impl de::Error for Unfit {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), place: None }
    }
}

impl Unfit {
    fn at(mut self, place: Place) -> Self {
        self.place.get_or_insert(place);
        self
    }
}

impl<'de> IntoDeserializer<'de, Unfit> for &'de Node {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

fn pair(entry: &Entry) -> (StrDeserializer<'_, Unfit>, &Node) {
    ((&*entry.key).into_deserializer(), &entry.node)
}

macro_rules! numbers {
    ($($method:ident)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
            self.number(visitor)
        }
    )* };
}

impl Node {
    fn number<'de, V: Visitor<'de>>(&'de self, visitor: V) -> Result<V::Value, Unfit> {
        match self.typed() {
            Some(Scalar::Int(value)) => visitor.visit_i64(value),
            Some(Scalar::Unsigned(value)) => visitor.visit_u64(value),
            Some(Scalar::Float(value)) => visitor.visit_f64(value),
            _ => return de::Deserializer::deserialize_any(self, visitor),
        }
        .map_err(|error: Unfit| error.at(self.place))
    }
}

impl<'de> de::Deserializer<'de> for &'de Node {
    type Error = Unfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        let text = self.text().unwrap_or_default();
        match &self.value {
            Value::Sequence(items) => visitor.visit_seq(SeqDeserializer::new(items.iter())),
            Value::Mapping(entries) => {
                visitor.visit_map(MapDeserializer::new(entries.iter().map(pair)))
            }
            Value::Scalar { .. } => match self.typed() {
                None | Some(Scalar::Null) => visitor.visit_unit(),
                Some(Scalar::Bool(value)) if value.to_string() == text => visitor.visit_bool(value),
                Some(Scalar::Int(value)) if value.to_string() == text => visitor.visit_i64(value),
                Some(Scalar::Unsigned(value)) if value.to_string() == text => {
                    visitor.visit_u64(value)
                }
                Some(Scalar::Float(value)) if value.to_string() == text => visitor.visit_f64(value),
                Some(_) => visitor.visit_borrowed_str(text),
            },
        }
        .map_err(|error: Unfit| error.at(self.place))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        match self.typed() {
            Some(Scalar::Bool(value)) => visitor.visit_bool(value),
            _ => self.deserialize_any(visitor),
        }
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        match self.text() {
            Some(text) if !self.is_null() => {
                visitor.visit_borrowed_str(text).map_err(|error: Unfit| error.at(self.place))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unfit> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unfit> {
        let text = self.text().unwrap_or_default();
        let word: StrDeserializer<'_, Unfit> = text.into_deserializer();
        visitor.visit_enum(word).map_err(|error: Unfit| error.at(self.place))
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
        ignored_any
    }
}
