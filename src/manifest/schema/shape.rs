//! Values of several forms: the form of what stands there decides which is meant.
//!
//! serde's own untagged enums would read the value into a buffer first, and `1.10` would come out of it
//! as `1.1`.

/// Which variant a map, a list and a scalar are.
macro_rules! shaped {
    ($name:ident { $($shape:ident => $variant:ident($type:ty)),* $(,)? }) => {
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl<'de> serde::de::Visitor<'de> for Visitor {
                    type Value = $name;
                    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        formatter.write_str(concat!($(stringify!($shape), " "),*))
                    }
                    $($crate::manifest::schema::shape::shape! { $shape => $name::$variant($type) })*
                }
                deserializer.deserialize_any(Visitor)
            }
        }
    };
}

macro_rules! shape {
    (map => $name:ident::$variant:ident($type:ty)) => {
        fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<$name, A::Error> {
            let whole = serde::de::value::MapAccessDeserializer::new(map);
            <$type as serde::Deserialize>::deserialize(whole).map($name::$variant)
        }
    };
    (list => $name:ident::$variant:ident($type:ty)) => {
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, list: A) -> Result<$name, A::Error> {
            let whole = serde::de::value::SeqAccessDeserializer::new(list);
            <$type as serde::Deserialize>::deserialize(whole).map($name::$variant)
        }
    };
    (scalar => $name:ident::$variant:ident($type:ty)) => {
        fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<$name, E> {
            let value = serde::de::IntoDeserializer::into_deserializer(value);
            <$type as serde::Deserialize>::deserialize(value).map($name::$variant)
        }
        fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<$name, E> {
            self.visit_str(&value.to_string())
        }
        fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<$name, E> {
            self.visit_str(&value.to_string())
        }
        fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<$name, E> {
            self.visit_str(&value.to_string())
        }
        fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<$name, E> {
            self.visit_str(&value.to_string())
        }
    };
    (null => $name:ident::$variant:ident($type:ty)) => {
        fn visit_unit<E: serde::de::Error>(self) -> Result<$name, E> {
            Ok($name::$variant(()))
        }
    };
}

pub(super) use {shape, shaped};
