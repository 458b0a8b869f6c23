//! The tables of the database, and what is done in one transaction.

use std::ops::Bound;
use std::time::Duration;

use redb::{Database, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::{DayUsage, Entry, Key, Kind, StoreError, StoreOptions, Write, begin_read};
use crate::tenant::Owner;

/// Kind, owner and id.
type Place<'a> = (u8, u128, &'a str);
/// Kind, owner and number.
type Rank = (u8, u128, u64);
/// Number by age, end (seconds of Unix time) and body.
const OBJECTS: TableDefinition<'_, Place<'_>, (u64, u64, &[u8])> = TableDefinition::new("objects");
/// Kind, owner and number: ids by age.
const ORDER: TableDefinition<'_, Rank, &str> = TableDefinition::new("order");
/// End and number: what ends first. Files are not among them: their bytes end with them, so that
/// it is for whoever keeps these to end them, and they make no room.
const ENDS: TableDefinition<'_, (u64, u64), Place<'_>> = TableDefinition::new("ends");
/// Number of a key: day, and tokens used of it.
const USAGES: TableDefinition<'_, u128, (u64, u64)> = TableDefinition::new("usages");
/// Totals.
const COUNTS: TableDefinition<'_, &str, u64> = TableDefinition::new("counts");

const VERSION: u64 = 1;
/// Bytes of an object beside its body and its id, roughly.
const OVERHEAD_BYTES: u64 = 128;
/// Objects that one transaction ends at most because of their age.
const MAX_SWEPT: usize = 1000;

/// Whether objects of a kind make room by their age, and are counted.
fn makes_room(kind: u8) -> bool {
    kind != Kind::File as u8
}

impl Key {
    fn place(&self) -> Place<'_> {
        (self.kind as u8, self.owner.number(), &self.id)
    }
}

/// Makes sure that all tables are there, and of this version. Forgets days before `today`.
pub(super) fn create(database: &Database, today: u64) -> Result<(), StoreError> {
    let transaction = database.begin_write().map_err(StoreError::failed)?;
    {
        let mut change = Change::begin(&transaction)?;
        let version = change.count("version")?;
        if version != 0 && version != VERSION {
            let message = format!("it was written in form {version}, this server knows {VERSION}");
            return Err(StoreError::Failed(message));
        }
        change.set_count("version", VERSION)?;
        let forgotten = change.usages.retain(|_, (day, _)| day >= today);
        forgotten.map_err(StoreError::failed)?;
    }
    transaction.commit().map_err(StoreError::failed)
}

pub(super) fn n_bytes(database: &Database) -> Result<u64, StoreError> {
    let table = begin_read(database)?
        .open_table(COUNTS)
        .map_err(StoreError::failed)?;
    let found = table.get("bytes").map_err(StoreError::failed)?;
    Ok(found.map_or(0, |count| count.value()))
}

pub(super) fn get(database: &Database, key: &Key, now: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let table = begin_read(database)?
        .open_table(OBJECTS)
        .map_err(StoreError::failed)?;
    let found = table.get(key.place()).map_err(StoreError::failed)?;
    Ok(found.and_then(|object| {
        let (_, end, body) = object.value();
        (end > now).then(|| body.to_vec())
    }))
}

pub(super) fn entries(database: &Database, kind: Kind) -> Result<Vec<Entry>, StoreError> {
    let table = begin_read(database)?
        .open_table(OBJECTS)
        .map_err(StoreError::failed)?;
    let of_kind = (kind as u8, 0, "")..(kind as u8 + 1, 0, "");
    let mut entries = Vec::new();
    for found in table
        .range::<Place<'_>>(of_kind)
        .map_err(StoreError::failed)?
    {
        let (place, object) = found.map_err(StoreError::failed)?;
        let (_, owner, id) = place.value();
        let key = Key::new(Owner::of_number(owner), kind, id);
        let (_, end, _) = object.value();
        entries.push(Entry { key, end });
    }
    Ok(entries)
}

pub(super) fn usages(database: &Database) -> Result<Vec<(u128, DayUsage)>, StoreError> {
    let table = begin_read(database)?
        .open_table(USAGES)
        .map_err(StoreError::failed)?;
    let mut found = Vec::new();
    for entry in table.iter().map_err(StoreError::failed)? {
        let (key, usage) = entry.map_err(StoreError::failed)?;
        let (day, n_tokens) = usage.value();
        found.push((key.value(), DayUsage { day, n_tokens }));
    }
    Ok(found)
}

/// Objects to be visited.
#[derive(Debug)]
pub(super) struct Range<'a> {
    pub(super) owner: Owner,
    pub(super) kind: Kind,
    pub(super) after: Option<&'a str>,
    pub(super) ascending: bool,
}

impl Range<'_> {
    fn place<'i>(&self, id: &'i str) -> Place<'i> {
        (self.kind as u8, self.owner.number(), id)
    }

    /// Where it begins and ends, beside object number `after`.
    fn bounds(&self, after: Option<u64>) -> (Bound<Rank>, Bound<Rank>) {
        let at = |number| (self.kind as u8, self.owner.number(), number);
        let (first, last) = (Bound::Included(at(0)), Bound::Included(at(u64::MAX)));
        match after {
            None => (first, last),
            Some(number) if self.ascending => (Bound::Excluded(at(number)), last),
            Some(number) => (first, Bound::Excluded(at(number))),
        }
    }
}

pub(super) fn scan(
    database: &Database,
    range: &Range<'_>,
    now: u64,
    visit: &mut dyn FnMut(&str, &[u8]) -> bool,
) -> Result<bool, StoreError> {
    let transaction = begin_read(database)?;
    let objects = transaction
        .open_table(OBJECTS)
        .map_err(StoreError::failed)?;
    let order = transaction.open_table(ORDER).map_err(StoreError::failed)?;
    let mut after = None;
    if let Some(id) = range.after {
        let found = objects.get(range.place(id)).map_err(StoreError::failed)?;
        let Some(found) = found.filter(|found| found.value().1 > now) else {
            return Ok(false);
        };
        after = Some(found.value().0);
    }
    let mut entries = order
        .range(range.bounds(after))
        .map_err(StoreError::failed)?;
    loop {
        let entry = if range.ascending {
            entries.next()
        } else {
            entries.next_back()
        };
        let Some(entry) = entry else { return Ok(true) };
        let (_, id) = entry.map_err(StoreError::failed)?;
        let id = id.value();
        let object = objects.get(range.place(id)).map_err(StoreError::failed)?;
        let Some(object) = object else { continue };
        let (_, end, body) = object.value();
        if end > now && !visit(id, body) {
            return Ok(true);
        }
    }
}

/// A transaction that writes.
pub(super) struct Change<'t> {
    objects: Table<'t, Place<'static>, (u64, u64, &'static [u8])>,
    order: Table<'t, Rank, &'static str>,
    ends: Table<'t, (u64, u64), Place<'static>>,
    usages: Table<'t, u128, (u64, u64)>,
    counts: Table<'t, &'static str, u64>,
}

impl<'t> Change<'t> {
    pub(super) fn begin(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        let failed = StoreError::failed;
        Ok(Self {
            objects: transaction.open_table(OBJECTS).map_err(failed)?,
            order: transaction.open_table(ORDER).map_err(failed)?,
            ends: transaction.open_table(ENDS).map_err(failed)?,
            usages: transaction.open_table(USAGES).map_err(failed)?,
            counts: transaction.open_table(COUNTS).map_err(failed)?,
        })
    }

    fn count(&self, name: &str) -> Result<u64, StoreError> {
        let found = self.counts.get(name).map_err(StoreError::failed)?;
        Ok(found.map_or(0, |count| count.value()))
    }

    fn set_count(&mut self, name: &str, count: u64) -> Result<(), StoreError> {
        let set = self.counts.insert(name, count);
        set.map(drop).map_err(StoreError::failed)
    }

    /// Makes one change; whether there was something to change.
    pub(super) fn apply(
        &mut self,
        write: Write,
        options: &StoreOptions,
        now: u64,
    ) -> Result<bool, StoreError> {
        let end = |ttl: Option<Duration>| {
            ttl.or(options.ttl)
                .map_or(u64::MAX, |ttl| now.saturating_add(ttl.as_secs()))
        };
        match write {
            Write::Put { key, body, ttl } => {
                let old = self.remove(key.place())?;
                self.insert(key.place(), old.map(|old| old.number), end(ttl), &body)?;
                Ok(true)
            }
            Write::Edit { key, edit } => {
                let found = self.objects.get(key.place()).map_err(StoreError::failed)?;
                let edited = found
                    .filter(|found| found.value().1 > now)
                    .and_then(|found| edit(found.value().2));
                let Some(body) = edited else { return Ok(false) };
                let old = self.remove(key.place())?;
                self.insert(key.place(), old.map(|old| old.number), end(None), &body)?;
                Ok(true)
            }
            Write::Delete { key } => {
                let old = self.remove(key.place())?;
                Ok(old.is_some_and(|old| old.end > now))
            }
            Write::Usage { key, usage } => {
                let DayUsage { day, n_tokens } = usage;
                let old = self.usages.insert(key, (day, n_tokens));
                Ok(old.map_err(StoreError::failed)?.is_some())
            }
        }
    }

    fn insert(
        &mut self,
        place: Place<'_>,
        number: Option<u64>,
        end: u64,
        body: &[u8],
    ) -> Result<(), StoreError> {
        let failed = StoreError::failed;
        let number = match number {
            Some(number) => number,
            None => {
                let number = self.count("numbers")?;
                self.set_count("numbers", number + 1)?;
                number
            }
        };
        let (kind, owner, id) = place;
        self.objects
            .insert(place, (number, end, body))
            .map_err(failed)?;
        self.order
            .insert((kind, owner, number), id)
            .map_err(failed)?;
        if !makes_room(kind) {
            return Ok(());
        }
        self.ends.insert((end, number), place).map_err(failed)?;
        self.set_count("bytes", self.count("bytes")? + n_bytes_of(id, body))
    }

    fn remove(&mut self, place: Place<'_>) -> Result<Option<Removed>, StoreError> {
        let failed = StoreError::failed;
        let (kind, owner, id) = place;
        let removed = self.objects.remove(place).map_err(failed)?.map(|object| {
            let (number, end, body) = object.value();
            (Removed { number, end }, n_bytes_of(id, body))
        });
        let Some((removed, n_bytes)) = removed else {
            return Ok(None);
        };
        self.order
            .remove((kind, owner, removed.number))
            .map_err(failed)?;
        if makes_room(kind) {
            self.ends
                .remove((removed.end, removed.number))
                .map_err(failed)?;
            self.set_count("bytes", self.count("bytes")?.saturating_sub(n_bytes))?;
        }
        Ok(Some(removed))
    }

    /// Removes what has ended, and what would end first while there is too much.
    pub(super) fn tidy(&mut self, options: &StoreOptions, now: u64) -> Result<(), StoreError> {
        let mut n_swept = 0;
        loop {
            let Some((end, (kind, owner, id))) = self.first_to_end()? else {
                return Ok(());
            };
            let has_ended = end <= now && n_swept < MAX_SWEPT;
            if !has_ended && self.count("bytes")? <= options.max_bytes {
                return Ok(());
            }
            n_swept += usize::from(has_ended);
            self.remove((kind, owner, &id))?;
        }
    }

    fn first_to_end(&self) -> Result<Option<Ending>, StoreError> {
        let first = self.ends.first().map_err(StoreError::failed)?;
        Ok(first.map(|(end, place)| {
            let (kind, owner, id) = place.value();
            (end.value().0, (kind, owner, id.to_owned()))
        }))
    }

    /// Nothing is counted that is not there, and the other way round.
    #[cfg(test)]
    pub(super) fn check(&self) -> u64 {
        use redb::ReadableTableMetadata;

        let (mut n_bytes, mut n_files) = (0, 0);
        for entry in self.objects.iter().unwrap() {
            let (place, object) = entry.unwrap();
            let (kind, owner, id) = place.value();
            let (number, end, body) = object.value();
            let listed = self.order.get((kind, owner, number)).unwrap().unwrap();
            assert_eq!(listed.value(), id);
            if !makes_room(kind) {
                n_files += 1;
                continue;
            }
            n_bytes += n_bytes_of(id, body);
            let ends = self.ends.get((end, number)).unwrap().unwrap();
            assert_eq!(ends.value(), (kind, owner, id));
        }
        let n_objects = self.objects.len().unwrap();
        assert_eq!(self.order.len().unwrap(), n_objects);
        assert_eq!(self.ends.len().unwrap() + n_files, n_objects);
        assert_eq!(self.count("bytes").unwrap(), n_bytes);
        n_objects
    }
}

/// When an object ends, and its place.
type Ending = (u64, (u8, u128, String));

/// An object that was there.
struct Removed {
    number: u64,
    end: u64,
}

/// What an object counts for.
pub(super) fn n_bytes_of(id: &str, body: &[u8]) -> u64 {
    (id.len() + body.len()) as u64 + OVERHEAD_BYTES
}
