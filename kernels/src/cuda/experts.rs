//! Launches of mixtures of experts: choosing, dealing rows out, putting together.

use super::int;
use super::launch::{DevicePtr, Fields, Launch, Params};
use crate::{RouteScore, Routing};

/// Choosing experts.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// `[n_rows, n_experts]`.
    pub logits: DevicePtr,
    /// `[n_experts]`, may be null.
    pub bias: DevicePtr,
    /// `[n_rows, n_used]` u32, ascending in each row.
    pub experts: DevicePtr,
    /// `[n_rows, n_used]` f32.
    pub weights: DevicePtr,
    pub routing: Routing,
}

/// # Panics
/// When a row uses more than 32 experts.
pub fn route(op: &Route, n_rows: usize) -> Launch {
    let routing = &op.routing;
    assert!(routing.n_used <= 32, "a lane keeps one choice");
    let score = match routing.score {
        RouteScore::Softmax => 0,
        RouteScore::Sigmoid => 1,
        RouteScore::SoftmaxOfChosen => 2,
    };
    let (n_groups, n_used) = routing.groups.map_or((0, 0), |g| (g.n_groups, g.n_used));
    let fields = Fields::new()
        .ptr(op.logits)
        .ptr(op.bias)
        .ptr(op.experts)
        .ptr(op.weights)
        .int(int(routing.n_experts))
        .int(int(routing.n_used))
        .int(score)
        .int(i32::from(routing.renormalize))
        .int(int(n_groups))
        .int(int(n_used))
        .float(routing.scale);
    let n_doubles = 2 * routing.n_experts + n_groups;
    Launch::new("route", "route", Params::new().value(&fields))
        .threads(32)
        .grid([n_rows, 1, 1])
        .shared(n_doubles * 8 + routing.n_experts + n_groups)
}

/// Rows of each expert from the choices of [`route`]. `offsets`: `[n_experts + 1]`; `rows`:
/// `[n_rows * n_used]`, ascending within an expert; `places`: `[n_rows, n_used]`, where in `rows`
/// each choice went. All u32.
pub fn deal_rows(
    op: &Route,
    n_rows: usize,
    offsets: DevicePtr,
    rows: DevicePtr,
    places: DevicePtr,
) -> Launch {
    let params = Params::new()
        .ptr(op.experts)
        .int(int(n_rows))
        .int(int(op.routing.n_used))
        .ptr(offsets)
        .ptr(rows)
        .ptr(places);
    Launch::new("route", "deal_rows", params)
        .threads(32)
        .grid([op.routing.n_experts, 1, 1])
}

/// `out[row] += weight * x[place]` for the experts of each row, ascending.
pub fn combine_experts(
    op: &Route,
    x: DevicePtr,
    width: usize,
    places: DevicePtr,
    n_rows: usize,
    out: DevicePtr,
) -> Launch {
    let params = Params::new()
        .ptr(x)
        .int(int(width))
        .ptr(places)
        .ptr(op.weights)
        .int(int(op.routing.n_used))
        .ptr(out);
    Launch::new("route", "combine_experts", params).over_rows(n_rows, width)
}
