//! Settings from outside of the program, laid one upon the other.

use std::ffi::OsString;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::draft::Draft;
use super::error::{ConfigError, ConfigPlace};
use super::keys::{self, KEYS, Key, PREFIX};
use super::preset::Preset;
use super::settings::Config;
use super::value::{Wrong, read_table};

/// The name of the setting that chooses the preset, which is none of [`Config`].
const PRESET: &str = "preset";

/// Loads settings from a preset, files and the environment.
///
/// Each layer says what differs from those below it. From the lowest:
///
/// 1. the defaults;
/// 2. the preset: that of the highest layer that has the key `preset` (`FOREBAY_PRESET` in the environment), else that of
///    [`preset`](Self::preset);
/// 3. files and texts, each one over those that were given before it;
/// 4. the environment, wherever it stands in the chain of calls;
/// 5. what the program itself sets afterwards, on the [`Config`] or the builder.
///
/// Every key, its variable, its default and what is allowed are in [`docs/configuration.md`][docs]. A key that is
/// unknown is an error, and so is a variable that begins with `FOREBAY_` and is no setting. Two kinds of variables are
/// passed over: an empty one counts as unset, and one that Kubernetes sets for a service called `forebay`
/// (`FOREBAY_SERVICE_HOST`, `FOREBAY_PORT_80_TCP`) leaves a [warning](Config::warnings).
///
/// ```
/// # #[cfg(feature = "toml")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use forebay::{Collector, Config, FlushStrategy, Preset};
///
/// let text = "
///     capacity = 20_000
///     flush.interval = '250ms'
/// ";
/// let config = Config::loader()
///     .preset(Preset::Training)
///     .toml(text) // Or `toml_file(path)`.
///     .vars([("FOREBAY_CAPACITY", "30000")]) // Or `env()`: the variables of this process.
///     .load()?;
/// assert_eq!(config.capacity, 30_000);
/// assert_eq!(config.flush, FlushStrategy::Hybrid { events: 512, interval: Duration::from_millis(250) });
///
/// let collector = Collector::builder().config(config).capacity(40_000).start()?;
/// assert_eq!(collector.config().capacity, 40_000);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "toml"))]
/// # fn main() {}
/// ```
///
/// [docs]: https://docs.rs/crate/forebay/latest/source/docs/configuration.md
#[derive(Debug, Clone, Default)]
#[must_use = "a loader does nothing until `load`"]
pub struct ConfigLoader {
    preset: Option<Preset>,
    texts: Vec<Result<Layer, ConfigError>>,
    variables: Vec<Result<Layer, ConfigError>>,
}

impl ConfigLoader {
    /// Begins with the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes by that preset where neither a file nor the environment chooses another one.
    pub fn preset(mut self, preset: Preset) -> Self {
        self.preset = Some(preset);
        self
    }

    /// Adds the variables of this process that begin with `FOREBAY_`, as they are now.
    pub fn env(self) -> Self {
        self.vars(std::env::vars_os())
    }

    /// Adds variables in the place of those of the process. Of those that do not begin with `FOREBAY_`, nothing is read.
    pub fn vars<N: Into<OsString>, V: Into<OsString>>(
        mut self,
        vars: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let vars = vars.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.variables.push(Layer::of_vars(vars));
        self
    }

    pub(super) fn text(mut self, layer: Result<Layer, ConfigError>) -> Self {
        self.texts.push(layer);
        self
    }

    /// Lays all layers one upon the other, and checks what comes out.
    ///
    /// # Errors
    ///
    /// The first that is wrong, by its key or variable and the place where it was found: a key is unknown; a value
    /// cannot be read or is not allowed; two names of one setting have different values in one layer; with the strategy
    /// or the policy that a layer comes to, something is missing, or something is set of which nothing comes; a file
    /// cannot be read or is no TOML. The keys of a bus are read, and nothing comes of them: see [`load_bus`](Self::load_bus).
    pub fn load(self) -> Result<Config, ConfigError> {
        let base = |preset: Option<Preset>| preset.map_or_else(Config::default, Preset::config);
        let (draft, layers) = self.lay(|preset| Draft::new(base(preset)))?;
        draft.config.validate().map_err(|error| with_its_place(error, &layers))?;
        Ok(draft.config)
    }

    /// Lays all layers upon the base of the preset that they choose, which lies upon that of none.
    pub(super) fn lay(
        self,
        base: impl Fn(Option<Preset>) -> Draft,
    ) -> Result<(Draft, Vec<Layer>), ConfigError> {
        let layers = self.texts.into_iter().chain(self.variables).collect::<Result<Vec<_>, _>>()?;
        let chosen = layers.iter().rev().find_map(|layer| layer.preset).or(self.preset);
        let mut draft = base(chosen).over(base(None));
        for layer in &layers {
            layer.apply(&mut draft)?;
        }
        draft.config.ignored_variables = layers.iter().flat_map(|layer| &layer.ignored).cloned().collect();
        Ok((draft, layers))
    }
}

/// Returns whether Kubernetes sets a variable with this name behind `FOREBAY`. It sets a group of variables for every
/// service of a namespace, and the name of the service begins each of them. A service may be called `forebay`, or
/// `forebay-collector`.
///
/// Source: "Accessing the Service" in the Kubernetes documentation, and Docker's links, whose form they follow:
/// `{SERVICE}_SERVICE_HOST`, `{SERVICE}_SERVICE_PORT[_{NAME}]`, `{SERVICE}_PORT[_{NUMBER}_{PROTOCOL}[_{PART}]]`.
fn is_of_kubernetes(rest: &str) -> bool {
    // The prefix has taken the underscore behind the name.
    let whole = format!("_{rest}");
    if whole.ends_with("_SERVICE_HOST") || whole.ends_with("_PORT") || whole.contains("_SERVICE_PORT_") {
        return true;
    }
    whole.split("_PORT").skip(1).any(|behind| {
        let mut parts = behind.split('_').skip(1);
        let is_number = |part: &str| part.parse::<u16>().is_ok();
        parts.next().is_some_and(is_number)
            && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
            && matches!(parts.next(), None | Some("PROTO" | "PORT" | "ADDR"))
            && parts.next().is_none()
    })
}

/// Settings from one place.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    place: ConfigPlace,
    preset: Option<Preset>,
    entries: Vec<Entry>,
    /// Variables that begin with `FOREBAY_` and are not ours.
    ignored: Vec<String>,
}

#[derive(Clone)]
struct Entry {
    key: &'static Key,
    /// The name that was used.
    name: String,
    /// The value that stands there, and what it means under the setting's own name.
    given: Value,
    value: Value,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.name, self.given)
    }
}

impl Layer {
    fn new(place: ConfigPlace) -> Self {
        Self { place, preset: None, entries: Vec::new(), ignored: Vec::new() }
    }

    pub(super) fn of_table(place: ConfigPlace, table: Map<String, Value>) -> Result<Self, ConfigError> {
        let mut layer = Self::new(place);
        let mut tables = vec![(String::new(), table)];
        while let Some((path, table)) = tables.pop() {
            for (name, given) in table {
                let name = format!("{path}{name}");
                match (keys::find(&name), given) {
                    (Some((key, meant)), given) => {
                        layer.entries.push(Entry { key, name, value: meant(&given), given });
                    }
                    (None, given) if name == PRESET => layer.preset = Some(layer.read_preset(name, &given)?),
                    (None, Value::Object(inner)) if keys::is_table(&name) => {
                        tables.push((format!("{name}."), inner));
                    }
                    (None, _) => return Err(ConfigError::UnknownKey { key: name, place: layer.place }),
                }
            }
        }
        layer.check()?;
        Ok(layer)
    }

    fn of_vars(vars: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, ConfigError> {
        let mut layer = Self::new(ConfigPlace::Environment);
        for (name, value) in vars {
            let name = name.to_string_lossy().into_owned();
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            if value.is_empty() {
                // A shell cannot remove a variable for one command; it can empty it.
                continue;
            }
            let key = KEYS.iter().find(|key| key.variable() == name);
            if key.is_none() && rest != "PRESET" {
                if !is_of_kubernetes(rest) {
                    return Err(ConfigError::UnknownKey { key: name, place: layer.place });
                }
                layer.ignored.push(name);
                continue;
            }
            let text = value.into_string().map_err(|value| ConfigError::InvalidAt {
                field: key.map_or(PRESET, |key| key.name),
                key: name.clone(),
                place: layer.place.clone(),
                value: format!("{value:?}"),
                allowed: "UTF-8".to_owned(),
            })?;
            let given = Value::from(text);
            match key {
                Some(key) => layer.entries.push(Entry { key, name, value: given.clone(), given }),
                None => layer.preset = Some(layer.read_preset(name, &given)?),
            }
        }
        layer.check()?;
        Ok(layer)
    }

    fn read_preset(&self, key: String, given: &Value) -> Result<Preset, ConfigError> {
        let preset = given.as_str().and_then(|name| name.trim().parse().ok());
        preset.ok_or_else(|| ConfigError::InvalidAt {
            key,
            place: self.place.clone(),
            field: PRESET,
            value: given.to_string(),
            allowed: Preset::NAMES.to_owned(),
        })
    }

    /// Checks that every value can be read, and that all names of a setting say the same.
    fn check(&self) -> Result<(), ConfigError> {
        let mut scratch = Draft::new(Config::default());
        let mut values: Vec<(&Entry, Value)> = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            self.set(entry, &mut scratch)?;
            let value = (entry.key.get)(&scratch);
            let other = values.iter().find(|(other, _)| other.key.name == entry.key.name);
            if let Some((other, _)) = other.filter(|(_, before)| *before != value) {
                return Err(ConfigError::Contradiction {
                    keys: (other.name.clone(), entry.name.clone()),
                    values: (other.given.to_string(), entry.given.to_string()),
                    place: self.place.clone(),
                });
            }
            values.push((entry, value));
        }
        Ok(())
    }

    fn set(&self, entry: &Entry, draft: &mut Draft) -> Result<(), ConfigError> {
        (entry.key.set)(draft, &entry.value).map_err(|wrong| match wrong {
            Wrong::Value => self.invalid(entry, entry.given.to_string(), (entry.key.allowed)()),
            Wrong::Part { value, allowed } => self.invalid(entry, value, allowed),
            Wrong::Key(part) => {
                ConfigError::UnknownKey { key: format!("{}.{part}", entry.name), place: self.place.clone() }
            }
        })
    }

    fn apply(&self, draft: &mut Draft) -> Result<(), ConfigError> {
        for entry in &self.entries {
            self.set(entry, draft)?;
        }
        let unused = draft.unused().find_map(|(name, allowed)| Some((self.entry(name)?, allowed)));
        if let Some((entry, allowed)) = unused {
            return Err(self.invalid(entry, entry.given.to_string(), allowed.to_owned()));
        }
        draft.settle()
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key.name == name)
    }

    fn invalid(&self, entry: &Entry, value: String, allowed: String) -> ConfigError {
        let (key, place) = (entry.name.clone(), self.place.clone());
        ConfigError::InvalidAt { key, place, field: entry.key.name, value, allowed }
    }
}

/// The same error, with the name and the place from which the value is, if it is from one.
pub(super) fn with_its_place(error: ConfigError, layers: &[Layer]) -> ConfigError {
    let ConfigError::Invalid { field, value, allowed } = error else { return error };
    // Whatever is wrong inside of a setting, such as `gate.rules.sampling`, is from where that is.
    let part_of = |entry: &Entry| {
        field.strip_prefix(entry.key.field()).filter(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let found_in = |layer| -> Option<(&Layer, &Entry, &str)> {
        let layer: &Layer = layer;
        layer.entries.iter().find_map(|entry| Some((layer, entry, part_of(entry)?)))
    };
    match layers.iter().rev().find_map(found_in) {
        Some((layer, entry, part)) => {
            let (key, place, allowed) =
                (format!("{}{part}", entry.name), layer.place.clone(), allowed.to_owned());
            ConfigError::InvalidAt { key, place, field: entry.key.name, value, allowed }
        }
        None => ConfigError::Invalid { field, value, allowed },
    }
}

impl Config {
    /// Loads settings from several places. See [`ConfigLoader`] for their order.
    pub fn loader() -> ConfigLoader {
        ConfigLoader::new()
    }

    /// The defaults, changed by the variables of this process that begin with `FOREBAY_`.
    ///
    /// # Errors
    ///
    /// As for [`ConfigLoader::load`].
    pub fn from_env() -> Result<Self, ConfigError> {
        ConfigLoader::new().env().load()
    }

    /// Every setting in the tables of a file. Those that are not there are null.
    pub(super) fn to_table(&self) -> Map<String, Value> {
        Draft::new(self.clone()).to_table(|key| !key.is_of_bus())
    }
}

impl Serialize for Config {
    /// A table of all settings, by the keys of a file.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_table().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Config {
    /// As [`ConfigLoader::load`] of one layer: settings that are not there have their defaults, or those of the `preset`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = read_table(deserializer)?;
        let loader = ConfigLoader::new().text(Layer::of_table(ConfigPlace::Given, table));
        loader.load().map_err(serde::de::Error::custom)
    }
}
