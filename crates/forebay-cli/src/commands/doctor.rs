//! `forebay doctor`: what is wrong with runs, and what to do.

use std::time::SystemTime;

use forebay::run::RunStatus;
use forebay_history::Run;
use serde_json::json;

use crate::args::Doctor;
use crate::error::Error;
use crate::folder;
use crate::out::Out;

/// What is wrong, and what to do.
struct Finding {
    kind: &'static str,
    what: String,
    advice: &'static str,
}

pub(crate) fn run(asked: &Doctor, out: &mut Out) -> Result<u8, Error> {
    let mut is_well = true;
    let now = SystemTime::now();
    folder::read_whole(&asked.folders.paths, &mut |name, run| {
        let findings = match &run {
            Ok(run) => look(run, now),
            Err(error) => vec![Finding {
                kind: "unreadable",
                what: error.to_string(),
                advice: "look at its permissions, and whether it is what its name says",
            }],
        };
        is_well &= findings.is_empty();
        if asked.json {
            for finding in findings {
                out.line(json!({"run": name, "kind": finding.kind, "what": finding.what, "advice": finding.advice}))?;
            }
            return Ok(());
        }
        out.line(format_args!(
            "{}: {}",
            crate::out::harmless(&name),
            if findings.is_empty() { "well" } else { "not well" }
        ))?;
        for finding in findings {
            out.line(format_args!("  {}: {}", finding.kind, crate::out::harmless(&finding.what)))?;
            out.line(format_args!("    -> {}", finding.advice))?;
        }
        Ok(())
    })?;
    Ok(u8::from(!is_well))
}

fn look(run: &Run, now: SystemTime) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |kind, what, advice| findings.push(Finding { kind, what, advice });
    if run.missing() > 0 {
        let what = format!("{} events were evicted before they were written", run.missing());
        find("gap", what, "raise the capacity of the collector, or sample what comes often");
    }
    if run.not_read() > 0 {
        let what = format!("{} places in its files are no events", run.not_read());
        find(
            "damage",
            what,
            "a writer was killed in the middle of a write, or the disk lost something: what is whole was read",
        );
    }
    if run.has_more() {
        let what = "it has more than 10,000 names: of those that came later, nothing is shown".to_owned();
        find(
            "names",
            what,
            "what changes, such as the id of a sample, belongs into a field, not into a name",
        );
    }
    let status = run.status(now);
    if run.is_torn() && status != Some(RunStatus::Running) {
        let what = "its last event has no end".to_owned();
        find("torn", what, "its writer was killed in the middle of a write: the rest is whole");
    }
    match status {
        Some(RunStatus::Failed) => {
            let what = folder::reason(run).unwrap_or("it gave no reason").to_owned();
            find("failed", what, "`forebay tail` shows what came before");
        }
        Some(RunStatus::Vanished) => {
            let what = run
                .last_event()
                .map_or_else(String::new, |last| format!("nothing for {}", folder::age(last, now)));
            find(
                "vanished",
                what,
                "its process is gone and said nothing: look for the OOM killer, and at the scheduler's log",
            );
        }
        Some(RunStatus::Unclear) => {
            find(
                "clock",
                "its last event is in the future".to_owned(),
                "a clock was set back, or those of two machines differ",
            );
        }
        _ => {}
    }
    for name in run.names() {
        let Some(series) = run.series(name) else { continue };
        if series.non_finite() > 0 {
            let what = format!("{name} has {} numbers that are not finite", series.non_finite());
            find(
                "not finite",
                what,
                "lower the learning rate, clip gradients, or look for a division by zero",
            );
        }
        if series.backward_steps() > 0 && run.lives().len() < 2 {
            let what = format!("{name} went back {} times to an earlier step", series.backward_steps());
            find(
                "steps",
                what,
                "two writers share the name, or the run was resumed: give each a folder of its own",
            );
        }
    }
    findings
}
