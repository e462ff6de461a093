//! Plugins: several handlers that come and go together, and say so.

use std::fmt;

use forebay::event::catalog::plugin;
use forebay::{Fields, Name};
use forebay_sync::sync::{Arc, Mutex, Weak, catch_panic};

use super::delivery::Delivery;
use super::emit::Emitter;
use super::engine::Engine;
use super::handle::Bus;
use super::handler::{Handled, Handler, HandlerError, Topics};
use super::id::SubscriptionId;
use super::shared::Shared;
use super::subscribers::SubscribeError;

/// Plugin: handlers that are put into service on a bus as a whole, by [`Plugins::start`].
///
/// ```
/// use forebay_bus::{Bus, Plugin, Plugins, Wiring, SubscribeError};
///
/// struct Counter(std::sync::Arc<std::sync::atomic::AtomicU64>);
///
/// impl Plugin for Counter {
///     fn name(&self) -> &str {
///         "counter"
///     }
///
///     fn start(&self, wiring: &mut Wiring<'_>) -> Result<(), SubscribeError> {
///         let count = self.0.clone();
///         wiring.on("training.*", move |_| {
///             count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
///         })
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::new()?;
/// let plugins = Plugins::new(&bus);
/// let count = std::sync::Arc::default();
/// plugins.start(Counter(std::sync::Arc::clone(&count)))?;
/// bus.emit_sync("training.started", ())?;
/// assert!(plugins.stop("counter"));
/// bus.emit_sync("training.completed", ())?;
/// assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), 1);
/// # Ok(())
/// # }
/// ```
pub trait Plugin: Send + Sync + 'static {
    /// Returns its name, under which its handlers are counted and its events are emitted.
    fn name(&self) -> &str;

    /// Returns its version. Defaults to `None`.
    fn version(&self) -> Option<String> {
        None
    }

    /// Returns what it can do. Defaults to `None`.
    fn capabilities(&self) -> Option<Vec<String>> {
        None
    }

    /// Returns its settings, for the event `plugin.initialized`. Defaults to none.
    fn config(&self) -> Fields {
        Fields::new()
    }

    /// Subscribes what it needs.
    ///
    /// # Errors
    ///
    /// It cannot be put into service: what it has subscribed is taken back.
    fn start(&self, wiring: &mut Wiring<'_>) -> Result<(), SubscribeError>;

    /// Stops the plugin: no call of its handlers begins any more; calls that have begun go on. Does nothing by default.
    fn stop(&self) {}
}

/// Access of a plugin to the bus, while it starts.
pub struct Wiring<'a> {
    engine: &'a Engine,
    emitter: Emitter,
    name: Name,
    ids: Vec<SubscriptionId>,
}

impl Wiring<'_> {
    /// Subscribes a closure, by the rules of [`Bus::on`], for as long as the plugin is in service.
    ///
    /// # Errors
    ///
    /// As for [`Bus::on`].
    pub fn on<R: Handled>(
        &mut self,
        topics: impl Into<Topics>,
        call: impl Fn(&Delivery) -> R + Send + Sync + 'static,
    ) -> Result<(), SubscribeError> {
        self.subscribe(Handler::new(topics, call))
    }

    /// Subscribes a handler, by the rules of [`Bus::subscribe`]; it has the name of the plugin. An event that it does
    /// not take in the end is reported by `plugin.error`.
    ///
    /// # Errors
    ///
    /// As for [`Bus::subscribe`].
    pub fn subscribe(&mut self, handler: Handler) -> Result<(), SubscribeError> {
        let mut handler = handler.named(self.name.clone());
        handler.is_plugin = true;
        self.ids.push(self.engine.subscribe(handler)?);
        Ok(())
    }

    /// Returns an emitter, to be kept.
    pub fn emitter(&self) -> Emitter {
        self.emitter.clone()
    }
}

/// Plugins in service on a bus. Dropped, it stops them; it does not keep the bus alive.
pub struct Plugins {
    shared: Weak<Shared>,
    running: Mutex<Vec<Running>>,
}

struct Running {
    name: Name,
    plugin: Arc<dyn Plugin>,
    ids: Vec<SubscriptionId>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// [`Plugin::start`] has not returned yet.
    Starting,
    /// Nor has it, and somebody has stopped the plugin: the thread that starts it stops it.
    Refused,
    Started,
}

/// Error of a plugin that was not put into service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// Another plugin has its name.
    #[error("a plugin named {name:?} already exists")]
    DuplicatePlugin {
        /// The name.
        name: String,
    },
    /// A handler of it was not subscribed.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// The plugin panicked.
    #[error("plugin {name:?} panicked: {said}")]
    Panicked {
        /// Name of the plugin.
        name: String,
        /// Message of the panic.
        said: String,
    },
}

impl Plugins {
    /// Creates the plugins of a bus: none yet.
    pub fn new(bus: &Bus) -> Self {
        Self { shared: Arc::downgrade(&bus.shared), running: Mutex::default() }
    }

    /// Starts a plugin, and announces it: `plugin.loaded`, `plugin.initialized` and `plugin.activated`. One that cannot
    /// start is reported by `plugin.error`.
    ///
    /// # Errors
    ///
    /// Another plugin has its name; it could not subscribe, because the bus is stopped for example; or it panicked. Nothing
    /// of it stays subscribed then.
    pub fn start(&self, plugin: impl Plugin) -> Result<(), PluginError> {
        let plugin: Arc<dyn Plugin> = Arc::new(plugin);
        let shared = self.shared.upgrade().ok_or(SubscribeError::Stopped)?;
        shared.check().map_err(SubscribeError::from)?;
        // User code, like all of the plugin: no lock is held.
        let plugin_name = plugin.name().to_owned();
        let name: Name = plugin_name.clone().into();
        let (ids, stage) = (Vec::new(), Stage::Starting);
        let entry = Running { name: name.clone(), plugin: Arc::clone(&plugin), ids, stage };
        let mut running = self.running.lock();
        if running.iter().any(|it| it.name == name) {
            drop(running);
            return Err(PluginError::DuplicatePlugin { name: plugin_name });
        }
        running.push(entry);
        drop(running);
        let panicked = |said| PluginError::Panicked { name: plugin_name.clone(), said };
        let give_up = |error: &PluginError| {
            let refused = take(&mut self.running.lock(), &name);
            drop(refused);
            let (plugin_name, said) = (plugin_name.clone(), error.to_string());
            shared.engine.emit_own(plugin::Error { plugin_name, error: said });
        };
        let version = catch_panic(|| plugin.version()).map_err(panicked).inspect_err(give_up)?;
        shared.engine.emit_own(plugin::Loaded {
            plugin_name: plugin_name.clone(),
            version: version.clone().unwrap_or_default(),
        });
        let emitter = Emitter(Weak::clone(&self.shared));
        let mut wiring = Wiring { engine: &shared.engine, emitter, name: name.clone(), ids: Vec::new() };
        let start = || {
            plugin.start(&mut wiring)?;
            Ok::<_, SubscribeError>((plugin.config(), plugin.capabilities()))
        };
        let started = catch_panic(start).map_err(panicked).and_then(|started| Ok(started?));
        let (config, capabilities) = started.inspect_err(|error| {
            wiring.ids.iter().for_each(|id| _ = shared.engine.unsubscribe(*id));
            give_up(error);
        })?;
        let ids = wiring.ids;
        let mut was_refused = false;
        if let Some(own) = self.running.lock().iter_mut().find(|it| it.name == name) {
            was_refused = own.stage == Stage::Refused;
            (own.ids, own.stage) = (ids, Stage::Started);
        }
        if was_refused {
            self.stop(&name);
            return Ok(());
        }
        shared.engine.emit_own(plugin::Initialized { plugin_name: plugin_name.clone(), config });
        shared.engine.emit_own(plugin::Activated { plugin_name, version, capabilities });
        Ok(())
    }

    /// Unsubscribes a plugin, stops it, and announces that: `plugin.deactivated`. Returns whether there was one of
    /// that name. No call of its handlers begins once this has returned; calls that have begun go on. A plugin that
    /// another thread is starting is stopped by that thread, as soon as its start has returned.
    pub fn stop(&self, name: &str) -> bool {
        let shared = self.shared.upgrade();
        let Ok(mut running) = self.running.enter() else { return false };
        if let Some(own) = running.iter_mut().find(|it| it.name == name && it.stage != Stage::Started) {
            return std::mem::replace(&mut own.stage, Stage::Refused) == Stage::Starting;
        }
        let Some(own) = take(&mut running, name) else { return false };
        drop(running);
        if let Some(shared) = &shared {
            own.ids.iter().for_each(|id| _ = shared.engine.unsubscribe(*id));
        }
        let plugin_name = name.to_owned();
        let stopped = catch_panic(|| own.plugin.stop());
        if let Some(shared) = shared {
            if let Err(said) = stopped {
                let error = HandlerError::new(format!("panicked: {said}")).to_string();
                shared.engine.emit_own(plugin::Error { plugin_name: plugin_name.clone(), error });
            }
            shared.engine.emit_own(plugin::Deactivated { plugin_name });
        }
        // Its destructor is user code.
        let _ = catch_panic(|| drop(own));
        true
    }

    /// Returns the names of those in service, in the order of their starts.
    pub fn names(&self) -> Vec<String> {
        let Ok(running) = self.running.enter() else { return Vec::new() };
        running.iter().map(|it| it.name.to_string()).collect()
    }
}

fn take(running: &mut Vec<Running>, name: &str) -> Option<Running> {
    let index = running.iter().position(|it| it.name == name)?;
    Some(running.remove(index))
}

impl Drop for Plugins {
    fn drop(&mut self) {
        // Those that were started last may need the others.
        self.names().iter().rev().for_each(|name| _ = self.stop(name));
    }
}

impl fmt::Debug for Wiring<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wiring").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Plugins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugins").field("names", &self.names()).finish_non_exhaustive()
    }
}
