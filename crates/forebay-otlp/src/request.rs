//! Requests: where events come from, around the events.

use std::collections::BTreeMap;

use forebay::Batch;

use crate::attributes::{put_integer, put_text};
use crate::wire::Wire;

/// Appends the attributes of a resource: the collector that the events come from. `fixed` goes first, so it wins.
/// <https://opentelemetry.io/docs/specs/semconv/resource/>.
pub(crate) fn resource<E>(out: &mut Vec<u8>, batch: &Batch<E>, fixed: &BTreeMap<String, String>) {
    let origin = batch.origin();
    for (key, value) in fixed {
        put_text(out, 1, key, value);
    }
    let mut texts = vec![
        ("service.name", origin.source.as_deref().unwrap_or("unknown_service")),
        ("service.instance.id", &origin.session_id),
        ("host.name", &origin.host),
        ("forebay.session", &origin.session_id),
    ];
    let mut integers = vec![("process.pid", i64::from(origin.pid))];
    if let Some(rank) = origin.rank {
        integers.push(("forebay.rank", crate::attributes::saturated(rank)));
    }
    if let Some(run) = batch.run() {
        texts.push(("forebay.run_id", &run.run_id));
        texts.extend(run.name.as_deref().map(|name| ("forebay.run_name", name)));
        integers.push(("forebay.generation", crate::attributes::saturated(run.generation)));
    }
    for (key, value) in texts.into_iter().filter(|(key, _)| !fixed.contains_key(*key)) {
        put_text(out, 1, key, value);
    }
    for (key, value) in integers.into_iter().filter(|(key, _)| !fixed.contains_key(*key)) {
        put_integer(out, 1, key, value);
    }
}

/// Appends a request of logs or of metrics, which have the same outer form: `resource` as above, and `events` as the fields 2 of a scope.
pub(crate) fn envelope(out: &mut Vec<u8>, resource: &[u8], events: impl FnOnce(&mut Vec<u8>)) {
    out.message(1, |out| {
        out.bytes(1, resource);
        out.message(2, |out| {
            out.message(1, |out| {
                out.bytes(1, b"forebay");
                out.bytes(2, env!("CARGO_PKG_VERSION").as_bytes());
            });
            events(out);
        });
    });
}
