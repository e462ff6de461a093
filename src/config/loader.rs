//! `ConfigLoader`: settings from outside of the program, in layers.
//!
//! A layer is a table of values by key. Layers are merged key by key, then serde reads the result. The `config` crate
//! does this as well, but it forgets the place of an unknown key, knows no lines, and reads `true` as 1 and 1.5 as 2.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use serde_path_to_error::{Deserializer as Tracked, Segment, Track};

use super::error::{ConfigError, ConfigPlace};
use super::keys::{Key, PREFIX};
use super::preset::Preset;
use super::settings::Config;
use super::value::{NONE, Parts, candidates, have_one_shape, read_table};

/// The name of the setting that chooses the preset. It is no field of [`Config`].
const PRESET: &str = "preset";

/// Ends of the names of variables that the command line reads: `FOREBAY_TOKEN` is the secret of `forebay serve`. They are no settings.
const OF_COMMAND_LINE: &[&str] = &["TOKEN"];

/// Settings that the loader reads, with a table of keys.
pub trait Settings: Sized {
    /// Names in a file, and tables of such, that are settings of something else. The loader ignores them.
    const PASSED_OVER: &'static [&'static str];

    /// Keys that have no effect unless another key has some value.
    const CHOICES: &'static [Choice];

    /// Returns every key.
    fn keys() -> Vec<&'static Key>;

    /// Returns the settings of a preset, or the defaults.
    fn preset(preset: Option<Preset>) -> Self;

    /// Returns the settings of the collector inside.
    fn collector(&mut self) -> &mut Config;

    /// Returns a table of all keys that have a value.
    fn to_tree(&self) -> Value;

    /// Reads a table of all keys, with [`read`].
    fn from_tree(tree: Value) -> Result<Self, Unread>;

    /// Beginning of the keys that errors of [`check`](Self::check) name without it.
    const PREFIX: &'static str = "";

    /// Checks every setting. In its errors, a field is a key, with or without [`PREFIX`](Self::PREFIX).
    fn check(&self) -> Result<(), ConfigError>;
}

/// Key that has an effect only with some values of another one.
#[derive(Debug)]
pub struct Choice {
    /// The key.
    pub part: &'static str,
    /// The other key.
    pub of: &'static str,
    /// Values of the key.
    pub with: &'static [&'static str],
}

impl Choice {
    fn is_used(&self, tree: &mut Value) -> bool {
        slot(tree, self.of).as_str().is_some_and(|word| self.with.contains(&word))
    }
}

/// Error of a table that cannot be read.
#[derive(Debug)]
pub struct Unread {
    /// The keys and indices that lead to the place.
    path: Vec<String>,
    why: String,
}

impl Unread {
    /// Puts the path below a table.
    #[must_use]
    pub fn within(mut self, table: &str) -> Self {
        self.path.insert(0, table.to_owned());
        self
    }

    /// Returns what is expected, in the words of a file.
    fn expected(&self) -> String {
        let expected = self.why.rsplit_once(", expected ").map_or(&*self.why, |(_, expected)| expected);
        if let Some(name) = expected.strip_prefix("missing field ") {
            return format!("a table with {name}");
        }
        match expected {
            "u32" => format!("a whole number up to {}", u32::MAX),
            "usize" | "u64" => "a whole number".to_owned(),
            "f64" => "a number".to_owned(),
            "a boolean" => "true or false".to_owned(),
            "a string" => "a text".to_owned(),
            "a sequence" => "a list".to_owned(),
            other => other.to_owned(),
        }
    }
}

/// Reads a table and remembers where it fails.
pub fn read<T>(
    tree: Value,
    read: impl FnOnce(Tracked<'_, '_, Value>) -> Result<T, serde_json::Error>,
) -> Result<T, Unread> {
    let mut track = Track::new();
    read(Tracked::new(tree, &mut track)).map_err(|error| {
        let path = track.path();
        let parts = path.iter().filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { .. } | Segment::Unknown => None,
        });
        Unread { path: parts.collect(), why: error.to_string() }
    })
}

/// Returns the entry of a key in a table. It is null where the key has no value.
pub fn slot<'a>(tree: &'a mut Value, key: &str) -> &'a mut Value {
    key.split('.').fold(tree, |tree, part| &mut tree[part])
}

/// Returns the table of all keys. Those without a value are null.
pub fn to_full_tree<S: Settings>(settings: &S) -> Value {
    let mut tree = settings.to_tree();
    for key in S::keys() {
        slot(&mut tree, key.name);
    }
    tree
}

/// Returns the table of all keys, as it is written. A number that TOML does not have becomes a text.
pub fn to_table<S: Settings>(settings: &S) -> Value {
    let mut tree = to_full_tree(settings);
    for key in S::keys() {
        let slot = slot(&mut tree, key.name);
        if slot.is_u64() && !slot.is_i64() {
            *slot = slot.to_string().into();
        }
    }
    tree
}

/// Reads a table, without the keys that have no effect.
pub fn from_full_tree<S: Settings>(mut tree: Value) -> Result<S, Unread> {
    for choice in S::CHOICES {
        if !choice.is_used(&mut tree) {
            slot(&mut tree, choice.part).take();
        }
    }
    S::from_tree(tree)
}

/// Loader of settings from a preset, files and the environment.
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
/// Every key, its variable, its default and what is allowed are in `docs/configuration.md` of the repository. An
/// unknown key is an error, and so is a variable that begins with `FOREBAY_` and is no setting. Four kinds of variables
/// are exceptions. Those of a bus (`FOREBAY_BUS__...`) and that of the command line (`FOREBAY_TOKEN`) are ignored. An
/// empty one counts as unset. One that Kubernetes sets for a service called `forebay` (`FOREBAY_SERVICE_HOST`,
/// `FOREBAY_PORT_80_TCP`) leaves a [warning](Config::warnings).
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use forebay::{Collector, Config, FlushStrategy, config::Preset};
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
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a loader does nothing until `load`"]
pub struct ConfigLoader {
    preset: Option<Preset>,
    files: Vec<Source>,
    variables: Vec<Source>,
}

/// Reader of TOML. Only the methods that take TOML name it, so that a program that calls none of them (the package for Python, which has
/// settings in JSON) has no parser of TOML in it.
#[derive(Debug, Clone, Copy)]
struct Toml {
    read: fn(&str) -> TomlTable,
    /// Returns the byte at which a key of a text stands; 0 if it cannot be found.
    find: fn(&str, &str) -> usize,
}

/// Table of a text, or the byte at which the text is wrong, and why.
type TomlTable = Result<Map<String, Value>, (usize, String)>;

const TOML: Toml = Toml { read: read_toml, find: find_in_toml };

/// Input of the loader.
#[derive(Debug, Clone)]
enum Source {
    File { path: PathBuf, text: Result<String, String>, toml: Toml },
    Text(String, Toml),
    Variables(Vec<(OsString, OsString)>),
    Table(Map<String, Value>),
}

impl ConfigLoader {
    /// Creates a loader that begins with the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the preset that applies where neither a file nor the environment chooses another one.
    pub fn preset(mut self, preset: Preset) -> Self {
        self.preset = Some(preset);
        self
    }

    /// Adds a text in TOML, over the texts and files before it.
    pub fn toml(mut self, text: &str) -> Self {
        self.files.push(Source::Text(text.to_owned(), TOML));
        self
    }

    /// Adds a file in TOML, over the texts and files before it. The file is read now; [`load`](Self::load) returns what is wrong.
    pub fn toml_file(mut self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_owned();
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        self.files.push(Source::File { path, text, toml: TOML });
        self
    }

    /// Adds the variables of this process that begin with `FOREBAY_`, as they are now.
    pub fn env(self) -> Self {
        self.vars(std::env::vars_os())
    }

    /// Adds variables in the place of those of the process. Only those that begin with `FOREBAY_` are read.
    pub fn vars<N: Into<OsString>, V: Into<OsString>>(
        mut self,
        vars: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let vars = vars.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.variables.push(Source::Variables(vars.collect()));
        self
    }

    /// Merges all layers and checks the result.
    ///
    /// # Errors
    ///
    /// The error names the first setting that is wrong, by its key or variable, and the place where it was found. A
    /// key may be unknown, a value unreadable or not allowed, or a file unreadable or no TOML. Two names of one
    /// setting may have different values in one layer. With the strategy or the policy of a layer, something may be
    /// missing, or have no effect. The keys of a bus are ignored.
    pub fn load(self) -> Result<Config, ConfigError> {
        self.load_as()
    }

    /// Loads settings other than those of a collector.
    #[doc(hidden)]
    pub fn load_as<S: Settings>(self) -> Result<S, ConfigError> {
        let sources = self.files.into_iter().chain(self.variables);
        let layers = sources.map(Layer::read::<S>).collect::<Result<Vec<_>, _>>()?;
        let chosen = layers.iter().rev().find_map(|layer| layer.preset).or(self.preset);
        let mut tree = to_full_tree(&S::preset(chosen));
        // The dependent keys of the defaults apply only if a layer chooses their value.
        let mut defaults = to_full_tree(&S::preset(None));
        for choice in S::CHOICES {
            let slot = slot(&mut tree, choice.part);
            if slot.is_null() {
                *slot = self::slot(&mut defaults, choice.part).take();
            }
        }
        for layer in &layers {
            layer.lay_over::<S>(&mut tree)?;
        }
        let mut settings: S = from_full_tree(tree).map_err(|unread| ConfigError::Invalid {
            field: "settings",
            value: unread.path.join("."),
            expected: unread.why.into(),
        })?;
        settings.collector().ignored_variables =
            layers.iter().flat_map(|layer| &layer.ignored).cloned().collect();
        settings.check().map_err(|error| with_its_place::<S>(error, &layers))?;
        Ok(settings)
    }
}

/// Settings from one place.
struct Layer {
    source: Source,
    preset: Option<Preset>,
    entries: Vec<Entry>,
    /// Variables that begin with `FOREBAY_` and are not ours.
    ignored: Vec<String>,
}

struct Entry {
    key: &'static Key,
    /// The name that was used.
    name: String,
    given: Value,
    /// The value that was read, as it is written.
    value: Value,
}

impl Layer {
    fn read<S: Settings>(source: Source) -> Result<Self, ConfigError> {
        let mut layer = Self { source, preset: None, entries: Vec::new(), ignored: Vec::new() };
        let keys = S::keys();
        match &layer.source {
            Source::Table(table) => layer.add_table::<S>(&keys, table.clone())?,
            Source::Variables(variables) => layer.add_variables::<S>(&keys, variables.clone())?,
            Source::Text(text, toml) | Source::File { text: Ok(text), toml, .. } => {
                let table = (toml.read)(text)
                    .map_err(|(byte, why)| ConfigError::Syntax { place: layer.place_of(byte), why })?;
                layer.add_table::<S>(&keys, table)?;
            }
            Source::File { path, text: Err(why), .. } => {
                return Err(ConfigError::Unreadable { path: path.clone(), why: why.clone() });
            }
        }
        Ok(layer)
    }

    fn add_table<S: Settings>(
        &mut self,
        keys: &[&'static Key],
        table: Map<String, Value>,
    ) -> Result<(), ConfigError> {
        let is_table = |name: &str| {
            let is_in = |key: &str| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
            keys.iter().any(|key| key.names().any(|(name, _)| is_in(name)))
        };
        let is_passed_over = |name: &str| {
            let is_in = |it: &&str| {
                name.strip_prefix(*it).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            S::PASSED_OVER.iter().any(is_in)
        };
        let mut tables = vec![(String::new(), table)];
        while let Some((path, table)) = tables.pop() {
            for (name, given) in table {
                let name = format!("{path}{name}");
                let found =
                    keys.iter().find_map(|key| Some((key, key.names().find(|(it, _)| *it == name)?.1)));
                match (found, given) {
                    (Some((key, meant)), given) => self.add::<S>(key, name, meant(&given), given)?,
                    (None, given) if name == PRESET => self.set_preset(name, &given)?,
                    (None, _) if is_passed_over(&name) => {}
                    (None, Value::Object(inner)) if is_table(&name) => {
                        tables.push((format!("{name}."), inner))
                    }
                    (None, _) => return Err(ConfigError::UnknownKey { place: self.place(&name), key: name }),
                }
            }
        }
        Ok(())
    }

    fn add_variables<S: Settings>(
        &mut self,
        keys: &[&'static Key],
        variables: Vec<(OsString, OsString)>,
    ) -> Result<(), ConfigError> {
        for (name, value) in variables {
            let name = name.to_string_lossy().into_owned();
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            // A shell cannot remove a variable for one command; it can empty it.
            let table = rest.split_once("__").map(|(table, _)| table.to_lowercase());
            if value.is_empty() || table.is_some_and(|table| S::PASSED_OVER.contains(&&*table)) {
                continue;
            }
            let key = keys.iter().find(|key| key.variable() == name);
            if key.is_none() && rest != "PRESET" {
                if OF_COMMAND_LINE.contains(&rest) {
                    continue;
                }
                if !is_of_kubernetes(rest) {
                    return Err(ConfigError::UnknownKey { place: self.place(&name), key: name });
                }
                self.ignored.push(name);
                continue;
            }
            let Some(text) = value.to_str() else {
                let field = key.map_or(PRESET, |key| key.name);
                return Err(self.invalid(field, name, format!("{value:?}"), "UTF-8".to_owned()));
            };
            match key {
                Some(key) => self.add::<S>(key, name, text.into(), text.into())?,
                None => self.set_preset(name, &text.into())?,
            }
        }
        Ok(())
    }

    fn set_preset(&mut self, name: String, given: &Value) -> Result<(), ConfigError> {
        self.preset = given.as_str().and_then(|name| name.trim().parse().ok());
        let wrong = || self.invalid(PRESET, name, given.to_string(), Preset::NAMES.to_owned());
        self.preset.map(drop).ok_or_else(wrong)
    }

    /// Adds a value if it can be read and all names of the setting have the same value.
    fn add<S: Settings>(
        &mut self,
        key: &'static Key,
        name: String,
        meant: Value,
        given: Value,
    ) -> Result<(), ConfigError> {
        let value = read_one::<S>(key, &meant).map_err(|(candidate, unread)| {
            let inner = unread.path.get(key.name.split('.').count()..).unwrap_or_default();
            let (mut full, mut found) = (name.clone(), Some(&candidate));
            for part in inner {
                let index = part.parse::<usize>();
                found = found
                    .and_then(|value| index.as_ref().map_or_else(|_| value.get(part), |at| value.get(*at)));
                full += &index.map_or_else(|_| format!(".{part}"), |at| format!("[{at}]"));
            }
            if unread.why.starts_with("unknown field") {
                return ConfigError::UnknownKey { place: self.place(&full), key: full };
            }
            let value = found.filter(|_| !inner.is_empty()).unwrap_or(&given).to_string();
            self.invalid(key.name, full, value, unread.expected())
        })?;
        let before = self.entries.iter().find(|entry| entry.key.name == key.name && entry.value != value);
        if let Some(before) = before {
            return Err(ConfigError::Contradiction {
                keys: Box::new((before.name.clone(), name.clone())),
                values: Box::new((before.given.to_string(), given.to_string())),
                place: self.place(&name),
            });
        }
        self.entries.push(Entry { key, name, given, value });
        Ok(())
    }

    fn lay_over<S: Settings>(&self, tree: &mut Value) -> Result<(), ConfigError> {
        for entry in &self.entries {
            *slot(tree, entry.key.name) = entry.value.clone();
        }
        for Choice { part, of, with } in S::CHOICES {
            let choice = slot(tree, of).as_str().unwrap_or_default().to_owned();
            let (is_used, has_value) = (with.contains(&&*choice), !slot(tree, part).is_null());
            let entry = self.entries.iter().find(|entry| entry.key.name == *part);
            match entry {
                Some(entry) if !is_used && has_value => {
                    let expected = format!("none with {of} = {choice}");
                    return Err(self.invalid(part, entry.name.clone(), entry.given.to_string(), expected));
                }
                _ if is_used && !has_value => {
                    let expected = format!("a value with {of} = {choice}").into();
                    return Err(ConfigError::Invalid { field: part, value: "missing".to_owned(), expected });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn invalid(&self, field: &'static str, key: String, value: String, expected: String) -> ConfigError {
        ConfigError::InvalidAt { place: self.place(&key), key, field, value, expected: expected.into() }
    }

    /// Returns the place of a key.
    fn place(&self, key: &str) -> ConfigPlace {
        let (Source::Text(text, toml) | Source::File { text: Ok(text), toml, .. }) = &self.source else {
            return self.place_of(0);
        };
        self.place_of((toml.find)(text, key))
    }

    /// Returns the line and the column of the byte at this offset. A variable and a table have none.
    fn place_of(&self, byte: usize) -> ConfigPlace {
        let position = |text: &str| {
            let before = text.get(..byte).unwrap_or(text);
            let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
            (before.matches('\n').count() + 1, column)
        };
        match &self.source {
            Source::File { path, text, .. } => {
                let (line, column) = position(text.as_deref().unwrap_or_default());
                ConfigPlace::File { path: path.clone(), line, column }
            }
            Source::Text(text, _) => {
                let (line, column) = position(text);
                ConfigPlace::Text { line, column }
            }
            Source::Variables(_) => ConfigPlace::Environment,
            Source::Table(_) => ConfigPlace::Given,
        }
    }
}

/// Reads one value as that of a key, and returns it as it is written.
pub fn read_one<S: Settings>(key: &Key, meant: &Value) -> Result<Value, (Value, Unread)> {
    let choice = S::CHOICES.iter().find(|choice| choice.part == key.name);
    let mut wrong: Option<(Value, Unread)> = None;
    let defaults = to_full_tree(&S::preset(None));
    let takes_texts = || {
        let mut tree = defaults.clone();
        *slot(&mut tree, key.name) = vec!["text"].into();
        from_full_tree::<S>(tree).is_ok()
    };
    let parts = match slot(&mut defaults.clone(), key.name).is_array() {
        false => Parts::None,
        true if takes_texts() => Parts::Texts,
        true => Parts::Others,
    };
    for candidate in candidates(meant, parts) {
        let mut tree = defaults.clone();
        if let Some(choice) = choice {
            if candidate.is_null() {
                return Ok(candidate);
            }
            *slot(&mut tree, choice.of) = choice.with.first().copied().into();
        }
        *slot(&mut tree, key.name) = candidate.clone();
        // A choice may need a part that the defaults do not have.
        for choice in S::CHOICES.iter().filter(|choice| choice.of == key.name) {
            let is_used = choice.is_used(&mut tree);
            let part = slot(&mut tree, choice.part);
            if is_used && part.is_null() {
                *part = 1.into();
            }
        }
        match from_full_tree::<S>(tree) {
            Ok(settings) => {
                let value = slot(&mut to_full_tree(&settings), key.name).take();
                if have_one_shape(&candidate, &value) {
                    return Ok(value);
                }
            }
            Err(unread) if wrong.as_ref().is_none_or(|(_, before)| unread.path.len() > before.path.len()) => {
                wrong = Some((candidate, unread));
            }
            Err(_) => {}
        }
    }
    Err(wrong.unwrap_or_else(|| (meant.clone(), Unread { path: Vec::new(), why: "a table".to_owned() })))
}

/// Adds the name and the place of the value to an error, if the value is from a layer.
fn with_its_place<S: Settings>(error: ConfigError, layers: &[Layer]) -> ConfigError {
    let ConfigError::Invalid { field, value, expected } = error else { return error };
    // An error inside of a setting, such as `gate.rules.sampling`, has the place of that setting.
    let part_of = |key: &str| field.strip_prefix(key).filter(|rest| rest.is_empty() || rest.starts_with('.'));
    let found_in = |layer| -> Option<(&Layer, &Entry, &str)> {
        let layer: &Layer = layer;
        layer.entries.iter().find_map(|entry| {
            let name = entry.key.name;
            let part = part_of(name).or_else(|| part_of(name.strip_prefix(S::PREFIX)?))?;
            Some((layer, entry, part))
        })
    };
    match layers.iter().rev().find_map(found_in) {
        Some((layer, entry, part)) => ConfigError::InvalidAt {
            place: layer.place(&format!("{}{part}", entry.name)),
            key: format!("{}{part}", entry.name),
            field: entry.key.name,
            value,
            expected: expected.into(),
        },
        None => ConfigError::Invalid { field, value, expected },
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

fn read_toml(text: &str) -> TomlTable {
    match toml::from_str::<toml::Table>(text) {
        Ok(table) => Ok(table.into_iter().map(|(name, value)| (name, from_toml(value))).collect()),
        Err(error) => Err((error.span().map_or(0, |span| span.start), error.message().to_owned())),
    }
}

fn find_in_toml(text: &str, key: &str) -> usize {
    let Ok(root) = toml::de::DeTable::parse(text) else { return 0 };
    let (mut table, mut start, mut rest) = (Some(root.get_ref()), 0, Some(key));
    while let (Some(inside), Some(path)) = (table, rest) {
        // A name in quotes may have dots.
        let (part, behind) = match inside.get_key_value(path) {
            Some(_) => (path, None),
            None => path.split_once(['.', '[']).map_or((path, None), |(part, rest)| (part, Some(rest))),
        };
        let Some((name, value)) = inside.get_key_value(part) else { break };
        (table, start, rest) = (value.get_ref().as_table(), name.span().start, behind);
    }
    start
}

/// Converts a value from TOML. A value that JSON does not have becomes a text.
fn from_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => {
            serde_json::Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number)
        }
        toml::Value::Boolean(is_on) => is_on.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(all) => all.into_iter().map(from_toml).collect(),
        toml::Value::Table(table) => {
            Value::Object(table.into_iter().map(|(name, value)| (name, from_toml(value))).collect())
        }
    }
}

/// Returns the settings as TOML.
pub fn write<S: Settings>(settings: &S) -> String {
    /// Removes nulls, which TOML does not have.
    fn without_null(value: Value) -> Value {
        match value {
            Value::Null => NONE.into(),
            Value::Object(table) => {
                table.into_iter().map(|(name, value)| (name, without_null(value))).collect()
            }
            other => other,
        }
    }
    toml::Table::try_from(without_null(to_table(settings))).unwrap_or_default().to_string()
}

/// Reads settings from any format, as one layer.
pub fn deserialize<'de, S: Settings, D: Deserializer<'de>>(deserializer: D) -> Result<S, D::Error> {
    let source = Source::Table(read_table(deserializer)?);
    let loader = ConfigLoader { files: vec![source], ..ConfigLoader::default() };
    loader.load_as().map_err(serde::de::Error::custom)
}

impl Config {
    /// Loads settings from several places. See [`ConfigLoader`] for their order.
    pub fn loader() -> ConfigLoader {
        ConfigLoader::new()
    }

    /// Returns the defaults, changed by the variables of this process that begin with `FOREBAY_`.
    ///
    /// # Errors
    ///
    /// As for [`ConfigLoader::load`].
    pub fn from_env() -> Result<Self, ConfigError> {
        ConfigLoader::new().env().load()
    }

    /// Returns the defaults, changed by a text in TOML. The environment is not asked.
    ///
    /// # Errors
    ///
    /// As for [`ConfigLoader::load`].
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        ConfigLoader::new().toml(text).load()
    }

    /// Returns the defaults, changed by a file in TOML. The environment is not asked.
    ///
    /// # Errors
    ///
    /// As for [`ConfigLoader::load`].
    pub fn from_toml_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        ConfigLoader::new().toml_file(path).load()
    }

    /// Returns every setting, in TOML that [`from_toml`](Self::from_toml) reads as the same settings.
    ///
    /// Two values cannot be written there. The text `none` for a session id, a source or a host is read as none. A
    /// pattern of the gate that [is none](crate::Pattern::new) is refused.
    pub fn to_toml(&self) -> String {
        write(self)
    }
}

impl Serialize for Config {
    /// Serializes a table of all settings, by the keys of a file.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        to_table(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Config {
    /// Deserializes settings like [`ConfigLoader::load`] of one layer. Missing settings have their defaults, or those
    /// of the `preset`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        self::deserialize(deserializer)
    }
}
