//! Hyper-parameters and metrics of a run.

use std::time::{SystemTime, UNIX_EPOCH};

use forebay::event::Encoded;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use tfevents::{
    Domain, EXPERIMENT, HparamInfo, HparamType, MetricInfo, SESSION_END, SESSION_START, SessionStatus,
    Setting, Summary,
};

/// Hyper-parameter: its name, its value, and the values that it may have.
pub(crate) type SettingRow = (String, PlainSetting, Option<Vec<PlainSetting>>);

/// Hyper-parameter as it comes from Python. A truth value is a number there, as in PyTorch.
#[derive(FromPyObject)]
pub(crate) enum PlainSetting {
    Number(f64),
    /// As Python holds it: it is encoded in the call, and not copied before.
    Text(PyBackedStr),
}

impl PlainSetting {
    fn as_setting(&self) -> Setting<'_> {
        match self {
            Self::Number(number) => Setting::Number(*number),
            Self::Text(text) => Setting::Text(text),
        }
    }
}

/// Returns the three summaries that TensorBoard's table of hyper-parameters reads: of all runs, of the begin of this one, and of its end.
pub(crate) fn encode(settings: &[SettingRow], metrics: &[(String, f64)]) -> [Encoded; 3] {
    let domains: Vec<Option<Vec<Setting<'_>>>> = settings
        .iter()
        .map(|(_, _, domain)| Some(domain.as_ref()?.iter().map(PlainSetting::as_setting).collect()))
        .collect();
    let hparams = settings.iter().zip(&domains).map(|((name, value, _), domain)| HparamInfo {
        name,
        kind: match value {
            PlainSetting::Number(_) => HparamType::Number,
            PlainSetting::Text(_) => HparamType::Text,
        },
        domain: domain.as_deref().map(Domain::Discrete),
        ..HparamInfo::default()
    });
    let hparams: Vec<HparamInfo<'_>> = hparams.collect();
    let metrics = metrics.iter().map(|(tag, _)| MetricInfo { tag, ..MetricInfo::default() });
    let metrics: Vec<MetricInfo<'_>> = metrics.collect();
    let settings = settings.iter().map(|(name, value, _)| (name.as_str(), value.as_setting()));
    let settings: Vec<(&str, Setting<'_>)> = settings.collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let encoded = |tag: &str, summary: Summary<'_>| {
        let mut message = Vec::new();
        summary.encode(tag, &mut message);
        Encoded::Summary(message.into())
    };
    [
        encoded(EXPERIMENT, Summary::Experiment { hparams: &hparams, metrics: &metrics }),
        encoded(SESSION_START, Summary::SessionStart { group: "", settings: &settings, began_at: now }),
        encoded(SESSION_END, Summary::SessionEnd { status: SessionStatus::Success, ended_at: now }),
    ]
}
