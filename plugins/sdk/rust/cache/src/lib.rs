//! Writes cache backends of wbuild: what remembers which results there are for which keys, and keeps
//! their layers.
//!
//! ```
//! use wbuild_cache::{Attrs, Blob, Bucket, Cache, Config, Error, Hash, Layer, Record, Result};
//!
//! wbuild_cache::cache!(Forgetful);
//!
//! /// Knows nothing but what this build has saved.
//! struct Forgetful(wbuild_cache::Table);
//!
//! impl Cache for Forgetful {
//!     fn open(config: Config) -> Result<Self> {
//!         config.finish()?;
//!         Ok(Forgetful(wbuild_cache::Table::default()))
//!     }
//!
//!     fn find(&mut self, keys: &[Hash]) -> Result<Vec<Vec<Record>>> {
//!         Ok(keys.iter().map(|key| self.0.find(key).cloned().collect()).collect())
//!     }
//!
//!     fn fetch(&mut self, layers: &[Layer]) -> Vec<Result<Blob>> {
//!         layers.iter().map(wbuild_cache::present).collect()
//!     }
//!
//!     fn save(&mut self, records: Vec<Record>) -> Result<()> {
//!         records.into_iter().for_each(|record| self.0.add(record));
//!         Ok(())
//!     }
//!
//!     fn push(&mut self, layers: &[Layer]) -> Vec<Result<()>> {
//!         layers.iter().map(|layer| wbuild_cache::present(layer).map(drop)).collect()
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! Compiled for `wasm32-unknown-unknown` with `wasm-component-ld` as the linker, a `cdylib` of this is a
//! component that `--cache-to type=./NAME.wasm` and `--cache-backend` take. It imports what it uses and
//! so asks for no more than that. Compiled natively, [`cache!`] makes a function `cache()`, which
//! `wbuild-testkit` tries in a test, without any component.
//!
//! - [`Cache`] is what a backend does; one value of it serves one backend, direction and build.
//! - [`Table`] holds records as a backend has to: aliases, newest first, prunable. [`document`] is many
//!   records as bytes, with limits and a checksum.
//! - The host's side: [`Bucket`] for values of its own, [`Blob`] for bytes in the content store,
//!   [`repository`] and [`http`] for what the user has named. Bytes of layers never come here.
//!
//! The host computes keys, checks answers and verifies digests. A backend that answers wrongly causes a
//! miss, or is taken out of the build.

mod config;
pub mod http;
#[cfg(not(target_family = "wasm"))]
mod native;
pub mod repository;
#[doc(hidden)]
pub mod session;
#[doc(hidden)]
pub mod sys;

pub use cache_records::{
    Attrs, Hash, Layer, PER_KEY, PruneOptions, Pruned, Record, Table, codec, document,
};
pub use config::Config;
#[cfg(not(target_family = "wasm"))]
pub use native::Native;
pub use sys::{Blob, Bucket, log};
pub use wbuild_graph::{FailureKind, Severity};
pub use wbuild_guest::{Error, Result, ResultExt, WIT_VERSION};

/// Bytes of a blob that the host hands out at once.
const PIECE: u32 = 1 << 20;

/// What a backend does. See `wit/cache`, interface `backend`, for what is promised to the host.
pub trait Cache: Sized + 'static {
    /// Begins. Nothing should be asked of a server yet: a build that finds everything on its own
    /// machine does not wait for one elsewhere.
    ///
    /// # Errors
    ///
    /// When the user's options are wrong; see [`Config::finish`].
    fn open(config: Config) -> Result<Self>;

    /// One list for each key, in order, each newest first. A record has the key that it is found by.
    ///
    /// # Errors
    ///
    /// Take the backend out of the build. What cannot be read is better a miss with a line in the log.
    fn find(&mut self, keys: &[Hash]) -> Result<Vec<Vec<Record>>>;

    /// Makes layers present in the content store; one answer each, in order. An error of the kind
    /// `Gone` makes the hit a miss.
    fn fetch(&mut self, layers: &[Layer]) -> Vec<Result<Blob>>;

    /// Remembers records. An equal one (id and attributes) gets the new keys besides its own.
    ///
    /// # Errors
    ///
    /// Fail the export.
    fn save(&mut self, records: Vec<Record>) -> Result<()>;

    /// Makes layers present in the backend; one answer each, in order. What is there need not be here;
    /// `Gone` for what is in neither place.
    fn push(&mut self, layers: &[Layer]) -> Vec<Result<()>>;

    /// Writes what is not written yet: once, at the end of a build. Answers `records`, `digest`, `size`,
    /// as far as there is something to say.
    ///
    /// # Errors
    ///
    /// Fail the export.
    fn commit(&mut self) -> Result<Attrs> {
        Ok(Attrs::new())
    }

    /// Forgets records.
    ///
    /// # Errors
    ///
    /// Of the kind `Unsupported` where that cannot be done, as it is unless this is written.
    fn prune(&mut self, options: &PruneOptions) -> Result<Pruned> {
        let _ = options;
        Err(Error::new(FailureKind::Unsupported, "this cache cannot be pruned"))
    }
}

/// A layer that is in the content store, for a backend whose layers are nowhere else.
///
/// # Errors
///
/// `Gone` if it is not.
pub fn present(layer: &Layer) -> Result<Blob> {
    Blob::open(&layer.digest).ok_or_else(|| {
        let message = format!("the layer {} is no longer in the store", layer.digest);
        Error::new(FailureKind::Gone, message)
    })
}

impl Blob {
    /// All of it.
    ///
    /// # Errors
    ///
    /// `Invalid` when it has more than `most` bytes; those of the host.
    pub fn whole(&self, most: usize) -> Result<Vec<u8>> {
        let large = || Error::invalid(format!("a blob has more than {most} bytes"));
        if self.size() > most as u64 {
            return Err(large());
        }
        let mut bytes = Vec::new();
        loop {
            let piece = self.read(bytes.len() as u64, PIECE)?;
            if piece.is_empty() {
                return Ok(bytes);
            }
            bytes.extend_from_slice(&piece);
            if bytes.len() > most {
                return Err(large());
            }
        }
    }
}

/// Makes a cache backend of a type that implements [`Cache`]: `cache!(Mine)`. Once in a crate, at its
/// root.
#[macro_export]
macro_rules! cache {
    ($cache:ty) => {
        #[cfg(target_family = "wasm")]
        $crate::__export!($cache);

        /// The cache backend, natively.
        #[cfg(not(target_family = "wasm"))]
        pub fn cache() -> $crate::Native<$cache> {
            $crate::Native::new(env!("CARGO_PKG_NAME"))
        }
    };
}

/// The component's exports.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($cache:ty) => {
        #[allow(unsafe_code)] // The component ABI is made of raw pointers.
        const _: () = {
            use $crate::sys::{self, backend, bindings};
            type Answer<T> = ::std::result::Result<T, backend::Failure>;
            type Text = ::std::string::String;
            type List<T> = ::std::vec::Vec<T>;
            ::std::thread_local! {
                static OPENED: $crate::session::Slot<$cache> = $crate::session::Slot::default();
            }
            struct Component;
            impl backend::Guest for Component {
                fn open(mode: Text, config: backend::Attrs) -> Answer<()> {
                    OPENED.with(|opened| sys::open(opened, &mode, config))
                }
                fn find(keys: List<Text>) -> Answer<List<List<backend::RecordEntry>>> {
                    OPENED.with(|opened| sys::find(opened, &keys))
                }
                fn fetch(layers: List<backend::Descriptor>) -> List<Answer<backend::Blob>> {
                    OPENED.with(|opened| sys::fetch(opened, layers))
                }
                fn save(entries: List<backend::RecordEntry>) -> Answer<()> {
                    OPENED.with(|opened| sys::save(opened, entries))
                }
                fn push(layers: List<backend::Descriptor>) -> List<Answer<()>> {
                    OPENED.with(|opened| sys::push_all(opened, layers))
                }
                fn commit(_options: backend::Attrs) -> Answer<backend::Attrs> {
                    OPENED.with(|opened| sys::commit(opened))
                }
                fn prune(options: backend::Attrs) -> Answer<backend::Attrs> {
                    OPENED.with(|opened| sys::prune(opened, &options))
                }
            }
    bindings::export_backend!(Component with_types_in $crate::sys::bindings);
        };
    };
}
