//! Other names for what is served. A name can stand for several things, between which requests
//! are dealt out by weights, and a copy of them can go to others, whose answers nobody sees.

mod check;
mod meter;

pub use check::{AliasFault, Served, faults};
pub(crate) use meter::Meter;

use sha2::{Digest, Sha256};

/// A name, and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    pub name: String,
    /// Never empty, and not all of weight 0.
    arms: Vec<Arm>,
    shadows: Vec<Shadow>,
}

/// One of the things that requests are answered by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Arm {
    target: String,
    weight: u32,
}

/// Something that gets a copy of some requests.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shadow {
    target: String,
    /// Of a hundred requests.
    percent: u32,
}

/// What a request that called an alias is answered by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChosenArm {
    pub(crate) alias: String,
    pub(crate) target: String,
    /// What gets a copy of it.
    pub(crate) shadows: Vec<String>,
}

/// What is wrong with an alias.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    #[error("expected ALIAS=NAME or ALIAS=NAME*WEIGHT,NAME*WEIGHT")]
    Form,
    #[error(
        "`{0}` has no weight; where there are several names, each is NAME*WEIGHT, NAME*shadow or \
         NAME*shadow:PERCENT"
    )]
    NoWeight(String),
    #[error("`{0}` is not a weight: expected a whole number, `shadow` or `shadow:PERCENT`")]
    Weight(String),
    #[error("`{0}` is named twice")]
    Twice(String),
    #[error("nobody answers: all weights are 0")]
    NoArm,
}

impl Alias {
    /// Reads `ALIAS=NAME`, or `ALIAS=` and, between commas, `NAME*WEIGHT`, `NAME*shadow` and
    /// `NAME*shadow:PERCENT`.
    pub fn parse(text: &str) -> Result<Self, AliasError> {
        let (name, targets) = text.split_once('=').ok_or(AliasError::Form)?;
        if name.is_empty() || targets.is_empty() {
            return Err(AliasError::Form);
        }
        let mut alias = Self {
            name: name.to_owned(),
            arms: Vec::new(),
            shadows: Vec::new(),
        };
        let parts: Vec<&str> = targets.split(',').collect();
        for part in &parts {
            let (target, weight) = match part.rsplit_once('*') {
                Some((target, weight)) if !target.is_empty() => (target, weight),
                None if parts.len() == 1 => (*part, "1"),
                _ => return Err(AliasError::NoWeight((*part).to_owned())),
            };
            alias.add(target, weight)?;
        }
        if alias.total() == 0 {
            return Err(AliasError::NoArm);
        }
        Ok(alias)
    }

    fn add(&mut self, target: &str, weight: &str) -> Result<(), AliasError> {
        let wrong = || AliasError::Weight(weight.to_owned());
        let known = self.arms.iter().map(|arm| &arm.target);
        let mut known = known.chain(self.shadows.iter().map(|shadow| &shadow.target));
        if known.any(|known| known == target) {
            return Err(AliasError::Twice(target.to_owned()));
        }
        let target = target.to_owned();
        if let Some(rest) = weight.strip_prefix("shadow") {
            let percent = match rest.strip_prefix(':') {
                None if rest.is_empty() => 100,
                Some(percent) => percent.parse().map_err(|_| wrong())?,
                None => return Err(wrong()),
            };
            if !(1..=100).contains(&percent) {
                return Err(wrong());
            }
            self.shadows.push(Shadow { target, percent });
        } else {
            let weight = weight.parse().map_err(|_| wrong())?;
            self.arms.push(Arm { target, weight });
        }
        Ok(())
    }

    /// All that answers requests or gets copies of them.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &str> {
        let arms = self.arms.iter().map(|arm| arm.target.as_str());
        arms.chain(self.shadows.iter().map(|shadow| shadow.target.as_str()))
    }

    pub(crate) fn has_shadows(&self) -> bool {
        !self.shadows.is_empty()
    }

    fn total(&self) -> u64 {
        self.arms.iter().map(|arm| u64::from(arm.weight)).sum()
    }

    /// What a request with this key is answered by: always the same for the same key.
    pub(crate) fn choose(&self, key: &str) -> ChosenArm {
        let mut place = self.draw("arm", key) % self.total().max(1);
        let mut target = &self.arms[0].target;
        for arm in &self.arms {
            target = &arm.target;
            if place < u64::from(arm.weight) {
                break;
            }
            place -= u64::from(arm.weight);
        }
        let is_copied = |shadow: &&Shadow| {
            self.draw(&format!("shadow {}", shadow.target), key) % 100 < u64::from(shadow.percent)
        };
        let shadows = self.shadows.iter().filter(is_copied);
        ChosenArm {
            alias: self.name.clone(),
            target: target.clone(),
            shadows: shadows.map(|shadow| shadow.target.clone()).collect(),
        }
    }

    /// A number that depends on alias, purpose and key only, so that replicas agree.
    fn draw(&self, purpose: &str, key: &str) -> u64 {
        let mut hash = Sha256::new();
        for part in [self.name.as_str(), purpose, key] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        u64::from_le_bytes(digest[..8].try_into().expect("SHA-256 has 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_met_and_keys_stay_where_they_are() {
        let alias = Alias::parse("gpt-4o-mini=base*90,base:one@0.5*10,two*shadow:20").unwrap();
        let (mut n_one, mut n_copied) = (0, 0);
        for i in 0..10_000 {
            let key = format!("user-{i}");
            let chosen = alias.choose(&key);
            assert_eq!(chosen, alias.choose(&key));
            n_one += usize::from(chosen.target == "base:one@0.5");
            n_copied += chosen.shadows.len();
        }
        assert!((850..1150).contains(&n_one), "{n_one}");
        assert!((1800..2200).contains(&n_copied), "{n_copied}");
        let more = Alias::parse("gpt-4o-mini=base*0,one*1").unwrap();
        assert_eq!(more.choose("x").target, "one");
    }

    #[test]
    fn plain_names_need_no_weight() {
        let alias = Alias::parse("gpt-4o-mini=base:one@0.7+two@0.3").unwrap();
        assert_eq!(alias.choose("any").target, "base:one@0.7+two@0.3");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, error) in [
            ("a", AliasError::Form),
            ("=b", AliasError::Form),
            ("a=", AliasError::Form),
            ("a=b,c", AliasError::NoWeight("b".to_owned())),
            ("a=b*1,", AliasError::NoWeight(String::new())),
            ("a=b*x", AliasError::Weight("x".to_owned())),
            ("a=b*-1", AliasError::Weight("-1".to_owned())),
            (
                "a=b*1,c*shadow:0",
                AliasError::Weight("shadow:0".to_owned()),
            ),
            ("a=b*1,c*shadows", AliasError::Weight("shadows".to_owned())),
            ("a=b*1,b*2", AliasError::Twice("b".to_owned())),
            ("a=b*0", AliasError::NoArm),
            ("a=b*shadow", AliasError::NoArm),
        ] {
            assert_eq!(Alias::parse(text), Err(error), "{text}");
        }
    }
}
