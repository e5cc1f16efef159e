//! `ctid`: the physical position of a row version in its table. Pure.
//!
//! A ctid is read as bytes and sent as text. sqlx has no type `tid`: it would look the type up with
//! a query of its own between the steps of a statement. Behind a pooler, where statements have no
//! names, that query replaces the unnamed statement that was just prepared.

use std::io::Write;

use sqlx::{
    Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo},
};

/// Physical position of a row version.
///
/// It is a hint only: an update of the row or a rewrite of the table invalidates it, and another
/// row may then be found there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ctid {
    /// Number of the page in the table's file.
    block: u32,
    /// Number of the item in the page.
    item: u16,
}

impl Type<Postgres> for Ctid {
    fn type_info() -> PgTypeInfo {
        <&str as Type<Postgres>>::type_info()
    }
}

impl PgHasArrayType for Ctid {
    fn array_type_info() -> PgTypeInfo {
        <&str as PgHasArrayType>::array_type_info()
    }
}

impl Encode<'_, Postgres> for Ctid {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let Self { block, item } = self;
        write!(&mut **buffer, "({block},{item})")?;
        Ok(IsNull::No)
    }
}

/// Reads the output of `tidsend()`: the number of the block and the number of the item, big endian.
impl TryFrom<&[u8]> for Ctid {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        let [b0, b1, b2, b3, i0, i1]: [u8; 6] = bytes.try_into()?;
        Ok(Self {
            block: u32::from_be_bytes([b0, b1, b2, b3]),
            item: u16::from_be_bytes([i0, i1]),
        })
    }
}
