//! CBOR as a tree that can be written wrongly: what a hostile author's encoder does.

use minicbor::Decoder;
use minicbor::data::Type;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cbor {
    Int(i128),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Cbor>),
    Map(Vec<(i128, Cbor)>),
    Bool(bool),
    Null,
    /// Bytes that stand as they are.
    Raw(Vec<u8>),
}

impl Cbor {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut decoder = Decoder::new(bytes);
        let value = Self::next(&mut decoder);
        assert_eq!(decoder.position(), bytes.len());
        value
    }

    fn next(d: &mut Decoder<'_>) -> Self {
        match d.datatype().unwrap() {
            Type::Bytes => Self::Bytes(d.bytes().unwrap().to_vec()),
            Type::String => Self::Text(d.str().unwrap().into()),
            Type::Array => Self::Array((0..d.array().unwrap().unwrap()).map(|_| Self::next(d)).collect()),
            Type::Map => {
                Self::Map((0..d.map().unwrap().unwrap()).map(|_| (d.int().unwrap().into(), Self::next(d))).collect())
            }
            Type::Bool => Self::Bool(d.bool().unwrap()),
            Type::Null => {
                d.null().unwrap();
                Self::Null
            }
            _ => Self::Int(d.int().unwrap().into()),
        }
    }

    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        let len = |n: usize| u64::try_from(n).unwrap();
        match self {
            Self::Int(n @ 0..) => head(out, 0, u64::try_from(*n).unwrap()),
            Self::Int(n) => head(out, 1, u64::try_from(-1 - n).unwrap()),
            Self::Bytes(b) => {
                head(out, 2, len(b.len()));
                out.extend_from_slice(b);
            }
            Self::Text(t) => {
                head(out, 3, len(t.len()));
                out.extend_from_slice(t.as_bytes());
            }
            Self::Array(items) => {
                head(out, 4, len(items.len()));
                items.iter().for_each(|item| item.write(out));
            }
            Self::Map(members) => {
                head(out, 5, len(members.len()));
                for (key, value) in members {
                    Self::Int(*key).write(out);
                    value.write(out);
                }
            }
            Self::Bool(b) => out.push(if *b { 0xf5 } else { 0xf4 }),
            Self::Null => out.push(0xf6),
            Self::Raw(bytes) => out.extend_from_slice(bytes),
        }
    }

    /// The member of a map, or the item of an array.
    pub(crate) fn at(&mut self, key: i128) -> &mut Self {
        match self {
            Self::Map(members) => members.iter_mut().find(|(k, _)| *k == key).map(|(_, v)| v).unwrap(),
            Self::Array(items) => &mut items[usize::try_from(key).unwrap()],
            other => panic!("no members in {other:?}"),
        }
    }

    /// Members of a map.
    pub(crate) fn members(&mut self) -> &mut Vec<(i128, Self)> {
        match self {
            Self::Map(members) => members,
            other => panic!("no map: {other:?}"),
        }
    }

    /// Sets a member at its place in the order of keys.
    pub(crate) fn set(&mut self, key: i128, value: Self) {
        let members = self.members();
        members.retain(|(k, _)| *k != key);
        members.push((key, value));
        members.sort_by_key(|(k, _)| *k);
    }

    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes,
            other => panic!("no bytes: {other:?}"),
        }
    }
}

/// Major type and argument, shortest form.
pub(crate) fn head(out: &mut Vec<u8>, major: u8, n: u64) {
    let major = major << 5;
    let be = n.to_be_bytes();
    match n {
        0..=23 => out.push(major | be[7]),
        24..=0xff => out.extend([major | 24, be[7]]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend(&be[6..]);
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend(&be[4..]);
        }
        _ => {
            out.push(major | 27);
            out.extend(be);
        }
    }
}
