//! Interface `nested`.

use wasmtime::component::Resource;
use wbuild_api::extension::{NestedBuild, NestedContext, NestedResult};
use wbuild_graph::Failure;

use super::bindings::wbuild::frontend::{graph, nested};
use super::{NestedBuilder, NestedHandle, State, edge_in, edge_out};
use crate::answers;
use crate::limits::{Pairs, pairs_size, platform_size, texts_size};
use crate::v0_1::types::{failure_out, platform_in, platform_out, span_in, wit};

/// What another frontend yielded, and the bytes that the host holds for it.
pub struct Yielded {
    result: NestedResult,
    bytes: usize,
}

fn filled<T>(value: Option<T>) -> wasmtime::Result<T> {
    let missing = || Failure::internal("a nested result has no platform");
    value.ok_or_else(|| crate::state::refuse(missing()))
}

impl nested::Host for State {
    async fn build(
        &mut self,
        requests: Vec<Resource<NestedBuilder>>,
    ) -> wasmtime::Result<Vec<Result<Resource<NestedHandle>, wit::Failure>>> {
        // All are consumed, also if one of them is no request.
        let requests: Vec<NestedBuild> = requests
            .into_iter()
            .map(|request| self.finish(request)?.map_err(crate::state::refuse))
            .collect::<wasmtime::Result<_>>()?;
        let nested = self.caps()?.nested.clone();
        let mut answers = Vec::new();
        for answer in answers::nested(&*nested, requests, &self.meter).await? {
            answers.push(match answer {
                Ok(result) => {
                    let bytes = answers::nested_size(&result);
                    self.meter.charge(bytes)?;
                    Ok(self.push(Yielded { result, bytes })?)
                }
                Err(failure) => Err(failure_out(failure)),
            });
        }
        Ok(answers)
    }
}

impl nested::HostNestedBuild for State {
    fn new(&mut self, frontend: String) -> wasmtime::Result<Resource<NestedBuilder>> {
        let bytes = texts_size([&frontend]);
        self.begin(NestedBuild { frontend, ..NestedBuild::default() }, bytes)
    }

    fn definition(
        &mut self,
        this: Resource<NestedBuilder>,
        name: String,
        data: Vec<u8>,
    ) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&name]) + data.len(), |build| {
            build.definition = Some((name, data));
            Ok(())
        })
    }

    fn context(
        &mut self,
        this: Resource<NestedBuilder>,
        name: String,
        at: graph::Output,
        config: Option<String>,
    ) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&name].into_iter().chain(&config)), |build| {
            build.contexts.push((name, NestedContext { root: edge_in(at), config }));
            Ok(())
        })
    }

    fn hand_on(&mut self, this: Resource<NestedBuilder>, context: String) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&context]), |build| {
            build.handed_on.push(context);
            Ok(())
        })
    }

    fn target(&mut self, this: Resource<NestedBuilder>, name: String) -> wasmtime::Result<()> {
        self.edit(&this, texts_size([&name]), |build| {
            build.targets.push(name);
            Ok(())
        })
    }

    fn platform(
        &mut self,
        this: Resource<NestedBuilder>,
        platform: wit::Platform,
    ) -> wasmtime::Result<()> {
        let platform = platform_in(platform);
        self.edit(&this, platform_size(&platform), |build| {
            build.platforms.push(platform);
            Ok(())
        })
    }

    fn options(&mut self, this: Resource<NestedBuilder>, options: Pairs) -> wasmtime::Result<()> {
        self.edit(&this, pairs_size(&options), |build| {
            build.options.0.extend(options);
            Ok(())
        })
    }

    fn asked_at(&mut self, this: Resource<NestedBuilder>, at: wit::Span) -> wasmtime::Result<()> {
        self.edit(&this, size_of::<wit::Span>(), |build| {
            build.asked_at.push(span_in(at));
            Ok(())
        })
    }

    fn drop(&mut self, this: Resource<NestedBuilder>) -> wasmtime::Result<()> {
        self.finish(this).map(drop)
    }
}

impl nested::HostNestedResult for State {
    fn images(
        &mut self,
        this: Resource<NestedHandle>,
    ) -> wasmtime::Result<Vec<nested::NestedImage>> {
        let images = self.table.get(&this)?.result.images.clone().into_iter();
        images
            .map(|image| {
                Ok(nested::NestedImage {
                    name: image.name,
                    platform: platform_out(filled(image.platform)?),
                    root: image.root.map(edge_out),
                    config: image.config,
                    attrs: image.attrs.0,
                })
            })
            .collect()
    }

    fn files(
        &mut self,
        this: Resource<NestedHandle>,
    ) -> wasmtime::Result<Vec<nested::NestedFiles>> {
        let files = self.table.get(&this)?.result.files.clone().into_iter();
        files
            .map(|files| {
                Ok(nested::NestedFiles {
                    name: files.name,
                    platform: platform_out(filled(files.platform)?),
                    root: edge_out(files.root),
                    path: files.path,
                    attrs: files.attrs.0,
                })
            })
            .collect()
    }

    fn drop(&mut self, this: Resource<NestedHandle>) -> wasmtime::Result<()> {
        let yielded = self.table.delete(this)?;
        self.meter.release(yielded.bytes);
        Ok(())
    }
}
