//! Values of a record, as curves and tables show them.

use forebay::parts::{Shown, shown_of};
use forebay::{Event, Record, Value};

/// Returns the number that a curve shows of a value: a truth value is 0 or 1.
pub(crate) fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(is) => Some(f64::from(*is)),
        value => value.as_f64(),
    }
}

/// Gives what curves and tables show of a record to `take`: names with values and steps. Of fields, each by itself, under the name of the
/// record; of the events of a run, their metrics, as TensorBoard would show them. What no curve can show has the fields of its record.
pub fn values(record: &Record, take: &mut dyn FnMut(&str, &Value, Option<i64>)) {
    fn each(name: &str, value: &Value, step: Option<i64>, take: &mut dyn FnMut(&str, &Value, Option<i64>)) {
        match value {
            Value::Fields(fields) => {
                fields.iter().for_each(|(inner, value)| each(&format!("{name}/{inner}"), value, step, take));
            }
            value => take(name, value, step),
        }
    }
    let (name, step) = (Event::name(record), record.signed_step());
    match shown_of(record) {
        Shown::Metrics { group, metrics, number } => {
            for (name, value) in metrics.iter() {
                let name = if group.is_empty() { name.to_owned() } else { format!("{group}/{name}") };
                each(&name, value, step.or(number), take);
            }
        }
        Shown::Value => each(name, record.value(), step, take),
        Shown::Text(_) | Shown::Nothing => take(name, record.value(), step),
    }
}
