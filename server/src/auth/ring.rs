//! The keys of a moment, and how one is found.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::file::{Described, KeysError};
use super::limits::{Limits, Meter, Moment};
use super::scope::{Grant, Scope};
use super::{Digest32, digest};
use crate::identity::hex;
use crate::store::DayUsage;
use crate::tenant::{Owner, Tenant};

/// All keys that are valid.
#[derive(Debug, Default)]
pub(super) struct Ring {
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    digest: Digest32,
    /// For figures: its name, or something that tells nothing about it.
    label: Arc<str>,
    number: u32,
    grant: Arc<Grant>,
    meter: Option<Arc<Meter>>,
}

/// Numbers of all keys there have been, by digest. A key that is taken away and comes back is the
/// same tenant, and has used what it had used.
#[derive(Debug, Default)]
pub(super) struct Numbering {
    known: Mutex<HashMap<Digest32, Numbered>>,
    /// What keys had used of a day before this process, by their numbers in the store.
    earlier: OnceLock<HashMap<u128, DayUsage>>,
}

/// A number, and what has been used.
type Numbered = (u32, Option<Arc<Meter>>);

impl Numbering {
    fn of(&self, digest: Digest32, limits: Limits) -> Numbered {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
        let (number, meter) = known.entry(digest).or_insert((next, None));
        match meter {
            Some(meter) => meter.set_limits(limits),
            None if limits.is_empty() => {}
            None => *meter = Some(Arc::new(self.meter(digest, limits))),
        }
        let meter = meter.as_ref().filter(|_| !limits.is_empty());
        (*number, meter.map(Arc::clone))
    }

    /// A meter that goes on from where the key was.
    fn meter(&self, digest: Digest32, limits: Limits) -> Meter {
        let meter = Meter::new(limits);
        let earlier = self
            .earlier
            .get()
            .and_then(|all| all.get(&stored_as(digest)));
        if let Some(usage) = earlier {
            meter.resume(usage.day, usage.n_tokens);
        }
        meter
    }

    /// Goes on from what the store knows, for all keys there are and will be. Only the first time
    /// counts.
    pub(super) fn resume(&self, usages: HashMap<u128, DayUsage>) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let usages = self.earlier.get_or_init(|| usages);
        for (digest, (_, meter)) in &*known {
            if let (Some(meter), Some(usage)) = (meter, usages.get(&stored_as(*digest))) {
                meter.resume(usage.day, usage.n_tokens);
            }
        }
    }

    /// What all keys with limits have used of today, by their numbers in the store.
    pub(super) fn usages(&self, now: Moment) -> Vec<(u128, DayUsage)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let usages = known.iter().filter_map(|(digest, (_, meter))| {
            let (day, n_tokens) = meter.as_ref()?.today(now);
            Some((stored_as(*digest), DayUsage { day, n_tokens }))
        });
        usages.collect()
    }
}

/// The number of a key in the store, which tells nothing about the key.
fn stored_as(digest: Digest32) -> u128 {
    let digest = Sha256::new()
        .chain_update(b"understudy usage ")
        .chain_update(digest)
        .finalize();
    u128::from_le_bytes(digest[..16].try_into().expect("sixteen bytes"))
}

impl Ring {
    /// `given` are keys themselves, and whether they may do everything.
    pub(super) fn new(
        given: &[(String, bool)],
        described: Vec<Described>,
        file: Option<&Path>,
        numbering: &Numbering,
    ) -> Result<Self, KeysError> {
        let mut keys: Vec<Key> = Vec::with_capacity(given.len() + described.len());
        for (key, is_admin) in given {
            let scopes: &[Scope] = if *is_admin {
                &[Scope::Inference, Scope::Metrics, Scope::Admin]
            } else {
                &[Scope::Inference, Scope::Metrics]
            };
            let digest = digest(key);
            let (number, _) = numbering.of(digest, Limits::default());
            keys.push(Key {
                digest,
                label: label(key),
                number,
                grant: Arc::new(Grant::of(scopes)),
                meter: None,
            });
        }
        let n_given = keys.len();
        for key in described {
            if keys[..n_given]
                .iter()
                .any(|given| given.digest == key.digest)
            {
                return Err(KeysError::Key {
                    path: file.unwrap_or(Path::new("")).to_owned(),
                    name: key.name,
                    problem: "is given by a flag as well",
                });
            }
            let (number, meter) = numbering.of(key.digest, key.limits);
            keys.push(Key {
                digest: key.digest,
                label: Arc::from(key.name),
                number,
                grant: Arc::new(key.grant),
                meter,
            });
        }
        Ok(Self { keys })
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn has_admin(&self) -> bool {
        self.keys.iter().any(|key| key.grant.opens(Scope::Admin))
    }

    pub(super) fn meters(&self) -> Vec<(Arc<str>, Arc<Meter>)> {
        let meters = self.keys.iter().filter_map(|key| {
            let meter = key.meter.as_ref()?;
            Some((Arc::clone(&key.label), Arc::clone(meter)))
        });
        meters.collect()
    }

    /// Whose the key is. Digests of equal length, and no early end: time tells nothing about the
    /// keys.
    pub(super) fn find(&self, presented: &str) -> Option<Tenant> {
        let digest = digest(presented);
        let mut found = u32::MAX;
        for (key, index) in self.keys.iter().zip(0_u32..) {
            let is_first: Choice = found.ct_eq(&u32::MAX);
            found.conditional_assign(&index, is_first & key.digest.ct_eq(&digest));
        }
        let key = self.keys.get(found as usize)?;
        Some(Tenant::of_key(
            key.number,
            Arc::clone(&key.label),
            owner(presented),
            Arc::clone(&key.grant),
            key.meter.clone(),
        ))
    }
}

/// What figures call a key without a name: 32 bits of a digest that is used for nothing else.
fn label(key: &str) -> Arc<str> {
    let digest = Sha256::digest(format!("understudy tenant {key}").as_bytes());
    Arc::from(format!("key-{}", hex(&digest[..4])))
}

/// Whose stored objects are: another digest, which tells nothing about the key either.
fn owner(key: &str) -> Owner {
    let digest = Sha256::digest(format!("understudy owner {key}").as_bytes());
    Owner::of_number(u128::from_le_bytes(
        digest[..16].try_into().expect("sixteen bytes"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(name: &str, key: &str, requests_per_minute: Option<u32>) -> Described {
        Described {
            name: name.to_owned(),
            digest: digest(key),
            grant: Grant::of(&[Scope::Inference]),
            limits: Limits {
                requests_per_minute,
                ..Limits::default()
            },
        }
    }

    fn ring(numbering: &Numbering, described: Vec<Described>) -> Ring {
        let given = [("one".to_owned(), false), ("two".to_owned(), false)];
        Ring::new(&given, described, None, numbering).unwrap()
    }

    #[test]
    fn each_key_is_a_tenant_of_its_own() {
        let keys = ring(
            &Numbering::default(),
            vec![described("team", "three", None)],
        );
        let [one, two, three] = ["one", "two", "three"].map(|key| keys.find(key).unwrap());
        assert_ne!(one.flow(None), two.flow(None));
        assert_ne!(one.flow(None), three.flow(None));
        assert_ne!(one.label(), two.label());
        assert!(!one.label().contains("one"));
        assert_eq!(three.label(), "team");
        assert_ne!(one.owner(), three.owner());
        assert!(keys.find("four").is_none());
        assert!(Ring::default().find("one").is_none());
    }

    #[test]
    fn a_key_that_comes_back_is_the_same_tenant() {
        let numbering = Numbering::default();
        let team = || described("team", "three", Some(1));
        let before = ring(&numbering, vec![team()]).find("three").unwrap();
        before
            .meter()
            .unwrap()
            .enter(1, super::super::Moment::now())
            .unwrap();
        let other = ring(&numbering, vec![described("other", "four", None)]);
        assert!(other.find("three").is_none());
        let after = ring(&numbering, vec![described("new", "four", None), team()]);
        let after = after.find("three").unwrap();
        assert_eq!(before.flow(None), after.flow(None));
        assert!(
            after
                .meter()
                .unwrap()
                .enter(1, super::super::Moment::now())
                .is_err()
        );
        let freed = ring(&numbering, vec![described("team", "three", None)]);
        assert!(freed.find("three").unwrap().meter().is_none());
    }

    #[test]
    fn a_day_goes_on_after_a_restart_and_for_keys_that_come_later() {
        let limited = |name: &str, key: &str| Described {
            limits: Limits {
                tokens_per_day: Some(100),
                ..Limits::default()
            },
            ..described(name, key, None)
        };
        let now = Moment::now();
        let before = Numbering::default();
        let keys = ring(&before, vec![limited("a", "three"), limited("b", "four")]);
        let charge = |key: &str, n| keys.find(key).unwrap().charge_prompt(n).unwrap();
        charge("three", 60);
        charge("four", 70);
        let usages: HashMap<u128, DayUsage> = before.usages(now).into_iter().collect();
        assert_eq!(usages.len(), 2);
        let after = Numbering::default();
        let keys = ring(&after, vec![limited("a", "three")]);
        after.resume(usages);
        assert!(keys.find("three").unwrap().charge_prompt(41).is_err());
        assert!(keys.find("three").unwrap().charge_prompt(40).is_ok());
        let keys = ring(&after, vec![limited("b", "four")]);
        assert!(keys.find("four").unwrap().charge_prompt(31).is_err());
    }

    #[test]
    fn a_key_of_a_flag_is_not_one_of_the_file_as_well() {
        let given = [("one".to_owned(), true)];
        let twice = vec![described("team", "one", None)];
        let error = Ring::new(&given, twice, None, &Numbering::default()).unwrap_err();
        assert!(
            error.to_string().contains("`team` is given by a flag"),
            "{error}"
        );
    }
}
