//! `GET /v1/models` and `GET /v1/models/{id}`.

use axum::Json;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;

use crate::adapters::Served;
use crate::admission::Call;
use crate::fleet::{Fleet, Told};
use crate::identity::hex;
use crate::openai::{AdapterFields, ApiError, MemberFields, ModelList, ModelObject};
use crate::state::AppState;

/// All served names that the key may use: the models' own, then adapters, then aliases.
pub(crate) async fn list(Call(state): Call) -> Json<ModelList> {
    Json(ModelList::new(objects(&state)))
}

/// One served name. SDKs percent-encode it, slashes included; plain slashes do as well.
pub(crate) async fn retrieve(
    Call(state): Call,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ModelObject>, ApiError> {
    let Path(id) = id.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let found = objects(&state).into_iter().find(|object| object.id() == id);
    let unknown = || ApiError::model_not_found(&id, &state.told_names());
    found.map(Json).ok_or_else(unknown)
}

fn objects(state: &AppState) -> Vec<ModelObject> {
    let model = &state.model;
    let names = state.all_names();
    let own = names.map(|(name, created)| ModelObject::new(name, created));
    let adapters = state.adapters.list().into_iter();
    let base = model.names.first().map_or("", String::as_str);
    let others = state.fleet.iter().flat_map(Fleet::list);
    let others = others.flat_map(|told| of_member(&told));
    let aliases = state.aliases.iter();
    let aliases = aliases.map(|alias| ModelObject::new(&alias.name, model.created));
    own.chain(adapters.map(|adapter| of_adapter(&adapter, base)))
        .chain(others)
        .chain(aliases)
        .filter(|object| state.may_use(object.id()))
        .collect()
}

/// One of several models, and its adapters, which are called by its name.
fn of_member(told: &Told) -> Vec<ModelObject> {
    let own = ModelObject::new(&told.name, told.created).of_member(MemberFields {
        state: told.state.word(),
        bytes: told.n_bytes,
    });
    let adapters = told.adapters.iter().map(|adapter| {
        let called = Served {
            name: format!("{}:{}", told.name, adapter.name),
            ..adapter.clone()
        };
        of_adapter(&called, &told.name)
    });
    std::iter::once(own).chain(adapters).collect()
}

fn of_adapter(served: &Served, base: &str) -> ModelObject {
    let adapter = served.adapter.as_ref();
    ModelObject::new(&served.name, served.created).of_adapter(AdapterFields {
        root: base.to_owned(),
        parent: base.to_owned(),
        state: served.state,
        generation: served.generation,
        pinned: served.is_pinned,
        rank: adapter.map(|adapter| adapter.rank()),
        bytes: adapter.map(|adapter| adapter.n_bytes()),
        digest: adapter.map(|adapter| hex(&adapter.digest())),
        targets: adapter.map(|adapter| adapter.targets().to_vec()),
        error: served.failure.clone(),
    })
}
