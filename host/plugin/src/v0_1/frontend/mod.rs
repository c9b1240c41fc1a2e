//! `wbuild:frontend@0.1`.

mod describe_guest;
mod graph_host;
mod inspect_host;
mod nested_host;
mod request_host;
mod results_host;

use std::sync::Arc;

use wasmtime::component::Linker;
use wbuild_api::extension::{FrontendHost, LogCap, NamedContext, NestedBuild, Outcome};
use wbuild_graph::draft::{ExecDraft, FileDraft, LocalDraft};
use wbuild_graph::{Digest, Edge, NodeId};

use super::types;
use crate::state::{Access, Builder, Capabilities, GuestState};

/// Generated from `wit/frontend`: everything that a frontend may import.
#[allow(missing_docs, unsafe_code, clippy::all)]
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: ["../../wit/types", "../../wit/frontend"],
        inline: "
            package wbuild:host-frontend;
            world granted {
                include wbuild:frontend/frontend@0.1.0;
                import wbuild:frontend/nested@0.1.0;
            }
        ",
        world: "wbuild:host-frontend/granted",
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
            "wbuild:frontend/nested.build": async | trappable,
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
            "wbuild:frontend/nested.nested-build": crate::v0_1::frontend::NestedBuilder,
            "wbuild:frontend/nested.nested-result": crate::v0_1::frontend::NestedHandle,
        },
    });
}

pub(crate) use describe_guest::{FrontendDescribePre, ask};

use bindings::wbuild::frontend::{diagnostics, graph, inspect, nested, request, results};

pub type LocalBuilder = Builder<LocalDraft>;
pub type ExecBuilder = Builder<ExecDraft>;
pub type FileBuilder = Builder<FileDraft>;
/// What an exec did; held by the guest.
pub type OutcomeHandle = Arc<Outcome>;
/// A named context; held by the guest.
pub type ContextHandle = NamedContext;

/// A request to another frontend.
pub type NestedBuilder = Builder<NestedBuild>;
/// What another frontend yielded; held by the guest.
pub type NestedHandle = nested_host::Yielded;

/// State of a frontend's store.
pub(crate) type State = GuestState<FrontendHost>;

impl Capabilities for FrontendHost {
    fn log(&self) -> &Arc<dyn LogCap> {
        &self.log
    }

    fn epoch(&self) -> Option<u64> {
        self.request.epoch()
    }

    fn seed(&self) -> Vec<u8> {
        let definition = self.request.definition();
        definition.map_or_else(|_| Vec::new(), |file| Digest::of(&file.data).as_bytes().to_vec())
    }
}

/// Everything a frontend may import; what it was not granted is refused before it is linked.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    types::wit::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)?;
    types::log::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)?;
    graph::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)?;
    inspect::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)?;
    request::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)?;
    diagnostics::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)?;
    results::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)?;
    nested::add_to_linker::<_, Access<FrontendHost>>(linker, |state| state)
}

fn edge_in(output: graph::Output) -> Edge {
    Edge { node: NodeId(output.node), index: output.index }
}

fn edge_out(edge: Edge) -> graph::Output {
    graph::Output { node: edge.node.0, index: edge.index }
}
