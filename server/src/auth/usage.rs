//! What keys have used of a day, written down so that a restart does not forget it.

use std::collections::HashMap;
use std::time::Duration;

use super::{ApiKeys, Moment};
use crate::store::{DayUsage, Store, StoreError, Write};

/// Time between two writes: what a killed process forgets at most, beside the write itself.
const INTERVAL: Duration = Duration::from_secs(1);

/// Writes down what changes.
#[derive(Debug)]
pub struct UsageLog {
    keys: ApiKeys,
    store: Store,
    written: HashMap<u128, DayUsage>,
}

impl UsageLog {
    /// Goes on from what the store knows. Reads the disk.
    pub fn open(keys: ApiKeys, store: Store) -> Result<Self, StoreError> {
        let written: HashMap<u128, DayUsage> = store.usages()?.into_iter().collect();
        keys.resume(written.clone());
        Ok(Self {
            keys,
            store,
            written,
        })
    }

    /// Writes once a second, all keys together and only those that were used, until `ending`
    /// resolves, and then once more.
    pub async fn keep(mut self, ending: impl Future<Output = ()>) {
        let mut ending = std::pin::pin!(ending);
        loop {
            let is_last = tokio::select! {
                () = tokio::time::sleep(INTERVAL) => false,
                () = ending.as_mut() => true,
            };
            if let Err(error) = self.write().await {
                tracing::error!(%error, "what keys have used could not be written down");
            }
            if is_last {
                return;
            }
        }
    }

    async fn write(&mut self) -> Result<(), StoreError> {
        let mut usages = self.keys.shared.numbering.usages(Moment::now());
        usages.retain(|(key, usage)| usage.n_tokens > 0 && self.written.get(key) != Some(usage));
        let writes = usages.iter().map(|(key, usage)| Write::Usage {
            key: *key,
            usage: *usage,
        });
        self.store.write(writes.collect()).await?;
        self.written.extend(usages);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;

    const KEYS: &str = "[[key]]\nname = 'a'\nkey = 'sk-a'\ntokens_per_day = 100\n";

    #[tokio::test]
    async fn quotas_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys.toml");
        std::fs::write(&file, KEYS).unwrap();
        let open = || {
            let keys = ApiKeys::open([], [], Some(file.clone())).unwrap();
            let store = Store::open(StoreOptions {
                dir: Some(dir.path().join("store")),
                ..StoreOptions::default()
            });
            let log = UsageLog::open(keys.clone(), store.unwrap()).unwrap();
            (keys, log)
        };
        let used = |keys: &ApiKeys| keys.meters()[0].1.today(Moment::now()).1;
        let (keys, log) = open();
        keys.meters()[0].1.charge_prompt(30, Moment::now()).unwrap();
        log.keep(std::future::ready(())).await;
        let (keys, mut log) = open();
        assert_eq!(used(&keys), 30);
        keys.meters()[0].1.charge_generated(20, Moment::now());
        log.write().await.unwrap();
        let n_bytes = log.store.n_bytes().unwrap();
        assert_eq!(n_bytes, 0, "it is no object");
        drop(log);
        assert_eq!(used(&open().0), 50);
    }
}
