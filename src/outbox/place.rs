//! Where a row lies in its table, in PostgreSQL's words its `ctid`. Pure.
//!
//! It comes as bytes and goes as text: sqlx knows no `tid`, and would ask the server for it in the
//! midst of a statement. Behind a pooler, where statements have no names, the server forgets that
//! statement then.

use std::io::Write;

use sqlx::{
    Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo},
};

/// Valid until the row is updated, or its table rewritten: a hint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    block: u32,
    item: u16,
}

impl Type<Postgres> for Place {
    fn type_info() -> PgTypeInfo {
        <&str as Type<Postgres>>::type_info()
    }
}

impl PgHasArrayType for Place {
    fn array_type_info() -> PgTypeInfo {
        <&str as PgHasArrayType>::array_type_info()
    }
}

impl Encode<'_, Postgres> for Place {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let Self { block, item } = self;
        write!(&mut **buffer, "({block},{item})")?;
        Ok(IsNull::No)
    }
}

/// What tidsend() writes: the block's number, and that of the item in it.
impl TryFrom<&[u8]> for Place {
    type Error = std::array::TryFromSliceError;

    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        let [b0, b1, b2, b3, i0, i1]: [u8; 6] = bytes.try_into()?;
        Ok(Self {
            block: u32::from_be_bytes([b0, b1, b2, b3]),
            item: u16::from_be_bytes([i0, i1]),
        })
    }
}
