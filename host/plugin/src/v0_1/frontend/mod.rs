//! `wbuild:frontend@0.1`.

mod describe_guest;
mod graph_host;
mod inspect_host;
mod request_host;
mod results_host;

use std::sync::Arc;

use wasmtime::component::Linker;
use wbuild_api::extension::{FrontendHost, LogCap, NamedContext, Outcome};
use wbuild_graph::op::LocalSource;
use wbuild_graph::{Edge, NodeId};

use super::builders::{ExecDraft, FileDraft};
use super::types;
use crate::state::{Access, Builder, Capabilities, GuestState};

/// Generated from `wit/frontend`.
#[allow(missing_docs, unsafe_code, clippy::all)]
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: ["../../wit/types", "../../wit/frontend"],
        world: "wbuild:frontend/frontend",
        imports: {
            "wbuild:frontend/inspect.resolve-images": async | trappable,
            "wbuild:frontend/inspect.resolve-sources": async | trappable,
            "wbuild:frontend/inspect.read-file": async | trappable,
            "wbuild:frontend/inspect.stat": async | trappable,
            "wbuild:frontend/inspect.read-dir": async | trappable,
            "wbuild:frontend/inspect.evaluate": async | trappable,
            "wbuild:frontend/inspect.outcome-of": async | trappable,
            "wbuild:frontend/request.opt": async | trappable,
            "wbuild:frontend/request.opts": async | trappable,
            "wbuild:frontend/results.publish": async | trappable,
            default: trappable,
        },
        exports: { default: async },
        with: {
            "wbuild:types/types": crate::v0_1::types::bindings::wbuild::types::types,
            "wbuild:types/log": crate::v0_1::types::bindings::wbuild::types::log,
            "wbuild:frontend/graph.local-source": crate::v0_1::frontend::LocalBuilder,
            "wbuild:frontend/graph.exec-op": crate::v0_1::frontend::ExecBuilder,
            "wbuild:frontend/graph.file-op": crate::v0_1::frontend::FileBuilder,
            "wbuild:frontend/inspect.outcome": crate::v0_1::frontend::OutcomeHandle,
            "wbuild:frontend/request.named-context": crate::v0_1::frontend::ContextHandle,
        },
    });
}

pub(crate) use describe_guest::{FrontendDescribePre, ask};

use bindings::wbuild::frontend::{diagnostics, graph, inspect, request, results};

pub type LocalBuilder = Builder<LocalSource>;
pub type ExecBuilder = Builder<ExecDraft>;
pub type FileBuilder = Builder<FileDraft>;
/// What an exec did; held by the guest.
pub type OutcomeHandle = Arc<Outcome>;
/// A named context; held by the guest.
pub type ContextHandle = NamedContext;

/// State of a frontend's store.
pub(crate) type State = GuestState<FrontendHost>;

impl Capabilities for FrontendHost {
    fn log(&self) -> &Arc<dyn LogCap> {
        &self.log
    }
}

/// Everything a frontend may import.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    types::wit::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)?;
    types::log::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)?;
    graph::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)?;
    inspect::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)?;
    request::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)?;
    diagnostics::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)?;
    results::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)
}

fn edge_in(output: graph::Output) -> Edge {
    Edge { node: NodeId(output.node), index: output.index }
}

fn edge_out(edge: Edge) -> graph::Output {
    graph::Output { node: edge.node.0, index: edge.index }
}
