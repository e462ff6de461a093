//! Whole tensors.

use tfevents::DataType;

use crate::array::Kind;

/// Returns the type of numbers in a tensor of TensorBoard.
pub(crate) fn dtype(kind: Kind) -> DataType {
    match kind {
        Kind::Bool => DataType::Bool,
        Kind::I8 => DataType::Int8,
        Kind::I16 => DataType::Int16,
        Kind::I32 => DataType::Int32,
        Kind::I64 => DataType::Int64,
        Kind::U8 => DataType::Uint8,
        Kind::U16 => DataType::Uint16,
        Kind::U32 => DataType::Uint32,
        Kind::U64 => DataType::Uint64,
        Kind::F16 => DataType::Float16,
        Kind::F32 => DataType::Float32,
        Kind::F64 => DataType::Float64,
    }
}
