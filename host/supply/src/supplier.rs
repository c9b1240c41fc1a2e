//! From a reference to a plugin that may be used, with what it is granted; or why not.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use wbuild_api::extension::{Allowed, Origin};
use wbuild_graph::{Attrs, Digest, Failure, FailureKind};
use wbuild_plugin::{Grants, Limits, Plugin, PluginHost, PluginKind, PluginSource};

use crate::artifact::MAX_SIGNATURES;
use crate::catalog;
use crate::consent::{Consents, Want};
use crate::document::{Problem, denied, read_file};
use crate::fetch::Fetcher;
use crate::limits::{self, LimitLine};
use crate::lock::{Lock, Locked};
use crate::policy::{self, Policy, Rule};
use crate::project::{Alias, FILE as PROJECT_FILE, Project};
use crate::reference::PluginRef;
use crate::signature::{SUFFIX, Signature};
use crate::store::{Kept, PluginStore};

/// From this size on a component takes so long to be compiled that people wonder, in bytes: a second or
/// more.
const SLOW_BYTES: usize = 3 << 20;
/// The interface by which a frontend calls others.
const NESTED: &str = "wbuild:frontend/nested";

/// Whoever can be asked whether a plugin may have what it wants.
pub trait Ask: Send + Sync {
    /// The answer; none if there is nobody.
    ///
    /// # Errors
    ///
    /// The question cannot be put.
    fn ask(&self, question: &str) -> Result<Option<bool>, Failure>;
}

/// Nobody.
pub struct Unattended;

impl Ask for Unattended {
    fn ask(&self, _: &str) -> Result<Option<bool>, Failure> {
        Ok(None)
    }
}

/// What a [`Supplier`] works with.
pub struct SupplierOptions {
    /// Loads components.
    pub host: PluginHost,
    /// The project; none where there is none on this machine. Then nothing is locked.
    pub project: Option<Arc<Project>>,
    /// The user's policy.
    pub policy: Policy,
    /// Where the user's policy is, or would be; for messages.
    pub policy_path: String,
    /// What the user has granted before.
    pub consents: Consents,
    /// Components that were fetched before.
    pub store: PluginStore,
    /// Made when something has to be fetched first: it reads certificates.
    pub fetcher: Box<dyn Fn() -> Fetcher + Send + Sync>,
    /// Nothing is added to the lock: what is not in it is an error.
    pub locked: bool,
    /// Nothing is fetched.
    pub offline: bool,
}

/// See the module.
pub struct Supplier {
    options: SupplierOptions,
    lock: Mutex<Option<Lock>>,
    consents: Mutex<Consents>,
    fetcher: OnceLock<Fetcher>,
    apart: bool,
}

/// A plugin that may be used.
#[derive(Clone)]
pub struct Supplied {
    /// The plugin, with its grants.
    pub plugin: Plugin,
    /// What it is, after names of the project.
    pub source: PluginRef,
    /// Why it may do what it may.
    pub decision: Decision,
    /// Things to be said.
    pub notes: Vec<String>,
}

/// What was decided of a plugin.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What it is used as.
    pub kind: PluginKind,
    /// What it wants beyond what every plugin of its kind gets, and why it has it; no reason where it
    /// has not.
    pub wants: Vec<(Want, Option<String>)>,
    /// The entry of the policy that covers it.
    pub rule: Option<Rule>,
    /// The key that it is signed with, where the policy wants one.
    pub signer: Option<String>,
    /// What it is narrowed to.
    pub allowed: Allowed,
    /// Its limits.
    pub limits: Limits,
    /// Those that can be set, and who has set them.
    pub limit_lines: Vec<LimitLine>,
    /// Where it is locked: the manifest, if it is of a registry.
    pub manifest: Option<Digest>,
}

/// A component at hand.
struct Obtained {
    plugin: Plugin,
    manifest: Option<Digest>,
    signatures: Vec<String>,
    notes: Vec<String>,
    /// It is not in the lock.
    new: bool,
}

fn lock_of<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Supplier {
    /// A supplier. Reads the project's lock.
    ///
    /// # Errors
    ///
    /// The lock cannot be read.
    pub fn new(mut options: SupplierOptions) -> Result<Supplier, Problem> {
        let lock = match &options.project {
            Some(project) => Some(Lock::of(project.root())?),
            None => None,
        };
        let consents = std::mem::take(&mut options.consents);
        Ok(Supplier {
            options,
            lock: Mutex::new(lock),
            consents: Mutex::new(consents),
            fetcher: OnceLock::new(),
            apart: false,
        })
    }

    /// The same supplier, but components are looked at where they are compiled: see
    /// [`PluginHost::load_apart`].
    #[must_use]
    pub fn apart(self) -> Supplier {
        Supplier { apart: true, ..self }
    }

    /// The project.
    pub fn project(&self) -> Option<&Project> {
        self.options.project.as_deref()
    }

    /// Where the policy was read from, if there is one.
    pub fn policy(&self) -> Option<&str> {
        self.options.policy.shown()
    }

    /// The host that loads components.
    pub fn host(&self) -> &PluginHost {
        &self.options.host
    }

    /// The fetcher.
    pub fn fetcher(&self) -> &Fetcher {
        self.fetcher.get_or_init(&self.options.fetcher)
    }

    /// What is in the project's lock.
    pub fn locked(&self) -> Vec<(String, Locked)> {
        let lock = lock_of(&self.lock);
        let entries = lock.iter().flat_map(Lock::entries);
        entries.map(|(source, locked)| (source.to_owned(), locked.clone())).collect()
    }

    /// What a name means: the project's, else the bundled plugin.
    ///
    /// # Errors
    ///
    /// There is no such plugin.
    pub fn resolve(
        &self,
        kind: PluginKind,
        reference: &PluginRef,
    ) -> Result<(PluginRef, Option<&Alias>), Failure> {
        let (source, alias) = match reference {
            PluginRef::Named(name) => {
                match self.project().and_then(|project| project.alias(kind, name)) {
                    Some(alias) => (alias.source.clone(), Some(alias)),
                    None => (PluginRef::Bundled(name.clone()), None),
                }
            }
            other => (other.clone(), None),
        };
        if let PluginRef::Bundled(name) = &source {
            catalog::find(kind, name)?;
        }
        Ok((source, alias))
    }

    /// A plugin that may be used as this kind. `config` is what the project, and not the user, has
    /// said of where a cache is.
    ///
    /// # Errors
    ///
    /// It cannot be had, or may not be used.
    pub async fn supply(
        &self,
        kind: PluginKind,
        reference: &PluginRef,
        config: &Attrs,
        ask: &dyn Ask,
    ) -> Result<Supplied, Failure> {
        let (source, obtained, decision) = self.consider(kind, reference, config).await?;
        let name = source.shown();
        let digest = obtained.plugin.digest();
        let mut missing: Vec<Want> = Vec::new();
        missing
            .extend(decision.wants.iter().filter(|(_, why)| why.is_none()).map(|(w, _)| w.clone()));
        if !missing.is_empty() && !self.asked(kind, &name, &digest, &missing, ask)? {
            return Err(self.refused(kind, &source, &digest, &missing));
        }
        if obtained.new {
            self.pin(&source, &obtained, &decision);
        }
        let nested = decision.wants.iter().any(|(want, _)| *want == Want::Nested);
        let plugin = self.granted(kind, &source, obtained.plugin, &decision, nested);
        let mut notes = obtained.notes;
        if plugin.bytes().len() >= SLOW_BYTES && !plugin.is_compiled() {
            let size = plugin.bytes().len() / 1_000_000;
            notes.push(format!("{name} ({size} MB) is compiled now, which takes a while; once"));
        }
        Ok(Supplied { plugin, source, decision, notes })
    }

    /// What would be decided of a plugin. Asks nobody, changes neither lock nor grants. One that is not
    /// of this kind is looked at as what it is.
    ///
    /// # Errors
    ///
    /// It cannot be had, or may not be used at all.
    pub async fn look_at(
        &self,
        kind: PluginKind,
        reference: &PluginRef,
    ) -> Result<Supplied, Failure> {
        let config = match self.resolve(kind, reference)?.1 {
            Some(alias) => alias.config.clone(),
            None => Attrs::default(),
        };
        let (source, obtained, decision) = self.consider(kind, reference, &config).await?;
        let kind = decision.kind;
        let nested =
            decision.wants.iter().any(|(want, why)| *want == Want::Nested && why.is_some());
        let plugin = self.granted(kind, &source, obtained.plugin, &decision, nested);
        Ok(Supplied { plugin, source, decision, notes: obtained.notes })
    }

    async fn consider(
        &self,
        kind: PluginKind,
        reference: &PluginRef,
        config: &Attrs,
    ) -> Result<(PluginRef, Obtained, Decision), Failure> {
        let (source, alias) = self.resolve(kind, reference)?;
        let policy = &self.options.policy;
        policy.check_name(&source)?;
        let mut obtained = self.obtain(kind, &source).await?;
        let digest = obtained.plugin.digest();
        let rule = policy.rule(&source, &digest)?.cloned();
        let signer = match &rule {
            Some(rule)
                if !rule.signed_by.is_empty() && !matches!(source, PluginRef::Bundled(_)) =>
            {
                Some(self.signer(&source, rule, &mut obtained).await?)
            }
            _ => None,
        };
        let kinds = obtained.plugin.kinds();
        let kind =
            if kinds.contains(&kind) { kind } else { kinds.first().copied().unwrap_or(kind) };
        let mut wants = Want::of_config(config);
        if kind == PluginKind::Frontend && imports(&obtained.plugin, NESTED) {
            wants.insert(0, Want::Nested);
        }
        let consents = lock_of(&self.consents);
        let wants = wants.into_iter().map(|want| {
            let why = match &rule {
                _ if want == Want::Nested && matches!(source, PluginRef::Bundled(_)) => {
                    Some("it comes with wbuild".to_owned())
                }
                Some(rule) if want.is_granted(rule) => {
                    Some(format!("the policy's entry for {} says so", rule.shown))
                }
                _ if consents.has(&digest, &want) => Some("you have said so before".to_owned()),
                _ => None,
            };
            (want, why)
        });
        let wants = wants.collect();
        let set = rule.as_ref().map(|rule| rule.limits).unwrap_or_default();
        let low = alias.map(|alias| alias.limits).unwrap_or_default();
        let limits = low.lower(set.set(Limits::of(kind)));
        let limit_lines = limits::lines(kind, &set, &low);
        let allowed = Allowed {
            images: rule.as_ref().and_then(|rule| rule.images.clone()),
            files: rule.as_ref().and_then(|rule| rule.files.clone()),
            tools: rule.as_ref().map(|rule| rule.tools.clone()).unwrap_or_default(),
        };
        let manifest = obtained.manifest;
        let decision =
            Decision { kind, wants, rule, signer, allowed, limits, limit_lines, manifest };
        Ok((source, obtained, decision))
    }

    fn granted(
        &self,
        kind: PluginKind,
        source: &PluginRef,
        plugin: Plugin,
        decision: &Decision,
        nested: bool,
    ) -> Plugin {
        let origin = match source {
            PluginRef::Bundled(_) => Origin::Bundled,
            other => Origin::From(other.source()),
        };
        plugin.granted(Grants {
            nested,
            origin,
            allowed: decision.allowed.clone(),
            limits: Some((kind, decision.limits)),
        })
    }

    // ---- what others call ----------------------------------------------------------------------

    /// What a frontend means that calls another by this text: the project's name, else the bundled
    /// frontend's; or a reference, if the project or the policy names it. Nothing else is fetched:
    /// the text may come from a definition, which chooses among what there is. It is supplied as any
    /// other, with what is granted to itself; [`crate::Unattended`], for a build is going on.
    ///
    /// # Errors
    ///
    /// It may not be called, or is no reference at all.
    pub fn callee(&self, text: &str) -> Result<PluginRef, Failure> {
        let reference = PluginRef::parse(text.as_ref(), Path::new("/"))?;
        if let PluginRef::File { shown, .. } = &reference {
            return Err(denied(format!("a frontend calls {shown:?}, and files are not called so"))
                .hint(format!(
                    "a component of the project is called by the name that {PROJECT_FILE} gives it"
                ))
                .hint("one in a registry is called oci://REGISTRY/NAME:TAG"));
        }
        if !reference.is_remote() {
            return Ok(reference);
        }
        let aliases = self.project().into_iter().flat_map(Project::aliases);
        let mut frontends = aliases.filter(|alias| alias.kind == PluginKind::Frontend);
        if let Some(alias) = frontends.find(|alias| alias.source == reference) {
            return Ok(PluginRef::Named(alias.name.clone()));
        }
        let locked = lock_of(&self.lock).as_ref().and_then(|lock| lock.get(&reference).cloned());
        let digest = match &reference {
            PluginRef::Web(web) => Some(web.digest),
            _ => locked.map(|locked| locked.component),
        };
        if self.options.policy.names(&reference, digest.as_ref()) {
            return Ok(reference);
        }
        let mut failure = denied(format!(
            "a frontend calls {reference}, which neither the project nor the policy names"
        ));
        if self.project().is_some() {
            let source = toml::Value::from(reference.to_string());
            failure.hints.push(format!(
                "to let frontends call it, give it a name in {PROJECT_FILE}:\n\
                 [frontend.NAME]\nsource = {source}"
            ));
        }
        failure.hints.push(format!(
            "or name it in {}:\n{}",
            self.options.policy_path,
            policy::entry(&policy::name_of(&reference), &[])
        ));
        Err(failure)
    }

    fn embedded(&self, kind: PluginKind, name: &str) -> Result<Plugin, Failure> {
        let bundled = catalog::find(kind, name)?;
        let digest = Digest::from_bytes(bundled.digest);
        let bytes = PluginSource::Embedded { bytes: bundled.bytes, digest };
        self.options.host.load(bundled.name, bytes)
    }

    // ---- getting it ----------------------------------------------------------------------------

    async fn obtain(&self, kind: PluginKind, source: &PluginRef) -> Result<Obtained, Failure> {
        let here = |plugin| Obtained {
            plugin,
            manifest: None,
            signatures: Vec::new(),
            notes: Vec::new(),
            new: false,
        };
        match source {
            PluginRef::Bundled(name) | PluginRef::Named(name) => {
                self.embedded(kind, name).map(here)
            }
            PluginRef::File { shown, path } => {
                let loaded = self.load(shown, path.as_path().into()).await;
                let loaded = loaded.map_err(|failure| match looks_remote(shown, &failure) {
                    true => failure.hint(format!("if a registry has it: oci://{shown}")),
                    false => failure,
                });
                let mut obtained = here(loaded?);
                let mut beside = path.clone().into_os_string();
                beside.push(SUFFIX);
                if let Ok(text) = read_file(beside.as_ref()) {
                    obtained.signatures.extend(String::from_utf8(text).ok());
                }
                Ok(obtained)
            }
            PluginRef::Registry(_) | PluginRef::Web(_) => self.remote(source).await,
        }
    }

    async fn remote(&self, source: &PluginRef) -> Result<Obtained, Failure> {
        let locked = lock_of(&self.lock).as_ref().and_then(|lock| lock.get(source).cloned());
        let known = match source {
            PluginRef::Web(web) => Some(web.digest),
            _ => locked.as_ref().map(|locked| locked.component),
        };
        if let Some(kept) = known.and_then(|digest| self.options.store.get(source, &digest)) {
            return self.loaded(source, kept, locked.is_none()).await;
        }
        let pinned = match source {
            PluginRef::Registry(reference) => reference.digest().is_some(),
            _ => true,
        };
        if self.options.locked && locked.is_none() && !pinned {
            return Err(denied(format!("the plugin {source} is not in wbuild.lock")).hint(format!(
                "build once without --locked, or run `wbuild plugin update {source}`, and commit \
                 wbuild.lock"
            )));
        }
        if self.options.offline && known.is_none() {
            // What it is may well be here; only the registry says which one it is.
            let message = format!(
                "the plugin {source} is not pinned, and --offline forbids to ask what it is"
            );
            return Err(Failure::new(FailureKind::Unavailable, message)
                .hint(format!("while there is a network: wbuild plugin update {source}")));
        }
        if self.options.offline {
            let message =
                format!("the plugin {source} is not here, and --offline forbids to fetch it");
            return Err(Failure::new(FailureKind::Unavailable, message)
                .hint(format!("while there is a network: wbuild plugin warm {source}")));
        }
        let fetcher = self.fetcher();
        let found = fetcher.find(source, locked.as_ref()).await?;
        let kept = match self.options.store.get(source, &found.component) {
            Some(kept) => Kept { manifest: found.manifest, ..kept },
            None => {
                let bytes = fetcher.component(source, &found).await?;
                Kept { bytes, manifest: found.manifest, signatures: Vec::new() }
            }
        };
        let mut obtained = self.loaded(source, kept, locked.is_none()).await?;
        self.keep(source, &mut obtained);
        Ok(obtained)
    }

    async fn load(&self, name: &str, source: PluginSource) -> Result<Plugin, Failure> {
        match self.apart {
            true => self.options.host.load_apart(name, source).await,
            false => self.options.host.load(name, source),
        }
    }

    async fn loaded(&self, source: &PluginRef, kept: Kept, new: bool) -> Result<Obtained, Failure> {
        let Kept { bytes, manifest, signatures } = kept;
        let plugin = self.load(&source.shown(), bytes.into()).await?;
        let new = new && matches!(source, PluginRef::Registry(_));
        Ok(Obtained { plugin, manifest, signatures, notes: Vec::new(), new })
    }

    /// Keeps what was fetched. Without that it is fetched again.
    fn keep(&self, source: &PluginRef, obtained: &mut Obtained) {
        let kept = Kept {
            bytes: Arc::from(obtained.plugin.bytes()),
            manifest: obtained.manifest,
            signatures: obtained.signatures.clone(),
        };
        let store = &self.options.store;
        if let Err(error) = store.keep(source, &obtained.plugin.digest(), &kept) {
            let place = store.directory().display();
            obtained.notes.push(format!("the plugin {source} cannot be kept in {place}: {error}"));
        }
    }

    /// The key that a component is signed with: by the signature that is here, else by one that is
    /// where the component comes from.
    async fn signer(
        &self,
        source: &PluginRef,
        rule: &Rule,
        obtained: &mut Obtained,
    ) -> Result<String, Failure> {
        let keys = self.options.policy.keys();
        let what = source.to_string();
        let verify = |obtained: &Obtained| {
            let read = obtained.signatures.iter().take(MAX_SIGNATURES);
            let read = read.filter_map(|text| Signature::read(text.as_bytes(), &what).ok());
            let read: Vec<Signature> = read.collect();
            keys.verify(&rule.signed_by, &read, obtained.plugin.bytes(), &what).map(str::to_owned)
        };
        let failure = match verify(obtained) {
            Ok(signer) => return Ok(signer),
            Err(failure) => failure,
        };
        if !source.is_remote() {
            return Err(failure.hint(format!("its signature lies beside it: {what}{SUFFIX}")));
        }
        if self.options.offline {
            return Err(
                failure.hint("--offline forbids to ask for a signature where it comes from")
            );
        }
        obtained.signatures = self.fetcher().signatures(source, obtained.manifest).await?;
        let signer = verify(obtained)?;
        self.keep(source, obtained);
        Ok(signer)
    }

    // ---- trusting it ---------------------------------------------------------------------------

    fn asked(
        &self,
        kind: PluginKind,
        name: &str,
        digest: &Digest,
        missing: &[Want],
        ask: &dyn Ask,
    ) -> Result<bool, Failure> {
        let wants: String = missing.iter().map(|want| format!("  - {}\n", want.words())).collect();
        let question =
            format!("The {kind} {name} ({digest}) wants to\n{wants}Grant it that? [y/N] ");
        if ask.ask(&question)? != Some(true) {
            return Ok(false);
        }
        lock_of(&self.consents).add(*digest, name, missing)?;
        Ok(true)
    }

    fn refused(
        &self,
        kind: PluginKind,
        source: &PluginRef,
        digest: &Digest,
        missing: &[Want],
    ) -> Failure {
        let name = source.shown();
        let mut failure = denied(format!("the {kind} {name} is not granted what it wants"));
        failure.causes.extend(missing.iter().map(|want| format!("it wants to {}", want.words())));
        let lines: Vec<String> = missing.iter().filter_map(Want::line).collect();
        if !lines.is_empty() {
            failure.hints.push(format!(
                "to grant it, put this before other entries of {}:\n{}",
                self.options.policy_path,
                policy::entry(&digest.to_string(), &lines)
            ));
            failure.hints.push(format!(
                "or grant it to all that comes from there: match = {}",
                toml::Value::from(policy::name_of(source))
            ));
        }
        if missing.iter().any(|want| *want != Want::Nested) {
            let hint =
                "or say on the command line where the cache is; what you write needs no grant";
            failure.hints.push(hint.to_owned());
        }
        failure.attr("plugin", name)
    }

    // ---- the lock ------------------------------------------------------------------------------

    fn pin(&self, source: &PluginRef, obtained: &Obtained, decision: &Decision) {
        let Some(locked) = locked(obtained, decision) else { return };
        if !self.options.locked
            && let Some(lock) = &mut *lock_of(&self.lock)
        {
            lock.set(source, locked);
        }
    }

    /// Writes the lock if it has changed. Something to be said, if there is.
    pub fn save_lock(&self) -> Option<String> {
        let mut lock = lock_of(&self.lock);
        let lock = lock.as_mut()?;
        match lock.save() {
            Ok(true) => Some(format!("pinned plugins in {}", lock.path().display())),
            Ok(false) => None,
            Err(failure) => Some(format!("plugins are not pinned: {failure}")),
        }
    }

    /// What a reference means now, and what it is locked to.
    ///
    /// # Errors
    ///
    /// It cannot be had, or may not be used.
    pub async fn newest(&self, kind: PluginKind, source: &PluginRef) -> Result<Update, Failure> {
        let before = lock_of(&self.lock).as_mut().and_then(|lock| lock.take(source));
        let considered = self.consider(kind, source, &Attrs::default()).await;
        if let (Some(before), Some(lock)) = (&before, &mut *lock_of(&self.lock)) {
            lock.put_back(source, before.clone());
        }
        let (_, obtained, decision) = considered?;
        let after = locked(&obtained, &decision)
            .ok_or_else(|| Failure::internal(format!("{source} is not locked")))?;
        Ok(Update { source: source.clone(), before, after, decision })
    }

    /// Locks what an update has found.
    pub fn accept(&self, update: &Update) {
        if let Some(lock) = &mut *lock_of(&self.lock) {
            lock.set(&update.source, update.after.clone());
        }
    }
}

/// What has become of a reference.
#[derive(Clone, Debug)]
pub struct Update {
    /// The reference.
    pub source: PluginRef,
    /// What it was locked to.
    pub before: Option<Locked>,
    /// What it means now.
    pub after: Locked,
    /// What is decided of that.
    pub decision: Decision,
}

fn locked(obtained: &Obtained, decision: &Decision) -> Option<Locked> {
    Some(Locked {
        manifest: obtained.manifest?,
        component: obtained.plugin.digest(),
        imports: obtained.plugin.imports().to_vec(),
        signer: decision.signer.clone(),
    })
}

/// Whether a file that is not there is named as something in a registry is.
fn looks_remote(shown: &str, failure: &Failure) -> bool {
    let host = shown.split('/').next().unwrap_or_default();
    failure.kind == FailureKind::NotFound
        && !host.is_empty()
        && !host.starts_with('.')
        && (host.contains(['.', ':']) || host == "localhost")
        && shown.contains('/')
        && PluginRef::image(shown).is_ok()
}

/// Whether a component imports an interface, of whatever version.
fn imports(plugin: &Plugin, path: &str) -> bool {
    plugin.imports().iter().any(|name| name.split('@').next() == Some(path))
}
