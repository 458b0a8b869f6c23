//! Storage types by name.

use kernels::WeightType;
use models::WEIGHT_TYPES;

/// A type by the name that it has everywhere, in whatever case.
pub fn parse_weight_type(text: &str) -> Result<WeightType, String> {
    let name = text.to_ascii_lowercase();
    let found = WEIGHT_TYPES.iter().find(|(known, _)| *known == name);
    found.map(|(_, ty)| *ty).ok_or_else(|| {
        let names: Vec<&str> = WEIGHT_TYPES.iter().map(|(name, _)| *name).collect();
        format!("one of {}", names.join(", "))
    })
}

/// The name that [`parse_weight_type`] reads.
pub fn weight_type_name(ty: WeightType) -> &'static str {
    let found = WEIGHT_TYPES.iter().find(|(_, known)| *known == ty);
    found.map_or("unnamed", |(name, _)| *name)
}
