//! Places for connections. When all are taken, whoever has been idle for longest gives way: idle
//! connections, however many, keep nobody out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::activity::Activity;

/// All places.
#[derive(Clone, Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    next_id: u64,
    by_id: HashMap<u64, (Activity, Arc<Notify>)>,
}

/// A connection's place.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    taken: Arc<Mutex<Taken>>,
    gives_way: Arc<Notify>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(n: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(n)),
            taken: Arc::default(),
        }
    }

    /// A place for a connection, as soon as there is one; somebody idle is told to leave if there
    /// is none.
    pub(super) async fn take(&self, activity: &Activity) -> Place {
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.make_room();
                let permit = Arc::clone(&self.free).acquire_owned().await;
                permit.expect("nobody closes it")
            }
        };
        let gives_way = Arc::new(Notify::new());
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.next_id += 1;
        let id = taken.next_id;
        let entry = (activity.clone(), Arc::clone(&gives_way));
        taken.by_id.insert(id, entry);
        Place {
            id,
            taken: Arc::clone(&self.taken),
            gives_way,
            _permit: permit,
        }
    }

    fn make_room(&self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = taken
            .by_id
            .iter()
            .filter_map(|(id, (activity, _))| Some((activity.idle_since()?, *id)));
        let Some((_, id)) = idle.min() else {
            return;
        };
        if let Some((_, gives_way)) = taken.by_id.remove(&id) {
            gives_way.notify_one();
        }
    }
}

impl Place {
    /// Resolves when somebody else needs the place.
    pub(super) async fn is_needed(&self) {
        self.gives_way.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.by_id.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_has_been_idle_for_longest_gives_way() {
        let places = Places::new(2);
        let (busy, idle, new) = (Activity::new(), Activity::new(), Activity::new());
        let call = busy.begin_call();
        let first = places.take(&busy).await;
        let second = places.take(&idle).await;
        let leaving = tokio::spawn(async move {
            second.is_needed().await;
        });
        let third = places.take(&new).await;
        leaving.await.unwrap();
        // Nobody who works gives way.
        let other = new.begin_call();
        let more = Activity::new();
        let wait = Duration::from_millis(50);
        assert!(
            tokio::time::timeout(wait, places.take(&more))
                .await
                .is_err()
        );
        drop((call, other, first));
        places.take(&more).await;
        drop(third);
    }
}
