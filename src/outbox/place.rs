//! Where a row lies in its table, in PostgreSQL's words its `ctid`: sqlx has no type for it. Pure.

use sqlx::{
    Decode, Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef, types::Oid},
};

/// PostgreSQL's src/include/catalog/pg_type.dat: tid and tid[].
const TID: Oid = Oid(27);
const TID_ARRAY: Oid = Oid(1010);

/// Valid until the row is updated, or its table rewritten: a hint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// As tidsend() writes it: the block's number in four bytes, that of the item in two.
    bytes: [u8; 6],
}

impl Type<Postgres> for Place {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TID)
    }
}

impl PgHasArrayType for Place {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TID_ARRAY)
    }
}

impl Encode<'_, Postgres> for Place {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&self.bytes);
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Place {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Self { bytes: value.as_bytes()?.try_into()? })
    }
}
