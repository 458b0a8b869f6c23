//! Routes, each with what opens it. A route cannot be added without saying so, and what is asked
//! for under an unknown path needs a key like everything else.

use std::collections::BTreeMap;

use axum::Router;
use axum::routing::MethodRouter;

use super::Scope;
use crate::state::AppState;

/// What opens a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing is needed: probes.
    Open,
    /// A key with this scope.
    Needs(Scope),
}

/// The patterns of all routes, and what opens them.
pub type AccessTable = BTreeMap<&'static str, Access>;

/// Routes under construction, all added so far and how the next are opened.
#[derive(Debug)]
pub(crate) struct Routes {
    router: Router<AppState>,
    access: Access,
    table: AccessTable,
}

impl Routes {
    /// Routes that a key of this scope opens.
    pub(crate) fn of(scope: Scope) -> Self {
        Self::with(Access::Needs(scope))
    }

    /// Routes that need no key.
    pub(crate) fn open() -> Self {
        Self::with(Access::Open)
    }

    fn with(access: Access) -> Self {
        Self {
            router: Router::new(),
            access,
            table: AccessTable::new(),
        }
    }

    /// Adds a route.
    pub(crate) fn route(mut self, path: &'static str, methods: MethodRouter<AppState>) -> Self {
        self.note(path, self.access);
        self.router = self.router.route(path, methods);
        self
    }

    /// Changes the router, for example by a layer around all routes so far.
    pub(crate) fn map(mut self, change: impl FnOnce(Router<AppState>) -> Router<AppState>) -> Self {
        self.router = change(self.router);
        self
    }

    /// All routes of both.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        for (path, access) in &other.table {
            self.note(path, *access);
        }
        self.router = self.router.merge(other.router);
        self
    }

    fn note(&mut self, path: &'static str, access: Access) {
        let earlier = self.table.insert(path, access);
        assert!(
            earlier.is_none_or(|earlier| earlier == access),
            "the methods of {path} need different scopes"
        );
    }

    pub(crate) fn into_parts(self) -> (Router<AppState>, AccessTable) {
        (self.router, self.table)
    }
}
